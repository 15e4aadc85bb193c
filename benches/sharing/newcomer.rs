//! How soon a new session has its first response from a process that others use already, beside a round trip of one of
//! those: in turns, after pauses of the same length, as nobody comes while others talk without a pause.

use std::thread;
use std::time::{Duration, Instant};

use super::clients::{self, Client};
use super::common::PROXY;
use super::common::service::Service;
use super::common::stats::{median, micros};
use super::{PROCESSES, proxy, settle};

/// Sessions that are open all the time.
const SESSIONS: usize = 100;

/// What a round has of each.
const PER_ROUND: usize = 50;

/// Before each.
const PAUSE: Duration = Duration::from_millis(2);

/// Of each, the medians of the rounds, in µs.
pub(crate) struct Newcomer {
    /// After a pause.
    pub(crate) round_trips: Vec<f64>,
    /// Right after another one.
    pub(crate) warm_round_trips: Vec<f64>,
    /// From before the connection is made to the response.
    pub(crate) first_responses: Vec<f64>,
}

pub(crate) fn measure(is_quick: bool) -> Newcomer {
    let rounds = if is_quick { 5 } else { 40 };
    let service = Service::start(&mut proxy(PROCESSES, &[PROXY, "demo-server"]))
        .expect("shared servers start");
    let mut sessions = clients::open(service.address(), SESSIONS).expect("all are answered");
    let mut measured = Newcomer {
        round_trips: Vec::new(),
        warm_round_trips: Vec::new(),
        first_responses: Vec::new(),
    };
    for _ in 0..rounds {
        let (mut open, mut warm, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for session in sessions.iter_mut().take(PER_ROUND) {
            thread::sleep(PAUSE);
            let times = clients::round_trips(session, 2).expect("it is answered");
            open.push(times[0]);
            warm.push(times[1]);
            thread::sleep(PAUSE);
            let began = Instant::now();
            let mut client = Client::connect(service.address()).expect("the proxy accepts");
            client
                .ask(1)
                .and_then(|()| client.hear(1))
                .expect("it is answered");
            new.push(micros(began.elapsed()));
        }
        measured.round_trips.push(median(&open));
        measured.warm_round_trips.push(median(&warm));
        measured.first_responses.push(median(&new));
    }
    drop((sessions, service));
    settle();
    measured
}
