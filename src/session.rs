//! The state machine of one session: a client, and an upstream that can be lost and renewed.
//!
//! Events and bytes go in, bytes and [`Action`]s come out. Nothing in here knows a file descriptor, a process or a
//! clock: time is in every [`Context`]. What the two sides send is handled in `from_client` and `from_upstream`, the life
//! of the upstream in `upstream`, the way to the end of the session in `ending`.

mod client_lines;
mod ending;
mod greeting;
pub mod heartbeat;
pub mod idle;
pub mod in_flight;
pub mod liveness;
mod own_messages;
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
mod upstream_lines;

use std::io;
use std::time::Duration;

use self::ending::{Goal, LastCall};
use self::heartbeat::Heartbeat;
use self::idle::{IdleLimits, LastLine};
use self::in_flight::{InFlight, Load, Request, ServerRequests};
use self::liveness::Liveness;
use self::renewal::Policy;
use self::replay::Handshake;
use self::report::{EndReason, Exit, Label, Summary, Traffic};
use self::server_log::ServerLog;
use self::upstream::Upstream;
use crate::buffers::budget::{BufferBudget, UNCHARGED_BYTES};
use crate::buffers::outbox::Outbox;
use crate::protocol::id::RequestId;
use crate::protocol::lines::{Line, LineLimits, Splitter};
use crate::util::time::Time;

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
    pub role: Backend,
    /// The time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Whether a lost upstream is renewed.
    pub restarts_upstream: bool,
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
pub enum Backend {
    /// The serving side: its clients come over TCP, its upstreams are server processes.
    Process {
        /// How many times a server is restarted within the window of its policy.
        max_restarts: u32,
    },
    /// The stdio side: its client is the program that started it, its upstream a connection to a proxy.
    Proxy {
        /// The longest delay between two attempts to connect.
        max_delay: Duration,
        /// How many attempts are made in a row; `None` for no end.
        max_attempts: Option<u32>,
    },
}

/// What an event is handled with.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time, read once for all events of a turn of the loop.
    pub now: Time,
    /// What holds for all sessions.
    pub settings: &'a Settings,
    /// The memory that all sessions share.
    pub memory: &'a mut BufferBudget,
    /// Where actions go; they are carried out after the event.
    pub actions: &'a mut Vec<Action>,
}

/// What the session wants done to its two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the upstream, and tell by [`Event::UpstreamStarted`] or [`Event::UpstreamFailed`].
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

