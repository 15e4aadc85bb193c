//! The handshake of a legacy session: what is recorded of it for a replay, and what the response to a replay is
//! compared with. The replay itself is in `replay`.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::list_changes::Declared;
use super::records::Records;
use crate::protocol::envelope::{Envelope, Message};
use crate::protocol::id::RequestId;
use crate::protocol::json;
use crate::util::defaults::is_default;
use crate::util::side_bytes;

/// The largest result of an `initialize` that is kept for comparison, in bytes. Those of real servers take a few
/// hundred bytes, with long instructions a few thousand. The limit for the request is separate, and the same.
pub(super) const MAX_RECORD_BYTES: usize = 64 * 1024;

/// A replay may take this many times as long as the first handshake took: the machine may be busier by now, not least
/// with the restarts of other servers.
const REPLAY_FACTOR: u32 = 3;

/// What is known of the session's handshake.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Handshake {
    #[serde(default, skip_serializing_if = "State::is_none")]
    state: State,
    /// Whether the client has said `notifications/initialized` after the handshake that took place.
    #[serde(default, skip_serializing_if = "is_default")]
    initialized: bool,
    /// The same for an `initialize` that is still unanswered, since some clients do not wait for the response. Until
    /// the server has agreed, the previous handshake counts: a server may refuse a second one.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<bool>,
    /// Whether it said so to a server that was lost before it responded, and the next one must be told.
    #[serde(default, skip_serializing_if = "is_default")]
    owed: bool,
    /// How long the first one took, from the start of its server to the response, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_took: Option<NonZeroU32>,
    /// How many times it was replayed: each replay has an id of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    replays: u32,
    /// How many opening requests there were.
    #[serde(default, skip_serializing_if = "is_default")]
    openings: u32,
    /// Whether it is replayed to the next upstream although the client says nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) replays_at_once: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
enum State {
    /// None took place: the session is modern, or has not begun.
    #[default]
    None,
    /// It can be replayed.
    Recorded(#[serde(with = "recorded")] Rc<Record>),
    /// It took place, but is too large to be recorded.
    TooLarge,
}

impl State {
    fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// A record that sessions may have in common is written down with each of them.
mod recorded {
    use std::rc::Rc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Record;

    pub(super) fn serialize<S: Serializer>(
        record: &Rc<Record>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Record::serialize(record, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Rc<Record>, D::Error> {
        Record::deserialize(deserializer).map(Rc::new)
    }
}

/// A handshake as it took place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(with = "side_bytes")]
    request: Box<[u8]>,
    agreement: Agreement,
    lists: Declared,
    /// The hash of the server's own version, if it has named one.
    version: Option<u64>,
    /// Whether the server has tasks.
    has_tasks: bool,
}

/// What client and server agreed on, and what the client therefore relies on: the protocol version and the
/// capabilities, as one text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreement {
    text: Box<str>,
    /// How much of it is the protocol version.
    version_bytes: usize,
}

/// What another server agrees to of a handshake.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Proposal {
    agreement: Agreement,
    version: Option<u64>,
}

/// What a server made of the replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It responded as the one before it did to the handshake.
    Agreed,
    /// It did not: the client can't go on as if nothing had happened.
    Changed,
}

impl Handshake {
    /// The client sent `initialize`.
    pub(super) fn begin(&mut self) {
        self.attempt = Some(false);
        self.owed = false;
    }

    /// The server has refused it. What the client said since then belongs to the previous handshake, if there was one.
    pub(super) fn refused(&mut self) {
        self.initialized |= self.attempt.take().unwrap_or(false);
    }

    /// The number of the last opening request.
    pub(super) fn openings(&self) -> u32 {
        self.openings
    }

    /// The number of the next opening request.
    pub(super) fn next_opening(&mut self) -> u32 {
        self.openings += 1;
        self.openings
    }

    /// The client said `notifications/initialized` to a server.
    pub(super) fn complete(&mut self) {
        match &mut self.attempt {
            Some(initialized) => *initialized = true,
            None => self.initialized = true,
        }
    }

    /// The server to which `notifications/initialized` was sent has not read it.
    pub(super) fn take_back_initialized(&mut self) {
        match &mut self.attempt {
            Some(initialized) => *initialized = false,
            None => self.initialized = false,
        }
    }

    /// Whether the proxy replays the whole handshake to the next server.
    pub(super) fn is_replayed_whole(&self) -> bool {
        self.is_recorded() && self.initialized && self.attempt.is_none()
    }

