//! What is shared, as it is written down: with when something is due.

use serde::{Deserialize, Serialize};

use super::{Due, Sharing};
use crate::buffers::budget::BufferBudget;
use crate::reactor::timers::Timers;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// The share and what is around it, or where they are.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct SharingState<H> {
    sharing: H,
    at: Option<Time>,
}

impl Sharing {
    pub(in crate::serve) fn state(&self) -> SharingState<&Self> {
        SharingState {
            sharing: self,
            at: self.deadline.at(),
        }
    }
}

impl SharingState<Sharing> {
    /// Goes on with it, as what is shared of this service.
    pub(in crate::serve) fn restore(
        self,
        service: ServiceKey,
        memory: &mut BufferBudget,
        timers: &mut Timers<Due>,
    ) -> Sharing {
        let Self { mut sharing, at } = self;
        sharing.share.take_up(memory);
        sharing.deadline.set(at, Due::Share(service), timers);
        sharing
    }
}
