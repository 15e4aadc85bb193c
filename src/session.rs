//! The state machine of one session: a client, and an upstream that can be lost and renewed.
//!
//! Events and bytes go in, bytes and [`Action`]s come out. Nothing in here knows a file descriptor, a process or a
//! clock: time is in every [`Turn`]. What the two sides send is handled in `from_client` and `from_server`, the life
//! of the upstream in `upstream`, the way to the end of the session in `ending`.

mod ending;
mod from_client;
mod from_server;
mod greeting;
pub mod heartbeat;
pub mod idle;
pub mod in_flight;
mod own_lines;
pub mod peer;
pub mod reconnect;
mod renewal;
pub mod replay;
pub mod report;
pub mod restart;
mod server_log;
pub mod stderr;
#[cfg(test)]
mod tests;
mod upstream;

use std::time::{Duration, Instant};

use self::ending::{Goal, LastCall};
use self::heartbeat::Heartbeat;
use self::idle::{IdleLimits, LastLine};
use self::in_flight::{InFlight, Load, Request, ServerRequests};
use self::peer::Peer;
use self::renewal::Policy;
use self::replay::Handshake;
use self::report::{EndReason, Summary, Tag, Traffic};
use self::server_log::ServerLog;
use self::upstream::Upstream;
use crate::memory::{FREE_BYTES, Memory};
use crate::outbox::Outbox;
use crate::protocol::id::RequestId;
use crate::protocol::lines::{Line, LineLimits, Splitter};

/// Of each direction, so much may wait before what feeds it is not read any more, in bytes.
const OUTBOX_BYTES: usize = 64 * 1024;

/// A line of which more than this has come is read in larger pieces, in bytes.
const LARGE_LINE_BYTES: usize = 32 * 1024;

/// Of the proxy's own lines, so much may wait for a client before it is not read any more, in bytes.
const OWN_LINES_BYTES: usize = 64 * 1024;

/// After a server was started again, this long it must live before the client is told.
const NOTICE_DELAY: Duration = Duration::from_millis(500);

/// What holds for all sessions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the session is a part of.
    pub role: Role,
    /// The time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Whether a lost upstream is renewed.
    pub renews: bool,
    /// The longest line either way, in bytes, without its line end.
    pub max_message_bytes: usize,
    /// How long a restarted server may take to answer the replayed handshake.
    pub replay_timeout: Duration,
    /// When the first upstream is started.
    pub spawn: Spawn,
    /// When a session that is not used is ended.
    pub idle_limits: IdleLimits,
}

/// When a session's first upstream is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spawn {
    /// At once.
    Eager,
    /// When the client has sent something for it.
    Lazy,
}

/// What a session is a part of.
#[derive(Debug, Clone)]
pub enum Role {
    /// The serving side: its clients come over TCP, its upstreams are server processes.
    Proxy {
        /// How many times a server is restarted within the window of its policy.
        max_restarts: u32,
    },
    /// The stdio side: its client is the program that started it, its upstream a connection to a proxy.
    Connector {
        /// The longest delay between two attempts to connect.
        max_delay: Duration,
        /// How many attempts are made in a row; `None` for no end.
        max_attempts: Option<u32>,
    },
}

/// What an event is handled with.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The time, read once for all events of a turn of the loop.
    pub now: Instant,
    /// What holds for all sessions.
    pub settings: &'a Settings,
    /// The memory that all sessions share.
    pub memory: &'a mut Memory,
    /// Where actions go; they are carried out after the event.
    pub actions: &'a mut Vec<Action>,
}

/// What the session wants done to its two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the upstream, and tell by [`Session::upstream_started`] or [`Session::upstream_failed`].
    StartUpstream,
    /// Make the upstream end: close its input, and use force if it does not go.
    StopUpstream,
    /// The upstream is gone, and all that it said was read: let go of it.
    ReleaseUpstream,
    /// Send the client the end of our side; nothing more will be sent.
    ShutdownClient,
    /// Close the connection to the client.
    CloseClient,
}

/// The client's side of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// It may send.
    Open,
    /// It has ended its side, and still takes what it is sent.
    Ended,
    /// Our side has ended too. What it sends is discarded, up to its end, so that no reset destroys our last lines.
    Lingering { until: Instant, discarded: usize },
    /// There is no connection.
    Closed,
}

