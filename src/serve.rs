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

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use log::{info, warn};
use mio::Events;
use mio::net::TcpListener;
use slab::Slab;

use self::accept::Accepting;
use self::client::Connection;
pub use self::setup::SetupError;
use self::spares::Spares;
use self::start_queue::Starting;
use crate::buffers::budget::BufferBudget;
use crate::process::{Owner, Processes, Spawner};
use crate::reactor::io::Io;
use crate::reactor::poller::Poller;
use crate::reactor::signals::Signals;
use crate::reactor::timers::{self, Timer, Timers, unix_time};
use crate::reactor::token::{Address, Channel, Tokens};
use crate::session::{Action, Context, Event, Session, Settings};
use crate::util::time::Time;

/// Events taken from the system at once.
const EVENTS_PER_TURN: usize = 1024;

/// A look at what no event may tell: processes whose SIGCHLD was lost, groups that have become empty.
const MONITOR_INTERVAL: Duration = Duration::from_secs(2);

/// After a second signal, killed processes are waited for this long.
const FORCED_REAP_TIME: Duration = Duration::from_secs(1);

/// The serving side of the program.
pub struct Proxy {
    poller: Poller,
    tokens: Tokens,
    signals: Signals,
    listeners: Vec<Io<TcpListener>>,
    turn_of_listener: usize,
    settings: Settings,
    max_sessions: usize,
    /// As many sessions there are descriptors for.
    sessions_possible: usize,
    spawner: Spawner,

    sessions: Slab<Connection>,
    /// Sessions in the slab that were turned away.
    refused: usize,
    sessions_so_far: u64,
    processes: Processes,
    memory: BufferBudget,
    timers: Timers,
    /// Sessions that wait for memory of others to become free.
    waiting_for_memory: Vec<usize>,
    /// Sessions that may have something to do, each at most once.
    run_queue: VecDeque<usize>,
    actions: Vec<Action>,
    pending_actions: VecDeque<(usize, Action)>,
    scratch: Box<[u8]>,
    now: Time,
    accepting: Accepting,
    starting: Starting,
    pool: Spares,
    /// Whether it was logged that something has run out, since there was last enough for everyone.
    exhaustion_logged: bool,
    stopping: Stopping,
}

/// Whether the program is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Sessions come to their ends.
    Gently,
    /// Processes were killed, and are reaped until then.
    Forced {
        until: Time,
    },
}

impl Proxy {
    /// Serves until a signal ends it and nothing is left to be served.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.is_done() {
            self.wait(&mut events)?;
            self.dispatch(&events);
            self.run_ready();
            self.fire_timers();
            self.apply_actions();
            self.accept_waiting();
            self.start_servers();
            self.pool.read_stderr(&mut self.scratch, self.now);
            self.wake_for_memory();
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
        self.stopping != Stopping::Gently || self.timers.len() == monitor + usize::from(retry)
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
        let busy = !self.run_queue.is_empty()
            || self.can_accept()
            || self.can_start()
            || self.can_prespawn()
            || self.pool.is_busy();
        let deadline = if busy {
            Some(self.now)
        } else {
            self.timers.next()
        };
        let deadline = match self.stopping {
            Stopping::Forced { until } => Some(deadline.map_or(until, |at| at.min(until))),
            Stopping::No | Stopping::Gently => deadline,
        };
        self.poller.wait(events, deadline, self.now)?;
        self.now = timers::now();
        Ok(())
    }

    /// Notes what events say. Signals come first: a line that follows a crash is then not written to a dead server.
    fn dispatch(&mut self, events: &Events) {
        let addresses = || events.iter().filter_map(|event| Address::of(event.token()));
        if addresses().any(|address| address.port == Channel::Signals) {
            self.handle_signals();
        }
        for event in events {
            let Some(Address { slot, port }) = Address::of(event.token()) else {
                continue;
            };
            match port {
                Channel::Signals | Channel::Upstream => {}
                Channel::Alarm => self.poller.alarm_fired(),
                Channel::Spares => self.pool_event(slot, event),
                Channel::Listener => {
                    if let Some(listener) = self.listeners.get_mut(slot) {
                        listener.latch(event);
                    }
                }
                Channel::Client | Channel::Stdin | Channel::Stdout | Channel::Stderr => {
                    let Some(connection) = self.sessions.get_mut(slot) else {
                        continue;
                    };
                    if connection.latch(port, event) {
                        self.note_output(slot, port);
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
            self.starting.has_started_up(ended.process);
            match ended.owner {
                Owner::Session(slot) => {
                    if let Some(connection) = self.sessions.get_mut(slot) {
                        connection.server_exited(ended.process, ended.exit);
                        self.enqueue(slot);
                    }
                }
                Owner::Spares(slot) => self.pool_server_ended(slot, ended.process, ended.exit),
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
                self.close_pool();
                let slots: Vec<usize> = self.sessions.iter().map(|(slot, _)| slot).collect();
                for slot in slots {
                    self.with_session(slot, |session, cx| session.handle(Event::ShutDown, cx));
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
            let mut cx = Context {
                now: self.now,
                settings: &self.settings,
                memory: &mut self.memory,
                actions: &mut self.actions,
            };
            connection.run(&mut self.scratch, &mut cx);
            let ready = connection.is_ready(&cx);
            if connection.session.waits_for_memory(cx.memory) {
                self.wait_for_memory(slot);
            }
            self.after_event(slot);
            if ready {
                self.enqueue(slot);
            }
        }
    }

    fn wait_for_memory(&mut self, slot: usize) {
        if !self.waiting_for_memory.contains(&slot) {
            self.waiting_for_memory.push(slot);
        }
    }

    /// No event tells a session that others have given memory back.
    fn wake_for_memory(&mut self) {
        if self.memory.has_headroom() {
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
                    self.processes.escalate(process, self.now, &mut self.timers);
                }
                Timer::Accept => self.accepting = Accepting::Yes,
                Timer::Starting => self.starting.timer_fired(),
                Timer::Spares => self.pool.timer_fired(),
                Timer::Connect | Timer::Close => {}
                Timer::Monitor => {
                    self.reap();
                    self.memory.trim();
                    self.starting.let_go(self.now);
                    log::logger().flush();
                    self.timers.set(self.now + MONITOR_INTERVAL, Timer::Monitor);
                }
            }
        }
    }

    fn fire_session_timer(&mut self, slot: usize) {
        if let Some(connection) = self.sessions.get_mut(slot) {
            connection.timer = None;
            self.with_session(slot, |session, cx| {
                session.handle(
                    Event::Deadline {
                        unix_time: unix_time(),
                    },
                    cx,
                );
            });
        }
    }

    /// Hands an event to a session, and has the session run for what follows from it.
    fn with_session(&mut self, slot: usize, event: impl FnOnce(&mut Session, &mut Context<'_>)) {
        let Some(connection) = self.sessions.get_mut(slot) else {
            return;
        };
        let mut cx = Context {
            now: self.now,
            settings: &self.settings,
            memory: &mut self.memory,
            actions: &mut self.actions,
        };
        event(&mut connection.session, &mut cx);
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
        let deadline = connection.session.next_deadline(&self.settings);
        self.timers
            .reset(&mut connection.timer, deadline, Timer::Session(slot));
        if self.starting.has_silent() && connection.session.waits_for_upstream() {
            self.starting.speaks(slot);
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
            Action::StartUpstream => {
                let speaks = connection.session.waits_for_upstream();
                self.starting.ask(slot, speaks);
            }
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

    fn free(&mut self, slot: usize) {
        let mut connection = self.sessions.remove(slot);
        self.starting.leave(slot);
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
