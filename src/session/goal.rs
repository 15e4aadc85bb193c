//! Where the session wants to get, and the way to its end: what was sent is still served, what was said is still
//! delivered, and whoever waits is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::in_flight::Load;
use super::report::EndReason;
use super::upstream::{ToUpstream, Upstream};
use super::{Context, Session, earliest};
use crate::protocol::id::RequestId;
use crate::protocol::own_messages::ErrorReason;
use crate::util::time::Time;

/// After the client has ended its side, its requests have this long to be answered before the server's stdin is closed:
/// servers drop running calls at the end of their input. Half a minute is more than most calls take, and less than a
/// stop of the program may take under systemd (90 s).
pub(super) const FINISH_TIME: Duration = Duration::from_secs(30);

/// A client that is told about an end it has not asked for has sent all that it had once it is silent for this long:
/// what it sent in time may have been waiting for room in our socket. Longer than most round trips on the internet.
const LAST_CALL_QUIET: Duration = Duration::from_millis(100);

/// A client that goes on sending is read for this long. Time in which it can't be read does not count.
const LAST_CALL_TIME: Duration = Duration::from_secs(1);

/// Where the session wants to get.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Goal {
    /// Serve until somebody ends it.
    Serve,
    /// Serve what the client has sent, as far as that is possible within [`FINISH_TIME`].
    Finish(Box<End>),
    /// Serve nothing more.
    End(Box<End>),
}

/// The end that a session comes to. Sessions serve for hours before they have one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct End {
    /// Since when it comes to that.
    since: Time,
    reason: EndReason,
    last_call: Option<LastCall>,
}

/// The client did not ask for this end. What it sent before it could know is still read, and served or refused as the
/// goal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastCall {
    /// When a silent client has sent everything.
    quiet_at: Time,
    /// When even a client that is not silent is no longer read.
    until: Time,
}

impl LastCall {
    fn begin(now: Time) -> Self {
        Self {
            quiet_at: now + LAST_CALL_QUIET,
            until: now + LAST_CALL_TIME,
        }
    }
}

impl Goal {
    /// To end for this reason, with nothing more to be read.
    pub(super) fn end(reason: EndReason, now: Time) -> Self {
        Self::End(Box::new(End {
            since: now,
            reason,
            last_call: None,
        }))
    }

    /// What it comes to, if it is to end.
    fn to_end(&self) -> Option<&End> {
        match self {
            Self::Serve => None,
            Self::Finish(end) | Self::End(end) => Some(end),
        }
    }

    fn to_end_mut(&mut self) -> Option<&mut End> {
        match self {
            Self::Serve => None,
            Self::Finish(end) | Self::End(end) => Some(end),
        }
    }

    pub(super) fn is_serve(&self) -> bool {
        matches!(self, Self::Serve)
    }

    pub(super) fn is_end(&self) -> bool {
        matches!(self, Self::End(_))
    }

    /// Whether the time to serve what was sent is over.
    pub(super) fn is_overdue(&self, now: Time) -> bool {
        self.overdue_at().is_some_and(|at| at <= now)
    }

    /// When it is. A stop of the program has a deadline of its own, and a session that is not used has nothing to be
    /// served: its end waits at most for a client that takes what it is sent.
    fn overdue_at(&self) -> Option<Time> {
        match self {
            Self::Serve | Self::End(_) => None,
            Self::Finish(end) if end.reason == EndReason::Shutdown || end.reason.is_unused() => {
                None
            }
            Self::Finish(end) => Some(end.since + FINISH_TIME),
        }
    }

    /// Why the session ends, if it does.
    pub(super) fn reason(&self) -> Option<&EndReason> {
        self.to_end().map(|end| &end.reason)
    }

    fn into_reason(self) -> Option<EndReason> {
        match self {
            Self::Serve => None,
            Self::Finish(end) | Self::End(end) => Some(end.reason),
        }
    }

    fn last_call(&self) -> Option<&LastCall> {
        self.to_end()?.last_call.as_ref()
    }

    fn last_call_mut(&mut self) -> Option<&mut LastCall> {
        self.to_end_mut()?.last_call.as_mut()
    }

    /// The client has shown that it may send more.
    pub(super) fn prolong_last_call(&mut self, now: Time) {
        if let Some(last_call) = self.last_call_mut() {
            last_call.quiet_at = now + LAST_CALL_QUIET;
        }
    }

    /// The client could not be read up to now.
    pub(super) fn repeat_last_call(&mut self, now: Time) {
        if let Some(last_call) = self.last_call_mut() {
            *last_call = LastCall::begin(now);
        }
    }

    /// The client is to see something before it sees the end, and may send more up to then.
    fn call_again(&mut self, now: Time) {
        if let Self::Finish(end) = self {
            end.last_call = Some(LastCall::begin(now));
        }
    }

