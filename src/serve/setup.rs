//! What has to be right before anything is served, and what the log says at the start.

use std::ffi::OsString;
use std::fmt::{self, Display};

use log::{debug, info, warn};
use mio::Interest;
use mio::net::TcpListener;

use super::accept::{Accepting, MAX_REFUSED};
use super::spares::Spares;
use super::start_queue::Starting;
use super::{Channel, Due, MONITOR_INTERVAL, Proxy, Stopping};
use crate::buffers::budget::{BufferBudget, DEFAULT_BUDGET_BYTES};
use crate::options::{ServeOptions, ServerCommand};
use crate::process::{DescriptorLimit, Processes, Spawner};
use crate::reactor::Reactor;
use crate::reactor::listener;
use crate::reactor::poller::Poller;
use crate::reactor::signals::Signals;
use crate::reactor::tcp;
use crate::reactor::token::{MAX_KEYS, Target};
use crate::scheduler::Scheduler;
use crate::session::idle::IdleLimits;
use crate::session::{Backend, Settings};
use crate::util::shell_words;

/// Descriptors of one session: the connection and three pipes.
const DESCRIPTORS_PER_SESSION: u64 = 4;

/// Descriptors of a server that waits: three pipes.
const DESCRIPTORS_PER_WAITING: u64 = 3;

/// Descriptors for all else: what is open from the start, the far ends of the pipes of a server that is being
/// started, and the connections of clients that are being turned away.
const SPARE_DESCRIPTORS: u64 = 64 + MAX_REFUSED as u64;

/// What kept the program from serving, in one line.
#[derive(Debug)]
pub struct SetupError(String);

impl Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Turns an error into one that says what was being done.
fn failed_to<E: Display>(what: impl Display) -> impl FnOnce(E) -> SetupError {
    move |error| SetupError(format!("{what}: {error}"))
}

impl Proxy {
    /// Binds the addresses and looks whether the server can be run. `command` is the server's.
    pub fn new(options: &ServeOptions, command: &[OsString]) -> Result<Self, SetupError> {
        let descriptors =
            DescriptorLimit::raise().map_err(failed_to("cannot raise the limit of descriptors"))?;
        let spawner = Spawner::new(command, descriptors).map_err(failed_to(format!(
            "cannot run {}",
            shell_words::join(command)
        )))?;
        let poller = Poller::new().map_err(failed_to("cannot create an epoll instance"))?;
        let mut reactor = Reactor::new(poller);
        let address = tcp::address_text(&options.host, options.port);
        let sockets = listener::bind(&options.host, options.port).map_err(failed_to(format!(
            "cannot listen on {address} (--host, --port)"
        )))?;
        let pool = pool_size(options.prespawn, descriptors);
        log_start(options, command, &address, pool);
        let mut listeners = Vec::new();
        for (key, socket) in sockets.into_iter().enumerate() {
            log_address(&socket);
            let channel = Channel::Listener;
            let endpoint = reactor.register(socket, Target { key, channel }, Interest::READABLE);
            listeners.push(endpoint.map_err(failed_to("cannot watch a listening socket"))?);
        }
        let token = reactor.next_token(Target {
            key: 0,
            channel: Channel::Signals,
        });
        let signals = Signals::register(reactor.poller().registry(), token)
            .map_err(failed_to("cannot receive signals"))?;
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            warn!("orphans of servers can't be adopted: {error}");
        }
        let possible = sessions_possible(pool, descriptors);
        let now = reactor.now();
        reactor.timers.set(now + MONITOR_INTERVAL, Due::Monitor);
        Ok(Self {
            reactor,
            signals,
            listeners,
            turn_of_listener: 0,
            max_sessions: session_limit(options.max_sessions, possible, descriptors),
            sessions_possible: possible,
            spawner,
            scheduler: Scheduler::new(settings(options), BufferBudget::new(DEFAULT_BUDGET_BYTES)),
            refused: 0,
            sessions_so_far: 0,
            processes: Processes::default(),
            accepting: Accepting::Yes,
            starting: Starting::new(options.max_starting),
            pool: Spares::new(pool, options.max_restarts, now),
            exhaustion_logged: false,
            stopping: Stopping::No,
        })
    }
}

