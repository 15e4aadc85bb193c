//! One program with many sessions: opened, left idle, used, sent heartbeats, closed.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::usage::Usage;
use crate::common::affinity::{Affinity, Cores};
use crate::common::end_to_end::processes;
use crate::common::service::Service;
use crate::common::stats::percentile;

/// Passes over all sessions.
const PASSES: usize = 3;

/// How long a program may go on with what it was last asked before it counts as idle.
const SETTLING: Duration = Duration::from_secs(2);

/// How long it may take to close all sessions.
const CLOSE_LIMIT: Duration = Duration::from_mins(1);

/// How long each part is observed.
#[derive(Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) idle: Duration,
    /// The program must have been given this as its interval.
    pub(crate) heartbeats: Duration,
}

/// The median and the 99th percentile of round trips, in µs.
#[derive(Clone, Copy)]
pub(crate) struct RoundTrip {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Round trips on the same cores.
pub(crate) struct RoundTrips {
    pub(crate) cores: Cores,
    /// Of the only session.
    pub(crate) alone: RoundTrip,
    /// Of one session, while all are open.
    pub(crate) one_of_all: RoundTrip,
    /// Of all sessions, one after the other.
    pub(crate) each_in_turn: RoundTrip,
}

/// What is left when all clients have gone.
pub(crate) struct Left {
    pub(crate) processes: usize,
    pub(crate) zombies: usize,
    pub(crate) descriptors: usize,
}

/// What was measured.
pub(crate) struct Figures {
    pub(crate) sessions: usize,
    pub(crate) open: Duration,
    pub(crate) rss_kib_without: u64,
    pub(crate) rss_kib_with: u64,
    pub(crate) idle: Usage,
    pub(crate) round_trips: Vec<RoundTrips>,
    /// How many arrived, and what they and as many from the clients cost; `None` if the program has no heartbeats.
    pub(crate) heartbeats: Option<(usize, Usage)>,
    pub(crate) close: Duration,
    pub(crate) left: Left,
}

impl Figures {
    pub(crate) fn kib_per_session(&self) -> f64 {
        let growth = self.rss_kib_with.saturating_sub(self.rss_kib_without);
        growth as f64 / self.sessions as f64
    }
}

/// Runs `command` with this many sessions.
pub(crate) fn run(
    mut command: Command,
    sessions: usize,
    has_heartbeats: bool,
    windows: Windows,
    affinity: &Affinity,
) -> Result<Figures, String> {
    let service = Service::start(&mut command)?;
    measure(&service, sessions, has_heartbeats, windows, affinity)
        .map_err(|error| error.to_string())
}

fn measure(
    service: &Service,
    sessions: usize,
    has_heartbeats: bool,
    windows: Windows,
    affinity: &Affinity,
) -> io::Result<Figures> {
    let pid = service.pid();
    let rss_kib_without = processes::rss_kib(pid);
    let descriptors = processes::fd_count(pid);
    let mut clients = Clients::new(service.address());
    let requests = PASSES * sessions;

    clients.open(1)?;
    let alone = on_both(pid, affinity, || clients.ask_one(requests))?;

    let begin = Instant::now();
    clients.open(sessions)?;
    let open = begin.elapsed();

    std::thread::sleep(SETTLING);
    let before = Usage::of(pid);
    std::thread::sleep(windows.idle);
    let idle = Usage::of(pid).since(before);
    let rss_kib_with = processes::rss_kib(pid);

    let one_of_all = on_both(pid, affinity, || clients.ask_one(requests))?;
    let each_in_turn = on_both(pid, affinity, || clients.ask_each(PASSES))?;
    let of_both = alone.into_iter().zip(one_of_all).zip(each_in_turn);
    let round_trips =
        Cores::BOTH
            .into_iter()
            .zip(of_both)
            .map(|(cores, ((alone, one_of_all), each_in_turn))| RoundTrips {
                cores,
                alone,
                one_of_all,
                each_in_turn,
            });

    let heartbeats = has_heartbeats.then(|| heartbeats(pid, &mut clients, windows));
    let heartbeats = heartbeats.transpose()?;

    let begin = Instant::now();
    drop(clients);
    let left = close(pid, descriptors);
    Ok(Figures {
        sessions,
        open,
        rss_kib_without,
        rss_kib_with,
        idle,
        round_trips: round_trips.collect(),
        heartbeats,
        close: begin.elapsed(),
        left,
    })
}

/// How many heartbeats arrive, and what they cost.
fn heartbeats(pid: i32, clients: &mut Clients, windows: Windows) -> io::Result<(usize, Usage)> {
    clients.announce_heartbeats()?;
    // Those that arrive meanwhile do not count.
    clients.exchange_heartbeats(SETTLING)?;
    let before = Usage::of(pid);
    let count = clients.exchange_heartbeats(windows.heartbeats)?;
    Ok((count, Usage::of(pid).since(before)))
}

/// Measures with everything on one core, and then unpinned.
fn on_both(
    pid: i32,
    affinity: &Affinity,
    mut round_trips: impl FnMut() -> io::Result<Vec<f64>>,
) -> io::Result<Vec<RoundTrip>> {
    let below = processes::descendants(pid);
    let mut found = Vec::new();
    for cores in Cores::BOTH {
        affinity.apply(cores)?;
        affinity.apply_to(pid, cores)?;
        for process in &below {
            affinity.apply_to(process.pid, cores)?;
        }
        let mut times = round_trips()?;
        found.push(RoundTrip {
            p50: percentile(&mut times, 0.5),
            p99: percentile(&mut times, 0.99),
        });
    }
    Ok(found)
}

/// Waits until nothing is left of the sessions, or time is up; returns what is left.
fn close(pid: i32, descriptors: usize) -> Left {
    const POLL_INTERVAL: Duration = Duration::from_millis(10);
    let begin = Instant::now();
    loop {
        let late = begin.elapsed() > CLOSE_LIMIT;
        let more = processes::fd_count(pid).saturating_sub(descriptors);
        // Searching for processes takes long when there are many, so it comes last.
        if more == 0 || late {
            let below = processes::descendants(pid);
            if below.is_empty() || late {
                let is_zombie = |process: &&processes::Process| process.is_zombie();
                return Left {
                    processes: below.len(),
                    zombies: below.iter().filter(is_zombie).count(),
                    descriptors: more,
                };
            }
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}
