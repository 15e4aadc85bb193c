//! Two targets beside each other: each round has one ratio of each figure, and these have a median and a spread.

use super::{Measured, figures};

/// The ratios of one figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::bench) struct Ratio {
    pub(in crate::bench) name: &'static str,
    pub(in crate::bench) median: f64,
    pub(in crate::bench) min: f64,
    pub(in crate::bench) max: f64,
}

/// How many times each figure of the first one the second one's is. Figures that are not known in any round are left out.
pub(in crate::bench) fn ratios(first: &Measured, second: &Measured) -> Vec<Ratio> {
    let pairs: Vec<_> = first.rounds.iter().zip(&second.rounds).collect();
    let pairs = pairs
        .into_iter()
        .map(|(first, second)| (figures(first), figures(second)));
    let mut all: Vec<(&str, Vec<f64>)> = Vec::new();
    for (first, second) in pairs {
        for (at, ((name, first), (_, second))) in first.into_iter().zip(second).enumerate() {
            if all.len() == at {
                all.push((name, Vec::new()));
            }
            if let (Some(first), Some(second)) = (first, second)
                && first > 0.0
            {
                all[at].1.push(second / first);
            }
        }
    }
    all.into_iter()
        .filter_map(|(name, ratios)| Ratio::of(name, ratios))
        .collect()
}

impl Ratio {
    fn of(name: &'static str, mut ratios: Vec<f64>) -> Option<Self> {
        ratios.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*ratios.first()?, *ratios.last()?);
        let middle = ratios.len() / 2;
        let median = if ratios.len() % 2 == 1 {
            ratios[middle]
        } else {
            f64::midpoint(ratios[middle - 1], ratios[middle])
        };
        Some(Self {
            name,
            median,
            min,
            max,
        })
    }
}
