//! The world around the sessions: it opens them, lets programs act and time pass, and runs the loop in between.

use std::collections::VecDeque;
use std::time::Duration;

use mcp_tcp_proxy::buffers::budget::{BufferBudget, DEFAULT_BUDGET_BYTES};
use mcp_tcp_proxy::pump::SCRATCH_BYTES;
use mcp_tcp_proxy::reactor::timers::{Deadline, Timers};
use mcp_tcp_proxy::session::idle::IdleLimits;
use mcp_tcp_proxy::session::report::Label;
use mcp_tcp_proxy::session::{Action, Backend, Context, Event, Session, Settings, Spawn};
use slab::Slab;

use crate::client::Client;
use crate::journal::{Heard, Journal};
use crate::place::{Place, Route};
use crate::rng::Rng;
use crate::server::{Kind, Server};
use crate::stats::{Fault, Stats};
use crate::trace;
use crate::transport::Duplex;
use crate::unused::{self, Activity};
use mcp_tcp_proxy::util::time::Time;

/// Turns in which everything has to have come to rest, if time stands still.
const MAX_TURNS: usize = 10_000;

/// Rounds in which everything has to have come to its end, once no client says anything new.
const MAX_ROUNDS: usize = 40_000;

/// Rounds after which a client no longer waits to get rid of what it wants to say.
const PATIENCE: usize = 300;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Session(usize),
    Server(usize),
    Start,
}

