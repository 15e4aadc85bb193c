//! A link that is lost and made again, with the same session at its other end: lines go through a
//! [`Channel`], and while there is no connection the session only pauses.
//!
//! ```text
//!            granted                  lost                     connected
//!   Asked ─────────────▶ Granted ─────────────▶ Lost ────────────────────▶ Verdict
//!     │ another first line  ▲  ▲                 ▲  └▶ the time is over:     │ │ │
//!     ▼                     │  └── resumed ──────┼──────── as lost ──────────┘ │ │
//!   Plain                   └────── granted ── Fresh ◀──── not resumed ────────┘ │
//!                                                └───────── no verdict ──────────┘
//! ```
//!
//! `Plain` is what a link is to a proxy that knows nothing of this. In `Fresh` the session at the other end is gone, and there
//! is a new one already: the link is for the next upstream, which it is at once.
//!
//! How it is run is in `kept_run`. When attempts are made is decided here, and done by whoever has the clock and the sockets.

mod incoming;

use std::time::Duration;

use log::warn;

use crate::buffers::budget::BufferBudget;
use crate::resume::wire::{self, Ask, SessionId, Side};
use crate::resume::{Channel, Client, WINDOW_BYTES};
use crate::session::{Context, Event, Session};
use crate::util::time::Time;

/// A proxy that keeps sessions says so within a round trip. After this, lines are sent beyond the window.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// The link, as far as it may come back.
#[derive(Debug)]
pub struct KeptLink {
    pub(super) state: State,
    pub(super) channel: Channel,
    pub(super) client: Client,
    /// Spare buffers.
    pub(super) buffers: BufferBudget,
    /// What is said first over a connection that may not be the session's, and how much of it was written.
    pub(super) first: (Vec<u8>, usize),
    /// What has come of the answer to that. It is no line of the session, and not counted.
    verdict: Vec<u8>,
    /// What a new session has said that has not begun here.
    early: Vec<u8>,
    /// How many lines the proxy has said that it has taken, and how many were let go of before it had.
    heard: u64,
    pub(super) forgotten: u64,
    /// When it was asked.
    asked_at: Time,
    /// Whether the proxy has said that it ends the session.
    has_bye: bool,
    /// Whether our side has ended.
    pub(super) has_ended: bool,
    /// Whether an attempt is to be made, and none is planned.
    wants_attempt: bool,
    /// Why no further attempt is of use.
    has_failed: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Asked,
    Plain,
    Granted,
    Lost,
    Verdict,
    Fresh,
}

/// What is to be done about a link that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing that is not planned already.
    Wait,
    /// An attempt is made at this time, unless the session is given up after `left`.
    ConnectAt {
        /// When.
        at: Time,
        /// How long the session can still be asked for.
        left: Duration,
    },
    /// The session can't be resumed, for this reason.
    GiveUp(&'static str),
}

/// What becomes of a link that the session has no use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Our side ends at once.
    Now,
    /// Our side ends once all is said, and that nothing follows.
    OnceSaid,
    /// There is no connection, but what the other end has not taken is to get there: so does the end.
    OnceBack,
    /// There is no connection that would be the session's.
    Gone,
}

impl KeptLink {
    /// A session is asked for, under this id. What is sent first is up to the caller ([`Self::begin_with`]).
    pub fn new(id: SessionId, heartbeat: Duration, now: Time, boot_time: Time) -> Self {
        Self {
            state: State::Asked,
            channel: Channel::new(Side::Client, WINDOW_BYTES),
            client: Client::new(id, heartbeat, boot_time),
            buffers: BufferBudget::new(0),
            first: (Vec::new(), 0),
            verdict: Vec::new(),
            early: Vec::new(),
            heard: 0,
            forgotten: 0,
            asked_at: now,
            has_bye: false,
            has_ended: false,
            wants_attempt: false,
            has_failed: None,
        }
    }

    /// What is asked for over the first connection.
    pub fn ask(&self) -> Ask {
        self.client.ask()
    }

    /// The first line over the first connection.
    pub fn begin_with(&mut self, line: &str) {
        self.channel.begin_with(line);
    }

    /// There is a connection again, of which `fresh` is the id: what is asked for over it. Nothing more is sent before the
    /// verdict.
    pub fn ask_again(&mut self, fresh: SessionId, now: Time) -> Ask {
        // Of a verdict that was cut off, a part may have come.
        self.verdict.clear();
        self.state = State::Verdict;
        self.has_ended = false;
        self.client
            .ask_again(fresh, self.channel.taken(), self.heard, now)
    }

    /// The first line over another connection.
    pub fn say_first(&mut self, line: &str) {
        let mut line = line.as_bytes().to_vec();
        line.push(b'\n');
        self.first = (line, 0);
    }

