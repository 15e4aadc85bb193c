//! The report as CSV (RFC 4180): a line for each round and target.

use std::fmt::Write as _;

use super::{Measured, figures};

const NAMES: &str =
    "target,era,round,sessions,opened,opening_s,first_response_p50_us,requests,errors,seconds";

pub(in crate::bench) fn text(measured: &[Measured]) -> String {
    let mut text = String::from(NAMES);
    let all = figures(&super::Figures::default());
    for (name, _) in &all {
        let unit = if name.contains("per_second") {
            ""
        } else {
            "_us"
        };
        // Writing to a `String` does not fail.
        let _ = write!(text, ",{name}{unit}");
    }
    text.push('\n');
    let rounds = measured.iter().map(|target| target.rounds.len()).max();
    for round in 0..rounds.unwrap_or(0) {
        for target in measured {
            push_line(&mut text, target, round);
        }
    }
    text
}

fn push_line(text: &mut String, measured: &Measured, round: usize) {
    let Some(run) = measured.rounds.get(round) else {
        return;
    };
    let tally = &run.tally;
    let _ = write!(
        text,
        "{},{},{},{},{},{:.6},{},{},{},{:.6}",
        quoted(&measured.target),
        measured.era.name(),
        round + 1,
        measured.sessions,
        tally.opened,
        run.opening.as_secs_f64(),
        number(tally.first_response.percentile(0.5, 1)),
        tally.requests,
        tally.failures.total(),
        run.measured.as_secs_f64()
    );
    for (_, value) in figures(run) {
        let _ = write!(text, ",{}", number(value));
    }
    text.push('\n');
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.3}"))
}

/// A field that may hold anything.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
