//! What all sessions together keep beyond what each may keep without asking, and how much one may keep because of that.

use super::{LEAST_WINDOW_BYTES, WINDOW_BYTES};
use crate::buffers::budget::BufferBudget;

/// Of the buffer memory, sessions with a connection may keep no more than its size divided by this.
const LIVE_SHARE: usize = 2;

/// The same of those without one: nobody takes anything from them for a while.
const DETACHED_SHARE: usize = 4;

/// What the totals have of one session.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// What is charged for it, in bytes.
    pub bytes: usize,
    /// Whether it has no connection.
    pub is_detached: bool,
}

/// The totals.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Totals {
    live: usize,
    detached: usize,
}

impl Totals {
    /// What there is of a session has changed.
    pub(super) fn change(&mut self, before: Counted, after: Counted) {
        *self.of(before.is_detached) -= before.bytes;
        *self.of(after.is_detached) += after.bytes;
    }

    fn of(&mut self, is_detached: bool) -> &mut usize {
        if is_detached {
            &mut self.detached
        } else {
            &mut self.live
        }
    }

    /// How much a session with a connection may keep. What is kept must not be what others have no memory for.
    pub fn bound(&self, memory: &BufferBudget) -> usize {
        if self.live < memory.limit() / LIVE_SHARE && memory.has_headroom() {
            WINDOW_BYTES
        } else {
            LEAST_WINDOW_BYTES
        }
    }

    /// Whether sessions without a connection keep more than they may.
    pub fn are_too_large(&self, memory: &BufferBudget) -> bool {
        self.detached > memory.limit() / DETACHED_SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_by_the_memory_of_all() {
        let mut memory = BufferBudget::new(8 * WINDOW_BYTES);
        let mut totals = Totals::default();
        let counted = |bytes, is_detached| Counted { bytes, is_detached };
        assert_eq!(totals.bound(&memory), WINDOW_BYTES);
        let live = counted(4 * WINDOW_BYTES, false);
        totals.change(Counted::default(), live);
        assert_eq!(totals.bound(&memory), LEAST_WINDOW_BYTES);
        let detached = counted(2 * WINDOW_BYTES + 1, true);
        totals.change(live, detached);
        assert!(totals.are_too_large(&memory) && totals.bound(&memory) == WINDOW_BYTES);
        totals.change(detached, counted(2 * WINDOW_BYTES, true));
        assert!(!totals.are_too_large(&memory));
        memory.recharge(0, 4 * WINDOW_BYTES);
        assert_eq!(totals.bound(&memory), LEAST_WINDOW_BYTES);
    }
}
