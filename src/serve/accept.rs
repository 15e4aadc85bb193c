//! Who gets in: connections are accepted, few in an iteration, and turned away beyond the limit.

mod state;

use std::io;
use std::time::Duration;

use log::{debug, error};
use serde::{Deserialize, Serialize};
use slab::Slab;

pub(super) use self::state::ListenersState;
use super::client::{ClientSession, client_target};
use super::newcomers::{Arrival, INTEREST};
use super::services::Service;
use super::system::{ClientSocket, System};
use super::{Due, Proxy};
use crate::entrance::Identity;
use crate::reactor::io::{Io, Readiness};
use crate::reactor::token::MAX_KEYS;
use crate::scheduler::SessionKey;
use crate::session::report::{Label, SessionLimit};
use crate::transport::listener::{AcceptError, classify_accept_error};
use crate::util::client_address::ClientAddress;
use crate::util::plural::{Counted, are};
use crate::util::service_key::ServiceKey;

/// Clients that are being turned away at the same time; more wait in the backlog. Each holds a descriptor for a second, or
/// half a minute if its network fails, and these are descriptors that sessions can't have.
pub(super) const MAX_REFUSED: usize = 64;

/// Connections accepted in one iteration: a rush delays open sessions by no more than eight times the price of one, some
/// 20 µs.
pub(super) const ACCEPTS_PER_ITERATION: usize = 8;

/// Without descriptors, memory or processes for a new session, the next attempt is made after this: soon for whoever
/// waits, and seldom enough not to be felt by the others.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Names a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListenerKey(pub(super) usize);

/// A listening socket, and the server that alone is served there, if it is one's alone.
pub type Door<L> = (Io<L>, Option<ServiceKey>);

/// The listening sockets.
#[derive(Debug)]
pub(super) struct Listeners<L> {
    /// Each with the server that alone is served there; `None` where clients say which they want.
    sockets: Slab<Door<L>>,
    /// The one that was accepted from last.
    last: usize,
    /// Whether one is readable that does not rest. That is asked in each iteration.
    has_readable: bool,
    /// Those from which nobody is accepted for now.
    resting: Vec<usize>,
}

impl<L> Listeners<L> {
    /// The keys are those of the order.
    pub(super) fn new(sockets: Vec<Door<L>>) -> Self {
        Self {
            sockets: sockets.into_iter().enumerate().collect(),
            last: 0,
            has_readable: false,
            resting: Vec::new(),
        }
    }

    /// The key of the next one.
    pub(super) fn next_key(&self) -> ListenerKey {
        ListenerKey(self.sockets.vacant_key())
    }

    /// One more.
    pub(super) fn add(&mut self, socket: Io<L>) {
        self.has_readable |= socket.is_readable();
        self.sockets.insert((socket, None));
    }

    /// All of them.
    pub(super) fn keys(&self) -> Vec<ListenerKey> {
        self.sockets
            .iter()
            .map(|(key, _)| ListenerKey(key))
            .collect()
    }

    /// A socket, and whose it is.
    pub(super) fn get(&self, key: ListenerKey) -> Option<&Door<L>> {
        self.sockets.get(key.0)
    }

    /// From now on, this is whose it is.
    pub(super) fn set_door(&mut self, key: ListenerKey, door: Option<ServiceKey>) {
        if let Some((_, whose)) = self.sockets.get_mut(key.0) {
            *whose = door;
        }
    }

    /// Listens there no more.
    pub(super) fn remove(&mut self, key: ListenerKey) {
        self.sockets.try_remove(key.0);
        self.look_for_readable();
    }

    fn look_for_readable(&mut self) {
        let has_readable = self.readable().next().is_some();
        self.has_readable = has_readable;
    }

    fn readable(&self) -> impl Iterator<Item = usize> {
        let all = self.sockets.iter();
        let all =
            all.filter(|(key, (socket, _))| socket.is_readable() && !self.resting.contains(key));
        all.map(|(key, _)| key)
    }

    /// Nobody is accepted from these any more, until [`Self::go_on`].
    pub(super) fn rest(&mut self, rests: impl Fn(&L) -> bool) {
        let all = self.sockets.iter();
        let resting = all.filter(|(_, (socket, _))| rests(socket.source()));
        self.resting = resting.map(|(key, _)| key).collect();
        self.look_for_readable();
    }

