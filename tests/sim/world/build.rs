//! Worlds in which nothing has happened yet: what may happen in each is chosen by its seed.

use std::time::Duration;

use mcp_tcp_proxy::buffers::budget::{BufferBudget, DEFAULT_BUDGET_BYTES};
use mcp_tcp_proxy::reactor::Reactor;
use mcp_tcp_proxy::reactor::io::Io;
use mcp_tcp_proxy::reactor::token::Target;
use mcp_tcp_proxy::serve::{Channel, Limits, Plan, Proxy, SessionsOfOne};
use mcp_tcp_proxy::session::idle::IdleLimits;
use mcp_tcp_proxy::session::stderr::ServerLogging;
use mcp_tcp_proxy::session::{Backend, Settings, Spawn};
use mcp_tcp_proxy::util::time::Time;
use mio::Interest;

use super::World;
use crate::below::Below;
use crate::connectors::Connectors;
use crate::rng::Rng;
use crate::script::{Listener, Poller, Script, Sleep};
use crate::server::Kind;
use crate::strangers::Asks;
use crate::transport::{Events, Shared, shared};
use crate::unused;

pub fn settings(large: bool, calm: bool, rng: &mut Rng) -> [Settings; 2] {
    let max_message_bytes = if large {
        200_000
    } else {
        rng.pick(&[600, 1500, 3000])
    };
    let proxy = Settings {
        role: Backend::Process {
            max_restarts: rng.pick(&[0, 1, 5, 5, 20]),
        },
        heartbeat_interval: Duration::from_millis(rng.pick(&[100, 5_000, 30_000])),
        restarts_upstream: rng.percent(85),
        max_message_bytes,
        replays: rng.percent(95),
        replay_timeout: Duration::from_millis(rng.pick(&[500, 10_000])),
        stop_timeout: Duration::from_millis(rng.pick(&[500, 10_000, 30_000])),
        spawn: unused::spawn(rng),
        idle_limits: unused::idle_limits(rng),
        server_log: ServerLogging::Limited,
    };
    let held = if calm {
        None
    } else {
        rng.pick(&[None, Some(300), Some(5_000), Some(60_000)])
    };
    let connector = Settings {
        role: Backend::Proxy {
            max_delay: Duration::from_secs(2),
            max_attempts: rng.pick(&[None, Some(3)]),
            held_timeout: held.map(Duration::from_millis),
            is_tidy: false,
            token: None,
            server: None,
        },
        spawn: Spawn::Eager,
        idle_limits: IdleLimits::default(),
        ..proxy.clone()
    };
    [proxy, connector]
}

