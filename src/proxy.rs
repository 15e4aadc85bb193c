//! The serving side: one poll loop over the listeners, the signals, and the descriptors of all sessions.
//!
//! A turn of the loop is a row of phases. Events are only noted; then the sessions that they are about are run, each
//! within its budget; then deadlines, new connections and what sessions want done. What a session frees is freed at
//! the end of the turn, when no event can be about it any more.

mod connection;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{debug, error, info, warn};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll};
use slab::Slab;

use self::connection::Connection;
use crate::cli::ServeOptions;
use crate::memory::{DEFAULT_BUDGET_BYTES, Memory};
use crate::process::{DescriptorLimit, Processes, Spawner};
use crate::reactor::endpoint::Endpoint;
use crate::reactor::listener::{self, AcceptError};
use crate::reactor::signals::Signals;
use crate::reactor::timers::{Timer, Timers};
use crate::reactor::token::{Address, MAX_SLOTS, Port, Registrations};
use crate::relay::READ_BYTES;
use crate::session::report::Tag;
use crate::session::{Action, Role, Session, Settings, Turn};
use crate::timer_wheel::TimerId;

/// Descriptors of one session: the connection and three pipes.
const DESCRIPTORS_PER_SESSION: u64 = 4;

/// Descriptors for all else: what is open from the start, the far ends of the pipes of a server that is being
/// started, and the connections of clients that are being turned away.
const SPARE_DESCRIPTORS: u64 = 64 + MAX_REFUSED as u64;

/// Clients that are being turned away at the same time; more wait in the backlog.
const MAX_REFUSED: usize = 64;

/// Events taken from the system at once.
const EVENTS_PER_TURN: usize = 1024;

/// Servers started in one turn, and connections accepted, which leads to starts.
const STARTS_PER_TURN: usize = 8;

/// Without descriptors, memory or processes for a new session, the next attempt is made after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A look at what no event may tell: processes whose SIGCHLD was lost, groups that have become empty.
const MONITOR_INTERVAL: Duration = Duration::from_secs(2);

/// After a second signal, killed processes are waited for this long.
const FORCED_REAP_TIME: Duration = Duration::from_secs(1);

/// The serving side of the program.
pub struct Proxy {
    poll: Poll,
    registrations: Registrations,
    signals: Signals,
    listeners: Vec<Endpoint<TcpListener>>,
    turn_of_listener: usize,
    settings: Settings,
    max_sessions: usize,
    spawner: Spawner,

    sessions: Slab<Connection>,
    /// Sessions in the slab that were turned away.
    refused: usize,
    sessions_so_far: u64,
    processes: Processes,
    memory: Memory,
    timers: Timers,
    /// Sessions that wait for memory of others to become free.
    waiting_for_memory: Vec<usize>,
    /// Sessions that may have something to do, each at most once.
    run_queue: VecDeque<usize>,
    actions: Vec<Action>,
    pending_actions: VecDeque<(usize, Action)>,
    scratch: Box<[u8]>,
    now: Instant,
    accepting: Accepting,
    /// Sessions that wait for their servers to be started, in order.
    starting: VecDeque<usize>,
    /// Whether it was logged that something has run out, since there was last enough for everyone.
    exhaustion_logged: bool,
    stopping: Stopping,
}

/// Whether connections are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// Something ran out. The deadline is that of the next attempt.
    Paused {
        retry: TimerId,
    },
}

/// Whether the program is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Sessions come to their ends.
    Gently,
    /// Processes were killed, and are reaped until then.
    Forced {
        until: Instant,
    },
}

/// What kept the program from serving, in one line.
#[derive(Debug)]
pub struct StartError(String);

impl Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Turns an error into one that says what was being done.
fn failed_to<E: Display>(what: impl Display) -> impl FnOnce(E) -> StartError {
    move |error| StartError(format!("{what}: {error}"))
}

