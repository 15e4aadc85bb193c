//! What can be set: plain data and defaults. Where the values come from is for `cli` to know.

mod bench;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use log::LevelFilter;

use crate::entrance::{DEFAULT_TIMEOUT, Name, Network};
use crate::logger::Format;
use crate::resume::DEFAULT_TIMEOUT as DEFAULT_RESUME_TIMEOUT;
use crate::session::Spawn;
use crate::session::stderr::ServerLogging;
use crate::transport::address::Address;

pub use self::bench::{BenchOptions, EXEC_PREFIX, EraChoice, Target};

/// The host to listen on if none is given: all IPv4 addresses.
const DEFAULT_HOST: &str = "0.0.0.0";

/// The port to listen on, and to connect to, if none is given.
pub const DEFAULT_PORT: u16 = 8080;

/// How long a client may take to send its first message, if nothing else is wanted: no person is that slow, and what a
/// health check leaves open costs a server.
pub const DEFAULT_FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_mins(5);

const DEFAULT_MAX_MESSAGE_BYTES: usize = 10 * 1024 * 1024;

/// What the serving side does, each value within its range: what concerns the proxy as a whole, and what is served.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch that has nothing to do with the others"
)]
#[derive(Clone, Debug, PartialEq)]
pub struct ServeOptions {
    /// Where the program lies that goes on after an upgrade. `None`: where this one was found.
    pub upgrade_from: Option<PathBuf>,
    /// A host name or an IP address, without brackets; not resolved yet. `None`: not given.
    pub host: Option<String>,
    /// The TCP port; 0 picks a free one. `None`: not given.
    pub port: Option<u16>,
    /// Where else to listen.
    pub listen: Vec<Address>,
    /// The permissions of unix sockets: 0 to 0777.
    pub unix_mode: u32,
    /// Networks from which clients may come; any, if there are none.
    pub allow: Vec<Network>,
    /// Whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<Balancer>,
    /// The file with the tokens that let clients in.
    pub token_file: Option<PathBuf>,
    /// Whether clients over unix sockets need none.
    pub token_exempt_unix: bool,
    /// How long a connection may take to be let in: 10 ms to one day.
    pub entrance_timeout: Duration,
    /// Sessions at a time of one address: 1 to 1,000,000. `None`: no limit of its own.
    pub max_sessions_per_address: Option<usize>,
    /// Sessions at a time of one client, by the name of its token or certificate: as before.
    pub max_sessions_per_client: Option<usize>,
    /// The least severe messages that are logged.
    pub log_level: LevelFilter,
    /// What the lines of the log look like.
    pub log_format: Format,
    /// What all sessions may hold in buffers beyond 64 KiB each: 1 to 2^40. `None`: as much as the system makes advisable.
    pub max_buffer_bytes: Option<usize>,
    /// Sessions at a time: 1 to 1,000,000. `None`: as many as the limit on open files allows.
    pub max_sessions: Option<usize>,
    /// How long a stop may take: 10 ms to one day.
    pub stop_timeout: Duration,
    /// How long new sessions are served after the signal to stop: up to one day.
    pub drain_delay: Duration,
    /// Where those are answered who ask how things are.
    pub status: Option<Address>,
    /// Names under which they may ask, besides addresses and `localhost`.
    pub status_host: Vec<String>,
    /// Whether those on other machines may see everything.
    pub status_public: bool,
    /// How long a session is kept of which the connection is lost: 10 ms to one day. `None`: not at all.
    pub resume_timeout: Option<Duration>,
    /// Servers that may be starting up at a time: 1 to 100,000.
    pub max_starting: usize,
    /// The certificate of this side of TLS, with those between it and its authority. With it comes a key.
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate.
    pub tls_key: Option<PathBuf>,
    /// The authority of the certificates that clients need; only with a certificate of our own.
    pub tls_client_ca: Option<PathBuf>,
    /// Which of these are revoked.
    pub tls_crl: Option<PathBuf>,
    /// Who the proxy and its servers are to be, `NAME[:GROUP]`; not looked up yet.
    pub user: Option<String>,
    /// Whether other processes of the same user may look into the proxy.
    pub traceable: bool,
    /// The file that says what is served, and how.
    pub config: Option<PathBuf>,
    /// Whether files are read again when they have changed.
    pub watch: bool,
    /// The server that is served, unless a configuration says that.
    pub server: ServerOptions,
}

