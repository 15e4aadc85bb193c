//! What has to be right before anything is served, and what the log says at the start.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal};
use std::time::Duration;

use log::{debug, error, info, warn};
use mio::Interest;

use super::accept::{ACCEPTS_PER_ITERATION, ListenerKey, MAX_REFUSED};
use super::launcher::Launcher;
use super::listen::{self, Group, Listening};
use super::reload::{self, Files};
use super::rules;
use super::source::{Beginning, Bound, Source};
use super::status::{About, MAX_CONNECTIONS};
use super::system::Linux;
use super::{Channel, Door, Due, Plan, Proxy, SessionsOfOne, surroundings};
use crate::buffers::budget::{BudgetSize, BufferBudget};
use crate::entrance::{Capacity, Directory};
use crate::options::{
    DEFAULT_FIRST_MESSAGE_TIMEOUT, ServeOptions, Served, ServerCommand, ServerOptions,
};
use crate::process::DescriptorLimit;
use crate::process::ServiceManager;
use crate::process::memory_limit::MemoryLimit;
use crate::reactor::Reactor;
use crate::reactor::io::Io;
use crate::reactor::peers::Peers;
use crate::reactor::poller::Poller;
use crate::reactor::signals::Signals;
use crate::reactor::timers;
use crate::reactor::token::{MAX_KEYS, Target};
use crate::session::idle::IdleLimits;
use crate::session::{Backend, Settings, Spawn};
use crate::share;
use crate::status::request::Hosts;
use crate::transport::listener::Listener;
use crate::util::plural::Counted;
use crate::util::shell_words;

/// Descriptors of one session: the connection and three pipes.
const DESCRIPTORS_PER_SESSION: u64 = 4;

/// Descriptors of a server that waits: three pipes.
const DESCRIPTORS_PER_WAITING: u64 = 3;

/// Descriptors for all else: what is open from the start (a dozen, and what was inherited), the far ends of the pipes of a
/// server that is being started, and the connections of clients that are being turned away.
const SPARE_DESCRIPTORS: u64 = 64 + MAX_REFUSED as u64;

/// How many of each there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// More sessions are turned away.
    pub max_sessions: usize,
    /// The same for those of one address, and of one client; `None` if there is no such limit.
    pub sessions_of_one: SessionsOfOne,
    /// As many sessions there are descriptors for.
    pub possible_sessions: usize,
    /// Servers that start up at the same time.
    pub max_starting: usize,
    /// Connections in the entrance.
    pub places: usize,
    /// How long a session is kept of which the connection is lost; `None` if none is.
    pub resume_timeout: Option<Duration>,
}

/// What kept the program from serving, in one line.
#[derive(Debug)]
pub struct SetupError(String);

impl Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for SetupError {
    fn from(words: String) -> Self {
        Self(words)
    }
}

/// Turns an error into one that says what was being done.
pub(super) fn failed_to<E: Display>(what: impl Display) -> impl FnOnce(E) -> SetupError {
    move |error| SetupError(format!("{what}: {error}"))
}

