//! The handshake of a legacy session, and how it is replayed to an upstream that took the place of another.
//!
//! A legacy server refuses everything before `initialize`. A client that does not know about restarts does not send it
//! again, so the proxy does, in the client's words but under an id of its own. Until the server has responded, lines
//! for it are held; then they are released.

use std::borrow::Cow;
use std::time::Duration;

use super::list_changes::Declared;
use super::report::{EndReason, Exit};
use super::stderr::excerpt;
use super::upstream::{ToUpstream, Upstream};
use super::{Context, Session};
use crate::buffers::outbox::Outbox;
use crate::protocol::envelope::{Envelope, Message};
use crate::protocol::id::RequestId;
use crate::protocol::json;
use crate::util::about::about;
use crate::util::time::Time;

/// The largest result of an `initialize` that is kept for comparison, in bytes. Those of real servers have a few
/// hundred bytes, some with long instructions a few thousand. The request has a limit of its own, which is the same.
pub(super) const MAX_RECORD_BYTES: usize = 64 * 1024;

/// A replay may take this many times as long as the first handshake took: the machine may be busier than it was then, not
/// least with the restarts of other servers.
const REPLAY_FACTOR: u32 = 3;

/// Ends a handshake, in the words of the specification.
const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// What is known of the session's handshake.
#[derive(Debug, Default)]
pub(super) struct Handshake {
    state: State,
    /// Whether the client has said `notifications/initialized` after the handshake that took place.
    initialized: bool,
    /// The same for an `initialize` without a response. Some say it before they have that. Until the server has agreed,
    /// the handshake before counts: a server may refuse a second one.
    attempt: Option<bool>,
    /// Whether it said so to a server that was lost before it responded, and the next one must be told.
    owed: bool,
    /// How long the first one took, from the start of its server to the response.
    first_took: Option<Duration>,
    /// How many times it was replayed: each replay has an id of its own.
    replays: u32,
    /// How many requests there were with which a session opens.
    openings: u32,
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
struct Record {
    request: Box<[u8]>,
    agreement: Agreement,
    lists: Declared,
}

/// What client and server agreed on, and what the client therefore relies on: the protocol version and the
/// capabilities, as one text.
#[derive(Debug, PartialEq, Eq)]
struct Agreement(Box<str>);

/// What a server made of the replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It responded as the one before it did to the handshake.
    Agreed,
    /// It did not: the client can't go on as if nothing had happened.
    Changed,
}

/// Whether an upstream knows the client.
#[derive(Debug)]
pub(super) enum Greeting {
    /// The client's next line decides whether the handshake is replayed, or its time comes first.
    Due,
    /// The handshake was sent by the proxy.
    Replaying(Box<Replay>),
    /// Lines pass.
    Done,
    /// The other side takes no new requests any more: they wait for the next upstream.
    Refusing,
}

/// A handshake that waits for its response.
#[derive(Debug)]
pub(super) struct Replay {
    id: RequestId,
    /// It runs from when the first byte is written.
    deadline: Option<Time>,
}

impl Greeting {
    /// How a new upstream begins.
    pub(super) fn first(handshake: &Handshake, replays: bool) -> Self {
        if replays && handshake.recorded().is_some() {
            Self::Due
        } else {
            Self::Done
        }
    }

    /// When the response to a replay is overdue.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Self::Replaying(replay) => replay.deadline,
            Self::Due | Self::Done | Self::Refusing => None,
        }
    }

    /// The first byte of the replay was written.
    pub(super) fn replay_started(&mut self, deadline: Time) {
        if let Self::Replaying(replay) = self {
            replay.deadline = Some(deadline);
        }
    }

    /// The id of a replay that waits for its response.
    pub(super) fn replay_id(&self) -> Option<&RequestId> {
        match self {
            Self::Replaying(replay) => Some(&replay.id),
            Self::Due | Self::Done | Self::Refusing => None,
        }
    }

    /// The same, when nothing else is left of the greeting.
    pub(super) fn into_replay_id(self) -> Option<RequestId> {
        match self {
            Self::Replaying(replay) => Some(replay.id),
            Self::Due | Self::Done | Self::Refusing => None,
        }
    }
}

