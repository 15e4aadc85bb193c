//! The client as a peer: what is read from it and when, what was written to it, how it leaves and how it is closed.
//! What its lines mean is the business of `client_lines`, and
//! how long it is waited for that of `send_queue`.

use std::io::{self, ErrorKind};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backlog::Backlog;
use super::goal::FINISH_TIME;
use super::in_flight::{InFlight, Load};
use super::report::EndReason;
use super::send_queue::Lingering;
use super::{Action, Context, LARGE_LINE_BYTES, OUTBOX_BYTES, Session};
use crate::buffers::budget::BufferBudget;
use crate::protocol::lines::Line;
use crate::util::about::about;
use crate::util::time::Time;

/// Once this many bytes of the proxy's own lines wait for a client, it is no longer read: whoever sends bad lines and
/// does not read the errors must not fill our memory. The same as in either direction of the relay.
const OWN_LINES_BYTES: usize = 64 * 1024;

/// Once it has everything after our half-close, the client has this long to end its own side before it is cut off:
/// several round trips, but short enough not to delay a stop of the program.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(1);

/// What a client may still send in that time before it is cut off, in bytes: more than its and our socket
/// buffers usually hold.
const LINGER_BYTES: usize = 1024 * 1024;

/// The client's side of the session.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Client {
    /// It may send.
    Open {
        /// What was read while it could not be handled.
        #[serde(skip_serializing_if = "Option::is_none")]
        unread: Option<Box<Backlog>>,
        /// Since when it is known to have hung up, although not everything that it sent was read.
        #[serde(skip_serializing_if = "Option::is_none")]
        hung_up: Option<Time>,
    },
    /// It has ended its side, and still reads what it is sent.
    Ended,
    /// Our side has ended too. What it sends is discarded, up to its end: a close before that would be a reset, which
    /// destroys our last lines.
    Lingering(Box<Lingering>),
    /// There is no connection.
    Closed,
}

/// Lines for the client that are the proxy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum OwnLine {
    Heartbeat,
    Other,
}

impl Client {
    pub(super) fn new() -> Self {
        Self::Open {
            unread: None,
            hung_up: None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Whether it may send, and is not known to have hung up.
    pub(super) fn is_at_ease(&self) -> bool {
        matches!(self, Self::Open { hung_up: None, .. })
    }

    /// Whether it still gets what it is sent.
    pub(super) fn is_writable(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Ended)
    }

    /// Whether it may send, and all that was read of it was handled.
    pub(super) fn has_all_handled(&self) -> bool {
        matches!(self, Self::Open { unread: None, .. })
    }

    pub(super) fn has_unread(&self) -> bool {
        matches!(
            self,
            Self::Open {
                unread: Some(_),
                ..
            }
        )
    }

    pub(super) fn unread_capacity(&self) -> usize {
        match self {
            Self::Open {
                unread: Some(unread),
                ..
            } => unread.capacity(),
            _ => 0,
        }
    }

    /// Returns whether there is as much memory.
    fn keep_unread(&mut self, more: &[u8], memory: &mut BufferBudget) -> bool {
        match self {
            Self::Open { unread, .. } => Backlog::keep(unread, more, memory),
            Self::Ended | Self::Lingering(_) | Self::Closed => true,
        }
    }

    fn take_unread(&mut self) -> Option<Box<Backlog>> {
        match self {
            Self::Open { unread, .. } => unread.take(),
            Self::Ended | Self::Lingering(_) | Self::Closed => None,
        }
    }
}

impl Session {
    /// Whether what the client sends is to be read now.
    pub fn wants_client_input(&self) -> bool {
        if let Client::Open { unread, .. } = &self.client {
            return unread.is_none() && self.has_room_for_client_lines();
        }
        matches!(self.client, Client::Lingering(_))
    }