/// One server and how it is served, each value within its range.
#[allow(clippy::option_option, reason = "not given is not the same as never")]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch that has nothing to do with the others"
)]
#[derive(Clone, Debug, PartialEq)]
pub struct ServerOptions {
    /// Where it alone listens, beside what is common to all.
    pub listen: Vec<Address>,
    /// Sessions of its own at a time: 1 to 1,000,000. `None`: no limit of its own.
    pub max_sessions: Option<usize>,
    /// 10 ms to one day.
    pub heartbeat_interval: Duration,
    /// Whether a server that died is started again.
    pub auto_restart: bool,
    /// What of the stderr of servers is logged.
    pub server_log: ServerLogging,
    /// The longest line that passes, in bytes: 1 to 256 MiB.
    pub max_message_bytes: usize,
    /// Restarts of one session within its window: 0 to 1,000,000.
    pub max_restarts: u32,
    /// Whether the handshake is replayed to a restarted server.
    pub replay: bool,
    /// How long a restarted server may take to answer the replayed handshake: 10 ms to one day.
    pub replay_timeout: Duration,
    /// Whether an old server ends before the new one is started that is to take its place.
    pub swap_in_place: bool,
    /// When a session's server is started.
    pub spawn: Spawn,
    /// How long a client may take to send its first message: 10 ms to one day, or `Some(None)` for ever. `None`:
    /// [`DEFAULT_FIRST_MESSAGE_TIMEOUT`], and for ever if it has announced heartbeats.
    pub first_message_timeout: Option<Option<Duration>>,
    /// How long a session may be idle: 10 ms to one day. `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// After how long an idle session gives its server back: 10 ms to one day. `None`: never.
    pub hibernate_after: Option<Duration>,
    /// Spare servers that wait for sessions: 0 to 1,000.
    pub prespawn: usize,
    /// Processes that sessions share: 1 to 1,000, or 0 if each session has its own.
    pub share: u16,
    /// Requests of a session at a shared process: 1 to 1,024.
    pub share_in_flight: u16,
    /// Whether sessions that open with `initialize` share processes, too.
    pub share_legacy: bool,
    /// After this time a shared process is replaced: 10 ms to one day. `None`: never.
    pub share_max_age: Option<Duration>,
    /// After as many requests a shared process is replaced. `None`: never.
    pub share_max_requests: Option<u64>,
    /// Whether servers have to be told of their clients. They are anyway, unless they are started ahead of time.
    pub client_env: bool,
    /// What servers get in their environments; of several of one name, the last counts.
    pub env: Vec<Variable>,
    /// Files of such variables; `env` counts more.
    pub env_files: Vec<PathBuf>,
    /// Whether servers inherit next to nothing.
    pub clear_env: bool,
    /// Where servers are started. `None`: where the proxy was.
    pub cwd: Option<PathBuf>,
    /// What is run. The default is an empty command, which stands for "not said yet".
    pub command: ServerCommand,
}

/// Whose connections begin with a header that says whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancer {
    /// Everybody's that come over unix sockets.
    Unix,
    /// Those of this network.
    Network(Network),
}

/// A variable for servers.
#[derive(Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name, which is not empty.
    pub name: OsString,
    pub value: Value,
}

/// What a variable is set to.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// This.
    Given(OsString),
    /// What the proxy has it set to.
    Inherited,
    /// Nothing: servers do not get it.
    Removed,
}

/// Values are secrets more often than not.
impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl ServerOptions {
    /// Whether servers are told of their clients: only one that is started for a client, and for it alone, can be.
    pub fn tells_clients(&self) -> bool {
        self.prespawn == 0 && self.share == 0
    }
}

/// One of the servers that are served.
#[derive(Clone, Debug, PartialEq)]
pub struct Served {
    /// What it is called. `None`: it is the only one, and not of a configuration.
    pub name: Option<Name>,
    /// Whether it is served to whoever names none.
    pub is_default: bool,
    /// How it is served.
    pub options: ServerOptions,
    /// Why it can't be served, if that is known already.
    pub fault: Option<String>,
}

impl Served {
    /// The only one, without a name.
    pub fn only(options: ServerOptions) -> Self {
        Self {
            name: None,
            is_default: true,
            options,
            fault: None,
        }
    }
}

/// What each session runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerCommand {
    /// This very program, as its `demo-server`.
    Demo,
    /// A program and its arguments, as the user wrote them.
    Program(Vec<OsString>),
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            upgrade_from: None,
            host: None,
            port: None,
            listen: Vec::new(),
            unix_mode: 0o600,
            allow: Vec::new(),
            proxy_protocol: Vec::new(),
            token_file: None,
            token_exempt_unix: false,
            entrance_timeout: DEFAULT_TIMEOUT,
            max_sessions_per_address: None,
            max_sessions_per_client: None,
            log_level: LevelFilter::Info,
            log_format: Format::Text,
            max_buffer_bytes: None,
            max_sessions: None,
            stop_timeout: Duration::from_secs(30),
            drain_delay: Duration::ZERO,
            status: None,
            status_host: Vec::new(),
            status_public: false,
            resume_timeout: Some(DEFAULT_RESUME_TIMEOUT),
            max_starting: twice_the_processors(),
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
            tls_crl: None,
            user: None,
            traceable: false,
            config: None,
            watch: false,
            server: ServerOptions::default(),
        }
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            max_sessions: None,
            heartbeat_interval: Duration::from_secs(30),
            auto_restart: true,
            server_log: ServerLogging::Limited,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            max_restarts: 5,
            replay: true,
            replay_timeout: Duration::from_secs(30),
            swap_in_place: false,
            spawn: Spawn::Eager,
            first_message_timeout: None,
            idle_timeout: None,
            hibernate_after: None,
            prespawn: 0,
            share: 0,
            share_in_flight: 8,
            share_legacy: false,
            share_max_age: None,
            share_max_requests: None,
            client_env: false,
            env: Vec::new(),
            env_files: Vec::new(),
            clear_env: false,
            cwd: None,
            command: ServerCommand::Program(Vec::new()),
        }
    }
}

