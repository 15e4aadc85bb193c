//! A session that was written down and read again. All of its state is data, so serde does that; what is left is what it
//! holds of what all sessions share.

use super::Session;
use super::records::Records;
use crate::buffers::budget::BufferBudget;

impl Session {
    /// After it was read: its buffers draw on this memory, and its handshake is one of these.
    pub fn take_up(&mut self, memory: &mut BufferBudget, records: &mut Records) {
        self.handshake.share_record(records);
        if let Some(version) = &mut self.modern_version {
            records.versions.share(version);
        }
        debug_assert_eq!(self.charged, 0);
        self.recharge_budget(memory);
    }
}
