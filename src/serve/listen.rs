//! Where connections come in: the sockets that the options ask for or systemd has passed, and what the log says of them.

use std::net::SocketAddr;
use std::os::unix::fs::lchown;

use log::{debug, info, warn};
use serde::{Deserialize, Serialize};

use super::rules;
use super::setup::{SetupError, failed_to};
use crate::options::{ServeOptions, Served};
use crate::process::RunAs;
use crate::transport::address::Address;
use crate::transport::listener::Listener;
use crate::transport::unix_listener::UnixSocket;
use crate::transport::{inherited, tcp_listener};
use crate::util::service_key::ServiceKey;

/// Why a socket is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Origin {
    /// For this address.
    Of(Address),
    /// Systemd has passed it, under this name.
    Passed(Option<String>),
}

/// The sockets of one origin: a name may stand for several addresses.
pub(super) struct Group {
    pub(super) origin: Origin,
    pub(super) sockets: Vec<Listener>,
    /// The server that alone is served there, if it is one's alone.
    pub(super) door: Option<ServiceKey>,
}

/// The listening sockets.
pub(super) struct Listening {
    pub(super) groups: Vec<Group>,
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
            groups: bind(options, servers, &wanted, &[])?,
        });
    }
    if !names_addresses(options, servers) {
        let all: Vec<&Listener> = passed.iter().map(|(socket, _)| socket).collect();
        let summary = join(&all);
        let groups = passed.into_iter().map(|(socket, name)| {
            let door = name.as_deref().and_then(|name| key_of(servers, name));
            if let Some(name) = name.as_ref().filter(|_| door.is_none()) {
                debug!("the names of systemd's sockets mean nothing here: {name}");
            }
            Group {
                origin: Origin::Passed(name),
                sockets: vec![socket],
                door,
            }
        });
        let groups = groups.collect();
        return Ok(Listening { groups, summary });
    }
    Err(failed_to("cannot listen")(
        "systemd has passed sockets (LISTEN_FDS), which take the place of --listen, --host and --port \
         (leave out these, or do without the socket unit)",
    ))
}

