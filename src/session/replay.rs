//! The handshake of a legacy session, and how it is replayed to a server that took the place of another.
//!
//! A legacy server refuses everything before `initialize`. A client that does not know about restarts does not send
//! it again, so the proxy does, in the client's words but under an id of its own.

use std::borrow::Cow;

use crate::protocol::envelope::{Envelope, Message};
use crate::protocol::json;

/// The largest `initialize` that is recorded, and the largest answer to one that is compared, in bytes.
pub const MAX_RECORD_BYTES: usize = 64 * 1024;

/// What is known of the session's handshake.
#[derive(Debug, Default)]
pub struct Handshake {
    state: State,
    /// Whether the client has said `notifications/initialized` since its last `initialize`. Some say it before they
    /// have the answer.
    initialized: bool,
    /// Whether it said so to a server that was lost before it answered, and the next one must be told.
    owed: bool,
}

#[derive(Debug, Default)]
enum State {
    /// None took place: the session is modern, or has not begun.
    #[default]
    None,
    /// It can be replayed.
    Recorded(Box<Record>),
    /// It took place, but is too large to be recorded.
    TooLarge,
}

/// A handshake as it took place.
#[derive(Debug)]
pub struct Record {
    request: Box<[u8]>,
    agreement: Agreement,
}

/// What client and server agreed on, and what the client therefore relies on: the protocol version and the
/// capabilities, as one text.
#[derive(Debug, PartialEq, Eq)]
struct Agreement(Box<str>);

/// How a server took the replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As the one before it took the handshake.
    Agreed,
    /// Otherwise: the client can't go on as if nothing had happened.
    Changed,
}

impl Handshake {
    /// The client sent `initialize`.
    pub fn begin(&mut self) {
        self.initialized = false;
        self.owed = false;
    }

    /// The client said `notifications/initialized` to a server.
    pub fn complete(&mut self) {
        self.initialized = true;
    }

    /// The `initialize` in flight is going to be sent again.
    pub fn repeat(&mut self) {
        self.owed = self.initialized;
    }

    /// Whether the server that has just answered is to be told `notifications/initialized`, as another was that did
    /// not live to answer.
    pub fn take_owed(&mut self) -> bool {
        std::mem::take(&mut self.owed)
    }

    /// Notes that an `initialize` was answered with this `result`. `request` is `None` if it was too long to be kept.
    pub fn record(&mut self, request: Option<Box<[u8]>>, result: &str) {
        let agreement = Some(result).filter(|result| result.len() <= MAX_RECORD_BYTES);
        self.state = match (request, agreement.and_then(Agreement::of)) {
            _ if !result.starts_with('{') => State::None,
            (Some(request), Some(agreement)) => {
                State::Recorded(Box::new(Record { request, agreement }))
            }
            _ => State::TooLarge,
        };
    }

    /// The record, if there is one.
    pub fn recorded(&self) -> Option<&Record> {
        match &self.state {
            State::Recorded(record) => Some(record),
            State::None | State::TooLarge => None,
        }
    }

    /// Whether a handshake took place that can't be replayed.
    pub fn is_too_large(&self) -> bool {
        matches!(self.state, State::TooLarge)
    }

    /// Whether a replay includes `notifications/initialized`.
    pub fn is_complete(&self) -> bool {
        self.initialized
    }
}

impl Record {
    /// The recorded `initialize` under another id, given as JSON text.
    pub fn request_as(&self, id: &str) -> Vec<u8> {
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

    /// Compares the answer to a replay with the first one.
    pub fn compare(&self, answer: &Envelope<'_>) -> Outcome {
        let agreement = answer.result().and_then(Agreement::of);
        if agreement.is_some_and(|agreement| agreement == self.agreement) {
            Outcome::Agreed
        } else {
            Outcome::Changed
        }
    }
}

impl Agreement {
    /// Reads the result of an `initialize`. `None` if it is not an object, or if there is more to compare than is ever
    /// recorded.
    fn of(result: &str) -> Option<Self> {
        let parts = json::find(result, ["protocolVersion", "capabilities"])?;
        let [version, capabilities] =
            parts.map(|range| range.and_then(|range| result.get(range)).unwrap_or("null"));
        if version.len() + capabilities.len() > MAX_RECORD_BYTES {
            return None;
        }
        Some(Self(
            format!("{} {}", canonical(version), canonical(capabilities)).into(),
        ))
    }
}

/// The largest value that is compared as a document, in bytes; a document takes many times the memory of its text.
const MAX_DOCUMENT_BYTES: usize = 8 * 1024;

/// Equal values as equal texts, which cost less to keep: `serde_json` sorts keys. What it can't read, as it is nested
/// too deep or holds one of Python's constants, is only equal if it is written in the same way, and so is what is long.
fn canonical(value: &str) -> Cow<'_, str> {
    if value.len() > MAX_DOCUMENT_BYTES {
        return value.into();
    }
    serde_json::from_str::<serde_json::Value>(value)
        .map_or(Cow::Borrowed(value), |value| value.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{},"logging":{}},"serverInfo":{"v":1}}"#;

    fn record(request: &str, result: &str) -> Handshake {
        let mut handshake = Handshake::default();
        handshake.record(Some(request.as_bytes().into()), result);
        handshake
    }

    fn compare(answer: &str) -> Outcome {
        let message = Message::read(answer.as_bytes()).unwrap();
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
    fn what_a_lost_server_was_told_the_next_one_is_told_too() {
        let mut handshake = Handshake::default();
        handshake.begin();
        handshake.repeat();
        assert!(!handshake.take_owed());
        handshake.complete();
        handshake.repeat();
        assert!(handshake.take_owed() && !handshake.take_owed() && handshake.is_complete());
        handshake.begin();
        assert!(!handshake.is_complete());
    }

    #[test]
    fn an_answer_too_large_to_keep_is_told() {
        let large = format!(
            r#"{{"capabilities":{{"x":"{}"}}}}"#,
            "x".repeat(MAX_RECORD_BYTES)
        );
        assert!(record("{}", &large).is_too_large());
        let none = record("{}", "[]");
        assert!(!none.is_too_large() && none.recorded().is_none());
        let mut without_request = Handshake::default();
        without_request.record(None, RESULT);
        assert!(without_request.is_too_large());
    }
}