/// What a line on its way to the server means.
#[derive(Debug)]
enum ToServer {
    Request(Request),
    /// What there is to know about the messages in a batch, in order. There are no batches in it.
    Batch(Box<[ToServer]>),
    /// An answer to a request of the present server; no other server may get it.
    Answer,
    /// `notifications/initialized` of the client.
    Initialized,
    /// The client takes a request back.
    Cancelled(RequestId),
    /// The handshake, sent by the proxy.
    Replay,
    /// `notifications/initialized`, sent by the proxy.
    ReplayedInitialized,
    /// A line about the connection, for the proxy at its other end.
    Control,
}

impl ToServer {
    /// The requests that come with the line.
    fn requests(&self) -> impl Iterator<Item = &Request> {
        let parts = match self {
            Self::Batch(parts) => parts,
            single => std::slice::from_ref(single),
        };
        parts.iter().filter_map(|part| match part {
            Self::Request(request) => Some(request),
            _ => None,
        })
    }
}

/// Lines for the client that are the proxy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnLine {
    Heartbeat,
    Other,
}

/// A client and an upstream.
#[derive(Debug)]
pub struct Session {
    tag: Tag,
    opened: Instant,
    client: Client,
    /// Since when the client is known to have hung up, although not everything it sent was read.
    hung_up: Option<Instant>,
    upstream: Upstream,
    goal: Goal,
    last_call: Option<Box<LastCall>>,
    /// Whether the program is being stopped.
    stopping: bool,
    end_reason: EndReason,

    from_client: Splitter,
    /// What was read from the client while it could not be handled any further.
    unread: Option<Box<Unread>>,
    from_server: Splitter,
    to_client: Outbox<OwnLine>,
    /// For the present server.
    to_server: Outbox<ToServer>,
    /// For a server that is not there, or that has not been greeted.
    held: Option<Box<Outbox<ToServer>>>,
    /// The requests in `to_server` and `held`.
    queued: Load,

    in_flight: InFlight,
    server_requests: ServerRequests,
    handshake: Handshake,
    replays: u32,
    policy: Policy,
    /// The proxy at the other end, while connected to one.
    peer: Option<Box<Peer>>,
    /// A restart that the client has not been told of, and that cost it something.
    notice_owed: bool,
    heartbeat: Heartbeat,
    heartbeat_waits: bool,
    was_listening: bool,
    was_reading: bool,

    /// When either side last took something.
    last_taken: Instant,
    last_line: LastLine,
    /// Since when the client has taken nothing of what waits for it; `None` if nothing does.
    untaken_since: Option<Instant>,
    /// What of the shared memory this session holds, in bytes.
    charged: usize,
    sent_to_server: Traffic,
    sent_to_client: Traffic,
    server_log: ServerLog,
}

/// The earlier of two times.
fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Bytes that were read and not handled. There are some.
#[derive(Debug)]
struct Unread {
    bytes: Vec<u8>,
    at: usize,
}

impl Session {
    /// Begins a session: asks for its server, unless that is to wait for the client.
    pub fn open(tag: Tag, turn: &mut Turn<'_>) -> Self {
        let mut session = Self::new(tag, turn);
        session.upstream = Upstream::OnDemand;
        if turn.settings.spawn == Spawn::Eager {
            session.start_upstream(turn);
        }
        session
    }

    /// A session that has no place: it says so to the client and ends.
    pub fn refuse(tag: Tag, limit: usize, turn: &mut Turn<'_>) -> Self {
        let mut session = Self::new(tag, turn);
        session.end_reason = EndReason::SessionLimit(limit);
        session.goal = Goal::End;
        session.reply_error(
            None,
            session.end_reason.reply_reason(),
            &session.end_reason.to_string(),
            turn,
        );
        session.finish_event(turn);
        session
    }

    fn new(tag: Tag, turn: &Turn<'_>) -> Self {
        Self {
            tag,
            opened: turn.now,
            client: Client::Open,
            hung_up: None,
            upstream: Upstream::None,
            goal: Goal::Serve,
            last_call: None,
            stopping: false,
            end_reason: EndReason::ClientEnded,
            from_client: Splitter::default(),
            unread: None,
            from_server: Splitter::verbatim(),
            to_client: Outbox::default(),
            to_server: Outbox::default(),
            held: None,
            queued: Load::default(),
            in_flight: InFlight::default(),
            server_requests: ServerRequests::default(),
            handshake: Handshake::default(),
            replays: 0,
            policy: Policy::new(&turn.settings.role),
            peer: None,
            notice_owed: false,
            heartbeat: Heartbeat::new(turn.now),
            heartbeat_waits: false,
            was_listening: true,
            was_reading: true,
            last_taken: turn.now,
            last_line: LastLine::default(),
            untaken_since: None,
            charged: 0,
            sent_to_server: Traffic::default(),
            sent_to_client: Traffic::default(),
            server_log: ServerLog::default(),
        }
    }

