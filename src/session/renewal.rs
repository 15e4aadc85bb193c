//! Whether a lost upstream is renewed, and when.

use log::info;

use super::ending::Goal;
use super::reconnect::ReconnectPolicy;
use super::report::EndReason;
use super::restart::{Decision, RestartPolicy};
use super::upstream::Upstream;
use super::{Backend, Context, Session};
use crate::util::time::Time;

/// When a lost upstream is renewed.
#[derive(Debug)]
pub(super) enum Policy {
    Restart(RestartPolicy),
    Reconnect(ReconnectPolicy),
}

impl Policy {
    pub(super) fn new(role: &Backend) -> Self {
        match *role {
            Backend::Process { max_restarts } => Self::Restart(RestartPolicy::new(max_restarts)),
            Backend::Proxy {
                max_delay,
                max_attempts,
            } => Self::Reconnect(ReconnectPolicy::new(max_delay, max_attempts)),
        }
    }

    pub(super) fn started(&mut self, now: Time) {
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
    pub(super) fn ended_idle(&mut self, now: Time) {
        if let Self::Reconnect(policy) = self {
            policy.ended_idle(now);
        }
    }

    pub(super) fn lost(&mut self, now: Time) -> Decision {
        match self {
            Self::Restart(policy) => policy.lost(now),
            Self::Reconnect(policy) => policy.lost(now),
        }
    }
}

impl Session {
    /// The upstream is gone: is there to be another?
    pub(super) fn after_loss(&mut self, why: &EndReason, cx: &mut Context<'_>) {
        self.upstream = Upstream::None;
        let is_finished = matches!(self.goal, Goal::Finish { .. }) && self.nothing_waits();
        if self.goal == Goal::End || is_finished || self.goal.is_overdue(cx.now) {
            return;
        }
        if self.stopping || !cx.settings.restarts_upstream {
            self.give_up(why, cx);
            return;
        }
        match self.policy.lost(cx.now) {
            Decision::RetryAt(at) => {
                self.announce_renewal(at, cx);
                self.upstream = Upstream::Cooling { until: at };
                self.start_if_due(cx);
            }
            Decision::GiveUp { restarts } => {
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
                self.give_up(&reason, cx);
            }
        }
    }

    fn announce_renewal(&self, at: Time, cx: &Context<'_>) {
        let wait = at.saturating_since(cx.now);
        if wait.is_zero() {
            return;
        }
        match cx.settings.role {
            Backend::Process { .. } => {
                info!(
                    "{}: the server is started again in {:.3} s",
                    self.tag,
                    wait.as_secs_f64()
                );
            }
            Backend::Proxy { .. } => {
                info!("{}: next attempt in {:.3} s", self.tag, wait.as_secs_f64());
            }
        }
    }

    pub(super) fn start_if_due(&mut self, cx: &mut Context<'_>) {
        if matches!(self.upstream, Upstream::Cooling { until } if until <= cx.now) {
            self.start_upstream(cx);
        }
    }
}

fn last_status(reason: &EndReason) -> String {
    match reason {
        EndReason::ServerEnded(status) => status.clone(),
        other => other.to_string(),
    }
}
