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
//! - **slot**: the index of a session in its driver's table. A session does not know its own.
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
//! A client whose connection fails, or that reads nothing for too long, is `Closed` at once. As long as it keeps
//! reading, which the send queue of its connection shows, there is no time limit.
//!
//! # The upstream (`upstream`, `leaving`, `loss`)
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
//! A session that hibernates gives its server back, and goes from `Leaving` to `OnDemand` (`hibernation`).
//!
//! The stages of `Leaving` are in `leaving`. From `OnDemand`, `Starting` and `Cooling` the end of the session leads to
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
//!   memory](Session::waits_for_memory) is asked again once memory has been given back.
//! - Begins each run, in which both sides are read and written, with [`Session::begin_run`], and has another one follow
//!   while [`Session::has_more_lines`].
//! - Writes [`Session::to_client`] and [`Session::to_upstream`] when it can, and reports what was written.
//! - Carries out the actions after the event, in order. [`Action::StartUpstream`] may wait, but only while
//!   [`Session::wants_start`]. Between [`Action::ReleaseUpstream`] and the next start there are no events of an
//!   upstream.
//! - Passes [`Event::Deadline`] once the time of [`Session::next_deadline`] has come. Every event may change that time.
//! - Forgets the session once [`Session::is_finished`], after [`Session::release_memory`].

mod backend;
pub mod backlog;
mod buffering;
mod cancellations;
mod client_lines;
mod client_side;
pub mod counts;
mod deadlines;
mod era;
mod event;
mod goal;
mod guard;
mod handshake;
mod heartbeat;
mod held;
mod held_back;
mod hibernation;
mod history;
pub mod idle;
pub mod in_flight;
pub mod last_words;
mod leaving;
mod list_changes;
mod liveness;
pub mod log_limits;
mod loss;
mod no_memory;
mod open;
mod own_messages;
mod peer;
mod questions;
mod reconnect;
mod refusals;
mod replay;
pub mod report;
pub mod restart;
mod resuming;
mod send_queue;
mod server_memory;
mod settings;
mod shared;
mod standing;
pub mod status;
pub mod stderr;
mod stillbirths;
mod subscriptions;
mod summary;
mod tally;
#[cfg(test)]
mod tests;
mod tidy;
mod unfinished;
mod unread;
mod upstream;
mod upstream_lines;
mod vanished;

pub use self::backend::Backend;
use self::backend::BackendState;
use self::backlog::{Backlog, LinesOfRun};
use self::buffering::{LARGE_LINE_BYTES, OUTBOX_BYTES};
use self::client_side::{Client, OwnLine};
use self::deadlines::earliest;
use self::era::Era;
pub use self::event::{Action, Context, Event};
use self::goal::Goal;
pub(crate) use self::handshake::Agreement;
use self::handshake::Handshake;
use self::heartbeat::Heartbeat;
use self::idle::UseKnown;
use self::in_flight::{InFlight, Load, ServerRequests};
use self::refusals::Refusals;
use self::report::{EndReason, Label, SessionLimit, Traffic};
use self::resuming::Resuming;
use self::send_queue::SendQueue;
use self::server_memory::ServerMemory;
pub use self::settings::{Settings, Spawn};
use self::standing::Standing;
use self::stderr::ServerLog;
use self::subscriptions::Subscriptions;
use self::tally::Tally;
use self::tidy::Tidy;
use self::unfinished::Unfinished;
use self::upstream::{ToUpstream, Upstream};
pub use self::vanished::VANISH_TIME;
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::buffers::outbox::Outbox;
use crate::protocol::lines::Splitter;
use crate::protocol::recogniser::Recogniser;
use crate::util::time::Time;

/// A client and its upstreams.
#[derive(Debug)]
pub struct Session {
    label: Label,
    opened: Time,
    goal: Goal,
    /// While the program is being stopped: when the session stops waiting for anything.
    stop_deadline: Option<Time>,
    client: Client,
    send_queue: SendQueue,
    /// Bytes that were meant for the client and never delivered.
    undelivered: u64,
    upstream: Upstream,
    /// Whether the server was given back, and there is no other one yet.
    hibernates: bool,
    /// When a message had last passed when it was noticed that none did any more.
    quiet_since: Option<Time>,
    backend: BackendState,