impl Proxy {
    /// Binds the addresses and looks whether the server can be run. `command` is the server's.
    pub fn new(options: &ServeOptions, command: &[OsString]) -> Result<Self, StartError> {
        let descriptors =
            DescriptorLimit::raise().map_err(failed_to("cannot raise the limit of descriptors"))?;
        let text = command_text(command);
        let spawner = Spawner::new(command, descriptors)
            .map_err(failed_to(format!("cannot run '{text}'")))?;
        let poll = Poll::new().map_err(failed_to("cannot create an epoll instance"))?;
        let mut registrations = Registrations::default();
        let address = address_text(&options.host, options.port);
        let sockets = listener::bind(&options.host, options.port).map_err(failed_to(format!(
            "cannot listen on {address} (--host, --port)"
        )))?;
        log_start(options, &text, &address);
        let mut listeners = Vec::new();
        for (slot, socket) in sockets.into_iter().enumerate() {
            log_address(&socket);
            let token = registrations.next(Address {
                slot,
                port: Port::Listener,
            });
            let endpoint = Endpoint::register(socket, poll.registry(), token, Interest::READABLE);
            listeners.push(endpoint.map_err(failed_to("cannot watch a listening socket"))?);
        }
        let token = registrations.next(Address {
            slot: 0,
            port: Port::Signals,
        });
        let signals = Signals::register(poll.registry(), token)
            .map_err(failed_to("cannot receive signals"))?;
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            warn!("orphans of servers can't be adopted: {error}");
        }
        let now = Instant::now();
        let mut timers = Timers::new(now);
        timers.set(now + MONITOR_INTERVAL, Timer::Monitor);
        Ok(Self {
            poll,
            registrations,
            signals,
            listeners,
            turn_of_listener: 0,
            settings: Settings {
                heartbeat_interval: options.heartbeat_interval,
                role: Role::Proxy {
                    max_restarts: options.max_restarts,
                },
                renews: options.auto_restart,
                max_message_bytes: options.max_message_bytes,
                replay_timeout: options.replay_timeout,
            },
            max_sessions: session_limit(options.max_sessions, descriptors),
            spawner,
            sessions: Slab::new(),
            refused: 0,
            sessions_so_far: 0,
            processes: Processes::default(),
            memory: Memory::new(DEFAULT_BUDGET_BYTES),
            timers,
            waiting_for_memory: Vec::new(),
            run_queue: VecDeque::new(),
            actions: Vec::new(),
            pending_actions: VecDeque::new(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            now,
            accepting: Accepting::Yes,
            starting: VecDeque::new(),
            exhaustion_logged: false,
            stopping: Stopping::No,
        })
    }

