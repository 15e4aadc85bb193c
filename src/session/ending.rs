//! The way to the end of a session: what was sent is still served, what was said is still delivered, and whoever
//! waits is told.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use log::debug;

use super::in_flight::{InFlight, Load};
use super::report::EndReason;
use super::upstream::Upstream;
use super::{Action, Client, Role, Session, ToServer, Turn, earliest};
use crate::protocol::id::RequestId;
use crate::protocol::reply::Reason;

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
    Finish { since: Instant },
    /// Nothing more is served.
    End,
}

/// The session ends by itself, and what the client sent before it could know that is still heard: served or refused, as
/// the goal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastCall {
    /// When a silent client has sent everything.
    quiet_at: Instant,
    /// When even one that is not silent is heard no more.
    until: Instant,
}

impl Goal {
    /// Whether the time to serve what was sent is over.
    pub(super) fn is_overdue(self, now: Instant) -> bool {
        matches!(self, Self::Finish { since } if since + FINISH_TIME <= now)
    }
}

impl LastCall {
    fn begin(now: Instant) -> Self {
        Self {
            quiet_at: now + LAST_CALL_QUIET,
            until: now + LAST_CALL_TIME,
        }
    }
}

impl Session {
    /// The proxy is being stopped: serves what was sent, and ends.
    pub fn shut_down(&mut self, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        self.stopping = true;
        match turn.settings.role {
            // Who stops a program on the stdio side does not wait long.
            Role::Connector { .. } if self.goal != Goal::End => {
                self.end_now(&EndReason::Shutdown, turn);
            }
            Role::Proxy { .. } if self.goal == Goal::Serve => {
                self.finish_for(EndReason::Shutdown, turn);
            }
            Role::Connector { .. } | Role::Proxy { .. } => {}
        }
        self.finish_event(turn);
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
    pub fn client_gone(&mut self, error: &io::Error, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        let left = matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        );
        let reason = match turn.settings.role {
            Role::Connector { .. } if !left => EndReason::StdioFailed(error.to_string()),
            Role::Connector { .. } | Role::Proxy { .. } => EndReason::ClientGone(error.to_string()),
        };
        self.drop_client(reason, turn);
        self.finish_event(turn);
    }

    /// The client is known to have ended its side, although that was not read yet.
    pub fn client_hung_up(&mut self, turn: &mut Turn<'_>) {
        self.hung_up.get_or_insert(turn.now);
    }

    /// The client has shown that it may send more.
    pub(super) fn prolong_last_call(&mut self, now: Instant) {
        if let Some(last_call) = &mut self.last_call {
            last_call.quiet_at = now + LAST_CALL_QUIET;
        }
    }

    /// The client could not be heard up to now.
    pub(super) fn repeat_last_call(&mut self, now: Instant) {
        if let Some(last_call) = &mut self.last_call {
            **last_call = LastCall::begin(now);
        }
    }

    /// Whether the lines of the client are taken, to be served or to be refused.
    pub(super) fn hears(&self) -> bool {
        self.goal == Goal::Serve || self.last_call.is_some()
    }

    /// The end of the client's side was read.
    pub(super) fn client_has_ended(&mut self, turn: &mut Turn<'_>) {
        self.last_call = None;
        if let Client::Lingering { .. } = self.client {
            self.close_client(turn);
        } else if self.goal == Goal::Serve {
            self.finish(turn);
        }
    }

    /// Comes to an end that the client has not asked for: what it sends before it can know is served.
    pub(super) fn finish_for(&mut self, reason: EndReason, turn: &Turn<'_>) {
        self.end_reason = reason;
        self.last_call = (self.client == Client::Open).then(|| Box::new(LastCall::begin(turn.now)));
        self.finish(turn);
    }

    fn finish(&mut self, turn: &Turn<'_>) {
        self.last_taken = turn.now;
        self.goal = Goal::Finish { since: turn.now };
    }

    /// Whether nothing that the client sent is still to be served.
    pub(super) fn nothing_waits(&self) -> bool {
        let all_read = self.last_call.is_none() && self.unread.is_none();
        all_read && self.in_flight.is_empty() && self.held().is_empty() && self.to_server.is_empty()
    }

    /// No server will come any more: answers what waits, and ends once the client has been told.
    pub(super) fn give_up(&mut self, reason: &EndReason, turn: &mut Turn<'_>) {
        let calls = self.client == Client::Open && self.hears();
        self.last_call = calls.then(|| Box::new(LastCall::begin(turn.now)));
        let cuts_short = !self.nothing_waits() && !self.stopping;
        if self.goal == Goal::Serve || (self.goal != Goal::End && cuts_short) {
            self.end_reason = reason.clone();
        }
        let reply = if self.stopping {
            &EndReason::Shutdown
        } else {
            reason
        };
        self.refuse_waiting(reply.reply_reason(), &reply.to_string(), turn);
        self.last_taken = turn.now;
        self.goal = Goal::End;
    }

    /// Answers what waits for a server that will not come. What is in flight is answered too.
    fn refuse_waiting(&mut self, reason: Reason, text: &str, turn: &mut Turn<'_>) {
        let mut ids: Vec<RequestId> = std::mem::take(&mut self.in_flight).into_ids().collect();
        for outbox in [std::mem::take(&mut self.to_server), self.take_held()] {
            let requests = outbox.marks().flat_map(ToServer::requests);
            ids.extend(requests.map(|request| request.id.clone()));
        }
        self.queued = Load::default();
        for id in ids {
            self.reply_error(Some(&id), reason, text, turn);
        }
    }

