//! Round trips and messages per second, shared and not, in rounds that take turns: what else the machine does, both feel.

use std::time::Duration;

use super::common::PROXY;
use super::common::generator::{Load, Target, Versus};
use super::common::service::Service;
use super::{OWN_EACH, PROCESSES, proxy, settle};

/// Sessions that send at the same time.
const SESSIONS: usize = 100;

/// Requests of each that wait for their responses: fewer than a session may have at a process.
const IN_FLIGHT: usize = 4;

/// How long each is measured in a round.
const SLICE: Duration = Duration::from_millis(400);
const WARM_UP: Duration = Duration::from_millis(100);

pub(crate) struct Speed {
    /// In µs.
    pub(crate) own_round_trip: f64,
    pub(crate) shared_round_trip: f64,
    /// Per second.
    pub(crate) own_messages: f64,
    pub(crate) shared_messages: f64,
}

pub(crate) fn measure(is_quick: bool) -> Speed {
    let rounds = if is_quick { 3 } else { 15 };
    let services = [OWN_EACH, PROCESSES].map(|processes| {
        Service::start(&mut proxy(processes, &[PROXY, "demo-server"])).expect("it starts")
    });
    let [own, shared] = services
        .each_ref()
        .map(|service| Target::Address(service.address()));
    let run = |sessions, in_flight| -> Versus {
        eprintln!("speed: {rounds} rounds with {sessions} sessions");
        let load = Load::modern_list()
            .with("--sessions", sessions)
            .with("--in-flight", in_flight)
            .with("--rounds", rounds)
            .lasting(SLICE, WARM_UP);
        load.run_versus(&own, &shared).expect("all are answered")
    };
    let [own_one, shared_one] = run(1, 1).reports;
    let [own_many, shared_many] = run(SESSIONS, IN_FLIGHT).reports;
    drop(services);
    settle();
    let known = || {
        Some(Speed {
            own_round_trip: own_one.latency("p50")?,
            shared_round_trip: shared_one.latency("p50")?,
            own_messages: own_many.requests_per_second()?,
            shared_messages: shared_many.requests_per_second()?,
        })
    };
    known().expect("there are samples")
}
