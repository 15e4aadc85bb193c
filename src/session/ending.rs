//! The way to the end of a session: what was sent is still served, what was said is still delivered, and whoever
//! waits is told.

use std::io::{self, ErrorKind};
use std::time::Duration;

use log::debug;

use super::in_flight::{InFlight, Load};
use super::report::EndReason;
use super::upstream::Upstream;
use super::{Action, Backend, Client, Context, Session, ToUpstream, earliest};
use crate::protocol::id::RequestId;
use crate::protocol::own_messages::ErrorReason;
use crate::util::time::Time;

/// After the client has ended its side, its requests have this long to be answered before the server's stdin is
/// closed. Servers drop running calls at the end of their input.
const FINISH_TIME: Duration = Duration::from_secs(30);

/// A client that takes nothing at the end of a session, or that hung up while its lines could not be read, is waited
/// for this long.
const STALL_TIME: Duration = Duration::from_secs(30);

/// After the end of our side, the client has this long to end its own before it is cut off.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What a client may still send after the end of our side before it is cut off, in bytes.
const LINGER_BYTES: usize = 1024 * 1024;

/// A client to which the session says that it ends has sent all that it had when it is silent for this long: what it
/// sent in time may have been waiting for room in our socket.
const LAST_CALL_QUIET: Duration = Duration::from_millis(100);

/// A client that goes on sending is heard for this long, in which the time does not count that it can't be.
const LAST_CALL_TIME: Duration = Duration::from_secs(1);

/// Where the session wants to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// On and on.
    Serve,
    /// What the client has sent is served, as far as that is done in [`FINISH_TIME`].
    Finish { since: Time },
    /// Nothing more is served.
    End,
}

/// The session ends by itself, and what the client sent before it could know that is still heard: served or refused, as
/// the goal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastCall {
    /// When a silent client has sent everything.
    quiet_at: Time,
    /// When even one that is not silent is heard no more.
    until: Time,
}

impl Goal {
    /// Whether the time to serve what was sent is over.
    pub(super) fn is_overdue(self, now: Time) -> bool {
        matches!(self, Self::Finish { since } if since + FINISH_TIME <= now)
    }
}

impl LastCall {
    fn begin(now: Time) -> Self {
        Self {
            quiet_at: now + LAST_CALL_QUIET,
            until: now + LAST_CALL_TIME,
        }
    }
}

impl Session {
    /// The proxy is being stopped: serves what was sent, and ends.
    pub(super) fn shut_down(&mut self, cx: &mut Context<'_>) {
        self.stopping = true;
        match cx.settings.role {
            // Who stops a program on the stdio side does not wait long.
            Backend::Proxy { .. } if self.goal != Goal::End => {
                self.end_now(&EndReason::Shutdown, cx);
            }
            Backend::Process { .. } if self.goal == Goal::Serve => {
                self.finish_for(EndReason::Shutdown, cx);
            }
            Backend::Proxy { .. } | Backend::Process { .. } => {}
        }
    }

    /// What made the session end before its client wanted that, if anything did.
    pub fn failure(&self) -> Option<&EndReason> {
        let by_client = matches!(
            self.end_reason,
            EndReason::ClientEnded | EndReason::ClientGone(_) | EndReason::Shutdown
        );
        (!by_client).then_some(&self.end_reason)
    }

