//! What was said in one session, and what may become of it: the model that the session is checked against.
//!
//! It knows lines and requests, and nothing of how the session keeps them. A check that fails panics.

use std::collections::HashMap;
use std::ops::Range;

use mcp_tcp_proxy::session::report::EndReason;

use crate::text;

/// A line of the client.
#[derive(Debug)]
pub struct ClientLine {
    /// As a server is to get it.
    pub text: Vec<u8>,
    /// Where it ends in what the client says: without, and with its line end.
    pub text_end: u64,
    pub end: u64,
    pub what: ClientSays,
    /// The requests in it.
    pub requests: Range<usize>,
    /// The last server that it was sent to.
    sent_to: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientSays {
    Blank,
    /// For the proxy itself.
    Control,
    /// Refused: it is not JSON, or no message.
    Invalid,
    /// Refused: it, or its id, is too long.
    TooLong,
    Initialize,
    Discover,
    Initialized,
    Other,
    /// To what a server asked in this line of its own.
    Answer(usize),
    /// To a request that nobody made.
    StrayAnswer,
}

impl ClientSays {
    fn is_forwarded(self) -> bool {
        !matches!(
            self,
            Self::Blank | Self::Control | Self::Invalid | Self::TooLong
        )
    }

    fn may_be_resent(self) -> bool {
        matches!(self, Self::Initialize | Self::Discover)
    }
}

/// A request of the client.
#[derive(Debug, Default)]
pub struct Request {
    pub id: String,
    pub line: usize,
    /// By either side.
    pub cancelled: bool,
    /// Where in the order of requests it began to be sent.
    begun: Option<u64>,
    answers: u32,
    answered_by_proxy: bool,
}

/// A line of a server.
#[derive(Debug)]
pub struct ServerLine {
    pub text: Vec<u8>,
    pub server: usize,
    /// Where it ends in what the server wrote, without its line end.
    pub end: u64,
    pub what: ServerSays,
    delivered: bool,
    /// It is a request that the server took back: whose the answer is can't be told any more.
    pub taken_back: bool,
    /// It is a request that the client has answered.
    pub answered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerSays {
    /// No message: it goes to the log.
    Noise,
    /// For the other end of the connection, or the answer to a replay: the client does not get it.
    Swallowed,
    /// Over the limit; the request that it answers is answered by the proxy.
    TooLong(Option<usize>),
    /// The answer to a request.
    Answer(usize),
    Request(String),
    Other,
}

/// What a server was sent, as its program has to know it.
#[derive(Debug, Clone)]
pub enum Received {
    Line(usize),
    Replay(String),
    /// From one end of a connection to the other.
    Heartbeat,
    Nothing,
}

/// What the client was sent, as its program has to know it.
#[derive(Debug, Clone)]
pub enum Comes {
    /// The answer to an `initialize`.
    Initialized,
    Request(usize),
    Restarted,
    Nothing,
}

impl ServerLine {
    /// Whether an answer to it has to reach this server. Numbers are used by each server anew, so an answer to one may
    /// be taken for that to a server before.
    fn is_answerable_by(&self, server: usize) -> bool {
        let is_doubtful =
            matches!(&self.what, ServerSays::Request(id) if server > 0 && !id.starts_with('"'));
        self.server == server && !is_doubtful && !self.taken_back
    }
}

/// One upstream, as the session is to see it.
#[derive(Debug)]
pub struct ServerRecord {
    /// Whether it has to be greeted, as the client has read an answer to `initialize` before it was started.
    due: bool,
    replayed: bool,
    pub replay_answered: bool,
    /// It has got what the client says to servers that know it.
    serves: bool,
    /// The answer to a replay was not that of the server before.
    pub replay_differs: bool,
    pub written: u64,
    /// How much the session had read when it let go of it.
    pub read_at_release: Option<u64>,
    /// The session may let go of it before it has read everything.
    pub may_be_cut_off: bool,
    last_lost: u64,
}

/// What of the client's bytes the session has to answer for.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    pub bytes: u64,
    /// Whether it knows that there are no more.
    pub end: bool,
}

#[derive(Debug, Default)]
pub struct Journal {
    pub is_connector: bool,
    pub lines: Vec<ClientLine>,
    pub requests: Vec<Request>,
    by_id: HashMap<String, usize>,
    pub said: Vec<ServerLine>,
    pub servers: Vec<ServerRecord>,
    /// What else may be lost because of its size.
    pub memory_is_short: bool,
    /// The next line of each kind that was not sent.
    next_other: usize,
    next_answer: usize,
    next_said: usize,
    begun: u64,
    answered: usize,
    announced: bool,
    initialize_answered: bool,
    initialize_delivered: bool,
    /// Errors without an id: of lines that can't be read, and of those too long.
    pub parse_errors: usize,
    pub null_too_large: usize,
    pub proxy_errors: u64,
    pub resent: u64,
    pub replays: u64,
    pub notices: usize,
    pub losses: u32,
    pub spawn_failures: u32,
}

/// Lines that are longer may be refused for want of memory.
const SAFE_BYTES: usize = 30_000;

impl Journal {
    pub fn new(is_connector: bool, memory_is_short: bool) -> Self {
        Self {
            is_connector,
            memory_is_short,
            ..Self::default()
        }
    }

