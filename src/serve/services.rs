//! The services: what is served, each with its options and limits, its spare servers and those that are shared. Nothing
//! that happens to one of them is any other's business.

mod state;

use std::rc::Rc;

use serde::{Deserialize, Serialize};

pub(super) use self::state::ServicesState;
use super::counts::ServiceCounts;
use super::put_in_force::max_restarts;
use super::sharing::Sharing;
use super::spares::Spares;
use super::swap::Swaps;
use crate::entrance::Name;
use crate::session::Settings;
use crate::share;
use crate::util::service_key::ServiceKey;

/// What is to be served.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// What it is called, if it has a name.
    pub name: Option<Name>,
    /// What holds for its sessions.
    pub settings: Settings,
    /// More sessions of it are turned away. `None`: it has no limit of its own.
    pub max_sessions: Option<usize>,
    /// Its servers that wait for sessions.
    pub spares: usize,
    /// What of it is shared, if anything is.
    pub share: Option<share::Limits>,
    /// Whether an old server ends before the new one is started that is to take its place.
    pub swaps_in_place: bool,
}

/// One that is served.
pub(super) struct Service {
    /// What it is called, if it has a name.
    pub(super) name: Option<Rc<Name>>,
    pub(super) max_sessions: Option<usize>,
    /// Those that were not turned away.
    pub(super) sessions: usize,
    pub(super) spares: Spares,
    pub(super) sharing: Option<Sharing>,
    /// Nobody gets it any more: it is not served now, or others of its name are served in another way.
    pub(super) is_retired: bool,
    /// Whether the sessions that it has may go on.
    pub(super) goes_on: bool,
    /// How it is shared, if it is.
    pub(super) shared_by: Option<share::Limits>,
    pub(super) counts: ServiceCounts,
    pub(super) swaps_in_place: bool,
    /// Its sessions that are to get new servers.
    pub(super) swaps: Swaps,
}

/// All of them.
#[derive(Default)]
pub(super) struct Services {
    all: Vec<Service>,
    /// Whether any has servers that are shared.
    share_anything: bool,
    /// The one for which a server was started last that waits.
    last_prespawned: usize,
    /// Sessions that are to get new servers, of all of them.
    pub(super) swapping: usize,
    /// The one for whoever asks for none, where nobody is asked.
    pub(super) fallback: ServiceKey,
}

impl Service {
    fn new(key: ServiceKey, plan: Plan) -> Self {
        let Plan {
            name,
            settings,
            max_sessions,
            spares,
            share,
            swaps_in_place,
        } = plan;
        let max_restarts = max_restarts(&settings.role);
        let name = name.map(Rc::new);
        let spares = Spares::new(spares, max_restarts, settings.server_log);
        let sharing = share
            .map(|limits| Sharing::new(limits, settings.server_log).of(name.as_deref().cloned()));
        Self {
            spares: spares.of(key, name.clone()),
            sharing,
            name,
            max_sessions,
            sessions: 0,
            is_retired: false,
            goes_on: true,
            shared_by: share,
            counts: ServiceCounts::default(),
            swaps_in_place,
            swaps: Swaps::default(),
        }
    }
}

impl Service {
    /// Whose something is, for the log: nothing if there is but this one, without a name.
    pub(super) fn of(&self) -> String {
        let name = self.name.as_ref();
        name.map_or_else(String::new, |name| format!(" of {name}"))
    }

    /// Whether nothing is due.
    pub(super) fn is_without_deadlines(&self) -> bool {
        let shared = self.sharing.as_ref().and_then(Sharing::deadline);
        self.spares.deadline().is_none() && shared.is_none()
    }
}

impl Services {
    /// Adds one. The settings of its sessions are to be known by the same key.
    pub(super) fn add(&mut self, plan: Plan) -> ServiceKey {
        let key = ServiceKey(self.all.len());
        self.share_anything |= plan.share.is_some();
        self.all.push(Service::new(key, plan));
        key
    }

    /// Has another take the place of one of which nothing is left.
    pub(super) fn replace(&mut self, key: ServiceKey, plan: Plan) {
        self.all[key.0] = Service::new(key, plan);
        self.note_sharing();
    }

    fn note_sharing(&mut self) {
        self.share_anything = self.all.iter().any(|service| service.sharing.is_some());
    }

    /// The one of this name that is served.
    pub(super) fn called(&self, name: Option<&Name>) -> Option<ServiceKey> {
        let is_this = |service: &Service| !service.is_retired && service.name.as_deref() == name;
        self.all.iter().position(is_this).map(ServiceKey)
    }

    /// How many sessions there are of all that bear this name.
    pub(super) fn sessions_like(&self, service: &Service) -> usize {
        let of_name = |other: &&Service| other.name == service.name;
        self.all.iter().filter(of_name).map(|it| it.sessions).sum()
    }

    /// One of them.
    pub(super) fn get(&self, key: ServiceKey) -> &Service {
        &self.all[key.0]
    }

    pub(super) fn get_mut(&mut self, key: ServiceKey) -> &mut Service {
        &mut self.all[key.0]
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Service> {
        self.all.iter()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ServiceKey> + use<> {
        (0..self.all.len()).map(ServiceKey)
    }

    /// Whether any has servers that are shared.
    #[inline]
    pub(super) fn share_anything(&self) -> bool {
        self.share_anything
    }

    /// What one of them shares.
    pub(super) fn sharing(&self, key: ServiceKey) -> Option<&Sharing> {
        self.all[key.0].sharing.as_ref()
    }

    pub(super) fn sharing_mut(&mut self, key: ServiceKey) -> Option<&mut Sharing> {
        self.all[key.0].sharing.as_mut()
    }

    /// What those share that share anything.
    pub(super) fn all_sharing(&self) -> impl Iterator<Item = &Sharing> {
        self.all
            .iter()
            .filter_map(|service| service.sharing.as_ref())
    }

    /// The next for which a server may be started that waits; each in its turn.
    pub(super) fn next_to_prespawn(&mut self) -> Option<ServiceKey> {
        let count = self.all.len();
        let mut turns = (1..=count).map(|step| (self.last_prespawned + step) % count);
        let next = turns.find(|at| self.all[*at].spares.wants_server())?;
        self.last_prespawned = next;
        Some(ServiceKey(next))
    }

    /// Whether one wants a server to be started that waits.
    pub(super) fn want_spares(&self) -> bool {
        self.all.iter().any(|service| service.spares.wants_server())
    }
}
