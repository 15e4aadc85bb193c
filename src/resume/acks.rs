//! When an acknowledgement is due: after some lines, after some bytes, or some time after the first line that was not
//! acknowledged. An idle session owes none.
//!
//! One that costs a write of its own costs both ends a wake-up, too. So it goes along with lines that are written anyway, if
//! there are any soon: first it is *ripe*, and then *due*.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::util::time::Time;

/// Lines after which one is ripe: so many that acknowledgements cost next to nothing.
const LINES: u64 = 64;

/// Bytes after which one is ripe: twice in the least that anybody may keep.
const BYTES: usize = 32 * 1024;

/// How long a ripe one waits for lines to go along with: whoever keeps as little as anybody may is to wait no longer.
const GRACE: Duration = Duration::from_millis(10);

/// One is due after as much as a window divided by this: whoever sends all the time is never to wait.
const SHARE_OF_WINDOW: usize = 4;

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
    due_at: Time,
}

impl Untold {
    fn is_ripe(&self, lines: u64, window: usize) -> bool {
        lines - self.told >= LINES || self.bytes >= BYTES.min(window / SHARE_OF_WINDOW)
    }
}

impl Acks {
    /// So many bytes were taken, in lines that are to be acknowledged. Before them there were `before` lines, and now there
    /// are `lines`.
    pub fn taken(&mut self, bytes: usize, before: u64, lines: u64, window: usize, now: Time) {
        let new = || {
            Box::new(Untold {
                told: before,
                bytes: 0,
                due_at: now + DELAY,
            })
        };
        let untold = self.0.get_or_insert_with(new);
        untold.bytes += bytes;
        if untold.is_ripe(lines, window) {
            untold.due_at = untold.due_at.min(now + GRACE);
        }
    }

    /// The other end is told of all.
    pub fn told(&mut self) {
        self.0 = None;
    }

    /// Whether an acknowledgement of this many lines is worth a few bytes in front of others.
    pub fn is_ripe(&self, lines: u64, window: usize, now: Time) -> bool {
        self.news(lines)
            .is_some_and(|untold| untold.is_ripe(lines, window) || untold.due_at <= now)
    }

    /// Whether it is worth a write of its own.
    pub fn is_due(&self, lines: u64, window: usize, now: Time) -> bool {
        self.news(lines)
            .is_some_and(|untold| untold.bytes >= window / SHARE_OF_WINDOW || untold.due_at <= now)
    }

    fn news(&self, lines: u64) -> Option<&Untold> {
        self.0.as_deref().filter(|untold| lines > untold.told)
    }

    /// Whether more has come than the window allows, and more than one line. `lines` were taken.
    pub fn is_beyond(&self, window: usize, lines: u64) -> bool {
        let untold = self.0.as_ref();
        untold.is_some_and(|untold| untold.bytes > window && lines > untold.told + 1)
    }

    /// When one is due, if nothing more comes.
    pub fn deadline(&self) -> Option<Time> {
        Some(self.0.as_ref()?.due_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);
    const WINDOW: usize = 1 << 20;

    #[test]
    fn one_is_ripe_after_lines_and_after_bytes_and_due_a_little_later() {
        for (bytes, lines) in [(1, LINES), (BYTES, 1)] {
            let mut acks = Acks::default();
            assert!(!acks.is_ripe(0, WINDOW, NOW) && acks.deadline().is_none());
            acks.taken(bytes - 1, 0, lines - 1, WINDOW, NOW);
            assert!(!acks.is_ripe(lines - 1, WINDOW, NOW));
            acks.taken(1, lines - 1, lines, WINDOW, NOW);
            assert!(acks.is_ripe(lines, WINDOW, NOW) && !acks.is_due(lines, WINDOW, NOW));
            assert_eq!(acks.deadline(), Some(NOW + GRACE));
            acks.taken(1, lines, lines + 1, WINDOW, NOW + GRACE / 2);
            assert!(acks.is_due(lines + 1, WINDOW, NOW + GRACE));
            acks.told();
            assert!(!acks.is_ripe(lines + 1, WINDOW, NOW + DELAY) && acks.deadline().is_none());
        }
    }

    #[test]
    fn one_is_due_after_a_while_and_after_a_part_of_the_window() {
        let mut acks = Acks::default();
        acks.taken(10, 0, 1, WINDOW, NOW);
        assert!(!acks.is_ripe(1, WINDOW, NOW) && !acks.is_due(1, WINDOW, NOW));
        assert_eq!(acks.deadline(), Some(NOW + DELAY));
        assert!(acks.is_ripe(1, WINDOW, NOW + DELAY) && acks.is_due(1, WINDOW, NOW + DELAY));
        acks.taken(WINDOW / SHARE_OF_WINDOW, 1, 1, WINDOW, NOW);
        assert!(acks.is_due(1, WINDOW, NOW));
        assert!(!acks.is_due(0, WINDOW, NOW + DELAY), "there is no news");
        acks.told();
        acks.taken(1, 2, 3, 4, NOW);
        assert!(acks.is_due(3, 4, NOW) && !acks.is_due(2, 4, NOW));
    }
}
