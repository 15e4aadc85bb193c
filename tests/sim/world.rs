//! The world around the loops: it lets clients come, lets programs act and time pass, and runs the loops in between.

mod build;
mod end;

use std::time::Duration;

use mcp_tcp_proxy::serve::Proxy;
use mcp_tcp_proxy::util::time::Time;

pub use self::build::{proxy, settings};
use crate::allocated::Held;
use crate::below::Below;
use crate::connectors::Connectors;
use crate::place::{Place, Route};
use crate::rng::Rng;
use crate::script::{Script, Sleep};
use crate::server::{Kind, Server};
use crate::stats::{Fault, Stats};
use crate::trace;
use crate::transport::{Events, Shared};

/// Turns in which everything has to have come to rest, if time stands still.
const MAX_TURNS: usize = 10_000;

pub struct World {
    pub below: Shared<Below>,
    pub proxy: Proxy<Script>,
    pub connectors: Connectors,
    rng: Rng,
    events: Events,
    /// The share of connectors among the sessions, in percent.
    share: usize,
    max_clients: usize,
    max_strangers: usize,
    /// Whether a second signal comes.
    is_forced: bool,
    /// Of 1,000 steps, before this many new servers are wanted.
    swaps: usize,
    /// Of 100 steps in which something happens, this many are followed by a pause in which sessions may hibernate.
    pauses: usize,
    /// After this many of 100 steps another loop takes over from the one that serves.
    pub upgrades: usize,
    /// Since when the loop has known that a stop takes too long.
    pub late_since: Option<Time>,
    /// Whether it has come, and the serving loop is over.
    pub is_over: bool,
    /// What the serving loop holds, if that is measured.
    held: Option<Held>,
}

impl World {
    /// Runs to the end, at which everything has to be gone.
    pub fn run(mut self, steps: usize) -> Stats {
        self.run_to_end(steps);
        let mut below = self.below.borrow_mut();
        below.stats.virtual_seconds = below.now.saturating_since(below.began).as_secs();
        std::mem::take(&mut below.stats)
    }

    fn run_to_end(&mut self, steps: usize) {
        let shuts_down = !self.below.borrow().calm && self.rng.percent(20);
        for step in 0..steps {
            if shuts_down && step == steps - steps / 10 {
                self.shut_down();
            }
            self.step();
        }
        self.wind_up();
        self.check_all_gone();
    }

    fn step(&mut self) {
        if self.swaps > 0 && self.rng.below(1000) < self.swaps {
            self.below.borrow_mut().raise_swap();
        }
        if self.pauses > 0 && self.rng.percent(self.pauses) {
            self.pause();
        }
        let (clients, stopping) = {
            let below = self.below.borrow();
            (below.places.len(), below.stopping)
        };
        let may_open = clients < self.max_clients && !stopping;
        if may_open && (clients == 0 || self.rng.percent(3)) {
            self.open();
        }
        self.strangers_step(stopping);
        match self.rng.below(100) {
            0..=44 => self.client_acts(),
            45..=89 => self.server_acts(),
            _ => self.let_time_pass(),
        }
        if self.rng.percent(50) {
            self.below.borrow_mut().raise_child();
        }
        if self.rng.percent(2) {
            self.below.borrow_mut().raise_stale();
        }
        self.turn();
        if self.upgrades > 0 && self.rng.percent(self.upgrades) {
            self.upgrade();
        }
    }