impl Session {
    /// Where a line of this meaning waits: responses to the present server pass those that wait for the handshake.
    pub(super) fn outbox_for(&mut self, tag: Option<&ToUpstream>) -> &mut Outbox<ToUpstream> {
        let passes = match (&self.upstream, tag) {
            (Upstream::Up(_), Some(ToUpstream::Response)) => true,
            (Upstream::Up(up), tag) => match up.greeting {
                Greeting::Done => true,
                Greeting::Refusing => {
                    matches!(tag, Some(ToUpstream::Cancelled(id)) if self.in_flight.contains(id))
                }
                Greeting::Due | Greeting::Replaying(_) => false,
            },
            _ => false,
        };
        if passes {
            &mut self.to_upstream
        } else {
            self.held.get_or_insert_default()
        }
    }

    /// Releases the held lines to an upstream that knows the client, and greets one that does not.
    pub(super) fn release_held(&mut self, cx: &mut Context<'_>) {
        let Some(held) = self.held.as_ref().filter(|held| !held.is_empty()) else {
            return;
        };
        let Upstream::Up(up) = &self.upstream else {
            return;
        };
        if matches!(up.greeting, Greeting::Due) {
            let greets_itself = matches!(
                held.first_tag(),
                Some(ToUpstream::Request(request)) if request.is_initialize()
            );
            if greets_itself || !self.start_replay(cx) {
                self.greet_done();
            }
        }
        let Upstream::Up(up) = &self.upstream else {
            return;
        };
        if matches!(up.greeting, Greeting::Done) {
            let held = self.take_held();
            if let Some(left) = self.to_upstream.append(held, cx.memory) {
                self.refuse_all_in(&left, cx);
            }
        }
    }

    fn greet_done(&mut self) {
        if let Upstream::Up(up) = &mut self.upstream {
            up.greeting = Greeting::Done;
        }
    }

    /// Sends the recorded handshake. Returns whether there is one.
    pub(super) fn start_replay(&mut self, cx: &mut Context<'_>) -> bool {
        let Upstream::Up(up) = &mut self.upstream else {
            return false;
        };
        let Some((id, line)) = self.handshake.next_replay() else {
            return false;
        };
        up.greeting = Greeting::Replaying(Box::new(Replay { id, deadline: None }));
        about!(debug, self.label, "proxy → server: {}", excerpt(&line));
        self.to_upstream
            .push(&line, Some(ToUpstream::Replay), cx.memory);
        true
    }

    /// The id of the replay that waits for its response, if one does. It may be among an upstream's last words.
    pub(super) fn replay_id(&self) -> Option<&RequestId> {
        match &self.upstream {
            Upstream::Up(up) => up.greeting.replay_id(),
            Upstream::Leaving(leaving) => leaving.replay.as_ref(),
            _ => None,
        }
    }

    /// The response to the replayed handshake arrived.
    pub(super) fn on_replay_response(&mut self, response: &Envelope<'_>, cx: &mut Context<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        let Some(record) = self.handshake.recorded() else {
            return;
        };
        match record.compare(response) {
            Outcome::Agreed => {
                about!(info, self.label, "the handshake was replayed");
                up.greeting = Greeting::Done;
                up.has_responded = true;
                self.backend.server_heard();
                if self.handshake.is_complete() {
                    self.send_initialized(cx);
                    self.restore_standing(cx);
                }
                self.tell_list_changes(cx);
                self.release_held(cx);
            }
            Outcome::Changed if self.backend.may_find_server_later(response) => {
                self.link_ended(Exit::Refused, cx);
            }
            Outcome::Changed => self.end_now(&EndReason::ServerChanged, cx),
        }
    }

    /// The server has not responded to the replay in time. That is a failed start, as by a crash.
    pub(super) fn replay_overdue(&mut self, cx: &mut Context<'_>) {
        let time = self.handshake.replay_time(cx.settings.replay_timeout);
        about!(warn, self.label, "{}", EndReason::ReplayTimeout(time));
        if self.backend.is_link() {
            return self.link_ended(Exit::NoReplay(time), cx);
        }
        self.stop_upstream(cx);
        if let Upstream::Leaving(leaving) = &mut self.upstream {
            leaving.replay_overdue = Some(time);
        }
    }

    /// Ends a handshake in the client's place.
    pub(super) fn send_initialized(&mut self, cx: &mut Context<'_>) {
        about!(
            debug,
            self.label,
            "proxy → server: {}",
            excerpt(INITIALIZED)
        );
        self.to_upstream.push(
            INITIALIZED,
            Some(ToUpstream::ReplayedInitialized),
            cx.memory,
        );
    }
}

