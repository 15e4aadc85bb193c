//! Where connections come in: the sockets that the options ask for or systemd has passed, and what the log says of them.

use std::net::SocketAddr;
use std::os::unix::fs::lchown;

use log::{debug, info, warn};

use super::rules;
use super::setup::{SetupError, failed_to};
use crate::options::{ServeOptions, Served};
use crate::process::RunAs;
use crate::transport::address::Address;
use crate::transport::listener::Listener;
use crate::transport::unix_listener::UnixSocket;
use crate::transport::{inherited, tcp_listener};
use crate::util::service_key::ServiceKey;

/// A socket, and the server that alone is served there, if it is one's alone.
type Socket = (Listener, Option<ServiceKey>);

/// The listening sockets.
pub(super) struct Listening {
    pub(super) sockets: Vec<Socket>,
    /// What the program was told to listen on, by its options or by systemd.
    pub(super) summary: String,
}

/// Opens all that the options ask for, unless there are sockets of systemd.
pub(super) fn open(options: &ServeOptions, servers: &[Served]) -> Result<Listening, SetupError> {
    let passed = inherited::take().map_err(failed_to("cannot listen"))?;
    let wanted = addresses(options, servers);
    if passed.is_empty() {
        if wanted.is_empty() {
            return Err(failed_to("cannot listen")(
                "there is no address (\"listen\" in the configuration, --listen, or a socket unit of systemd)",
            ));
        }
        let all: Vec<&Address> = wanted.iter().map(|(address, _)| address).collect();
        return Ok(Listening {
            summary: join(&all),
            sockets: bind(options, servers, &wanted)?,
        });
    }
    let is_own = |served: &Served| !served.options.listen.is_empty();
    if options.listen.is_empty() && !options.names_host_or_port() && !servers.iter().any(is_own) {
        let sockets: Vec<Socket> = passed
            .into_iter()
            .map(|(socket, name)| {
                let key = name.as_deref().and_then(|name| key_of(servers, name));
                if let Some(name) = name.filter(|_| key.is_none()) {
                    debug!("the names of systemd's sockets mean nothing here: {name}");
                }
                (socket, key)
            })
            .collect();
        let all: Vec<&Listener> = sockets.iter().map(|(socket, _)| socket).collect();
        return Ok(Listening {
            summary: join(&all),
            sockets,
        });
    }
    Err(failed_to("cannot listen")(
        "systemd has passed sockets (LISTEN_FDS), which take the place of --listen, --host and --port \
         (leave out these, or do without the socket unit)",
    ))
}

/// Opens what those connect to who ask how things are.
pub(super) fn open_status(options: &ServeOptions) -> Result<Vec<Listener>, SetupError> {
    let Some(address) = &options.status else {
        return Ok(Vec::new());
    };
    let failed = || failed_to(format!("cannot listen on {address} (--status)"));
    Ok(match address {
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
    })
}

/// All addresses, each with the server that alone is served there.
fn addresses(options: &ServeOptions, servers: &[Served]) -> Vec<(Address, Option<ServiceKey>)> {
    let common = options
        .addresses()
        .into_iter()
        .map(|address| (address, None));
    let own = servers.iter().enumerate().flat_map(|(key, served)| {
        let all = served.options.listen.iter().cloned();
        all.map(move |address| (address, Some(ServiceKey(key))))
    });
    common.chain(own).collect()
}

/// The server of this name, by which a socket unit may call a socket.
fn key_of(servers: &[Served], name: &str) -> Option<ServiceKey> {
    let is_this = |served: &Served| served.name.as_ref().is_some_and(|it| it.as_str() == name);
    servers.iter().position(is_this).map(ServiceKey)
}

/// Has the unix sockets among these belong to a user whom the program is about to become.
pub(super) fn give_to<'a>(
    user: &RunAs,
    sockets: impl IntoIterator<Item = &'a Listener>,
) -> Result<(), SetupError> {
    for socket in sockets {
        if let Listener::Unix(unix) = socket
            && let Some(path) = unix.path()
        {
            let (uid, gid) = user.owner();
            lchown(path, Some(uid.as_raw()), Some(gid.as_raw())).map_err(failed_to(format!(
                "cannot give {socket} to {user} (--user)"
            )))?;
        }
    }
    Ok(())
}

fn join(all: &[impl ToString]) -> String {
    let all: Vec<String> = all.iter().map(ToString::to_string).collect();
    all.join(", ")
}

fn bind(
    options: &ServeOptions,
    servers: &[Served],
    wanted: &[(Address, Option<ServiceKey>)],
) -> Result<Vec<Socket>, SetupError> {
    let failed = |address: &Address, key: Option<ServiceKey>| {
        let owner = key.and_then(|key| servers[key.0].name.as_ref());
        let flags = match owner {
            Some(name) => format!("listen of {name}"),
            None if options.listen.contains(address) => "--listen".to_owned(),
            None => "--host, --port".to_owned(),
        };
        failed_to(format!("cannot listen on {address} ({flags})"))
    };
    let mut resolved = Vec::new();
    for (address, door) in wanted {
        let addresses = match address {
            Address::Tcp { host, port } => tcp_listener::resolve(host, *port),
            Address::Unix(_) => Ok(Vec::new()),
        };
        let addresses = addresses.map_err(failed(address, *door))?;
        resolved.push((address, addresses, *door));
    }
    let all: Vec<_> = resolved
        .iter()
        .flat_map(|(_, all, _)| all)
        .copied()
        .collect();
    let mut listeners = Vec::new();
    for (address, addresses, door) in resolved {
        match address {
            Address::Tcp { .. } => {
                let bound = tcp_listener::bind(&addresses, &all).map_err(failed(address, door))?;
                listeners.extend(bound.into_iter().map(|it| (Listener::Tcp(it), door)));
            }
            Address::Unix(path) => {
                let bound =
                    UnixSocket::bind(path, options.unix_mode).map_err(failed(address, door))?;
                listeners.push((Listener::Unix(bound), door));
            }
        }
    }
    Ok(listeners)
}

/// Says where a socket listens, and whether that is open to everyone.
pub(super) fn log(socket: &Listener, owner: Option<&str>, options: &ServeOptions) {
    let owner = owner.map_or_else(String::new, |name| format!(" for {name}"));
    let Some(address) = socket.tcp_address() else {
        return info!("proxy listening on {socket}{owner}");
    };
    info!("TCP proxy listening on {address}{owner}");
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
