//! Targets: bounds for this proxy's figures, as ratios to those of others in the same run.

use super::contender::Contender::{self, Bare, Script, Socat, TcpServer};
use super::figures::of_measure;
use super::measure::Measure;
use super::rounds::{Results, Trouble};
use crate::common::affinity::Cores::{self, All, One};
use crate::common::reach::Bound::{self, AtLeast, AtMost};
use crate::common::reach::Goal;

/// The cores, whose figure ours is divided by, what the ratio must be, and what it should be.
type Row = (Cores, Contender, Bound, Option<Bound>);

const ROUND_TRIP: Measure = Measure::RoundTrip { bytes: 200 };

const MESSAGES: Measure = Measure::Messages {
    bytes: 200,
    in_flight: 64,
};

const BULK: Measure = Measure::Bulk {
    bytes: 1_000_000,
    in_flight: 4,
};

/// The targets, with what was measured.
pub(crate) fn all(results: &Results) -> Vec<Goal> {
    let goals = |what, measure, part, rows: &[Row]| of(results, what, (measure, part), rows);
    [
        goals(
            "round trip 200 B, p50",
            ROUND_TRIP,
            0,
            &[
                (One, Bare, AtMost(1.08), Some(AtMost(1.04))),
                (One, Socat, AtMost(0.80), Some(AtMost(0.75))),
                (All, Socat, AtMost(1.0), None),
                (One, Script, AtMost(0.5), None),
                (All, Script, AtMost(0.5), None),
            ],
        ),
        goals(
            "round trip 200 B, p99",
            ROUND_TRIP,
            1,
            &[
                (One, Bare, AtMost(1.20), None),
                (One, Socat, AtMost(0.90), None),
            ],
        ),
        goals(
            "200 B, 64 in flight, messages/s",
            MESSAGES,
            0,
            &[
                (One, Bare, AtLeast(0.92), Some(AtLeast(0.97))),
                (One, Socat, AtLeast(1.0), Some(AtLeast(1.2))),
                (All, Socat, AtLeast(1.0), None),
                (One, Script, AtLeast(10.0), None),
                (All, Script, AtLeast(10.0), None),
            ],
        ),
        goals(
            "1 MB, 4 in flight, MB/s",
            BULK,
            0,
            &[
                (All, Bare, AtLeast(1.0), None),
                (All, TcpServer, AtLeast(0.90), Some(AtLeast(0.98))),
                (One, Script, AtLeast(8.0), None),
                (All, Script, AtLeast(8.0), None),
            ],
        ),
        goals(
            "sessions/s, 1 client",
            Measure::Sessions { clients: 1 },
            0,
            &[(One, TcpServer, AtLeast(0.95), Some(AtLeast(1.05)))],
        ),
        goals(
            "sessions/s, 4 clients",
            Measure::Sessions { clients: 4 },
            0,
            &[
                (All, Bare, AtLeast(0.97), None),
                (All, TcpServer, AtLeast(0.90), None),
            ],
        ),
    ]
    .concat()
}

/// The targets for one figure of a measure.
fn of(results: &Results, what: &str, (measure, part): (Measure, usize), rows: &[Row]) -> Vec<Goal> {
    let goal = |&(cores, than, must, aim): &Row| Goal {
        figure: format!("{}: {what}", cores.name()),
        unit: format!(" × {}", than.name()),
        must,
        aim,
        measured: ratio(results, cores, of_measure(measure, part), than)
            .map_err(|trouble| format!("{}: {}", than.name(), trouble.word())),
    };
    rows.iter().map(goal).collect()
}

/// This proxy's figure, divided by the other one's.
pub(crate) fn ratio(
    results: &Results,
    cores: Cores,
    at: (usize, usize),
    than: Contender,
) -> Result<f64, Trouble> {
    let other = results.median(cores, than, at)?;
    Ok(results.median(cores, Contender::Proxy, at)? / other)
}