impl ServeOptions {
    /// Where to listen: the address of `--host` and `--port` if one of the two was given, or if there are no others and no
    /// configuration.
    pub fn addresses(&self) -> Vec<Address> {
        let mut addresses = Vec::new();
        let is_default = self.listen.is_empty() && self.config.is_none();
        if is_default || self.names_host_or_port() {
            addresses.push(Address::Tcp {
                host: self.host.clone().unwrap_or_else(|| DEFAULT_HOST.to_owned()),
                port: self.port.unwrap_or(DEFAULT_PORT),
            });
        }
        addresses.extend_from_slice(&self.listen);
        addresses
    }

    /// Whether `--host` or `--port` was given.
    pub fn names_host_or_port(&self) -> bool {
        self.host.is_some() || self.port.is_some()
    }
}

impl ConnectOptions {
    /// Whether the proxy is to be spoken to over TLS.
    pub fn wants_tls(&self) -> bool {
        self.tls || self.tls_ca.is_some()
    }
}

/// A server that starts computes or waits for a disk: two for each processor keep it busy, and more only make all of
/// them late.
fn twice_the_processors() -> usize {
    2 * thread::available_parallelism().map_or(1, usize::from)
}

/// What the stdio side does, each value within its range.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch that the user may set"
)]
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectOptions {
    /// Where the proxy is.
    pub address: Address,
    /// 10 ms to one day.
    pub heartbeat_interval: Duration,
    /// Whether to connect again after the connection is lost.
    pub reconnect: bool,
    /// Whether to go on with the same session then.
    pub resume: bool,
    /// The longest delay between two attempts: 10 ms to one day.
    pub reconnect_delay: Duration,
    /// Attempts in a row: 1 to 1,000,000. `None`: no limit.
    pub max_reconnect_attempts: Option<u32>,
    /// How long a request may wait for a connection: 10 ms to one day. `None`: for ever.
    pub held_request_timeout: Option<Duration>,
    /// How long an attempt may take: 10 ms to one day.
    pub connect_timeout: Duration,
    /// Whether the handshake is replayed to a new server.
    pub replay: bool,
    /// How long a new server may take to answer the replayed handshake: 10 ms to one day.
    pub replay_timeout: Duration,
    /// The longest line that passes, in bytes: 1 to 256 MiB.
    pub max_message_bytes: usize,
    /// What may be held in buffers beyond 64 KiB each: 1 to 2^40. `None`: as much as the system makes advisable.
    pub max_buffer_bytes: Option<usize>,
    /// Whether the host is spared responses and progress that it did not ask for.
    pub tidy: bool,
    /// Whether the proxy is to be spoken to over TLS.
    pub tls: bool,
    /// The authority of its certificate, which implies TLS; without it, the system knows which are trusted.
    pub tls_ca: Option<PathBuf>,
    /// For whom its certificate has to be; without it, for the host of the address.
    pub tls_name: Option<String>,
    /// Our own certificate, with those between it and its authority. With it comes a key.
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate.
    pub tls_key: Option<PathBuf>,
    /// The file with the token that is shown to the proxy.
    pub token_file: Option<PathBuf>,
    /// The server that is asked for, of those that the proxy has.
    pub server: Option<Name>,
    /// Whether the token may be sent in plain text over a network.
    pub insecure_token: bool,
    /// Whether other processes of the same user may look into this one although it holds a secret.
    pub traceable: bool,
    /// The least severe messages that are logged.
    pub log_level: LevelFilter,
    /// What the lines of the log look like.
    pub log_format: Format,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            address: Address::Tcp {
                host: "localhost".to_owned(),
                port: DEFAULT_PORT,
            },
            heartbeat_interval: Duration::from_secs(30),
            reconnect: true,
            resume: true,
            reconnect_delay: Duration::from_secs(2),
            max_reconnect_attempts: None,
            held_request_timeout: Some(Duration::from_mins(1)),
            connect_timeout: Duration::from_secs(10),
            replay: true,
            replay_timeout: Duration::from_secs(30),
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            max_buffer_bytes: None,
            tidy: false,
            tls: false,
            tls_ca: None,
            tls_name: None,
            tls_cert: None,
            tls_key: None,
            token_file: None,
            server: None,
            insecure_token: false,
            traceable: false,
            log_level: LevelFilter::Warn,
            log_format: Format::Text,
        }
    }
}
