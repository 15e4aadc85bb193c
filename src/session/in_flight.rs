//! Requests without a response: the client's, which must get one if the server goes, and the server's, to which late
//! responses must not reach another server.
//!
//! Both sides choose the ids and how many there are, so requests are found by the hash of their ids, and what the ids
//! hold is counted.

mod server_requests;

use serde::{Deserialize, Serialize};

pub use self::server_requests::{Addressee, ServerRequests};
use crate::protocol::id::RequestId;
use crate::util::defaults::is_default;
use crate::util::keyed_queue::{Keyed, KeyedQueue};
use crate::util::side_bytes;
use crate::util::time::Time;

/// Requests of one session that may wait for their responses; each keeps its id.
pub const MAX_IN_FLIGHT: usize = 1024;

/// What lines that are kept to be sent again may hold for one session, in bytes.
pub const MAX_RESEND_BYTES: usize = 64 * 1024;

/// A request of the client.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Its id, as the client wrote it.
    pub id: RequestId,
    /// What it is, and the line if it may be sent to a second server.
    pub kind: Kind,
    /// Since when it waits to be sent.
    pub since: Time,
    /// When its first byte was written to a server.
    pub sent: Time,
}

/// What a request is to the proxy.
#[derive(Debug, Serialize, Deserialize)]
pub enum Kind {
    /// It may have been acted on, so it is never sent twice.
    Plain,
    /// The same, but with the line: the proxy at the other end of a link may say that no server has seen it.
    Kept(Box<KeptLine>),
    /// `subscriptions/listen`: it stays open for as long as the client likes, and is no work that would have to be
    /// waited for.
    Listen(Option<Box<KeptLine>>),
    /// It only asks what the server is. Few requests do, so it takes little room in the others.
    Opening(Box<Opening>),
}

/// A line without its line end, that can be sent again if it was refused unseen.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptLine(#[serde(with = "side_bytes")] pub Box<[u8]>);

/// A request with which a session opens.
#[derive(Debug, Serialize, Deserialize)]
pub struct Opening {
    /// Whether it is `initialize`, whose line becomes the record of the handshake with the response, and not
    /// `server/discover`.
    pub is_initialize: bool,
    /// The line, without its line end; `None` if it is not sent again, or was too long to be kept.
    #[serde(with = "side_bytes::maybe")]
    pub line: Option<Box<[u8]>>,
    /// Whether it was sent to a server that was lost.
    pub was_sent: bool,
    /// Counts the openings of a session.
    pub number: u32,
}

impl Request {
    /// Whether it is `subscriptions/listen`.
    pub fn is_listen(&self) -> bool {
        matches!(self.kind, Kind::Listen(_))
    }

    /// A request that was not sent yet. It waits since `now`.
    pub fn new(id: RequestId, kind: Kind, now: Time) -> Self {
        Self {
            id,
            kind,
            since: now,
            sent: Time::from_nanos(0),
        }
    }

    /// Whether it counts as a request, and for nothing else: most do.
    fn is_small(&self) -> bool {
        matches!(self.kind, Kind::Plain) && self.id.heap_bytes() == 0
    }

    /// Whether it is `initialize`.
    pub fn is_initialize(&self) -> bool {
        matches!(&self.kind, Kind::Opening(opening) if opening.is_initialize)
    }

    /// Whether it is `server/discover`, which some servers do not survive.
    pub fn is_probe(&self) -> bool {
        matches!(&self.kind, Kind::Opening(opening) if !opening.is_initialize)
    }

    /// Whether it was sent to an upstream that was lost, although it waits to be sent.
    pub fn was_sent(&self) -> bool {
        matches!(&self.kind, Kind::Opening(opening) if opening.was_sent)
    }

    /// It is going to be sent once more.
    pub fn note_sent(&mut self) {
        if let Kind::Opening(opening) = &mut self.kind {
            opening.was_sent = true;
        }
    }

    /// The line, if it may be sent to another server when the one that has it is lost.
    pub fn resendable(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Plain | Kind::Kept(_) | Kind::Listen(_) => None,
            Kind::Opening(opening) => opening.line.as_deref(),
        }
    }

    /// The line, if it may be sent to another server when no server has seen it.
    pub fn line(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Kept(line) => Some(&line.0),
            Kind::Listen(line) => line.as_ref().map(|line| &*line.0),
            Kind::Plain | Kind::Opening(_) => self.resendable(),
        }
    }
}

impl Keyed for Request {
    type Key = RequestId;

    fn key(&self) -> &RequestId {
        &self.id
    }
}

/// The client's requests that were sent to a server and have no response yet, in order of arrival.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct InFlight {
    #[serde(default, skip_serializing_if = "KeyedQueue::is_empty")]
    requests: KeyedQueue<Request>,
    #[serde(default, skip_serializing_if = "is_default")]
    load: Load,
    #[serde(default, skip_serializing_if = "is_default")]
    has_coerced: bool,
}

/// A request that got its response.
#[derive(Debug)]
pub struct Ended {
    /// The request.
    pub request: Request,
    /// How the response was matched with it.
    pub matched: Matched,
}

