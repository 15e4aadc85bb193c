//! One session as its client sees it: bytes in, what they mean out, and lines to be sent. Knows no descriptors, and no
//! clock but the times that it is given.

use crate::protocol::envelope::{Envelope, Message};
use crate::protocol::id::RequestId;
use crate::protocol::json;
use crate::protocol::lines::{Line, LineLimits, Splitter};
use crate::util::time::Time;

use super::failure::Failure;
use super::open_requests::{Asked, OpenRequests, Settled};
use super::workload::Workload;

/// The longest line that is read, in bytes: no server of ours sends more, as no proxy lets more pass.
const MAX_LINE_BYTES: usize = 256 * 1024 * 1024;

const LIMITS: LineLimits = LineLimits {
    max_bytes: MAX_LINE_BYTES,
    room: MAX_LINE_BYTES,
};

/// What nearly every message begins with.
const VERSION: &[u8] = br#"{"jsonrpc":"2.0""#;

/// A session.
#[derive(Debug, Default)]
pub(super) struct Client {
    splitter: Splitter,
    out: Vec<u8>,
    /// How much of it was sent.
    sent: usize,
    requests: OpenRequests,
    is_open: bool,
    /// Which of the requests is next.
    turn: usize,
}

/// What a line means.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// Nothing to whoever measures: a notification, a question, a sign of life.
    Nothing,
    /// The session is open.
    Opened,
    /// The server does not want it to be; this is what it says.
    Refused(String),
    /// The response to this request, with its length and whether it is a good one.
    Response(Asked, usize, Result<(), Failure>),
    /// Something that belongs to no request.
    Stray(Failure),
}

impl Client {
    /// Begins a session. `first` is a line for a proxy, if it wants one.
    pub(super) fn open(workload: &Workload, first: Option<&str>, now: Time) -> Self {
        let mut client = Self::default();
        if let Some(first) = first {
            client.out.extend_from_slice(first.as_bytes());
            client.out.push(b'\n');
        }
        let id = client.requests.next_id();
        let bytes = workload.open(id, &mut client.out);
        client.requests.push(Asked {
            due: now,
            is_measured: false,
            bytes,
        });
        client
    }

    /// Sends the next request.
    pub(super) fn ask(&mut self, workload: &Workload, due: Time, is_measured: bool) {
        let id = self.requests.next_id();
        let bytes = workload.write(self.turn, id, &mut self.out);
        self.turn += 1;
        self.requests.push(Asked {
            due,
            is_measured,
            bytes,
        });
    }

    /// How many requests wait for their responses.
    pub(super) fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Sends the first request another one than others do, so that not all send the same at a time.
    pub(super) fn start_at(&mut self, turn: usize) {
        self.turn = turn;
    }