    /// Examines the client's first line until it is known to be in our protocol.
    guard: Option<Recogniser>,
    from_client: Splitter,
    from_upstream: Splitter,
    /// What was read of the upstream and is not handled yet.
    upstream_backlog: Option<Box<Backlog>>,
    lines_of_run: LinesOfRun,
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
    heartbeat: Heartbeat,
    was_read: WasRead,
    /// Whether both sides are served and read, and nothing is out of the ordinary, since the last event.
    was_calm: bool,

    /// When anything was last written to either side.
    last_written: Time,
    /// Since when nothing has been written to the client although something waits for it; `None` if nothing does.
    unwritten_since: Option<Time>,
    /// When a message last passed, or a part of one.
    last_line: Time,
    /// Whether that is known of all messages.
    use_known: UseKnown,
    /// The long lines that have not arrived in full, if there are any.
    unfinished: Option<Box<Unfinished>>,
    /// How much of the shared memory this session is charged for, in bytes.
    charged: usize,
    sent_to_upstream: Traffic,
    sent_to_client: Traffic,
    server_log: ServerLog,
    /// Requests that were answered with an error because there was no connection.
    unserved: u32,
    refusals: Refusals,
    tally: Tally,
    /// Whether the log line about the start was left out because there were too many connections.
    owes_opened: bool,
    /// Present if messages that the host did not ask for are filtered out.
    tidy: Option<Box<Tidy>>,
    /// Present if a connection may be lost and come back.
    resume: Option<Box<Resuming>>,
}

/// Which sides were read since the last event. A side that was not read had no chance to be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WasRead {
    client: bool,
    upstream: bool,
}

impl WasRead {
    const BOTH: Self = Self {
        client: true,
        upstream: true,
    };
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

