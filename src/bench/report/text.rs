//! The report for people.

use std::fmt::Write as _;

use super::Measured;
use super::ratio::ratios;
use crate::bench::failure::Failures;
use crate::bench::samples::Samples;
use crate::options::BenchOptions;
use crate::status::human;
use crate::util::plural::{Counted, Grouped};

// Writing to a `String` does not fail.

pub(in crate::bench) fn text(measured: &[Measured], options: &BenchOptions) -> String {
    let mut text = String::new();
    for target in measured {
        push_target(&mut text, target, options);
        text.push('\n');
    }
    if let [first, second] = measured {
        push_ratios(&mut text, first, second);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn push_target(text: &mut String, measured: &Measured, options: &BenchOptions) {
    let figures = &measured.total;
    let tally = &figures.tally;
    let _ = writeln!(
        text,
        "{} ({}), {}, {}",
        measured.target,
        measured.era.name(),
        Counted(Grouped(measured.sessions as u64), "session"),
        pace(options)
    );
    let seconds = figures.opening.as_secs_f64();
    let _ = writeln!(
        text,
        "  opened     {} in {} ({}/s), first response p50 {}, max {}",
        Grouped(tally.opened),
        human::seconds(seconds),
        rate(tally.opened as f64, seconds),
        human::micros(tally.first_response.percentile(0.5, 1)),
        human::micros(tally.first_response.max())
    );
    let _ = writeln!(
        text,
        "  requests   {} in {}, {}/s, {}/s",
        Grouped(tally.requests),
        human::seconds(figures.measured.as_secs_f64()),
        rate(tally.in_time as f64, figures.measured.as_secs_f64()),
        human::bytes(whole(figures.bytes_per_second()))
    );
    let _ = writeln!(text, "  errors     {}", failures(&tally.failures));
    let _ = writeln!(text, "  latency    {}", samples(&tally.latency));
    if tally.lag.count() > 0 {
        let _ = writeln!(text, "  sent late  {}", samples(&tally.lag));
    }
    let _ = writeln!(
        text,
        "  own time   {} in user space for each request",
        human::micros(figures.user_time_per_request())
    );
    if measured.rounds.len() > 1 {
        push_rounds(text, measured);
    }
}

fn pace(options: &BenchOptions) -> String {
    let churn = if options.churn {
        ", each for one request"
    } else {
        ""
    };
    match options.rate {
        Some(rate) => format!("{rate} requests/s on schedule{churn}"),
        None => format!("{} in flight each{churn}", options.in_flight.unwrap_or(1)),
    }
}

fn rate(count: f64, seconds: f64) -> String {
    if seconds > 0.0 {
        Grouped(whole(Some((count / seconds).round()))).to_string()
    } else {
        "–".to_owned()
    }
}

#[allow(clippy::cast_sign_loss, reason = "there are no negative figures")]
fn whole(value: Option<f64>) -> u64 {
    value.unwrap_or(0.0) as u64
}

fn failures(failures: &Failures) -> String {
    let mut text = Grouped(failures.total()).to_string();
    for (at, (failure, count)) in failures.iter().enumerate() {
        let mark = if at == 0 { ": " } else { ", " };
        let _ = write!(text, "{mark}{} {failure}", Grouped(count));
    }
    text
}

fn samples(samples: &Samples) -> String {
    let mut text = format!("mean {}", human::micros(samples.mean()));
    for (name, value) in samples.percentiles().filter(|(_, value)| value.is_some()) {
        let name = name.replace('_', ".");
        let _ = write!(text, ", {name} {}", human::micros(value));
    }
    let _ = write!(text, ", max {}", human::micros(samples.max()));
    text
}

/// How the rounds differ.
fn push_rounds(text: &mut String, measured: &Measured) {
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let rounds = measured.rounds.iter();
        let values: Vec<String> = rounds
            .map(|round| human::micros(round.tally.latency.percentile(share, 1)))
            .collect();
        let _ = writeln!(text, "  {name} by round: {}", values.join(", "));
    }
}

fn push_ratios(text: &mut String, first: &Measured, second: &Measured) {
    let _ = writeln!(
        text,
        "{} ÷ {}, median of the rounds (least to most)",
        second.target, first.target
    );
    for ratio in ratios(first, second) {
        let _ = writeln!(
            text,
            "  {:<20} {:.3} ({:.3} to {:.3})",
            ratio.name.replace('_', " ").replace("p99 ", "p99."),
            ratio.median,
            ratio.min,
            ratio.max
        );
    }
}
