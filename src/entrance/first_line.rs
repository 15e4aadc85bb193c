//! The first line of a connection, in which a client shows its token.

use super::MAX_FIRST_LINE_BYTES;
use crate::protocol::envelope::{Control, Message};
use crate::protocol::id::MAX_ID_BYTES;
use crate::protocol::json;
use crate::protocol::recogniser::{Protocol, Recogniser, Verdict};

/// U+FEFF in UTF-8, which some programs write before everything else.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A first line that may not have come in whole.
pub(super) struct FirstLine {
    guard: Recogniser,
    /// All that came, blank lines included: the session is to see the same stream.
    bytes: Vec<u8>,
    /// Where the line begins that is under way.
    start: usize,
}

/// What of a connection is known by what it has sent.
#[derive(Clone, Copy)]
pub(super) enum Look {
    /// More has to come.
    Undecided,
    /// The line has come: this is where it is in the bytes.
    Line,
    /// It is longer than it may be.
    TooLong,
    /// It is another protocol's.
    Other(Protocol),
}

impl FirstLine {
    pub(super) fn new() -> Self {
        Self {
            guard: Recogniser::of_client(),
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// Takes what belongs to the line, its line feed included, from the front of `input`.
    pub(super) fn take(&mut self, input: &mut &[u8]) -> Look {
        while !input.is_empty() {
            let end = memchr::memchr(b'\n', input);
            let room = (MAX_FIRST_LINE_BYTES + 1).saturating_sub(self.bytes.len());
            let count = end.map_or(input.len(), |at| at + 1).min(room);
            let (piece, rest) = input.split_at(count);
            self.bytes.extend_from_slice(piece);
            *input = rest;
            let verdict = self.guard.look(piece);
            if let Verdict::Other(protocol) = verdict {
                return Look::Other(protocol);
            }
            if self.bytes.len() > MAX_FIRST_LINE_BYTES {
                return Look::TooLong;
            }
            if self.bytes.ends_with(b"\n") {
                if is_blank(self.line()) {
                    self.start = self.bytes.len();
                } else if verdict == Verdict::Ours {
                    return Look::Line;
                }
                // Else it may be the middle of a header of the PROXY protocol. If not, this was no JSON.
            }
        }
        Look::Undecided
    }

    /// The line without its line end.
    pub(super) fn line(&self) -> &[u8] {
        let line = &self.bytes[self.start..];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
    }

    /// Whether nothing has come.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All that was taken.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// What a client says in its first line.
#[derive(Default)]
pub(super) struct Said {
    /// The token, if it is a handshake with one.
    pub(super) token: Option<String>,
    /// The server that is asked for, if it is a handshake that says so.
    pub(super) server: Option<String>,
    /// The id as written, if it is a request.
    pub(super) id: Option<String>,
}

impl Said {
    pub(super) fn in_line(line: &[u8]) -> Self {
        let Ok(Message::Single(envelope)) = Message::read(line) else {
            return Self::default();
        };
        let id = envelope.request_id().filter(|id| id.len() <= MAX_ID_BYTES);
        let is_handshake = envelope.control == Some(Control::Handshake);
        let (token, server) = if is_handshake {
            said_in(line)
        } else {
            (None, None)
        };
        Self {
            token,
            server,
            id: id.map(|id| id.to_string()),
        }
    }
}

/// The token and the server.
fn said_in(line: &[u8]) -> (Option<String>, Option<String>) {
    let Ok(line) = str::from_utf8(line) else {
        return (None, None);
    };
    let Some(places) = json::find(line, ["token", "server"]) else {
        return (None, None);
    };
    let [token, server] = places.map(|place| {
        let text = line.get(place?)?;
        serde_json::from_str(text).ok()
    });
    (token, server)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a stream is seen, in two pieces cut everywhere; and what is left of it.
    fn look(stream: &[u8]) -> (Look, Vec<u8>, usize) {
        let in_pieces = |pieces: &[&[u8]]| {
            let mut line = FirstLine::new();
            let (mut look, mut left) = (Look::Undecided, 0);
            for piece in pieces {
                let mut input = *piece;
                if matches!(look, Look::Undecided) {
                    look = line.take(&mut input);
                }
                left += input.len();
            }
            (look, line.line().to_vec(), left)
        };
        let (whole, line, left) = in_pieces(&[stream]);
        for cut in 0..=stream.len().min(100) {
            let (head, tail) = stream.split_at(cut);
            let (other, ..) = in_pieces(&[head, tail]);
            assert_eq!(
                std::mem::discriminant(&other),
                std::mem::discriminant(&whole),
                "{} at {cut}",
                stream.escape_ascii()
            );
        }
        (whole, line, left)
    }

    #[test]
    fn a_line_of_what_was_almost_another_protocol_is_not_skipped() {
        let (found, line, _) = look(b"\r\n\r\n\0\r\n{\"type\":\"handshake\"}\n");
        assert!(matches!(found, Look::Line));
        assert_eq!(line, b"\0\r\n{\"type\":\"handshake\"}");
    }

    #[test]
    fn the_first_line_that_is_not_blank_counts_and_nothing_after_it_is_taken() {
        for (stream, expected, rest) in [
            (&b"{}\nx\n"[..], &b"{}"[..], 2),
            (b"\n \r\n{}\r\n", b"{}", 0),
            (b"\xef\xbb\xbf{}\n", b"{}", 0),
            (b"nonsense\n{}\n", b"nonsense", 3),
            (b"\r\n\r\nx\n", b"x", 0),
        ] {
            let (found, line, left) = look(stream);
            assert!(matches!(found, Look::Line), "{}", stream.escape_ascii());
            assert_eq!((line.as_slice(), left), (expected, rest));
        }
    }

    #[test]
    fn a_line_without_an_end_is_waited_for_and_not_for_ever() {
        assert!(matches!(look(b"{\"type\"").0, Look::Undecided));
        assert!(matches!(look(b"\r\n\r\n\0\r\nQU").0, Look::Undecided));
        let mut longest = vec![b' '; MAX_FIRST_LINE_BYTES - 1];
        longest[0] = b'x';
        longest.push(b'\n');
        assert!(matches!(look(&longest).0, Look::Line));
        longest.insert(0, b'x');
        assert!(matches!(look(&longest).0, Look::TooLong));
        let blank = vec![b'\n'; MAX_FIRST_LINE_BYTES + 1];
        assert!(matches!(look(&blank).0, Look::TooLong));
    }

    #[test]
    fn another_protocol_is_known_before_its_line_ends() {
        for (stream, protocol) in [
            (&b"POST / HTTP/1.1\r\n"[..], Protocol::Http),
            (b"\x16\x03\x01", Protocol::Tls),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Protocol::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Protocol::Proxy),
            (b"\n\nSSH-2.0-x\r\n", Protocol::Ssh),
        ] {
            assert!(matches!(look(stream).0, Look::Other(found) if found == protocol));
        }
    }

    #[test]
    fn a_token_is_read_from_a_handshake_alone() {
        let token = |line: &str| Said::in_line(line.as_bytes()).token;
        for line in [
            r#"{"type":"handshake","token":"secret"}"#,
            r#"{"token":"s\u0065cret","type":"handshake","supports_heartbeat":true}"#,
            r#"{"type":"handshake","t\u006fken":"secret","x":{"token":"other"}}"#,
            r#"{"type":"handshake","token":1,"token":"secret"}"#,
        ] {
            assert_eq!(token(line).as_deref(), Some("secret"), "{line}");
        }
        for line in [
            r#"{"type":"handshake"}"#,
            r#"{"type":"handshake","token":7}"#,
            r#"{"type":"handshake","token":["secret"]}"#,
            r#"{"type":"heartbeat","token":"secret"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","token":"secret"}"#,
            r#"[{"type":"handshake","token":"secret"}]"#,
            r#"{"type":"handshake","token":"secret""#,
            "secret",
        ] {
            assert_eq!(token(line), None, "{line}");
        }
    }

    #[test]
    fn a_server_is_asked_for_by_a_handshake_alone() {
        let server = |line: &str| Said::in_line(line.as_bytes()).server;
        let line = r#"{"server":"git","type":"handshake","token":"x"}"#;
        assert_eq!(server(line).as_deref(), Some("git"));
        for line in [
            r#"{"type":"handshake"}"#,
            r#"{"type":"handshake","server":7}"#,
            r#"{"id":1,"method":"x","server":"git"}"#,
        ] {
            assert_eq!(server(line), None, "{line}");
        }
    }

    #[test]
    fn the_id_of_a_request_is_echoed() {
        let id = |line: &str| Said::in_line(line.as_bytes()).id;
        assert_eq!(id(r#"{"id": 1.50,"method":"x"}"#).as_deref(), Some("1.50"));
        assert_eq!(
            id(r#"{"id":"a\n","method":"x"}"#).as_deref(),
            Some(r#""a\n""#)
        );
        for line in [
            r#"{"method":"x"}"#,
            r#"{"id":1,"result":1}"#,
            r#"[{"id":1,"method":"x"}]"#,
            "x",
        ] {
            assert_eq!(id(line), None, "{line}");
        }
    }
}
