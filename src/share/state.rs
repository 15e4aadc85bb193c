//! What is not written down of the seats and the processes, as it follows from the rest.

use super::process::{Owner, Process};
use super::{Limits, Share};
use crate::buffers::budget::BufferBudget;

impl Share {
    /// Goes on with what was read, and draws on this memory.
    pub fn take_up(&mut self, memory: &mut BufferBudget) {
        for (_, seat) in &mut self.seats {
            self.affinity.arrive(&seat.identity);
            seat.charged = seat.charge();
            memory.recharge(0, seat.charged);
        }
        for process in &mut self.processes {
            process.count_identities();
            process.charged = process.charge();
            memory.recharge(0, process.charged);
        }
    }

    /// How much there may be of what.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl Process {
    fn count_identities(&mut self) {
        for owner in self.owners.values() {
            if let Owner::Request { identity, .. } = owner {
                self.of_identities.add(identity.clone());
            }
        }
    }
}
