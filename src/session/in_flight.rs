//! Requests without an answer: the client's, which must be answered if the server goes, and the server's, whose late
//! answers must not reach another server.

use std::collections::VecDeque;

use crate::protocol::id::RequestId;
use crate::util::small_queue::SmallQueue;

/// Requests of one session that may wait for their answers; each keeps its id.
pub const MAX_IN_FLIGHT: usize = 1024;

/// Requests of one server that are remembered. Of more, the oldest are forgotten: their answers pass unexamined.
const MAX_SERVER_REQUESTS: usize = 1024;

/// A server that asks again and again finds room for this many of its requests.
const KEPT_ENTRIES: usize = 4;

/// Requests of one server that are remembered after they were answered: it may take one back before it sees the answer.
const MAX_ANSWERED: usize = 16;

/// What lines that are kept to be sent again may hold for one session, in bytes.
pub const MAX_RESEND_BYTES: usize = 64 * 1024;

/// A request of the client.
#[derive(Debug)]
pub struct Request {
    /// Its id, as the client wrote it.
    pub id: RequestId,
    /// What it is, and the line if it may be sent to a second server.
    pub kind: Kind,
}

/// What a request is to the proxy.
#[derive(Debug)]
pub enum Kind {
    /// It may have been acted on, so it is never sent twice.
    Plain,
    /// It only asks who is there. Few requests do, so it takes little room in the others.
    Opening(Box<Opening>),
}

/// A request with which a session opens.
#[derive(Debug)]
pub struct Opening {
    /// Whether it is `initialize`, of which the line becomes the record of the handshake once it is answered, and not
    /// `server/discover`.
    pub is_initialize: bool,
    /// The line, without its line end; `None` if it was too long to be kept.
    pub line: Option<Box<[u8]>>,
}

impl Request {
    /// Whether it is `initialize`.
    pub fn is_initialize(&self) -> bool {
        matches!(&self.kind, Kind::Opening(opening) if opening.is_initialize)
    }

    /// The line, if it may be sent to another server when the one that has it is lost.
    pub fn resendable(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Plain => None,
            Kind::Opening(opening) => opening.line.as_deref(),
        }
    }
}

/// The client's requests that a server has been sent and has not answered, in order of arrival.
#[derive(Debug, Default)]
pub struct InFlight {
    requests: SmallQueue<Request>,
    load: Load,
}

/// How many requests there are, and what their ids hold.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// How many.
    pub requests: usize,
    /// What the ids hold besides their own size, in bytes.
    pub id_bytes: usize,
}

impl Load {
    /// One request more.
    pub fn add(&mut self, request: &Request) {
        self.requests += 1;
        self.id_bytes += request.id.heap_bytes();
    }

    /// One request less.
    pub fn remove(&mut self, request: &Request) {
        debug_assert!(self.requests > 0);
        self.requests -= 1;
        self.id_bytes -= request.id.heap_bytes();
    }
}

impl InFlight {
    /// Notes that the first byte of a request was sent.
    pub fn begin(&mut self, request: Request) {
        self.load.add(&request);
        self.requests.push_back(request);
    }

    /// Ends the first request of this id, because it was answered or taken back.
    pub fn end(&mut self, id: &RequestId) -> Option<Request> {
        let request = self.requests.remove_first(|request| request.id == *id)?;
        self.load.remove(&request);
        Some(request)
    }

    /// Whether a request of this id waits for its answer.
    pub fn contains(&self, id: &RequestId) -> bool {
        self.requests.iter().any(|request| request.id == *id)
    }

    /// Ends all, in order of arrival.
    pub fn take_all(&mut self) -> impl Iterator<Item = Request> + use<> {
        self.load = Load::default();
        self.requests.drain()
    }

    /// The ids of all, in order of arrival.
    pub fn into_ids(mut self) -> impl Iterator<Item = RequestId> {
        self.requests.drain().map(|request| request.id)
    }

    /// What the lines kept for sending again hold, in bytes.
    pub fn resendable_bytes(&self) -> usize {
        self.requests
            .iter()
            .filter_map(Request::resendable)
            .map(<[u8]>::len)
            .sum()
    }

