//! What a client of a shared server says: read strictly, with where everything is that must not reach the server as it is.

use std::ops::Range;
use std::sync::Arc;

use crate::protocol::envelope::{Envelope, Message};
use crate::protocol::id::IdText;
use crate::protocol::own_messages::ErrorReason;
use crate::protocol::strict::{self, Doubled, Member};

/// The longest progress token, in bytes as written: each request in flight keeps its own.
const MAX_TOKEN_BYTES: usize = 1024;

/// The members of `_meta` that matter here.
const META: [&str; 3] = [
    "progressToken",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/logLevel",
];

/// What a line is.
#[derive(Debug)]
pub(super) enum ClientLine<'a> {
    /// Something to be done by the server.
    Request(Request<'a>),
    /// A request is taken back: this one, which is named there.
    Cancelled(IdText<'a>, Range<usize>),
    /// A legacy client has taken note of what the server is.
    Initialized,
    /// Nothing that a server with other clients is told.
    Dropped(Dropped),
    /// It is answered with an error.
    Refused(Refused<'a>),
}

/// A line that reaches nobody, and gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// A response: no server that is shared asks anything.
    Response,
    /// A notification, of which no server with other clients can tell whose it is.
    Notification,
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) id: IdText<'a>,
    pub(super) id_at: Range<usize>,
    pub(super) what: What,
    /// The token under which the client wants to be told of progress.
    pub(super) token: Option<Range<usize>>,
    pub(super) log_level: Option<Member>,
    /// The version that it says it speaks.
    version: Option<Range<usize>>,
    /// What it listens to.
    notifications: Option<Range<usize>>,
    /// What it says that only means something in a session of a legacy client.
    pub(super) legacy: Legacy,
}

/// What matters of a request of a legacy client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Legacy {
    #[default]
    Other,
    /// `initialize`, with the version that the client asks for, if it does.
    Initialize(Option<String>),
    SetLogLevel,
    Subscribe(Arc<str>),
    Unsubscribe(Arc<str>),
    /// It is about a task, which belongs to one client, or asks for one.
    Task,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Initialize,
    Discover,
    Listen,
    Other,
}

/// Why a line is answered with an error, and which requests are.
#[derive(Debug)]
pub(super) struct Refused<'a> {
    /// None: the error has no id.
    pub(super) ids: Vec<IdText<'a>>,
    pub(super) reason: ErrorReason,
    pub(super) text: &'static str,
}

impl Request<'_> {
    /// Whether it says what each request of a modern client says.
    pub(super) fn is_modern(&self) -> bool {
        self.version.is_some()
    }

    /// Whether it opens a subscription, as modern clients do.
    pub(super) fn is_listen(&self) -> bool {
        self.what == What::Listen && self.is_modern()
    }

    /// The version that it says it speaks, as written.
    pub(super) fn version(&self, line: &[u8]) -> Box<[u8]> {
        let version = self.version.clone().unwrap_or_default();
        line.get(version).unwrap_or_default().into()
    }

    /// What two requests to listen have in common that may share one at the server.
    pub(super) fn listens_to(&self, line: &[u8]) -> Vec<u8> {
        let text = |range: &Option<Range<usize>>| {
            let range = range.clone().unwrap_or_default();
            line.get(range).unwrap_or_default().to_vec()
        };
        [text(&self.version), text(&self.notifications)].join(&b'\n')
    }
}

/// Reads a line, which is a message.
pub(super) fn read<'a>(line: &'a [u8], message: &Message<'a>) -> ClientLine<'a> {
    let requests = || {
        let envelopes = message.envelopes().iter();
        envelopes.filter_map(Envelope::request_id).collect()
    };
    let refused = |reason, text| {
        ClientLine::Refused(Refused {
            ids: requests(),
            reason,
            text,
        })
    };
    let invalid = |text| refused(ErrorReason::InvalidRequest, text);
    if let Err(loose) = strict::check(line) {
        return refused(ErrorReason::ParseError, loose.text());
    }
    let Message::Single(envelope) = message else {
        return invalid("batches are not served by a shared server");
    };
    match read_object(line, envelope) {
        Ok(read) => read,
        Err(text) => invalid(text),
    }
}

const DOUBLED: &str = "two members have the same name";

impl From<Doubled> for &str {
    fn from(Doubled: Doubled) -> Self {
        DOUBLED
    }
}