    /// A session beyond the limit: it tells the client so, and ends.
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
            hibernates: false,
            quiet_since: None,
            backend: BackendState::new(&cx.settings.role),
            guard: cx.settings.role.is_guarded().then(Recogniser::of_client),
            from_client: Splitter::default(),
            from_upstream: Splitter::verbatim(),
            upstream_backlog: None,
            lines_of_run: LinesOfRun::default(),
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
            heartbeat: Heartbeat::new(cx.now),
            was_read: WasRead::BOTH,
            was_calm: false,
            last_written: cx.now,
            unwritten_since: None,
            last_line: cx.now,
            use_known: UseKnown::under(&cx.settings.idle_limits),
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
            resume: None,
        }
    }

    /// Identifies the session in log lines.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Whether both sides are gone, and the session can be forgotten.
    pub fn is_finished(&self) -> bool {
        matches!(self.client, Client::Closed) && matches!(self.upstream, Upstream::None)
    }

    /// Handles one event. This is the only way in: no event is handled within another, so what follows from any event
    /// follows once, after it.
    #[inline(never)]
    pub fn handle(&mut self, event: Event<'_>, cx: &mut Context<'_>) {
        self.handle_known(event, cx);
    }

    /// The same as a part of the caller, who knows which event it is: for the four events that make a round trip.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "of the match, one arm is left")]
    pub fn handle_known(&mut self, event: Event<'_>, cx: &mut Context<'_>) {
        self.begin_event(cx);
        match event {
            Event::ClientBytes(bytes) => self.client_bytes(bytes, cx),
            Event::ClientEof => self.client_eof(cx),
            Event::ClientHup => self.client_hup(cx),
            Event::ClientFailed(error) => self.client_failed(error, cx),
            Event::ClientWritten(count) => self.client_written(count, cx),
            Event::ClientQueue { unsent } => self.client_queue(unsent, cx),
            Event::UpstreamStarted { pid } => self.upstream_started(pid, cx),
            Event::Seated { serves_legacy } => self.seated(serves_legacy, cx),
            Event::ServerChanged => self.server_changed(cx),
            Event::UpstreamFailed(error) => self.upstream_failed(error, cx),
            Event::UpstreamMissing(error) => self.upstream_missing(error, cx),
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
            // What is left of what was read is handled after any event.
            Event::RunBegan => {}
            Event::MemoryShort => self.memory_short(cx),
            Event::Kept => self.keep_connection(),
            Event::NotKept => self.keep_no_connection(),
            Event::Detached => self.detached(cx),
            Event::Attached => self.attached(cx),
            Event::NotResumed { untaken } => self.not_resumed(untaken, cx),
            Event::LinkSaid(line) => self.link_said(line, cx),
            Event::Revoked => self.revoke(cx),
            Event::ShutDown => self.shut_down(cx),
        }
        if let Event::ClientWritten(_) | Event::UpstreamWritten(_) = event {
            self.finish_write(cx);
        } else {
            self.finish_event(cx);
        }
    }

    /// No clock that measures silence runs while the silent side was not read.
    fn begin_event(&mut self, cx: &Context<'_>) {
        if self.was_read == WasRead::BOTH {
            return;
        }
        self.restart_unfinished(cx.now);
        if !self.was_read.client {
            self.heartbeat.note_activity(cx.now);
            self.goal.repeat_last_call(cx.now);
        }
        if !self.was_read.upstream
            && let Some(liveness) = self.backend.liveness()
        {
            liveness.restart_clock(cx.now);
        }
    }

    /// What follows from any event.
    fn finish_event(&mut self, cx: &mut Context<'_>) {
        self.was_calm = self.is_calm();
        if self.was_calm {
            debug_assert!(self.wants_client_input() && self.wants_upstream_output(cx.memory));
            self.was_read = WasRead::BOTH;
        } else {
            self.follow_up(cx);
        }
        self.note_unwritten(cx);
    }

    /// The same after something was written: that makes no calm session busy.
    #[inline]
    fn finish_write(&mut self, cx: &mut Context<'_>) {
        if !self.was_calm {
            return self.finish_event(cx);
        }
        debug_assert!(self.is_calm());
        self.was_read = WasRead::BOTH;
        self.note_unwritten(cx);
    }

    #[inline]
    fn note_unwritten(&mut self, cx: &Context<'_>) {
        if self.to_client.is_empty() {
            self.unwritten_since = None;
        } else {
            self.unwritten_since.get_or_insert(cx.now);
        }
        debug_assert!(self.unanswered() <= in_flight::MAX_IN_FLIGHT);
        debug_assert!(!self.is_finished() || self.in_flight.is_empty());
    }

    /// Whether both sides are served and read, and buffer no more than is free of charge. That is so after nearly every
    /// event, and then [`Self::follow_up`] would change nothing.
    fn is_calm(&self) -> bool {
        self.goal.is_serve()
            && self.upstream.is_up()
            && self.client.has_all_handled()
            && self.upstream_backlog.is_none()
            && self.held.is_none()
            && !self.is_paused()
            && self.charged == 0
            && self.server_log.kept_bytes() == 0
            && self.buffered() < OUTBOX_BYTES.min(UNCHARGED_BYTES)
    }

    /// Advances the session as far as possible, and notes the outcome. This is rarely called; inlined, it would make
    /// every event more expensive.
    #[inline(never)]
    fn follow_up(&mut self, cx: &mut Context<'_>) {
        self.advance_all(cx);
        self.note_unfinished(cx.now);
        self.was_read = WasRead {
            client: self.wants_client_input(),
            upstream: self.wants_upstream_output(cx.memory),
        };
        self.recharge_budget(cx.memory);
    }

    fn advance_all(&mut self, cx: &mut Context<'_>) {
        loop {
            self.handle_unread(cx);
            self.handle_upstream_backlog(cx);
            self.advance(cx);
            if !self.client.has_unread() || !self.may_handle_client_line() {
                break;
            }
        }
    }

    /// How many of the client's requests still wait for a response.
    fn unanswered(&self) -> usize {
        self.in_flight.load().requests + self.queued.requests
    }
}