    /// Whether there is room for whatever a line of the client may lead to.
    pub(super) fn has_room_for_client_lines(&self) -> bool {
        self.accepts_client_lines()
            && !self.is_asking()
            && self.to_upstream.len() + self.held_bytes() < OUTBOX_BYTES
            && (self.to_client.len() <= OWN_LINES_BYTES
                || self.to_client.tagged_bytes() <= OWN_LINES_BYTES)
    }

    /// Whether a line of the client is under way of which much has arrived.
    pub fn is_within_long_line_of_client(&self) -> bool {
        self.from_client.is_within_line(LARGE_LINE_BYTES)
    }

    /// What is to be written to the client.
    pub fn to_client(&self) -> &[u8] {
        self.to_client.waiting()
    }

    /// Whether there is anything to be written to the client.
    pub fn has_output_for_client(&self) -> bool {
        !self.to_client.is_empty()
    }

    /// Whether there is anything to be written to either side, if only once there is an upstream.
    pub fn has_output(&self) -> bool {
        !self.to_client.is_empty() || !self.to_upstream.is_empty()
    }

    /// Whether the client still gets what the upstream says.
    pub(super) fn delivers_to_client(&self) -> bool {
        self.client.is_writable() && !self.goal.is_end()
    }

    /// The first `count` bytes for the client were written.
    pub(super) fn client_written(&mut self, count: usize, cx: &mut Context<'_>) {
        self.last_written = cx.now;
        if let Some(rare) = self.rare.changed() {
            rare.send_queue.written();
        }
        self.note_delivery(cx);
        self.unwritten_since = None;
        self.to_client.consume(count, cx.memory);
        while self.to_client.next_started().is_some() {}
    }

    /// The client sent these bytes.
    pub(super) fn client_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        self.heartbeat.note_heard(cx.now);
        self.goal.prolong_last_call(cx.now);
        match self.client {
            Client::Open { .. } => {
                let mut input = bytes;
                if self.guard.is_none() || self.guard(&mut input, cx) {
                    self.take_input(input, cx);
                }
            }
            Client::Lingering(_) => self.discard(bytes.len(), cx),
            Client::Ended | Client::Closed => {}
        }
    }

