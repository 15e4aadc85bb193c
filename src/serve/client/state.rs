//! What is around a session, as it is written down: all but the connection itself.

use std::io;

use serde::{Deserialize, Serialize};

use super::ClientSession;
use crate::entrance::Identity;
use crate::reactor::io::{Io, Readiness};
use crate::reactor::token::Target;
use crate::resume::Server as KeptSession;
use crate::scheduler::SessionKey;
use crate::serve::Channel;
use crate::serve::server::Reactor;
use crate::serve::servers::ServerKey;
use crate::serve::state::Sources;
use crate::serve::system::System;
use crate::share::SeatKey;
use crate::util::defaults::is_default;
use crate::util::service_key::ServiceKey;

/// The two sides of a session, as far as they are no descriptors. `K` is what is kept of it, or where that is.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct PlaceState<K = Box<KeptSession>> {
    /// What is known of the connection, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Readiness>,
    service: ServiceKey,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<ServerKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    successor: Option<ServerKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seat: Option<SeatKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Box<Identity>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<K>,
    #[serde(default, skip_serializing_if = "is_default")]
    gave_up_place: bool,
}

impl<'a> PlaceState<&'a KeptSession> {
    pub(in crate::serve) fn of<S: System>(place: &'a ClientSession<S>) -> Self {
        Self {
            client: place.client.as_ref().map(Io::readiness),
            service: place.service,
            server: place.server,
            successor: place.successor,
            seat: place.seat,
            identity: place.identity.clone(),
            kept: place.resume.as_deref(),
            gave_up_place: place.gave_up_place,
        }
    }
}

impl<K> PlaceState<K> {
    pub(in crate::serve) fn has_client(&self) -> bool {
        self.client.is_some()
    }
}

impl PlaceState {
    /// The same, with the connection.
    pub(in crate::serve) fn restore<S: System>(
        self,
        key: SessionKey,
        sources: &mut Sources<S>,
        reactor: &mut Reactor<S>,
    ) -> io::Result<ClientSession<S>> {
        let target = client_target(key);
        let client = self.client;
        let client = client.map(|known| sources.client(target, known, reactor));
        Ok(ClientSession {
            client: client.transpose()?,
            service: self.service,
            server: self.server,
            successor: self.successor,
            seat: self.seat,
            identity: self.identity,
            resume: self.kept,
            gave_up_place: self.gave_up_place,
        })
    }
}

impl<S: System> ClientSession<S> {
    /// The connection to the client, out of the loop.
    pub(in crate::serve) fn into_source(self) -> Option<S::Client> {
        self.client.map(Io::into_source)
    }
}

/// What events about the connection of a session name.
pub(in crate::serve) fn client_target(key: SessionKey) -> Target<Channel> {
    Target {
        key: key.0,
        channel: Channel::Client,
    }
}
