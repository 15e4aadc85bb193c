//! What a run has brought so far.

use std::time::Duration;

use super::failure::{Failure, Failures};
use super::open_requests::Asked;
use super::samples::Samples;
use crate::util::time::Time;

/// Everything that is counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Of the good responses to measured requests, from when each was due.
    pub(super) latency: Samples,
    /// From the beginning of each connection, or process, to its first response.
    pub(super) first_response: Samples,
    /// How much later than they were due requests were sent.
    pub(super) lag: Samples,
    pub(super) failures: Failures,
    /// Measured requests that were to be sent.
    pub(super) requests: u64,
    /// All requests, measured or not.
    pub(super) sent: u64,
    /// Sessions that were opened.
    pub(super) opened: u64,
    /// Responses within the time of the measurement.
    pub(super) in_time: u64,
    /// The bytes of these and of their requests.
    pub(super) bytes: u64,
    /// When the last response came to a measured request.
    pub(super) last: Option<Time>,
    /// The latencies since they were last shown, if anybody sees them.
    pub(super) recent: Option<Samples>,
}

impl Tally {
    /// A measured request was answered well.
    pub(super) fn add(&mut self, asked: Asked, bytes: usize, now: Time, is_in_time: bool) {
        let latency = now.saturating_since(asked.due);
        self.latency.add(latency);
        if let Some(recent) = &mut self.recent {
            recent.add(latency);
        }
        if is_in_time {
            self.in_time += 1;
            self.bytes += (asked.bytes + bytes) as u64;
        }
        self.last = Some(now);
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.failures.add(failure);
    }
}

/// A run, or several together, as it is reported.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    pub(super) tally: Tally,
    /// How long it took to open all sessions.
    pub(super) opening: Duration,
    /// How long was measured.
    pub(super) measured: Duration,
    /// What this program has computed meanwhile, without what the system did for it.
    pub(super) user_time: Duration,
}

impl Figures {
    /// Adds another run.
    pub(super) fn merge(&mut self, other: &Self) {
        let (tally, more) = (&mut self.tally, &other.tally);
        tally.latency.merge(&more.latency);
        tally.first_response.merge(&more.first_response);
        tally.lag.merge(&more.lag);
        tally.failures.merge(&more.failures);
        tally.requests += more.requests;
        tally.sent += more.sent;
        tally.opened += more.opened;
        tally.in_time += more.in_time;
        tally.bytes += more.bytes;
        self.opening += other.opening;
        self.measured += other.measured;
        self.user_time += other.user_time;
    }

    /// What this program has computed for each request, in microseconds. Systems that only look at each tick who computes
    /// may not have seen it at all.
    pub(super) fn user_time_per_request(&self) -> Option<f64> {
        let micros = self.user_time.as_secs_f64() * 1e6;
        (micros > 0.0 && self.tally.sent > 0).then(|| micros / self.tally.sent as f64)
    }

    pub(super) fn requests_per_second(&self) -> Option<f64> {
        self.per_second(self.tally.in_time)
    }

    pub(super) fn bytes_per_second(&self) -> Option<f64> {
        self.per_second(self.tally.bytes)
    }

    fn per_second(&self, count: u64) -> Option<f64> {
        let seconds = self.measured.as_secs_f64();
        (seconds > 0.0).then(|| count as f64 / seconds)
    }
}