impl Proxy {
    /// Binds the addresses and checks whether the servers can be run.
    pub fn set_up(
        options: &ServeOptions,
        all: &[Served],
        mut beginning: Beginning,
    ) -> Result<Self, SetupError> {
        beginning.note(options, all);
        let descriptors =
            DescriptorLimit::raise().map_err(failed_to("cannot raise the limit of descriptors"))?;
        let user = surroundings::find_user(options)?;
        let launchers = all.iter().cloned();
        let mut launchers: Vec<Launcher> = launchers
            .map(|served| Launcher::new(served, user.as_ref(), descriptors))
            .collect();
        for_each(&mut launchers, Launcher::read_environment)?;
        // What can be run is for the other user to say. Otherwise nothing is bound for a command that can't be run.
        if user.is_none() {
            for_each(&mut launchers, Launcher::find)?;
        }
        let files = Files::of(options);
        let contents = files.read().map_err(SetupError)?;
        let has_files = !files.are_none() || options.config.is_some();
        let poller = Poller::new().map_err(failed_to("cannot create an epoll instance"))?;
        let mut reactor = Reactor::new(poller);
        let listening = listen::open(options, all)?;
        let asked = listen::open_status(options)?;
        // Whoever is killed by a signal leaves the files of its sockets.
        let signals = watch_signals(&mut reactor, has_files)?;
        if let Some(user) = &user {
            let served = listening.groups.iter().flat_map(|group| &group.sockets);
            listen::give_to(user, served.chain(&asked))?;
            surroundings::become_user(user, options)?;
            files.warn_if_unreadable();
            reload::warn_if_unreadable(options);
        }
        if user.is_some() {
            for_each(&mut launchers, Launcher::find)?;
        }
        let Listening { groups, summary } = listening;
        let mut plans: Vec<Plan> = plans(options, &launchers, descriptors);
        let directory = rules::directory(all);
        let limits = limits(options, &plans, &directory, descriptors);
        check_descriptors(descriptors)?;
        info!("Starting TCP proxy on {summary}");
        for (launcher, plan) in launchers.iter().zip(&plans) {
            log_served(launcher.served(), plan.spares);
        }
        log_session_limit(options, limits, descriptors);
        let asked = watch_status(&mut reactor, asked, options)?;
        let mut source = Source::of(options.clone(), beginning, user, descriptors);
        let listeners = watch(&mut reactor, groups, all, &mut source)?;
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            warn!("orphans of servers can't be adopted: {error}");
        }
        let system = Linux {
            launchers,
            signals,
            peers: Peers::new(),
            ports: source.ports(),
            files,
            tls: contents.tls.clone(),
            manager: ServiceManager::of_environment(),
            source,
        };
        let size = BudgetSize::new(options.max_buffer_bytes, MemoryLimit::find());
        size.log();
        let memory = BufferBudget::new(size.bytes);
        contents.log(&directory);
        let rules = rules::of(options, directory, contents.tokens);
        let first = plans.remove(0);
        let mut proxy = Self::new(system, reactor, listeners, limits, rules, first, memory);
        for plan in plans {
            proxy.add_service(plan);
        }
        proxy.begin(options, has_files);
        if !asked.is_empty() {
            proxy.serve_status(asked, about(options, all, summary));
        }
        Ok(proxy)
    }

    /// What else the options say.
    fn begin(&mut self, options: &ServeOptions, has_files: bool) {
        self.stop_timers.drain_delay = options.drain_delay;
        if options.watch {
            self.watch_files();
        }
        self.counts.reload = has_files.then(|| (true, timers::unix_time()));
    }
}

/// What those are told who ask how things are.
pub(super) fn about(options: &ServeOptions, servers: &[Served], addresses: String) -> About {
    let program = |served: &Served| match &served.options.command {
        ServerCommand::Demo => "the built-in demo server".to_owned(),
        ServerCommand::Program(command) => command
            .first()
            .map_or_else(String::new, |word| shell_words::quoted(word)),
    };
    About {
        addresses,
        commands: servers.iter().map(program).collect(),
        started: timers::now(),
        started_unix: timers::unix_time(),
        hosts: Hosts(options.status_host.clone()),
        is_public: options.status_public,
    }
}

/// Watches the sockets that clients connect to. Their keys are those of the order.
fn watch(
    reactor: &mut Reactor<Channel, Due>,
    groups: Vec<Group>,
    servers: &[Served],
    source: &mut Source,
) -> Result<Vec<Door<Listener>>, SetupError> {
    let directory = rules::directory(servers);
    let mut listeners = Vec::new();
    for group in groups {
        let first = listeners.len();
        let keys = (first..first + group.sockets.len()).map(ListenerKey);
        source
            .bound
            .push(Bound::of(&group, servers, keys.collect()));
        for socket in group.sockets {
            let owner = group.door.map(|door| directory.name(door));
            listen::log(&socket, owner, &source.options);
            let target = Target {
                key: listeners.len(),
                channel: Channel::Listener,
            };
            let listener = reactor.register(socket, target, Interest::READABLE);
            let listener = listener.map_err(failed_to("cannot watch a listening socket"))?;
            listeners.push((listener, group.door));
        }
    }
    Ok(listeners)
}

