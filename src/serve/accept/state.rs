//! Where connections come in, as it is written down: all but the sockets themselves.

use std::io;

use serde::{Deserialize, Serialize};

use super::{ListenerKey, Listeners};
use crate::reactor::io::Readiness;
use crate::serve::server::Reactor;
use crate::serve::state::Sources;
use crate::serve::system::System;
use crate::util::service_key::ServiceKey;

/// The listening sockets.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct ListenersState {
    sockets: Vec<DoorState>,
    last: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct DoorState {
    key: usize,
    door: Option<ServiceKey>,
    known: Readiness,
}

impl ListenersState {
    /// How many there are.
    pub(in crate::serve) fn len(&self) -> usize {
        self.sockets.len()
    }
}

impl<L> Listeners<L> {
    pub(in crate::serve) fn state(&self) -> ListenersState {
        let sockets = self.sockets.iter().map(|(key, (socket, door))| DoorState {
            key,
            door: *door,
            known: socket.readiness(),
        });
        ListenersState {
            sockets: sockets.collect(),
            last: self.last,
        }
    }

    /// The sockets, in the order of their keys.
    pub(in crate::serve) fn sources(&self) -> impl Iterator<Item = &L> {
        self.sockets.iter().map(|(_, (socket, _))| socket.source())
    }

    /// The same, to be changed.
    pub(in crate::serve) fn sources_mut(&mut self) -> impl Iterator<Item = &mut L> {
        let all = self.sockets.iter_mut();
        all.map(|(_, (socket, _))| socket.source_mut())
    }

    /// The same, out of the loop.
    pub(in crate::serve) fn into_sources(self) -> impl Iterator<Item = L> {
        let all = self.sockets.into_iter();
        all.map(|(_, (socket, _))| socket.into_source())
    }

    /// Goes on to listen there.
    pub(in crate::serve) fn restore<S: System<Listener = L>>(
        state: ListenersState,
        sources: &mut Sources<S>,
        reactor: &mut Reactor<S>,
    ) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for DoorState { key, door, known } in state.sockets {
            let socket = sources.listener(ListenerKey(key), known, reactor)?;
            sockets.push((key, (socket, door)));
        }
        let mut listeners = Self {
            sockets: sockets.into_iter().collect(),
            last: state.last,
            has_readable: false,
            resting: Vec::new(),
        };
        listeners.look_for_readable();
        Ok(listeners)
    }
}
