//! The state machine of one session: a client, and an upstream that can be lost and replaced.
//!
//! Events go in, bytes and [`Action`]s come out. Nothing in here knows a file descriptor, a process or a clock: the
//! time is in every [`Context`]. The same machine runs in `serve` and in `connect`.
//!
//! # Words
//!
//! - **client**: the peer that sends requests. For `serve` it is a TCP connection, for `connect` the program that
//!   started it, on stdin and stdout.
//! - **upstream**: where the client's messages go and its responses come from. For `serve` it is a server process, for
//!   `connect` a TCP connection to a proxy. One session has many of them, one after the other.
//! - **server**: the MCP server itself, directly upstream or beyond another proxy.
//! - **link**: the TCP connection between `connect` and a proxy. Link lines concern the link alone: the announcement,
//!   and heartbeats.
//! - **session**: one client from its first byte to its last, with all its upstreams.
//! - **slot**: the place of a session in the table of whoever drives it. Sessions do not know theirs.
//!
//! # The client (`client_side`)
//!
//! ```text
//!           it ended its side              the goal is End, and everything was written
//!   Open ───────────────────────► Ended ───────────────────────────────────────────────► Closed
//!    │                                                                                     ▲
//!    │ the goal is End, and everything was written:                                        │
//!    │ we half-close                                                                       │
//!    └─────────────────────────────────────► Lingering ────────────────────────────────────┘
//!                                              it ended its side, took too long or sent too much
//! ```
//!
//! A client that fails, or takes nothing for too long, is `Closed` at once. As long as it takes what it was sent, which
//! shows in the send queue of its connection, no time is too long.
//!
//! # The upstream (`upstream`, `loss`)
//!
//! ```text
//!              something waits
//!   OnDemand ──────────────────► Starting ───────────► Up ───────────► Leaving ───────────► None
//!                                 ▲    │    started        first sign    │     the last one
//!                        its time │    │ failed            of a loss     │
//!                                 │    ▼                                 │ there is to be another
//!                                Cooling ◄───────────────────────────────┘
//! ```
//!
//! The stages of `Leaving` are in `loss`. From `OnDemand`, `Starting` and `Cooling` the end of the session leads to
//! `None`.
//!
//! # The goal (`goal`)
//!
//! ```text
//!          the client ended its side,                everything is served,
//!          or the session is idle, or stopped        or that took too long
//!   Serve ────────────────────────────────► Finish ───────────────────────► End
//!    │ ▲                                       │                             ▲
//!    │ └────── was idle, and is used after all ┘                             │
//!    └───────────────────────────────────────────────────────────────────────┘
//!          the client is gone, or no upstream will come any more
//! ```
//!
//! `Serve` until somebody ends it; `Finish` what the client has sent; `End`: serve nothing, deliver what is there, and
//! close. When goals conflict, the later one in this order wins, and there is no way back, with one exception: a
//! session that finishes only because it was idle serves again when a message arrives. The reason that was given first
//! stays, except that
//!
//! - a loss that leaves something unserved replaces the reason to finish,
//! - a failure of our own stdin or stdout replaces any, and
//! - so does a first line of another protocol (`guard`).
//!
//! # Who drives a session
//!
//! - Passes every event to [`Session::handle`], with the same `now` for all events of an iteration.
//! - Reads from the client only while [`Session::wants_client_input`], from the upstream only while
//!   [`Session::wants_upstream_output`], and passes what it read in order. A session that [waits for
//!   memory](Session::waits_for_memory) is asked again when memory was given back.
//! - Writes [`Session::to_client`] and [`Session::to_upstream`] when it can, and reports what was written.
//! - Carries out the actions after the event, in order. [`Action::StartUpstream`] may wait, but only while
//!   [`Session::wants_start`]. Between [`Action::ReleaseUpstream`] and the next start there are no events of an
//!   upstream.
//! - Calls with [`Event::Deadline`] once the time of [`Session::next_deadline`] has come, which every event may change.
//! - Forgets the session once [`Session::is_finished`], after [`Session::release_memory`].

