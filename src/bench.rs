//! `mcp-tcp-proxy bench`: measures an MCP server, or two in turn.
//!
//! [`load`] says who sends when, and counts; it is given bytes and times. [`run`] has the descriptors and the clock. What
//! comes of a run are [`tally::Figures`], which [`report`] makes into a text, JSON or CSV.

mod children;
mod client;
mod failure;
mod link;
mod load;
pub mod look;
mod open_requests;
mod place;
mod print;
mod progress;
mod report;
mod run;
mod samples;
mod schedule;
mod tally;
mod workload;

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use self::load::{Goal, Load, Pace, Plan};
use self::place::Place;
pub use self::print::print;
use self::progress::Progress;
use self::report::Measured;
use self::run::Runner;
use self::tally::Figures;
use self::workload::{Era, Request, Workload};
use crate::options::{BenchOptions, EraChoice};
use crate::process::DescriptorLimit;

/// A server that has said nothing to `server/discover` after this time does not know it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Descriptors besides those of sessions: what the program was started with, and what it waits with.
const OTHER_DESCRIPTORS: u64 = 32;

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What is to be printed.
    pub report: String,
    /// What else went wrong, a line each.
    pub troubles: Vec<String>,
    failures: u64,
}

impl Outcome {
    /// Whether all requests were answered well.
    pub fn is_clean(&self) -> bool {
        self.failures == 0 && self.troubles.is_empty()
    }
}

/// Measures what the options say. The error is one line.
pub fn run(options: &BenchOptions) -> Result<Outcome, String> {
    let request = request(options)?;
    let descriptors = DescriptorLimit::raise().map_err(|error| error.to_string())?;
    let mut runner = Runner::new().map_err(|error| error.to_string())?;
    let mut progress = Progress::new();
    let mut subjects = Vec::new();
    for target in options.targets() {
        let place = Place::find(target, options, descriptors)?;
        check_descriptors(&place, options.sessions, descriptors)?;
        let era = era(options, &place, &mut runner, &mut progress)?;
        // What is wrong with the messages is said before anything is measured.
        Workload::new(&request, era)?;
        let measured = Measured::new(target.to_string(), era, options.sessions);
        subjects.push((place, measured));
    }
    let mut troubles = Vec::new();
    for round in 1..=options.rounds() {
        for (place, measured) in &mut subjects {
            if runner.is_stopped() || !troubles.is_empty() {
                continue;
            }
            progress.begin(title(options, measured, round));
            let workload = Workload::new(&request, measured.era)?;
            let load = Load::new(plan(options, place), workload);
            let (figures, trouble) = measure(place, options, load, &mut runner, &mut progress)?;
            troubles.extend(trouble.map(|why| format!("{}: {why}", measured.target)));
            measured.add(figures);
        }
    }
    progress.clear();
    let measured: Vec<Measured> = subjects.into_iter().map(|(_, measured)| measured).collect();
    if let Some(trouble) = troubles.first()
        && measured.iter().all(Measured::is_empty)
    {
        return Err(trouble.clone());
    }
    Ok(conclude(options, &measured, troubles))
}

/// One round of one target. Returns why it ended before its time, too, if it did.
fn measure(
    place: &Place,
    options: &BenchOptions,
    mut load: Load,
    runner: &mut Runner,
    progress: &mut Progress,
) -> Result<(Figures, Option<String>), String> {
    let before = user_time();
    runner
        .run(place, options.sessions, &mut load, progress)
        .map_err(|error| error.to_string())?;
    let (mut figures, trouble) = load.finish();
    figures.user_time = user_time().saturating_sub(before);
    Ok((figures, trouble))
}

/// What this program has computed so far.
fn user_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF);
    usage.map_or(Duration::ZERO, |usage| {
        let micros = usage.user_time().num_microseconds();
        Duration::from_micros(micros.unsigned_abs())
    })
}

