//! The services as they are written down: what was counted of them and their spare servers. What they are the options say.

use serde::{Deserialize, Serialize};

use super::Services;
use crate::buffers::budget::BufferBudget;
use crate::reactor::timers::Timers;
use crate::serve::Due;
use crate::serve::counts::ServiceCounts;
use crate::serve::sharing::{Sharing, SharingState};
use crate::serve::spares::SparesState;
use crate::util::service_key::ServiceKey;

/// All of them, in order. `H` is what is shared, or where it is.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct ServicesState<H> {
    all: Vec<ServiceState<H>>,
    last_prespawned: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct ServiceState<H> {
    spares: SparesState,
    sharing: Option<SharingState<H>>,
    counts: ServiceCounts,
}

impl<H> ServicesState<H> {
    /// How many there are.
    pub(in crate::serve) fn len(&self) -> usize {
        self.all.len()
    }
}

impl Services {
    pub(in crate::serve) fn state(&self) -> ServicesState<&Sharing> {
        let all = self.all.iter().map(|service| ServiceState {
            spares: service.spares.state(),
            sharing: service.sharing.as_ref().map(Sharing::state),
            counts: service.counts.clone(),
        });
        ServicesState {
            all: all.collect(),
            last_prespawned: self.last_prespawned,
        }
    }

    /// Goes on with these, which are as many.
    pub(in crate::serve) fn restore(
        &mut self,
        state: ServicesState<Sharing>,
        memory: &mut BufferBudget,
        timers: &mut Timers<Due>,
    ) {
        self.last_prespawned = state.last_prespawned;
        for (key, (service, state)) in self.all.iter_mut().zip(state.all).enumerate() {
            service.spares.restore(state.spares, timers);
            service.counts = state.counts;
            let sharing = state.sharing;
            service.sharing = sharing.map(|it| it.restore(ServiceKey(key), memory, timers));
            let shared = service.sharing.as_ref();
            service.shared_by = shared.map(|it| *it.share.limits());
        }
        self.note_sharing();
    }
}