impl Handshake {
    /// The client sent `initialize`.
    pub(super) fn begin(&mut self) {
        self.attempt = Some(false);
        self.owed = false;
    }

    /// The server has refused it. What the client said after it belongs to the handshake before, if there was one.
    pub(super) fn refused(&mut self) {
        self.initialized |= self.attempt.take().unwrap_or(false);
    }

    /// The number of the next request with which a session opens.
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

    /// `notifications/initialized` was not read by the server to which it was sent.
    pub(super) fn take_back_initialized(&mut self) {
        match &mut self.attempt {
            Some(initialized) => *initialized = false,
            None => self.initialized = false,
        }
    }

    /// Whether the next server is told all of the handshake by the proxy.
    pub(super) fn is_replayed_whole(&self) -> bool {
        self.recorded().is_some() && self.initialized && self.attempt.is_none()
    }

    /// Notes how long a handshake took; the first one is the measure for replays.
    pub(super) fn note_time(&mut self, took: Duration) {
        self.first_took.get_or_insert(took);
    }

    /// How long a replay may take: `least`, or longer if the server is one that takes its time.
    pub(super) fn replay_time(&self, least: Duration) -> Duration {
        let first = self.first_took.unwrap_or_default();
        least.max(first.saturating_mul(REPLAY_FACTOR))
    }

    /// The `initialize` in flight is about to be sent again.
    pub(super) fn repeat(&mut self) {
        self.owed = self.attempt == Some(true);
    }

    /// If the server that has just responded must be told `notifications/initialized`, as one before it was that did
    /// not live to respond, returns true once.
    pub(super) fn take_owed(&mut self) -> bool {
        std::mem::take(&mut self.owed)
    }

    /// Records that the response to `initialize` was this `result`. `request` is `None` if it was too long to be kept.
    pub(super) fn record(&mut self, request: Option<Box<[u8]>>, result: &str) {
        if !result.starts_with('{') {
            return self.refused();
        }
        self.initialized = self.attempt.take().unwrap_or(false);
        let agreement = Some(result).filter(|result| result.len() <= MAX_RECORD_BYTES);
        self.state = match (request, agreement.and_then(Agreement::of)) {
            (Some(request), Some(agreement)) => {
                let lists = Declared::of(result);
                State::Recorded(Box::new(Record {
                    request,
                    agreement,
                    lists,
                }))
            }
            _ => State::TooLarge,
        };
    }

    /// The lists that the client is told the changes of.
    pub(super) fn declared_lists(&self) -> Declared {
        self.recorded()
            .map(|record| record.lists)
            .unwrap_or_default()
    }

    fn recorded(&self) -> Option<&Record> {
        match &self.state {
            State::Recorded(record) => Some(record),
            State::None | State::TooLarge => None,
        }
    }

    /// The next replay, if there is a record: an id of its own, and the line.
    fn next_replay(&mut self) -> Option<(RequestId, Vec<u8>)> {
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
    /// The recorded `initialize` under another id, given as JSON text.
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

/// Equal values as equal texts, which cost less to keep: `serde_json` sorts keys. What it can't read, because it is nested
/// too deep or holds one of Python's constants, is equal only if written in the same way, and so is what is long.
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
            assert!(handshake.is_complete() && handshake.recorded().is_some());
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
        assert!(!none.is_too_large() && none.recorded().is_none());
        let mut without_request = Handshake::default();
        without_request.record(None, RESULT);
        assert!(without_request.is_too_large());
    }
}