    /// None rests.
    pub(super) fn go_on(&mut self) {
        self.resting.clear();
        self.look_for_readable();
    }

    /// Latches what an event says of a socket.
    pub(super) fn latch(&mut self, key: ListenerKey, token: mio::Token, readiness: Readiness) {
        if let Some((socket, _)) = self.sockets.get_mut(key.0) {
            socket.latch(token, readiness);
            self.has_readable |= socket.is_readable() && !self.resting.contains(&key.0);
        }
    }

    /// Whether connections may wait.
    pub(super) fn is_readable(&self) -> bool {
        self.has_readable
    }

    /// The one that was accepted from last has no more connections.
    fn last_is_empty(&mut self) {
        if let Some((socket, _)) = self.sockets.get_mut(self.last) {
            socket.clear_readable();
        }
        self.look_for_readable();
    }

    /// One on which a connection may wait; each in its turn, so that a flood on one address does not keep the others
    /// waiting.
    fn next(&mut self) -> Option<&mut Door<L>> {
        let later = self.readable().find(|key| *key > self.last);
        let next = later.or_else(|| self.readable().next());
        self.last = next?;
        self.sockets.get_mut(self.last)
    }

    /// Listens no more.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
        self.has_readable = false;
    }
}

impl<S: System> Proxy<S> {
    pub(super) fn can_accept(&self) -> bool {
        self.listeners.is_readable()
            && !self.is_paused()
            && (self.start_queue.is_empty() || self.scheduler.len() < self.limits.possible_sessions)
            && self.refused + self.to_be_refused() < MAX_REFUSED
            && !self.has_fresh_visitors()
            && !self
                .upgrade
                .as_ref()
                .is_some_and(|upgrade| upgrade.keeps_newcomers_waiting())
    }

    /// Whether something has run out, and the next attempt is to wait.
    pub(super) fn is_paused(&self) -> bool {
        self.pause.at().is_some()
    }

    pub(super) fn accept_waiting(&mut self) {
        self.begin_round_of_visitors();
        for _ in 0..ACCEPTS_PER_ITERATION {
            if !self.can_accept() {
                return;
            }
            let Some((listener, door)) = self.listeners.next() else {
                return;
            };
            match self.system.accept(listener.source()) {
                Ok((client, address)) => {
                    let door = *door;
                    self.accepted(door, client, address);
                    // If descriptors are few, its server is started before the next connection takes what that needs.
                    self.apply_actions();
                }
                Err(error) => match classify_accept_error(&error) {
                    AcceptError::Blocked => {
                        self.listeners.last_is_empty();
                        self.note_whether_anyone_waits();
                    }
                    AcceptError::Connection => {
                        debug!("a connection was gone before it was accepted: {error}");
                    }
                    AcceptError::Exhausted => self.pause(&error),
                },
            }
        }
    }

    pub(super) fn accepted(
        &mut self,
        door: Option<ServiceKey>,
        client: S::Client,
        address: ClientAddress,
    ) {
        if self.visitors.is_some() {
            return self.arrived(door, client, address);
        }
        self.accept_free(door, client, address);
    }

    /// A connection of which nothing is asked.
    pub(super) fn accept_free(
        &mut self,
        door: Option<ServiceKey>,
        client: S::Client,
        address: ClientAddress,
    ) {
        if self.resuming.is_none() {
            return self.accept_session(door, client, address);
        }
        if let Err(error) = client.configure() {
            debug!("a connection was gone when it was accepted: {error}");
            return;
        }
        let arrival = Arrival {
            client: address,
            service: door.unwrap_or(ServiceKey::ONLY),
            identity: None,
        };
        self.newcome(client, arrival);
    }

    /// A connection is a session at once.
    fn accept_session(
        &mut self,
        door: Option<ServiceKey>,
        client: S::Client,
        address: ClientAddress,
    ) {
        let key = self.scheduler.next_key();
        if key.0 >= MAX_KEYS {
            return;
        }
        if let Err(error) = client.configure() {
            debug!("a connection was gone when it was accepted: {error}");
            return;
        }
        let client = match self.reactor.register(client, client_target(key), INTEREST) {
            Ok(client) => client,
            Err(error) => return self.pause(&error),
        };
        // Where there is a choice, clients are asked for it.
        let service = door.unwrap_or(self.services.fallback);
        self.open_session(address, ClientSession::new(service, client, None));
    }

