//! The serving side: one poll loop over the listeners, the signals, and the descriptors of all sessions.
//!
//! A turn of the loop is a row of phases. Events are only noted; then the sessions that they are about are run, each
//! within its budget; then deadlines, new connections and what sessions want done. What a session frees is freed at
//! the end of the turn, when no event can be about it any more.

mod accept;
mod client;
mod pipes;
mod prespawning;
mod setup;
mod spares;
mod start_queue;

use std::io;
use std::time::Duration;

use log::{info, warn};
use mio::Events;
use mio::net::TcpListener;

use self::accept::Accepting;
use self::client::ClientSession;
pub use self::setup::SetupError;
use self::spares::Spares;
use self::start_queue::Starting;
use crate::process::{Owner, Processes, Spawner};
use crate::reactor::Reactor;
use crate::reactor::io::{Io, Readiness};
use crate::reactor::signals::Signals;
use crate::reactor::timers::unix_time;
use crate::reactor::token::{self, Target};
use crate::scheduler::{Driver, Scheduler, SessionKey};
use crate::session::{Action, Context, Event, Session};
use crate::util::time::Time;

/// Events taken from the system at once.
const EVENTS_PER_WAIT: usize = 1024;

/// A look at what no event may tell: processes whose SIGCHLD was lost, groups that have become empty.
const MONITOR_INTERVAL: Duration = Duration::from_secs(2);

/// After a second signal, killed processes are waited for this long.
const FORCED_REAP_TIME: Duration = Duration::from_secs(1);

/// The serving side of the program.
pub struct Proxy {
    reactor: Reactor<Channel, Due>,
    signals: Signals,
    listeners: Vec<Io<TcpListener>>,
    turn_of_listener: usize,
    max_sessions: usize,
    /// As many sessions there are descriptors for.
    sessions_possible: usize,
    spawner: Spawner,

    scheduler: Scheduler<ClientSession>,
    /// Sessions that were turned away and are not freed yet.
    refused: usize,
    sessions_so_far: u64,
    processes: Processes,
    accepting: Accepting,
    starting: Starting,
    pool: Spares,
    /// Whether it was logged that something has run out, since there was last enough for everyone.
    exhaustion_logged: bool,
    stopping: Stopping,
}

/// The descriptors that this loop watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Signals,
    Listener,
    Client,
    Stdin,
    Stdout,
    Stderr,
    /// A pipe of a server that waits for a session; the key is its number.
    Spares,
}

impl token::Channel for Channel {
    const ALL: &'static [Self] = &[
        Self::Signals,
        Self::Listener,
        Self::Client,
        Self::Stdin,
        Self::Stdout,
        Self::Stderr,
        Self::Spares,
    ];

    fn number(self) -> usize {
        self as usize
    }
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A session.
    Session(SessionKey),
    /// A server process that is to go.
    Process(usize),
    /// Connections may be accepted again.
    Accept,
    /// More servers may be started.
    Starting,
    /// The pool of waiting servers may be filled up.
    Spares,
    /// What must be looked after now and then.
    Monitor,
    /// Killed processes are not waited for any more.
    GiveUp,
}

impl From<SessionKey> for Due {
    fn from(key: SessionKey) -> Self {
        Self::Session(key)
    }
}

/// Whether the program is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Sessions come to their ends.
    Gently,
    /// Processes were killed, and are reaped for a while.
    Forced,
    /// They were waited for long enough.
    Over,
}