    // What the programs say.

    pub fn client_says(&mut self, text: Vec<u8>, what: ClientSays, ids: Vec<String>) -> usize {
        let first = self.requests.len();
        let line = self.lines.len();
        for id in ids {
            self.by_id.insert(id.clone(), self.requests.len());
            self.requests.push(Request {
                id,
                line,
                ..Request::default()
            });
        }
        self.announced |= what == ClientSays::Control;
        self.lines.push(ClientLine {
            text,
            text_end: u64::MAX,
            end: u64::MAX,
            what,
            requests: first..self.requests.len(),
            sent_to: None,
        });
        line
    }

    pub fn server_says(&mut self, server: usize, text: Vec<u8>, end: u64, what: ServerSays) {
        self.said.push(ServerLine {
            text,
            server,
            end,
            what,
            delivered: false,
            taken_back: false,
            answered: false,
        });
    }

    pub fn server_started(&mut self) -> usize {
        self.servers.push(ServerRecord {
            due: self.initialize_delivered,
            replayed: false,
            serves: false,
            replay_answered: false,
            replay_differs: false,
            written: 0,
            read_at_release: None,
            may_be_cut_off: false,
            last_lost: 0,
        });
        self.servers.len() - 1
    }

    /// A server takes back a request of its own.
    pub fn take_back(&mut self, index: usize) -> Option<String> {
        let line = &mut self.said[index];
        line.taken_back = true;
        let ServerSays::Request(id) = &line.what else {
            return None;
        };
        Some(id.clone())
    }

    /// Whether this request may have been taken for one that a server took back: numbers are used by both sides, and a
    /// server that takes back what was answered meanwhile has nothing of its own to take back.
    fn may_be_mistaken(&self, id: &str) -> bool {
        self.said.iter().any(|line| {
            let is_same = matches!(&line.what, ServerSays::Request(own) if own == id);
            is_same && line.taken_back && (line.answered || line.server > 0)
        })
    }

    /// A server wrote the answer to an `initialize`.
    pub fn initialize_answered(&mut self) {
        self.initialize_answered = true;
    }

    // What the session passes on.

