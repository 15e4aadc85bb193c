//! The report as JSON: one object, on one line.

use std::fmt::Write as _;

use super::Measured;
use super::ratio::{Ratio, ratios};
use crate::bench::failure::Failures;
use crate::bench::samples::Samples;
use crate::bench::tally::Figures;
use crate::protocol::own_messages::JsonString;

pub(in crate::bench) fn text(measured: &[Measured]) -> String {
    let mut text = String::new();
    match measured {
        [first, second] => {
            text.push_str(r#"{"targets":["#);
            push_target(&mut text, first);
            text.push(',');
            push_target(&mut text, second);
            text.push_str(r#"],"ratio":{"#);
            push_ratios(&mut text, &ratios(first, second));
            text.push_str("}}");
        }
        others => {
            for target in others {
                push_target(&mut text, target);
            }
        }
    }
    text.push('\n');
    text
}

// Writing to a `String` does not fail.

fn push_target(text: &mut String, measured: &Measured) {
    let _ = write!(
        text,
        r#"{{"target":{},"era":"{}","sessions":{},"rounds":{},"#,
        JsonString(&measured.target),
        measured.era.name(),
        measured.sessions,
        measured.rounds.len()
    );
    push_figures(text, &measured.total);
    text.push('}');
}

fn push_figures(text: &mut String, figures: &Figures) {
    let tally = &figures.tally;
    let _ = write!(
        text,
        r#""open":{{"sessions":{},"seconds":{},"first_response_us":"#,
        tally.opened,
        figures.opening.as_secs_f64()
    );
    push_samples(text, &tally.first_response);
    let _ = write!(text, r#"}},"requests":{},"errors":"#, tally.requests);
    push_failures(text, &tally.failures);
    let _ = write!(
        text,
        r#","seconds":{},"requests_per_second":{},"bytes_per_second":{},"latency_us":"#,
        figures.measured.as_secs_f64(),
        number(figures.requests_per_second()),
        number(figures.bytes_per_second())
    );
    push_samples(text, &tally.latency);
    if tally.lag.count() > 0 {
        text.push_str(r#","lag_us":"#);
        push_samples(text, &tally.lag);
    }
    let _ = write!(
        text,
        r#","own_user_us_per_request":{}"#,
        number(figures.user_time_per_request())
    );
}

fn push_failures(text: &mut String, failures: &Failures) {
    text.push('{');
    for (at, (failure, count)) in failures.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let name = failure.to_string();
        let _ = write!(text, "{comma}{}:{count}", JsonString(&name));
    }
    text.push('}');
}

fn push_samples(text: &mut String, samples: &Samples) {
    let _ = write!(text, r#"{{"mean":{}"#, number(samples.mean()));
    for (name, value) in samples.percentiles() {
        let _ = write!(text, r#","{name}":{}"#, number(value));
    }
    let _ = write!(text, r#","max":{}}}"#, number(samples.max()));
}

fn push_ratios(text: &mut String, ratios: &[Ratio]) {
    for (at, ratio) in ratios.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(
            text,
            r#"{comma}"{}":{{"median":{:.4},"min":{:.4},"max":{:.4}}}"#,
            ratio.name, ratio.median, ratio.min, ratio.max
        );
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| format!("{value:.3}"))
}
