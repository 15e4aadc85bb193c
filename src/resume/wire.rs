//! The control lines: how they are written, what is in them, and how they are told from others.
//!
//! | line | who |
//! | --- | --- |
//! | `{"type":"handshake",…,"resume":{"version":1,"session":"<32 hex>","heartbeat":30}}` | client, first line |
//! | `"resume":{…,"previous":{"session":"…","attempt":K,"lines":N}}` | client, first line |
//! | `{"type":"resumable","version":1,"timeout":120,"window":1048576}` | proxy, first line |
//! | `{"type":"resumed","lines":M}` | proxy, first line |
//! | `{"type":"not_resumed","reason":"…","lines":M}`, then `resumable` | proxy, first lines |
//! | `{"type":"heartbeat","lines":N}` | client |
//! | `{"type":"ack","lines":N}` | proxy |
//! | `{"type":"heartbeat","bye":true}` | client |
//! | `{"type":"bye","reason":"…"}` | proxy |
//!
//! Ids are secrets: whoever knows one can take the session over. They are in no log.

use std::fmt::{self, Write as _};
use std::sync::LazyLock;
use std::time::Duration;

use memchr::memmem::{self, Finder};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::envelope::{Control, Message};
use crate::protocol::json;

/// The only version.
const VERSION: u64 = 1;

/// The largest integer that every JSON reader can tell from its neighbours (RFC 8259, 6).
pub const MAX_LINES: u64 = (1 << 53) - 1;

/// The longest heartbeat interval that is believed.
const MAX_HEARTBEAT: f64 = 86_400.0;

/// The length of an id in its text.
const ID_DIGITS: usize = 32;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// Whoever asks to be resumed.
    Client,
    /// The proxy.
    Proxy,
}

impl Side {
    /// The one at the other end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Proxy,
            Self::Proxy => Self::Client,
        }
    }
}

/// The id of a session, as its client chose it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionId([u8; ID_DIGITS / 2]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

impl SessionId {
    /// From 128 random bits.
    pub fn new(random: [u8; ID_DIGITS / 2]) -> Self {
        Self(random)
    }

    /// Reads its text; `None` if it is none.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != ID_DIGITS {
            return None;
        }
        let mut bytes = [0; ID_DIGITS / 2];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = pair.iter().map(|digit| char::from(*digit).to_digit(16));
            for digit in pair {
                *byte = *byte << 4 | u8::try_from(digit?).ok()?;
            }
        }
        Some(Self(bytes))
    }

    /// Its bits.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn text(self) -> String {
        self.0.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// What a client asks for in its first line.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The id of this connection, and of its session if there is to be a new one.
    pub session: SessionId,
    /// How often the client sends a heartbeat.
    pub heartbeat: Duration,
    /// The session that the client had before.
    pub previous: Option<Previous>,
}

/// The session that is to be resumed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Previous {
    /// Its id.
    pub session: SessionId,
    /// Grows with each try.
    pub attempt: u64,
    /// How many lines the client has taken; `None` if that is no number that can be.
    pub lines: Option<u64>,
}

impl Ask {
    /// Reads the first line of a client; `None` if it asks for nothing of the kind.
    pub fn in_line(line: &[u8]) -> Option<Self> {
        // Most first lines are something else.
        memmem::find(line, b"resume").or_else(|| memchr::memchr(b'\\', line))?;
        let message = Message::read(line).ok()?;
        let Message::Single(envelope) = &message else {
            return None;
        };
        (envelope.control == Some(Control::Handshake)).then_some(())?;
        let line = str::from_utf8(line).ok()?;
        let [resume] = json::find(line, ["resume"])?;
        let resume: Value = serde_json::from_str(line.get(resume?)?).ok()?;
        (resume.get("version")?.as_u64()? == VERSION).then_some(())?;
        let heartbeat = resume.get("heartbeat").and_then(Value::as_f64);
        let heartbeat = heartbeat.filter(|seconds| *seconds > 0.0 && *seconds <= MAX_HEARTBEAT)?;
        let previous = resume.get("previous").filter(|value| !value.is_null());
        Some(Self {
            session: SessionId::parse(resume.get("session")?.as_str()?)?,
            heartbeat: Duration::from_secs_f64(heartbeat),
            previous: previous.and_then(Previous::of),
        })
    }

