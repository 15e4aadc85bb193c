//! Recognises other protocols by the first line of a connection, blank ones aside, as its bytes come.
//!
//! A web page can have a browser connect to any port, loopback included, and send a form there: each header line would be
//! refused, and the body served. So the first line decides what the connection is, before anything of it is handled.
//!
//! ```text
//!   protocol   what a client begins with        what a server begins with
//!   HTTP       a method … ` HTTP/` and a digit  `HTTP/`
//!   TLS        0x16 0x03 (a handshake)          0x15 0x03 (an alert)
//!   PROXY      `PROXY `, or the twelve bytes    -
//!   SSH        `SSH-`                           `SSH-`
//! ```
//!
//! The twelve bytes of version 2 of the PROXY protocol begin with two blank lines and the line `\0`, which must not be
//! taken for lines before all twelve have come, or something else: see [`Recogniser::withheld`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// With these a header of version 2 of the PROXY protocol begins.
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Up to here they are blank lines.
const BLANK_BYTES: usize = 4;

/// No method of HTTP is longer, in bytes: the longest that is registered has 17.
const MAX_METHOD_BYTES: u8 = 32;

/// What ends the first line of a request, before the number of the version.
const HTTP_VERSION: &[u8] = b" HTTP/";

/// A protocol that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP, of whatever version.
    Http,
    /// TLS, of whatever version.
    Tls,
    /// The header that load balancers send, of version 1 or 2.
    Proxy,
    /// SSH.
    Ssh,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Proxy => "the PROXY protocol",
            Self::Ssh => "SSH",
        })
    }
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The first line is not known well enough.
    Undecided,
    /// The first line is none of another protocol that is known here.
    Ours,
    /// The first line is another protocol's.
    Other(Protocol),
}

/// Whose first line is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Speaker {
    Client,
    Server,
}

/// How far the first line has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum First {
    /// Nothing but white space.
    Blank,
    /// The type of a TLS record.
    RecordType,
    /// A word of this length.
    Word(u8),
    /// A method, a space, and what may follow. This many bytes of [`HTTP_VERSION`] are the last that came.
    Target(u8),
    Decided(Verdict),
}

/// Looks at the first line of one stream. Every session has one, and most need it for a moment only, so it is small.
#[derive(Debug, Serialize, Deserialize)]
pub struct Recogniser {
    speaker: Speaker,
    first: First,
    /// The beginning of the word.
    word: [u8; 6],
    /// How many bytes of [`PROXY_V2`] have come, and nothing else. It stays when something else comes.
    signature: u8,
    /// Whether something else has come.
    is_no_signature: bool,
}

impl Recogniser {
    /// Looks at what a client says.
    pub fn of_client() -> Self {
        Self::new(Speaker::Client)
    }

    /// Looks at what a server says.
    pub fn of_server() -> Self {
        Self::new(Speaker::Server)
    }

    fn new(speaker: Speaker) -> Self {
        Self {
            speaker,
            first: First::Blank,
            word: [0; 6],
            signature: 0,
            is_no_signature: speaker == Speaker::Server,
        }
    }

    /// Looks at the next bytes. Once there is a verdict, it stays.
    pub fn look(&mut self, input: &[u8]) -> Verdict {
        for byte in input {
            let verdict = self.verdict();
            if verdict != Verdict::Undecided {
                return verdict;
            }
            self.next(*byte);
        }
        self.verdict()
    }

