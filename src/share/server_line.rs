//! What a shared server says, and by which number it says whose that is.
//!
//! Values are passed on as they are, even those that strict readers refuse: they concern the one who gets them. What decides
//! who gets them is read so that it can't be read otherwise.

use std::ops::Range;

use crate::protocol::envelope::Message;
use crate::protocol::own_messages::SUBSCRIPTION_ID;
use crate::protocol::strict::{self, Doubled};

/// What a line is. Numbers are those that the proxy has put in the place of ids and tokens.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerLine<'a> {
    /// The response to the request of this number, which is there in the line.
    Response(u64, Range<usize>),
    /// Progress of the request of this number, which is there.
    Progress(u64, Range<usize>),
    /// The request of this number is given up by the server.
    Cancelled(u64, Range<usize>),
    /// A notification of the subscription of this number.
    Subscribed {
        number: u64,
        at: Range<usize>,
        is_acknowledgment: bool,
    },
    /// A list of what the server has has changed: for all.
    ListChanged,
    /// This resource has changed.
    Updated(String),
    /// The server asks something.
    Request { id: &'a [u8], is_ping: bool },
    /// Nobody can tell whose it is.
    Unattributed(Unattributed),
}

/// A line of a server of which nobody can tell for whom it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unattributed {
    /// A response without a number.
    Response,
    /// A notification without one.
    Notification,
    /// A message for the log, which would show one client's call to another.
    Log,
    /// Two members of it have the same name.
    Doubled,
    /// An array.
    Batch,
    /// It is too long.
    TooLong,
}

impl From<Doubled> for Unattributed {
    fn from(Doubled: Doubled) -> Self {
        Self::Doubled
    }
}

/// Reads a line, which is a message.
pub(super) fn read<'a>(line: &'a [u8], message: &Message<'_>) -> ServerLine<'a> {
    read_of(line, message, notification)
}

/// The same for a process of legacy clients.
pub(super) fn read_legacy<'a>(line: &'a [u8], message: &Message<'_>) -> ServerLine<'a> {
    read_of(line, message, legacy_notification)
}

/// What reads a notification of this name with these parameters.
type Notifications<'a> = fn(&'a [u8], &str, Range<usize>) -> Result<ServerLine<'a>, Unattributed>;

fn read_of<'a>(line: &'a [u8], message: &Message<'_>, of: Notifications<'a>) -> ServerLine<'a> {
    match message {
        Message::Batch(_) => ServerLine::Unattributed(Unattributed::Batch),
        Message::Single(_) => read_object(line, of).unwrap_or_else(ServerLine::Unattributed),
    }
}

fn read_object<'a>(line: &'a [u8], of: Notifications<'a>) -> Result<ServerLine<'a>, Unattributed> {
    let top = ["id", "method", "params", "result", "error"];
    let [id, method, params, ..] = strict::members(line, 0..line.len(), top)?;
    let is_there = |range: &Range<usize>| line[range.clone()] != *b"null";
    let id = id.map(|id| id.value).filter(is_there);
    let method = method.map(|method| method.value).filter(is_there);
    let Some(method) = method else {
        let id = id.ok_or(Unattributed::Response)?;
        let number = number(&line[id.clone()]).ok_or(Unattributed::Response)?;
        return Ok(ServerLine::Response(number, id));
    };
    let method = serde_json::from_slice::<String>(&line[method]).unwrap_or_default();
    if let Some(id) = id {
        return Ok(ServerLine::Request {
            id: &line[id],
            is_ping: method == "ping",
        });
    }
    let params = params.map(|params| params.value).unwrap_or_default();
    of(line, &method, params)
}

/// The number that a member of an object is, and where that is.
fn numbered(
    line: &[u8],
    object: Range<usize>,
    name: &str,
) -> Result<(u64, Range<usize>), Unattributed> {
    let [member] = strict::members(line, object, [name])?;
    let at = member.map(|member| member.value);
    let at = at.ok_or(Unattributed::Notification)?;
    let number = number(&line[at.clone()]).ok_or(Unattributed::Notification)?;
    Ok((number, at))
}

/// A notification to legacy clients. What such a server cancels, it has asked itself.
fn legacy_notification<'a>(
    line: &'a [u8],
    method: &str,
    params: Range<usize>,
) -> Result<ServerLine<'a>, Unattributed> {
    match method {
        "notifications/progress" => {
            let (number, at) = numbered(line, params, "progressToken")?;
            Ok(ServerLine::Progress(number, at))
        }
        "notifications/message" => Err(Unattributed::Log),
        "notifications/tools/list_changed"
        | "notifications/prompts/list_changed"
        | "notifications/resources/list_changed" => Ok(ServerLine::ListChanged),
        "notifications/resources/updated" => {
            let [uri] = strict::members(line, params, ["uri"])?;
            let uri = uri.and_then(|uri| serde_json::from_slice(&line[uri.value]).ok());
            uri.map(ServerLine::Updated)
                .ok_or(Unattributed::Notification)
        }
        _ => Err(Unattributed::Notification),
    }
}

