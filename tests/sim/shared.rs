//! Many clients that share few servers: the loop that is shipped, over a world of random clients and servers, in which it
//! is known of every line whose it is.
//!
//! The clients choose the same ids and tokens, take back and leave at any time; the servers answer in any order, late or
//! twice, say what they were not asked, and die at any byte. [`record`] knows what each client may get, byte by byte.

mod below;
mod client;
mod legacy;
mod lines;
mod record;
mod server;
mod upgrade;

use std::time::Duration;

use mcp_tcp_proxy::buffers::budget::BufferBudget;
use mcp_tcp_proxy::serve::{Limits, Plan, Proxy, SessionsOfOne};
use mcp_tcp_proxy::session::idle::IdleLimits;
use mcp_tcp_proxy::session::stderr::ServerLogging;
use mcp_tcp_proxy::session::{Backend, Settings, Spawn};
use mcp_tcp_proxy::share;
use mcp_tcp_proxy::util::time::Time;
use slab::Slab;

use self::below::Below;
use crate::plain_system::{self, Script};
use crate::rng::Rng;
use crate::script::Sleep;
use crate::seeds::{self, Summary};
use crate::trace;
use crate::transport::{Events, Shared, shared};

/// Turns in which everything has to have come to rest, if time stands still.
const MAX_TURNS: usize = 10_000;

/// Rounds in which everything has to have come to its end, once nothing new is said.
const MAX_ROUNDS: usize = 30_000;

/// Rounds after which not the programs are slow, but something has to be waited for.
const PATIENCE: usize = 1000;

const DEFAULT_SEEDS: u64 = 200;
const DEFAULT_STEPS: u64 = 600;

/// What has happened, in numbers.
#[derive(Debug, Default)]
struct Counts {
    steps: u64,
    clients: usize,
    servers: i32,
    requests: usize,
    answered: u64,
    failed: u64,
    heard: u64,
    cancelled: usize,
    closed_by_proxy: u64,
    upgrades: u64,
}

struct World {
    below: Shared<Below>,
    proxy: Proxy<Script<Below>>,
    /// What it serves, and how.
    serves: (Limits, Plan),
    /// After this many of 100 steps another loop takes over from the one that serves.
    upgrades: usize,
    rng: Rng,
    events: Events,
    max_clients: usize,
    slow_clients: usize,
    /// Time passes although somebody waits, and nothing goes wrong.
    is_patient: bool,
    steps: u64,
}

fn limits(rng: &mut Rng, calm: bool, below: &mut Below) -> (Limits, Plan) {
    let share = share::Limits {
        processes: rng.pick(&[1, 2, 3]),
        in_flight: below.in_flight,
        max_restarts: rng.pick(&[1, 5, 20]),
        restarts: calm || rng.percent(95),
        max_message_bytes: below.max_line,
        hibernate_after: rng.pick(&[None, Some(5)]).map(Duration::from_secs),
        legacy: below.shares_legacy,
        handshake_time: Duration::from_secs(30),
        max_age: rng.pick(&[None, None, Some(20)]).map(Duration::from_secs),
        max_requests: rng.pick(&[None, None, Some(15)]),
    };
    below.record.replaces = share.max_age.is_some() || share.max_requests.is_some();
    let legacy = &mut below.record.legacy;
    legacy.asks_old = rng.percent(50);
    legacy.is_sure = calm && !legacy.asks_old && !below.record.replaces;
    let limits = Limits {
        max_sessions: 1000,
        possible_sessions: 1000,
        max_starting: rng.pick(&[1, 64]),
        sessions_of_one: SessionsOfOne::default(),
        places: 16,
        resume_timeout: None,
    };
    let plan = Plan {
        name: None,
        settings: settings(&share),
        max_sessions: None,
        spares: rng.pick(&[0, 0, 1]),
        share: Some(share),
        swaps_in_place: false,
    };
    (limits, plan)
}

