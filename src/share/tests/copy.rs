//! A share that was written down and read again.

use super::world::World;
use crate::buffers::budget::BufferBudget;
use crate::share::{Context, Share};
use crate::util::side_bytes::Written;
use crate::util::time::Time;

pub(super) struct Copy {
    pub(super) share: Share,
    memory: BufferBudget,
}

impl Copy {
    pub(super) fn of(share: &Share, memory: &BufferBudget) -> Self {
        let written = Written::new(share).unwrap();
        let mut copy: Share = written.clone().read().unwrap();
        let mut own = BufferBudget::new(memory.limit());
        copy.take_up(&mut own);
        assert_eq!(text(&copy), as_text(written), "it is written as it was");
        // Others may hold some, too, and buffers have more room than they need.
        own.recharge(0, memory.used().saturating_sub(own.used()));
        Self {
            share: copy,
            memory: own,
        }
    }

    pub(super) fn with<T>(&mut self, now: Time, act: impl Fn(&mut Share, &mut Context<'_>) -> T) {
        let memory = &mut self.memory;
        act(&mut self.share, &mut Context { now, memory });
    }
}

impl World {
    /// A copy goes on.
    pub(super) fn hand_over(&mut self) {
        let Copy { share, memory } = Copy::of(&self.share, &self.memory);
        (self.share, self.memory) = (share, memory);
    }
}

/// All that is written of it.
pub(super) fn text(share: &Share) -> (String, Option<Vec<u8>>) {
    as_text(Written::new(share).unwrap())
}

fn as_text(written: Written) -> (String, Option<Vec<u8>>) {
    (String::from_utf8(written.json).unwrap(), written.bytes)
}