    /// How many there are, and what they hold.
    pub fn load(&self) -> Load {
        self.load
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

/// The server's requests that the client has not answered. Most servers never ask anything.
#[derive(Debug, Default)]
pub struct ServerRequests(Option<Box<Asked>>);

#[derive(Debug, Default)]
struct Asked {
    open: VecDeque<RequestId>,
    /// Those of the present server that were answered last.
    answered: VecDeque<RequestId>,
    /// Those of servers that are gone.
    orphaned: VecDeque<RequestId>,
}

/// Whose request a client's answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressee {
    /// The present server's.
    Present,
    /// A server's that is gone.
    Gone,
    /// No request that is remembered.
    Unknown,
}

impl ServerRequests {
    /// Notes a request of the present server.
    pub fn open(&mut self, id: RequestId) {
        let asked = self.0.get_or_insert_default();
        remember(&mut asked.open, id, MAX_SERVER_REQUESTS);
    }

    /// The present server took its request back. Returns whether it had one of this id, be it that the answer is on its
    /// way already.
    pub fn cancel(&mut self, id: &RequestId) -> bool {
        self.0
            .as_mut()
            .is_some_and(|asked| forget(&mut asked.open, id) || forget(&mut asked.answered, id))
    }

    /// The client answered a request. The oldest request of an id is the one that is answered first.
    pub fn answer(&mut self, id: &RequestId) -> Addressee {
        let Some(asked) = &mut self.0 else {
            return Addressee::Unknown;
        };
        if forget(&mut asked.orphaned, id) {
            Addressee::Gone
        } else if forget(&mut asked.open, id) {
            remember(&mut asked.answered, id.clone(), MAX_ANSWERED);
            Addressee::Present
        } else {
            Addressee::Unknown
        }
    }

    /// Whether the present server waits for no answer.
    pub fn none_open(&self) -> bool {
        self.0.as_ref().is_none_or(|asked| asked.open.is_empty())
    }

    /// How many are remembered.
    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |asked| asked.open.len() + asked.orphaned.len())
    }

    /// The present server is gone.
    pub fn orphan(&mut self) {
        let Some(asked) = &mut self.0 else {
            return;
        };
        asked.answered = VecDeque::new();
        for id in std::mem::take(&mut asked.open) {
            remember(&mut asked.orphaned, id, MAX_SERVER_REQUESTS);
        }
    }
}

fn remember(ids: &mut VecDeque<RequestId>, id: RequestId, most: usize) {
    if ids.len() >= most {
        ids.pop_front();
    }
    ids.push_back(id);
}

fn forget(ids: &mut VecDeque<RequestId>, id: &RequestId) -> bool {
    let Some(at) = ids.iter().position(|open| open == id) else {
        return false;
    };
    ids.remove(at);
    if ids.is_empty() && ids.capacity() > KEPT_ENTRIES {
        *ids = VecDeque::new();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> RequestId {
        RequestId::new(text)
    }

    #[test]
    fn the_first_of_two_with_one_id_ends_first() {
        let mut in_flight = InFlight::default();
        for text in ["1", "2", "1.0"] {
            in_flight.begin(Request {
                id: id(text),
                kind: Kind::Plain,
            });
        }
        assert_eq!(in_flight.end(&id("1")).unwrap().id.to_string(), "1");
        assert_eq!(in_flight.end(&id("1")).unwrap().id.to_string(), "1.0");
        assert!(in_flight.end(&id("1")).is_none());
        assert!(in_flight.contains(&id("2")));
        assert_eq!(in_flight.take_all().count(), 1);
        assert!(in_flight.is_empty());
    }

    #[test]
    fn an_answer_goes_to_the_oldest_request_of_its_id() {
        let mut requests = ServerRequests::default();
        requests.open(id("0"));
        requests.orphan();
        requests.open(id("0"));
        assert_eq!(requests.answer(&id("0")), Addressee::Gone);
        assert_eq!(requests.answer(&id("0")), Addressee::Present);
        assert_eq!(requests.answer(&id("0")), Addressee::Unknown);
    }

    #[test]
    fn server_requests_are_bounded() {
        let mut requests = ServerRequests::default();
        for number in 0..=MAX_SERVER_REQUESTS {
            requests.open(id(&number.to_string()));
        }
        assert!(!requests.cancel(&id("0")), "the oldest was forgotten");
        assert!(requests.cancel(&id("1")));
    }
}