/// How a response was matched with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matched {
    /// By an equal id.
    Exactly,
    /// By an id that became a string, or a number.
    Coerced {
        /// Whether there was none like it before.
        is_first: bool,
    },
}

/// How many requests there are, and what they hold. There are never more than [`MAX_IN_FLIGHT`], and the rest is limited
/// much as they are.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// How many.
    #[serde(default, skip_serializing_if = "is_default")]
    requests: u16,
    /// How many of them are `subscriptions/listen`.
    #[serde(default, skip_serializing_if = "is_default")]
    listens: u16,
    /// What ids hold besides their own size, in bytes; those of waiting cancellations count, too.
    #[serde(default, skip_serializing_if = "is_default")]
    id_bytes: u32,
    /// What lines that are kept to be sent again hold, in bytes.
    #[serde(default, skip_serializing_if = "is_default")]
    line_bytes: u32,
}

impl Load {
    /// How many there are.
    #[inline]
    pub fn requests(&self) -> usize {
        self.requests.into()
    }

    /// How many of them are `subscriptions/listen`.
    #[inline]
    pub fn listens(&self) -> usize {
        self.listens.into()
    }

    /// What ids hold, in bytes.
    #[inline]
    pub fn id_bytes(&self) -> usize {
        self.id_bytes as usize
    }

    /// What lines hold that are kept to be sent again, in bytes.
    #[inline]
    pub fn line_bytes(&self) -> usize {
        self.line_bytes as usize
    }

    /// One request more.
    #[inline]
    pub fn add(&mut self, request: &Request) {
        self.requests += 1;
        if !request.is_small() {
            self.add_what_it_holds(request);
        }
    }

    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a call would keep the request from staying where it is"
    )]
    fn add_what_it_holds(&mut self, request: &Request) {
        self.listens += u16::from(request.is_listen());
        self.id_bytes += request.id.heap_bytes() as u32;
        self.line_bytes += request.line().map_or(0, <[u8]>::len) as u32;
    }

    /// One request less.
    #[inline]
    pub fn remove(&mut self, request: &Request) {
        debug_assert!(self.requests > 0);
        self.requests -= 1;
        if !request.is_small() {
            self.remove_what_it_holds(request);
        }
    }

    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a call would keep the request from staying where it is"
    )]
    fn remove_what_it_holds(&mut self, request: &Request) {
        self.listens -= u16::from(request.is_listen());
        self.id_bytes -= request.id.heap_bytes() as u32;
        self.line_bytes -= request.line().map_or(0, <[u8]>::len) as u32;
    }

    /// One cancellation more that waits.
    pub fn add_cancellation(&mut self, id: &RequestId) {
        self.id_bytes += id.heap_bytes() as u32;
    }

    /// One cancellation less.
    pub fn remove_cancellation(&mut self, id: &RequestId) {
        self.id_bytes -= id.heap_bytes() as u32;
    }
}

impl InFlight {
    /// Notes that the first byte of a request was sent.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call would move it once more")]
    pub fn begin(&mut self, request: Request) {
        self.load.add(&request);
        self.requests.push_back(request);
    }

    /// A response of this id came: ends the first request that has it. If there is none, it is the one whose id was
    /// coerced into this, unless several could be meant: many peers turn `"7"` into 7, or 7 into `"7"`.
    #[inline]
    pub fn end(&mut self, id: &RequestId) -> Option<Ended> {
        if let Some(request) = self.cancel(id) {
            return Some(Ended {
                request,
                matched: Matched::Exactly,
            });
        }
        self.end_coerced(id)
    }

    #[inline(never)]
    fn end_coerced(&mut self, id: &RequestId) -> Option<Ended> {
        if self.requests.is_empty() {
            return None;
        }
        let coerced = id.coerced()?;
        if self.requests.count_to_two(&coerced) != 1 {
            return None;
        }
        let request = self.cancel(&coerced)?;
        let is_first = !std::mem::replace(&mut self.has_coerced, true);
        Some(Ended {
            request,
            matched: Matched::Coerced { is_first },
        })
    }

    /// Ends the first request of this id, because it was taken back.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call would move it once more")]
    pub fn cancel(&mut self, id: &RequestId) -> Option<Request> {
        let request = self.requests.remove_first(id)?;
        self.load.remove(&request);
        Some(request)
    }

    /// Forgets the probes before the opening of this number. Legacy servers may ignore them.
    pub fn forget_probes(&mut self, before: u32) {
        for request in self.take_all() {
            let is_late = |opening: &Opening| !opening.is_initialize && opening.number < before;
            if !matches!(&request.kind, Kind::Opening(opening) if is_late(opening)) {
                self.begin(request);
            }
        }
    }

    /// Whether a request of this id waits for its response. The search may have to be prepared for, so this needs `&mut`.
    pub fn contains(&mut self, id: &RequestId) -> bool {
        self.requests.contains(id)
    }

    /// Ends all `subscriptions/listen`, in order of arrival.
    pub fn take_listens(&mut self) -> Vec<Request> {
        let listens = self.requests.iter().filter(|request| request.is_listen());
        let ids: Vec<RequestId> = listens.map(|request| request.id.clone()).collect();
        ids.iter().filter_map(|id| self.cancel(id)).collect()
    }

