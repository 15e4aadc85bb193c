//! When an acknowledgement is due: after some lines, after some bytes, or some time after the first line that was not
//! acknowledged. An idle session owes none.

use std::time::Duration;

use crate::util::time::Time;

/// Lines after which one is due: so many that acknowledgements cost next to nothing.
const LINES: u64 = 64;

/// Bytes after which one is due: several times in a window.
const BYTES: usize = 32 * 1024;

/// The time after which one is due: what is kept is let go of soon, when a session comes to rest.
const DELAY: Duration = Duration::from_secs(1);

/// What was taken and is not acknowledged.
#[derive(Debug, Default)]
pub struct Acks {
    /// How many lines the other end was last told of.
    told: u64,
    untold_bytes: usize,
    untold_since: Option<Time>,
}

impl Acks {
    /// So many bytes were taken, in lines that are to be acknowledged.
    pub fn taken(&mut self, bytes: usize, now: Time) {
        self.untold_bytes += bytes;
        self.untold_since.get_or_insert(now);
    }

    /// The other end is told of this many lines.
    pub fn told(&mut self, lines: u64) {
        *self = Self {
            told: lines,
            ..Self::default()
        };
    }

    /// Whether an acknowledgement of this many lines is due.
    pub fn is_due(&self, lines: u64, now: Time) -> bool {
        let is_late = || self.deadline().is_some_and(|at| at <= now);
        lines > self.told && (lines - self.told >= LINES || self.untold_bytes >= BYTES || is_late())
    }

    /// Whether more has come than the window allows, and more than one line. `lines` were taken.
    pub fn is_beyond(&self, window: usize, lines: u64) -> bool {
        self.untold_bytes > window && lines > self.told + 1
    }

    /// When one is due, if nothing more comes.
    pub fn deadline(&self) -> Option<Time> {
        Some(self.untold_since? + DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);

    #[test]
    fn one_is_due_after_lines_after_bytes_and_after_a_while() {
        let mut acks = Acks::default();
        assert!(!acks.is_due(0, NOW) && acks.deadline().is_none());
        acks.taken(10, NOW);
        assert!(!acks.is_due(LINES - 1, NOW) && acks.is_due(LINES, NOW));
        assert!(!acks.is_due(1, NOW) && acks.is_due(1, NOW + DELAY));
        acks.taken(BYTES, NOW + DELAY / 2);
        assert_eq!(acks.deadline(), Some(NOW + DELAY));
        assert!(acks.is_due(2, NOW));
        acks.told(2);
        assert!(!acks.is_due(2, NOW + DELAY) && acks.deadline().is_none());
        acks.taken(1, NOW);
        assert!(acks.is_due(3, NOW + DELAY));
    }
}