mod backend;
mod cancellations;
mod client_lines;
mod client_side;
mod era;
mod goal;
mod guard;
mod handshake;
mod heartbeat;
mod held;
mod held_back;
pub mod idle;
pub mod in_flight;
pub mod last_words;
mod list_changes;
mod liveness;
pub mod log_limits;
mod loss;
mod own_messages;
mod peer;
mod questions;
mod reconnect;
mod refusals;
pub mod report;
pub mod restart;
mod send_queue;
mod server_memory;
mod standing;
pub mod stderr;
mod stillbirths;
mod subscriptions;
mod tally;
#[cfg(test)]
mod tests;
mod tidy;
mod unfinished;
mod unread;
mod upstream;
mod upstream_lines;
mod vanished;

use std::io;
use std::time::Duration;

use log::{Level, log};

pub use self::backend::Backend;
use self::backend::BackendState;
use self::client_side::{Client, OwnLine};
use self::era::Era;
use self::goal::Goal;
use self::handshake::Handshake;
use self::heartbeat::Heartbeat;
use self::idle::IdleLimits;
use self::in_flight::{InFlight, Load, ServerRequests};
use self::log_limits::LogLimits;
use self::refusals::Refusals;
use self::report::{EndReason, Exit, Label, SessionLimit, Summary, Traffic};
use self::send_queue::SendQueue;
use self::server_memory::ServerMemory;
use self::standing::Standing;
use self::stderr::{ServerLog, ServerLogging};
use self::subscriptions::Subscriptions;
use self::tally::Tally;
use self::tidy::Tidy;
use self::unfinished::Unfinished;
use self::upstream::{ToUpstream, Upstream};
pub use self::vanished::VANISH_TIME;
use crate::buffers::budget::{BufferBudget, UNCHARGED_BYTES};
use crate::buffers::outbox::Outbox;
use crate::protocol::lines::{Line, LineLimits, Splitter};
use crate::protocol::own_messages::ErrorReason;
use crate::protocol::recogniser::Recogniser;
use crate::util::time::Time;

/// Once this many bytes wait in one direction, what feeds it is no longer read: what a pipe holds by default (pipe(7)),
/// and as much as is read at once.
const OUTBOX_BYTES: usize = 64 * 1024;

/// A line of which more than this has arrived is read in larger pieces, in bytes: half a read of the usual size, so
/// that the next piece of the line is likely to fill the whole of one.
const LARGE_LINE_BYTES: usize = 32 * 1024;

/// What all sessions have in common.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the upstreams are.
    pub role: Backend,
    /// The time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Whether a lost upstream is replaced.
    pub restarts_upstream: bool,
    /// The longest line either way, in bytes, without its line end.
    pub max_message_bytes: usize,
    /// Whether the handshake, and what follows from it, is replayed to a new upstream.
    pub replays: bool,
    /// How long a new upstream may take to answer the replayed handshake.
    pub replay_timeout: Duration,
    /// After a stop was asked for, what is in flight has this long to be answered.
    pub stop_timeout: Duration,
    /// When the first upstream is started.
    pub spawn: Spawn,
    /// When a session that is not used is ended.
    pub idle_limits: IdleLimits,
    /// What of the stderr of servers is logged.
    pub server_log: ServerLogging,
}

/// When a session's first upstream is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spawn {
    /// At once.
    Eager,
    /// When the client has sent something for it.
    Lazy,
}

/// What an event is handled with.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time, read once for all events of an iteration of the loop.
    pub now: Time,
    /// What all sessions have in common.
    pub settings: &'a Settings,
    /// The memory that all sessions share.
    pub memory: &'a mut BufferBudget,
    /// What may be logged of all sessions together.
    pub logs: &'a mut LogLimits,
    /// Where actions go; they are carried out after the event.
    pub actions: &'a mut Vec<Action>,
}