    /// The client is gone altogether, or can't be read or written for another reason.
    pub(super) fn client_failed(&mut self, error: &io::Error, cx: &mut Context<'_>) {
        let left = matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        );
        let reason = match cx.settings.role {
            Backend::Proxy { .. } if !left => EndReason::StdioFailed(error.to_string()),
            Backend::Proxy { .. } | Backend::Process { .. } => {
                EndReason::ClientGone(error.to_string())
            }
        };
        self.drop_client(reason, cx);
    }

    /// The client is known to have ended its side, although that was not read yet.
    pub(super) fn client_hup(&mut self, cx: &mut Context<'_>) {
        self.hung_up.get_or_insert(cx.now);
    }

    /// The client has shown that it may send more.
    pub(super) fn prolong_last_call(&mut self, now: Time) {
        if let Some(last_call) = &mut self.last_call {
            last_call.quiet_at = now + LAST_CALL_QUIET;
        }
    }

    /// The client could not be heard up to now.
    pub(super) fn repeat_last_call(&mut self, now: Time) {
        if let Some(last_call) = &mut self.last_call {
            **last_call = LastCall::begin(now);
        }
    }

    /// Whether the lines of the client are taken, to be served or to be refused.
    pub(super) fn accepts_client_lines(&self) -> bool {
        self.goal == Goal::Serve || self.last_call.is_some()
    }

    /// The end of the client's side was read.
    pub(super) fn after_client_eof(&mut self, cx: &mut Context<'_>) {
        self.last_call = None;
        if let Client::Lingering { .. } = self.client {
            self.close_client(cx);
        } else if self.goal == Goal::Serve {
            self.finish(cx);
        }
    }

    /// Comes to an end that the client has not asked for: what it sends before it can know is served.
    pub(super) fn finish_for(&mut self, reason: EndReason, cx: &Context<'_>) {
        self.end_reason = reason;
        self.last_call = (self.client == Client::Open).then(|| Box::new(LastCall::begin(cx.now)));
        self.finish(cx);
    }

    fn finish(&mut self, cx: &Context<'_>) {
        self.last_taken = cx.now;
        self.goal = Goal::Finish { since: cx.now };
    }

    /// Whether nothing that the client sent is still to be served.
    pub(super) fn nothing_waits(&self) -> bool {
        let all_read = self.last_call.is_none() && self.unread.is_none();
        all_read
            && self.in_flight.is_empty()
            && self.held().is_empty()
            && self.to_upstream.is_empty()
    }

    /// No server will come any more: answers what waits, and ends once the client has been told.
    pub(super) fn give_up(&mut self, reason: &EndReason, cx: &mut Context<'_>) {
        let calls = self.client == Client::Open && self.accepts_client_lines();
        self.last_call = calls.then(|| Box::new(LastCall::begin(cx.now)));
        let cuts_short = !self.nothing_waits() && !self.stopping;
        if self.goal == Goal::Serve || (self.goal != Goal::End && cuts_short) {
            self.end_reason = reason.clone();
        }
        let own_messages = if self.stopping {
            &EndReason::Shutdown
        } else {
            reason
        };
        self.refuse_waiting(own_messages.reply_reason(), &own_messages.to_string(), cx);
        self.last_taken = cx.now;
        self.goal = Goal::End;
    }

    /// Answers what waits for a server that will not come. What is in flight is answered too.
    fn refuse_waiting(&mut self, reason: ErrorReason, text: &str, cx: &mut Context<'_>) {
        let mut ids: Vec<RequestId> = std::mem::take(&mut self.in_flight).into_ids().collect();
        for outbox in [std::mem::take(&mut self.to_upstream), self.take_held()] {
            let requests = outbox.tags().flat_map(ToUpstream::requests);
            ids.extend(requests.map(|request| request.id.clone()));
        }
        self.queued = Load::default();
        for id in ids {
            self.reply_error(Some(&id), reason, text, cx);
        }
    }

    /// Ends the session although its server is up.
    pub(super) fn end_now(&mut self, reason: &EndReason, cx: &mut Context<'_>) {
        self.give_up(reason, cx);
        self.stop_upstream(cx);
    }

    /// Takes the session as far towards its goal as it can get.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) {
        self.start_on_demand(cx);
        self.advance_leaving(cx);
        if matches!(self.goal, Goal::Finish { .. }) {
            self.advance_finishing(cx);
        }
        if self.goal == Goal::End {
            self.stop_upstream(cx);
            self.advance_leaving(cx);
            self.advance_closing(cx);
        }
    }

    fn advance_finishing(&mut self, cx: &mut Context<'_>) {
        let overdue = self.goal.is_overdue(cx.now);
        let done = overdue || self.nothing_waits();
        match &self.upstream {
            // Its client expects no end, and should not wait for it until the server is gone.
            Upstream::Up(_) | Upstream::Leaving(_) if done && self.is_unused() => {
                self.end_now(&self.end_reason.clone(), cx);
            }
            Upstream::Up(_) if done => self.stop_upstream(cx),
            Upstream::OnDemand | Upstream::Cooling { .. } if done || self.stopping => {
                self.end_without_server(overdue, cx);
            }
            Upstream::Starting if done => self.end_without_server(overdue, cx),
            Upstream::None => self.end_without_server(overdue, cx),
            Upstream::Up(_)
            | Upstream::OnDemand
            | Upstream::Starting
            | Upstream::Cooling { .. }
            | Upstream::Leaving(_) => {}
        }
    }

    fn end_without_server(&mut self, overdue: bool, cx: &mut Context<'_>) {
        self.upstream = Upstream::None;
        let reason = if overdue {
            EndReason::Overdue(FINISH_TIME)
        } else {
            self.end_reason.clone()
        };
        self.give_up(&reason, cx);
    }

    /// Closes the client once it has taken everything.
    fn advance_closing(&mut self, cx: &mut Context<'_>) {
        if self.last_call.is_some() || !self.to_client.is_empty() {
            return;
        }
        match self.client {
            Client::Open => {
                cx.actions.push(Action::ShutdownClient);
                self.client = Client::Lingering {
                    until: cx.now + LINGER_TIME,
                    discarded: 0,
                };
                self.unread = None;
                self.from_client.clear();
            }
            Client::Ended => self.close_client(cx),
            Client::Lingering { .. } | Client::Closed => {}
        }
    }

    /// Counts what a client sends after the end of our side.
    pub(super) fn discard(&mut self, count: usize, cx: &mut Context<'_>) {
        if let Client::Lingering { discarded, .. } = &mut self.client {
            *discarded += count;
            if *discarded > LINGER_BYTES {
                debug!("{}: cut off, as it sends without end", self.tag);
                self.close_client(cx);
            }
        }
    }

    fn close_client(&mut self, cx: &mut Context<'_>) {
        self.client = Client::Closed;
        cx.actions.push(Action::CloseClient);
    }

    fn drop_client(&mut self, reason: EndReason, cx: &mut Context<'_>) {
        if self.client == Client::Closed {
            return;
        }
        if self.goal == Goal::Serve || matches!(reason, EndReason::StdioFailed(_)) {
            self.end_reason = reason;
        }
        self.close_client(cx);
        self.goal = Goal::End;
        self.last_call = None;
        self.to_client.clear();
        self.to_upstream.clear();
        self.held = None;
        self.queued = Load::default();
        self.in_flight = InFlight::default();
        self.unread = None;
        self.from_client.clear();
    }

    pub(super) fn ending_deadline(&self) -> Option<Time> {
        let finish = match (self.goal, &self.upstream) {
            (
                Goal::Finish { since },
                Upstream::Up(_) | Upstream::Starting | Upstream::Cooling { .. },
            ) => Some(since + FINISH_TIME),
            _ => None,
        };
        let linger = match self.client {
            Client::Lingering { until, .. } => Some(until),
            Client::Open | Client::Ended | Client::Closed => None,
        };
        let calls = earliest(self.last_call_deadline(), self.stall_deadline());
        earliest(earliest(finish, linger), calls)
    }

    /// When the client is taken to have sent all that it will. One that can't be read is neither silent nor heard.
    fn last_call_deadline(&self) -> Option<Time> {
        let LastCall { quiet_at, until } = **self.last_call.as_ref()?;
        self.wants_client_input().then(|| quiet_at.min(until))
    }

    /// When a client is given up that takes nothing, or that is gone while its lines can't be taken.
    fn stall_deadline(&self) -> Option<Time> {
        if self.is_connector() {
            // Our stdout breaks when nobody is going to read it.
            return None;
        }
        let since = match (self.client, self.goal) {
            (Client::Open, Goal::Serve) if !self.wants_client_input() => {
                self.hung_up?.max(self.last_taken)
            }
            (Client::Open | Client::Ended, Goal::Finish { .. } | Goal::End) => {
                self.unwritten_since?.max(self.last_taken)
            }
            _ => return None,
        };
        Some(since + STALL_TIME)
    }

    pub(super) fn ending_timeout(&mut self, cx: &mut Context<'_>) {
        if self.stall_deadline().is_some_and(|at| at <= cx.now) {
            self.drop_client(EndReason::Stalled(STALL_TIME), cx);
        }
        if matches!(self.client, Client::Lingering { until, .. } if until <= cx.now) {
            self.close_client(cx);
        }
        if self.last_call_deadline().is_some_and(|at| at <= cx.now) {
            self.last_call = None;
        }
        // An overdue finish is seen to by what follows every event.
    }
}