    /// The last bytes that have come, which may be the rest of [`PROXY_V2`] after its blank lines, and must not be handled
    /// before there is a verdict.
    pub fn withheld(&self) -> &'static [u8] {
        PROXY_V2
            .get(BLANK_BYTES..self.signature.into())
            .unwrap_or(&[])
    }

    fn verdict(&self) -> Verdict {
        if usize::from(self.signature) == PROXY_V2.len() {
            return Verdict::Other(Protocol::Proxy);
        }
        match self.first {
            First::Decided(Verdict::Ours) if !self.is_no_signature => Verdict::Undecided,
            First::Decided(verdict) => verdict,
            First::Blank | First::RecordType | First::Word(_) | First::Target(_) => {
                Verdict::Undecided
            }
        }
    }

    fn next(&mut self, byte: u8) {
        if !self.is_no_signature {
            if PROXY_V2.get(usize::from(self.signature)) == Some(&byte) {
                self.signature += 1;
            } else {
                self.is_no_signature = true;
            }
        }
        self.first = match self.first {
            First::Blank if byte.is_ascii_whitespace() => First::Blank,
            First::Blank if byte == self.record_type() => First::RecordType,
            First::Blank => self.within_word(0, byte),
            First::RecordType if byte == 0x03 => other(Protocol::Tls),
            First::RecordType => First::Decided(Verdict::Ours),
            First::Word(len) => self.within_word(len, byte),
            First::Target(matched) => within_target(matched, byte),
            decided @ First::Decided(_) => decided,
        };
    }

    /// A client that speaks TLS begins with a handshake; a server that does not understand it answers with an alert.
    fn record_type(&self) -> u8 {
        match self.speaker {
            Speaker::Client => 0x16,
            Speaker::Server => 0x15,
        }
    }

    fn within_word(&mut self, len: u8, byte: u8) -> First {
        let at = usize::from(len);
        if let Some(place) = self.word.get_mut(at) {
            *place = byte;
        }
        let word = &self.word[..self.word.len().min(at + 1)];
        match (self.speaker, word) {
            (_, b"SSH-") => other(Protocol::Ssh),
            (Speaker::Client, b"PROXY ") if at + 1 == word.len() => other(Protocol::Proxy),
            (Speaker::Server, b"HTTP/") => other(Protocol::Http),
            (Speaker::Server, _) if b"HTTP/".starts_with(word) || b"SSH-".starts_with(word) => {
                First::Word(len + 1)
            }
            (Speaker::Client, _) if byte == b' ' && len > 0 => First::Target(1),
            (Speaker::Client, _) if is_of_method(byte) && len < MAX_METHOD_BYTES => {
                First::Word(len + 1)
            }
            _ => First::Decided(Verdict::Ours),
        }
    }
}

fn other(protocol: Protocol) -> First {
    First::Decided(Verdict::Other(protocol))
}

fn within_target(matched: u8, byte: u8) -> First {
    match HTTP_VERSION.get(usize::from(matched)) {
        _ if byte == b'\n' => First::Decided(Verdict::Ours),
        Some(expected) if byte == *expected => First::Target(matched + 1),
        None if byte.is_ascii_digit() => other(Protocol::Http),
        _ => First::Target(u8::from(byte == b' ')),
    }
}

