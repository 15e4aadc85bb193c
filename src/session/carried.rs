//! A session that was written down and read again. All of its state is data, so serde does that; what is left is what it
//! holds of what all sessions share.

use super::Session;
use crate::buffers::budget::BufferBudget;

impl Session {
    /// After it was read: its buffers draw on this memory.
    pub fn take_up_memory(&mut self, memory: &mut BufferBudget) {
        debug_assert_eq!(self.charged, 0);
        self.recharge_budget(memory);
    }
}
