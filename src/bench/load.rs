//! The load: who sends when, and what is counted. Knows no descriptors, and no clock but the times that it is given; so the
//! tests have it measure servers whose every delay is known.
//!
//! In a closed loop a session sends its next request when a response has come. In an open loop requests are due at times
//! that are set beforehand, and their latency counts from then, so that a server that stands still is seen to do so by all
//! requests that had to wait for it, and not only by those that it kept.

mod pace;
mod seats;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use super::client::{Client, Heard};
use super::failure::Failure;
use super::open_requests::Asked;
use super::schedule::Schedule;
use super::tally::{Figures, Tally};
use super::workload::Workload;
use crate::util::time::Time;

/// Sessions that are opened at a time: enough to keep all processors busy that start servers.
const OPENED_AT_ONCE: usize = 64;

/// A session that ends is opened again this often.
const MAX_REOPENINGS: u32 = 10;

/// Before a session is opened again; after each further failure in a row twice as long, up to the second.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Requests that a session may have open when they are sent on schedule: as many as a proxy lets it have.
const MAX_OPEN: usize = 1024;

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) sessions: usize,
    pub(super) pace: Pace,
    pub(super) goal: Goal,
    /// Before the measurement.
    pub(super) warm_up: Duration,
    /// How long a response may take.
    pub(super) timeout: Duration,
    /// Whether each request has a session of its own.
    pub(super) churn: bool,
    /// What a proxy is told before everything else.
    pub(super) first_line: Option<String>,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// As many wait for their responses at all times, for each session.
    Closed { in_flight: usize },
    /// As many a second, all sessions together.
    Open { rate: f64 },
}

/// When there were enough.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    Requests(u64),
    Time(Duration),
}

/// What a load wants to be done about its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Connect this one, or start its process.
    Open(usize),
    /// The same, after a while, by [`Load::reopen`].
    OpenLater(usize, Duration),
    /// Close this one. Nothing is said of it any more.
    Close(usize),
}

/// What a load is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Running {
        /// When the measurement begins.
        from: Time,
        /// When it ends, if that is a time.
        until: Option<Time>,
    },
    Over,
}

/// One session of several.
#[derive(Debug, Default)]
struct Seat {
    state: SeatState,
    /// When its connection began to be made.
    since: Time,
    client: Client,
    /// How often it could not be opened, or ended.
    failures: u32,
    /// The same since it was last open.
    in_a_row: u32,
    /// The request that a session is opened for, if it is for one alone.
    errand: Option<Asked>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum SeatState {
    #[default]
    Empty,
    /// Being connected, or the first response has not come.
    Opening,
    Open,
    /// To be opened again.
    Waiting,
}

/// A load.
#[derive(Debug)]
pub(super) struct Load {
    plan: Plan,
    workload: Workload,
    seats: Vec<Seat>,
    stage: Stage,
    began: Time,
    opening: Duration,
    measured: Duration,
    /// Sessions that were begun for the first time, and of these, those that are open or were.
    begun: usize,
    ready: usize,
    schedule: Option<Schedule>,
    /// The seat that is asked first for the next scheduled request.
    cursor: usize,
    /// Measured requests that wait for their responses.
    open_measured: u64,
    tally: Tally,
    actions: VecDeque<Action>,
    /// Sessions that have something to send.
    dirty: Vec<usize>,
    trouble: Option<String>,
}

impl Load {
    /// A load on this many sessions. Nothing has begun.
    pub(super) fn new(plan: Plan, workload: Workload) -> Self {
        let seats = (0..plan.sessions).map(|_| Seat::default()).collect();
        Self {
            plan,
            workload,
            seats,
            stage: Stage::Opening,
            began: Time::default(),
            opening: Duration::ZERO,
            measured: Duration::ZERO,
            begun: 0,
            ready: 0,
            schedule: None,
            cursor: 0,
            open_measured: 0,
            tally: Tally::default(),
            actions: VecDeque::new(),
            dirty: Vec::new(),
            trouble: None,
        }
    }

    /// Has latencies counted once more for whoever watches.
    pub(super) fn show_recent(&mut self) {
        self.tally.recent = Some(super::samples::Samples::default());
    }

    /// What was counted so far.
    pub(super) fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Whether all was measured that was to be, or can be.
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// How many sessions were opened, while not all of them are.
    pub(super) fn ready_while_opening(&self) -> Option<usize> {
        (self.stage == Stage::Opening).then_some(self.ready)
    }

    /// When the measurement begins, once that is known.
    pub(super) fn measures_from(&self) -> Option<Time> {
        match self.stage {
            Stage::Running { from, .. } => Some(from),
            Stage::Opening | Stage::Over => None,
        }
    }

    /// What was measured, and why it ended before its time, if it did.
    pub(super) fn finish(self) -> (Figures, Option<String>) {
        let figures = Figures {
            tally: self.tally,
            opening: self.opening,
            measured: self.measured,
            user_time: Duration::ZERO,
        };
        (figures, self.trouble)
    }

    /// Ends it, whatever is open.
    pub(super) fn stop(&mut self, now: Time) {
        self.end(now);
    }

    /// What is to be done next.
    pub(super) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A session that has something to send.
    pub(super) fn next_dirty(&mut self) -> Option<usize> {
        self.dirty.pop()
    }

    /// What a session has to send.
    pub(super) fn output(&self, key: usize) -> &[u8] {
        self.seats[key].client.output()
    }

    /// This much of it was sent.
    pub(super) fn written(&mut self, key: usize, count: usize) {
        self.seats[key].client.written(count);
    }

    /// Bytes have come in a session.
    pub(super) fn received(&mut self, key: usize, mut input: &[u8], now: Time) {
        if self.is_over() {
            return;
        }
        while let Some(heard) = self.seats[key].client.hear(&mut input, &self.workload) {
            match heard {
                Heard::Nothing => {}
                Heard::Opened => self.opened(key, now),
                Heard::Refused(words) => {
                    return self.refused(key, &words, now);
                }
                Heard::Response(asked, bytes, outcome) => {
                    self.settle(asked, bytes, outcome, now);
                    self.go_on(key, now);
                    if self.plan.churn {
                        // It was for this request alone; what is there now is another one.
                        return;
                    }
                }
                Heard::Stray(failure) => self.tally.fail(failure),
            }
        }
        if !self.seats[key].client.output().is_empty() {
            self.dirty.push(key);
        }
    }

    /// A request was answered, or will not be.
    fn settle(&mut self, asked: Asked, bytes: usize, outcome: Result<(), Failure>, now: Time) {
        if !asked.is_measured || self.is_over() {
            return;
        }
        self.open_measured -= 1;
        let is_in_time = match self.stage {
            Stage::Running { until, .. } => until.is_none_or(|until| now < until),
            Stage::Opening | Stage::Over => false,
        };
        match outcome {
            Ok(()) => self.tally.add(asked, bytes, now, is_in_time),
            Err(failure) => self.tally.fail(failure),
        }
        self.end_if_done(now);
    }

    fn end_if_done(&mut self, now: Time) {
        if self.open_measured == 0 && !self.wants_more(now) {
            self.end(now);
        }
    }

    fn end(&mut self, now: Time) {
        let Stage::Running { from, until } = self.stage else {
            self.stage = Stage::Over;
            return;
        };
        let end = match (until, self.plan.goal) {
            (Some(until), _) => until.min(now),
            (None, Goal::Requests(count)) if self.tally.requests == count => {
                self.tally.last.unwrap_or(now)
            }
            (None, _) => now,
        };
        self.measured = end.saturating_since(from);
        self.stage = Stage::Over;
    }
}
