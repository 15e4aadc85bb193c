//! The way to the end of a session: what was sent is still served, what was said is still delivered, and whoever
//! waits is told.

use std::time::{Duration, Instant};

use log::debug;

use super::report::EndReason;
use super::upstream::Upstream;
use super::{Action, Client, Session, Turn};

/// After the client has ended its side, its requests have this long to be answered before the server's stdin is
/// closed. Servers drop running calls at the end of their input.
const FINISH_TIME: Duration = Duration::from_secs(30);

/// A client that takes nothing at the end of a session, or that hung up while its lines could not be read, is waited
/// for this long.
const STALL_TIME: Duration = Duration::from_secs(30);

/// After the end of our side, the client has this long to end its own before it is cut off.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// A client whose requests are refused has sent all of them when it has been silent for this long: what it had sent in
/// time may have been waiting for room in our socket.
const REFUSE_QUIET: Duration = Duration::from_millis(100);

/// A client that goes on sending is refused for this long.
const REFUSE_TIME: Duration = Duration::from_secs(30);

/// What a client may still send after the end of our side before it is cut off, in bytes.
const LINGER_BYTES: usize = 1024 * 1024;

/// Where the session wants to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// On and on.
    Serve,
    /// Nothing more is read from the client. What it has sent is served, until then at most.
    Finish { until: Instant },
    /// Nothing more is served. Requests are answered by an error until the client is silent, or until then at most.
    Refuse { quiet_at: Instant, until: Instant },
    /// Nothing more is served or read.
    End,
}

impl Goal {
    pub(super) fn is_end(self) -> bool {
        matches!(self, Self::Refuse { .. } | Self::End)
    }
}

impl Session {
    /// The proxy is being stopped: serves what was sent, and ends.
    pub fn shut_down(&mut self, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        if self.goal == Goal::Serve {
            self.end_reason = EndReason::Shutdown;
            self.goal = Goal::Finish {
                until: turn.now + FINISH_TIME,
            };
            if !self.upstream.is_alive() && !matches!(self.upstream, Upstream::Starting) {
                self.refuse_and_end_if_down(turn);
            }
        }
        self.finish_event(turn);
    }

    /// The connection to the client is gone altogether.
    pub fn client_gone(&mut self, why: &str, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        self.drop_client(EndReason::ClientGone(why.to_owned()), turn);
        self.finish_event(turn);
    }

    /// The client is known to have ended its side, although that was not read yet.
    pub fn client_hung_up(&mut self, turn: &mut Turn<'_>) {
        self.hung_up.get_or_insert(turn.now);
    }

    /// The client may send more, if it is still refused: it has shown that it does, or could not before.
    pub(super) fn prolong_refusal(&mut self, now: Instant) {
        if let Goal::Refuse { quiet_at, .. } = &mut self.goal {
            *quiet_at = now + REFUSE_QUIET;
        }
    }

    /// Whether requests are answered by an error now.
    pub(super) fn refuses(&self) -> bool {
        self.goal.is_end()
    }

    pub(super) fn shutting_down(&self) -> bool {
        self.end_reason == EndReason::Shutdown
    }

    /// The end of the client's side was read.
    pub(super) fn client_has_ended(&mut self, turn: &mut Turn<'_>) {
        match (self.client, self.goal) {
            (Client::Lingering { .. }, _) => self.close_client(turn),
            (_, Goal::Serve) => {
                self.goal = Goal::Finish {
                    until: turn.now + FINISH_TIME,
                }
            }
            (_, Goal::Refuse { .. } | Goal::End) => self.goal = Goal::End,
            (_, Goal::Finish { .. }) => {}
        }
    }

    /// Whether nothing that the client sent is still to be served.
    pub(super) fn nothing_waits(&self) -> bool {
        self.in_flight.is_empty() && self.held.is_empty() && self.to_server.is_empty()
    }

    /// No server will come any more: answers what waits, and ends once the client has been told.
    pub(super) fn give_up(&mut self, reason: &EndReason, turn: &mut Turn<'_>) {
        if self.goal == Goal::Serve {
            self.end_reason = reason.clone();
        }
        let reply = if self.shutting_down() {
            &EndReason::Shutdown
        } else {
            reason
        };
        self.refuse_waiting(reply.reply_reason(), &reply.to_string(), turn);
        self.last_taken = turn.now;
        self.goal = if self.client == Client::Open && self.goal == Goal::Serve {
            Goal::Refuse {
                quiet_at: turn.now + REFUSE_QUIET,
                until: turn.now + REFUSE_TIME,
            }
        } else {
            Goal::End
        };
    }