fn settings(share: &share::Limits) -> Settings {
    Settings {
        role: Backend::Process {
            max_restarts: share.max_restarts,
        },
        heartbeat_interval: Duration::from_secs(30),
        restarts_upstream: share.restarts,
        max_message_bytes: share.max_message_bytes,
        replays: true,
        replay_timeout: Duration::from_secs(10),
        stop_timeout: Duration::from_secs(10),
        spawn: Spawn::Lazy,
        idle_limits: IdleLimits::default(),
        server_log: ServerLogging::Limited,
    }
}

/// The loop of the proxy. Nobody knows whom memory that is short makes it turn away, so there is enough.
fn proxy(below: &Shared<Below>, (limits, plan): &(Limits, Plan)) -> Proxy<Script<Below>> {
    plain_system::proxy(below, *limits, plan.clone(), BufferBudget::new(1 << 26))
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let calm = rng.percent(25);
        let now = Time::from_nanos(1 << 40);
        let mut below = below::build(rng.fork(), calm, now);
        let serves = limits(&mut rng, calm, &mut below);
        let below = shared(below);
        Self {
            proxy: proxy(&below, &serves),
            below,
            serves,
            upgrades: 0,
            max_clients: rng.pick(&[2, 4, 8, 24]),
            slow_clients: rng.pick(&[0, 0, 30]),
            rng,
            events: Events::new(),
            is_patient: false,
            steps: 0,
        }
    }

    fn run(mut self, steps: u64) -> Counts {
        for _ in 0..steps {
            self.step();
        }
        self.wind_up();
        let below = self.below.borrow();
        let record = &below.record;
        Counts {
            steps: self.steps,
            clients: below.clients_so_far(),
            servers: below.servers_so_far(),
            requests: record.requests.len(),
            answered: record.answered,
            failed: record.failed,
            heard: record.heard,
            cancelled: record.requests.iter().filter(|it| it.is_cancelled).count(),
            closed_by_proxy: below.closed_by_proxy,
            upgrades: below.upgrades,
        }
    }

    fn step(&mut self) {
        let clients = self.below.borrow().clients.len();
        if clients < self.max_clients && (clients == 0 || self.rng.percent(5)) {
            let is_slow = self.rng.percent(self.slow_clients);
            self.below.borrow_mut().open(is_slow);
        }
        match self.rng.below(100) {
            0..=44 => self.client_acts(),
            45..=91 => self.server_acts(),
            _ => self.let_time_pass(),
        }
        if self.rng.percent(50) {
            self.below.borrow_mut().raise_child();
        }
        self.turn();
        if self.upgrades > 0 && self.rng.percent(self.upgrades) {
            self.upgrade();
        }
    }

    fn turn(&mut self) {
        self.steps += 1;
        self.proxy.iterate(&mut self.events).unwrap();
        let mut below = self.below.borrow_mut();
        for (_, server) in self.proxy.servers().iter() {
            if let Some(user) = server.user() {
                below.note_user(server.pid(), user);
            }
        }
        below.look();
    }

    fn client_acts(&mut self) {
        let mut below = self.below.borrow_mut();
        let Some(slot) = any_key(&below.clients, &mut self.rng) else {
            return;
        };
        below.client_acts(slot);
        if self.rng.percent(80) {
            below.notify_client(slot);
        }
    }

    fn server_acts(&mut self) {
        let mut below = self.below.borrow_mut();
        let Some(key) = any_key(&below.servers.all, &mut self.rng) else {
            return;
        };
        below.server_acts(key);
        if self.rng.percent(80) {
            below.notify_server(key);
        }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..MAX_TURNS {
            self.below.borrow_mut().notify_all();
            self.turn();
            let is_told = !self.below.borrow().events.is_empty();
            let reactor = self.proxy.reactor();
            let now = self.below.borrow().now;
            let is_due = reactor.timers.next().is_some_and(|at| at <= now);
            let sleeps = reactor.poller().sleeps_until != Sleep::No && self.events.is_empty();
            if sleeps && !is_due && !self.proxy.is_busy() && !is_told {
                return self.below.borrow_mut().check_rest();
            }
        }
        panic!("the loop does not come to rest");
    }

    fn let_time_pass(&mut self) {
        self.come_to_rest();
        let next = self.proxy.reactor().timers.next();
        let mut below = self.below.borrow_mut();
        let wait = next.map(|at| at.saturating_since(below.now));
        let is_waited_for = !below.is_all_answered() || below.is_asking();
        let is_waiting = below.calm && !self.is_patient && is_waited_for;
        let time = match wait {
            // Nothing may be late where nothing goes wrong.
            _ if is_waiting => Duration::from_millis(1),
            Some(wait) if self.rng.percent(30) => wait,
            Some(wait) if !below.is_stopping && self.rng.percent(10) => {
                wait + Duration::from_secs(self.rng.pick(&[1, 20]))
            }
            _ => Duration::from_micros(self.rng.below(20_000) as u64),
        };
        below.now += time;
        trace::note(|| format!("{time:?} pass"));
    }

    /// Servers do what they were asked, so everything is answered; then all leave, and everything has to go.
    fn wind_up(&mut self) {
        trace::note(|| "winding up".to_owned());
        for round in 0..MAX_ROUNDS {
            let is_done = {
                let below = self.below.borrow();
                below.is_all_answered() && !below.record.awaits_updates()
            };
            if is_done {
                return self.end();
            }
            // What was taken back counts for a while if it gets no answer.
            self.is_patient = round > PATIENCE;
            self.round();
        }
        let below = self.below.borrow();
        panic!("not all is answered: {:#?}", below.waited_for());
    }

    fn round(&mut self) {
        {
            let mut inner = self.below.borrow_mut();
            let below = &mut *inner;
            for (_, client) in &mut below.clients {
                client.wind_up(below.now);
            }
            let keys: Vec<usize> = below.servers.all.iter().map(|(key, _)| key).collect();
            for key in keys {
                below.servers.all[key].behave();
                below.server_acts(key);
            }
            // No start is refused any more.
            below.calm = true;
        }
        self.turn();
        if self.rng.percent(20) {
            self.let_time_pass();
        }
    }

    fn end(&mut self) {
        self.come_to_rest();
        {
            let mut inner = self.below.borrow_mut();
            let below = &mut *inner;
            for (_, client) in &mut below.clients {
                client.leave(&mut below.record);
            }
            below.raise_stop();
        }
        for _ in 0..MAX_ROUNDS {
            if self.proxy.is_done() {
                assert!(self.proxy.sessions().is_empty());
                assert_eq!(self.proxy.servers().left(), 0);
                let held = self.proxy.sessions().memory().used();
                assert_eq!(held, 0, "memory is still charged for");
                return;
            }
            self.round();
        }
        panic!("not all comes to its end");
    }
}

