//! Where connections come in: the sockets that the options ask for or systemd has passed, and what the log says of them.

use std::net::SocketAddr;
use std::os::unix::fs::lchown;

use log::{info, warn};

use super::rules;
use super::setup::{SetupError, failed_to};
use crate::options::ServeOptions;
use crate::process::RunAs;
use crate::transport::address::Address;
use crate::transport::listener::Listener;
use crate::transport::unix_listener::UnixSocket;
use crate::transport::{inherited, tcp_listener};

/// The listening sockets.
pub(super) struct Listening {
    pub(super) sockets: Vec<Listener>,
    /// What the program was told to listen on, by its options or by systemd.
    pub(super) summary: String,
}

/// Opens all that the options ask for, unless there are sockets of systemd.
pub(super) fn open(options: &ServeOptions) -> Result<Listening, SetupError> {
    let passed = inherited::take().map_err(failed_to("cannot listen"))?;
    if passed.is_empty() {
        return Ok(Listening {
            sockets: bind(options)?,
            summary: join(&options.addresses()),
        });
    }
    if options.listen.is_empty() && !options.names_host_or_port() {
        return Ok(Listening {
            summary: join(&passed),
            sockets: passed,
        });
    }
    Err(failed_to("cannot listen")(
        "systemd has passed sockets (LISTEN_FDS), which take the place of --listen, --host and --port \
         (leave out these, or do without the socket unit)",
    ))
}

/// Opens what those connect to who ask how things are.
pub(super) fn open_status(options: &ServeOptions) -> Result<Listening, SetupError> {
    let Some(address) = &options.status else {
        return Ok(Listening {
            sockets: Vec::new(),
            summary: String::new(),
        });
    };
    let failed = || failed_to(format!("cannot listen on {address} (--status)"));
    let sockets = match address {
        Address::Tcp { host, port } => tcp_listener::resolve(host, *port)
            .and_then(|all| tcp_listener::bind(&all, &all))
            .map_err(failed())?
            .into_iter()
            .map(Listener::Tcp)
            .collect(),
        Address::Unix(path) => {
            let bound = UnixSocket::bind(path, options.unix_mode).map_err(failed())?;
            vec![Listener::Unix(bound)]
        }
    };
    Ok(Listening {
        sockets,
        summary: address.to_string(),
    })
}

impl Listening {
    /// Has the unix sockets that were made here belong to a user whom the program is about to become.
    pub(super) fn give_to(&self, user: &RunAs) -> Result<(), SetupError> {
        for socket in &self.sockets {
            if let Listener::Unix(unix) = socket
                && let Some(path) = unix.path()
            {
                let (uid, gid) = user.owner();
                lchown(path, Some(uid.as_raw()), Some(gid.as_raw())).map_err(failed_to(
                    format!("cannot give {socket} to {user} (--user)"),
                ))?;
            }
        }
        Ok(())
    }
}

fn join(all: &[impl ToString]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join(", ")
}

fn bind(options: &ServeOptions) -> Result<Vec<Listener>, SetupError> {
    let failed = |address: &Address| {
        let is_listed = options.listen.contains(address);
        let flags = if is_listed {
            "--listen"
        } else {
            "--host, --port"
        };
        failed_to(format!("cannot listen on {address} ({flags})"))
    };
    let mut resolved = Vec::new();
    for address in options.addresses() {
        let addresses = match &address {
            Address::Tcp { host, port } => tcp_listener::resolve(host, *port),
            Address::Unix(_) => Ok(Vec::new()),
        };
        let addresses = addresses.map_err(failed(&address))?;
        resolved.push((address, addresses));
    }
    let all: Vec<_> = resolved.iter().flat_map(|(_, all)| all).copied().collect();
    let mut listeners = Vec::new();
    for (address, addresses) in &resolved {
        match address {
            Address::Tcp { .. } => {
                let bound = tcp_listener::bind(addresses, &all).map_err(failed(address))?;
                listeners.extend(bound.into_iter().map(Listener::Tcp));
            }
            Address::Unix(path) => {
                let bound = UnixSocket::bind(path, options.unix_mode).map_err(failed(address))?;
                listeners.push(Listener::Unix(bound));
            }
        }
    }
    Ok(listeners)
}

/// Says where a socket listens, and whether that is open to everyone.
pub(super) fn log(socket: &Listener, options: &ServeOptions) {
    let Some(address) = socket.tcp_address() else {
        return info!("proxy listening on {socket}");
    };
    info!("TCP proxy listening on {address}");
    if address.ip().is_loopback() {
        return;
    }
    if is_guarded(options) {
        warn_of_plain_text(address, options);
    } else {
        warn!(
            "anyone who reaches {address} can run this server; --host 127.0.0.1, --token-file or --allow \
             keep others out"
        );
    }
}

/// Says where those can ask who want to know how things are, and whether that is open to everyone.
pub(super) fn log_status(socket: &Listener, options: &ServeOptions) {
    let Some(address) = socket.tcp_address() else {
        return info!("status at {socket}");
    };
    info!("status at http://{address}/");
    if options.status_public && !address.ip().is_loopback() {
        warn!(
            "anyone who reaches {address} can see who is connected and how busy they are (--status-public)"
        );
    }
}

/// A token that is sent in plain text is anybody's who can read on the way.
fn warn_of_plain_text(address: SocketAddr, options: &ServeOptions) {
    if options.token_file.is_some() && options.tls_cert.is_none() {
        warn!(
            "{address} takes tokens in plain text: whoever can read what passes on the way to it has them (--tls-cert)"
        );
    }
}

/// Whether not everyone who can connect can use the server: clients need a token, a certificate, or an address of a network
/// that is allowed.
pub(super) fn is_guarded(options: &ServeOptions) -> bool {
    rules::keep_strangers_out(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_listed_with_commas() {
        assert_eq!(join(&["a", "b"]), "a, b");
        assert_eq!(join(&["a"]), "a");
    }

    #[test]
    fn a_token_guards_the_server() {
        assert!(!is_guarded(&ServeOptions::default()));
        let with_tokens = ServeOptions {
            token_file: Some("tokens".into()),
            ..ServeOptions::default()
        };
        assert!(is_guarded(&with_tokens));
    }
}
