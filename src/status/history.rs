//! What was in the last ten minutes, for the charts of the page.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::session::counts::Counts;
use crate::util::histogram::Histogram;

/// Points that are kept: ten minutes at one each two seconds.
const POINTS: usize = 300;

/// The last ten minutes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    points: VecDeque<Point>,
    messages_before: u64,
    responses_before: Histogram,
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

/// What came to pass between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Messages in both directions.
    pub messages: u32,
    /// The time that half of the responses took at most, in seconds.
    pub median: f32,
    /// The same for 99 of a hundred.
    pub p99: f32,
}

impl History {
    /// Nothing was before.
    pub const fn new() -> Self {
        Self {
            points: VecDeque::new(),
            messages_before: 0,
            responses_before: Histogram::new(),
        }
    }

    /// Looks at what was counted since the last call.
    pub fn note(&mut self, counts: &Counts) {
        let messages = counts.to_upstream.messages() + counts.to_client.messages();
        let responses = counts.responses.since(&self.responses_before);
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        let new = messages - std::mem::replace(&mut self.messages_before, messages);
        self.points.push_back(Point {
            messages: new.try_into().unwrap_or(u32::MAX),
            median: responses.quantile(0.5) as f32,
            p99: responses.quantile(0.99) as f32,
        });
        self.responses_before = counts.responses.clone();
    }

    /// The points, the oldest first.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        self.points.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_point_is_what_has_come_since_the_last() {
        let mut history = History::default();
        let mut counts = Counts::default();
        for number in 0..2 * POINTS {
            for _ in 0..number {
                counts.to_client.count(1);
            }
            if number == 2 * POINTS - 1 {
                counts.responses.note(Duration::from_micros(900));
            }
            history.note(&counts);
        }
        let points: Vec<Point> = history.points().copied().collect();
        assert_eq!(points.len(), POINTS);
        let messages = points.iter().map(|point| point.messages as usize);
        assert!(messages.eq(POINTS..2 * POINTS));
        let last = points.last().unwrap();
        assert!((last.median - 1e-3).abs() < 1e-9 && points[0].p99.abs() < 1e-9);
    }
}