fn watch_status(
    reactor: &mut Reactor<Channel, Due>,
    sockets: Vec<Listener>,
    options: &ServeOptions,
) -> Result<Vec<Io<Listener>>, SetupError> {
    let mut listeners = Vec::new();
    for (key, socket) in sockets.into_iter().enumerate() {
        listen::log_status(&socket, options);
        let channel = Channel::StatusListener;
        let listener = reactor.register(socket, Target { key, channel }, Interest::READABLE);
        listeners.push(listener.map_err(failed_to("cannot watch a listening socket"))?);
    }
    Ok(listeners)
}

/// Does something for each service. What goes wrong with one of several is no reason not to serve the others.
fn for_each(
    launchers: &mut [Launcher],
    act: impl Fn(&mut Launcher) -> Result<(), SetupError>,
) -> Result<(), SetupError> {
    for launcher in launchers {
        if let Err(error) = act(launcher) {
            let Some(name) = &launcher.served().name else {
                return Err(error);
            };
            error!("{name} can't be served: {error}");
        }
    }
    Ok(())
}

/// Takes signals as events. SIGHUP asks for files to be read again if there are any, unless it says that a terminal is gone.
fn watch_signals(
    reactor: &mut Reactor<Channel, Due>,
    has_files: bool,
) -> Result<Signals, SetupError> {
    let token = reactor.next_token(Target {
        key: 0,
        channel: Channel::Signals,
    });
    let registry = reactor.poller().registry();
    let mut signals =
        Signals::register(registry, token).map_err(failed_to("cannot receive signals"))?;
    if has_files && !io::stdin().is_terminal() {
        signals.reload_on_hangup();
    }
    Ok(signals)
}

/// How each service is served, as far as there are descriptors for it.
pub(super) fn plans(
    options: &ServeOptions,
    launchers: &[Launcher],
    descriptors: DescriptorLimit,
) -> Vec<Plan> {
    let mut others = 0;
    let plan = |launcher: &Launcher| {
        let served = launcher.served();
        let plan = Plan {
            name: served.name.clone(),
            settings: settings(options, &served.options),
            max_sessions: served.options.max_sessions,
            spares: spares_limit(served.options.prespawn, others, descriptors),
            share: (served.options.share > 0).then(|| share_limits(&served.options)),
        };
        others += plan.spares;
        plan
    };
    launchers.iter().map(plan).collect()
}

/// What the user wants, as far as there are descriptors for it.
pub(super) fn limits(
    options: &ServeOptions,
    plans: &[Plan],
    servers: &Directory,
    descriptors: DescriptorLimit,
) -> Limits {
    let places = places(options, servers, descriptors);
    let others = places + status_descriptors(options);
    let spares: usize = plans.iter().map(|plan| plan.spares).sum();
    let shared = plans.iter().filter_map(|plan| plan.share.as_ref());
    let shared: usize = shared.map(share::Limits::most_processes).sum();
    let possible_sessions = if plans.iter().all(|plan| plan.share.is_some()) {
        shared_possible(spares + shared, others, descriptors)
    } else {
        sessions_possible(spares + shared, others, descriptors)
    };
    Limits {
        max_sessions: session_limit(options.max_sessions, possible_sessions, descriptors),
        possible_sessions,
        sessions_of_one: SessionsOfOne {
            address: options.max_sessions_per_address,
            client: options.max_sessions_per_client,
        },
        max_starting: options.max_starting,
        places,
        resume_timeout: options.resume_timeout,
    }
}

fn share_limits(options: &ServerOptions) -> share::Limits {
    share::Limits {
        processes: options.share.into(),
        in_flight: options.share_in_flight.into(),
        max_restarts: options.max_restarts,
        restarts: options.auto_restart,
        max_message_bytes: options.max_message_bytes,
        legacy: options.share_legacy,
        handshake_time: options.replay_timeout,
        max_age: options.share_max_age,
        max_requests: options.share_max_requests,
        hibernate_after: options.hibernate_after,
    }
}

