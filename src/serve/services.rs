//! The services: what is served, each with its options and limits, its spare servers and those that are shared. Nothing
//! that happens to one of them is any other's business.

use std::rc::Rc;

use super::sharing::Sharing;
use super::spares::Spares;
use crate::entrance::Name;
use crate::session::{Backend, Settings};
use crate::share;
use crate::util::service_key::ServiceKey;

/// What is to be served.
#[derive(Debug, Clone)]
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
}

/// All of them.
#[derive(Default)]
pub(super) struct Services {
    all: Vec<Service>,
    /// Whether any has servers that are shared.
    share_anything: bool,
    /// The one for which a server was started last that waits.
    last_prespawned: usize,
}

impl Service {
    fn new(key: ServiceKey, plan: Plan) -> Self {
        let Plan {
            name,
            settings,
            max_sessions,
            spares,
            share,
        } = plan;
        let max_restarts = match settings.role {
            Backend::Process { max_restarts } => max_restarts,
            Backend::Proxy { .. } => 0,
        };
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
        }
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