    /// Ends the session although its server is up.
    pub(super) fn end_now(&mut self, reason: &EndReason, turn: &mut Turn<'_>) {
        self.give_up(reason, turn);
        self.stop_upstream(turn);
    }

    /// Takes the session as far towards its goal as it can get.
    pub(super) fn proceed(&mut self, turn: &mut Turn<'_>) {
        self.proceed_leaving(turn);
        if let Goal::Finish { until } = self.goal {
            self.proceed_finishing(until, turn);
        }
        if self.goal.is_end() {
            self.stop_upstream(turn);
            self.proceed_leaving(turn);
            self.proceed_closing(turn);
        }
    }

    fn proceed_finishing(&mut self, until: Instant, turn: &mut Turn<'_>) {
        let overdue = until <= turn.now;
        match &self.upstream {
            Upstream::Up(_) if overdue || self.nothing_waits() => self.stop_upstream(turn),
            Upstream::Cooling { .. } | Upstream::Starting if overdue || self.nothing_waits() => {
                self.refuse_and_end_if_down(turn);
            }
            Upstream::None => self.refuse_and_end_if_down(turn),
            Upstream::Up(_)
            | Upstream::Starting
            | Upstream::Cooling { .. }
            | Upstream::Leaving(_) => {}
        }
    }

    fn refuse_and_end_if_down(&mut self, turn: &mut Turn<'_>) {
        if matches!(
            self.upstream,
            Upstream::None | Upstream::Starting | Upstream::Cooling { .. }
        ) {
            self.upstream = Upstream::None;
            self.give_up(&self.end_reason.clone(), turn);
        }
    }

    /// Closes the client once it has taken everything.
    fn proceed_closing(&mut self, turn: &mut Turn<'_>) {
        if self.goal != Goal::End || !self.to_client.is_empty() {
            return;
        }
        match self.client {
            Client::Open => {
                turn.actions.push(Action::ShutdownClient);
                self.client = Client::Lingering {
                    until: turn.now + LINGER_TIME,
                    discarded: 0,
                };
                self.unread = super::Unread::default();
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
        if self.goal == Goal::Serve {
            self.end_reason = reason;
        }
        self.close_client(turn);
        self.goal = Goal::End;
        self.to_client.clear();
        self.to_server.clear();
        self.held.clear();
        self.queued_requests = 0;
        self.in_flight.take_all();
        self.unread = super::Unread::default();
        self.from_client.clear();
    }

    pub(super) fn ending_deadline(&self) -> Option<Instant> {
        let finish = match (self.goal, &self.upstream) {
            (
                Goal::Finish { until },
                Upstream::Up(_) | Upstream::Starting | Upstream::Cooling { .. },
            ) => Some(until),
            _ => None,
        };
        let linger = match self.client {
            Client::Lingering { until, .. } => Some(until),
            _ => None,
        };
        [
            finish,
            linger,
            self.refusal_deadline(),
            self.stall_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the client is taken to have sent all that it will. A client that can't be read is not silent.
    fn refusal_deadline(&self) -> Option<Instant> {
        match self.goal {
            Goal::Refuse { quiet_at, until } if self.wants_client() => Some(quiet_at.min(until)),
            Goal::Refuse { until, .. } => Some(until),
            Goal::Serve | Goal::Finish { .. } | Goal::End => None,
        }
    }

    /// When a client is given up that takes nothing, or that is gone while its lines can't be taken.
    fn stall_deadline(&self) -> Option<Instant> {
        let since = match self.client {
            Client::Open if self.goal == Goal::Serve && !self.wants_client() => {
                self.hung_up?.max(self.last_taken)
            }
            Client::Open | Client::Ended if self.goal.is_end() => self.last_taken,
            _ => return None,
        };
        Some(since + STALL_TIME)
    }

    pub(super) fn ending_timeout(&mut self, turn: &mut Turn<'_>) {
        if self.stall_deadline().is_some_and(|at| at <= turn.now) {
            self.drop_client(EndReason::Stalled(STALL_TIME), turn);
        }
        if self.refusal_deadline().is_some_and(|at| at <= turn.now) {
            self.goal = Goal::End;
        }
        if matches!(self.client, Client::Lingering { until, .. } if until <= turn.now) {
            self.close_client(turn);
        }
        // An overdue finish is seen to by what follows every event.
    }
}