    /// Begins the session of a connection, unless there are as many as there may be.
    pub(super) fn open_session(
        &mut self,
        client: ClientAddress,
        place: ClientSession<S>,
    ) -> SessionKey {
        self.sessions_so_far += 1;
        let service = self.services.get(place.service());
        let label = Label::Session {
            number: self.sessions_so_far,
            server: service.name.clone(),
            client,
            pid: None,
        };
        match self.session_limit(service, client, place.identity()) {
            None => {
                let service = self.services.get_mut(place.service());
                service.sessions += 1;
                service.counts.opened += 1;
                self.quotas.open(client, place.identity());
                let timers = &mut self.reactor.timers;
                self.scheduler
                    .open_for(place.service(), label, place, timers)
            }
            Some(limit) => {
                self.refused += 1;
                self.counts.refused(limit);
                let timers = &mut self.reactor.timers;
                self.scheduler.refuse(label, limit, place, timers)
            }
        }
    }

    /// Whether there are as many sessions as there may be.
    pub(super) fn is_full(&self) -> bool {
        let resuming = self.resuming.as_ref();
        let lingering = resuming.map_or(0, |resuming| resuming.lingering);
        self.scheduler.len() - self.refused - lingering >= self.limits.max_sessions
    }

    /// Connections that are going to be turned away, as far as that is known.
    fn to_be_refused(&self) -> usize {
        if self.is_full() { self.newcomers() } else { 0 }
    }

    /// The limit that one more session of this client would be over.
    fn session_limit(
        &self,
        service: &Service,
        client: ClientAddress,
        identity: Option<&Identity>,
    ) -> Option<SessionLimit> {
        if self.is_full() {
            return Some(SessionLimit::All(self.limits.max_sessions));
        }
        let own = service.max_sessions;
        let own = own.filter(|limit| self.services.sessions_like(service) >= *limit);
        own.map(SessionLimit::OfServer)
            .or_else(|| self.quotas.exceeded(client, identity))
    }

    /// Something has run out: nothing is accepted or started for a while.
    pub(super) fn pause(&mut self, error: &io::Error) {
        let timers = &mut self.reactor.timers;
        let at = timers.now() + ACCEPT_PAUSE;
        self.pause.set(Some(at), Due::Accept, timers);
        let open = self.scheduler.len();
        if !std::mem::replace(&mut self.exhaustion_logged, true) {
            error!(
                "new connections have to wait: {error}; {} {} open",
                Counted(open, "session"),
                are(open)
            );
        }
    }

    /// Once nobody waits, there is enough of everything, and the next shortage is a new one.
    pub(super) fn note_whether_anyone_waits(&mut self) {
        self.exhaustion_logged &= self.listeners.is_readable() || !self.start_queue.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use mio::{Interest, Token};

    use super::*;

    #[test]
    fn listeners_take_turns() {
        let sockets = (0..3).map(|key| (Io::new(key, Token(key), Interest::READABLE), None));
        let mut listeners = Listeners::new(sockets.collect());
        assert!(!listeners.is_readable() && listeners.next().is_none());
        for key in [0, 2] {
            listeners.latch(ListenerKey(key), Token(key), Readiness::READABLE);
        }
        listeners.latch(ListenerKey(1), Token(0), Readiness::READABLE);
        listeners.latch(ListenerKey(7), Token(7), Readiness::READABLE);
        assert!(listeners.is_readable());
        let mut turns = || *listeners.next().unwrap().0.source();
        assert_eq!([turns(), turns(), turns(), turns()], [2, 0, 2, 0]);
        listeners.last_is_empty();
        assert!(listeners.is_readable());
        assert_eq!(*listeners.next().unwrap().0.source(), 2);
        listeners.last_is_empty();
        assert!(!listeners.is_readable() && listeners.next().is_none());
        listeners.latch(ListenerKey(1), Token(1), Readiness::READABLE);
        assert!(listeners.is_readable());
        listeners.close();
        assert!(!listeners.is_readable() && listeners.next().is_none());
    }
}
