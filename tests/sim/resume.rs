//! Both programs back to back: `connect` and the proxy as they are shipped, over a network that cuts connections at any byte,
//! stalls, and delivers in pieces.
//!
//! Where nothing else goes wrong, each line arrives once and in order, each request is answered once, by the same server, and
//! no error is said. Where servers crash or the time to come back is short, nothing is said twice or out of order, and each
//! request has one answer all the same. Clients that know nothing of resuming see nothing of it.

mod below;
mod connectors;
mod host;
mod network;
mod rules;
mod server;
mod talk;

use std::collections::HashMap;
use std::time::Duration;

use mcp_tcp_proxy::buffers::budget::BufferBudget;
use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::serve::{Limits, Plan, Proxy, SessionsOfOne};
use mcp_tcp_proxy::session::idle::IdleLimits;
use mcp_tcp_proxy::session::stderr::ServerLogging;
use mcp_tcp_proxy::session::{Backend, Settings, Spawn};
use mcp_tcp_proxy::util::time::Time;

use self::below::{Below, Dial};
use self::connectors::Connectors;
use self::host::{Habits, Host};
use self::network::Side;
use crate::plain_system::{Script, proxy};
use crate::rng::Rng;
use crate::script::Sleep;
use crate::seeds::{self, Summary};
use crate::trace;
use crate::transport::{Events, Shared};
use crate::upgrade::take_over;

/// Turns in which everything has to have come to rest, if time stands still.
const MAX_TURNS: usize = 20_000;

/// Rounds in which everything has to have come to its end.
const MAX_ROUNDS: usize = 60_000;

const DEFAULT_SEEDS: u64 = 150;
const DEFAULT_STEPS: u64 = 800;

/// As long as the proxy keeps a session that is away.
const LONG: Duration = Duration::from_mins(2);

/// The same where it is meant to be too short now and then.
const SHORT: Duration = Duration::from_secs(5);

/// A `connect` does not keep requests any longer while there is no connection, where lines may be lost anyway.
const HELD_TIME: Duration = Duration::from_secs(1);

/// After this time, both ends know of a connection that was cut.
const PUNCTUALITY: Duration = Duration::from_secs(30);

/// What has happened, in numbers.
#[derive(Debug, Default)]
struct Counts {
    steps: u64,
    hosts: usize,
    servers: i32,
    said: u64,
    answered: u64,
    lost: u64,
    cuts: u64,
    upgrades: u64,
}

/// How much goes wrong.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// Servers crash, machines sleep, and sessions are not kept for long.
    is_rough: bool,
    /// Out of a thousand steps, a connection is cut in so many.
    cuts: usize,
    /// Out of a hundred attempts, so many are refused.
    refusals: usize,
    /// Out of a hundred steps, the network does something in so many.
    flow: usize,
}

struct World {
    below: Shared<Below>,
    proxy: Proxy<Script<Below>>,
    connectors: Connectors,
    rng: Rng,
    events: Events,
    weather: Weather,
    /// What the loop of the proxy is made of.
    limits: Limits,
    plan: Plan,
    /// After this many of 100 steps, another loop takes over from that.
    upgrades: usize,
    /// No line is longer, in bytes, but for what is around it.
    longest: usize,
    /// Since when sessions are known to be without a connection.
    away: HashMap<SessionKey, Time>,
    steps: u64,
}

fn settings(role: Backend, rng: &mut Rng) -> Settings {
    Settings {
        role,
        heartbeat_interval: Duration::from_secs(30),
        restarts_upstream: true,
        max_message_bytes: 4 << 20,
        replays: true,
        replay_timeout: Duration::from_secs(30),
        stop_timeout: Duration::from_secs(10),
        spawn: rng.pick(&[Spawn::Eager, Spawn::Lazy]),
        idle_limits: IdleLimits::default(),
        server_log: ServerLogging::Limited,
    }
}