fn conclude(options: &BenchOptions, measured: &[Measured], mut troubles: Vec<String>) -> Outcome {
    if let Some(path) = &options.histogram
        && let Err(error) = report::histogram::write_files(path, measured)
    {
        troubles.push(error);
    }
    if let Some(path) = &options.chart
        && let Err(error) = report::chart::write(path, measured)
    {
        troubles.push(error);
    }
    let report = if options.json {
        report::json::text(measured)
    } else if options.csv {
        report::csv::text(measured)
    } else {
        report::text::text(measured, options)
    };
    let total = |measured: &Measured| measured.total.tally.failures.total();
    Outcome {
        report,
        troubles,
        failures: measured.iter().map(total).sum(),
    }
}

/// What is asked, with what is read from a file.
fn request(options: &BenchOptions) -> Result<Request, String> {
    let padded = options.payload;
    if let Some(name) = options.tool.clone() {
        let arguments = options.arguments.clone();
        return Ok(Request::Tool {
            name,
            arguments,
            padded,
        });
    }
    if let Some(name) = options.method.clone() {
        let params = options.params.clone();
        return Ok(Request::Method {
            name,
            params,
            padded,
        });
    }
    let Some(path) = &options.message else {
        return Ok(Request::Default);
    };
    let failed = |error: &dyn std::fmt::Display| format!("--message {}: {error}", path.display());
    let lines = fs::read_to_string(path).map_err(|error| failed(&error))?;
    if lines.trim().is_empty() {
        return Err(failed(&"there is no message in it"));
    }
    Ok(Request::Lines(lines))
}

fn check_descriptors(
    place: &Place,
    sessions: usize,
    descriptors: DescriptorLimit,
) -> Result<(), String> {
    let room = descriptors.get().saturating_sub(OTHER_DESCRIPTORS);
    let most = room / place.descriptors_per_session();
    if sessions as u64 <= most {
        return Ok(());
    }
    Err(format!(
        "--sessions: the limit on open files (ulimit -Hn) allows {most}, and not {sessions}"
    ))
}

fn plan(options: &BenchOptions, place: &Place) -> Plan {
    let time = options.duration.unwrap_or(BenchOptions::DEFAULT_DURATION);
    Plan {
        sessions: options.sessions,
        pace: match options.rate {
            Some(rate) => Pace::Open { rate },
            None => Pace::Closed {
                in_flight: options.in_flight.unwrap_or(1),
            },
        },
        goal: options.requests.map_or(Goal::Time(time), Goal::Requests),
        warm_up: options.warm_up,
        timeout: options.timeout,
        churn: options.churn,
        first_line: place.first_line.clone(),
    }
}

/// The era of a server. It is found out in a session, or a process, of its own, as some servers end when they are asked.
fn era(
    options: &BenchOptions,
    place: &Place,
    runner: &mut Runner,
    progress: &mut Progress,
) -> Result<Era, String> {
    match options.era {
        EraChoice::Legacy => return Ok(Era::Legacy),
        EraChoice::Modern => return Ok(Era::Modern),
        EraChoice::Auto => {}
    }
    let plan = Plan {
        sessions: 1,
        pace: Pace::Closed { in_flight: 1 },
        goal: Goal::Requests(0),
        warm_up: Duration::ZERO,
        timeout: options.timeout.min(PROBE_TIMEOUT),
        churn: false,
        first_line: place.first_line.clone(),
    };
    let mut load = Load::new(plan, Workload::probe()?);
    progress.begin("finding out what the server speaks".to_owned());
    runner
        .run(place, 1, &mut load, progress)
        .map_err(|error| error.to_string())?;
    let is_modern = load.tally().opened > 0;
    Ok(if is_modern { Era::Modern } else { Era::Legacy })
}

/// What is measured, for whoever watches.
fn title(options: &BenchOptions, measured: &Measured, round: u32) -> String {
    match options.rounds() {
        1 => measured.target.clone(),
        rounds => format!("{} ({round} of {rounds})", measured.target),
    }
}