    /// Whether there is no connection, or one of which it is not known whether the session goes on over it.
    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost | State::Verdict)
    }

    /// Whether there is no connection, and none is to be used.
    pub fn is_down(&self) -> bool {
        self.state == State::Lost
    }

    /// Whether the answer of the proxy is awaited.
    pub fn awaits_verdict(&self) -> bool {
        self.state == State::Verdict
    }

    /// Whether the link is for the next upstream.
    pub fn is_fresh(&self) -> bool {
        self.state == State::Fresh
    }

    /// Whether our side has ended, once that was begun.
    pub fn has_ended_side(&self) -> bool {
        self.has_ended
    }

    /// Whether nothing follows what was said and is kept.
    pub fn is_ending(&self) -> bool {
        self.channel.is_ending()
    }

    /// Whether the session would survive the connection: also at its end, for what the other end may not have taken.
    pub fn can_come_back(&self) -> bool {
        let is_over = self.has_bye || (self.is_ending() && self.channel.kept().is_empty());
        self.state == State::Granted && !is_over && self.heard >= self.forgotten
    }

    /// Whether the proxy has had the time to answer, and has not: one that knows nothing of this may say nothing for long.
    pub(super) fn is_unanswered(&self, now: Time) -> bool {
        self.state == State::Asked && self.asked_at + ANSWER_TIME <= now
    }

    /// When that is so.
    pub(super) fn unanswered_at(&self) -> Option<Time> {
        (self.state == State::Asked).then(|| self.asked_at + ANSWER_TIME)
    }

    /// Whether lines may be sent.
    pub(super) fn takes_lines(&self) -> bool {
        matches!(self.state, State::Asked | State::Plain | State::Granted)
    }

    /// Lines that were written are not kept any longer, although they may not have been taken.
    pub(super) fn let_go(&mut self) {
        let forgotten = self.channel.let_go(&mut self.buffers);
        self.forgotten = forgotten.unwrap_or(self.forgotten);
    }

    /// Gives the memory back. Call it before the link is dropped.
    pub fn release(&mut self, memory: &mut BufferBudget) {
        self.channel.release(memory);
    }

    /// The connection is lost. Returns whether it may come back.
    pub(super) fn lose(&mut self, why: &str, session: &mut Session, cx: &mut Context<'_>) -> bool {
        match self.state {
            State::Verdict => self.try_again(),
            _ if self.can_come_back() => {
                warn!("lost the connection to {}: {why}", session.label().peer());
                self.lost();
                session.handle(Event::Detached, cx);
            }
            _ => return false,
        }
        true
    }

    fn lost(&mut self) {
        self.channel.detach();
        self.has_ended = false;
        self.try_again();
    }

    /// Nothing comes over the link any more. Returns whether it may come back; the session is to be told that it is lost.
    pub fn is_silent(&mut self) -> bool {
        let may_come_back = self.can_come_back();
        if may_come_back {
            self.lost();
        }
        may_come_back
    }

    /// There is no connection, or the last attempt has failed.
    pub fn try_again(&mut self) {
        self.state = State::Lost;
        self.wants_attempt = true;
    }

    /// What is to be done while the link is lost.
    pub fn next_step(&mut self, session: &mut Session, now: Time, boot_time: Time) -> Step {
        if let Some(why) = self.has_failed {
            return Step::GiveUp(why);
        }
        if !std::mem::take(&mut self.wants_attempt) {
            return Step::Wait;
        }
        let Some(left) = self.time_left(boot_time) else {
            return Step::GiveUp("its time is over");
        };
        match session.next_attempt(now) {
            None => Step::GiveUp("there were as many attempts as there may be"),
            Some(at) => {
                let not_before = self.client.not_before(self.channel.taken(), self.heard);
                let at = at.max(not_before.unwrap_or(at));
                Step::ConnectAt { at, left }
            }
        }
    }

    /// How long the session can still be asked for, if it can.
    pub fn time_left(&self, boot_time: Time) -> Option<Duration> {
        self.client.time_left(boot_time).ok()
    }

    /// The session has no use for the link any more. `may_wait` says whether the program is to go on for what the other end
    /// has not taken.
    pub fn end(&mut self, may_wait: bool) -> End {
        match self.state {
            // Any proxy takes it for a heartbeat.
            State::Asked | State::Granted => {
                self.channel.end_with(wire::CLIENT_BYE);
                End::OnceSaid
            }
            State::Plain => End::OnceSaid,
            State::Lost | State::Verdict if may_wait && !self.channel.kept().is_empty() => {
                self.channel.end_with(wire::CLIENT_BYE);
                End::OnceBack
            }
            State::Lost | State::Verdict | State::Fresh => End::Gone,
        }
    }

    /// The next upstream is to begin. Returns what it has said already, if the link is for it.
    pub fn begin_fresh(&mut self) -> Option<Vec<u8>> {
        if self.state != State::Fresh {
            return None;
        }
        self.state = if self.client.is_granted() {
            State::Granted
        } else {
            State::Asked
        };
        Some(std::mem::take(&mut self.early))
    }

    /// At the end of the program: whether the proxy is to be told that nobody comes back.
    pub fn end_for_good(&mut self) -> bool {
        let is_told = matches!(self.state, State::Asked | State::Granted);
        if is_told {
            self.channel.end_with(wire::CLIENT_BYE);
        }
        is_told
    }
}
