//! The services as they are written down: what was counted of them and their spare servers. What they are the options say.

use serde::{Deserialize, Serialize};

use super::Services;
use crate::reactor::timers::Timers;
use crate::serve::Due;
use crate::serve::counts::ServiceCounts;
use crate::serve::spares::SparesState;

/// All of them, in order.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct ServicesState {
    all: Vec<ServiceState>,
    last_prespawned: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct ServiceState {
    spares: SparesState,
    counts: ServiceCounts,
}

impl ServicesState {
    /// How many there are.
    pub(in crate::serve) fn len(&self) -> usize {
        self.all.len()
    }
}

impl Services {
    pub(in crate::serve) fn state(&self) -> ServicesState {
        let all = self.all.iter().map(|service| ServiceState {
            spares: service.spares.state(),
            counts: service.counts.clone(),
        });
        ServicesState {
            all: all.collect(),
            last_prespawned: self.last_prespawned,
        }
    }

    /// Goes on with these, which are as many.
    pub(in crate::serve) fn restore(&mut self, state: ServicesState, timers: &mut Timers<Due>) {
        self.last_prespawned = state.last_prespawned;
        for (service, state) in self.all.iter_mut().zip(state.all) {
            service.spares.restore(state.spares, timers);
            service.counts = state.counts;
        }
    }
}