/// Whether a method of HTTP may have this byte (RFC 9110, 5.6.2 and 9.1).
fn is_of_method(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// First lines of clients, with what they are. What follows them does not matter.
    const CLIENTS: &[(&[u8], Verdict)] = &[
        (b"GET / HTTP/1.1\r\n", Verdict::Other(Protocol::Http)),
        (
            b"POST /a?b=c HTTP/1.0\r\nHost: x\r\n",
            Verdict::Other(Protocol::Http),
        ),
        (
            b"OPTIONS * HTTP/1.1\r\nContent-Length: 1\r\n",
            Verdict::Other(Protocol::Http),
        ),
        (
            b"M-SEARCH /HTTP/ HTTP/1.1\r\n",
            Verdict::Other(Protocol::Http),
        ),
        (
            b"\r\n\r\nPOST / HTTP/1.1\r\n",
            Verdict::Other(Protocol::Http),
        ),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            Verdict::Other(Protocol::Http),
        ),
        (b"\x16\x03\x01\x02\x00\x01", Verdict::Other(Protocol::Tls)),
        (b" \n\x16\x03", Verdict::Other(Protocol::Tls)),
        (
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            Verdict::Other(Protocol::Proxy),
        ),
        (b"PROXY UNKNOWN\r\n", Verdict::Other(Protocol::Proxy)),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c",
            Verdict::Other(Protocol::Proxy),
        ),
        (b"SSH-2.0-OpenSSH_9.9\r\n", Verdict::Other(Protocol::Ssh)),
        (b"{\"method\":\"GET / HTTP/1.1\"}\n", Verdict::Ours),
        (b"[]\n", Verdict::Ours),
        (b"\n \t\r\n {}\n", Verdict::Ours),
        (b"\xef\xbb\xbf{}\n", Verdict::Ours),
        (b"GET /\r\n", Verdict::Ours),
        (b"GET / HTTP/x\n", Verdict::Ours),
        (b"hello HTTP/\nHTTP/1.1\n", Verdict::Ours),
        (b"hello\nGET / HTTP/1.1\r\n", Verdict::Ours),
        (b"{}\nPOST / HTTP/1.1\r\n", Verdict::Ours),
        (b"\"GET / HTTP/1.1\"\n", Verdict::Ours),
        (b"42\n", Verdict::Ours),
        (b"SSH\n", Verdict::Ours),
        (b"PROXY\n", Verdict::Ours),
        (b"\x16\n", Verdict::Ours),
        (b"\x15\x03\x01", Verdict::Ours),
        (b"\0\r\nQUIT\n", Verdict::Ours),
        (b"\r\n\r\n\0\r\nQUIR\n", Verdict::Ours),
        (b"\r\n\r\n\0\r\nGET / HTTP/1.1\r\n", Verdict::Ours),
        (b"", Verdict::Undecided),
        (b"\r\n  \n", Verdict::Undecided),
        (b"\x16", Verdict::Undecided),
        (b"GET / HTTP/", Verdict::Undecided),
        (b"\r\n\r\n\0\r\n", Verdict::Undecided),
    ];

    const SERVERS: &[(&[u8], Verdict)] = &[
        (
            b"HTTP/1.1 400 Bad Request\r\n",
            Verdict::Other(Protocol::Http),
        ),
        (
            b"\x15\x03\x01\x00\x02\x02\x46",
            Verdict::Other(Protocol::Tls),
        ),
        (b"SSH-2.0-x\r\n", Verdict::Other(Protocol::Ssh)),
        (b"{}\n", Verdict::Ours),
        (b"\x16\x03", Verdict::Ours),
        (b"HTTX", Verdict::Ours),
        (b"GET / HTTP/1.1\r\n", Verdict::Ours),
        (b"PROXY TCP4", Verdict::Ours),
        (b"\r\n\r\n\0", Verdict::Ours),
        (b"HTTP", Verdict::Undecided),
        (b"SSH", Verdict::Undecided),
    ];

    fn look_in_pieces(mut recogniser: Recogniser, pieces: &[&[u8]]) -> Verdict {
        let mut verdicts = pieces.iter().map(|piece| recogniser.look(piece));
        verdicts
            .find(|verdict| *verdict != Verdict::Undecided)
            .unwrap_or(Verdict::Undecided)
    }

    /// In one piece, in two at every cut point, and byte by byte.
    fn check(new: fn() -> Recogniser, stream: &[u8], expected: Verdict) {
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            let verdict = look_in_pieces(new(), &[head, tail]);
            assert_eq!(verdict, expected, "{} at {cut}", stream.escape_ascii());
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(look_in_pieces(new(), &bytes), expected);
    }

    #[test]
    fn first_lines_are_recognised_wherever_they_are_cut() {
        for (stream, expected) in CLIENTS {
            check(Recogniser::of_client, stream, *expected);
        }
        for (stream, expected) in SERVERS {
            check(Recogniser::of_server, stream, *expected);
        }
    }

    #[test]
    fn what_may_be_a_proxy_header_is_withheld_from_its_first_byte_that_is_not_blank() {
        let mut recogniser = Recogniser::of_client();
        for (count, byte) in PROXY_V2[..11].iter().enumerate() {
            assert_eq!(recogniser.withheld(), &PROXY_V2[4..count.max(4)]);
            assert_eq!(recogniser.look(&[*byte]), Verdict::Undecided);
        }
        assert_eq!(recogniser.look(b"x"), Verdict::Ours);
        assert_eq!(recogniser.withheld(), b"\0\r\nQUIT");
    }

    #[test]
    fn a_long_target_costs_no_memory_and_a_long_word_is_no_method() {
        let target = format!("GET /{} HTTP/1.1", "HTTP/".repeat(100_000));
        let mut recogniser = Recogniser::of_client();
        let verdict = recogniser.look(target.as_bytes());
        assert_eq!(verdict, Verdict::Other(Protocol::Http));
        let word = "A".repeat(33);
        assert_eq!(Recogniser::of_client().look(word.as_bytes()), Verdict::Ours);
        assert_eq!(
            Recogniser::of_client().look(&word.as_bytes()[1..]),
            Verdict::Undecided
        );
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            stream in prop::collection::vec(
                prop::sample::select(b"\r\n\0 \x16\x03{GETSHQUIPROXY/-1".to_vec()), 0..60,
            ),
            cuts in prop::collection::vec(0_usize..60, 0..4),
        ) {
            let whole = Recogniser::of_client().look(&stream);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
            prop_assert_eq!(look_in_pieces(Recogniser::of_client(), &pieces), whole);
        }

        #[test]
        fn messages_are_never_taken_for_something_else(
            blank in "[ \t\r\n]{0,20}",
            message in "[{\\[\"][ -~]{0,60}\n",
        ) {
            let stream = format!("{blank}{message}");
            prop_assert_eq!(Recogniser::of_client().look(stream.as_bytes()), Verdict::Ours);
        }

        #[test]
        fn requests_of_http_are_always_recognised(
            blank in "([ \t]*\r?\n){0,3}",
            method in "[A-Z]{1,20}",
            target in "/[!-~]{0,60}",
        ) {
            prop_assume!(method != "PROXY");
            let stream = format!("{blank}{method} {target} HTTP/1.1\r\n");
            let verdict = Recogniser::of_client().look(stream.as_bytes());
            prop_assert_eq!(verdict, Verdict::Other(Protocol::Http));
        }
    }
}
