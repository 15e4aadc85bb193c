//! A session's place at the shared servers: what of its client is open, what waits to be sent, what waits for the client.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ProcessKey;
use super::for_client::ForClient;
use super::groups::GroupKey;
use super::identity::Identity;
use super::open_requests::OpenRequests;
use super::uris::Uris;
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::protocol::id::RequestId;
use crate::util::side_bytes;
use crate::util::time::Time;

/// Requests of a session that wait to be sent to a process, at most.
pub(super) const MAX_WAITING: usize = 1024;

/// What they hold, at most, unless it is one alone.
pub(super) const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// Requests to listen that a session may have open. The clients of the SDKs open one.
pub(super) const MAX_LISTENS: usize = 16;

/// A session's place.
#[derive(Debug, Serialize, Deserialize)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a thing of its own to know of it"
)]
pub(super) struct Seat {
    /// As whom the limits count its client.
    pub(super) identity: Identity,
    pub(super) era: SeatEra,
    /// Where its requests go. The first of them decides.
    pub(super) process: Option<ProcessKey>,
    /// Requests that were not answered.
    pub(super) open: OpenRequests,
    /// Those of them that are to be sent, in order of arrival.
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) waiting_bytes: usize,
    /// How many of them are at the process and count: listens do not.
    pub(super) at_process: usize,
    /// How many are requests to listen.
    pub(super) listens: usize,
    /// The resources that a legacy client has subscribed to.
    pub(super) uris: Uris,
    pub(super) to_client: ForClient,
    /// Whether it has a turn at its process.
    pub(super) has_turn: bool,
    /// Whether the session was told that something is there for its client, and has not looked.
    pub(super) is_woken: bool,
    /// Since when nothing was taken of a lot that waits for the client.
    pub(super) stalled_since: Option<Time>,
    /// Whether servers may have died of its requests.
    pub(super) is_suspect: bool,
    /// Whether it is to be closed.
    pub(super) is_closing: bool,
    /// What it holds of the shared memory, in bytes.
    #[serde(skip)]
    pub(super) charged: usize,
}

/// A request that was not answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Open {
    /// As the client wrote it.
    pub(super) id: RequestId,
    /// What stands for it at the process, in place of the id and of the token. No other request ever has it.
    pub(super) number: u64,
    pub(super) state: State,
    /// The process that it was sent to, once it was.
    pub(super) process: Option<ProcessKey>,
    /// What most requests do not have.
    special: Option<Box<Special>>,
}

/// What is remembered of few requests.
#[derive(Debug, Serialize, Deserialize)]
struct Special {
    /// Under which the client wants to be told of progress.
    #[serde(with = "side_bytes::maybe")]
    token: Option<Box<[u8]>>,
    asks: Asks,
}

impl Open {
    pub(super) fn new(id: RequestId, number: u64, state: State) -> Self {
        Self {
            id,
            number,
            state,
            process: None,
            special: None,
        }
    }

    /// The same, with what is remembered of it.
    pub(super) fn with(mut self, token: Option<&[u8]>, asks: Asks) -> Self {
        if token.is_some() || asks != Asks::Other {
            let token = token.map(Box::from);
            self.special = Some(Box::new(Special { token, asks }));
        }
        self
    }

    /// Under which the client wants to be told of progress.
    pub(super) fn token(&self) -> Option<&[u8]> {
        self.special.as_ref()?.token.as_deref()
    }

    pub(super) fn asks(&self) -> &Asks {
        let special = self.special.as_ref();
        special.map_or(&Asks::Other, |special| &special.asks)
    }

    /// It asks to be told of changes of a resource, for the first time if `is_new`.
    pub(super) fn note_new(&mut self, is_new: bool) {
        let asks = self.special.as_mut().map(|special| &mut special.asks);
        if let Some(Asks::Subscribe { is_new: noted, .. }) = asks {
            *noted = is_new;
        }
    }
}

/// How the client of a seat talks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SeatEra {
    /// It has asked for nothing but who is there.
    #[default]
    Undecided,
    Modern,
    /// It belongs to this group, once there was an `initialize` that did not fail.
    Legacy(Option<GroupKey>),
}

/// What a request asks for that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Asks {
    Other,
    /// Who the server is, in this version, as written.
    Discover(#[serde(with = "side_bytes")] Box<[u8]>),
    /// To be told of changes of a resource; `is_new` if the client had not asked for that before.
    Subscribe {
        uri: Arc<str>,
        is_new: bool,
    },
    /// Not to be any more.
    Unsubscribe(Arc<str>),
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// It was not sent.
    Waiting,
    /// It is an `initialize`: the proxy is initialising a process.
    Initializing,
    /// It is at the process of the seat.
    Sent,
    /// The same, but the client does not want the response any more.
    Cancelled,
    /// It shares the listen of this number at the process with others.
    Listening(u64),
}