fn notification<'a>(
    line: &'a [u8],
    method: &str,
    params: Range<usize>,
) -> Result<ServerLine<'a>, Unattributed> {
    match method {
        "notifications/progress" => {
            let (number, at) = numbered(line, params, "progressToken")?;
            Ok(ServerLine::Progress(number, at))
        }
        "notifications/cancelled" => {
            let (number, at) = numbered(line, params, "requestId")?;
            Ok(ServerLine::Cancelled(number, at))
        }
        "notifications/message" => Err(Unattributed::Log),
        _ => {
            let [meta] = strict::members(line, params, ["_meta"])?;
            let meta = meta.ok_or(Unattributed::Notification)?.value;
            let (number, at) = numbered(line, meta, SUBSCRIPTION_ID)?;
            Ok(ServerLine::Subscribed {
                number,
                at,
                is_acknowledgment: method == "notifications/subscriptions/acknowledged",
            })
        }
    }
}

/// Whether a response says that the request was not carried out.
pub(super) fn is_error(line: &[u8]) -> bool {
    let error = strict::members(line, 0..line.len(), ["error"]);
    matches!(error, Ok([Some(_)]))
}

/// Where the result with which a subscription ends has its number.
pub(super) fn subscription_in_result(line: &[u8]) -> Option<Range<usize>> {
    let [result] = strict::members(line, 0..line.len(), ["result"]).ok()?;
    let [meta] = strict::members(line, result?.value, ["_meta"]).ok()?;
    let [id] = strict::members(line, meta?.value, [SUBSCRIPTION_ID]).ok()?;
    Some(id?.value)
}

/// Up to here each integer is a double.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The number that this is, if it is one: servers may make strings of numbers, or fractions.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let inner = text
        .strip_prefix(b"\"")
        .and_then(|text| text.strip_suffix(b"\""));
    let text = str::from_utf8(inner.unwrap_or(text)).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let double: f64 = text.parse().ok()?;
    let is_exact = double.fract() == 0.0 && (0.0..=MAX_EXACT).contains(&double);
    is_exact.then_some((double as i64).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(line: &str, check: impl FnOnce(ServerLine<'_>)) {
        let message = Message::read(line.as_bytes()).unwrap();
        check(read(line.as_bytes(), &message));
    }

    fn unattributed(line: &str) -> Unattributed {
        let mut found = None;
        with(line, |read| match read {
            ServerLine::Unattributed(why) => found = Some(why),
            other => panic!("{line}: {other:?}"),
        });
        found.unwrap()
    }

    #[test]
    fn numbers_come_back_in_many_forms() {
        for text in ["12", "\"12\"", "12.0", "1.2e1", "\"12.0\""] {
            assert_eq!(number(text.as_bytes()), Some(12), "{text}");
        }
        for text in [
            "", "\"\"", "-12", "12.5", "1e40", "NaN", "null", "\"x\"", "[12]",
        ] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_for_one_client_is_told_by_its_number() {
        with(r#"{"result":{"id":1},"id":"7"}"#, |read| {
            assert_eq!(read, ServerLine::Response(7, 24..27));
        });
        with(
            r#"{"method":"notifications/progress","params":{"progressToken":7}}"#,
            |read| assert!(matches!(read, ServerLine::Progress(7, _))),
        );
        with(
            r#"{"method":"notifications/cancelled","params":{"requestId":7}}"#,
            |read| assert!(matches!(read, ServerLine::Cancelled(7, _))),
        );
        let acknowledged = r#"{"method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7}}}"#;
        with(acknowledged, |read| {
            let is_it = matches!(
                read,
                ServerLine::Subscribed {
                    number: 7,
                    is_acknowledgment: true,
                    ..
                }
            );
            assert!(is_it);
        });
        with(r#"{"id":"a","method":"p\u0069ng"}"#, |read| {
            let expected = ServerLine::Request {
                id: br#""a""#,
                is_ping: true,
            };
            assert_eq!(read, expected);
        });
    }

    #[test]
    fn what_is_for_nobody() {
        for (line, why) in [
            (r#"{"id":1,"id":2,"result":{}}"#, Unattributed::Doubled),
            (r#"{"id":1,"ID":2,"result":{}}"#, Unattributed::Doubled),
            (r#"{"id":null,"error":{}}"#, Unattributed::Response),
            (r#"{"result":{}}"#, Unattributed::Response),
            (r#"[{"id":1,"result":{}}]"#, Unattributed::Batch),
            (r#"{"method":"notifications/message"}"#, Unattributed::Log),
            (
                r#"{"method":"notifications/progress","params":{"progressToken":"a"}}"#,
                Unattributed::Notification,
            ),
            (
                r#"{"method":"notifications/progress","params":{"progressToken":1,"progressToken":2}}"#,
                Unattributed::Doubled,
            ),
            (
                r#"{"method":"notifications/tools/list_changed"}"#,
                Unattributed::Notification,
            ),
        ] {
            assert_eq!(unattributed(line), why, "{line}");
        }
    }

    #[test]
    fn the_result_that_ends_a_subscription_names_it() {
        let line = r#"{"id":7,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":7}}}"#;
        let at = subscription_in_result(line.as_bytes()).unwrap();
        assert_eq!(&line[at], "7");
        assert_eq!(subscription_in_result(br#"{"id":7,"result":3}"#), None);
    }
}