/// Whether the user says where to listen.
pub(super) fn names_addresses(options: &ServeOptions, servers: &[Served]) -> bool {
    let is_own = |served: &Served| !served.options.listen.is_empty();
    !options.listen.is_empty() || options.names_host_or_port() || servers.iter().any(is_own)
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
pub(super) fn addresses(
    options: &ServeOptions,
    servers: &[Served],
) -> Vec<(Address, Option<ServiceKey>)> {
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
pub(super) fn key_of(servers: &[Served], name: &str) -> Option<ServiceKey> {
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

/// Binds all of these. `beside` are addresses that this program listens on already.
pub(super) fn bind(
    options: &ServeOptions,
    servers: &[Served],
    wanted: &[(Address, Option<ServiceKey>)],
    beside: &[SocketAddr],
) -> Result<Vec<Group>, SetupError> {
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
        .chain(beside)
        .copied()
        .collect();
    let mut groups = Vec::new();
    for (address, addresses, door) in resolved {
        let sockets = match address {
            Address::Tcp { .. } => {
                let bound = tcp_listener::bind(&addresses, &all).map_err(failed(address, door))?;
                bound.into_iter().map(Listener::Tcp).collect()
            }
            Address::Unix(path) => {
                let bound =
                    UnixSocket::bind(path, options.unix_mode).map_err(failed(address, door))?;
                vec![Listener::Unix(bound)]
            }
        };
        groups.push(Group {
            origin: Origin::Of(address.clone()),
            sockets,
            door,
        });
    }
    Ok(groups)
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
    use crate::entrance::Name;
    use crate::options::ServerOptions;
    use crate::util::captured_log::captured;

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

    fn served(name: Option<&str>, listen: &[&str]) -> Served {
        let listen = listen.iter().map(|path| Address::Unix((*path).into()));
        let mut served = Served::only(ServerOptions {
            listen: listen.collect(),
            ..ServerOptions::default()
        });
        served.name = name.and_then(Name::new);
        served
    }

    #[test]
    fn servers_may_have_addresses_of_their_own() {
        let servers = [
            served(Some("files"), &[]),
            served(Some("weather"), &["a", "b"]),
        ];
        let options = ServeOptions {
            listen: vec![Address::Unix("c".into())],
            ..ServeOptions::default()
        };
        let all = addresses(&options, &servers);
        let all: Vec<_> = all
            .iter()
            .map(|(address, door)| (address.to_string(), door.map(|key| key.0)))
            .collect();
        let expected = [("unix:c", None), ("unix:a", Some(1)), ("unix:b", Some(1))];
        assert_eq!(
            all,
            expected.map(|(address, door)| (address.to_owned(), door))
        );
        assert_eq!(key_of(&servers, "weather"), Some(ServiceKey(1)));
        assert_eq!(key_of(&servers, "music"), None);
    }

    #[test]
    fn the_user_says_where_to_listen_in_one_of_several_ways() {
        let none = ServeOptions::default();
        assert!(!names_addresses(&none, &[served(None, &[])]));
        assert!(names_addresses(
            &none,
            &[served(None, &[]), served(None, &["a"])]
        ));
        let with_port = ServeOptions {
            port: Some(7),
            ..ServeOptions::default()
        };
        assert!(names_addresses(&with_port, &[]));
        let with_address = ServeOptions {
            listen: vec![Address::Unix("c".into())],
            ..ServeOptions::default()
        };
        assert!(names_addresses(&with_address, &[]));
    }

    /// What is logged of a socket at this address.
    fn logged(address: &str, options: &ServeOptions) -> Vec<String> {
        let address: SocketAddr = address.parse().unwrap();
        let mut bound = tcp_listener::bind(&[address], &[address]).unwrap();
        let socket = Listener::Tcp(bound.pop().unwrap());
        let port = socket.tcp_address().unwrap().port().to_string();
        let lines = captured(|| {
            log(&socket, Some("files"), options);
            log_status(&socket, options);
        });
        lines.iter().map(|line| line.replace(&port, "7")).collect()
    }

    #[test]
    fn what_is_open_to_others_is_warned_of() {
        let mut options = ServeOptions {
            status_public: true,
            ..ServeOptions::default()
        };
        let near = logged("127.0.0.1:0", &options);
        assert_eq!(
            near,
            [
                "INFO: TCP proxy listening on 127.0.0.1:7 for files",
                "INFO: status at http://127.0.0.1:7/",
            ]
        );
        let [_, anyone, _, seen] = &logged("0.0.0.0:0", &options)[..] else {
            panic!("two of the four are warnings");
        };
        assert!(
            anyone.starts_with("WARN: anyone who reaches 0.0.0.0:7 can run"),
            "{anyone}"
        );
        assert!(
            seen.starts_with("WARN: anyone who reaches 0.0.0.0:7 can see"),
            "{seen}"
        );
        options.status_public = false;
        options.token_file = Some("tokens".into());
        let [_, plain, _] = &logged("0.0.0.0:0", &options)[..] else {
            panic!("one of the three is a warning");
        };
        assert!(plain.contains("takes tokens in plain text"), "{plain}");
        options.tls_cert = Some("certificate".into());
        assert_eq!(logged("0.0.0.0:0", &options).len(), 2);
    }

    #[test]
    fn an_address_that_can_not_be_had_is_named_with_the_option_that_asks_for_it() {
        let missing = |name| Address::Unix(format!("/no/such/directory/{name}").into());
        let options = ServeOptions {
            listen: vec![missing("a")],
            ..ServeOptions::default()
        };
        let servers = [served(Some("files"), &[])];
        let error = |address, door| {
            let bound = bind(&options, &servers, &[(address, door)], &[]);
            bound.err().unwrap().to_string()
        };
        assert!(error(missing("a"), None).contains("(--listen)"));
        assert!(error(missing("b"), None).contains("(--host, --port)"));
        assert!(error(missing("b"), Some(ServiceKey::ONLY)).contains("(listen of files)"));
    }

    #[test]
    fn those_who_ask_how_things_are_have_a_socket_of_their_own() {
        let mut options = ServeOptions::default();
        assert!(open_status(&options).unwrap().is_empty());
        options.status = Some(Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 0,
        });
        assert_eq!(open_status(&options).unwrap().len(), 1);
        options.status = Some(Address::Unix("/no/such/directory/s".into()));
        let error = open_status(&options).unwrap_err().to_string();
        assert!(error.contains("(--status)"), "{error}");
    }
}
