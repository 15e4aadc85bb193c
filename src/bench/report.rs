//! What was measured, for people and for programs.

pub(super) mod chart;
pub(super) mod csv;
pub(super) mod histogram;
pub(super) mod json;
pub(super) mod ratio;
pub(super) mod text;

use super::tally::Figures;
use super::workload::Era;

/// All that was measured of one target.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) target: String,
    pub(super) era: Era,
    pub(super) sessions: usize,
    pub(super) rounds: Vec<Figures>,
    /// All rounds together.
    pub(super) total: Figures,
}

impl Measured {
    pub(super) fn new(target: String, era: Era, sessions: usize) -> Self {
        Self {
            target,
            era,
            sessions,
            rounds: Vec::new(),
            total: Figures::default(),
        }
    }

    /// Whether there was nothing to be measured.
    pub(super) fn is_empty(&self) -> bool {
        self.total.tally.opened == 0
    }

    /// Adds a round.
    pub(super) fn add(&mut self, round: Figures) {
        self.total.merge(&round);
        self.rounds.push(round);
    }
}

/// Each figure of a round that is compared, by its name.
fn figures(round: &Figures) -> Vec<(&'static str, Option<f64>)> {
    let latency = &round.tally.latency;
    let mut figures = vec![
        ("requests_per_second", round.requests_per_second()),
        ("bytes_per_second", round.bytes_per_second()),
        ("mean", latency.mean()),
    ];
    figures.extend(latency.percentiles());
    figures.push(("max", latency.max()));
    figures
}

#[cfg(test)]
mod tests;