    /// Ends the session although its server is up.
    pub(super) fn end_now(&mut self, reason: &EndReason, turn: &mut Turn<'_>) {
        self.give_up(reason, turn);
        self.stop_upstream(turn);
    }

    /// Takes the session as far towards its goal as it can get.
    pub(super) fn proceed(&mut self, turn: &mut Turn<'_>) {
        self.start_on_demand(turn);
        self.proceed_leaving(turn);
        if matches!(self.goal, Goal::Finish { .. }) {
            self.proceed_finishing(turn);
        }
        if self.goal == Goal::End {
            self.stop_upstream(turn);
            self.proceed_leaving(turn);
            self.proceed_closing(turn);
        }
    }

    fn proceed_finishing(&mut self, turn: &mut Turn<'_>) {
        let overdue = self.goal.is_overdue(turn.now);
        let done = overdue || self.nothing_waits();
        match &self.upstream {
            // Its client expects no end, and should not wait for it until the server is gone.
            Upstream::Up(_) | Upstream::Leaving(_) if done && self.is_unused() => {
                self.end_now(&self.end_reason.clone(), turn);
            }
            Upstream::Up(_) if done => self.stop_upstream(turn),
            Upstream::OnDemand | Upstream::Cooling { .. } if done || self.stopping => {
                self.end_without_server(overdue, turn);
            }
            Upstream::Starting if done => self.end_without_server(overdue, turn),
            Upstream::None => self.end_without_server(overdue, turn),
            Upstream::Up(_)
            | Upstream::OnDemand
            | Upstream::Starting
            | Upstream::Cooling { .. }
            | Upstream::Leaving(_) => {}
        }
    }

    fn end_without_server(&mut self, overdue: bool, turn: &mut Turn<'_>) {
        self.upstream = Upstream::None;
        let reason = if overdue {
            EndReason::Overdue(FINISH_TIME)
        } else {
            self.end_reason.clone()
        };
        self.give_up(&reason, turn);
    }

    /// Closes the client once it has taken everything.
    fn proceed_closing(&mut self, turn: &mut Turn<'_>) {
        if self.last_call.is_some() || !self.to_client.is_empty() {
            return;
        }
        match self.client {
            Client::Open => {
                turn.actions.push(Action::ShutdownClient);
                self.client = Client::Lingering {
                    until: turn.now + LINGER_TIME,
                    discarded: 0,
                };
                self.unread = None;
                self.from_client.clear();
            }
            Client::Ended => self.close_client(turn),
            Client::Lingering { .. } | Client::Closed => {}
        }
    }

    /// Counts what a client sends after the end of our side.
    pub(super) fn discard(&mut self, count: usize, turn: &mut Turn<'_>) {
        if let Client::Lingering { discarded, .. } = &mut self.client {
            *discarded += count;
            if *discarded > LINGER_BYTES {
                debug!("{}: cut off, as it sends without end", self.tag);
                self.close_client(turn);
            }
        }
    }

    fn close_client(&mut self, turn: &mut Turn<'_>) {
        self.client = Client::Closed;
        turn.actions.push(Action::CloseClient);
    }

    fn drop_client(&mut self, reason: EndReason, turn: &mut Turn<'_>) {
        if self.client == Client::Closed {
            return;
        }
        if self.goal == Goal::Serve || matches!(reason, EndReason::StdioFailed(_)) {
            self.end_reason = reason;
        }
        self.close_client(turn);
        self.goal = Goal::End;
        self.last_call = None;
        self.to_client.clear();
        self.to_server.clear();
        self.held = None;
        self.queued = Load::default();
        self.in_flight = InFlight::default();
        self.unread = None;
        self.from_client.clear();
    }

    pub(super) fn ending_deadline(&self) -> Option<Instant> {
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
    fn last_call_deadline(&self) -> Option<Instant> {
        let LastCall { quiet_at, until } = **self.last_call.as_ref()?;
        self.wants_client().then(|| quiet_at.min(until))
    }

    /// When a client is given up that takes nothing, or that is gone while its lines can't be taken.
    fn stall_deadline(&self) -> Option<Instant> {
        if self.is_connector() {
            // Our stdout breaks when nobody is going to read it.
            return None;
        }
        let since = match (self.client, self.goal) {
            (Client::Open, Goal::Serve) if !self.wants_client() => {
                self.hung_up?.max(self.last_taken)
            }
            (Client::Open | Client::Ended, Goal::Finish { .. } | Goal::End) => {
                self.untaken_since?.max(self.last_taken)
            }
            _ => return None,
        };
        Some(since + STALL_TIME)
    }

    pub(super) fn ending_timeout(&mut self, turn: &mut Turn<'_>) {
        if self.stall_deadline().is_some_and(|at| at <= turn.now) {
            self.drop_client(EndReason::Stalled(STALL_TIME), turn);
        }
        if matches!(self.client, Client::Lingering { until, .. } if until <= turn.now) {
            self.close_client(turn);
        }
        if self.last_call_deadline().is_some_and(|at| at <= turn.now) {
            self.last_call = None;
        }
        // An overdue finish is seen to by what follows every event.
    }
}