    /// The value of `resume`.
    pub fn text(&self) -> String {
        let session = self.session.text();
        let heartbeat = self.heartbeat.as_secs_f64();
        let mut text =
            format!(r#"{{"version":{VERSION},"session":"{session}","heartbeat":{heartbeat}"#);
        if let Some(previous) = &self.previous {
            let Previous {
                session,
                attempt,
                lines,
            } = previous;
            let (session, lines) = (session.text(), lines.unwrap_or_default());
            let _ = write!(
                text,
                r#","previous":{{"session":"{session}","attempt":{attempt},"lines":{lines}}}"#
            );
        }
        text.push('}');
        text
    }
}

impl Previous {
    fn of(value: &Value) -> Option<Self> {
        Some(Self {
            session: SessionId::parse(value.get("session")?.as_str()?)?,
            attempt: value.get("attempt")?.as_u64()?,
            lines: value.get("lines").and_then(count),
        })
    }
}

/// A number of lines; `None` if it is none that can be.
fn count(value: &Value) -> Option<u64> {
    value.as_u64().filter(|lines| *lines <= MAX_LINES)
}

/// What a heartbeat of a client says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// How many lines it has taken; an error if that is no number that can be.
    pub lines: Option<Result<u64, ()>>,
    /// Whether it sends no more lines, and wants to be taken for gone when its connection is.
    pub bye: bool,
}

impl Heartbeat {
    /// Reads one.
    pub fn in_line(line: &[u8]) -> Self {
        let Some([lines, bye]) = members(line, ["lines", "bye"]) else {
            return Self::default();
        };
        Self {
            lines: lines.map(|lines| count(&lines).ok_or(())),
            bye: bye == Some(Value::Bool(true)),
        }
    }
}

/// A control line of a proxy.
#[derive(Debug, Clone, PartialEq)]
pub enum FromProxy {
    /// `resumable`
    Granted(Grant),
    /// `resumed`; the lines that it has taken, if that is a number.
    Resumed(Option<u64>),
    /// `not_resumed`
    NotResumed {
        /// Why.
        reason: String,
        /// The lines that were taken in the session that is gone, if that is known.
        lines: Option<u64>,
    },
    /// `ack`; the lines that it has taken, if that is a number.
    Ack(Option<u64>),
    /// `bye`
    Bye,
    /// `heartbeat_response`
    Heartbeat,
}

/// What a proxy grants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grant {
    /// How long it keeps a session whose connection is lost.
    pub timeout: Duration,
    /// How much may be sent without an acknowledgement, in bytes.
    pub window: usize,
}

impl FromProxy {
    /// Reads one; `None` if it means nothing, as what is granted is nothing that we know.
    pub fn read(control: Control, line: &[u8]) -> Option<Self> {
        let lines = || {
            let [lines] = members(line, ["lines"])?;
            count(&lines?)
        };
        Some(match control {
            Control::Resumable => Self::Granted(Grant::in_line(line)?),
            Control::Resumed => Self::Resumed(lines()),
            Control::NotResumed => {
                let [reason] = members(line, ["reason"]).unwrap_or([None]);
                let reason = reason.as_ref().and_then(Value::as_str);
                Self::NotResumed {
                    reason: reason.unwrap_or_default().to_owned(),
                    lines: lines(),
                }
            }
            Control::Ack => Self::Ack(lines()),
            Control::Bye => Self::Bye,
            Control::HeartbeatResponse => Self::Heartbeat,
            Control::Heartbeat | Control::Handshake => return None,
        })
    }
}

impl Grant {
    fn in_line(line: &[u8]) -> Option<Self> {
        let [version, timeout, window] = members(line, ["version", "timeout", "window"])?;
        (version?.as_u64()? == VERSION).then_some(())?;
        let timeout = timeout?.as_f64().filter(|seconds| *seconds > 0.0)?;
        Some(Self {
            timeout: Duration::try_from_secs_f64(timeout).ok()?,
            window: usize::try_from(window?.as_u64()?).ok()?,
        })
    }

    /// As a line.
    pub fn line(self) -> String {
        let (timeout, window) = (self.timeout.as_secs_f64(), self.window);
        format!(
            r#"{{"type":"resumable","version":{VERSION},"timeout":{timeout},"window":{window}}}"#
        )
    }
}