    /// Notes how long a handshake took; the first one is the measure for replays.
    pub(super) fn note_time(&mut self, took: Duration) {
        let millis = took.as_millis().try_into().unwrap_or(u32::MAX);
        let at_least_one = NonZeroU32::MIN.saturating_add(millis);
        self.first_took.get_or_insert(at_least_one);
    }

    /// How long a replay may take: `least`, or longer if the server is a slow one.
    pub(super) fn replay_time(&self, least: Duration) -> Duration {
        let first = self.first_took.map_or(0, NonZeroU32::get);
        least.max(Duration::from_millis(first.into()) * REPLAY_FACTOR)
    }

    /// The `initialize` that waits goes to another server than what the client has said after it, so far.
    pub(super) fn repeat(&mut self) {
        self.owed = self.attempt == Some(true);
    }

    /// Returns true, once, if the server that has just responded still has to get `notifications/initialized`, because
    /// the client sent that to an earlier server, which was lost before it responded.
    pub(super) fn take_owed(&mut self) -> bool {
        std::mem::take(&mut self.owed)
    }

    /// Records that the response to `initialize` was this `result`. `request` is `None` if it was too long to be kept.
    /// Returns whether the server has agreed.
    pub(super) fn record(&mut self, request: Option<Box<[u8]>>, result: &str) -> bool {
        if !result.starts_with('{') {
            self.refused();
            return false;
        }
        self.initialized = self.attempt.take().unwrap_or(false);
        let agreement = Some(result).filter(|result| result.len() <= MAX_RECORD_BYTES);
        self.state = match (request, agreement.and_then(Agreement::of)) {
            (Some(request), Some(agreement)) => {
                let (lists, version) = (Declared::of(result), version_of(result));
                let has_tasks = agreement.mentions_tasks();
                State::Recorded(Rc::new(Record {
                    request,
                    agreement,
                    lists,
                    version,
                    has_tasks,
                }))
            }
            _ => State::TooLarge,
        };
        true
    }

    /// Has the record in common with other sessions that have an equal one. Call it after what may change the record.
    pub(super) fn share_record(&mut self, records: &mut Records) {
        if let State::Recorded(record) = &mut self.state {
            records.handshakes.share(record);
        }
    }

    /// The lists of whose changes the client is notified.
    pub(super) fn declared_lists(&self) -> Declared {
        self.recorded()
            .map(|record| record.lists)
            .unwrap_or_default()
    }

    /// A server has agreed to a replay. Returns whether it names another version of itself than the one before it.
    pub(super) fn renew_version(&mut self, response: &Envelope<'_>) -> bool {
        let State::Recorded(record) = &mut self.state else {
            return false;
        };
        let version = response.result().and_then(version_of);
        let is_other = record.version != version;
        if is_other {
            Rc::make_mut(record).version = version;
        }
        is_other
    }

    /// Whether none took place.
    pub(super) fn is_none(&self) -> bool {
        matches!(self.state, State::None) && self.attempt.is_none()
    }

    /// Whether it can be replayed.
    pub(super) fn is_recorded(&self) -> bool {
        self.recorded().is_some()
    }

    fn recorded(&self) -> Option<&Record> {
        match &self.state {
            State::Recorded(record) => Some(record),
            State::None | State::TooLarge => None,
        }
    }

    /// Compares the response to a replay with that to the handshake, if it is recorded.
    pub(super) fn compare(&self, response: &Envelope<'_>) -> Option<Outcome> {
        Some(self.recorded()?.compare(response))
    }

    /// The same where another server is wanted: its capabilities may be others, and are recorded.
    pub(super) fn compare_with_new(&mut self, response: &Envelope<'_>) -> Option<Outcome> {
        self.recorded()?;
        let Some(proposal) = self.proposal(response) else {
            return Some(Outcome::Changed);
        };
        self.adopt(proposal);
        Some(Outcome::Agreed)
    }

    /// What a new server agrees to, if it speaks the same version of MCP as the one that has agreed to the handshake.
    pub(super) fn proposal(&self, response: &Envelope<'_>) -> Option<Proposal> {
        let record = self.recorded()?;
        let result = response.result()?;
        let agreement = Agreement::of(result)?;
        let is_same = agreement.protocol_version() == record.agreement.protocol_version();
        let version = version_of(result);
        is_same.then_some(Proposal { agreement, version })
    }

    /// From now on the agreement with the new server counts. Of which lists' changes the client is told stays as the client
    /// knows it.
    pub(super) fn adopt(&mut self, proposal: Proposal) {
        if let State::Recorded(record) = &mut self.state {
            let record = Rc::make_mut(record);
            record.has_tasks |= proposal.agreement.mentions_tasks();
            record.agreement = proposal.agreement;
            record.version = proposal.version;
        }
    }