fn settings(options: &ServeOptions) -> Settings {
    Settings {
        heartbeat_interval: options.heartbeat_interval,
        role: Backend::Process {
            max_restarts: options.max_restarts,
        },
        restarts_upstream: options.auto_restart,
        max_message_bytes: options.max_message_bytes,
        replay_timeout: options.replay_timeout,
        spawn: options.spawn,
        idle_limits: IdleLimits {
            first_message: options.first_message_timeout,
            idle: options.idle_timeout,
        },
    }
}

/// As many waiting servers as the user wants, unless they would leave no descriptors for a session.
fn pool_size(wanted: usize, descriptors: DescriptorLimit) -> usize {
    let others = SPARE_DESCRIPTORS + DESCRIPTORS_PER_SESSION;
    let possible = descriptors.get().saturating_sub(others) / DESCRIPTORS_PER_WAITING;
    let possible = usize::try_from(possible).unwrap_or(usize::MAX);
    if wanted > possible {
        warn!(
            "--prespawn: {wanted} waiting servers need more than the {} descriptors that are allowed (RLIMIT_NOFILE); \
             there will be {possible}",
            descriptors.get()
        );
    }
    wanted.min(possible)
}

/// As many sessions as there are descriptors for, besides a pool of so many servers.
fn sessions_possible(pool: usize, descriptors: DescriptorLimit) -> usize {
    let others = SPARE_DESCRIPTORS + DESCRIPTORS_PER_WAITING * pool as u64;
    let possible = descriptors.get().saturating_sub(others) / DESCRIPTORS_PER_SESSION;
    usize::try_from(possible)
        .unwrap_or(usize::MAX)
        .clamp(1, MAX_KEYS - MAX_REFUSED)
}

/// As many sessions as are possible, unless the user wants another number.
fn session_limit(wanted: Option<usize>, possible: usize, descriptors: DescriptorLimit) -> usize {
    let limit = wanted.unwrap_or(possible).min(MAX_KEYS - MAX_REFUSED);
    if limit > possible {
        warn!(
            "--max-sessions: {limit} sessions need more than the {} descriptors that are allowed (RLIMIT_NOFILE); \
             after about {possible} sessions new connections have to wait",
            descriptors.get()
        );
    }
    limit
}

/// Arguments hold secrets more often than not, so they are for `--debug`.
fn log_command(command: &[OsString]) {
    let program = command
        .first()
        .map_or_else(String::new, |word| shell_words::quoted(word));
    match command.len().saturating_sub(1) {
        0 => info!("MCP command: {program}"),
        1 => info!("MCP command: {program} and 1 argument"),
        count => info!("MCP command: {program} and {count} arguments"),
    }
    debug!("MCP command in full: {}", shell_words::join(command));
}

fn log_start(options: &ServeOptions, command: &[OsString], address: &str, pool: usize) {
    info!("Starting TCP proxy on {address}");
    match options.server {
        ServerCommand::Demo => info!("MCP command: the built-in demo server"),
        ServerCommand::Program(_) => log_command(command),
    }
    info!(
        "Heartbeat interval: {}s",
        options.heartbeat_interval.as_secs_f64()
    );
    info!(
        "Auto-restart: {}",
        if options.auto_restart {
            "enabled"
        } else {
            "disabled"
        }
    );
    if pool > 0 {
        info!("Pool: {pool} servers wait for sessions");
    }
}

fn log_address(socket: &TcpListener) {
    let Ok(address) = socket.local_addr() else {
        return;
    };
    info!("TCP proxy listening on {address}");
    if !address.ip().is_loopback() {
        warn!(
            "{address} is not a loopback address: anyone who can reach it can use the MCP server; there is neither \
             encryption nor authentication"
        );
    }
}