fn settings(proxy: &ServeOptions, options: &ServerOptions) -> Settings {
    Settings {
        heartbeat_interval: options.heartbeat_interval,
        role: Backend::Process {
            max_restarts: options.max_restarts,
        },
        restarts_upstream: options.auto_restart,
        max_message_bytes: options.max_message_bytes,
        replays: options.replay,
        replay_timeout: options.replay_timeout,
        stop_timeout: proxy.stop_timeout,
        // Its first message tells whether a session has a process of its own.
        spawn: if options.share > 0 {
            Spawn::Lazy
        } else {
            options.spawn
        },
        idle_limits: IdleLimits {
            first_message: options
                .first_message_timeout
                .unwrap_or(Some(DEFAULT_FIRST_MESSAGE_TIMEOUT)),
            exempts_heartbeats: options.first_message_timeout.is_none(),
            idle: options.idle_timeout,
            hibernate: options.hibernate_after,
        },
        server_log: options.server_log,
    }
}

/// What one session takes at the time when its server is started: the far ends of the pipes, too.
const DESCRIPTORS_TO_START: u64 = DESCRIPTORS_PER_SESSION + 3;

/// Descriptors that are opened after the check: the one that asks about clients.
const DESCRIPTORS_TO_COME: u64 = 1;

/// A proxy that can't serve a single session is not started.
fn check_descriptors(limit: DescriptorLimit) -> Result<(), SetupError> {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return Ok(());
    };
    let needed = descriptors_needed(open.count() as u64);
    if needed > limit.get() {
        return Err(SetupError(format!(
            "cannot serve a single session: that needs {needed} descriptors, and {} are allowed (ulimit -Hn)",
            limit.get()
        )));
    }
    Ok(())
}

/// What one session needs, if this many are open.
fn descriptors_needed(open: u64) -> u64 {
    open + DESCRIPTORS_TO_COME + DESCRIPTORS_TO_START
}

/// As many waiting servers as the user wants beside those of other services, unless they would leave no descriptors for a
/// session.
fn spares_limit(wanted: usize, others: usize, descriptors: DescriptorLimit) -> usize {
    let all_else = SPARE_DESCRIPTORS + DESCRIPTORS_PER_SESSION;
    let possible = descriptors.get().saturating_sub(all_else) / DESCRIPTORS_PER_WAITING;
    let possible = usize::try_from(possible).unwrap_or(usize::MAX);
    let possible = possible.saturating_sub(others);
    if wanted > possible {
        warn!(
            "--prespawn: {wanted} waiting servers need more than the {} descriptors that are allowed (RLIMIT_NOFILE); \
             there will be {possible}",
            descriptors.get()
        );
    }
    wanted.min(possible)
}

/// Connections that may be in the entrance, if anything is asked there: an eighth of the descriptors, at most as many as are
/// of use.
fn places(options: &ServeOptions, servers: &Directory, descriptors: DescriptorLimit) -> usize {
    if !rules::need_places(options, servers) {
        return 0;
    }
    let share = usize::try_from(descriptors.get() / 8).unwrap_or(usize::MAX);
    // Whoever has come is heard before so many others can come.
    share.clamp(2 * ACCEPTS_PER_ITERATION, Capacity::MAX_PLACES)
}

/// Descriptors for those who ask how things are.
fn status_descriptors(options: &ServeOptions) -> usize {
    options.status.as_ref().map_or(0, |_| 1 + MAX_CONNECTIONS)
}

/// As many sessions as there are descriptors for, besides this many servers that wait and connections in the entrance.
fn sessions_possible(spares: usize, places: usize, descriptors: DescriptorLimit) -> usize {
    let others = SPARE_DESCRIPTORS + DESCRIPTORS_PER_WAITING * spares as u64 + places as u64;
    let possible = descriptors.get().saturating_sub(others) / DESCRIPTORS_PER_SESSION;
    usize::try_from(possible)
        .unwrap_or(usize::MAX)
        .clamp(1, MAX_KEYS - MAX_REFUSED)
}