    /// Whether the server may have tasks.
    #[inline]
    pub(super) fn has_tasks(&self) -> bool {
        matches!(&self.state, State::Recorded(record) if record.has_tasks)
    }

    /// Whether an `initialize` waits for its response, or to be sent.
    pub(super) fn is_under_way(&self) -> bool {
        self.attempt.is_some()
    }

    /// The next replay, if there is a record: its id, and the line.
    pub(super) fn next_replay(&mut self) -> Option<(RequestId, Vec<u8>)> {
        self.recorded()?;
        self.replays += 1;
        let id = format!("\"mcp-tcp-proxy-replay-{}\"", self.replays);
        let line = self.recorded()?.request_as(&id);
        Some((RequestId::new(&id), line))
    }

    /// Whether a handshake took place that can't be replayed.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self.state, State::TooLarge)
    }

    /// Whether a replay includes `notifications/initialized`.
    pub(super) fn is_complete(&self) -> bool {
        self.initialized
    }
}

impl Record {
    /// The recorded `initialize` with another id, which is given as JSON text.
    fn request_as(&self, id: &str) -> Vec<u8> {
        let range = match Message::read(&self.request) {
            Ok(Message::Single(envelope)) => envelope.id_range(),
            _ => None,
        };
        let Some(old) = range else {
            return self.request.to_vec();
        };
        [
            &self.request[..old.start],
            id.as_bytes(),
            &self.request[old.end..],
        ]
        .concat()
    }

    /// Compares the response to a replay with the first one.
    fn compare(&self, response: &Envelope<'_>) -> Outcome {
        let agreement = response.result().and_then(Agreement::of);
        if agreement.is_some_and(|agreement| agreement == self.agreement) {
            Outcome::Agreed
        } else {
            Outcome::Changed
        }
    }
}

/// The hash of `serverInfo.version` in the result of an `initialize`.
fn version_of(result: &str) -> Option<u64> {
    let [info] = json::find(result, ["serverInfo"])?;
    let info = result.get(info?)?;
    let [version] = json::find(info, ["version"])?;
    let mut hasher = DefaultHasher::new();
    canonical(info.get(version?)?).hash(&mut hasher);
    Some(hasher.finish())
}

impl Agreement {
    /// Reads the result of an `initialize`. `None` if it is not an object, or if there is more to compare than is ever
    /// recorded.
    pub(crate) fn of(result: &str) -> Option<Self> {
        let parts = json::find(result, ["protocolVersion", "capabilities"])?;
        let [version, capabilities] =
            parts.map(|range| range.and_then(|range| result.get(range)).unwrap_or("null"));
        if version.len() + capabilities.len() > MAX_RECORD_BYTES {
            return None;
        }
        let version = canonical(version);
        Some(Self {
            text: format!("{version} {}", canonical(capabilities)).into(),
            version_bytes: version.len(),
        })
    }
}

impl Agreement {
    fn protocol_version(&self) -> &str {
        &self.text[..self.version_bytes]
    }

