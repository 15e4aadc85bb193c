//! The resources of legacy clients at one process: each is subscribed to once there, for all that want to hear of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::client_line::{Legacy, Request, What};
use super::process::{Life, Owner, Pool};
use super::seat::Asks;
use super::{Context, ProcessKey, SeatKey, Share};
use crate::protocol::own_messages::{self, ErrorReason};
use crate::util::pairs;

/// Resources that a session may be subscribed to.
pub(super) const MAX_URIS: usize = 1024;

/// The parts of a longer one are not looked for: nobody has such.
const MAX_PARTED_BYTES: usize = 4096;

/// Who has subscribed to what.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Resources {
    #[serde(with = "pairs")]
    by_uri: HashMap<Arc<str>, BTreeSet<SeatKey>>,
}

impl Resources {
    /// Returns whether nobody had subscribed to it.
    pub(super) fn join(&mut self, uri: &Arc<str>, seat: SeatKey) -> bool {
        let seats = self.by_uri.entry(Arc::clone(uri)).or_default();
        let is_first = seats.is_empty();
        seats.insert(seat);
        is_first
    }

    fn has(&self, uri: &str, seat: SeatKey) -> bool {
        let seats = self.by_uri.get(uri);
        seats.is_some_and(|seats| seats.contains(&seat))
    }

    /// Returns whether nobody is left who has subscribed to it.
    pub(super) fn part(&mut self, uri: &str, seat: SeatKey) -> bool {
        let Some(seats) = self.by_uri.get_mut(uri) else {
            return true;
        };
        seats.remove(&seat);
        let is_last = seats.is_empty();
        if is_last {
            self.by_uri.remove(uri);
        }
        is_last
    }

    /// Whoever is to hear that this one has changed: who has subscribed to it, or to something that it is a part of.
    pub(super) fn concerned(&self, uri: &str) -> BTreeSet<SeatKey> {
        let parted = if uri.len() <= MAX_PARTED_BYTES {
            uri
        } else {
            ""
        };
        let slashes = parted.match_indices('/');
        let above = slashes.flat_map(|(at, _)| [&uri[..at], &uri[..=at]]);
        let seats = above.chain([uri]).filter_map(|uri| self.by_uri.get(uri));
        seats.flatten().copied().collect()
    }
}

/// What is to be done about a request that is about to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passes {
    Yes,
    /// It has nothing to do for the server: it is answered with an empty result.
    Answered,
    /// It is refused: the session has as many as it may have.
    TooMany,
}

impl Share {
    /// Notes what a request of a seat means that is sent to a process.
    pub(super) fn note_resource(&mut self, key: SeatKey, at: usize, to: ProcessKey) -> Passes {
        let seat = &mut self.seats[key.0];
        let resources = &mut self.processes[to.0].resources;
        match seat.open[at].asks() {
            Asks::Subscribe { uri, .. } => {
                let uri = Arc::clone(uri);
                let is_new = !seat.uris.contains(&uri);
                if seat.uris.len() >= MAX_URIS && is_new {
                    return Passes::TooMany;
                }
                seat.open[at].note_new(is_new);
                seat.uris.add(&uri);
                resources.join(&uri, key);
                Passes::Yes
            }
            Asks::Unsubscribe(uri) => {
                let uri = Arc::clone(uri);
                seat.uris.remove(&uri);
                if resources.part(&uri, key) {
                    Passes::Yes
                } else {
                    Passes::Answered
                }
            }
            Asks::Other | Asks::Discover(_) => Passes::Yes,
        }
    }

    /// The server has not agreed to a subscription, or is gone before it could. A seat that has another process by now has
    /// subscribed there.
    pub(super) fn undo_subscription(&mut self, key: SeatKey, asks: &Asks, at: ProcessKey) {
        let Asks::Subscribe { uri, is_new: true } = asks else {
            return;
        };
        let Some(seat) = self.seats.get_mut(key.0) else {
            return;
        };
        if seat.process.is_none_or(|process| process == at) {
            seat.uris.remove(uri);
            self.processes[at.0].resources.part(uri, key);
        }
    }

    /// Subscribes again to what a seat has subscribed to, at a process that has just become its own.
    pub(super) fn restore(&mut self, key: SeatKey, to: ProcessKey, cx: &mut Context<'_>) {
        let process = &self.processes[to.0];
        if process.life != Life::Up || !matches!(process.pool, Pool::Legacy(_)) {
            return;
        }
        for uri in self.seats[key.0].uris.all() {
            if self.processes[to.0].resources.join(&uri, key) {
                self.ask(to, "resources/subscribe", &uri, cx);
            }
        }
    }