fn of_connect(weather: Weather, rng: &mut Rng) -> Settings {
    let held_timeout = weather.is_rough && rng.percent(50);

    let role = Backend::Proxy {
        max_delay: Duration::from_millis(rng.pick(&[20, 2_000])),
        max_attempts: None,
        held_timeout: held_timeout.then_some(HELD_TIME),
        is_tidy: false,
        token: None,
        server: None,
    };
    Settings {
        spawn: Spawn::Eager,
        ..settings(role, rng)
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let weather = Weather {
            is_rough: rng.percent(30),
            cuts: rng.pick(&[0, 3, 10, 40]),
            refusals: rng.pick(&[0, 10, 50]),
            flow: rng.pick(&[10, 30, 60]),
        };
        Self::under(weather, rng)
    }

    fn under(weather: Weather, mut rng: Rng) -> Self {
        let below = below::below(&mut rng);
        below.borrow_mut().is_rough = weather.is_rough;
        let limits = Limits {
            max_sessions: 100,
            possible_sessions: 100,
            max_starting: rng.pick(&[1, 64]),
            sessions_of_one: SessionsOfOne::default(),
            places: 16,
            resume_timeout: Some(if weather.is_rough { SHORT } else { LONG }),
        };
        // Where servers crash, one of them may be the end of its session.
        let max_restarts = rng.pick(&[if weather.is_rough { 0 } else { 1000 }, 1000]);
        let role = Backend::Process { max_restarts };
        let plan = Plan {
            name: None,
            settings: settings(role, &mut rng),
            max_sessions: None,
            spares: rng.pick(&[0, 0, 1]),
            swaps_in_place: false,
            share: None,
        };
        let memory = BufferBudget::new(rng.pick(&[1 << 24, 1 << 28]));
        let mut world = Self {
            proxy: proxy(&below, limits, plan.clone(), memory),
            connectors: Connectors::new(&below, of_connect(weather, &mut rng)),
            below,
            rng,
            events: Events::new(),
            weather,
            limits,
            plan,
            upgrades: 0,
            longest: 0,
            away: HashMap::new(),
            steps: 0,
        };
        world.open_all();
        world
    }

    fn open_all(&mut self) {
        let hosts = self.rng.pick(&[1, 1, 2, 3]);
        // A few sessions with lines as long as that need a few times their length each.
        let most = self.proxy.sessions().memory().limit() / 32;
        let longest = self.rng.pick(&[300, 5_000, 200_000, 2 << 20]).min(most);
        self.longest = longest;
        let role = &self.plan.settings.role;
        let ends_with_servers = matches!(role, Backend::Process { max_restarts: 0 });
        for number in 0..=hosts {
            let is_plain = number == hosts;
            let habits = Habits {
                may_lose: self.weather.is_rough,
                may_be_left: is_plain && ends_with_servers,
                is_plain,
                writes_first: self.rng.percent(30),
                is_legacy: !self.weather.is_rough && self.rng.percent(30),
                is_slow: self.weather.is_rough && self.rng.percent(20),
                window: self.rng.pick(&[1, 10, 100, 1000]),
                longest,
            };
            let host = Host::new(number, habits, &mut self.rng);
            let mut below = self.below.borrow_mut();
            below.hosts.push(host);
            below.dials.push(Dial::None);
            if is_plain {
                below.call_plainly(number);
            } else {
                drop(below);
                self.connectors.open(number);
            }
        }
    }

    fn run(mut self, steps: u64) -> Counts {
        for _ in 0..steps {
            self.step();
        }
        self.wind_up();
        let below = self.below.borrow();
        let sum = |of: fn(&Host) -> u64| below.hosts.iter().map(of).sum();
        Counts {
            steps: self.steps,
            hosts: below.hosts.len(),
            servers: below.servers.so_far(),
            said: sum(|host| host.said),
            answered: sum(|host| host.answered),
            lost: sum(|host| host.lost),
            cuts: below.cuts,
            upgrades: below.upgrades,
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..=29 => self.host_acts(),
            30..=54 => self.server_acts(),
            55..=94 => self.network_acts(),
            _ => self.let_time_pass(),
        }
        if self.rng.below(1000) < self.weather.cuts {
            self.cut();
        }
        if self.weather.is_rough && self.rng.below(1000) < 2 {
            self.crash();
        }
        self.turn();
        self.upgrade_perhaps();
    }

    fn upgrade_perhaps(&mut self) {
        if self.upgrades == 0 || !self.rng.percent(self.upgrades) {
            return;
        }
        self.below.borrow_mut().begin_upgrade();
        let memory = BufferBudget::new(self.proxy.sessions().memory().limit());
        let new = proxy(&self.below, self.limits, self.plan.clone(), memory);
        take_over(&mut self.proxy, new);
        self.below.borrow_mut().end_upgrade();
    }

    /// The two loops go on, each at its own pace.
    fn turn(&mut self) {
        self.steps += 1;
        if self.rng.percent(70) {
            self.below.borrow_mut().notify_all();
        }
        let both = self.rng.below(4);
        if both != 0 {
            self.connectors.iterate();
        }
        if both != 1 {
            self.proxy.iterate(&mut self.events).unwrap();
        }
        self.below.borrow_mut().sweep();
        self.check();
    }

    /// What holds after each iteration of the loops.
    fn check(&mut self) {
        self.proxy.check();
        self.note_away();
        self.check_acknowledged();
        self.check_what_waits();
    }

    fn host_acts(&mut self) {
        let mut below = self.below.borrow_mut();
        let number = self.rng.below(below.hosts.len());
        if self.rng.percent(60) {
            below.hosts[number].speak();
        }
        below.hosts[number].act();
    }

    fn server_acts(&mut self) {
        let mut below = self.below.borrow_mut();
        let keys: Vec<usize> = below.servers.all.iter().map(|(key, _)| key).collect();
        if !keys.is_empty() {
            below.server_acts(self.rng.pick(&keys));
        }
    }

    fn network_acts(&mut self) {
        let mut below = self.below.borrow_mut();
        let now = below.now;
        let host = self.rng.below(below.hosts.len());
        let is_refused = self.rng.percent(self.weather.refusals);
        if self.rng.percent(self.weather.flow) {
            below.answer_dial(host, is_refused);
        }
        for key in below.connections_of(host) {
            let connection = &mut below.connections[key];
            let side = self.rng.pick(&[Side::Connector, Side::Proxy]);
            let most = self.rng.pick(&[1, 30, 300, 10_000, usize::MAX]);
            connection.arrive(side, most, now);
            if self.rng.percent(10) {
                connection.tell_of_cut(side);
            }
        }
    }

    /// Whether the session of this host is one that survives it.
    fn may_cut(&self, host: usize) -> bool {
        let mut places = self.connectors.scheduler.iter();
        let place = places.find(|(_, _, place)| place.host == host);
        let kept = place.and_then(|(_, _, place)| place.kept.as_ref());
        // Whoever has said that nothing follows is gone with the connection, once that has arrived.
        let is_under_way = || {
            let below = self.below.borrow();
            let its = below.connections.iter();
            let mut its = its.filter(|(_, it)| it.host == host && it.cut_at.is_none());
            its.any(|(_, it)| it.connector.borrow().output.unconsumed() > 0)
        };
        kept.is_some_and(|kept| {
            let survives = kept.is_lost() || kept.can_come_back();
            survives && (!kept.is_ending() || is_under_way())
        })
    }

    fn cut(&mut self) {
        let below = self.below.borrow();
        let keys: Vec<usize> = below.connections.iter().map(|(key, _)| key).collect();
        drop(below);
        if keys.is_empty() {
            return;
        }
        let key = self.rng.pick(&keys);
        let host = self.below.borrow().connections[key].host;
        let may_cut = self.weather.is_rough || self.may_cut(host);
        let mut below = self.below.borrow_mut();
        let may_cut =
            may_cut && (self.weather.is_rough || !below.connections[key].talk.is_in_doubt());
        if below.connections[key].cut_at.is_some() || !may_cut {
            return;
        }
        below.cuts += 1;
        let now = below.now;
        let connection = &mut below.connections[key];
        connection.cut(now);
        for side in [Side::Connector, Side::Proxy] {
            if self.rng.percent(30) {
                connection.tell_of_cut(side);
            }
        }
    }

    fn crash(&mut self) {
        let mut below = self.below.borrow_mut();
        let keys: Vec<usize> = below.servers.all.iter().map(|(key, _)| key).collect();
        if !keys.is_empty() {
            below.crash(self.rng.pick(&keys));
        }
    }

    fn is_at_rest(&self) -> bool {
        let reactor = self.proxy.reactor();
        let is_asleep = reactor.poller().sleeps_until != Sleep::No && self.events.is_empty();
        is_asleep
            && !reactor.timers.is_due()
            && !self.proxy.is_busy()
            && self.connectors.is_at_rest()
            && !self.below.borrow().has_told()
    }

    fn come_to_rest(&mut self) {
        for _ in 0..MAX_TURNS {
            self.below.borrow_mut().notify_all();
            self.connectors.iterate();
            self.proxy.iterate(&mut self.events).unwrap();
            self.below.borrow_mut().sweep();
            self.check();
            if self.is_at_rest() {
                return;
            }
        }
        let is_proxy_busy = self.proxy.is_busy();
        let is_connector_busy = self.connectors.scheduler.is_busy();
        let has_told = self.below.borrow().has_told();
        panic!(
            "the loops do not come to rest: {is_proxy_busy} {is_connector_busy} {has_told} {:?}",
            self.connectors.states()
        );
    }

    /// Whether some `connect` is on its way back, and waits for more than the time of its next attempt.
    fn is_any_coming_back(&self) -> bool {
        let below = self.below.borrow();
        let mut places = self.connectors.scheduler.iter();
        places.any(|(_, _, place)| {
            let kept = place.kept.as_ref().filter(|kept| kept.is_lost());
            kept.is_some_and(|kept| !kept.is_down() || below.dials[place.host] != Dial::None)
        })
    }

    /// Time passes only once all has arrived that is under way, and all know of what was cut long ago: nobody is to be so
    /// late that the session is given up.
    fn be_punctual(&mut self) {
        let mut inner = self.below.borrow_mut();
        let below = &mut *inner;
        for (_, connection) in &mut below.connections {
            connection.flow(below.now);
            if connection
                .cut_at
                .is_some_and(|at| at + PUNCTUALITY < below.now)
            {
                connection.tell_of_cut(Side::Connector);
                connection.tell_of_cut(Side::Proxy);
            }
        }
        drop(inner);
        self.come_to_rest();
    }

    /// When either loop wakes up, at the latest.
    fn next_deadline(&self) -> Option<Duration> {
        let now = self.below.borrow().now;
        let next = [
            self.proxy.reactor().timers.next(),
            self.connectors.reactor.timers.next(),
        ];
        let next = next.into_iter().flatten().min();
        next.map(|at| at.saturating_since(now))
    }

    fn let_time_pass(&mut self) {
        self.come_to_rest();
        self.check_times();
        let wait = self.next_deadline();
        let is_strict = !self.weather.is_rough;
        let mut time = match wait {
            Some(wait) if self.rng.percent(50) => wait,
            _ => Duration::from_micros(self.rng.below(20_000) as u64),
        };
        if is_strict && self.is_any_coming_back() {
            time = time.min(Duration::from_millis(20));
        }
        // After that, programs have so much time and no more.
        if is_strict && self.below.borrow().hosts.iter().any(|host| host.has_ended) {
            time = time.min(Duration::from_millis(200));
        }
        if is_strict && time > Duration::from_secs(1) {
            // It may be that there is something to do now.
            self.be_punctual();
            if self.is_any_coming_back() {
                time = Duration::from_millis(20);
            }
            time = time.min(self.next_deadline().unwrap_or(time));
        }
        let mut below = self.below.borrow_mut();
        below.now += time;
        if self.weather.is_rough && self.rng.percent(1) {
            below.slept += SHORT;
        }
        trace::note(|| format!("{time:?} pass"));
    }

    /// Nothing goes wrong any more: what was said arrives, and what was asked is answered. Then all leave.
    fn wind_up(&mut self) {
        trace::note(|| "winding up".to_owned());
        for round in 0..MAX_ROUNDS {
            if self.below.borrow().hosts.iter().all(Host::is_done) {
                return self.end();
            }
            self.round(round);
            self.upgrade_perhaps();
        }
        let below = self.below.borrow();
        let left = below.hosts.iter().filter(|host| !host.is_done());
        panic!(
            "not all come to their ends: {:#?}",
            left.collect::<Vec<_>>()
        );
    }

    fn round(&mut self, round: usize) {
        for host in &mut self.below.borrow_mut().hosts {
            // Some leave before they have their answers.
            if !host.waits() || (round + host.number).is_multiple_of(5) {
                host.end();
            }
        }
        self.work(round);
    }

    fn work(&mut self, round: usize) {
        {
            let mut inner = self.below.borrow_mut();
            let below = &mut *inner;
            for host in &mut below.hosts {
                host.duplex.borrow_mut().make_roomy();
                host.write();
                host.read_some(usize::MAX);
            }
            for (_, server) in &mut below.servers.all {
                server.hurry();
            }
            let keys: Vec<usize> = below.servers.all.iter().map(|(key, _)| key).collect();
            for key in keys {
                below.server_acts(key);
            }
            for host in 0..below.hosts.len() {
                below.answer_dial(host, false);
            }
            for (_, connection) in &mut below.connections {
                connection.make_roomy();
                connection.flow(below.now);
                for side in [Side::Connector, Side::Proxy] {
                    if self.rng.percent(20) {
                        connection.tell_of_cut(side);
                    }
                }
            }
            if round < 50 && self.rng.below(1000) < self.weather.cuts {
                drop(inner);
                self.cut();
            }
        }
        self.turn();
        if self.rng.percent(20) {
            self.let_time_pass();
        }
    }

    /// What is left at the proxy.
    fn sessions_left(&self) -> Vec<String> {
        let sessions = self.proxy.sessions().iter();
        let shown = sessions.map(|(_, session, place)| {
            let client = place
                .client()
                .map(|io| (io.source().slot, io.is_writable()));
            let says = (session.has_output_for_client(), session.has_more_lines());
            let end = session.end_reason_name();
            let is_only_lingering = session.is_only_lingering();
            format!(
                "{} {client:?} {says:?} {end} {is_only_lingering}",
                session.label()
            )
        });
        shown.collect()
    }

    fn end(&mut self) {
        for (_, connection) in &mut self.below.borrow_mut().connections {
            // Nobody is left who would take what the proxy has to say.
            connection.proxy.borrow_mut().reset();
        }
        self.below.borrow_mut().raise_stop();
        for round in 0..MAX_ROUNDS {
            if self.proxy.is_done() {
                let left: Vec<String> = self.sessions_left();
                assert!(left.is_empty(), "{left:?}");
                assert_eq!(self.proxy.servers().left(), 0);
                for memory in [
                    self.proxy.sessions().memory(),
                    self.connectors.scheduler.memory(),
                ] {
                    assert_eq!(memory.used(), 0, "memory is still charged for");
                }
                return;
            }
            self.round(round);
        }
        panic!("not all comes to its end");
    }
}

