//! What waits for the client of a seat. Most of the time that is nothing, and there are thousands of seats, so nothing
//! takes no more room than a pointer.

use serde::{Deserialize, Serialize};

use crate::buffers::budget::BufferBudget;
use crate::buffers::outbox::Outbox;

/// Lines that wait for a client.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ForClient(Option<Box<Outbox<()>>>);

impl ForClient {
    /// Adds a line, which has its line end.
    pub(super) fn push(&mut self, line: Vec<u8>, memory: &mut BufferBudget) {
        let outbox = self.0.get_or_insert_default();
        outbox.push_buffer(line, None, memory);
    }

    /// What waits.
    pub(super) fn waiting(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |outbox| outbox.waiting())
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.waiting().len()
    }

    /// The memory that it holds, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.0.as_ref().map_or(0, |outbox| outbox.capacity())
    }

    /// The first bytes of what waits, this many, were taken.
    pub(super) fn consume(&mut self, count: usize, memory: &mut BufferBudget) {
        if let Some(outbox) = &mut self.0 {
            outbox.consume(count, memory);
            if outbox.is_empty() {
                self.0 = None;
            }
        }
    }

    /// Drops it all.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}