    /// A process is there: the same for all its seats.
    pub(super) fn restore_all(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        let seats = self.seats.iter();
        let of = seats.filter(|(_, seat)| seat.process == Some(key) && !seat.uris.is_empty());
        let of: Vec<SeatKey> = of.map(|(seat, _)| SeatKey(seat)).collect();
        for seat in of {
            self.restore(seat, key, cx);
        }
    }

    /// A seat does not use a process any more: that is to say nothing more of what only this one has subscribed to.
    pub(super) fn unsubscribe_all(&mut self, key: SeatKey, at: ProcessKey, cx: &mut Context<'_>) {
        for uri in self.seats[key.0].uris.all() {
            let resources = &mut self.processes[at.0].resources;
            if resources.has(&uri, key) && resources.part(&uri, key) {
                self.ask(at, "resources/unsubscribe", &uri, cx);
            }
        }
    }

    /// Asks a process something about a resource, for nobody.
    fn ask(&mut self, key: ProcessKey, method: &str, uri: &str, cx: &mut Context<'_>) {
        if self.processes[key.0].life != Life::Up {
            return;
        }
        self.last_number += 1;
        let number = self.last_number;
        let line = own_messages::about_resource(&number, method, uri) + "\n";
        self.processes[key.0].owners.insert(number, Owner::Proxy);
        self.tell(key, line.into_bytes(), cx);
    }

    /// A process says that a resource has changed.
    pub(super) fn updated(
        &mut self,
        key: ProcessKey,
        uri: &str,
        line: &[u8],
        cx: &mut Context<'_>,
    ) {
        let seats = self.processes[key.0].resources.concerned(uri);
        self.pass_on(key, seats, line, cx);
    }

    /// A process says that a list has changed: all of its group hear of it that have no other process.
    pub(super) fn list_changed(&mut self, key: ProcessKey, line: &[u8], cx: &mut Context<'_>) {
        let group = self.processes[key.0].group();
        let seats = self.seats.iter().filter(|(_, seat)| {
            let is_here = seat.process.is_none_or(|process| process == key);
            is_here && group.is_some() && seat.group() == group
        });
        let seats = seats.map(|(seat, _)| SeatKey(seat)).collect();
        self.pass_on(key, seats, line, cx);
    }

    fn pass_on(
        &mut self,
        key: ProcessKey,
        seats: BTreeSet<SeatKey>,
        line: &[u8],
        cx: &mut Context<'_>,
    ) {
        if seats.is_empty() {
            self.unattributed(key, super::Unattributed::Notification);
        }
        for seat in seats {
            let line = [line, b"\n"].concat();
            self.deliver_notification(seat, line, cx);
        }
    }

    /// A session has as many subscriptions as it may have.
    pub(super) fn refuse_subscription(&mut self, key: SeatKey, id: &str, cx: &mut Context<'_>) {
        let text = "the session is subscribed to 1024 resources, which is the limit";
        let reason = ErrorReason::InFlightLimit;
        self.refuse(key, Some(id.as_bytes()), reason, text, cx);
    }
}

impl Asks {
    pub(super) fn of(line: &[u8], request: &Request<'_>) -> Self {
        match (&request.legacy, request.what) {
            (Legacy::Subscribe(uri), _) => Self::Subscribe {
                uri: uri.clone(),
                is_new: false,
            },
            (Legacy::Unsubscribe(uri), _) => Self::Unsubscribe(uri.clone()),
            (_, What::Discover) => Self::Discover(request.version(line)),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_are_told() {
        let mut resources = Resources::default();
        let uri = Arc::from("file:///a");
        assert!(resources.join(&uri, SeatKey(1)));
        assert!(!resources.join(&uri, SeatKey(2)));
        assert!(!resources.join(&uri, SeatKey(2)));
        assert!(!resources.part(&uri, SeatKey(1)));
        assert!(!resources.part(&uri, SeatKey(1)), "another has it");
        assert!(resources.part(&uri, SeatKey(2)));
        assert!(resources.part(&uri, SeatKey(2)), "nobody has it");
    }

    #[test]
    fn what_is_above_a_resource_hears_of_it() {
        let mut resources = Resources::default();
        let uris = [
            "file:///a/b",
            "file:///a/",
            "file:///a",
            "file:///a/b/c",
            "f",
        ];
        for (seat, uri) in uris.into_iter().enumerate() {
            resources.join(&uri.into(), SeatKey(seat));
        }
        let concerned = |uri| -> Vec<usize> {
            let seats = resources.concerned(uri).into_iter();
            seats.map(|seat| seat.0).collect()
        };
        assert_eq!(concerned("file:///a/b"), [0, 1, 2]);
        assert_eq!(concerned("file:///a/bc"), [1, 2]);
        assert_eq!(concerned("file:///ab"), Vec::<usize>::new());
        assert_eq!(concerned("file:///a/b/c/d"), [0, 1, 2, 3]);
    }
}