#[test]
fn over_a_network_that_cuts_every_line_arrives_once_and_each_request_is_answered_once() {
    let run = |seed, steps| World::new(seed).run(steps);
    let sum = seeds::run_all("resume", DEFAULT_SEEDS, DEFAULT_STEPS, run);
    println!("{sum:?}");
}

/// One loop takes over from another there, again and again.
#[test]
fn what_is_lost_and_comes_back_meanwhile_is_nothing_to_a_loop_that_takes_over() {
    let run = |seed, steps| {
        let mut world = World::new(seed);
        world.upgrades = world.rng.pick(&[2, 10, 40]);
        world.run(steps)
    };
    let sum = seeds::run_all("resume", DEFAULT_SEEDS / 6, DEFAULT_STEPS, run);
    assert!(sum.upgrades > 0);
    println!("{sum:?}");
}

impl Summary for Counts {
    fn steps(&self) -> u64 {
        self.steps
    }
}

#[test]
fn a_cut_at_any_byte_of_either_direction_costs_nothing() {
    let _beside = crate::allocated::beside_others();
    let fine = Weather {
        is_rough: false,
        cuts: 0,
        refusals: 0,
        flow: 100,
    };
    for side in [Side::Connector, Side::Proxy] {
        let mut cuts = 0;
        for at in 0..300 {
            let mut world = World::under(fine, Rng::new(at as u64));
            // Before that, a lost connection is a lost session.
            while !world.may_cut(0) {
                world.work(0);
            }
            {
                let mut below = world.below.borrow_mut();
                let key = below.connections_of(0)[0];
                below.connections[key].cut_after = Some((side, at));
                // Only so it has that much to say at once.
                below.hosts[0].habits.is_legacy = false;
                for _ in 0..12 {
                    below.hosts[0].speak();
                }
            }
            world.wind_up();
            // Some say less than that.
            cuts += usize::from(world.below.borrow().connections_so_far > 1);
        }
        assert!(cuts > 200, "{side:?}: {cuts}");
    }
}

#[test]
fn a_seed_determines_a_run_of_both_programs() {
    seeds::assert_determines(3, |seed| {
        format!("{:?}", World::new(seed).run(DEFAULT_STEPS))
    });
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.steps += more.steps;
        self.hosts += more.hosts;
        self.servers += more.servers;
        self.said += more.said;
        self.answered += more.answered;
        self.lost += more.lost;
        self.cuts += more.cuts;
        self.upgrades += more.upgrades;
    }
}
