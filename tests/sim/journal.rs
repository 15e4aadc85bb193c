//! What was said in one session, and what may become of it: the model that the session is checked against.
//!
//! It knows lines and requests, and nothing of how the session keeps them. A check that fails panics.

mod end;
mod hibernation;
mod swaps;
mod to_client;
mod to_upstream;
mod unread;
mod waiting;

use std::collections::HashMap;
use std::ops::Range;

use mcp_tcp_proxy::session::report::Exit;

use crate::text;

pub use self::end::is_unused;
pub use self::swaps::Swap;

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
    /// Where it began in what that server was sent, blanks aside.
    sent_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientSays {
    Blank,
    /// For the proxy itself.
    Control,
    /// Refused: it would be for the proxy at the other end of a link, and is the host's.
    AboutLink,
    /// Refused: it is not JSON, or no message.
    Invalid,
    /// Refused: it, or its id, is too long.
    TooLong,
    /// The first line, of another protocol: the end of the session.
    OtherProtocol,
    Initialize,
    Discover,
    Initialized,
    /// A subscription, which nobody waits for.
    Listen,
    /// A subscription to a resource, or the log level.
    SetsUp,
    /// It takes this request back.
    Cancel(usize),
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
            Self::Blank
                | Self::Control
                | Self::AboutLink
                | Self::Invalid
                | Self::TooLong
                | Self::OtherProtocol
        )
    }

    /// Whether it goes to another server even if the one that was lost has read it. A server may have died of a probe.
    pub(super) fn may_be_resent(self, is_connector: bool) -> bool {
        match self {
            Self::Initialize => true,
            Self::Discover => is_connector,
            _ => false,
        }
    }
}

/// A request of the client.
#[derive(Debug, Default)]
pub struct Request {
    pub id: String,
    pub line: usize,
    /// By the client. A server can't take it back.
    pub cancelled: bool,
    /// Its batch was sent without it.
    pub taken_out: bool,
    /// Where in the order of requests it began to be sent.
    begun: Option<u64>,
    answers: u32,
    answered_by_proxy: bool,
    /// It was taken back when it had been refused, although the client did not know that yet.
    refused_unseen: bool,
    /// It is a subscription that the proxy has closed.
    closed: bool,
    /// It is a `ping` that woke nobody.
    ponged: bool,
    /// It is a subscription that a server may have ended.
    may_be_ended: bool,
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
    /// The same, by the proxy, as the server is gone.
    orphaned: bool,
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
    /// What the client had set up, under this id.
    Restored(String),
    /// Which versions it speaks, under this id.
    Question(String),
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
        self.server == server && !is_doubtful && !self.taken_back && !self.orphaned
    }
}

/// One upstream, as the session is to see it.
#[derive(Debug)]
pub struct ServerRecord {
    /// Whether it has to be greeted, as the client has read an answer to `initialize` before it was started.
    due: bool,
    replayed: bool,
    pub replay_responded: bool,
    /// It has got what the client says to servers that know it.
    serves: bool,
    /// It was told that the handshake is over.
    initialized: bool,
    /// The answer to a replay was not that of the server before.
    pub replay_differs: bool,
    pub written: u64,
    /// How much the session had read when it let go of it.
    pub read_at_release: Option<u64>,
    /// The session may let go of it before it has read everything.
    pub may_be_cut_off: bool,
    last_lost: u64,
    /// It was given back.
    pub hibernated: bool,
    /// It was the first that was tried after one that was given back.
    pub wakes: bool,
    /// It is of another version than one before it.
    pub is_other_version: bool,
    /// Where what it has not read begins, if the session knows.
    unread_from: Option<u64>,
    /// How it came to the session, if that was at the user's wish.
    pub swap: Swap,
    /// Another one was wanted in its place, and has come or will.
    is_replaced: bool,
    /// The first of its lines that may still reach the client, or a line before that.
    next_said: usize,
}

/// What of the client's bytes the session has to answer for.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    pub bytes: u64,
    /// Whether it knows that there are no more.
    pub end: bool,
}

impl Heard {
    /// Whether it was all of this line.
    fn has(self, line: &ClientLine) -> bool {
        line.end <= self.bytes || (self.end && line.text_end <= self.bytes)
    }
}

