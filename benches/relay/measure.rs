//! The measures: each is a load that runs for a given time on sessions of its own.

use std::time::Duration;

use crate::common::generator::{Load, Report, Target};

/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(50);

/// A question to a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// One request after the other.
    RoundTrip { bytes: usize },
    /// Many requests in flight; the next one is sent when a response comes.
    Messages { bytes: usize, in_flight: usize },
    /// The same with large ones.
    Bulk { bytes: usize, in_flight: usize },
    /// Connect, handshake, one response, close, over and over.
    Sessions { clients: usize },
}

impl Measure {
    pub(crate) const ALL: [Self; 6] = [
        Self::RoundTrip { bytes: 200 },
        Self::RoundTrip { bytes: 10_000 },
        Self::Messages {
            bytes: 200,
            in_flight: 64,
        },
        Self::Bulk {
            bytes: 1_000_000,
            in_flight: 4,
        },
        Self::Sessions { clients: 1 },
        Self::Sessions { clients: 4 },
    ];

    /// Measures for this time; returns one number for each of its figures, or `None` if there were too few samples for it.
    pub(crate) fn run(self, target: &Target, time: Duration) -> Result<Vec<Option<f64>>, String> {
        let report = self.load().lasting(time, WARM_UP).run(target)?;
        Ok(self.figures(&report))
    }

    fn load(self) -> Load {
        match self {
            Self::RoundTrip { bytes } => Load::echo(bytes),
            Self::Messages { bytes, in_flight } | Self::Bulk { bytes, in_flight } => {
                Load::echo(bytes).with("--in-flight", in_flight)
            }
            Self::Sessions { clients } => Load::echo(200)
                .with("--sessions", clients)
                .with_switch("--churn"),
        }
    }

    fn figures(self, report: &Report) -> Vec<Option<f64>> {
        let some = |rate: Option<f64>| rate.filter(|rate| *rate > 0.0);
        match self {
            Self::RoundTrip { .. } => ["p50", "p99", "p99_9"]
                .map(|name| report.latency(name))
                .to_vec(),
            Self::Messages { .. } | Self::Sessions { .. } => {
                vec![some(report.requests_per_second())]
            }
            // Each byte goes there and back, and counts once.
            Self::Bulk { .. } => vec![some(report.megabytes_per_second()).map(|both| both / 2.0)],
        }
    }
}