fn read_object<'a>(
    line: &'a [u8],
    envelope: &Envelope<'a>,
) -> Result<ClientLine<'a>, &'static str> {
    let top = ["id", "method", "params", "result", "error"];
    let [id, method, params, _, _] = strict::members(line, 0..line.len(), top)?;
    let method = method.filter(|method| line[method.value.clone()] != *b"null");
    let Some(method) = method else {
        return Ok(ClientLine::Dropped(Dropped::Response));
    };
    let Ok(name) = serde_json::from_slice::<String>(&line[method.value]) else {
        return Err("the method is not a string");
    };
    let params = params.map(|params| params.value);
    let Some(id) = id else {
        return notification(line, &name, params);
    };
    let Some(id_text) = envelope.id else {
        return Err("the id of a request is null");
    };
    if name.starts_with("notifications/") {
        return Err("a notification has an id");
    }
    let params = object(line, params)?;
    let names = ["_meta", "notifications"];
    let [meta, notifications] = strict::members(line, params.clone(), names)?;
    let meta = object(line, meta.map(|meta| meta.value))?;
    let [token, version, log_level] = strict::members(line, meta, META)?;
    let token = token.map(|token| token.value);
    if token.clone().is_some_and(|token| !is_token(&line[token])) {
        return Err(
            "the progress token is neither a string nor an integer, or is longer than 1024 bytes",
        );
    }
    let legacy = if version.is_none() {
        Legacy::of(line, &name, params)?
    } else {
        Legacy::default()
    };
    Ok(ClientLine::Request(Request {
        id: id_text,
        id_at: id.value,
        what: What::of(&name),
        token,
        log_level,
        version: version.map(|version| version.value),
        notifications: notifications.map(|notifications| notifications.value),
        legacy,
    }))
}

impl Legacy {
    fn of(line: &[u8], method: &str, params: Range<usize>) -> Result<Self, &'static str> {
        let text = |name| {
            let [member] = strict::members(line, params.clone(), [name])?;
            let value = member.map(|member| &line[member.value]);
            Ok::<_, Doubled>(value.and_then(|text| serde_json::from_slice::<String>(text).ok()))
        };
        // What a server says of anything that is no text, it may say itself.
        let about = |uri: Option<String>, what: fn(Arc<str>) -> Self| {
            uri.map_or(Self::Other, |uri| what(uri.into()))
        };
        Ok(match method {
            "initialize" => Self::Initialize(text("protocolVersion")?),
            "logging/setLevel" => Self::SetLogLevel,
            "resources/subscribe" => about(text("uri")?, Self::Subscribe),
            "resources/unsubscribe" => about(text("uri")?, Self::Unsubscribe),
            _ if method.starts_with("tasks/") => Self::Task,
            _ => match strict::members(line, params, ["task"])? {
                [Some(_)] => Self::Task,
                [None] => Self::Other,
            },
        })
    }
}

fn notification<'a>(
    line: &'a [u8],
    name: &str,
    params: Option<Range<usize>>,
) -> Result<ClientLine<'a>, &'static str> {
    let dropped = Ok(ClientLine::Dropped(Dropped::Notification));
    if name == "notifications/initialized" {
        return Ok(ClientLine::Initialized);
    }
    if name != "notifications/cancelled" {
        return dropped;
    }
    let Ok(params) = object(line, params) else {
        return dropped;
    };
    // Nobody waits for an answer.
    let Ok([Some(id)]) = strict::members(line, params, ["requestId"]) else {
        return dropped;
    };
    let text = &line[id.value.clone()];
    if text == b"null" {
        return dropped;
    }
    Ok(ClientLine::Cancelled(IdText::new(text), id.value))
}

/// Where an object is; nowhere, if there is nothing.
fn object(line: &[u8], value: Option<Range<usize>>) -> Result<Range<usize>, &'static str> {
    match value {
        None => Ok(0..0),
        Some(value) if line.get(value.start) == Some(&b'{') => Ok(value),
        Some(_) => Err("params or _meta is not an object"),
    }
}

fn is_token(text: &[u8]) -> bool {
    let is_string = text.first() == Some(&b'"');
    let is_integer = || {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    };
    text.len() <= MAX_TOKEN_BYTES && (is_string || is_integer())
}