/// The key of one of these, if there are any.
fn any_key<T>(from: &Slab<T>, rng: &mut Rng) -> Option<usize> {
    if from.is_empty() {
        return None;
    }
    let nth = rng.below(from.len());
    from.iter().nth(nth).map(|(key, _)| key)
}

#[test]
fn no_byte_of_a_client_reaches_another_and_each_request_is_answered_once() {
    let run = |seed, steps| World::new(seed).run(steps);
    let sum = seeds::run_all("shared", DEFAULT_SEEDS, DEFAULT_STEPS, run);
    println!("{sum:?}");
}

impl Summary for Counts {
    fn steps(&self) -> u64 {
        self.steps
    }
}

/// One loop takes over from another there, again and again.
#[test]
fn in_worlds_that_share_and_are_upgraded_the_same_holds() {
    let run = |seed, steps| World::upgrading(seed).run(steps);
    let sum = seeds::run_all("shared", DEFAULT_SEEDS / 5, DEFAULT_STEPS, run);
    println!("{sum:?}");
    assert!(sum.upgrades > 0);
}

#[test]
fn a_seed_determines_a_run_with_shared_servers() {
    seeds::assert_determines(3, |seed| {
        format!("{:?}", World::new(seed).run(DEFAULT_STEPS))
    });
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.steps += more.steps;
        self.clients += more.clients;
        self.servers += more.servers;
        self.requests += more.requests;
        self.answered += more.answered;
        self.failed += more.failed;
        self.heard += more.heard;
        self.cancelled += more.cancelled;
        self.closed_by_proxy += more.closed_by_proxy;
        self.upgrades += more.upgrades;
    }
}