    fn end_last_call(&mut self) {
        if let Some(end) = self.to_end_mut() {
            end.last_call = None;
        }
    }
}

impl Session {
    /// The program is being stopped: serves what was sent, and ends.
    pub(super) fn shut_down(&mut self, cx: &mut Context<'_>) {
        self.rare.change().stop_deadline = Some(cx.now + cx.settings.stop_timeout);
        if self.backend.ends_at_once_when_stopped() {
            if !self.goal.is_end() {
                self.finish_upstream_backlog(cx);
                self.close_subscriptions(cx);
                self.end_now(&EndReason::Shutdown, cx);
            }
        } else if self.goal.is_serve() {
            self.finish_for(EndReason::Shutdown, cx);
        }
    }

    /// Whether the program is being stopped.
    pub fn is_stopping(&self) -> bool {
        self.rare.stop_deadline.is_some()
    }

    /// Whether lines of the client are accepted, to be served or to be refused. As long as the program waits for what is
    /// in flight, clients may answer what servers ask for it, and are told that new requests are not served.
    pub(super) fn accepts_client_lines(&self) -> bool {
        self.may_say_more() || (self.is_stopping() && matches!(self.goal, Goal::Finish(_)))
    }

    /// Whether the client may still send what is to be served.
    fn may_say_more(&self) -> bool {
        self.goal.is_serve() || self.goal.last_call().is_some()
    }

    /// The client has ended its side: what it has sent is served.
    pub(super) fn finish_after_client_eof(&mut self, since: Time, cx: &Context<'_>) {
        if self.goal.is_serve() {
            self.finish(EndReason::ClientEnded, since, None, cx);
        } else {
            self.goal.end_last_call();
        }
    }

    /// Comes to an end that the client has not asked for: what it sends before it can know is served.
    pub(super) fn finish_for(&mut self, reason: EndReason, cx: &Context<'_>) {
        let last_call = self.client.is_open().then(|| LastCall::begin(cx.now));
        self.finish(reason, cx.now, last_call, cx);
    }

    fn finish(
        &mut self,
        reason: EndReason,
        since: Time,
        last_call: Option<LastCall>,
        cx: &Context<'_>,
    ) {
        self.last_written = cx.now;
        self.goal = Goal::Finish(Box::new(End {
            since,
            reason,
            last_call,
        }));
    }

    /// Whether nothing that the client has sent, or may still send, is to be served.
    pub(super) fn nothing_waits(&self) -> bool {
        self.goal.last_call().is_none() && self.nothing_is_open()
    }

    /// Whether everything that was read is served.
    fn nothing_is_open(&self) -> bool {
        !self.client.has_unread()
            && self.in_flight.is_no_work()
            && self.held().is_empty()
            && self.to_upstream.is_empty()
    }

    /// No upstream will come any more: answers what waits, and ends once the client has been told.
    pub(super) fn give_up(&mut self, reason: &EndReason, cx: &mut Context<'_>) {
        // What was read of the client already is told of the end, too.
        let has_more = self.may_say_more() || self.client.has_unread();
        let reads_on = self.client.is_open() && has_more;
        let last_call = reads_on.then(|| LastCall::begin(cx.now));
        let cuts_short = !self.is_stopping() && (last_call.is_some() || !self.nothing_is_open());
        let first = match std::mem::replace(&mut self.goal, Goal::Serve) {
            Goal::Finish(_) if cuts_short => None,
            goal => goal.into_reason(),
        };
        self.goal = Goal::End(Box::new(End {
            since: cx.now,
            reason: first.unwrap_or_else(|| reason.clone()),
            last_call,
        }));
        let told = if self.is_stopping() {
            &EndReason::Shutdown
        } else {
            reason
        };
        self.refuse_waiting(told.error_reason(), &told.to_string(), cx);
        self.last_written = cx.now;
    }

    /// Answers what waits for an upstream that will not come, and what is in flight.
    fn refuse_waiting(&mut self, reason: ErrorReason, text: &str, cx: &mut Context<'_>) {
        for id in std::mem::take(&mut self.in_flight).into_ids() {
            self.reply_unserved(&id, true, reason, text, cx);
        }
        let mut waiting: Vec<(RequestId, bool)> = Vec::new();
        for outbox in [std::mem::take(&mut self.to_upstream), self.take_held()] {
            let requests = outbox.tags().flat_map(ToUpstream::requests);
            waiting.extend(requests.map(|request| (request.id.clone(), request.was_sent())));
        }
        self.queued = Load::default();
        for (id, was_sent) in waiting {
            self.reply_unserved(&id, was_sent, reason, text, cx);
        }
    }