impl Proxy {
    /// Serves until a signal ends it and nothing is left to be served.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        while !self.is_done() {
            self.wait(&mut events)?;
            self.dispatch(&events);
            self.run_ready();
            self.fire_timers();
            self.apply_actions();
            self.accept_waiting();
            self.start_servers();
            let now = self.now();
            self.pool.read_stderr(self.scheduler.scratch(), now);
            self.scheduler.wake_for_memory();
        }
        debug_assert!(self.only_own_timers_are_left());
        if let Some(summary) = self.pool.summary() {
            info!("{summary}");
        }
        info!("stopped");
        Ok(())
    }

    /// Once all sessions and processes have come to their ends, no deadline of one is left.
    fn only_own_timers_are_left(&self) -> bool {
        let retry = matches!(self.accepting, Accepting::Paused { .. });
        let monitor = 1;
        self.stopping != Stopping::Gently
            || self.reactor.timers.len() == monitor + usize::from(retry)
    }

    fn is_done(&self) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::Gently => self.scheduler.is_empty() && self.processes.is_empty(),
            Stopping::Forced => self.processes.is_empty(),
            Stopping::Over => true,
        }
    }

    fn now(&self) -> Time {
        self.reactor.now()
    }

    /// Sleeps until something happens, unless something is left to do.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let is_busy = self.scheduler.is_busy()
            || self.can_accept()
            || self.can_start()
            || self.can_prespawn()
            || self.pool.is_busy();
        self.reactor.wait(events, is_busy)
    }

    /// Notes what events say. Signals are handled before any session is run: a line that follows a crash is then not
    /// written to a dead server.
    fn dispatch(&mut self, events: &Events) {
        let mut is_signalled = false;
        for event in events {
            let Some(Target { key, channel }) = self.reactor.target(event.token()) else {
                continue;
            };
            let said = (event.token(), Readiness::of(event));
            match channel {
                Channel::Signals => is_signalled = true,
                Channel::Spares => self.pool_event(key, said),
                Channel::Listener => {
                    if let Some(listener) = self.listeners.get_mut(key) {
                        listener.latch(said.0, said.1);
                    }
                }
                Channel::Client | Channel::Stdin | Channel::Stdout | Channel::Stderr => {
                    let starting = &mut self.starting;
                    self.scheduler.note(SessionKey(key), |connection| {
                        let is_known = connection.latch(channel, said);
                        if is_known {
                            note_output(starting, connection, channel);
                        }
                        is_known
                    });
                }
            }
        }
        if is_signalled {
            self.handle_signals();
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
        let now = self.now();
        for ended in self.processes.reap(now, &mut self.reactor.timers) {
            self.starting.has_started_up(ended.process);
            match ended.owner {
                Owner::Session(slot) => self.scheduler.note(SessionKey(slot), |connection| {
                    connection.server_exited(ended.process, ended.exit);
                    true
                }),
                Owner::Spares(slot) => self.pool_server_ended(slot, ended.process, ended.exit),
            }
        }
    }

    /// The first signal lets sessions come to their ends, the second one ends them.
    fn stop(&mut self) {
        match self.stopping {
            Stopping::No => {
                info!("shutting down; {} sessions are open", self.scheduler.len());
                self.stopping = Stopping::Gently;
                self.listeners.clear();
                self.close_pool();
                let keys: Vec<SessionKey> = self.scheduler.iter().map(|(key, ..)| key).collect();
                for key in keys {
                    self.tell(key, Event::ShutDown);
                }
            }
            Stopping::Gently => {
                warn!("second signal: killing {} servers", self.processes.len());
                self.processes.kill_all();
                self.stopping = Stopping::Forced;
                let at = self.now() + FORCED_REAP_TIME;
                self.reactor.timers.set(at, Due::GiveUp);
            }
            Stopping::Forced | Stopping::Over => {}
        }
    }

    /// Runs the sessions that are queued now. One that has more to do is queued again, for the next turn.
    fn run_ready(&mut self) {
        let mut driver = Runner {
            starting: &mut self.starting,
        };
        self.scheduler
            .run_ready(&mut driver, &mut self.reactor.timers);
    }

    fn fire_timers(&mut self) {
        while let Some(due) = self.reactor.timers.pop() {
            let now = self.now();
            match due {
                Due::Session(key) => {
                    let unix_time = unix_time();
                    self.tell(key, Event::Deadline { unix_time });
                }
                Due::Process(process) => {
                    self.processes
                        .escalate(process, now, &mut self.reactor.timers);
                }
                Due::Accept => self.accepting = Accepting::Yes,
                Due::Starting => self.starting.timer_fired(),
                Due::Spares => self.pool.timer_fired(),
                Due::GiveUp => self.stopping = Stopping::Over,
                Due::Monitor => {
                    self.reap();
                    self.scheduler.trim_memory();
                    self.starting.let_go(now);
                    log::logger().flush();
                    self.reactor
                        .timers
                        .set(now + MONITOR_INTERVAL, Due::Monitor);
                }
            }
        }
    }

    /// Hands an event to a session, and has the session run for what follows from it.
    fn tell(&mut self, key: SessionKey, event: Event<'_>) {
        let told = self.scheduler.handle(key, event, &mut self.reactor.timers);
        if told.is_some_and(Session::waits_for_upstream) {
            self.starting.speaks(key.0);
        }
    }

    /// Does what sessions want done, until none wants anything more.
    fn apply_actions(&mut self) {
        while let Some((key, action)) = self.scheduler.next_action() {
            self.apply(key, action);
            let timers = &mut self.reactor.timers;
            if let Some((session, _)) = self.scheduler.free_if_finished(key, timers) {
                self.starting.leave(key.0);
                if session.was_refused() {
                    self.refused -= 1;
                }
                info!("{}", session.summary(self.now()));
            }
        }
    }

    fn apply(&mut self, key: SessionKey, action: Action) {
        if action == Action::StartUpstream {
            let session = self.scheduler.session(key);
            let speaks = session.is_some_and(Session::waits_for_upstream);
            return self.starting.ask(key.0, speaks);
        }
        if action == Action::ShutdownClient {
            self.scheduler.enqueue(key);
        }
        let now = self.now();
        let Some(connection) = self.scheduler.place_mut(key) else {
            return;
        };
        match action {
            Action::StopUpstream => {
                if let Some(process) = connection.end_server_input() {
                    self.processes.stop(process, now, &mut self.reactor.timers);
                }
            }
            Action::ReleaseUpstream => connection.release_server(),
            Action::ShutdownClient => connection.shutdown_client(),
            Action::CloseClient => connection.close_client(),
            Action::StartUpstream => {}
        }
    }
}

/// Runs sessions between their descriptors.
struct Runner<'a> {
    starting: &'a mut Starting,
}

impl Driver for Runner<'_> {
    type Place = ClientSession;

    fn run(
        &mut self,
        key: SessionKey,
        session: &mut Session,
        place: &mut ClientSession,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let has_more = place.run(session, scratch, cx);
        if self.starting.has_silent() && session.waits_for_upstream() {
            self.starting.speaks(key.0);
        }
        has_more
    }
}

/// The first thing that a server writes shows that it has started up.
fn note_output(starting: &mut Starting, connection: &ClientSession, channel: Channel) {
    if !starting.none_starts_up()
        && matches!(channel, Channel::Stdout | Channel::Stderr)
        && let Some(process) = connection.process()
    {
        starting.has_started_up(process);
    }
}
