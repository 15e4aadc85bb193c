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
//! A session that is to have a new server goes from `Up` to `Up`, once both servers are ready for that (`swap`).
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

mod admission;
mod backend;
pub mod backlog;
mod buffering;
mod cancellations;
mod carried;
mod client_lines;
mod client_side;
pub mod counts;
mod deadlines;
mod era;
mod event;
mod goal;
mod guard;
mod handling;
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
mod rare;
mod reconnect;
pub mod records;
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
mod swap;
mod tally;
#[cfg(test)]
mod tests;
mod tidy;
mod unfinished;
mod unread;
mod upstream;
mod upstream_lines;
mod vanished;

use std::rc::Rc;

use serde::{Deserialize, Serialize};

pub use self::backend::Backend;
use self::backend::BackendState;
use self::backlog::{Backlog, LinesOfRun};
use self::buffering::{LARGE_LINE_BYTES, OUTBOX_BYTES};
use self::client_side::{Client, OwnLine};
use self::deadlines::earliest;
use self::era::{Era, Version};
pub use self::event::{Action, Context, Event, SwapEnd};
use self::goal::Goal;
use self::handling::WasRead;
pub(crate) use self::handshake::Agreement;
use self::handshake::Handshake;
use self::heartbeat::Heartbeat;
use self::idle::UseKnown;
use self::in_flight::{InFlight, Load, ServerRequests};
use self::rare::Rare;
use self::report::{EndReason, Label, SessionLimit, Traffic};
use self::resuming::Resuming;
pub use self::settings::{Settings, Spawn};
use self::stderr::ServerLog;
use self::swap::Swap;
use self::tally::Tally;
use self::tidy::Tidy;
use self::upstream::{ToUpstream, Upstream};
pub use self::vanished::VANISH_TIME;
use crate::buffers::outbox::Outbox;
use crate::protocol::lines::Splitter;
use crate::protocol::recogniser::Recogniser;
use crate::util::defaults::is_default;
use crate::util::seldom::Seldom;
use crate::util::time::Time;

/// A client and its upstreams.
#[derive(Debug, Serialize, Deserialize)]
pub struct Session {
    label: Label,
    opened: Time,
    goal: Goal,
    client: Client,
    upstream: Upstream,
    /// Whether the server was given back, and there is no other one yet.
    #[serde(default, skip_serializing_if = "is_default")]
    hibernates: bool,
    /// When a message had last passed when it was noticed that none did any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    quiet_since: Option<Time>,
    backend: BackendState,

    /// Examines the client's first line until it is known to be in our protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<Recogniser>,
    from_client: Splitter,
    from_upstream: Splitter,
    /// What was read of the upstream and is not handled yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_backlog: Option<Box<Backlog>>,
    #[serde(default, skip_serializing_if = "is_default")]
    lines_of_run: LinesOfRun,
    to_client: Outbox<OwnLine>,
    /// For the present upstream.
    to_upstream: Outbox<ToUpstream>,
    /// For an upstream that is not there, or that does not know the client yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Box<Outbox<ToUpstream>>>,
    /// The requests in `to_upstream` and `held`.
    #[serde(default, skip_serializing_if = "is_default")]
    queued: Load,

    in_flight: InFlight,
    #[serde(default, skip_serializing_if = "ServerRequests::is_none")]
    server_requests: ServerRequests,
    era: Era,
    /// What a modern client speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    modern_version: Option<Rc<Version>>,
    handshake: Handshake,
    heartbeat: Heartbeat,
    was_read: WasRead,
    /// Whether both sides are served and read, and nothing is out of the ordinary, since the last event.
    was_calm: bool,

    /// When anything was last written to either side.
    last_written: Time,
    /// Since when nothing has been written to the client although something waits for it; `None` if nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    unwritten_since: Option<Time>,
    /// When a message last passed, or a part of one.
    last_line: Time,
    /// Whether that is known of all messages.
    use_known: UseKnown,
    /// How much of the shared memory this session is charged for, in bytes.
    #[serde(skip)]
    charged: usize,
    #[serde(default, skip_serializing_if = "is_default")]
    sent_to_upstream: Traffic,
    #[serde(default, skip_serializing_if = "is_default")]
    sent_to_client: Traffic,
    #[serde(default, skip_serializing_if = "ServerLog::is_none")]
    server_log: ServerLog,
    #[serde(default, skip_serializing_if = "is_default")]
    tally: Tally,
    /// Whether the log line about the start was left out because there were too many connections.
    #[serde(default, skip_serializing_if = "is_default")]
    owes_opened: bool,
    /// Present if a connection may be lost and come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    resume: Option<Resuming>,
    /// Present while the session is on its way to a new server.
    #[serde(skip_serializing_if = "Option::is_none")]
    swap: Option<Box<Swap>>,
    #[serde(default, skip_serializing_if = "Seldom::is_as_it_began")]
    rare: Seldom<Rare>,
}

/// There are thousands. What few of them ever need goes into [`Rare`], or into a box of its own.
const _: () = assert!(size_of::<Session>() <= 768);

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
        session.goal = Goal::end(reason, cx.now);
        session.finish_event(cx);
        session
    }

    fn new(label: Label, cx: &Context<'_>) -> Self {
        let mut session = Self {
            label,
            opened: cx.now,
            goal: Goal::Serve,
            client: Client::new(),
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
            era: Era::default(),
            modern_version: None,
            handshake: Handshake::default(),
            heartbeat: Heartbeat::new(cx.now),
            was_read: WasRead::BOTH,
            was_calm: false,
            last_written: cx.now,
            unwritten_since: None,
            last_line: cx.now,
            use_known: UseKnown::under(&cx.settings.idle_limits),
            charged: 0,
            sent_to_upstream: Traffic::default(),
            sent_to_client: Traffic::default(),
            server_log: ServerLog::default(),
            tally: Tally::default(),
            owes_opened: false,
            resume: None,
            swap: None,
            rare: Seldom::default(),
        };
        if cx.settings.role.is_tidy() {
            session.rare.change().tidy = Some(Tidy::default());
        }
        session
    }

    /// Identifies the session in log lines.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Whether both sides are gone, and the session can be forgotten.
    pub fn is_finished(&self) -> bool {
        matches!(self.client, Client::Closed) && matches!(self.upstream, Upstream::None)
    }

    /// How many of the client's requests still wait for a response.
    fn unanswered(&self) -> usize {
        self.in_flight.load().requests() + self.queued.requests()
    }
}