/// What happens to a session.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The client sent these bytes.
    ClientBytes(&'a [u8]),
    /// The end of the client's side was read.
    ClientEof,
    /// The client is known to have ended its side, although that was not read yet.
    ClientHup,
    /// The connection to the client broke, or can't be read or written for another reason.
    ClientFailed(&'a io::Error),
    /// The client took the first bytes of [`Session::to_client`], this many.
    ClientWritten(usize),
    /// The upstream was started, as this process if it is one.
    UpstreamStarted {
        /// The process.
        pid: Option<u32>,
    },
    /// The upstream could not be started. That counts as a loss.
    UpstreamFailed(&'a str),
    /// The upstream sent these bytes, a process on its stdout.
    UpstreamBytes(&'a [u8]),
    /// The end of the upstream's output was read, or an error instead.
    UpstreamEof(Option<&'a io::Error>),
    /// Nobody reads what is written to the upstream any more.
    UpstreamInputBroke,
    /// The upstream took the first bytes of [`Session::to_upstream`], this many.
    UpstreamWritten(usize),
    /// The server process wrote these bytes to its stderr.
    UpstreamStderr(&'a [u8]),
    /// The server process exited, and was reaped.
    UpstreamExited(Exit),
    /// The time of [`Session::next_deadline`] has come. `unix_time` is the time since 1970.
    Deadline {
        /// For the time stamps of heartbeats and notices.
        unix_time: Duration,
    },
    /// The program is being stopped.
    ShutDown,
}

/// The client's side of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// It may send.
    Open,
    /// It has ended its side, and still takes what it is sent.
    Ended,
    /// Our side has ended too. What it sends is discarded, up to its end, so that no reset destroys our last lines.
    Lingering { until: Time, discarded: usize },
    /// There is no connection.
    Closed,
}

/// What a line on its way to the server means.
#[derive(Debug)]
enum ToUpstream {
    Request(Request),
    /// What there is to know about the messages in a batch, in order. There are no batches in it.
    Batch(Box<[ToUpstream]>),
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

impl ToUpstream {
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
    tag: Label,
    opened: Time,
    client: Client,
    /// Since when the client is known to have hung up, although not everything it sent was read.
    hung_up: Option<Time>,
    upstream: Upstream,
    goal: Goal,
    last_call: Option<Box<LastCall>>,
    /// Whether the program is being stopped.
    stopping: bool,
    end_reason: EndReason,

    from_client: Splitter,
    /// What was read from the client while it could not be handled any further.
    unread: Option<Box<Unread>>,
    from_upstream: Splitter,
    to_client: Outbox<OwnLine>,
    /// For the present server.
    to_upstream: Outbox<ToUpstream>,
    /// For a server that is not there, or that has not been greeted.
    held: Option<Box<Outbox<ToUpstream>>>,
    /// The requests in `to_upstream` and `held`.
    queued: Load,

    in_flight: InFlight,
    server_requests: ServerRequests,
    handshake: Handshake,
    replays: u32,
    policy: Policy,
    /// The proxy at the other end, while connected to one.
    peer: Option<Box<Liveness>>,
    /// A restart that the client has not been told of, and that cost it something.
    notice_owed: bool,
    heartbeat: Heartbeat,
    heartbeat_queued: bool,
    client_was_read: bool,
    upstream_was_read: bool,

    /// When either side last took something.
    last_taken: Time,
    last_line: LastLine,
    /// Since when the client has taken nothing of what waits for it; `None` if nothing does.
    unwritten_since: Option<Time>,
    /// What of the shared memory this session holds, in bytes.
    charged: usize,
    sent_to_server: Traffic,
    sent_to_client: Traffic,
    server_log: ServerLog,
}

/// The earlier of two times.
fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
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
    pub fn open(tag: Label, cx: &mut Context<'_>) -> Self {
        let mut session = Self::new(tag, cx);
        session.upstream = Upstream::OnDemand;
        if cx.settings.spawn == Spawn::Eager {
            session.start_upstream(cx);
        }
        session
    }

    /// A session that has no place: it says so to the client and ends.
    pub fn refuse(tag: Label, limit: usize, cx: &mut Context<'_>) -> Self {
        let mut session = Self::new(tag, cx);
        session.end_reason = EndReason::SessionLimit(limit);
        session.goal = Goal::End;
        session.reply_error(
            None,
            session.end_reason.reply_reason(),
            &session.end_reason.to_string(),
            cx,
        );
        session.finish_event(cx);
        session
    }

    fn new(tag: Label, cx: &Context<'_>) -> Self {
        Self {
            tag,
            opened: cx.now,
            client: Client::Open,
            hung_up: None,
            upstream: Upstream::None,
            goal: Goal::Serve,
            last_call: None,
            stopping: false,
            end_reason: EndReason::ClientEnded,
            from_client: Splitter::default(),
            unread: None,
            from_upstream: Splitter::verbatim(),
            to_client: Outbox::default(),
            to_upstream: Outbox::default(),
            held: None,
            queued: Load::default(),
            in_flight: InFlight::default(),
            server_requests: ServerRequests::default(),
            handshake: Handshake::default(),
            replays: 0,
            policy: Policy::new(&cx.settings.role),
            peer: None,
            notice_owed: false,
            heartbeat: Heartbeat::new(cx.now),
            heartbeat_queued: false,
            client_was_read: true,
            upstream_was_read: true,
            last_taken: cx.now,
            last_line: LastLine::default(),
            unwritten_since: None,
            charged: 0,
            sent_to_server: Traffic::default(),
            sent_to_client: Traffic::default(),
            server_log: ServerLog::default(),
        }
    }

    /// Who the session is, for log lines.
    pub fn tag(&self) -> &Label {
        &self.tag
    }

    /// Whether both sides are gone, and the session can be forgotten.
    pub fn is_finished(&self) -> bool {
        self.client == Client::Closed && matches!(self.upstream, Upstream::None)
    }

    /// What there is to say at the end.
    pub fn summary(&self, now: Time) -> Summary<'_> {
        Summary {
            tag: &self.tag,
            reason: &self.end_reason,
            opened: self.opened,
            now,
            to_upstream: self.sent_to_server,
            to_client: self.sent_to_client,
        }
    }

    /// Whether the session was turned away, and never counted.
    pub fn was_refused(&self) -> bool {
        matches!(self.end_reason, EndReason::SessionLimit(_))
    }

    /// Whether what the client sends is to be read now.
    pub fn wants_client_input(&self) -> bool {
        match self.client {
            Client::Open => self.unread.is_none() && self.has_room_for_client_lines(),
            Client::Lingering { .. } => true,
            Client::Ended | Client::Closed => false,
        }
    }

    /// Whether what the server writes to its stdout is to be read now.
    ///
    /// If neither side takes anything, both may be waiting for this session to read them. The server is then read
    /// beyond the limit, as long as memory is plentiful: its answers are what the client waits for.
    pub fn wants_upstream_output(&self, memory: &BufferBudget) -> bool {
        if !self.upstream.has_output() {
            return false;
        }
        !self.delivers_to_client()
            || self.to_client.len() < OUTBOX_BYTES
            || (self.is_stuck() && memory.has_headroom())
    }

    /// Whether the server would be read if memory were plentiful. No event of this session tells when it is.
    pub fn waits_for_memory(&self, memory: &BufferBudget) -> bool {
        self.upstream.has_output() && !self.wants_upstream_output(memory) && self.is_stuck()
    }

    /// Whether neither side takes anything.
    fn is_stuck(&self) -> bool {
        self.to_upstream.len() + self.held().len() >= OUTBOX_BYTES
    }

    /// Whether a line of the client is under way of which much has come.
    pub fn is_within_long_line_of_client(&self) -> bool {
        self.from_client.is_within_line(LARGE_LINE_BYTES)
    }

    /// Whether a line of the server is under way of which much has come.
    pub fn is_within_long_line_of_upstream(&self) -> bool {
        self.from_upstream.is_within_line(LARGE_LINE_BYTES)
    }

    /// What is to be written to the client.
    pub fn to_client(&self) -> &[u8] {
        self.to_client.waiting()
    }

    /// What is to be written to the server.
    pub fn to_upstream(&self) -> &[u8] {
        if self.upstream.takes_input() {
            self.to_upstream.waiting()
        } else {
            &[]
        }
    }

    /// The client took the first `count` bytes of [`Self::to_client`].
    fn client_written(&mut self, count: usize, cx: &mut Context<'_>) {
        self.last_taken = cx.now;
        self.client_takes_lines(cx);
        self.unwritten_since = None;
        self.to_client.consume(count, cx.memory);
        while let Some(line) = self.to_client.next_started() {
            self.heartbeat_queued &= line != OwnLine::Heartbeat;
        }
    }

    /// The server took the first `count` bytes of [`Self::to_upstream`].
    fn upstream_written(&mut self, count: usize, cx: &mut Context<'_>) {
        self.last_taken = cx.now;
        self.line_passed(cx);
        self.to_upstream.consume(count, cx.memory);
        while let Some(line) = self.to_upstream.next_started() {
            self.on_line_started(line, cx);
        }
    }

    /// When [`Self::timeout`] is to be called, if nothing else happens before.
    pub fn next_deadline(&self, settings: &Settings) -> Option<Time> {
        let heartbeat = self.heartbeat.next().filter(|_| self.has_heartbeat());
        let peer = self
            .peer
            .as_ref()
            .map(|peer| peer.deadline(self.upstream_was_read));
        let own = earliest(heartbeat, peer);
        let upstream = earliest(own, self.upstream.deadline());
        let ending = earliest(upstream, self.ending_deadline());
        earliest(ending, self.idle_deadline(settings))
    }

    /// A deadline has come. `unix_time` is the time since 1970.
    fn timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        self.heartbeat_timeout(unix_time, cx);
        self.peer_timeout(unix_time, cx);
        self.upstream_timeout(unix_time, cx);
        self.ending_timeout(cx);
        self.idle_timeout(cx);
    }

    /// The limits of a line that is being read. What is left of the memory is for lines that can't be read without.
    fn line_limits(cx: &Context<'_>) -> LineLimits {
        LineLimits {
            max_bytes: cx.settings.max_message_bytes,
            room: cx.memory.available(),
        }
    }

    /// Takes the next line from the front of `input`. What is left of a long input is likely to be the beginning of a long
    /// line.
    fn next_line<'a>(
        splitter: &mut Splitter,
        input: &mut &'a [u8],
        cx: &mut Context<'_>,
    ) -> Option<Line<'a>> {
        let limits = Self::line_limits(cx);
        if input.len() < UNCHARGED_BYTES || !splitter.is_between_lines() {
            return splitter.next(input, limits);
        }
        splitter.lend(cx.memory.lend_large());
        let line = splitter.next(input, limits);
        cx.memory.give_back(splitter.take_back());
        line
    }

    /// Handles one event. It is the only way in: no event is ever handled within another, so what follows from any event
    /// follows once, at its end.
    pub fn handle(&mut self, event: Event<'_>, cx: &mut Context<'_>) {
        self.begin_event(cx);
        match event {
            Event::ClientBytes(bytes) => self.client_bytes(bytes, cx),
            Event::ClientEof => self.client_eof(cx),
            Event::ClientHup => self.client_hup(cx),
            Event::ClientFailed(error) => self.client_failed(error, cx),
            Event::ClientWritten(count) => self.client_written(count, cx),
            Event::UpstreamStarted { pid } => self.upstream_started(pid, cx),
            Event::UpstreamFailed(error) => self.upstream_failed(error, cx),
            Event::UpstreamBytes(bytes) => self.upstream_bytes(bytes, cx),
            Event::UpstreamEof(error) => self.upstream_eof(error, cx),
            Event::UpstreamInputBroke => self.upstream_input_broke(cx),
            Event::UpstreamWritten(count) => self.upstream_written(count, cx),
            Event::UpstreamStderr(bytes) => self.upstream_stderr(bytes, cx),
            Event::UpstreamExited(exit) => self.upstream_exited(exit, cx),
            Event::Deadline { unix_time } => self.timeout(unix_time, cx),
            Event::ShutDown => self.shut_down(cx),
        }
        self.finish_event(cx);
    }

    fn begin_event(&mut self, cx: &Context<'_>) {
        if !self.client_was_read {
            // It could not show any sign of life while it was not listened to.
            self.heartbeat.note_activity(cx.now);
            self.repeat_last_call(cx.now);
        }
        if let Some(peer) = self.peer.as_mut().filter(|_| !self.upstream_was_read) {
            peer.skip(cx.now);
        }
    }

    /// What follows from any event.
    fn finish_event(&mut self, cx: &mut Context<'_>) {
        loop {
            self.handle_unread(cx);
            self.advance(cx);
            if self.unread.is_none() || !self.has_room_for_client_lines() {
                break;
            }
        }
        if self.to_client.is_empty() {
            self.unwritten_since = None;
        } else {
            self.unwritten_since.get_or_insert(cx.now);
        }
        self.client_was_read = self.wants_client_input();
        self.upstream_was_read = self.wants_upstream_output(cx.memory);
        self.recharge_budget(cx.memory);
        self.check();
    }

    fn recharge_budget(&mut self, memory: &mut BufferBudget) {
        let buffers = [
            self.from_client.capacity(),
            self.from_upstream.capacity(),
            self.to_client.capacity(),
            self.to_upstream.capacity(),
            self.held().capacity(),
            self.unread
                .as_ref()
                .map_or(0, |unread| unread.bytes.capacity()),
            self.in_flight.load().id_bytes + self.queued.id_bytes,
            self.server_requests.id_bytes(),
        ];
        // The usual case: none of them can be over what is free.
        let charge = if buffers.iter().sum::<usize>() <= UNCHARGED_BYTES {
            0
        } else {
            buffers
                .iter()
                .map(|bytes| bytes.saturating_sub(UNCHARGED_BYTES))
                .sum()
        };
        if charge != self.charged {
            memory.recharge(self.charged, charge);
            self.charged = charge;
        }
    }

    /// Gives back what the session holds of the shared memory. Call it before the session is dropped.
    pub fn release_memory(&mut self, memory: &mut BufferBudget) {
        memory.recharge(self.charged, 0);
        self.charged = 0;
    }

    /// What waits for a server that is not there, or that has not been greeted.
    fn held(&self) -> &Outbox<ToUpstream> {
        static NOTHING: Outbox<ToUpstream> = Outbox::new();
        self.held.as_deref().unwrap_or(&NOTHING)
    }

    fn held_mut(&mut self) -> &mut Outbox<ToUpstream> {
        self.held.get_or_insert_default()
    }

    fn take_held(&mut self) -> Outbox<ToUpstream> {
        self.held.take().map_or_else(Outbox::new, |held| *held)
    }

    fn hold(&mut self, waiting: Outbox<ToUpstream>) {
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