/// What the session wants done to its two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the upstream, and report [`Event::UpstreamStarted`] or [`Event::UpstreamFailed`].
    StartUpstream,
    /// End the upstream: close its input, and use force if it does not exit.
    StopUpstream,
    /// The upstream is gone, and everything it said was read: release it.
    ReleaseUpstream,
    /// Half-close the connection to the client; nothing more will be sent.
    ShutdownClient,
    /// Close the connection to the client.
    CloseClient,
    /// Look at the send queue of the connection to the client, and report [`Event::ClientQueue`].
    MeasureClient,
    /// The client may have vanished. If the system knows that it has, report [`Event::ClientFailed`].
    CheckClient,
    /// The proxy at the other end may have vanished. If the system knows that it has, report [`Event::UpstreamEof`].
    CheckUpstream,
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
    /// The first bytes of [`Session::to_client`], this many, were written.
    ClientWritten(usize),
    /// The answer to [`Action::MeasureClient`].
    ClientQueue {
        /// What was written to the client, and not acknowledged, in bytes: the end of our side counts as one. `None` if
        /// the system does not tell.
        unsent: Option<u32>,
    },
    /// The upstream was started.
    UpstreamStarted {
        /// Its process, if it is one.
        pid: Option<u32>,
    },
    /// The upstream could not be started. That counts as a loss.
    UpstreamFailed(&'a str),
    /// The upstream could not be started, and could not be by another attempt.
    UpstreamRefused {
        /// What requests are told.
        reason: ErrorReason,
        /// What is wrong.
        words: &'a str,
    },
    /// There is an upstream, but none may be used, for this reason.
    UpstreamDenied(&'a str),
    /// The upstream sent these bytes; a process, on its stdout.
    UpstreamBytes(&'a [u8]),
    /// The end of the upstream's output was read, or an error instead: of the kind [`io::ErrorKind::PermissionDenied`] if a link
    /// was refused after all.
    UpstreamEof(Option<&'a io::Error>),
    /// A write to the upstream failed: nobody reads its input any more.
    UpstreamInputBroke,
    /// The same, and this is what nobody has read of what was written, up to its end. It may begin inside of a line.
    UpstreamLeftUnread(&'a [u8]),
    /// The first bytes of [`Session::to_upstream`], this many, were written.
    UpstreamWritten(usize),
    /// The server process wrote these bytes to its stderr.
    UpstreamStderr(&'a [u8]),
    /// The server process exited, and was reaped.
    UpstreamExited(Exit),
    /// The time of [`Session::next_deadline`] has come.
    Deadline {
        /// The time since 1970, for the time stamps of heartbeats and notices.
        unix_time: Duration,
    },
    /// The memory that all sessions share is short, and an unfinished line of this one is the heaviest of all.
    MemoryShort,
    /// The client may not use the server any more.
    Revoked,
    /// The program is being stopped.
    ShutDown,
}

/// A client and its upstreams.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a thing of its own to know of it"
)]
pub struct Session {
    label: Label,
    opened: Time,
    goal: Goal,
    /// If the program is being stopped: when nothing more is waited for.
    stop_deadline: Option<Time>,
    client: Client,
    send_queue: SendQueue,
    /// What the client did not get of what was for it, in bytes.
    undelivered: u64,
    upstream: Upstream,
    backend: BackendState,

    /// Looks at the client's first line, until it is known to be ours.
    guard: Option<Recogniser>,
    from_client: Splitter,
    from_upstream: Splitter,
    to_client: Outbox<OwnLine>,
    /// For the present upstream.
    to_upstream: Outbox<ToUpstream>,
    /// For an upstream that is not there, or that does not know the client yet.
    held: Option<Box<Outbox<ToUpstream>>>,
    /// The requests in `to_upstream` and `held`.
    queued: Load,

    in_flight: InFlight,
    server_requests: ServerRequests,
    subscriptions: Subscriptions,
    server_memory: ServerMemory,
    era: Era,
    handshake: Handshake,
    standing: Standing,
    /// Whether the handshake is replayed to the next upstream although the client says nothing.
    replays_at_once: bool,
    heartbeat: Heartbeat,
    /// Whether the client was read since the last event.
    client_was_read: bool,
    /// Whether the upstream was.
    upstream_was_read: bool,

    /// When anything was last written to either side.
    last_written: Time,
    /// Since when nothing was written of what waits for the client; `None` if nothing waits.
    unwritten_since: Option<Time>,
    /// When a message last passed, or a part of one.
    last_line: Time,
    /// The long lines that are under way, if there are any.
    unfinished: Option<Box<Unfinished>>,
    /// What of the shared memory this session holds, in bytes.
    charged: usize,
    sent_to_upstream: Traffic,
    sent_to_client: Traffic,
    server_log: ServerLog,
    /// Requests that were answered for want of a connection.
    unserved: u32,
    refusals: Refusals,
    tally: Tally,
    /// Whether the log has not been told that the session is open, because there were too many connections.
    owes_opened: bool,
    /// Set if the host is to be spared what it did not ask for.
    tidy: Option<Box<Tidy>>,
}

/// The earlier of two times.
fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Session {
    /// Begins a session, and asks for its upstream, unless that is to wait for the client's first message.
    pub fn open(label: Label, cx: &mut Context<'_>) -> Self {
        let mut session = Self::new(label, cx);
        session.upstream = Upstream::OnDemand;
        if cx.settings.spawn == Spawn::Eager {
            session.start_upstream(cx);
        }
        session
    }

    /// A session for which there is no room: it tells the client so, and ends.
    pub fn refuse(label: Label, limit: SessionLimit, cx: &mut Context<'_>) -> Self {
        let mut session = Self::new(label, cx);
        let reason = EndReason::SessionLimit(limit);
        session.reply_error(None, reason.error_reason(), &reason.to_string(), cx);
        session.goal = Goal::end(reason);
        session.finish_event(cx);
        session
    }

    fn new(label: Label, cx: &Context<'_>) -> Self {
        Self {
            label,
            opened: cx.now,
            goal: Goal::Serve,
            stop_deadline: None,
            client: Client::new(),
            send_queue: SendQueue::default(),
            undelivered: 0,
            upstream: Upstream::None,
            backend: BackendState::new(&cx.settings.role),
            guard: cx.settings.role.is_guarded().then(Recogniser::of_client),
            from_client: Splitter::default(),
            from_upstream: Splitter::verbatim(),
            to_client: Outbox::default(),
            to_upstream: Outbox::default(),
            held: None,
            queued: Load::default(),
            in_flight: InFlight::default(),
            server_requests: ServerRequests::default(),
            subscriptions: Subscriptions::default(),
            server_memory: ServerMemory::default(),
            era: Era::default(),
            handshake: Handshake::default(),
            standing: Standing::default(),
            replays_at_once: false,
            heartbeat: Heartbeat::new(cx.now),
            client_was_read: true,
            upstream_was_read: true,
            last_written: cx.now,
            unwritten_since: None,
            last_line: cx.now,
            unfinished: None,
            charged: 0,
            sent_to_upstream: Traffic::default(),
            sent_to_client: Traffic::default(),
            server_log: ServerLog::default(),
            unserved: 0,
            refusals: Refusals::default(),
            tally: Tally::default(),
            owes_opened: false,
            tidy: cx.settings.role.is_tidy().then(Box::default),
        }
    }

    /// Who the session is, for log lines.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Whether both sides are gone, and the session can be forgotten.
    pub fn is_finished(&self) -> bool {
        matches!(self.client, Client::Closed) && matches!(self.upstream, Upstream::None)
    }

    /// What the log says at the end.
    pub fn summary(&self, now: Time) -> Summary<'_> {
        Summary {
            reason: self.goal.reason(),
            opened: self.opened,
            now,
            to_upstream: self.sent_to_upstream,
            to_client: self.sent_to_client.without(self.undelivered),
            tally: &self.tally,
        }
    }

    /// Logs the end. Of sessions that brought no message, there may be too many for the log.
    pub fn log_end(&self, cx: &mut Context<'_>) {
        if self.sent_to_upstream.is_none() {
            let unasked = &mut cx.logs.unasked;
            if self.owes_opened {
                unasked.leave_out();
            }
            if !unasked.admit(cx.now) {
                return;
            }
        }
        let level = if self.was_refused() || self.other_protocol().is_some() {
            Level::Warn
        } else {
            Level::Info
        };
        log!(target: &self.label.to_string(), level, "{}", self.summary(cx.now));
    }

    /// What made the session end before its client wanted that, if anything did.
    pub fn failure(&self) -> Option<&EndReason> {
        self.goal.reason().filter(|reason| reason.is_failure())
    }

    /// Whether the session was refused, and never counted.
    pub fn was_refused(&self) -> bool {
        matches!(self.goal.reason(), Some(EndReason::SessionLimit(_)))
    }

    /// Handles one event. This is the only way in: no event is handled within another, so what follows from any event
    /// follows once, after it.
    pub fn handle(&mut self, event: Event<'_>, cx: &mut Context<'_>) {
        self.begin_event(cx);
        match event {
            Event::ClientBytes(bytes) => self.client_bytes(bytes, cx),
            Event::ClientEof => self.client_eof(cx),
            Event::ClientHup => self.client_hup(cx),
            Event::ClientFailed(error) => self.client_failed(error, cx),
            Event::ClientWritten(count) => self.client_written(count, cx),
            Event::ClientQueue { unsent } => self.client_queue(unsent, cx),
            Event::UpstreamStarted { pid } => self.upstream_started(pid, cx),
            Event::UpstreamFailed(error) => self.upstream_failed(error, cx),
            Event::UpstreamRefused { reason, words } => self.upstream_refused(reason, words, cx),
            Event::UpstreamDenied(why) => {
                self.end_now(&EndReason::AccessDenied(why.to_owned()), cx);
            }
            Event::UpstreamBytes(bytes) => self.upstream_bytes(bytes, cx),
            Event::UpstreamEof(error) => self.upstream_eof(error, cx),
            Event::UpstreamInputBroke => self.upstream_input_broke(cx),
            Event::UpstreamLeftUnread(unread) => self.upstream_left_unread(unread, cx),
            Event::UpstreamWritten(count) => self.upstream_written(count, cx),
            Event::UpstreamStderr(bytes) => self.server_log.stderr(bytes, &self.label, cx),
            Event::UpstreamExited(exit) => self.upstream_exited(exit, cx),
            Event::Deadline { unix_time } => self.timeout(unix_time, cx),
            Event::MemoryShort => self.memory_short(cx),
            Event::Revoked => self.revoke(cx),
            Event::ShutDown => self.shut_down(cx),
        }
        self.finish_event(cx);
    }

    /// No clock that measures silence runs while the silent side was not read: it had no chance to be heard.
    fn begin_event(&mut self, cx: &Context<'_>) {
        self.restart_unfinished(cx.now);
        if !self.client_was_read {
            self.heartbeat.note_activity(cx.now);
            self.goal.repeat_last_call(cx.now);
        }
        if !self.upstream_was_read
            && let Some(liveness) = self.backend.liveness()
        {
            liveness.restart_clock(cx.now);
        }
    }

    /// What follows from any event.
    fn finish_event(&mut self, cx: &mut Context<'_>) {
        if self.is_calm() {
            debug_assert!(self.wants_client_input() && self.wants_upstream_output(cx.memory));
            self.client_was_read = true;
            self.upstream_was_read = true;
        } else {
            self.follow_up(cx);
        }
        if self.to_client.is_empty() {
            self.unwritten_since = None;
        } else {
            self.unwritten_since.get_or_insert(cx.now);
        }
        debug_assert!(self.unanswered() <= in_flight::MAX_IN_FLIGHT);
        debug_assert!(!self.is_finished() || self.in_flight.is_empty());
    }

    /// Whether both sides are served and read, and hold no more than they may without being charged. This is all there
    /// is to know after nearly every event: [`Self::follow_up`] would change nothing.
    fn is_calm(&self) -> bool {
        self.goal.is_serve()
            && self.upstream.is_up()
            && self.client.has_all_handled()
            && self.held.is_none()
            && self.charged == 0
            && self.server_log.kept_bytes() == 0
            && self.buffered() < OUTBOX_BYTES.min(UNCHARGED_BYTES)
    }

    /// The size of all buffers together, but for what is held and unread, in bytes.
    fn buffered(&self) -> usize {
        self.from_client.capacity()
            + self.from_upstream.capacity()
            + self.to_client.capacity()
            + self.to_upstream.capacity()
            + self.in_flight.load().id_bytes
            + self.queued.id_bytes
    }

    /// Goes on as far as possible, and notes what that leads to. It is rarely called: inlined, it would make every event
    /// more expensive.
    #[inline(never)]
    fn follow_up(&mut self, cx: &mut Context<'_>) {
        self.advance_all(cx);
        self.note_unfinished(cx.now);
        self.client_was_read = self.wants_client_input();
        self.upstream_was_read = self.wants_upstream_output(cx.memory);
        self.recharge_budget(cx.memory);
    }

    fn advance_all(&mut self, cx: &mut Context<'_>) {
        loop {
            self.handle_unread(cx);
            self.advance(cx);
            if !self.client.has_unread() || !self.has_room_for_client_lines() {
                break;
            }
        }
    }

    /// When [`Event::Deadline`] is due, if nothing else happens before.
    pub fn next_deadline(&self, settings: &Settings) -> Option<Time> {
        let own = earliest(self.heartbeat_deadline(), self.liveness_deadline());
        let upstream = earliest(own, self.upstream.deadline());
        let served = earliest(upstream, self.idle_deadline(settings));
        let served = earliest(served, self.held_deadline(settings));
        let served = earliest(served, self.unfinished_deadline());
        if self.goal.is_serve() && self.client.is_at_ease() {
            debug_assert_eq!(self.client_deadline(), None);
            debug_assert_eq!(self.goal_deadline(), None);
            return served;
        }
        let client = earliest(served, self.client_deadline());
        earliest(client, self.goal_deadline())
    }

    /// A deadline has come. `unix_time` is the time since 1970.
    fn timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        self.heartbeat_timeout(unix_time, cx);
        self.liveness_timeout(unix_time, cx);
        self.upstream_timeout(unix_time, cx);
        self.client_timeout(cx);
        self.unfinished_timeout(cx);
        self.goal_timeout(cx);
        self.held_timeout(cx);
        self.idle_timeout(cx);
    }

    /// The limits of a line that is being read. What is left of the memory is for lines that can't be read without it.
    fn line_limits(cx: &Context<'_>) -> LineLimits {
        LineLimits {
            max_bytes: cx.settings.max_message_bytes,
            room: cx.memory.available(),
        }
    }

    /// Takes the next line from the front of `input`. What remains of a long input is likely to be the beginning of a
    /// long line, so a large buffer is at hand for it.
    fn next_line<'a>(
        splitter: &mut Splitter,
        input: &mut &'a [u8],
        cx: &mut Context<'_>,
    ) -> Option<Line<'a>> {
        let limits = Self::line_limits(cx);
        if splitter.is_within_line(LARGE_LINE_BYTES) && splitter.would_grow(input.len()) {
            let spare = cx.memory.lend_large();
            cx.memory.give_back(splitter.move_into(spare));
        }
        if input.len() < UNCHARGED_BYTES || !splitter.is_between_lines() {
            return splitter.next(input, limits);
        }
        splitter.lend(cx.memory.lend_large());
        let line = splitter.next(input, limits);
        cx.memory.give_back(splitter.take_back());
        line
    }

    fn recharge_budget(&mut self, memory: &mut BufferBudget) {
        let beyond = |bytes: usize| bytes.saturating_sub(UNCHARGED_BYTES);
        let charge = beyond(self.from_client.capacity())
            + beyond(self.from_upstream.capacity())
            + beyond(self.to_client.capacity())
            + beyond(self.to_upstream.capacity())
            + beyond(self.held().capacity())
            + beyond(self.client.unread_capacity())
            + beyond(self.upstream.capacity())
            + beyond(self.in_flight.load().id_bytes + self.queued.id_bytes)
            + beyond(self.server_requests.id_bytes())
            + self.server_log.kept_bytes();
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

    /// How many requests of the client wait for their responses.
    fn unanswered(&self) -> usize {
        self.in_flight.load().requests + self.queued.requests
    }
}