    /// Ends the session although its upstream is there.
    pub(super) fn end_now(&mut self, reason: &EndReason, cx: &mut Context<'_>) {
        self.give_up(reason, cx);
        self.stop_upstream(cx);
    }

    /// The client may not use the upstream any more, and is told so even if it waits for nothing.
    pub(super) fn revoke(&mut self, cx: &mut Context<'_>) {
        if self.goal.is_end() {
            return;
        }
        let reason = EndReason::Unauthorized;
        if self.unanswered() == 0 {
            self.reply_error(None, reason.error_reason(), &reason.to_string(), cx);
        }
        self.end_now(&reason, cx);
    }

    /// The client is gone: nobody is left to serve.
    pub(super) fn end_without_client(&mut self, reason: EndReason, now: Time) {
        let first = std::mem::replace(&mut self.goal, Goal::Serve).into_reason();
        let reason = match (first, reason) {
            (_, failed @ EndReason::StdioFailed(_)) => failed,
            (first, reason) => first.unwrap_or(reason),
        };
        self.goal = Goal::end(reason, now);
    }

    /// Takes the session as far towards its goal as it can get.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) {
        self.start_on_demand(cx);
        self.leave_refusing_upstream(cx);
        self.advance_leaving(cx);
        self.advance_finishing(cx);
        if self.goal.is_end() {
            self.stop_upstream(cx);
            self.advance_leaving(cx);
            if self.goal.last_call().is_none() {
                self.advance_closing(cx);
            }
        }
        self.advance_swap(cx);
    }

    fn advance_finishing(&mut self, cx: &mut Context<'_>) {
        let Goal::Finish(end) = &self.goal else {
            return;
        };
        let reason = end.reason.clone();
        // A session that is not used may go on after all, and its subscriptions with it.
        if !self.is_unused() || self.nothing_waits() {
            let has_told = self.close_subscriptions(cx);
            if has_told && self.is_unused() && self.client.is_open() && !self.is_stopping() {
                self.goal.call_again(cx.now);
            }
        }
        let overdue = self.goal.is_overdue(cx.now);
        let done = overdue || self.nothing_waits();
        match &self.upstream {
            // Its client expects no end, and should not wait for it until the server is gone.
            Upstream::Up(_) | Upstream::Leaving(_) if done && self.is_unused() => {
                self.end_now(&reason, cx);
            }
            Upstream::Up(_) if done => self.stop_upstream(cx),
            Upstream::OnDemand | Upstream::Cooling { .. } if done || self.is_stopping() => {
                self.end_without_upstream(reason, overdue, cx);
            }
            Upstream::Starting if done => self.end_without_upstream(reason, overdue, cx),
            Upstream::None => self.end_without_upstream(reason, overdue, cx),
            Upstream::Up(_)
            | Upstream::OnDemand
            | Upstream::Starting
            | Upstream::Cooling { .. }
            | Upstream::Leaving(_) => {}
        }
    }

    fn end_without_upstream(&mut self, reason: EndReason, overdue: bool, cx: &mut Context<'_>) {
        self.upstream = Upstream::None;
        let overdue = overdue.then_some(EndReason::Overdue(FINISH_TIME));
        self.give_up(&overdue.unwrap_or(reason), cx);
    }

    pub(super) fn goal_deadline(&self) -> Option<Time> {
        let finish = match &self.upstream {
            Upstream::Up(_) | Upstream::Starting | Upstream::Cooling { .. } => {
                self.goal.overdue_at()
            }
            _ => None,
        };
        let stop = self.rare.stop_deadline.filter(|_| !self.goal.is_end());
        earliest(earliest(finish, stop), self.last_call_deadline())
    }

    /// When the client is taken to have sent everything. While it can't be read, it is neither silent nor heard. A client
    /// that is not told of its end sees it after all that it still gets, and is heard up to then, within reason.
    fn last_call_deadline(&self) -> Option<Time> {
        let LastCall { quiet_at, until } = *self.goal.last_call()?;
        let is_busy = self.is_unused_but_busy();
        let at = match self.goal {
            Goal::Finish(_) if is_busy => return None,
            _ if is_busy => until + FINISH_TIME,
            _ => quiet_at.min(until),
        };
        self.wants_client_input().then_some(at)
    }

    /// An overdue finish is left to [`Self::advance`], which follows every event.
    pub(super) fn goal_timeout(&mut self, cx: &mut Context<'_>) {
        if self.last_call_deadline().is_some_and(|at| at <= cx.now) {
            self.goal.end_last_call();
        }
        if self.rare.stop_deadline.is_some_and(|at| at <= cx.now) && !self.goal.is_end() {
            self.goal.end_last_call();
            // A client that has taken nothing since the stop began is not waited for once more.
            let last_written = self.last_written;
            self.end_now(&EndReason::Shutdown, cx);
            self.last_written = last_written;
        }
    }
}