/// The loop of the proxy, over a script.
pub fn proxy(below: &Shared<Below>, memory: BufferBudget) -> Proxy<Script> {
    let mut reactor = Reactor::new(Poller {
        below: below.clone(),
        kind: Kind::Process,
        sleeps_until: Sleep::No,
    });
    let mut token = |channel| reactor.next_token(Target { key: 0, channel });
    let (signals, listener) = (token(Channel::Signals), token(Channel::Listener));
    let mut inner = below.borrow_mut();
    (inner.signal_token, inner.listener_token) = (signals, listener);
    let rules = inner.asks.rules();
    let limits = inner.limits;
    let plan = Plan {
        name: None,
        settings: inner.proxy.clone(),
        max_sessions: None,
        spares: inner.spares,
        share: None,
        swaps_in_place: inner.swaps_in_place,
    };
    drop(inner);
    let interest = Interest::READABLE;
    let listeners = vec![(Io::new(Listener, listener, interest), None)];
    let system = Script(below.clone());
    Proxy::new(system, reactor, listeners, limits, rules, plan, memory)
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let calm = rng.percent(25);
        let large = !calm && rng.percent(6);
        let budget = if large {
            rng.pick(&[100_000, 300_000, 300_000, 2_000_000])
        } else {
            DEFAULT_BUDGET_BYTES
        };
        let settings = settings(large, calm, &mut rng);
        let max_clients = rng.pick(&[1, 3, 8, 24]);
        let [max_sessions, possible_sessions] =
            [rng.pick(&[1, 3, 1000, 1000, 1000]), rng.pick(&[2, 1000])];
        let max_starting = rng.pick(&[1, 2, 64, 64]);
        let spares = rng.pick(&[0, 0, 1, 3]);
        let limits = Limits {
            max_sessions,
            possible_sessions,
            max_starting,
            sessions_of_one: SessionsOfOne::default(),
            places: rng.pick(&[16, 20, 100]),
            resume_timeout: None,
        };
        let asks = Asks::random(&mut rng);
        let mut world = Self::build_asking(rng, calm, budget, settings, (limits, spares), asks);
        if asks.anything() {
            world.max_strangers = world.rng.pick(&[0, 3, 30, 90]);
        }
        world.share = world.rng.pick(&[0, 0, 0, 30, 100]);
        world.max_clients = max_clients;
        world.is_forced = !calm && world.rng.percent(10);
        world
    }

    /// The same, but with long pauses in which nobody says anything of his own accord, and sessions hibernate.
    pub fn sleepy(seed: u64) -> Self {
        let mut world = Self::new(seed);
        let after = Duration::from_millis(world.rng.pick(&[5, 50, 900]));
        let idle = world.rng.pick(&[None, None, Some(20 * after)]);
        let first_message = None;
        let limits = IdleLimits {
            hibernate: Some(after),
            idle,
            first_message,
            ..IdleLimits::default()
        };
        let mut below = world.below.borrow_mut();
        below.proxy.idle_limits = limits;
        drop(below);
        world.set_up_anew();
        world.pauses = 10;
        world.share = 0;
        world
    }

    /// New servers are wanted again and again.
    pub fn restless(seed: u64) -> Self {
        let sleeps = seed.is_multiple_of(4);
        let mut world = if sleeps {
            Self::sleepy(seed)
        } else {
            Self::new(seed)
        };
        (world.share, world.max_strangers) = (0, 0);
        world.swaps = world.rng.pick(&[5, 20, 100]);
        if world.rng.percent(30) {
            world.swaps_in_place();
        }
        world
    }

    /// Old servers end before new ones are started. For a world in which nothing has happened yet.
    pub fn swaps_in_place(&mut self) {
        self.below.borrow_mut().swaps_in_place = true;
        self.set_up_anew();
    }

    fn set_up_anew(&mut self) {
        let memory = self.proxy.sessions().memory().limit();
        self.proxy = proxy(&self.below, BufferBudget::new(memory));
    }

    /// A world in which nothing has happened yet, and nothing is asked of whoever comes.
    pub fn build(
        rng: Rng,
        calm: bool,
        budget: usize,
        settings: [Settings; 2],
        limits: (Limits, usize),
    ) -> Self {
        Self::build_asking(rng, calm, budget, settings, limits, Asks::default())
    }

    fn build_asking(
        mut rng: Rng,
        calm: bool,
        budget: usize,
        settings: [Settings; 2],
        limits: (Limits, usize),
        asks: Asks,
    ) -> Self {
        let now = Time::from_nanos(1 << 40);
        let is_short = budget < DEFAULT_BUDGET_BYTES;
        let mut below = Below::new(rng.fork(), calm, now, settings, limits, is_short);
        below.asks = asks;
        let below = shared(below);
        Self {
            proxy: proxy(&below, BufferBudget::new(budget)),
            connectors: Connectors::new(below.clone(), BufferBudget::new(budget)),
            below,
            events: Events::new(),
            share: 0,
            max_clients: 0,
            max_strangers: 0,
            is_forced: false,
            swaps: 0,
            pauses: 0,
            upgrades: 0,
            late_since: None,
            is_over: false,
            held: None,
            rng,
        }
    }
}