    /// What is to be sent.
    pub(super) fn output(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// This much of it was sent.
    pub(super) fn written(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Gives up a request that was due at `time` or before.
    pub(super) fn give_up(&mut self, time: Time) -> Option<Asked> {
        self.requests.give_up(time)
    }

    /// The session has ended: what waits for a response gets none.
    pub(super) fn end(&mut self) -> impl Iterator<Item = Asked> {
        self.requests.drain()
    }

    /// Takes the next line from the front of `input`; `None` if none ends in it.
    pub(super) fn hear(&mut self, input: &mut &[u8], workload: &Workload) -> Option<Heard> {
        let heard = match self.splitter.next(input, LIMITS)? {
            Line::Borrowed(line) => self.hear_line(line, workload),
            Line::Buffered { bytes, len } => self.hear_line(&bytes[..len], workload),
            Line::Skipped(..) => Heard::Stray(Failure::Malformed),
        };
        Some(heard)
    }

    fn hear_line(&mut self, line: &[u8], workload: &Workload) -> Heard {
        match Message::read(line) {
            Ok(Message::Single(envelope)) if envelope.control.is_some() => Heard::Nothing,
            Ok(Message::Single(envelope)) if has_version(line) => {
                self.hear_message(&envelope, line.len() + 1, workload)
            }
            _ if line.trim_ascii().is_empty() => Heard::Nothing,
            Ok(_) | Err(_) => Heard::Stray(Failure::Malformed),
        }
    }

    fn hear_message(
        &mut self,
        envelope: &Envelope<'_>,
        bytes: usize,
        workload: &Workload,
    ) -> Heard {
        if let Some(id) = envelope.request_id() {
            // Nothing that a server may want to know is known here.
            let answer = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32601,\"message\":\"not known here\"}}}}\n"
            );
            self.out.extend_from_slice(answer.as_bytes());
            return Heard::Nothing;
        }
        if envelope.method.is_some() {
            return Heard::Nothing;
        }
        let outcome = outcome(envelope, workload);
        let Some(id) = envelope.response_id() else {
            return match outcome {
                Err(Failure::Malformed) | Ok(()) => Heard::Stray(Failure::Malformed),
                Err(_) if !self.is_open => refused(envelope),
                Err(failure) => Heard::Stray(failure),
            };
        };
        let settled = RequestId::of(id)
            .integer()
            .map_or(Settled::Unknown, |id| self.requests.settle(id));
        match settled {
            Settled::Asked(_) if !self.is_open => self.hear_opening(envelope, &outcome, workload),
            Settled::Asked(asked) => Heard::Response(asked, bytes, outcome),
            Settled::Twice => Heard::Stray(Failure::Twice),
            Settled::Late => Heard::Stray(Failure::Late),
            Settled::Unknown => Heard::Stray(Failure::UnknownId),
        }
    }

    fn hear_opening(
        &mut self,
        envelope: &Envelope<'_>,
        outcome: &Result<(), Failure>,
        workload: &Workload,
    ) -> Heard {
        if outcome.is_err() {
            return refused(envelope);
        }
        self.is_open = true;
        self.out.extend_from_slice(workload.opened());
        Heard::Opened
    }
}

fn refused(envelope: &Envelope<'_>) -> Heard {
    let words = envelope.error().unwrap_or("neither a result nor an error");
    Heard::Refused(words.to_owned())
}

/// Whether a response is a good one.
fn outcome(envelope: &Envelope<'_>, workload: &Workload) -> Result<(), Failure> {
    match (envelope.has_result(), envelope.error()) {
        (true, None) if workload.calls_tools() && is_failed_call(envelope) => Err(Failure::Tool),
        (true, None) => Ok(()),
        (false, Some(error)) => Err(Failure::of_error(error).unwrap_or(Failure::Malformed)),
        (true, Some(_)) | (false, None) => Err(Failure::Malformed),
    }
}

/// Whether the result of a call says that the tool has failed.
fn is_failed_call(envelope: &Envelope<'_>) -> bool {
    const NAME: &[u8] = br#""isError""#;
    let failed = || {
        let result = envelope.result()?;
        // To look for it takes a tenth of the time that it takes to read it.
        memchr::memmem::find(result.as_bytes(), NAME)?;
        let [failed] = json::find(result, ["isError"])?;
        Some(result.get(failed?)? == "true")
    };
    failed().unwrap_or(false)
}

/// Whether a message says that it is one of JSON-RPC 2.0.
fn has_version(line: &[u8]) -> bool {
    if line.starts_with(VERSION) {
        return true;
    }
    let version = || {
        let line = str::from_utf8(line).ok()?;
        let [version] = json::find(line, ["jsonrpc"])?;
        line.get(version?)
    };
    version() == Some("\"2.0\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workload::{Era, Request};

    const NOW: Time = Time::from_nanos(1000);

    fn workload() -> Workload {
        let request = Request::Tool {
            name: "echo".to_owned(),
            arguments: None,
            padded: None,
        };
        Workload::new(&request, Era::Legacy).unwrap()
    }

    /// An open session with request 1 under way.
    fn client() -> (Client, Workload) {
        let workload = workload();
        let mut client = Client::open(&workload, Some("{\"type\":\"handshake\"}"), NOW);
        assert!(
            client
                .output()
                .starts_with(b"{\"type\":\"handshake\"}\n{\"jsonrpc\"")
        );
        client.written(client.output().len());
        assert!(!client.is_open);
        let answer = "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{}}\n";
        assert_eq!(hear(&mut client, &workload, answer), [Heard::Opened]);
        assert!(client.output().ends_with(b"initialized\"}\n") && client.is_open);
        client.written(client.output().len());
        client.ask(&workload, NOW, true);
        client.written(client.output().len());
        (client, workload)
    }

    fn hear(client: &mut Client, workload: &Workload, text: &str) -> Vec<Heard> {
        let mut input = text.as_bytes();
        std::iter::from_fn(|| client.hear(&mut input, workload)).collect()
    }

    #[test]
    fn each_line_is_what_it_says() {
        use Failure::{Error, Malformed, Tool, UnknownId};
        for (line, failure) in [
            (
                r#""id":1,"error":{"code":-1,"message":""}"#,
                Error(-1, None),
            ),
            (r#""id":1,"result":{"content":[],"isError":true}"#, Tool),
            (r#""id":1"#, Malformed),
            (r#""id":1,"result":{},"error":{"code":1}"#, Malformed),
            (r#""id":1,"error":{"code":"1"}"#, Malformed),
        ] {
            let (mut client, workload) = client();
            let line = format!("{{\"jsonrpc\":\"2.0\",{line}}}\n");
            let heard = hear(&mut client, &workload, &line);
            let [Heard::Response(asked, bytes, Err(found))] = &heard[..] else {
                panic!("{line}: {heard:?}");
            };
            assert_eq!(
                (found, *bytes, asked.due),
                (&failure, line.len(), NOW),
                "{line}"
            );
        }
        for (line, failure) in [
            (r#"{"jsonrpc":"2.0","id":9,"result":{}}"#, UnknownId),
            (r#"{"jsonrpc":"2.0","id":"1","result":{}}"#, UnknownId),
            (r#"{"jsonrpc":"2.0","id":1.5,"result":{}}"#, UnknownId),
            (
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":7}}"#,
                Error(7, None),
            ),
            (r#"{"jsonrpc":"2.0","result":{}}"#, Malformed),
            (r#"{"id":1,"result":{}}"#, Malformed),
            ("[]", Malformed),
            ("7", Malformed),
            ("Server started", Malformed),
        ] {
            let (mut client, workload) = client();
            let heard = hear(&mut client, &workload, &format!("{line}\n"));
            assert_eq!(heard, [Heard::Stray(failure)], "{line}");
            assert_eq!(client.in_flight(), 1);
        }
    }

    #[test]
    fn good_responses_come_in_any_form_that_json_allows_and_only_once() {
        let (mut client, workload) = client();
        client.ask(&workload, NOW, false);
        let lines = "\n{\"result\":{\"isError\":false}, \"id\":2.0 ,\"jsonrpc\":\"2.0\"}\r\n\
            {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"text\":\"\\\"isError\\\":true\"}}\n\
            {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n";
        let heard = hear(&mut client, &workload, lines);
        assert!(
            matches!(
                heard[..],
                [
                    Heard::Nothing,
                    Heard::Response(
                        Asked {
                            is_measured: false,
                            ..
                        },
                        _,
                        Ok(())
                    ),
                    Heard::Response(
                        Asked {
                            is_measured: true,
                            ..
                        },
                        _,
                        Ok(())
                    ),
                    Heard::Stray(Failure::Twice)
                ]
            ),
            "{heard:?}"
        );
    }

    #[test]
    fn what_a_server_or_a_proxy_says_beside_responses_is_no_error() {
        let (mut client, workload) = client();
        let lines = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\
            {\"type\":\"heartbeat_response\",\"timestamp\":1.5,\"mcp_alive\":true}\n\
            {\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"roots/list\"}\n";
        let heard = hear(&mut client, &workload, lines);
        assert_eq!(heard, [Heard::Nothing, Heard::Nothing, Heard::Nothing]);
        assert!(
            client
                .output()
                .starts_with(br#"{"jsonrpc":"2.0","id":"a","error""#)
        );
    }

    #[test]
    fn a_session_can_be_refused() {
        for id in ["0", "null"] {
            let workload = workload();
            let mut client = Client::open(&workload, None, NOW);
            let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":401}}}}\n");
            let heard = hear(&mut client, &workload, &line);
            assert_eq!(heard, [Heard::Refused("{\"code\":401}".to_owned())]);
        }
    }

    #[test]
    fn what_is_left_open_is_given_up_or_ends() {
        let (mut client, workload) = client();
        client.ask(&workload, NOW, true);
        assert!(client.give_up(NOW).is_some());
        let late = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n";
        assert_eq!(
            hear(&mut client, &workload, late),
            [Heard::Stray(Failure::Late)]
        );
        assert_eq!(client.end().count(), 1);
        assert_eq!(client.in_flight(), 0);
    }
}