/// The same if no session needs more than its connection, besides this many processes.
fn shared_possible(processes: usize, places: usize, descriptors: DescriptorLimit) -> usize {
    let others = SPARE_DESCRIPTORS + DESCRIPTORS_PER_WAITING * processes as u64 + places as u64;
    let possible = descriptors.get().saturating_sub(others);
    let possible = usize::try_from(possible).unwrap_or(usize::MAX);
    possible.clamp(1, MAX_KEYS - MAX_REFUSED)
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
fn log_command(command: &ServerCommand, of: &str) {
    let ServerCommand::Program(command) = command else {
        return info!("{of}MCP command: the built-in demo server");
    };
    let program = command
        .first()
        .map_or_else(String::new, |word| shell_words::quoted(word));
    match command.len().saturating_sub(1) {
        0 => info!("{of}MCP command: {program}"),
        count => info!(
            "{of}MCP command: {program} and {}",
            Counted(count, "argument")
        ),
    }
    debug!("{of}MCP command in full: {}", shell_words::join(command));
}

/// What a service is. A name is there if there are several.
fn log_served(served: &Served, spares: usize) {
    let options = &served.options;
    let of = served.name.as_ref();
    let of = of.map_or_else(String::new, |name| format!("{name}: "));
    log_command(&options.command, &of);
    info!(
        "{of}Heartbeat interval: {}s",
        options.heartbeat_interval.as_secs_f64()
    );
    info!(
        "{of}Auto-restart: {}",
        if options.auto_restart {
            "enabled"
        } else {
            "disabled"
        }
    );
    if options.share > 0 {
        info!(
            "{of}Shared: {}",
            Counted(usize::from(options.share), "server")
        );
    }
    if spares > 0 {
        info!("{of}Pool: {}", Counted(spares, "spare server"));
    }
}

/// How many sessions there may be, and why.
fn log_session_limit(options: &ServeOptions, limits: Limits, descriptors: DescriptorLimit) {
    let sessions = Counted(limits.max_sessions, "session");
    if options.max_sessions.is_some() {
        info!("Limit: {sessions} (--max-sessions)");
    } else {
        info!(
            "Limit: {sessions}, as {} are allowed (ulimit -Hn)",
            Counted(descriptors.get(), "descriptor")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_shared_out_to_sessions_and_waiting_servers() {
        let few = DescriptorLimit::of(SPARE_DESCRIPTORS + 20);
        assert_eq!(spares_limit(2, 0, few), 2);
        assert_eq!(spares_limit(100, 0, few), 5, "one session has to fit");
        assert_eq!(sessions_possible(0, 0, few), 5);
        assert_eq!(sessions_possible(4, 0, few), 2);
        assert_eq!(sessions_possible(7, 0, few), 1, "at least");
        assert_eq!(sessions_possible(0, 8, few), 3);
        let only = Directory::only();
        let with_tokens = ServeOptions {
            token_file: Some("tokens".into()),
            ..ServeOptions::default()
        };
        let places_of = |count| places(&with_tokens, &only, DescriptorLimit::of(count));
        assert_eq!((places_of(800), places_of(1 << 20)), (100, 1000));
        assert_eq!(places(&ServeOptions::default(), &only, few), 0);
        let none = DescriptorLimit::of(10);
        assert_eq!(
            (spares_limit(1, 0, none), sessions_possible(0, 0, none)),
            (0, 1)
        );
        let endless = DescriptorLimit::of(u64::MAX);
        assert_eq!(sessions_possible(0, 0, endless), MAX_KEYS - MAX_REFUSED);
        assert_eq!(session_limit(None, 7, few), 7);
        assert_eq!(session_limit(Some(100), 7, few), 100);
        let most = session_limit(Some(usize::MAX), 7, few);
        assert_eq!(most, MAX_KEYS - MAX_REFUSED);
    }

    #[test]
    fn a_session_needs_its_descriptors_besides_those_that_are_open() {
        assert_eq!(descriptors_needed(10), 10 + 1 + 7);
    }

    #[test]
    fn sessions_on_shared_processes_need_their_connections_alone() {
        let few = DescriptorLimit::of(SPARE_DESCRIPTORS + 20);
        assert_eq!(shared_possible(0, 0, few), 20);
        assert_eq!(shared_possible(4, 3, few), 5);
        assert_eq!(shared_possible(7, 0, few), 1, "at least");
    }

    #[test]
    fn an_error_says_what_was_being_done() {
        let failed = failed_to("cannot listen")("in use");
        assert_eq!(failed.to_string(), "cannot listen: in use");
    }
}