    /// Handles as much as possible, and keeps the rest.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "of two callers, one is for every read"
    )]
    pub(super) fn take_input(&mut self, mut input: &[u8], cx: &mut Context<'_>) {
        if !self.client.has_unread() {
            self.handle_input(&mut input, cx);
        }
        if !input.is_empty() {
            self.keep_input(input, cx);
        }
        self.note_long_line(cx);
    }

    #[inline(never)]
    fn keep_input(&mut self, input: &[u8], cx: &mut Context<'_>) {
        if !self.client.keep_unread(input, cx.memory) {
            self.refuse_input(input, cx);
        }
    }

    /// Goes on with what could not be handled when it was read.
    pub(super) fn handle_unread(&mut self, cx: &mut Context<'_>) {
        if !self.may_handle_client_line() {
            return;
        }
        let Some(backlog) = self.client.take_unread() else {
            return;
        };
        let mut input = backlog.rest();
        self.handle_input(&mut input, cx);
        let left = if self.client.is_open() {
            input.len()
        } else {
            0
        };
        let backlog = backlog.handled_but(left, cx.memory);
        if let Client::Open { unread, .. } = &mut self.client {
            *unread = backlog;
        }
    }

    /// Handles lines from the front of `input`, as long as the client is to be heard: any line may change that.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "of two callers, one is for every line"
    )]
    pub(super) fn handle_input(&mut self, input: &mut &[u8], cx: &mut Context<'_>) {
        while !input.is_empty() && self.client.is_open() && self.may_handle_client_line() {
            if let Some(line) = Self::next_line(&mut self.from_client, input, cx) {
                self.lines_of_run.of_client += 1;
                match line {
                    // What nearly all lines are.
                    Line::Borrowed(text) => self.client_text(text, cx),
                    line => self.client_line(line, cx),
                }
            }
        }
    }

    /// The client ended its side. What has no line end is its last line.
    pub(super) fn client_eof(&mut self, cx: &mut Context<'_>) {
        match self.client {
            Client::Open { .. } => {
                debug_assert!(!self.client.has_unread(), "its end was read out of turn");
                self.end_guard(cx);
                if let Some(line) = self.from_client.end(Self::line_limits(cx)) {
                    self.client_line(line, cx);
                }
                let since = self.finishes_since(cx.now);
                self.client = Client::Ended;
                self.finish_after_client_eof(since, cx);
            }
            Client::Lingering(_) => self.close_client(cx),
            Client::Ended | Client::Closed => {}
        }
    }

    /// The client is known to have ended its side, although that was not read yet.
    pub(super) fn client_hup(&mut self, cx: &Context<'_>) {
        if let Client::Open { hung_up, .. } = &mut self.client {
            hung_up.get_or_insert(cx.now);
        }
    }

    /// When the client ended its side. For `connect` that is when it was known to: a host that has closed our stdin waits
    /// for our end, whether we have read everything or not.
    fn finishes_since(&self, now: Time) -> Time {
        self.hung_up_host().unwrap_or(now)
    }

    /// Since when the program that started `connect` is known to have closed stdin, although that is not read to its end.
    fn hung_up_host(&self) -> Option<Time> {
        match self.client {
            Client::Open { hung_up, .. } if self.backend.is_link() => hung_up,
            _ => None,
        }
    }

    /// Whether the client has ended its side, or is known to have.
    pub fn client_has_left(&self) -> bool {
        !matches!(self.client, Client::Open { hung_up: None, .. })
    }

    /// When it is too late to serve what a host has sent that has closed stdin.
    pub(super) fn host_deadline(&self) -> Option<Time> {
        let since = self.hung_up_host().filter(|_| self.goal.is_serve())?;
        Some(since + FINISH_TIME)
    }

    /// The client is gone altogether, or can't be read or written for another reason.
    pub(super) fn client_failed(&mut self, error: &io::Error, cx: &mut Context<'_>) {
        let has_left = matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        );
        let reason = if has_left {
            EndReason::ClientGone(error.to_string())
        } else {
            self.backend.client_failed(error)
        };
        self.drop_client(reason, cx);
    }

    /// Closes the client once everything was written to it.
    pub(super) fn advance_closing(&mut self, cx: &mut Context<'_>) {
        if !self.to_client.is_empty() {
            return;
        }
        match self.client {
            Client::Open { .. } | Client::Ended
                if self.resume.is_some() || self.client.is_open() =>
            {
                cx.actions.push(Action::ShutdownClient);
                self.client = Client::Lingering(Box::new(Lingering {
                    since: cx.now,
                    until: None,
                    discarded: 0,
                }));
                self.ask_for_queue(cx);
                self.from_client.clear();
            }
            Client::Open { .. } | Client::Ended => self.close_client(cx),
            Client::Lingering(_) | Client::Closed => {}
        }
    }

    /// Counts what a client sends after our half-close, once it has everything: until then, heartbeats and the like must
    /// not cost it the rest.
    fn discard(&mut self, count: usize, cx: &mut Context<'_>) {
        if let Client::Lingering(lingering) = &mut self.client
            && lingering.until.is_some()
        {
            lingering.discarded += count;
            if lingering.discarded > LINGER_BYTES {
                about!(debug, self.label, "cut off, as it does not stop sending");
                self.close_client(cx);
            }
        }
    }

    pub(super) fn close_client(&mut self, cx: &mut Context<'_>) {
        self.client = Client::Closed;
        cx.actions.push(Action::CloseClient);
    }

    pub(super) fn drop_client(&mut self, reason: EndReason, cx: &mut Context<'_>) {
        if matches!(self.client, Client::Closed) {
            return;
        }
        self.note_undelivered();
        self.close_client(cx);
        self.end_without_client(reason, cx.now);
        self.to_client.clear();
        self.to_upstream.clear();
        self.held = None;
        self.queued = Load::default();
        self.in_flight = InFlight::default();
        self.from_client.clear();
    }
}