/// `resumed` as a line.
pub fn resumed(lines: u64) -> String {
    format!(r#"{{"type":"resumed","lines":{lines}}}"#)
}

/// `not_resumed` as a line.
pub fn not_resumed(reason: &str, lines: Option<u64>) -> String {
    let lines = lines.map(|lines| format!(r#","lines":{lines}"#));
    let lines = lines.unwrap_or_default();
    format!(r#"{{"type":"not_resumed","reason":"{reason}"{lines}}}"#)
}

/// `bye` of a proxy as a line.
pub fn bye(reason: &str) -> String {
    format!(r#"{{"type":"bye","reason":"{reason}"}}"#)
}

/// `bye` of a client as a line.
pub const CLIENT_BYE: &str = r#"{"type":"heartbeat","bye":true}"#;

/// An acknowledgement as a line.
pub fn ack(from: Side, lines: u64) -> String {
    let name = match from {
        Side::Client => "heartbeat",
        Side::Proxy => "ack",
    };
    format!(r#"{{"type":"{name}","lines":{lines}}}"#)
}

/// The values of these members.
fn members<const N: usize>(line: &[u8], names: [&str; N]) -> Option<[Option<Value>; N]> {
    let line = str::from_utf8(line).ok()?;
    let found = json::find(line, names)?;
    Some(found.map(|range| serde_json::from_str(line.get(range?)?).ok()))
}

impl Control {
    /// Who writes such lines.
    pub fn side(self) -> Side {
        match self {
            Self::Heartbeat | Self::Handshake => Side::Client,
            Self::HeartbeatResponse
            | Self::Resumable
            | Self::Resumed
            | Self::NotResumed
            | Self::Ack
            | Self::Bye => Side::Proxy,
        }
    }
}

/// What a line is about, if it is a control line of that side. Nearly none is, so it is read only if it may be one.
pub fn control(line: &[u8], from: Side) -> Option<Control> {
    if !may_be_control(line) {
        return None;
    }
    let Ok(Message::Single(envelope)) = Message::read(line) else {
        return None;
    };
    envelope.control.filter(|control| control.side() == from)
}

/// Whether the line may have a member `type` with one of our values.
fn may_be_control(line: &[u8]) -> bool {
    Suspects::new(line).next_from(0).is_some()
}

/// What our values begin with.
const FIRST_LETTERS: [&[u8]; 5] = [b"\"h", b"\"res", b"\"not_", b"\"ack", b"\"bye"];

/// Finds the name, and letters that are not written as such.
static FINDERS: LazyLock<[Finder<'static>; 2]> =
    LazyLock::new(|| [Finder::new(br#""type""#), Finder::new(br"\u00")]);

/// Where in a text there may be a member `type` with one of our values: found for many lines at once, as nearly none has one.
pub(super) struct Suspects<'a> {
    text: &'a [u8],
    /// The next ones, if there are any, with the name as it is and with letters of it written otherwise.
    next: [Option<usize>; 2],
}

impl<'a> Suspects<'a> {
    /// Those in this text.
    pub(super) fn new(text: &'a [u8]) -> Self {
        // Most texts have nothing that is written otherwise, and to look for one byte is quicker.
        let escape = memchr::memchr(b'\\', text);
        let next = [
            Self::find(text, 0, 0),
            escape.and_then(|at| Self::find(text, 1, at)),
        ];
        Self { text, next }
    }

    /// The first one that is not before this.
    pub(super) fn next_from(&mut self, at: usize) -> Option<usize> {
        for (kind, next) in self.next.iter_mut().enumerate() {
            if next.is_some_and(|next| next < at) {
                *next = Self::find(self.text, kind, at);
            }
        }
        self.next.into_iter().flatten().min()
    }

    fn find(text: &[u8], kind: usize, from: usize) -> Option<usize> {
        let finder = &FINDERS[kind];
        let found = finder.find_iter(&text[from..]).find(|found| {
            let after = &text[from + found + finder.needle().len()..];
            match kind {
                0 => has_our_value(after),
                // Letters and `_` can be written otherwise only like that.
                _ => matches!(after.first(), Some(b'5'..=b'7')),
            }
        });
        found.map(|found| from + found)
    }
}

/// Whether a value of ours may be what follows the name.
fn has_our_value(text: &[u8]) -> bool {
    let value = text.trim_ascii_start();
    let value = value.strip_prefix(b":").unwrap_or_default();
    let value = value.trim_ascii_start();
    FIRST_LETTERS.iter().any(|first| value.starts_with(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn id() -> SessionId {
        SessionId::parse(ID).unwrap()
    }

    fn asked(resume: &str) -> Option<Ask> {
        Ask::in_line(format!(r#"{{"type":"handshake","resume":{resume}}}"#).as_bytes())
    }

    #[test]
    fn what_is_asked_for_is_read_as_it_is_written() {
        let mut ask = Ask {
            session: id(),
            heartbeat: Duration::from_millis(2500),
            previous: None,
        };
        let expected = format!(r#"{{"version":1,"session":"{ID}","heartbeat":2.5}}"#);
        assert_eq!(ask.text(), expected);
        assert_eq!(asked(&ask.text()), Some(ask.clone()));
        ask.previous = Some(Previous {
            session: SessionId::new([7; 16]),
            attempt: 3,
            lines: Some(MAX_LINES),
        });
        assert_eq!(asked(&ask.text()), Some(ask));
    }

    #[test]
    fn an_id_is_in_no_debug_output() {
        let ask = asked(&format!(
            r#"{{"version":1,"session":"{ID}","heartbeat":1,"previous":{{"session":"{ID}","attempt":1,"lines":0}}}}"#
        ));
        let text = format!("{ask:?}");
        assert!(text.contains("attempt: 1") && !text.contains("aabb") && !text.contains("170"));
    }

    #[test]
    fn what_is_not_right_is_not_asked_for() {
        for resume in [
            "1",
            "null",
            r#"{"version":2,"session":"00112233445566778899aabbccddeeff","heartbeat":1}"#,
            r#"{"version":1,"session":"0011","heartbeat":1}"#,
            r#"{"version":1,"session":"0011223344556677é899aabbccddeef","heartbeat":1}"#,
            r#"{"version":1,"session":"00112233445566778899aabbccddeeff"}"#,
            r#"{"version":1,"session":"00112233445566778899aabbccddeeff","heartbeat":0}"#,
            r#"{"version":1,"session":"00112233445566778899aabbccddeeff","heartbeat":"1"}"#,
        ] {
            assert_eq!(asked(resume), None, "{resume}");
        }
        let right = r#"{"version":1,"session":"00112233445566778899AABBCCDDEEFF","heartbeat":1}"#;
        assert_eq!(asked(right).unwrap().session, id());
        let elsewhere = format!(r#"{{"type":"heartbeat","resume":{right}}}"#);
        assert_eq!(Ask::in_line(elsewhere.as_bytes()), None);
    }

    #[test]
    fn a_number_that_cannot_be_is_none() {
        let lines = |lines: &str| {
            let line = format!(r#"{{"type":"heartbeat","lines":{lines}}}"#);
            Heartbeat::in_line(line.as_bytes()).lines
        };
        assert_eq!(lines("0"), Some(Ok(0)));
        assert_eq!(lines("9007199254740991"), Some(Ok(MAX_LINES)));
        for wrong in [
            "9007199254740992",
            "-1",
            "1.5",
            "1.0",
            "\"1\"",
            "null",
            "[]",
        ] {
            assert_eq!(lines(wrong), Some(Err(())), "{wrong}");
        }
        let plain = Heartbeat::in_line(br#"{"type":"heartbeat"}"#);
        assert_eq!(plain, Heartbeat::default());
        assert!(Heartbeat::in_line(CLIENT_BYE.as_bytes()).bye);
    }

    #[test]
    fn what_a_proxy_says_is_read_as_it_is_written() {
        let read = |line: &str| {
            let control = control(line.as_bytes(), Side::Proxy).expect(line);
            FromProxy::read(control, line.as_bytes())
        };
        let grant = Grant {
            timeout: Duration::from_millis(120_500),
            window: 77,
        };
        assert_eq!(read(&grant.line()), Some(FromProxy::Granted(grant)));
        assert_eq!(read(&resumed(5)), Some(FromProxy::Resumed(Some(5))));
        let gone = |lines| FromProxy::NotResumed {
            reason: "ended".into(),
            lines,
        };
        for lines in [None, Some(9)] {
            assert_eq!(read(&not_resumed("ended", lines)), Some(gone(lines)));
        }
        assert_eq!(read(&ack(Side::Proxy, 8)), Some(FromProxy::Ack(Some(8))));
        assert_eq!(read(&bye("shutdown")), Some(FromProxy::Bye));
        assert_eq!(
            read(r#"{"type":"resumable","version":2,"timeout":1,"window":1}"#),
            None
        );
    }

    #[test]
    fn control_lines_are_those_of_the_types_at_the_top_level() {
        for (line, is_control) in [
            (r#"{"type":"heartbeat"}"#, true),
            (r#"{"lines":3,"type" : "heartbeat"}"#, true),
            (r#"{"t\u0079pe":"heartbeat"}"#, true),
            (r#"{"type":"he\u0061rtbeat"}"#, true),
            (r#"{"type":"text","type":"handshake"}"#, true),
            (r#"{"type":"text"}"#, false),
            (r#"{"type":"hello"}"#, false),
            (r#"{"x":{"type":"heartbeat"}}"#, false),
            (r#"{"type":["heartbeat"]}"#, false),
            (r#"[{"type":"heartbeat"}]"#, false),
            (r#"{"type":"heartbeat""#, false),
            (r#"{"type":"ack","lines":1}"#, false),
            ("", false),
        ] {
            let found = control(line.as_bytes(), Side::Client);
            assert_eq!(found.is_some(), is_control, "{line}");
        }
        for name in [
            "heartbeat_response",
            "resumable",
            "resumed",
            "not_resumed",
            "ack",
            "bye",
        ] {
            let line = format!(r#"{{"type":"{name}"}}"#);
            assert!(control(line.as_bytes(), Side::Proxy).is_some(), "{name}");
            assert!(control(line.as_bytes(), Side::Client).is_none(), "{name}");
        }
    }
}
