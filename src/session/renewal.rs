//! Whether a lost upstream is renewed, and when.

use std::time::Instant;

use log::info;

use super::ending::Goal;
use super::reconnect::ReconnectPolicy;
use super::report::EndReason;
use super::restart::{RestartPolicy, Verdict};
use super::upstream::Upstream;
use super::{Role, Session, Turn};

/// When a lost upstream is renewed.
#[derive(Debug)]
pub(super) enum Policy {
    Restart(RestartPolicy),
    Reconnect(ReconnectPolicy),
}

impl Policy {
    pub(super) fn new(role: &Role) -> Self {
        match *role {
            Role::Proxy { max_restarts } => Self::Restart(RestartPolicy::new(max_restarts)),
            Role::Connector {
                max_delay,
                max_attempts,
            } => Self::Reconnect(ReconnectPolicy::new(max_delay, max_attempts)),
        }
    }

    pub(super) fn started(&mut self, now: Instant) {
        match self {
            Self::Restart(policy) => policy.started(now),
            Self::Reconnect(policy) => policy.started(now),
        }
    }

    /// The server itself said something.
    pub(super) fn heard(&mut self) {
        if let Self::Reconnect(policy) = self {
            policy.heard();
        }
    }

    /// The other side ended a connection on which nothing was waited for.
    pub(super) fn ended_idle(&mut self, now: Instant) {
        if let Self::Reconnect(policy) = self {
            policy.ended_idle(now);
        }
    }

    pub(super) fn lost(&mut self, now: Instant) -> Verdict {
        match self {
            Self::Restart(policy) => policy.lost(now),
            Self::Reconnect(policy) => policy.lost(now),
        }
    }
}

impl Session {
    /// The upstream is gone: is there to be another?
    pub(super) fn after_loss(&mut self, why: &EndReason, turn: &mut Turn<'_>) {
        self.upstream = Upstream::None;
        let is_finished = matches!(self.goal, Goal::Finish { .. }) && self.nothing_waits();
        if self.goal == Goal::End || is_finished || self.goal.is_overdue(turn.now) {
            return;
        }
        if self.stopping || !turn.settings.renews {
            self.give_up(why, turn);
            return;
        }
        match self.policy.lost(turn.now) {
            Verdict::RestartAt(at) => {
                self.announce_renewal(at, turn);
                self.upstream = Upstream::Cooling { until: at };
                self.start_if_due(turn);
            }
            Verdict::GiveUp { restarts } => {
                let reason = match why {
                    EndReason::SpawnFailed(_) => why.clone(),
                    EndReason::ConnectionLost(last) => EndReason::ReconnectLimit {
                        attempts: restarts,
                        last: last.clone(),
                    },
                    other => EndReason::RestartLimit {
                        restarts,
                        last: last_status(other),
                    },
                };
                self.give_up(&reason, turn);
            }
        }
    }

    fn announce_renewal(&self, at: Instant, turn: &Turn<'_>) {
        let wait = at.saturating_duration_since(turn.now);
        if wait.is_zero() {
            return;
        }
        match turn.settings.role {
            Role::Proxy { .. } => {
                info!(
                    "{}: the server is started again in {:.3} s",
                    self.tag,
                    wait.as_secs_f64()
                );
            }
            Role::Connector { .. } => {
                info!("{}: next attempt in {:.3} s", self.tag, wait.as_secs_f64());
            }
        }
    }

    pub(super) fn start_if_due(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.upstream, Upstream::Cooling { until } if until <= turn.now) {
            self.start_upstream(turn);
        }
    }
}

fn last_status(reason: &EndReason) -> String {
    match reason {
        EndReason::ServerEnded(status) => status.clone(),
        other => other.to_string(),
    }
}