impl What {
    fn of(method: &str) -> Self {
        match method {
            "initialize" => Self::Initialize,
            "server/discover" => Self::Discover,
            "subscriptions/listen" => Self::Listen,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(line: &str, check: impl FnOnce(ClientLine<'_>) -> T) -> T {
        let message = Message::read(line.as_bytes()).unwrap();
        check(read(line.as_bytes(), &message))
    }

    fn refusal(line: &str) -> (ErrorReason, Vec<String>) {
        with(line, |read| match read {
            ClientLine::Refused(refused) => (
                refused.reason,
                refused.ids.iter().map(ToString::to_string).collect(),
            ),
            other => panic!("{line}: {other:?}"),
        })
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for line in [
            r#"{"id":1,"id":2,"method":"a"}"#,
            r#"{"Id":1,"id":2,"method":"a"}"#,
            r#"{"id":2,"method":"a","method":"b"}"#,
            r#"{"id":2,"method":"a","params":{},"params":{}}"#,
            r#"{"id":2,"method":"a","params":{"_meta":{},"_meta":{}}}"#,
            r#"{"id":2,"method":"a","params":{"_meta":{"progressToken":1,"progresſToken":2}}}"#,
            r#"{"id":2,"method":"a","params":{"_meta":{"io.modelcontextprotocol/logLevel":1,"io.modelcontextprotocol/\u006cogLevel":2}}}"#,
            r#"{"id":2,"method":"a","params":[]}"#,
            r#"{"id":2,"method":"a","params":{"_meta":7}}"#,
            r#"{"id":2,"method":"a","params":null}"#,
            r#"{"id":2,"method":7}"#,
            r#"{"id":2,"method":"notifications/cancelled","params":{"requestId":1}}"#,
            r#"{"id":2,"method":"a","params":{"_meta":{"progressToken":1.5}}}"#,
            r#"{"id":2,"method":"a","params":{"_meta":{"progressToken":null}}}"#,
        ] {
            let expected = (ErrorReason::InvalidRequest, vec!["2".to_owned()]);
            assert_eq!(refusal(line), expected, "{line}");
        }
        let null = refusal(r#"{"id":null,"method":"a"}"#);
        assert_eq!(null, (ErrorReason::InvalidRequest, vec![]));
        let batch = refusal(r#"[{"id":1,"method":"a"},{"id":3},{"id":"b","method":"a"}]"#);
        let ids = vec!["1".to_owned(), r#""b""#.to_owned()];
        assert_eq!(batch, (ErrorReason::InvalidRequest, ids));
        let loose = refusal(r#"{"id":1,"method":"a","params":{"x":NaN}}"#);
        assert_eq!(loose, (ErrorReason::ParseError, vec!["1".to_owned()]));
    }

    #[test]
    fn long_tokens_are_refused() {
        let line = |len: usize| {
            let token = "x".repeat(len - 2);
            format!(r#"{{"id":1,"method":"a","params":{{"_meta":{{"progressToken":"{token}"}}}}}}"#)
        };
        with(&line(1024), |read| {
            assert!(matches!(read, ClientLine::Request(_)));
        });
        assert_eq!(refusal(&line(1025)).0, ErrorReason::InvalidRequest);
    }

    #[test]
    fn what_no_shared_server_is_told() {
        for (line, what) in [
            (r#"{"id":1,"result":{}}"#, Dropped::Response),
            (r#"{"id":1}"#, Dropped::Response),
            (
                r#"{"method":"notifications/progress"}"#,
                Dropped::Notification,
            ),
            (
                r#"{"method":"notifications/cancelled"}"#,
                Dropped::Notification,
            ),
            (
                r#"{"method":"notifications/cancelled","params":{"requestId":1,"RequestId":2}}"#,
                Dropped::Notification,
            ),
        ] {
            with(line, |read| match read {
                ClientLine::Dropped(dropped) => assert_eq!(dropped, what, "{line}"),
                other => panic!("{line}: {other:?}"),
            });
        }
    }

    #[test]
    fn requests_and_cancellations() {
        let line = r#"{"params":{"notifications":{"a":1},"_meta":{"io.modelcontextprotocol/protocolVersion":"v","progressToken":-3}},"id":"é","method":"subscriptions\/listen"}"#;
        with(line, |read| match read {
            ClientLine::Request(request) => {
                assert_eq!(request.what, What::Listen);
                assert_eq!(&line[request.id_at.clone()], r#""é""#);
                assert_eq!(&line[request.token.clone().unwrap()], "-3");
                assert!(request.is_modern());
                assert_eq!(request.listens_to(line.as_bytes()), b"\"v\"\n{\"a\":1}");
            }
            other => panic!("{other:?}"),
        });
        let line =
            r#"{"method":"notifications/cancelled","params":{"requestId":"x","reason":"y"}}"#;
        with(line, |read| match read {
            ClientLine::Cancelled(id, at) => {
                assert_eq!((id.to_string().as_str(), &line[at]), ("\"x\"", "\"x\""));
            }
            other => panic!("{other:?}"),
        });
    }
}