pub struct World {
    pub rng: Rng,
    /// Nothing goes wrong in this one, so nothing may be lost.
    pub calm: bool,
    pub now: Time,
    pub began: Time,
    pub memory: BufferBudget,
    pub timers: Timers<Due>,
    pub places: Slab<Place>,
    pub servers: Slab<Server>,
    pub proxy: Settings,
    pub connector: Settings,
    /// The share of connectors among the sessions, in percent.
    connectors: usize,
    max_sessions: usize,
    pub run_queue: VecDeque<usize>,
    pub actions: Vec<Action>,
    pub pending_actions: VecDeque<(usize, Action)>,
    pub starting: VecDeque<usize>,
    pub paused: Deadline,
    pub waiting_for_memory: Vec<usize>,
    pub scratch: Box<[u8]>,
    /// Processes that have exited and were not reaped.
    pub exited: Vec<usize>,
    pub stopping: bool,
    pub winding_up: bool,
    pub stats: Stats,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let calm = rng.percent(25);
        let large = !calm && rng.percent(6);
        let max_message_bytes = if large {
            200_000
        } else {
            rng.pick(&[600, 1500, 3000])
        };
        let budget = if large {
            rng.pick(&[100_000, 500_000, 2_000_000])
        } else {
            DEFAULT_BUDGET_BYTES
        };
        let proxy = Settings {
            role: Backend::Process {
                max_restarts: rng.pick(&[0, 1, 5, 5, 20]),
            },
            heartbeat_interval: Duration::from_millis(rng.pick(&[100, 5_000, 30_000])),
            restarts_upstream: rng.percent(85),
            max_message_bytes,
            replay_timeout: Duration::from_millis(rng.pick(&[500, 10_000])),
            spawn: unused::spawn(&mut rng),
            idle_limits: unused::idle_limits(&mut rng),
        };
        let connector = Settings {
            role: Backend::Proxy {
                max_delay: Duration::from_secs(2),
                max_attempts: rng.pick(&[None, Some(3)]),
            },
            spawn: Spawn::Eager,
            idle_limits: IdleLimits::default(),
            ..proxy.clone()
        };
        let now = Time::from_nanos(1 << 40);
        Self {
            calm,
            now,
            began: now,
            memory: BufferBudget::new(budget),
            timers: Timers::new(now),
            places: Slab::new(),
            servers: Slab::new(),
            proxy,
            connector,
            connectors: rng.pick(&[0, 0, 30, 100]),
            max_sessions: rng.pick(&[1, 3, 8, 24]),
            run_queue: VecDeque::new(),
            actions: Vec::new(),
            pending_actions: VecDeque::new(),
            starting: VecDeque::new(),
            paused: Deadline::default(),
            waiting_for_memory: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            exited: Vec::new(),
            stopping: false,
            winding_up: false,
            stats: Stats::default(),
            rng,
        }
    }

    /// Runs to the end, at which everything has to be gone.
    pub fn run(mut self, steps: usize) -> Stats {
        let shuts_down = !self.calm && self.rng.percent(20);
        for step in 0..steps {
            if shuts_down && step == steps - steps / 10 {
                self.shut_down();
            }
            self.step();
        }
        self.wind_up();
        self.check_all_gone();
        self.stats.virtual_seconds = self.now.saturating_since(self.began).as_secs();
        self.stats
    }

    fn step(&mut self) {
        let may_open = self.places.len() < self.max_sessions && !self.stopping;
        if may_open && (self.places.is_empty() || self.rng.percent(3)) {
            self.open(false);
        } else if self.places.len() == self.max_sessions && !self.stopping && self.rng.percent(1) {
            self.open(true);
        }
        match self.rng.below(100) {
            0..=44 => self.client_acts(),
            45..=89 => self.server_acts(),
            _ => self.let_time_pass(),
        }
        if self.rng.percent(50) {
            self.reap();
        }
        self.cx();
    }

    /// Opens a session, or turns one away.
    fn open(&mut self, is_refused: bool) {
        let kind = if !is_refused && self.rng.percent(self.connectors) {
            Kind::Connection
        } else {
            Kind::Process
        };
        self.stats.sessions += 1;
        let number = self.stats.sessions;
        let tag = match kind {
            Kind::Process => Label::Session {
                number,
                client: ([127, 0, 0, 1], 1).into(),
                pid: None,
            },
            Kind::Connection => Label::Connection("localhost:1".into()),
        };
        let settings = kind.choose(&self.proxy, &self.connector);
        let mut cx = Context {
            now: self.now,
            settings,
            memory: &mut self.memory,
            actions: &mut self.actions,
        };
        let session = if is_refused {
            self.stats.fault(Fault::Refused);
            Session::refuse(tag, self.max_sessions, &mut cx)
        } else {
            Session::open(tag, &mut cx)
        };
        let max_line = self.proxy.max_message_bytes;
        let capacity = self.rng.pick(&[1000, 8192, 65_536]);
        let nothing = Heard {
            bytes: 0,
            end: false,
        };
        let slot = self.places.insert(Place {
            number,
            kind,
            session,
            socket: Duplex::new(capacity, &mut self.rng),
            client: Client::new(self.calm, max_line, &mut self.stats, &mut self.rng),
            journal: Journal::new(
                kind == Kind::Connection,
                self.memory.limit() < DEFAULT_BUDGET_BYTES,
            ),
            server: None,
            connecting: None,
            exit: None,
            deadline: Deadline::default(),
            queued: false,
            fate: Route::Open,
            broke: false,
            heard: nothing,
            heard_before_turn: nothing,
            last_taken: self.now,
            activity: Activity::new(self.now),
            is_refused,
        });
        trace::note(|| format!("{number}: opened in slot {slot}, {kind:?}"));
        self.after_event(slot);
        self.enqueue(slot);
    }

    fn any_slot(&mut self) -> Option<usize> {
        let count = self.places.len();
        let nth = if count > 0 {
            self.rng.below(count)
        } else {
            return None;
        };
        self.places.iter().nth(nth).map(|(slot, _)| slot)
    }

    fn client_acts(&mut self) {
        let Some(slot) = self.any_slot() else { return };
        let place = &mut self.places[slot];
        place
            .client
            .act(&mut place.socket, &mut place.journal, &mut self.stats);
        if self.rng.percent(80) {
            self.notify_client(slot);
        }
    }

    fn server_acts(&mut self) {
        let Some(slot) = self.any_slot() else { return };
        if let Some(key) = self.places[slot].server {
            self.act(key);
            if self.rng.percent(80) {
                self.notify_server(key);
            }
        } else if let Some(key) = self.places[slot].connecting {
            self.connection_made(slot, key);
        }
    }

    /// Lets the program of a server do a step.
    fn act(&mut self, key: usize) {
        let server = &mut self.servers[key];
        let place = self
            .places
            .get_mut(server.slot)
            .filter(|place| place.number == server.owner);
        let was_running = server.is_running();
        let mut nobody = Journal::default();
        let is_up = place
            .as_ref()
            .is_some_and(|place| place.server == Some(key));
        let journal = place.map_or(&mut nobody, |place| &mut place.journal);
        if is_up || !was_running {
            server.act(self.now, journal, &mut self.stats);
        }
        if was_running && !server.is_running() {
            self.has_ended(key);
        }
    }

    pub fn has_ended(&mut self, key: usize) {
        let server = &self.servers[key];
        trace::note(|| {
            format!(
                "{}: server {} ends: {:?}",
                server.owner, server.index, server.exit
            )
        });
        if server.kind == Kind::Process {
            self.exited.push(key);
        }
    }

    fn notify_client(&mut self, slot: usize) {
        if self.places[slot].socket.notify() {
            self.enqueue(slot);
        }
    }

    fn notify_server(&mut self, key: usize) {
        let server = &mut self.servers[key];
        if !server.released && server.notify() {
            let slot = server.slot;
            self.enqueue(slot);
        }
    }

    /// All events come that have not come yet.
    fn notify_all(&mut self) {
        let slots: Vec<usize> = self.places.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.notify_client(slot);
            if let Some(key) = self.places[slot].server {
                self.notify_server(key);
            }
        }
        self.reap();
    }

    /// Nothing is left to do before time passes.
    fn come_to_rest(&mut self) {
        for _ in 0..MAX_TURNS {
            self.notify_all();
            let due = self.timers.next().is_some_and(|at| at <= self.now);
            if self.run_queue.is_empty()
                && self.pending_actions.is_empty()
                && !due
                && !self.can_start()
            {
                self.check_rest();
                return;
            }
            self.cx();
        }
        panic!(
            "the loop does not come to rest: run queue {:?}, actions {:?}",
            self.run_queue, self.pending_actions
        );
    }

    fn let_time_pass(&mut self) {
        self.come_to_rest();
        let is_waiting = self.places.iter().any(|(_, place)| {
            // Who has seen the end waits for no answer.
            (place.journal.unanswered() > 0 && place.fate == Route::Open)
                || place.connecting.is_some()
                || !place.session.to_upstream().is_empty()
        });
        let next = self.timers.next();
        let wait = next.map(|at| at.saturating_since(self.now));
        let time = match wait {
            _ if self.calm && is_waiting => Duration::from_millis(1),
            Some(wait) if self.rng.percent(40) => wait,
            Some(wait) if self.rng.percent(15) => {
                self.stats.fault(Fault::LateClock);
                wait + Duration::from_micros(
                    self.rng.pick(&[1, 700, 50_000, 3_000_000, 40_000_000]),
                )
            }
            _ => Duration::from_micros(self.rng.below(20_000) as u64),
        };
        self.now += time;
        self.timers.advance(self.now);
        trace::note(|| format!("{time:?} pass"));
    }

    fn shut_down(&mut self) {
        trace::note(|| "shutdown".to_owned());
        self.stats.fault(Fault::Shutdown);
        self.stopping = true;
        let slots: Vec<usize> = self.places.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.with_session(slot, |session, cx| session.handle(Event::ShutDown, cx));
        }
    }

    /// Clients come to their ends, and everything has to go.
    fn wind_up(&mut self) {
        self.winding_up = true;
        trace::note(|| "winding up".to_owned());
        for round in 0..MAX_ROUNDS {
            if self.places.is_empty() && self.servers.is_empty() {
                return;
            }
            let slots: Vec<usize> = self.places.iter().map(|(slot, _)| slot).collect();
            for slot in slots {
                let place = &mut self.places[slot];
                let patient = round < PATIENCE || self.calm;
                place.client.wind_up(
                    patient,
                    &mut place.socket,
                    &mut place.journal,
                    &mut self.stats,
                );
                if let Some(key) = place.connecting {
                    self.connection_made(slot, key);
                }
            }
            let keys: Vec<usize> = self.servers.iter().map(|(key, _)| key).collect();
            for key in keys {
                let server = &mut self.servers[key];
                // A peer that says nothing and takes nothing is waited for without end.
                server.stalls &= server.kind == Kind::Process;
                self.act(key);
            }
            self.cx();
            self.let_time_pass();
        }
        panic!(
            "not all comes to its end: {} sessions, {} servers are left",
            self.places.len(),
            self.servers.len()
        );
    }
}
