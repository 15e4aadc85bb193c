//! The servers that wait, as they are written down. How many there are to be is not: the options say it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Due, Refill, Spare, Spares};
use crate::reactor::timers::Timers;
use crate::session::restart::RestartPolicy;
use crate::util::log_rate_limit::LogRateLimit;
use crate::util::time::Time;

/// A pool.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct SparesState {
    waiting: VecDeque<Spare>,
    retired: Vec<Spare>,
    policy: RestartPolicy,
    refill: Refill,
    at: Option<Time>,
    log_rate_limit: LogRateLimit,
    hits: u64,
    misses: u64,
}

impl Spares {
    pub(in crate::serve) fn state(&self) -> SparesState {
        SparesState {
            waiting: self.waiting.clone(),
            retired: self.retired.clone(),
            policy: self.policy.clone(),
            refill: self.refill,
            at: self.deadline.at(),
            log_rate_limit: self.log_rate_limit.clone(),
            hits: self.hits,
            misses: self.misses,
        }
    }

    /// How many servers are to wait.
    pub(in crate::serve) fn size(&self) -> usize {
        self.size
    }

    pub(in crate::serve) fn restore(&mut self, state: SparesState, timers: &mut Timers<Due>) {
        self.waiting = state.waiting;
        self.retired = state.retired;
        self.policy = state.policy;
        self.log_rate_limit = state.log_rate_limit;
        (self.hits, self.misses) = (state.hits, state.misses);
        self.set(state.refill, state.at, timers);
    }
}