    /// Whether the server may have tasks.
    fn mentions_tasks(&self) -> bool {
        self.text.contains(r#""tasks""#)
    }
}

/// The largest value that is compared as a document, in bytes; a document takes many times the memory of its text.
const MAX_DOCUMENT_BYTES: usize = 8 * 1024;

/// Equal values as equal texts, which cost less to keep: `serde_json` sorts keys. What it can't read, because it is
/// nested too deep or holds one of Python's constants, is equal only if it is written the same way, and so are long
/// values.
fn canonical(value: &str) -> Cow<'_, str> {
    if value.len() > MAX_DOCUMENT_BYTES {
        return value.into();
    }
    serde_json::from_str::<serde_json::Value>(value)
        .map_or(Cow::Borrowed(value), |value| value.to_string().into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const RESULT: &str = r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{},"logging":{}},"serverInfo":{"v":1}}"#;

    /// What is recorded of these.
    pub(in crate::session) fn recorded(request: &str, result: &str) -> Rc<Record> {
        match record(request, result).state {
            State::Recorded(record) => record,
            State::None | State::TooLarge => unreachable!("it is small"),
        }
    }

    fn record(request: &str, result: &str) -> Handshake {
        let mut handshake = Handshake::default();
        handshake.record(Some(request.as_bytes().into()), result);
        handshake
    }

    fn compare(response: &str) -> Outcome {
        let message = Message::read(response.as_bytes()).unwrap();
        let handshake = record(r#"{"id":1,"method":"initialize"}"#, RESULT);
        handshake
            .recorded()
            .unwrap()
            .compare(&message.envelopes()[0])
    }

    #[test]
    fn only_the_id_is_replaced() {
        for (request, replay) in [
            (
                r#"{"params":{"id":1} , "id":1,"method":"initialize"}"#,
                r#"{"params":{"id":1} , "id":"own","method":"initialize"}"#,
            ),
            (
                r#"{"method":"initialize","x":NaN,"id" : "a\"b" }"#,
                r#"{"method":"initialize","x":NaN,"id" : "own" }"#,
            ),
        ] {
            let handshake = record(request, RESULT);
            assert_eq!(
                handshake.recorded().unwrap().request_as("\"own\""),
                replay.as_bytes()
            );
        }
    }

    #[test]
    fn what_the_client_relies_on_is_compared_by_value() {
        let same = r#"{"id":9,"result":{"capabilities":{ "logging":{}, "tools":{} },"protocolVersion":"2025-06-18"}}"#;
        assert_eq!(compare(same), Outcome::Agreed);
        for other in [
            r#"{"id":9,"result":{"capabilities":{"tools":{}},"protocolVersion":"2025-06-18"}}"#,
            r#"{"id":9,"result":{"capabilities":{"tools":{},"logging":{}},"protocolVersion":"2024-11-05"}}"#,
            r#"{"id":9,"error":{"code":1,"message":"no"}}"#,
            r#"{"id":9,"result":7}"#,
        ] {
            assert_eq!(compare(other), Outcome::Changed, "{other}");
        }
    }

    #[test]
    fn what_a_lost_server_was_told_the_next_one_is_told_too() {
        let mut handshake = Handshake::default();
        handshake.begin();
        handshake.repeat();
        assert!(!handshake.take_owed());
        handshake.complete();
        handshake.repeat();
        assert!(handshake.take_owed() && !handshake.take_owed());
        handshake.record(Some("{}".as_bytes().into()), "{}");
        assert!(handshake.is_complete());
    }

    #[test]
    fn a_handshake_counts_until_the_next_one_was_agreed_to() {
        let mut handshake = record(r#"{"id":1}"#, RESULT);
        handshake.complete();
        for refuse in [Handshake::refused, |handshake: &mut Handshake| {
            handshake.record(Some("{}".as_bytes().into()), "7");
        }] {
            handshake.begin();
            assert!(handshake.is_complete());
            refuse(&mut handshake);
            assert!(handshake.is_complete() && handshake.is_recorded());
        }
        handshake.begin();
        handshake.record(Some("{}".as_bytes().into()), RESULT);
        assert!(!handshake.is_complete(), "the client has not said so");
        handshake.complete();
        assert!(handshake.is_complete());
    }

    #[test]
    fn only_what_is_compared_is_limited() {
        let response = |rest: &str, capabilities: &str| {
            format!(
                r#"{{"id":9,"result":{{"protocolVersion":"2025-06-18","x":"{rest}","capabilities":{capabilities}}}}}"#
            )
        };
        let long = "x".repeat(MAX_RECORD_BYTES);
        let agreed = r#"{"logging":{},"tools":{}}"#;
        assert_eq!(compare(&response(&long, agreed)), Outcome::Agreed);
        let blanks = " ".repeat(MAX_RECORD_BYTES);
        let spread = format!(r#"{{"logging":{{}},"tools":{{}}{blanks}}}"#);
        assert_eq!(compare(&response("", &spread)), Outcome::Changed);
    }

    #[test]
    fn long_values_agree_if_they_are_written_alike() {
        let result = |blank: &str| {
            let long = "x".repeat(MAX_DOCUMENT_BYTES);
            format!(r#"{{"capabilities":{{"a":"{long}",{blank}"b":1}}}}"#)
        };
        assert_eq!(Agreement::of(&result("")), Agreement::of(&result("")));
        assert_ne!(Agreement::of(&result("")), Agreement::of(&result(" ")));
    }

    #[test]
    fn a_response_too_large_to_keep_is_told() {
        let large = format!(
            r#"{{"capabilities":{{"x":"{}"}}}}"#,
            "x".repeat(MAX_RECORD_BYTES)
        );
        assert!(record("{}", &large).is_too_large());
        let none = record("{}", "[]");
        assert!(!none.is_too_large() && !none.is_recorded());
        let mut without_request = Handshake::default();
        without_request.record(None, RESULT);
        assert!(without_request.is_too_large());
    }
}
