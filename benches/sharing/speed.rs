//! Round trips and messages per second, shared and not, in rounds that take turns: what else the machine does, both feel.

use super::clients::{self, Client};
use super::common::PROXY;
use super::common::service::Service;
use super::common::stats::median;
use super::{OWN_EACH, PROCESSES, proxy, settle};

/// Sessions that send at the same time.
const SESSIONS: usize = 100;

/// Requests of each that wait for their responses: fewer than a session may have at a process.
const IN_FLIGHT: usize = 4;

pub(crate) struct Speed {
    /// In µs.
    pub(crate) own_round_trip: f64,
    pub(crate) shared_round_trip: f64,
    /// Per second.
    pub(crate) own_messages: f64,
    pub(crate) shared_messages: f64,
}

struct Side {
    sessions: Vec<Client>,
    round_trips: Vec<f64>,
    messages: Vec<f64>,
    /// Ended with this.
    _service: Service,
}

impl Side {
    fn start(processes: &str) -> Result<Self, String> {
        let service = Service::start(&mut proxy(processes, &[PROXY, "demo-server"]))?;
        let sessions = clients::open(service.address(), SESSIONS);
        Ok(Self {
            sessions: sessions.map_err(|error| error.to_string())?,
            round_trips: Vec::new(),
            messages: Vec::new(),
            _service: service,
        })
    }

    fn round(&mut self, round_trips: usize, rounds: usize) -> std::io::Result<()> {
        let mut times = clients::round_trips(&mut self.sessions[0], round_trips)?;
        self.round_trips.append(&mut times);
        self.messages
            .push(clients::throughput(&mut self.sessions, IN_FLIGHT, rounds)?);
        Ok(())
    }
}

pub(crate) fn measure(is_quick: bool) -> Speed {
    let (turns, round_trips, rounds) = if is_quick {
        (3, 300, 10)
    } else {
        (15, 2000, 100)
    };
    let mut own = Side::start(OWN_EACH).expect("servers of their own start");
    let mut shared = Side::start(PROCESSES).expect("shared servers start");
    for turn in 0..turns {
        eprintln!("speed: round {} of {turns}", turn + 1);
        for side in [&mut own, &mut shared] {
            side.round(round_trips, rounds).expect("all are answered");
        }
    }
    let speed = Speed {
        own_round_trip: median(&own.round_trips),
        shared_round_trip: median(&shared.round_trips),
        own_messages: median(&own.messages),
        shared_messages: median(&shared.messages),
    };
    drop((own, shared));
    settle();
    speed
}