    /// Serves until a signal ends it and nothing is left to be served.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_done() {
            self.wait(&mut events)?;
            self.dispatch(&events);
            self.run_ready();
            self.fire_timers();
            self.apply_actions();
            self.start_servers();
            self.accept_waiting();
            self.wake_for_memory();
        }
        info!("stopped");
        Ok(())
    }

    fn is_done(&self) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::Gently => self.sessions.is_empty() && self.processes.is_empty(),
            Stopping::Forced { until } => self.processes.is_empty() || until <= self.now,
        }
    }

    /// Sleeps until something happens, unless something is left to do. This is the one place where time passes.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let busy = !self.run_queue.is_empty() || self.can_accept() || self.can_start();
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            self.timers.wait(self.now)
        };
        let timeout = match self.stopping {
            Stopping::Forced { until } => {
                let left = until.saturating_duration_since(self.now);
                Some(timeout.map_or(left, |timeout| timeout.min(left)))
            }
            Stopping::No | Stopping::Gently => timeout,
        };
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            polled => polled?,
        }
        self.now = Instant::now();
        Ok(())
    }

    /// Notes what events say. Signals come first: a line that follows a crash is then not written to a dead server.
    fn dispatch(&mut self, events: &Events) {
        let addresses = || events.iter().filter_map(|event| Address::of(event.token()));
        if addresses().any(|address| address.port == Port::Signals) {
            self.handle_signals();
        }
        for event in events {
            let Some(Address { slot, port }) = Address::of(event.token()) else {
                continue;
            };
            match port {
                Port::Signals | Port::Upstream => {}
                Port::Listener => {
                    if let Some(listener) = self.listeners.get_mut(slot) {
                        listener.latch(event);
                    }
                }
                Port::Client | Port::Stdin | Port::Stdout | Port::Stderr => {
                    if self
                        .sessions
                        .get_mut(slot)
                        .is_some_and(|connection| connection.latch(port, event))
                    {
                        self.enqueue(slot);
                    }
                }
            }
        }
    }

    fn handle_signals(&mut self) {
        let pending = self.signals.take();
        if pending.child {
            self.reap();
        }
        if pending.stop {
            self.stop();
        }
    }

    fn reap(&mut self) {
        for ended in self.processes.reap(self.now, &mut self.timers) {
            if let Some(connection) = self.sessions.get_mut(ended.session) {
                connection.server_exited(ended.process, ended.exit);
                self.enqueue(ended.session);
            }
        }
    }

    /// The first signal lets sessions come to their ends, the second one ends them.
    fn stop(&mut self) {
        match self.stopping {
            Stopping::No => {
                info!("shutting down; {} sessions are open", self.sessions.len());
                self.stopping = Stopping::Gently;
                self.listeners.clear();
                let slots: Vec<usize> = self.sessions.iter().map(|(slot, _)| slot).collect();
                for slot in slots {
                    self.with_session(slot, Session::shut_down);
                }
            }
            Stopping::Gently => {
                warn!("second signal: killing {} servers", self.processes.len());
                self.processes.kill_all();
                self.stopping = Stopping::Forced {
                    until: self.now + FORCED_REAP_TIME,
                };
            }
            Stopping::Forced { .. } => {}
        }
    }

    /// Runs the sessions that are queued now. One that has more to do is queued again, for the next turn.
    fn run_ready(&mut self) {
        for _ in 0..self.run_queue.len() {
            let Some(slot) = self.run_queue.pop_front() else {
                break;
            };
            let Some(connection) = self.sessions.get_mut(slot) else {
                continue;
            };
            connection.queued = false;
            let mut turn = Turn {
                now: self.now,
                settings: &self.settings,
                memory: &mut self.memory,
                actions: &mut self.actions,
            };
            connection.run(&mut self.scratch, &mut turn);
            let ready = connection.is_ready(&turn);
            if connection.session.waits_for_memory(turn.memory) {
                self.waiting_for_memory.push(slot);
            }
            self.after_event(slot);
            if ready {
                self.enqueue(slot);
            }
        }
    }

    /// No event tells a session that others have given memory back.
    fn wake_for_memory(&mut self) {
        if self.memory.is_plentiful() {
            for slot in std::mem::take(&mut self.waiting_for_memory) {
                self.enqueue(slot);
            }
        }
    }

    fn fire_timers(&mut self) {
        while let Some(timer) = self.timers.pop(self.now) {
            match timer {
                Timer::Session(slot) => self.fire_session_timer(slot),
                Timer::Process(process) => {
                    self.processes.climb(process, self.now, &mut self.timers);
                }
                Timer::Accept => self.accepting = Accepting::Yes,
                Timer::Connect | Timer::Close => {}
                Timer::Monitor => {
                    self.reap();
                    log::logger().flush();
                    self.timers.set(self.now + MONITOR_INTERVAL, Timer::Monitor);
                }
            }
        }
    }

    fn fire_session_timer(&mut self, slot: usize) {
        if let Some(connection) = self.sessions.get_mut(slot) {
            connection.timer = None;
            // The wall clock may be set at any time, so it is read when it is needed.
            let unix_time = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            self.with_session(slot, |session, turn| session.timeout(unix_time, turn));
        }
    }

    /// Hands an event to a session, and has the session run for what follows from it.
    fn with_session(&mut self, slot: usize, event: impl FnOnce(&mut Session, &mut Turn<'_>)) {
        let Some(connection) = self.sessions.get_mut(slot) else {
            return;
        };
        let mut turn = Turn {
            now: self.now,
            settings: &self.settings,
            memory: &mut self.memory,
            actions: &mut self.actions,
        };
        event(&mut connection.session, &mut turn);
        self.after_event(slot);
        self.enqueue(slot);
    }

    /// Takes what a session wants done, and sets its deadline.
    fn after_event(&mut self, slot: usize) {
        self.pending_actions
            .extend(self.actions.drain(..).map(|action| (slot, action)));
        let Some(connection) = self.sessions.get_mut(slot) else {
            return;
        };
        let deadline = connection.session.next_deadline();
        if connection.timer.map(|(at, _)| at) != deadline {
            if let Some((_, timer)) = connection.timer.take() {
                self.timers.cancel(timer);
            }
            connection.timer = deadline.map(|at| (at, self.timers.set(at, Timer::Session(slot))));
        }
    }

    fn enqueue(&mut self, slot: usize) {
        if let Some(connection) = self.sessions.get_mut(slot)
            && !connection.queued
        {
            connection.queued = true;
            self.run_queue.push_back(slot);
        }
    }

    fn can_accept(&self) -> bool {
        self.accepting == Accepting::Yes
            && self.starting.is_empty()
            && self.refused < MAX_REFUSED
            && self.listeners.iter().any(Endpoint::is_readable)
    }

    /// One on which a connection may wait; each in its turn, so that a flood on one address does not keep the others
    /// waiting.
    fn next_listener(&mut self) -> Option<&mut Endpoint<TcpListener>> {
        self.turn_of_listener = (self.turn_of_listener + 1) % self.listeners.len().max(1);
        let (later, sooner) = self.listeners.split_at_mut_checked(self.turn_of_listener)?;
        sooner
            .iter_mut()
            .chain(later)
            .find(|listener| listener.is_readable())
    }

    fn accept_waiting(&mut self) {
        for _ in 0..STARTS_PER_TURN {
            if !self.can_accept() {
                return;
            }
            let Some(listener) = self.next_listener() else {
                return;
            };
            match listener.source().accept() {
                Ok((stream, peer)) => {
                    self.accepted(stream, peer);
                    // Its server is started before the next connection takes what that may need.
                    self.apply_actions();
                    self.start_servers();
                }
                Err(error) => match listener::accept_error(&error) {
                    AcceptError::Blocked => {
                        listener.used_up();
                        let waits = self.listeners.iter().any(Endpoint::is_readable);
                        self.exhaustion_logged &= waits;
                    }
                    AcceptError::Connection => {
                        debug!("a connection was gone before it was accepted: {error}");
                    }
                    AcceptError::Exhausted => self.pause_accepting(&error),
                },
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream, peer: SocketAddr) {
        let slot = self.sessions.vacant_key();
        if slot >= MAX_SLOTS {
            return;
        }
        if let Err(error) = listener::configure(&stream) {
            debug!("a connection was gone when it was accepted: {error}");
            return;
        }
        let token = self.registrations.next(Address {
            slot,
            port: Port::Client,
        });
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let client = match Endpoint::register(stream, self.poll.registry(), token, interest) {
            Ok(client) => client,
            Err(error) => return self.pause_accepting(&error),
        };
        self.sessions_so_far += 1;
        let tag = Tag::Session {
            number: self.sessions_so_far,
            peer,
            pid: None,
        };
        let is_full = self.sessions.len() - self.refused >= self.max_sessions;
        let mut turn = Turn {
            now: self.now,
            settings: &self.settings,
            memory: &mut self.memory,
            actions: &mut self.actions,
        };
        let session = if is_full {
            self.refused += 1;
            Session::refuse(tag, self.max_sessions, &mut turn)
        } else {
            Session::open(tag, &mut turn)
        };
        self.sessions.insert(Connection::new(session, client));
        self.after_event(slot);
        self.enqueue(slot);
    }

    fn pause_accepting(&mut self, error: &io::Error) {
        let retry = self.timers.set(self.now + ACCEPT_PAUSE, Timer::Accept);
        match self.accepting {
            Accepting::Yes => {}
            Accepting::Paused { retry } => self.timers.cancel(retry),
        }
        self.accepting = Accepting::Paused { retry };
        if !self.exhaustion_logged {
            self.exhaustion_logged = true;
            error!(
                "new connections have to wait: {error}; {} sessions are open",
                self.sessions.len()
            );
        }
    }

    /// Does what sessions want done, until none wants anything more.
    fn apply_actions(&mut self) {
        while let Some((slot, action)) = self.pending_actions.pop_front() {
            self.apply(slot, action);
            let finished = self
                .sessions
                .get(slot)
                .is_some_and(|connection| connection.session.is_finished());
            let is_last = || !self.pending_actions.iter().any(|(other, _)| *other == slot);
            if finished && is_last() {
                self.free(slot);
            }
        }
    }

    fn apply(&mut self, slot: usize, action: Action) {
        let Some(connection) = self.sessions.get_mut(slot) else {
            return;
        };
        match action {
            Action::StartUpstream => self.starting.push_back(slot),
            Action::StopUpstream => {
                if let Some(process) = connection.end_server_input() {
                    self.processes.stop(process, self.now, &mut self.timers);
                }
            }
            Action::ReleaseUpstream => connection.release_server(),
            Action::ShutdownClient => {
                connection.shutdown_client();
                self.enqueue(slot);
            }
            Action::CloseClient => connection.close_client(),
        }
    }

    /// Starts servers that are waited for, few in a turn, so that a rush does not delay open sessions. When something
    /// has run out, the first one waits for the next attempt, and all others behind it.
    fn start_servers(&mut self) {
        for _ in 0..STARTS_PER_TURN {
            if !self.can_start() {
                return;
            }
            let Some(slot) = self.starting.pop_front() else {
                return;
            };
            if !self.start_server(slot) {
                self.starting.push_front(slot);
            }
            self.apply_actions();
        }
    }

    fn can_start(&self) -> bool {
        let forced = matches!(self.stopping, Stopping::Forced { .. });
        self.accepting == Accepting::Yes && !self.starting.is_empty() && !forced
    }

    /// Returns whether it is settled, for better or worse.
    fn start_server(&mut self, slot: usize) -> bool {
        let Some(connection) = self.sessions.get_mut(slot) else {
            return true;
        };
        if !connection.session.wants_start() {
            return true;
        }
        let started = self.spawner.spawn().and_then(|spawned| {
            let pid = spawned.pid;
            let process = self.processes.add(pid, slot);
            let attached = connection.attach(
                spawned,
                process,
                slot,
                self.poll.registry(),
                &mut self.registrations,
            );
            attached
                .inspect_err(|_| self.processes.stop(process, self.now, &mut self.timers))
                .map(|()| pid)
        });
        match started {
            Ok(pid) => {
                let pid = u32::try_from(pid.as_raw()).ok();
                self.with_session(slot, |session, turn| session.upstream_started(pid, turn));
            }
            Err(error) if listener::is_exhaustion(&error) => {
                self.pause_accepting(&error);
                return false;
            }
            Err(error) => {
                self.with_session(slot, |session, turn| session.upstream_failed(&error, turn));
            }
        }
        true
    }

    fn free(&mut self, slot: usize) {
        let mut connection = self.sessions.remove(slot);
        if let Some((_, timer)) = connection.timer {
            self.timers.cancel(timer);
        }
        connection.session.release_memory(&mut self.memory);
        if connection.session.was_refused() {
            self.refused -= 1;
        }
        info!("{}", connection.session.summary(self.now));
    }
}

/// As many sessions as there are descriptors for, unless the user wants another number.
fn session_limit(wanted: Option<usize>, descriptors: DescriptorLimit) -> usize {
    let possible = descriptors.get().saturating_sub(SPARE_DESCRIPTORS) / DESCRIPTORS_PER_SESSION;
    let possible = usize::try_from(possible)
        .unwrap_or(usize::MAX)
        .clamp(1, MAX_SLOTS - MAX_REFUSED);
    let limit = wanted.unwrap_or(possible).min(MAX_SLOTS - MAX_REFUSED);
    if limit > possible {
        warn!(
            "--max-sessions: {limit} sessions need more than the {} descriptors that are allowed (RLIMIT_NOFILE); \
             after about {possible} sessions new connections have to wait",
            descriptors.get()
        );
    }
    limit
}

/// An IPv6 address stands in brackets, or its last part would read as a port.
fn address_text(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn command_text(command: &[OsString]) -> String {
    command
        .iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn log_start(options: &ServeOptions, command: &str, address: &str) {
    info!("Starting TCP proxy on {address}");
    info!("MCP command: {command}");
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