    /// All that was asked is answered, and then nothing happens for a while.
    fn pause(&mut self) {
        self.settle();
        let limits = self.below.borrow().proxy.idle_limits;
        let time = limits.hibernate.unwrap_or_default();
        for _ in 0..self.rng.below(4) {
            let part = self.rng.pick(&[1, 1, 2]);
            // Servers that are tried have to answer in time.
            let is_slow = self.below.borrow().calm && self.is_swapping();
            let most = if is_slow {
                Duration::from_millis(1)
            } else {
                time
            };
            self.below.borrow_mut().now += most.min(time / part);
            self.below.borrow_mut().let_go();
            self.come_to_rest();
            if self.swaps > 0 && self.is_swapping() {
                // Others may have kept a server from being started up to here.
                self.settle();
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..6 {
            let mut below = self.below.borrow_mut();
            let keys: Vec<usize> = below.servers.iter().map(|(key, _)| key).collect();
            for key in keys {
                below.server_obeys(key);
            }
            below.clients_listen();
            drop(below);
            self.come_to_rest();
        }
    }

    fn strangers_step(&mut self, stopping: bool) {
        if self.max_strangers == 0 {
            return;
        }
        let mut below = self.below.borrow_mut();
        for _ in 0..self.rng.below(4) {
            if below.strangers.len() < self.max_strangers && !stopping {
                below.stranger_comes();
            }
            below.stranger_acts();
        }
        if !below.calm && below.asks.token && self.rng.percent(1) {
            below.change_mind();
        }
    }

    fn open(&mut self) {
        if self.rng.percent(self.share) {
            self.connectors.open();
        } else {
            self.below.borrow_mut().open(Kind::Process);
        }
    }

    /// An iteration of each loop.
    fn turn(&mut self) {
        let mut below = self.below.borrow_mut();
        below.stats.steps += 1;
        for (_, place) in &mut below.places {
            place.heard_before_turn = place.heard;
        }
        // Nobody listens to these.
        if self.share == 0 {
            below.events(Kind::Connection).clear();
        }
        if self.is_over {
            below.events(Kind::Process).clear();
        }
        drop(below);
        if !self.is_over {
            self.iterate_proxy();
        }
        if self.share > 0 {
            self.connectors.iterate();
        }
        self.look();
        self.look_at_entrance();
    }

    /// One of the serving loop alone.
    pub fn iterate_proxy(&mut self) {
        let Some(held) = &mut self.held else {
            return self.proxy.iterate(&mut self.events).unwrap();
        };
        held.measure(|| self.proxy.iterate(&mut self.events).unwrap());
        let sessions = self.proxy.sessions();
        held.check(sessions.len(), sessions.memory().used());
    }

    /// Has what the serving loop holds checked after each iteration. It starts with nothing.
    pub fn measured(mut self) -> Self {
        self.below.borrow_mut().keeps_pipes = true;
        self.held = Some(Held::default());
        self
    }

    /// Runs to the end. Returns what the serving loop holds then.
    pub fn run_measured(mut self, steps: usize) -> Held {
        self.run_to_end(steps);
        self.held.take().unwrap_or_default()
    }

    fn any_slot(&mut self) -> Option<usize> {
        let below = self.below.borrow();
        let count = below.places.len();
        let nth = if count > 0 {
            self.rng.below(count)
        } else {
            return None;
        };
        below.places.iter().nth(nth).map(|(slot, _)| slot)
    }

    fn client_acts(&mut self) {
        let Some(slot) = self.any_slot() else { return };
        let mut below = self.below.borrow_mut();
        below.client_acts(slot);
        if self.rng.percent(80) {
            below.notify_client(slot);
        }
    }

    fn server_acts(&mut self) {
        let Some(slot) = self.any_slot() else { return };
        let mut below = self.below.borrow_mut();
        if below.places[slot].connecting.is_some() {
            drop(below);
            return self.connectors.connection_made(slot);
        }
        // Spares, and those that were given back.
        let unused = |(_, server): &(usize, &Server)| {
            let is_left = server.given_back.is_some() || server.replaced;
            server.is_spare || (is_left && server.slot.is_none())
        };
        let mut spares = below.servers.iter().filter(unused);
        let key = if self.rng.percent(5) {
            spares.next().map(|(key, _)| key)
        } else {
            let Place {
                server, successor, ..
            } = below.places[slot];
            // Both are as quick.
            successor.filter(|_| self.rng.percent(50)).or(server)
        };
        if let Some(key) = key {
            below.server_acts(key);
            if self.rng.percent(80) {
                below.notify_server(key);
            }
        }
    }

    /// Nothing is left to do before time passes.
    pub fn come_to_rest(&mut self) {
        for _ in 0..MAX_TURNS {
            self.below.borrow_mut().notify_all();
            self.turn();
            if self.is_asleep() && !self.is_told() {
                self.check_rest();
                return;
            }
        }
        let poller = self.proxy.reactor().poller();
        panic!(
            "the loops do not come to rest: {:?}, busy {}, told {}, events {:?}, next {:?}",
            poller.sleeps_until,
            self.proxy.is_busy(),
            self.is_told(),
            self.events,
            self.proxy.reactor().timers.next(),
        );
    }

    /// Whether the loops would sleep now.
    fn is_asleep(&self) -> bool {
        let now = self.below.borrow().now;
        let reactor = self.proxy.reactor();
        let is_due = reactor.timers.next().is_some_and(|at| at <= now);
        let is_asleep = reactor.poller().sleeps_until != Sleep::No && self.events.is_empty();
        (self.is_over || (is_asleep && !is_due && !self.proxy.is_busy()))
            && (self.share == 0 || self.connectors.is_at_rest())
    }

    /// Whether there are events that no loop has seen.
    fn is_told(&self) -> bool {
        let mut below = self.below.borrow_mut();
        !below.events(Kind::Process).is_empty() || !below.events(Kind::Connection).is_empty()
    }

    fn let_time_pass(&mut self) {
        self.come_to_rest();
        let mut below = self.below.borrow_mut();
        let calm = below.calm;
        let is_waiting = calm
            && (below.places.iter().any(|(_, place)| {
                // A client that has seen the end does not wait for answers.
                (place.journal.awaited() > 0 && place.fate == Route::Open)
                    || place.connecting.is_some()
            }) || self.has_unsent()
                || self.is_swapping());
        let next = [
            self.proxy.reactor().timers.next(),
            self.connectors.reactor.timers.next(),
        ];
        let next = next.into_iter().flatten().min();
        let wait = next.map(|at| at.saturating_since(below.now));
        let time = match wait {
            _ if is_waiting => Duration::from_millis(1),
            Some(wait) if self.rng.percent(40) => wait,
            Some(wait) if self.rng.percent(15) => {
                below.stats.fault(Fault::LateClock);
                let late = [1, 700, 50_000, 3_000_000, 40_000_000];
                wait + Duration::from_micros(self.rng.pick(&late))
            }
            _ => Duration::from_micros(self.rng.below(20_000) as u64),
        };
        below.now += time;
        below.let_go();
        trace::note(|| format!("{time:?} pass"));
    }

    /// Whether a new server is tried.
    fn is_swapping(&self) -> bool {
        let mut sessions = self.proxy.sessions().iter();
        sessions.any(|(_, session, _)| session.is_swapping())
    }

    fn has_unsent(&self) -> bool {
        let sessions = self.proxy.sessions().iter().map(|(_, session, _)| session);
        let connectors = self.connectors.scheduler.iter();
        let mut all = sessions.chain(connectors.map(|(_, session, _)| session));
        all.any(|session| !session.to_upstream().is_empty() || session.waits_for_upstream())
    }
}
