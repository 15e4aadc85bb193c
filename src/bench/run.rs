//! The loop under a load: its sessions' descriptors, and the clock. One thread, on the same reactor as the proxy.
//!
//! A time is read right after each read that has brought something, and the next request of that session is written before
//! anything else is read: what is between two requests of a session is this program's time, and it is short.

use std::io;
use std::time::Duration;

use mio::{Events, Token};
use nix::unistd::Pid;

use super::children::Children;
use super::link::{Link, NotOpened, Step};
use super::load::{Action, Load};
use super::place::Place;
use super::progress::Progress;
use crate::reactor::Reactor;
use crate::reactor::io::{Input, Readiness};
use crate::reactor::poller::Poller;
use crate::reactor::signals::Signals;
use crate::reactor::timers::{self, Deadline, Timers};
use crate::reactor::token::{self, Target};
use crate::util::time::Time;

/// Events taken from the system at once.
const EVENTS_PER_WAIT: usize = 1024;

/// What one read takes at most, in bytes. Pages that are never touched cost nothing.
const READ_BYTES: usize = 256 * 1024;

/// One session reads this often before the others have their turn.
const READS_PER_TURN: usize = 16;

/// What is overdue is looked for this often. It is late by this much at most, of a time-out of many seconds.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// How often there is news for whoever watches.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// When a unix socket has no room for one more connection, the next attempt is made after this time.
const CROWDED_DELAY: Duration = Duration::from_millis(5);

/// A wait ends later than it should by the time that the system takes to wake a process. It is planned to end earlier by as
/// much as it has been late, up to this, and the rest is polled away.
const MAX_LEAD: Duration = Duration::from_micros(200);

/// How much of the lead each wait decides.
const LEAD_SHARE: u32 = 8;

/// The descriptors of sessions, and the signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Signals,
    /// What a process reads.
    Input,
    /// What is read of a session, or a socket.
    Output,
    /// What a process says about itself.
    Errors,
}

impl token::Channel for Channel {
    const ALL: &'static [Self] = &[Self::Signals, Self::Input, Self::Output, Self::Errors];

    fn number(self) -> usize {
        self as usize
    }
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Sweep,
    Progress,
    /// To open this session again.
    Reopen(usize),
    /// To try once more to connect this session, of which nothing was said yet.
    Retry(usize),
}

/// What is used by one run after the other.
pub(super) struct Runner {
    reactor: Reactor<Channel, Due>,
    events: Events,
    signals: Signals,
    children: Children,
    buffer: Vec<u8>,
    /// How early a wait is planned to end.
    lead: Duration,
    is_stopped: bool,
}

/// One load on one place.
struct Run<'a> {
    runner: &'a mut Runner,
    place: &'a Place,
    load: &'a mut Load,
    progress: &'a mut Progress,
    links: Vec<Option<Link>>,
    /// Sessions of which events tell something, each once.
    ready: Vec<usize>,
    is_ready: Vec<bool>,
    sweep: Deadline,
    news: Deadline,
}

impl Runner {
    /// From here on, signals end runs and not the program.
    pub(super) fn new() -> io::Result<Self> {
        let mut reactor = Reactor::new(Poller::new()?);
        let token = reactor.next_token(Target {
            key: 0,
            channel: Channel::Signals,
        });
        let signals = Signals::register(reactor.poller().registry(), token)?;
        Ok(Self {
            reactor,
            events: Events::with_capacity(EVENTS_PER_WAIT),
            signals,
            children: Children::default(),
            buffer: vec![0; READ_BYTES],
            lead: Duration::ZERO,
            is_stopped: false,
        })
    }

    /// Whether somebody wants the program to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// Runs a load of this many sessions to its end, closes its sessions, and waits for the end of its processes.
    pub(super) fn run(
        &mut self,
        place: &Place,
        sessions: usize,
        load: &mut Load,
        progress: &mut Progress,
    ) -> io::Result<()> {
        let mut run = Run {
            runner: self,
            place,
            load,
            progress,
            links: (0..sessions).map(|_| None).collect(),
            ready: Vec::new(),
            is_ready: vec![false; sessions],
            sweep: Deadline::default(),
            news: Deadline::default(),
        };
        run.run()
    }

