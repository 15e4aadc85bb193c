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
    before: Progress,
}

/// How far something has come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Progress {
    messages: u64,
    responses: Histogram,
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
            before: Progress::NONE,
        }
    }

    /// Looks at what was counted since the last call, and returns that.
    pub fn note(&mut self, counts: &Counts) -> Progress {
        let now = Progress {
            messages: counts.to_upstream.messages() + counts.to_client.messages(),
            responses: counts.responses.clone(),
        };
        let new = Progress {
            messages: now.messages - self.before.messages,
            responses: now.responses.since(&self.before.responses),
        };
        self.before = now;
        self.push(&new);
        new
    }

    /// Adds a point.
    pub fn push(&mut self, new: &Progress) {
        if self.points.len() == POINTS {
            self.points.pop_front();
        }
        self.points.push_back(Point {
            messages: new.messages.try_into().unwrap_or(u32::MAX),
            median: new.responses.quantile(0.5) as f32,
            p99: new.responses.quantile(0.99) as f32,
        });
    }

    /// The points, the oldest first.
    pub fn points(&self) -> impl Iterator<Item = &Point> {
        self.points.iter()
    }
}

impl Progress {
    /// None.
    const NONE: Self = Self {
        messages: 0,
        responses: Histogram::new(),
    };

    /// Together with that of something else.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.responses.add(&other.responses);
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