    /// The session began to send this line to a server.
    pub fn sent_to_server(&mut self, server: usize, text: &[u8]) -> Received {
        if let Some(line) =
            text::serial(text, text::CLIENT_SERIAL).filter(|line| *line < self.lines.len())
        {
            return self.client_line_begins(server, line, text);
        }
        if text == text::INITIALIZED {
            let said = self
                .lines
                .iter()
                .any(|line| line.what == ClientSays::Initialized);
            assert!(
                said && self.initialize_answered,
                "the proxy says 'initialized' for a client that did not"
            );
        } else {
            assert!(
                self.is_connector
                    && (text.starts_with(br#"{"type":"handshake","#)
                        || text.starts_with(br#"{"type":"heartbeat","#)),
                "a server gets what no client said: {}",
                text::show(text)
            );
            return Received::Heartbeat;
        }
        Received::Nothing
    }

    fn client_line_begins(&mut self, server: usize, index: usize, text: &[u8]) -> Received {
        let line = &self.lines[index];
        if line.text != text {
            return self.replay(server, index, text);
        }
        assert!(
            line.what.is_forwarded(),
            "a server gets a line that is not to be forwarded: {}",
            text::show(text)
        );
        match line.what {
            ClientSays::Answer(request) => {
                assert!(
                    line.sent_to.is_none(),
                    "an answer is sent twice: {}",
                    text::show(text)
                );
                let request = &self.said[request];
                if !request.taken_back {
                    let asked = request.server;
                    assert!(
                        asked == server,
                        "an answer to server {asked} reaches server {server}: {}",
                        text::show(text)
                    );
                    if request.is_answerable_by(server) {
                        self.skip_answers(index, server);
                    }
                }
            }
            ClientSays::StrayAnswer => {
                assert!(
                    line.sent_to.is_none(),
                    "an answer is sent twice: {}",
                    text::show(text)
                );
            }
            what => {
                let record = &self.servers[server];
                assert!(
                    !record.due || record.replayed || what == ClientSays::Initialize,
                    "a server that knows no client gets {}",
                    text::show(text)
                );
                assert!(
                    !record.replayed || record.replay_answered,
                    "a server gets a line before it has answered the replayed handshake: {}",
                    text::show(text)
                );
                if let Some(before) = line.sent_to {
                    let lost = self.servers[before].read_at_release.is_some();
                    assert!(
                        what.may_be_resent() && lost && before != server,
                        "a line is sent twice, to server {before} and server {server}: {}",
                        text::show(text)
                    );
                    self.resent += 1;
                } else {
                    self.skip_others(index);
                }
                self.servers[server].due = false;
                self.servers[server].serves = true;
            }
        }
        self.lines[index].sent_to = Some(server);
        for request in &mut self.requests[self.lines[index].requests.clone()] {
            assert!(
                request.answers == 0,
                "a request is sent after it was answered: {}",
                text::show(text)
            );
            request.begun = Some(self.begun);
            self.begun += 1;
        }
        Received::Line(index)
    }

    /// Lines are left out only if they are not to be forwarded, or were refused, which is looked at in the end.
    fn skip_others(&mut self, index: usize) {
        assert!(
            index >= self.next_other,
            "lines overtake each other: {}",
            text::show(&self.lines[index].text)
        );
        for line in &self.lines[self.next_other..index] {
            let is_answer = matches!(line.what, ClientSays::Answer(_) | ClientSays::StrayAnswer);
            let may_be_refused =
                !line.requests.is_empty() || (self.memory_is_short && line.text.len() > SAFE_BYTES);
            assert!(
                !line.what.is_forwarded() || is_answer || line.sent_to.is_some() || may_be_refused,
                "a line of the client is lost: {}",
                text::show(&line.text)
            );
        }
        self.next_other = index + 1;
    }

    fn skip_answers(&mut self, index: usize, server: usize) {
        assert!(
            index >= self.next_answer,
            "answers overtake each other: {}",
            text::show(&self.lines[index].text)
        );
        for line in &self.lines[self.next_answer..index] {
            let is_lost = matches!(line.what, ClientSays::Answer(request) if self.said[request].is_answerable_by(server))
                && line.sent_to.is_none()
                && !(self.memory_is_short && line.text.len() > SAFE_BYTES);
            assert!(
                !is_lost,
                "an answer of the client is lost: {}",
                text::show(&line.text)
            );
        }
        self.next_answer = index + 1;
    }

    fn replay(&mut self, server: usize, index: usize, text: &[u8]) -> Received {
        let line = &self.lines[index];
        assert!(
            line.what == ClientSays::Initialize,
            "a line is altered: {} was {}",
            text::show(text),
            text::show(&line.text)
        );
        let id = text::replay_id(text)
            .unwrap_or_else(|| panic!("a line is altered: {}", text::show(text)));
        let old = &self.requests[line.requests.start].id;
        assert!(
            text::with_id(&line.text, old, &id) == text,
            "the replay is not what the client said: {}",
            text::show(text)
        );
        assert!(
            self.initialize_answered,
            "a handshake is replayed that did not take place"
        );
        let record = &mut self.servers[server];
        assert!(
            !record.replayed,
            "a handshake is replayed twice to one server"
        );
        record.replayed = true;
        record.due = false;
        self.replays += 1;
        Received::Replay(id)
    }

    /// The session began to send this line to the client.
    pub fn sent_to_client(&mut self, text: &[u8]) -> Comes {
        if let Some(line) =
            text::serial(text, text::SERVER_SERIAL).filter(|line| *line < self.said.len())
        {
            return self.server_line_begins(line, text);
        }
        if text.starts_with(br#"{"type":"heartbeat_response","timestamp":"#) {
            assert!(
                self.announced && !self.is_connector,
                "a heartbeat for a client that did not ask"
            );
        } else if text.starts_with(br#"{"jsonrpc":"2.0","method":"$/mcp/serverRestarted","#) {
            self.notices += 1;
            assert!(
                !self.is_connector && self.notices < self.servers.len(),
                "a restart is told of that was none"
            );
            return Comes::Restarted;
        } else {
            self.proxy_answers(text);
        }
        Comes::Nothing
    }

    fn server_line_begins(&mut self, index: usize, text: &[u8]) -> Comes {
        let line = &self.said[index];
        // A carriage return at its end may have been lost with the rest of what the server wrote.
        let was_cut_off = line.text.strip_suffix(b"\r") == Some(text)
            && self.servers[line.server].written < line.end;
        assert!(
            line.text == text || was_cut_off,
            "a line is altered: {} was {}",
            text::show(text),
            text::show(&line.text)
        );
        assert!(
            !line.delivered,
            "a line reaches the client twice: {}",
            text::show(text)
        );
        assert!(
            index >= self.next_said,
            "the server's lines overtake each other: {}",
            text::show(text)
        );
        for skipped in self.next_said..index {
            assert!(
                !self.is_owed(skipped),
                "a line of the server is lost: {}",
                text::show(&self.said[skipped].text)
            );
        }
        self.next_said = index + 1;
        let line = &mut self.said[index];
        line.delivered = true;
        match line.what {
            ServerSays::Answer(request) => {
                let is_initialize =
                    self.lines[self.requests[request].line].what == ClientSays::Initialize;
                self.answered(request, false);
                if is_initialize {
                    // A request that was taken back is not waited for, so its answer is nobody's.
                    self.initialize_delivered |= !self.requests[request].cancelled;
                    return Comes::Initialized;
                }
            }
            ServerSays::Request(_) => return Comes::Request(index),
            ServerSays::Other => {}
            ServerSays::Noise | ServerSays::Swallowed | ServerSays::TooLong(_) => {
                panic!("the client gets what is not for it: {}", text::show(text))
            }
        }
        Comes::Nothing
    }

    /// Whether the client is to get this line of a server, as the session has read it or still can.
    fn is_owed(&self, index: usize) -> bool {
        let line = &self.said[index];
        let server = &self.servers[line.server];
        let may_be_lost = self.memory_is_short && line.text.len() > SAFE_BYTES;
        let was_cut_off =
            server.may_be_cut_off && server.read_at_release.is_some_and(|read| read < line.end);
        let is_for_client = matches!(
            line.what,
            ServerSays::Answer(..) | ServerSays::Request(_) | ServerSays::Other
        );
        is_for_client
            && line.end <= server.written
            && !line.delivered
            && !may_be_lost
            && !was_cut_off
    }

    fn proxy_answers(&mut self, text: &[u8]) {
        let error = text::OwnError::read(text)
            .unwrap_or_else(|| panic!("the client gets what nobody said: {}", text::show(text)));
        self.proxy_errors += 1;
        if error.id == "null" {
            match error.code {
                -32700 => self.parse_errors += 1,
                -32600 => self.null_too_large += 1,
                _ => {}
            }
            return;
        }
        let Some(&request) = self.by_id.get(&error.id) else {
            panic!(
                "an error for an id that no request has: {}",
                text::show(text)
            );
        };
        self.answered(request, true);
        let is_too_long = self.lines[self.requests[request].line].what == ClientSays::TooLong;
        let begun = self.requests[request].begun;
        match error.code {
            502 => {
                let begun = begun.unwrap_or_else(|| {
                    panic!("502 for a request that no server got: {}", text::show(text))
                });
                let server = self.lines[self.requests[request].line]
                    .sent_to
                    .unwrap_or_default();
                let record = &mut self.servers[server];
                assert!(
                    record.last_lost <= begun,
                    "lost requests are answered out of order: {}",
                    text::show(text)
                );
                record.last_lost = begun;
            }
            429 => assert!(
                begun.is_none(),
                "429 for a request that a server got: {}",
                text::show(text)
            ),
            -32600 => {
                let answer_too_long = self
                    .said
                    .iter()
                    .rev()
                    .any(|line| line.what == ServerSays::TooLong(Some(request)));
                let short = self.memory_is_short;
                assert!(
                    is_too_long || answer_too_long || short,
                    "nothing was too large: {}",
                    text::show(text)
                );
            }
            503 => {}
            code => panic!("an unknown error code {code}: {}", text::show(text)),
        }
    }

    fn answered(&mut self, request: usize, by_proxy: bool) {
        let request = &mut self.requests[request];
        request.answers += 1;
        assert!(
            request.answers == 1,
            "request {} is answered twice, the second time by {}",
            request.id,
            if by_proxy { "the proxy" } else { "a server" }
        );
        request.answered_by_proxy = by_proxy;
        self.answered += 1;
    }

    // The end.

    /// The session is over, and its client was there up to then.
    pub fn check_end(&self, heard: Heard, reason: Option<&EndReason>, calm: bool) {
        let is_heard = |line: &&ClientLine| {
            line.end <= heard.bytes || (heard.end && line.text_end <= heard.bytes)
        };
        let heard_lines = || self.lines.iter().filter(is_heard);
        for line in heard_lines() {
            for request in &self.requests[line.requests.clone()] {
                assert!(
                    request.answers == 1 || request.cancelled || self.may_be_mistaken(&request.id),
                    "request {} is never answered; the session ended with {reason:?}",
                    request.id
                );
            }
        }
        let refused = heard_lines()
            .filter(|line| line.what == ClientSays::Invalid)
            .count();
        let all = self
            .lines
            .iter()
            .filter(|line| line.what == ClientSays::Invalid)
            .count();
        // The last line may have been cut off.
        assert!(
            (refused..=all + 1).contains(&self.parse_errors) || self.memory_is_short,
            "{} parse errors for {refused} lines",
            self.parse_errors
        );
        // A session that can't go on with a server does not wait for what else it has to say.
        // A session that can't go on with a server does not wait for what else it has to say.
        let cut_short = self
            .servers
            .iter()
            .any(|server| server.replayed && !server.serves);
        if !cut_short && !self.is_connector {
            for index in self.next_said..self.said.len() {
                assert!(
                    !self.is_owed(index),
                    "a line of the server is lost at the end: {}",
                    text::show(&self.said[index].text)
                );
            }
        }
        if calm {
            self.check_calm();
        }
    }

    /// Nothing went wrong: all that is to be forwarded was, and only servers have answered.
    fn check_calm(&self) {
        for line in &self.lines {
            assert!(
                !line.what.is_forwarded() || line.sent_to.is_some(),
                "a line is lost though nothing went wrong: {}",
                text::show(&line.text)
            );
            for request in &self.requests[line.requests.clone()] {
                let refused = line.what == ClientSays::TooLong;
                assert!(
                    refused
                        || !request.answered_by_proxy
                        || self
                            .said
                            .iter()
                            .any(|line| matches!(line.what, ServerSays::TooLong(Some(_)))),
                    "the proxy answers request {} though nothing went wrong",
                    request.id
                );
            }
        }
    }

    /// A reason to end has to have a cause.
    pub fn check_reason(&self, reason: &EndReason, renews: bool, max_restarts: u32) {
        let losses = self.losses + self.spawn_failures;
        let is_caused = match reason {
            EndReason::ServerEnded(_) => !renews && self.losses > 0,
            EndReason::RestartLimit { .. } => losses > max_restarts,
            EndReason::SpawnFailed(_) => {
                self.spawn_failures > 0 && (!renews || losses > max_restarts)
            }
            EndReason::ServerChanged => self.servers.iter().any(|server| server.replay_differs),
            EndReason::ReplayTimeout(_) => self.servers.iter().any(|server| server.replayed),
            _ => true,
        };
        assert!(
            is_caused,
            "the session ended with {reason:?}, for which there was no cause"
        );
    }

    /// Requests without an answer.
    pub fn unanswered(&self) -> usize {
        self.requests.len() - self.answered
    }
}
