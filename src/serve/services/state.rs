//! The services as they are written down: how they are served, what was counted of them, and their spare servers.

use serde::{Deserialize, Serialize};

use super::{Plan, Service, Services};
use crate::buffers::budget::BufferBudget;
use crate::reactor::timers::Timers;
use crate::serve::Due;
use crate::serve::counts::ServiceCounts;
use crate::serve::sharing::{Sharing, SharingState};
use crate::serve::spares::SparesState;
use crate::serve::swap::Swaps;
use crate::session::Settings;
use crate::util::service_key::ServiceKey;

/// All of them, in order. `H` is what is shared, or where it is.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct ServicesState<H> {
    all: Vec<ServiceState<H>>,
    last_prespawned: usize,
    fallback: ServiceKey,
}

#[derive(Debug, Serialize, Deserialize)]
struct ServiceState<H> {
    plan: Plan,
    is_retired: bool,
    goes_on: bool,
    spares: SparesState,
    sharing: Option<SharingState<H>>,
    counts: ServiceCounts,
    swaps: Swaps,
}

impl<H> ServicesState<H> {
    /// How many there are.
    pub(in crate::serve) fn len(&self) -> usize {
        self.all.len()
    }

    /// How each is served.
    pub(in crate::serve) fn plans(&self) -> Vec<Plan> {
        self.all.iter().map(|it| it.plan.clone()).collect()
    }

    /// Those that somebody gets.
    pub(in crate::serve) fn served(&self) -> impl Iterator<Item = (ServiceKey, &Plan)> {
        let all = self.all.iter().enumerate();
        let served = all.filter(|(_, service)| !service.is_retired);
        served.map(|(key, service)| (ServiceKey(key), &service.plan))
    }
}

impl Service {
    fn plan(&self, settings: Settings) -> Plan {
        Plan {
            name: self.name.as_deref().cloned(),
            settings,
            max_sessions: self.max_sessions,
            spares: self.spares.size(),
            share: self.shared_by,
            swaps_in_place: self.swaps_in_place,
        }
    }
}

impl Services {
    /// `settings` are those of their sessions.
    pub(in crate::serve) fn state<'a>(
        &self,
        settings: impl IntoIterator<Item = &'a Settings>,
    ) -> ServicesState<&Sharing> {
        let all = self.all.iter().zip(settings);
        let all = all.map(|(service, settings)| ServiceState {
            plan: service.plan(settings.clone()),
            is_retired: service.is_retired,
            goes_on: service.goes_on,
            spares: service.spares.state(),
            sharing: service.sharing.as_ref().map(Sharing::state),
            counts: service.counts.clone(),
            swaps: service.swaps.clone(),
        });
        ServicesState {
            all: all.collect(),
            last_prespawned: self.last_prespawned,
            fallback: self.fallback,
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
        self.fallback = state.fallback;
        for (key, (service, state)) in self.all.iter_mut().zip(state.all).enumerate() {
            service.spares.restore(state.spares, timers);
            let sharing = state.sharing;
            service.sharing = sharing.map(|it| it.restore(ServiceKey(key), memory, timers));
            service.counts = state.counts;
            self.swapping += state.swaps.left();
            service.swaps = state.swaps;
            service.is_retired = state.is_retired;
            service.goes_on = state.goes_on;
        }
        self.note_sharing();
    }
}