#[derive(Debug, Default)]
pub struct Journal {
    pub is_connector: bool,
    /// Whether handshakes are replayed.
    pub may_replay: bool,
    /// The client is a stranger: nothing that it says may be looked at.
    pub is_other_protocol: bool,
    pub lines: Vec<ClientLine>,
    pub requests: Vec<Request>,
    by_id: HashMap<String, usize>,
    pub said: Vec<ServerLine>,
    pub servers: Vec<ServerRecord>,
    /// What else may be lost because of its size.
    pub memory_is_short: bool,
    /// The program was told to stop: requests are refused.
    pub is_stopping: bool,
    /// The next line of each kind that was not sent.
    next_other: usize,
    next_answer: usize,
    /// The session was to get another server. Cancellations may overtake what waits for that one.
    pub was_swapped: bool,
    /// It has agreed to other capabilities than before.
    pub has_other_capabilities: bool,
    /// The first line that the session has not read.
    next_heard: usize,
    begun: u64,
    answered: usize,
    /// Subscriptions without an answer.
    listening: usize,
    announced: bool,
    /// It has made a request that does not say that it is modern.
    has_legacy_request: bool,
    list_changes: usize,
    initialize_answered: bool,
    initialize_delivered: bool,
    /// Errors without an id: of lines that can't be read, and of those too long.
    pub parse_errors: usize,
    pub null_too_large: usize,
    /// And of those that would be for the proxy at the other end.
    pub about_link: usize,
    /// An `initialize` was answered as lost with its server, which only a session may do that goes on with no other.
    pub lost_initialize: bool,
    pub proxy_errors: u64,
    pub resent: u64,
    pub unread: u64,
    pub replays: u64,
    pub notices: usize,
    pub losses: u32,
    pub spawn_failures: u32,
    /// How often in a row servers ended with the same exit code, and the most there were.
    pub same_codes: (i32, u32),
    pub most_same_codes: u32,
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

    pub fn client_says(&mut self, text: Vec<u8>, what: ClientSays, ids: Vec<String>) -> usize {
        let first = self.requests.len();
        let line = self.lines.len();
        let ids_are_empty = ids.is_empty();
        for id in ids {
            self.by_id.insert(id.clone(), self.requests.len());
            self.requests.push(Request {
                id,
                line,
                ..Request::default()
            });
        }
        self.announced |= what == ClientSays::Control;
        let may_decide =
            !ids_are_empty && !matches!(what, ClientSays::Discover | ClientSays::TooLong);
        self.has_legacy_request |= may_decide && !text::is_modern(&text);
        self.listening += usize::from(what == ClientSays::Listen);
        self.is_other_protocol |= what == ClientSays::OtherProtocol;
        self.lines.push(ClientLine {
            text,
            text_end: u64::MAX,
            end: u64::MAX,
            what,
            requests: first..self.requests.len(),
            sent_to: None,
            sent_at: 0,
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
            orphaned: false,
        });
    }

    pub fn server_started(&mut self) -> usize {
        self.servers.push(ServerRecord {
            due: self.may_replay && self.initialize_delivered,
            replayed: false,
            serves: false,
            initialized: false,
            replay_responded: false,
            replay_differs: false,
            written: 0,
            read_at_release: None,
            may_be_cut_off: false,
            last_lost: 0,
            hibernated: false,
            wakes: false,
            is_other_version: false,
            unread_from: None,
            swap: Swap::No,
            is_replaced: false,
            next_said: 0,
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

    /// A server takes back a request with this id: one of its own, or a subscription, which it ends without an answer. If
    /// there are both, and its own was answered, nobody can tell.
    pub fn server_cancels(&mut self, id: &str) {
        let request = self.by_id.get(id).copied();
        if let Some(request) = request.filter(|request| self.is_listen(*request)) {
            self.requests[request].may_be_ended = true;
        }
    }

    /// A server is gone.
    pub fn server_ended(&mut self, exit: Option<Exit>) {
        let Some(Exit::Code(code)) = exit else {
            self.same_codes.1 = 0;
            return;
        };
        if self.same_codes.0 != code {
            self.same_codes = (code, 0);
        }
        self.same_codes.1 += 1;
        self.most_same_codes = self.most_same_codes.max(self.same_codes.1);
    }

    /// Whether this request is a probe.
    pub fn is_probe(&self, request: usize) -> bool {
        self.lines[self.requests[request].line].what == ClientSays::Discover
    }

    /// Whether the last server may have died of a probe.
    pub fn was_probed(&self) -> bool {
        let last = self.present();
        let mut probes = self
            .lines
            .iter()
            .filter(|line| line.what == ClientSays::Discover);
        probes.any(|line| line.sent_to == last)
    }

    /// Whether this request is a probe, of which nobody knows any more once an `initialize` was answered.
    fn may_be_forgotten(&self, request: &Request) -> bool {
        self.lines[request.line].what == ClientSays::Discover && self.initialize_answered
    }

    /// A server wrote the answer to an `initialize`.
    pub fn initialize_answered(&mut self) {
        self.initialize_answered = true;
    }

    /// Requests without an answer.
    pub fn unanswered(&self) -> usize {
        self.requests.len() - self.answered
    }

    /// The same without subscriptions.
    pub fn awaited(&self) -> usize {
        self.unanswered() - self.listening
    }

    fn is_listen(&self, request: usize) -> bool {
        self.lines[self.requests[request].line].what == ClientSays::Listen
    }
}
