//! The server's requests to the client, to which late responses must not reach another server.

use serde::{Deserialize, Serialize};

use crate::protocol::id::RequestId;
use crate::util::keyed_queue::{Keyed, KeyedQueue};

/// Requests of one server that are remembered. Of more, the oldest are forgotten: responses to them pass unexamined.
pub(super) const MAX_SERVER_REQUESTS: usize = 1024;

/// The server's requests that have no response of the client yet. Most servers never ask anything.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ServerRequests(Option<Box<Asked>>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Asked {
    open: Ids,
    /// Those of servers that are gone.
    orphaned: Ids,
}

/// Which request a client's response belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressee {
    /// One of the present server.
    Present,
    /// One of a server that is gone.
    Gone,
    /// None that is remembered.
    Unknown,
}

impl ServerRequests {
    /// Whether there never was one.
    pub(in crate::session) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Notes a request of the present server.
    pub fn open(&mut self, id: RequestId) {
        let asked = self.0.get_or_insert_default();
        asked.open.remember(id, MAX_SERVER_REQUESTS);
    }

    /// The present server took its request back. Returns whether it waited for a response.
    pub fn cancel(&mut self, id: &RequestId) -> bool {
        let asked = self.0.as_mut();
        asked.is_some_and(|asked| asked.open.forget(id).is_some())
    }

    /// The client sent a response. Of several requests of an id the oldest gets it, and if none has it, the one whose id
    /// was coerced into it, as in [`InFlight::end`].
    pub fn end(&mut self, id: &RequestId) -> Addressee {
        let Some(asked) = self.0.as_mut().filter(|asked| !asked.awaits_nothing()) else {
            return Addressee::Unknown;
        };
        match (asked.end(id), id.coerced()) {
            (Addressee::Unknown, Some(coerced)) if asked.awaits_one(&coerced) => {
                asked.end(&coerced)
            }
            (addressee, _) => addressee,
        }
    }

    /// Whether the present server waits for no response.
    pub fn none_open(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|asked| asked.open.ids.is_empty())
    }

    /// What the ids of all that are remembered hold besides their own size, in bytes.
    pub fn id_bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |asked| asked.open.heap_bytes + asked.orphaned.heap_bytes)
    }

    /// How many are remembered.
    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |asked| asked.open.ids.len() + asked.orphaned.ids.len())
    }

    /// The ids of the present server's requests that have no response, in order.
    pub fn open_ids(&self) -> Vec<RequestId> {
        let asked = self.0.iter();
        asked
            .flat_map(|asked| asked.open.ids.iter().cloned())
            .collect()
    }

    /// The present server is gone.
    pub fn orphan(&mut self) {
        let Some(asked) = &mut self.0 else {
            return;
        };
        for id in std::mem::take(&mut asked.open).ids.drain() {
            asked.orphaned.remember(id, MAX_SERVER_REQUESTS);
        }
    }
}

impl Asked {
    fn end(&mut self, id: &RequestId) -> Addressee {
        if self.orphaned.forget(id).is_some() {
            Addressee::Gone
        } else if self.open.forget(id).is_some() {
            Addressee::Present
        } else {
            Addressee::Unknown
        }
    }

    fn awaits_nothing(&self) -> bool {
        self.open.ids.is_empty() && self.orphaned.ids.is_empty()
    }

    /// Whether exactly one request has this id.
    fn awaits_one(&mut self, id: &RequestId) -> bool {
        self.open.ids.count_to_two(id) + self.orphaned.ids.count_to_two(id) == 1
    }
}

/// Some ids, in order of arrival.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ids {
    ids: KeyedQueue<RequestId>,
    heap_bytes: usize,
}

impl Keyed for RequestId {
    type Key = Self;

    fn key(&self) -> &Self {
        self
    }
}

impl Ids {
    /// Adds an id, and drops the oldest if there are more than `most`.
    fn remember(&mut self, id: RequestId, most: usize) {
        self.heap_bytes += id.heap_bytes();
        self.ids.push_back(id);
        if self.ids.len() > most
            && let Some(oldest) = self.ids.pop_front()
        {
            self.heap_bytes -= oldest.heap_bytes();
        }
    }

    fn forget(&mut self, id: &RequestId) -> Option<RequestId> {
        let id = self.ids.remove_first(id)?;
        self.heap_bytes -= id.heap_bytes();
        Some(id)
    }
}