    /// Whether there is no request that would have to be waited for.
    pub fn is_no_work(&self) -> bool {
        self.load.requests == self.load.listens
    }

    /// The request that a response of this id would end.
    pub fn meant_by(&mut self, id: &RequestId) -> Option<&Request> {
        if self.requests.is_empty() || self.contains(id) {
            return self.requests.get(id);
        }
        let coerced = id.coerced()?;
        if self.requests.count_to_two(&coerced) != 1 {
            return None;
        }
        self.requests.get(&coerced)
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

    /// How many there are, and what they hold.
    pub fn load(&self) -> Load {
        self.load
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::server_requests::MAX_SERVER_REQUESTS;
    use super::*;

    fn id(text: &str) -> RequestId {
        RequestId::new(text)
    }

    #[test]
    fn the_first_of_two_with_one_id_ends_first() {
        let mut in_flight = InFlight::default();
        for text in ["1", "2", "1.0"] {
            in_flight.begin(Request::new(id(text), Kind::Plain, Time::default()));
        }
        let end = |in_flight: &mut InFlight| in_flight.end(&id("1")).unwrap().request.id;
        assert_eq!(end(&mut in_flight).to_string(), "1");
        assert_eq!(end(&mut in_flight).to_string(), "1.0");
        assert!(in_flight.end(&id("1")).is_none());
        assert!(in_flight.contains(&id("2")));
        assert_eq!(in_flight.take_all().count(), 1);
        assert!(in_flight.is_empty());
    }

    #[test]
    fn a_response_goes_to_the_oldest_request_of_its_id() {
        let mut requests = ServerRequests::default();
        requests.open(id("0"));
        requests.orphan();
        requests.open(id("0"));
        assert_eq!(requests.end(&id("0")), Addressee::Gone);
        assert_eq!(requests.end(&id("0")), Addressee::Present);
        assert_eq!(requests.end(&id("0")), Addressee::Unknown);
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

    fn in_flight(ids: &[&str]) -> InFlight {
        let mut in_flight = InFlight::default();
        for text in ids {
            in_flight.begin(Request::new(id(text), Kind::Plain, Time::default()));
        }
        in_flight
    }

    /// What a response ends, and whether by a coerced id.
    fn ended(in_flight: &mut InFlight, text: &str) -> Option<(String, Matched)> {
        let ended = in_flight.end(&id(text))?;
        Some((ended.request.id.to_string(), ended.matched))
    }

    #[test]
    fn ids_that_come_back_as_another_type_are_known() {
        let first = Matched::Coerced { is_first: true };
        let later = Matched::Coerced { is_first: false };
        let mut requests = in_flight(&["7", r#""8""#, r#""x""#]);
        assert_eq!(ended(&mut requests, r#""7""#), Some(("7".into(), first)));
        assert_eq!(ended(&mut requests, "8.0"), Some((r#""8""#.into(), later)));
        assert_eq!(ended(&mut requests, "9"), None);
        assert_eq!(requests.load().requests(), 1);
    }

    #[test]
    fn an_id_that_may_mean_several_requests_means_none() {
        let coerced = Some((r#""7""#.into(), Matched::Coerced { is_first: true }));
        let mut requests = in_flight(&[r#""7""#, "7"]);
        let exactly = Some(("7".into(), Matched::Exactly));
        assert_eq!(ended(&mut requests, "7"), exactly, "whichever came first");
        assert_eq!(ended(&mut requests, "7"), coerced);
        let mut requests = in_flight(&[r#""7""#, r#""7""#]);
        assert_eq!(ended(&mut requests, "7"), None);
        assert!(
            requests.cancel(&id("7")).is_none(),
            "taken back is what is named"
        );
        assert!(requests.cancel(&id(r#""7""#)).is_some());
        assert_eq!(ended(&mut requests, "7"), coerced);
    }

    #[test]
    fn a_client_may_coerce_ids_too() {
        let mut requests = ServerRequests::default();
        requests.open(id("1"));
        requests.orphan();
        requests.open(id(r#""2""#));
        requests.open(id(r#""1""#));
        assert_eq!(requests.end(&id("2")), Addressee::Present);
        assert_eq!(requests.end(&id(r#""1""#)), Addressee::Present);
        assert_eq!(requests.end(&id(r#""1""#)), Addressee::Gone);
    }

    #[test]
    fn what_ids_hold_is_counted() {
        let long = |number: usize| id(&format!("\"{number}{}\"", "x".repeat(500)));
        let mut requests = ServerRequests::default();
        for number in 0..2 * MAX_SERVER_REQUESTS {
            requests.open(long(number));
        }
        assert!(requests.id_bytes() >= 500 * MAX_SERVER_REQUESTS);
        assert!(requests.id_bytes() <= 700 * MAX_SERVER_REQUESTS);
        requests.orphan();
        for number in 0..2 * MAX_SERVER_REQUESTS {
            requests.end(&long(number));
        }
        assert_eq!((requests.remembered(), requests.id_bytes()), (0, 0));
    }
}
