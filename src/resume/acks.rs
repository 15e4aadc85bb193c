//! When an acknowledgement is due: after some lines, after some bytes, or some time after the first line that was not
//! acknowledged. An idle session owes none.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::util::time::Time;

/// Lines after which one is due: so many that acknowledgements cost next to nothing.
const LINES: u64 = 64;

/// Bytes after which one is due: several times in a window.
const BYTES: usize = 32 * 1024;

/// The time after which one is due: what is kept is let go of soon, when a session comes to rest.
const DELAY: Duration = Duration::from_secs(1);

/// What was taken and is not acknowledged. Costs next to nothing if that is nothing.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Acks(Option<Box<Untold>>);

#[derive(Debug, Serialize, Deserialize)]
struct Untold {
    /// How many lines the other end was last told of.
    told: u64,
    bytes: usize,
    since: Time,
}

impl Acks {
    /// So many bytes were taken, in lines that are to be acknowledged. Before them there were `before` lines.
    pub fn taken(&mut self, bytes: usize, before: u64, now: Time) {
        let new = || {
            Box::new(Untold {
                told: before,
                bytes: 0,
                since: now,
            })
        };
        self.0.get_or_insert_with(new).bytes += bytes;
    }

    /// The other end is told of all.
    pub fn told(&mut self) {
        self.0 = None;
    }

    /// Whether an acknowledgement of this many lines is due.
    pub fn is_due(&self, lines: u64, now: Time) -> bool {
        self.0.as_ref().is_some_and(|untold| {
            let is_late = untold.since + DELAY <= now;
            let news = lines - untold.told;
            news > 0 && (news >= LINES || untold.bytes >= BYTES || is_late)
        })
    }

    /// Whether more has come than the window allows, and more than one line. `lines` were taken.
    pub fn is_beyond(&self, window: usize, lines: u64) -> bool {
        let untold = self.0.as_ref();
        untold.is_some_and(|untold| untold.bytes > window && lines > untold.told + 1)
    }

    /// When one is due, if nothing more comes.
    pub fn deadline(&self) -> Option<Time> {
        Some(self.0.as_ref()?.since + DELAY)
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
        acks.taken(10, 0, NOW);
        assert!(!acks.is_due(LINES - 1, NOW) && acks.is_due(LINES, NOW));
        assert!(!acks.is_due(1, NOW) && acks.is_due(1, NOW + DELAY));
        acks.taken(BYTES, 1, NOW + DELAY / 2);
        assert_eq!(acks.deadline(), Some(NOW + DELAY));
        assert!(acks.is_due(2, NOW) && !acks.is_due(0, NOW + DELAY));
        acks.told();
        assert!(!acks.is_due(2, NOW + DELAY) && acks.deadline().is_none());
        acks.taken(1, 2, NOW);
        assert!(acks.is_due(3, NOW + DELAY) && !acks.is_due(2, NOW + DELAY));
    }
}
