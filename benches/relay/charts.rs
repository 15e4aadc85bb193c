//! The results as charts: one for each kind of measure, one core next to unpinned.

use super::contender::Contender;
use super::figures::of_measure;
use super::measure::Measure;
use super::rounds::Results;
use crate::common::affinity::Cores;
use crate::common::chart::{Bar, Chart, Panel};

/// The rows of a chart: a title, a measure, and the index of the figure.
type Rows<'a> = &'a [(&'a str, Measure, usize)];

/// File names and SVG documents.
pub(crate) fn all(results: &Results, contenders: &[Contender]) -> Vec<(&'static str, String)> {
    let chart = |title, note, rows| chart(results, contenders, title, note, rows);
    let small = Measure::RoundTrip { bytes: 200 };
    let larger = Measure::RoundTrip { bytes: 10_000 };
    vec![
        (
            "relay-round-trip.svg",
            chart(
                "Round trip of one request and its response, µs",
                "Less is better. Medians over rounds. Bars with a gap are cut.",
                &[
                    ("200 B, p50", small, 0),
                    ("200 B, p99", small, 1),
                    ("10 KB, p50", larger, 0),
                ],
            ),
        ),
        (
            "relay-throughput.svg",
            chart(
                "Many messages, and large messages",
                "More is better. Each message is answered by one of the same length.",
                &[
                    (
                        "200 B, 64 in flight, messages/s",
                        Measure::Messages {
                            bytes: 200,
                            in_flight: 64,
                        },
                        0,
                    ),
                    (
                        "1 MB, 4 in flight, MB/s",
                        Measure::Bulk {
                            bytes: 1_000_000,
                            in_flight: 4,
                        },
                        0,
                    ),
                ],
            ),
        ),
        (
            "relay-sessions.svg",
            chart(
                "Sessions per second: connect, one response, close",
                "More is better. Each session starts a server process.",
                &[
                    ("1 client", Measure::Sessions { clients: 1 }, 0),
                    ("4 clients", Measure::Sessions { clients: 4 }, 0),
                ],
            ),
        ),
    ]
}

fn chart(
    results: &Results,
    contenders: &[Contender],
    title: &str,
    note: &str,
    rows: Rows,
) -> String {
    let panels = rows.iter().flat_map(|&(what, measure, part)| {
        Cores::BOTH.map(|cores| Panel {
            title: format!("{what}, {}", cores.name()),
            bars: bars(results, contenders, cores, of_measure(measure, part)),
        })
    });
    let chart = Chart {
        title: title.to_owned(),
        note: note.to_owned(),
        panels: panels.collect(),
    };
    chart.svg()
}

fn bars(
    results: &Results,
    contenders: &[Contender],
    cores: Cores,
    figure: (usize, usize),
) -> Vec<Bar> {
    let bar = |&contender: &Contender| Bar {
        name: contender.name().to_owned(),
        value: results
            .median(cores, contender, figure)
            .map_err(|trouble| trouble.word().to_owned()),
        own: contender == Contender::Proxy,
    };
    contenders.iter().map(bar).collect()
}