    /// Waits for the next event, or until this time.
    fn wait(&mut self, due: Option<Time>) -> io::Result<()> {
        let planned = due.map(|due| due - self.lead);
        let times = [planned, self.reactor.timers.next()];
        let planned = planned.filter(|planned| *planned > timers::now());
        self.reactor
            .wait_until(&mut self.events, times.into_iter().flatten().min())?;
        if let Some(planned) = planned
            && self.events.iter().all(|event| is_alarm(event.token()))
            && self.reactor.now() >= planned
        {
            self.note_lateness(self.reactor.now().saturating_since(planned));
        }
        Ok(())
    }

    fn note_lateness(&mut self, late: Duration) {
        let late = late.min(MAX_LEAD);
        self.lead = (self.lead * (LEAD_SHARE - 1) + late) / LEAD_SHARE;
    }

    /// Takes signals.
    fn take_signals(&mut self) {
        let pending = self.signals.take();
        if pending.child {
            self.children.reap();
        }
        self.is_stopped |= pending.stop;
    }
}

fn is_alarm(token: Token) -> bool {
    token == crate::reactor::poller::ALARM
}

impl Run<'_> {
    fn run(&mut self) -> io::Result<()> {
        let now = self.set_deadlines();
        self.load.begin(now);
        self.settle();
        while !self.load.is_over() {
            self.turn()?;
        }
        self.close_all();
        self.wait_for_children()
    }

    fn set_deadlines(&mut self) -> Time {
        let now = timers::now();
        let timers = &mut self.runner.reactor.timers;
        // Those of an earlier run mean nothing any more.
        *timers = Timers::new(now);
        self.sweep
            .set(Some(now + SWEEP_INTERVAL), Due::Sweep, timers);
        if self.progress.is_shown() {
            self.load.show_recent();
            self.news
                .set(Some(now + PROGRESS_INTERVAL), Due::Progress, timers);
        }
        now
    }

    fn turn(&mut self) -> io::Result<()> {
        let due = if self.ready.is_empty() {
            self.load.next_due()
        } else {
            Some(self.runner.reactor.now())
        };
        self.runner.wait(due)?;
        self.dispatch();
        for key in std::mem::take(&mut self.ready) {
            self.is_ready[key] = false;
            self.advance(key);
            self.settle();
        }
        self.fire_timers();
        self.load.send_due(timers::now());
        self.settle();
        if self.runner.is_stopped {
            self.load.stop(timers::now());
        }
        Ok(())
    }

    fn dispatch(&mut self) {
        let events = std::mem::replace(&mut self.runner.events, Events::with_capacity(0));
        for event in &events {
            let Some(target) = self.runner.reactor.target(event.token()) else {
                continue;
            };
            if target.channel == Channel::Signals {
                self.runner.take_signals();
                continue;
            }
            if let Some(Some(link)) = self.links.get_mut(target.key) {
                link.latch(target.channel, event.token(), Readiness::of(event));
                self.note_ready(target.key);
            }
        }
        self.runner.events = events;
    }

    fn note_ready(&mut self, key: usize) {
        if !std::mem::replace(&mut self.is_ready[key], true) {
            self.ready.push(key);
        }
    }

    fn fire_timers(&mut self) {
        while let Some(due) = self.runner.reactor.timers.pop() {
            let now = timers::now();
            match due {
                Due::Sweep => {
                    self.sweep.fired();
                    let timers = &mut self.runner.reactor.timers;
                    self.sweep
                        .set(Some(now + SWEEP_INTERVAL), Due::Sweep, timers);
                    self.runner.children.escalate(now);
                    self.load.sweep(now);
                }
                Due::Progress => {
                    self.news.fired();
                    let timers = &mut self.runner.reactor.timers;
                    self.news
                        .set(Some(now + PROGRESS_INTERVAL), Due::Progress, timers);
                    self.progress.show(self.load, now);
                }
                Due::Reopen(key) => self.load.reopen(key, now),
                Due::Retry(key) => self.retry(key),
            }
        }
        self.settle();
    }

    /// Does what the load wants, and sends what it has to say.
    fn settle(&mut self) {
        loop {
            if let Some(action) = self.load.next_action() {
                self.apply(action);
            } else if let Some(key) = self.load.next_dirty() {
                self.send(key);
            } else {
                return;
            }
        }
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Open(key) => self.open(key),
            Action::OpenLater(key, delay) => {
                self.close(key);
                self.later(delay, Due::Reopen(key));
            }
            Action::Close(key) => self.close(key),
        }
    }

    fn later(&mut self, delay: Duration, due: Due) {
        let at = timers::now() + delay;
        self.runner.reactor.timers.set(at, due);
    }

    fn open(&mut self, key: usize) {
        match Link::open(self.place, key, &mut self.runner.reactor) {
            Ok(link) => {
                if let Some(pid) = link.pid() {
                    self.runner.children.add(pid);
                }
                let is_up = link.is_up();
                self.links[key] = Some(link);
                if is_up {
                    self.load.connected(key, timers::now());
                }
            }
            Err(NotOpened::Crowded) => self.later(CROWDED_DELAY, Due::Retry(key)),
            Err(NotOpened::Failed(why)) => self.load.not_connected(key, &why, timers::now()),
        }
    }

    fn retry(&mut self, key: usize) {
        if !self.load.is_over() && self.links[key].is_none() {
            self.open(key);
        }
    }

    /// Does what there is to be done about a session.
    fn advance(&mut self, key: usize) {
        let Some(link) = &mut self.links[key] else {
            return;
        };
        if !link.is_up() {
            match link.advance(self.place, key, &mut self.runner.reactor) {
                Step::Pending => return,
                Step::Up => self.load.connected(key, timers::now()),
                Step::Failed(why) => {
                    self.links[key] = None;
                    return self.load.not_connected(key, &why, timers::now());
                }
            }
        }
        self.send(key);
        self.read(key);
    }

    fn read(&mut self, key: usize) {
        for _ in 0..READS_PER_TURN {
            let Some(link) = &mut self.links[key] else {
                return;
            };
            if !link.is_readable() {
                return link.drain_errors(&mut self.runner.buffer);
            }
            match link.read(&mut self.runner.buffer) {
                Input::Bytes(count) => {
                    let now = timers::now();
                    self.load.received(key, &self.runner.buffer[..count], now);
                    self.settle();
                }
                Input::Blocked => {}
                Input::End => return self.ended(key, None),
                Input::Broken(error) => return self.ended(key, Some(&error)),
            }
        }
        self.note_ready(key);
    }

    /// Sends what a session has to say, as far as there is room.
    fn send(&mut self, key: usize) {
        while let Some(link) = &mut self.links[key]
            && link.is_up()
            && link.is_writable()
        {
            let output = self.load.output(key);
            let written = if output.is_empty() {
                return self.flush(key);
            } else {
                link.write(output)
            };
            match written {
                Ok(count) => self.load.written(key, count),
                Err(error) => return self.ended(key, Some(&error)),
            }
        }
    }

    fn flush(&mut self, key: usize) {
        let flushed = self.links[key].as_mut().map_or(Ok(()), Link::flush);
        if let Err(error) = flushed {
            self.ended(key, Some(&error));
        }
    }

    fn ended(&mut self, key: usize, error: Option<&io::Error>) {
        if let Some(mut link) = self.links[key].take() {
            let why = link.end_words(error, &mut self.runner.buffer);
            self.dismiss(link.close());
            self.load.ended(key, &why, timers::now());
        }
    }

    fn close(&mut self, key: usize) {
        if let Some(link) = self.links[key].take() {
            self.dismiss(link.close());
        }
    }

    fn dismiss(&mut self, child: Option<Pid>) {
        if let Some(pid) = child {
            self.runner.children.dismiss(pid, timers::now());
        }
    }

    fn close_all(&mut self) {
        for key in 0..self.links.len() {
            self.close(key);
        }
        let timers = &mut self.runner.reactor.timers;
        self.news.clear(timers);
    }

    /// Processes that are ending would take time from the next run.
    fn wait_for_children(&mut self) -> io::Result<()> {
        self.runner.children.reap();
        while !self.runner.children.is_empty() {
            self.runner.wait(None)?;
            self.dispatch();
            self.fire_timers();
            self.runner.children.reap();
        }
        let timers = &mut self.runner.reactor.timers;
        self.sweep.clear(timers);
        Ok(())
    }
}