/// A line that is to be sent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) number: u64,
    /// With its line end.
    #[serde(with = "side_bytes")]
    pub(super) line: Vec<u8>,
    /// For a request to listen: what it has in common with those that may share one.
    #[serde(with = "side_bytes::maybe")]
    pub(super) listens_to: Option<Box<[u8]>>,
}

/// There are thousands, most with a request that listens.
const _: () = assert!(size_of::<Seat>() + size_of::<Open>() <= 264);

impl Seat {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            era: SeatEra::default(),
            process: None,
            open: OpenRequests::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            at_process: 0,
            listens: 0,
            uris: Uris::default(),
            to_client: ForClient::default(),
            has_turn: false,
            is_woken: false,
            stalled_since: None,
            is_suspect: false,
            is_closing: false,
            charged: 0,
        }
    }

    /// Forgets the request at this place.
    pub(super) fn close(&mut self, at: usize) -> Open {
        let open = self.open.remove(at);
        if matches!(open.state, State::Sent | State::Cancelled) {
            self.at_process -= 1;
        }
        open
    }

    /// Whether there is no room for one more line that waits.
    pub(super) fn is_full(&self, more: usize) -> bool {
        !self.waiting.is_empty()
            && (self.waiting.len() >= MAX_WAITING || self.waiting_bytes + more > MAX_WAITING_BYTES)
    }

    pub(super) fn push_waiting(&mut self, waiting: Waiting) {
        self.waiting_bytes += waiting.line.len();
        self.waiting.push_back(waiting);
    }

    /// Something was taken back that is to be sent before all else.
    pub(super) fn push_waiting_front(&mut self, waiting: Waiting) {
        self.waiting_bytes += waiting.line.len();
        self.waiting.push_front(waiting);
    }

    /// Where the next line is that may be sent, if at most this many requests may be at the process, and listens only if
    /// they may be. They are never kept from being sent by requests that are.
    pub(super) fn next_to_send(&self, most: usize, listens: bool) -> Option<usize> {
        if self.is_backed_up() || self.is_closing {
            return None;
        }
        let requests = self.at_process < most;
        if requests && (listens || self.listens == 0) {
            return (!self.waiting.is_empty()).then_some(0);
        }
        if !requests && (!listens || self.listens == 0) {
            return None;
        }
        let mut waiting = self.waiting.iter();
        waiting.position(|waiting| waiting.listens_to.is_some() != requests)
    }

    /// Whether a request is to be sent that is not one to listen.
    pub(super) fn has_request_waiting(&self) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|waiting| waiting.listens_to.is_none())
    }

    pub(super) fn take_next(&mut self, at: usize) -> Option<Waiting> {
        let next = self.waiting.remove(at)?;
        self.waiting_bytes -= next.line.len();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(next)
    }

    /// Takes a line out that is not to be sent any more.
    pub(super) fn take_waiting(&mut self, number: u64) -> Option<Waiting> {
        let mut waiting = self.waiting.iter();
        let at = waiting.position(|waiting| waiting.number == number)?;
        let taken = self.waiting.remove(at)?;
        self.waiting_bytes -= taken.line.len();
        Some(taken)
    }

    /// The group that it belongs to, if its client is a legacy one.
    pub(super) fn group(&self) -> Option<GroupKey> {
        match self.era {
            SeatEra::Legacy(group) => group,
            _ => None,
        }
    }

    /// Whether any request of it is at this process, and counts.
    pub(super) fn is_at(&self, process: ProcessKey) -> bool {
        let is_sent = |open: &Open| matches!(open.state, State::Sent | State::Cancelled);
        let mut open = self.open.iter();
        open.any(|open| is_sent(open) && open.process == Some(process))
    }

    /// Whether it is to have a process even while it asks nothing.
    pub(super) fn needs_process(&self) -> bool {
        self.process.is_none() && !self.uris.is_empty()
    }

    /// Whether so much waits for the client that it is to read before it gets more done.
    pub(super) fn is_backed_up(&self) -> bool {
        self.to_client.len() > UNCHARGED_BYTES
    }

    /// What it is to hold of the shared memory, in bytes.
    pub(super) fn charge(&self) -> usize {
        let beyond = |bytes: usize| bytes.saturating_sub(UNCHARGED_BYTES);
        beyond(self.waiting_bytes)
            + beyond(self.to_client.capacity())
            + beyond(self.open.id_bytes())
            + beyond(self.uris.bytes())
    }
}
