//! One program with many sessions: opened, left idle, used, sent heartbeats, closed.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::usage::Usage;
use crate::common::affinity::{Affinity, Cores};
use crate::common::end_to_end::processes;
use crate::common::generator::{Load, Report, Target};
use crate::common::service::Service;

/// Passes over all sessions.
const PASSES: usize = 2;

/// Requests a second, all sessions together.
const RATE: u32 = 2500;

const REQUEST_BYTES: usize = 200;

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

impl Left {
    fn add(&mut self, more: &Self) {
        self.processes += more.processes;
        self.zombies += more.zombies;
        self.descriptors += more.descriptors;
    }
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
    let pid = service.pid();
    let rss_kib_without = processes::rss_kib(pid);
    let descriptors = processes::fd_count(pid);
    let target = Target::Address(service.address());
    let load = Load::echo(REQUEST_BYTES)
        .with("--rate", RATE)
        .with("--requests", PASSES * sessions)
        .with("--warm-up", 0.5);
    let measure = |load: &Load| on_both(pid, affinity, || load.run(&target));

    let alone = measure(&load)?;

    let held = Load::echo(REQUEST_BYTES).hold(&target, sessions)?;
    let idle = idle_usage(pid, windows);
    let rss_kib_with = processes::rss_kib(pid);
    let one_of_all = measure(&load)?;
    let begin = Instant::now();
    let open = held.finish()?.opening();
    let mut left = close(pid, descriptors);
    let closing = begin.elapsed();

    let each_in_turn = measure(&load.with("--sessions", sessions))?;
    let round_trips = Cores::BOTH
        .into_iter()
        .enumerate()
        .map(|(at, cores)| RoundTrips {
            cores,
            alone: alone[at],
            one_of_all: one_of_all[at],
            each_in_turn: each_in_turn[at],
        });

    let heartbeats = has_heartbeats.then(|| heartbeats(&service, sessions, windows));
    let heartbeats = heartbeats.transpose().map_err(|error| error.to_string())?;
    left.add(&close(pid, descriptors));
    Ok(Figures {
        sessions,
        open,
        rss_kib_without,
        rss_kib_with,
        idle,
        round_trips: round_trips.collect(),
        heartbeats,
        close: closing,
        left,
    })
}

/// What it uses while nothing happens.
fn idle_usage(pid: i32, windows: Windows) -> Usage {
    std::thread::sleep(SETTLING);
    let before = Usage::of(pid);
    std::thread::sleep(windows.idle);
    Usage::of(pid).since(before)
}

/// How many heartbeats arrive, and what they cost.
fn heartbeats(service: &Service, sessions: usize, windows: Windows) -> io::Result<(usize, Usage)> {
    let mut clients = Clients::open(service.address(), sessions)?;
    // Those that arrive meanwhile do not count.
    clients.exchange_heartbeats(SETTLING)?;
    let before = Usage::of(service.pid());
    let count = clients.exchange_heartbeats(windows.heartbeats)?;
    Ok((count, Usage::of(service.pid()).since(before)))
}

/// Measures with everything on one core, and then unpinned. Servers are started meanwhile, so they are on the same ones.
fn on_both(
    pid: i32,
    affinity: &Affinity,
    mut run: impl FnMut() -> Result<Report, String>,
) -> Result<Vec<RoundTrip>, String> {
    let mut found = Vec::new();
    for cores in Cores::BOTH {
        for pid in [0, pid] {
            affinity
                .apply_to(pid, cores)
                .map_err(|error| error.to_string())?;
        }
        let report = run()?;
        let known = || {
            Some(RoundTrip {
                p50: report.latency("p50")?,
                p99: report.latency("p99")?,
            })
        };
        found.push(known().ok_or("nothing was measured")?);
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