    /// Who the session is, for log lines.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Whether both sides are gone, and the session can be forgotten.
    pub fn is_finished(&self) -> bool {
        self.client == Client::Closed && matches!(self.upstream, Upstream::None)
    }

    /// What there is to say at the end.
    pub fn summary(&self, now: Instant) -> Summary<'_> {
        Summary {
            tag: &self.tag,
            reason: &self.end_reason,
            opened: self.opened,
            now,
            to_server: self.sent_to_server,
            to_client: self.sent_to_client,
        }
    }

    /// Whether the session was turned away, and never counted.
    pub fn was_refused(&self) -> bool {
        matches!(self.end_reason, EndReason::SessionLimit(_))
    }

    /// Whether what the client sends is to be read now.
    pub fn wants_client(&self) -> bool {
        match self.client {
            Client::Open => self.unread.is_none() && self.listens(),
            Client::Lingering { .. } => true,
            Client::Ended | Client::Closed => false,
        }
    }

    /// Whether what the server writes to its stdout is to be read now.
    ///
    /// If neither side takes anything, both may be waiting for this session to read them. The server is then read
    /// beyond the limit, as long as memory is plentiful: its answers are what the client waits for.
    pub fn wants_upstream(&self, memory: &Memory) -> bool {
        if !self.upstream.has_output() {
            return false;
        }
        !self.delivers()
            || self.to_client.len() < OUTBOX_BYTES
            || (self.is_stuck() && memory.is_plentiful())
    }

    /// Whether the server would be read if memory were plentiful. No event of this session tells when it is.
    pub fn waits_for_memory(&self, memory: &Memory) -> bool {
        self.upstream.has_output() && !self.wants_upstream(memory) && self.is_stuck()
    }

    /// Whether neither side takes anything.
    fn is_stuck(&self) -> bool {
        self.to_server.len() + self.held().len() >= OUTBOX_BYTES
    }

    /// Whether a line of the client is under way of which much has come.
    pub fn is_within_long_line_of_client(&self) -> bool {
        self.from_client.is_within_line(LARGE_LINE_BYTES)
    }

    /// Whether a line of the server is under way of which much has come.
    pub fn is_within_long_line_of_upstream(&self) -> bool {
        self.from_server.is_within_line(LARGE_LINE_BYTES)
    }

    /// What is to be written to the client.
    pub fn to_client(&self) -> &[u8] {
        self.to_client.waiting()
    }

    /// What is to be written to the server.
    pub fn to_upstream(&self) -> &[u8] {
        if self.upstream.takes_input() {
            self.to_server.waiting()
        } else {
            &[]
        }
    }

    /// The client took the first `count` bytes of [`Self::to_client`].
    pub fn client_took(&mut self, count: usize, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        self.last_taken = turn.now;
        self.client_takes_lines(turn);
        self.untaken_since = None;
        self.to_client.took(count, turn.memory);
        while let Some(line) = self.to_client.due() {
            self.heartbeat_waits &= line != OwnLine::Heartbeat;
        }
        self.finish_event(turn);
    }

    /// The server took the first `count` bytes of [`Self::to_upstream`].
    pub fn upstream_took(&mut self, count: usize, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        self.last_taken = turn.now;
        self.line_passed(turn);
        self.to_server.took(count, turn.memory);
        while let Some(line) = self.to_server.due() {
            self.line_began(line, turn);
        }
        self.finish_event(turn);
    }

    /// When [`Self::timeout`] is to be called, if nothing else happens before.
    pub fn next_deadline(&self, settings: &Settings) -> Option<Instant> {
        let heartbeat = self.heartbeat.next().filter(|_| self.has_heartbeat());
        let peer = self
            .peer
            .as_ref()
            .map(|peer| peer.deadline(self.was_reading));
        let own = earliest(heartbeat, peer);
        let upstream = earliest(own, self.upstream.deadline());
        let ending = earliest(upstream, self.ending_deadline());
        earliest(ending, self.idle_deadline(settings))
    }

    /// A deadline has come. `unix_time` is the time since 1970.
    pub fn timeout(&mut self, unix_time: Duration, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        self.heartbeat_timeout(unix_time, turn);
        self.peer_timeout(unix_time, turn);
        self.upstream_timeout(unix_time, turn);
        self.ending_timeout(turn);
        self.idle_timeout(turn);
        self.finish_event(turn);
    }

    /// The limits of a line that is being read. What is left of the memory is for lines that can't be read without.
    fn line_limits(turn: &Turn<'_>) -> LineLimits {
        LineLimits {
            max_bytes: turn.settings.max_message_bytes,
            room: turn.memory.available(),
        }
    }

    /// Takes the next line from the front of `input`. What is left of a long input is likely to be the beginning of a long
    /// line.
    fn next_line<'a>(
        splitter: &mut Splitter,
        input: &mut &'a [u8],
        turn: &mut Turn<'_>,
    ) -> Option<Line<'a>> {
        let limits = Self::line_limits(turn);
        if input.len() < FREE_BYTES || !splitter.is_between_lines() {
            return splitter.next(input, limits);
        }
        splitter.lend(turn.memory.lend_large());
        let line = splitter.next(input, limits);
        turn.memory.give_back(splitter.take_back());
        line
    }

    fn begin_event(&mut self, turn: &Turn<'_>) {
        if !self.was_listening {
            // It could not show any sign of life while it was not listened to.
            self.heartbeat.life(turn.now);
            self.repeat_last_call(turn.now);
        }
        if let Some(peer) = self.peer.as_mut().filter(|_| !self.was_reading) {
            peer.skip(turn.now);
        }
    }

    /// What follows from any event.
    fn finish_event(&mut self, turn: &mut Turn<'_>) {
        loop {
            self.handle_unread(turn);
            self.proceed(turn);
            if self.unread.is_none() || !self.listens() {
                break;
            }
        }
        if self.to_client.is_empty() {
            self.untaken_since = None;
        } else {
            self.untaken_since.get_or_insert(turn.now);
        }
        self.was_listening = self.wants_client();
        self.was_reading = self.wants_upstream(turn.memory);
        self.settle_memory(turn.memory);
        self.check();
    }

    fn settle_memory(&mut self, memory: &mut Memory) {
        let buffers = [
            self.from_client.capacity(),
            self.from_server.capacity(),
            self.to_client.capacity(),
            self.to_server.capacity(),
            self.held().capacity(),
            self.unread
                .as_ref()
                .map_or(0, |unread| unread.bytes.capacity()),
            self.in_flight.load().id_bytes + self.queued.id_bytes,
        ];
        // The usual case: none of them can be over what is free.
        let charge = if buffers.iter().sum::<usize>() <= FREE_BYTES {
            0
        } else {
            buffers
                .iter()
                .map(|bytes| bytes.saturating_sub(FREE_BYTES))
                .sum()
        };
        if charge != self.charged {
            memory.settle(self.charged, charge);
            self.charged = charge;
        }
    }

    /// Gives back what the session holds of the shared memory. Call it before the session is dropped.
    pub fn release_memory(&mut self, memory: &mut Memory) {
        memory.settle(self.charged, 0);
        self.charged = 0;
    }

    /// What waits for a server that is not there, or that has not been greeted.
    fn held(&self) -> &Outbox<ToServer> {
        static NOTHING: Outbox<ToServer> = Outbox::new();
        self.held.as_deref().unwrap_or(&NOTHING)
    }

    fn held_mut(&mut self) -> &mut Outbox<ToServer> {
        self.held.get_or_insert_default()
    }

    fn take_held(&mut self) -> Outbox<ToServer> {
        self.held.take().map_or_else(Outbox::new, |held| *held)
    }

    fn hold(&mut self, waiting: Outbox<ToServer>) {
        self.held = (!waiting.is_empty()).then(|| Box::new(waiting));
    }

    /// How many requests of the client wait for their answers.
    fn unanswered(&self) -> usize {
        self.in_flight.load().requests + self.queued.requests
    }

    /// Whether this is the stdio side.
    fn is_connector(&self) -> bool {
        matches!(self.policy, Policy::Reconnect(_))
    }

    fn check(&self) {
        debug_assert!(self.unanswered() <= in_flight::MAX_IN_FLIGHT);
        debug_assert!(!self.is_finished() || self.in_flight.is_empty());
    }
}
