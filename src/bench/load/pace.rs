//! When the next request is sent, and by which session.

use super::{Goal, Load, MAX_OPEN, Pace, SeatState, Stage};
use crate::bench::failure::Failure;
use crate::bench::open_requests::Asked;
use crate::bench::schedule::Schedule;
use crate::util::time::Time;

impl Load {
    /// All sessions are open: the warm-up begins.
    pub(super) fn begin_requests(&mut self, now: Time) {
        let from = now + self.plan.warm_up;
        let until = match self.plan.goal {
            Goal::Requests(_) => None,
            Goal::Time(time) => Some(from + time),
        };
        self.stage = Stage::Running { from, until };
        match self.plan.pace {
            Pace::Closed { .. } => {
                for key in 0..self.seats.len() {
                    self.go_on(key, now);
                }
            }
            Pace::Open { rate } => self.schedule = Some(Schedule::new(now, rate)),
        }
        self.send_due(now);
    }

    /// When a request is due next, if that is known.
    pub(in crate::bench) fn next_due(&self) -> Option<Time> {
        let schedule = self.schedule.as_ref()?;
        let next = schedule.next();
        (self.is_wanted(next) && self.has_room()).then_some(next)
    }

    /// Sends what is due, as far as there is room.
    pub(in crate::bench) fn send_due(&mut self, now: Time) {
        while let Some(due) = self.due(now)
            && let Some(key) = self.seat_with_room()
        {
            if let Some(schedule) = &mut self.schedule {
                schedule.take();
            }
            self.ask(key, due, now);
        }
        self.end_if_past(now);
    }

    /// When the next scheduled request is due, if it is due by now.
    fn due(&self, now: Time) -> Option<Time> {
        let next = self.schedule.as_ref()?.next();
        (next <= now && self.is_wanted(next)).then_some(next)
    }

    /// Whether a request that is due at this time belongs to the run.
    fn is_wanted(&self, due: Time) -> bool {
        let Stage::Running { from, until } = self.stage else {
            return false;
        };
        match self.plan.goal {
            Goal::Requests(count) => due < from || self.tally.requests < count,
            Goal::Time(_) => until.is_some_and(|until| due < until),
        }
    }

    /// Whether there is anything more to be sent.
    pub(super) fn wants_more(&self, now: Time) -> bool {
        let next = self.schedule.as_ref().map_or(now, Schedule::next);
        self.is_wanted(next)
    }

    /// The measurement ends by the clock if nothing is open then.
    pub(super) fn end_if_past(&mut self, now: Time) {
        if matches!(self.stage, Stage::Running { .. }) {
            self.end_if_done(now);
        }
    }

    /// A session has room for a request, or may have.
    pub(super) fn go_on(&mut self, key: usize, now: Time) {
        if self.plan.churn && self.seats[key].state == SeatState::Open {
            self.close(key);
        }
        if self.schedule.is_some() {
            // What is late is sent now.
            return self.send_due(now);
        }
        let Pace::Closed { in_flight } = self.plan.pace else {
            return;
        };
        while self.is_wanted(now) && self.room(key, in_flight) {
            self.ask(key, now, now);
        }
    }

    fn room(&self, key: usize, limit: usize) -> bool {
        let seat = &self.seats[key];
        match seat.state {
            SeatState::Empty => self.plan.churn,
            SeatState::Open => !self.plan.churn && seat.client.in_flight() < limit,
            SeatState::Opening | SeatState::Waiting => false,
        }
    }

    fn has_room(&self) -> bool {
        (0..self.seats.len()).any(|key| self.room(key, MAX_OPEN))
    }

    /// The session whose turn it is, or the next one that has room.
    fn seat_with_room(&mut self) -> Option<usize> {
        let count = self.seats.len();
        let mut keys = (0..count).map(|at| (self.cursor + at) % count);
        let key = keys.find(|key| self.room(*key, MAX_OPEN))?;
        self.cursor = key + 1;
        Some(key)
    }

    fn ask(&mut self, key: usize, due: Time, now: Time) {
        let is_measured = self.is_measured(due);
        if is_measured {
            self.open_measured += 1;
            self.tally.requests += 1;
            if self.schedule.is_some() {
                self.tally.lag.add(now.saturating_since(due));
            }
        }
        self.tally.sent += 1;
        let seat = &mut self.seats[key];
        if self.plan.churn {
            seat.errand = Some(Asked {
                due,
                is_measured,
                bytes: 0,
            });
            return self.open(key, now);
        }
        if seat.client.output().is_empty() {
            self.dirty.push(key);
        }
        seat.client.ask(&self.workload, due, is_measured);
    }

    fn is_measured(&self, due: Time) -> bool {
        matches!(self.stage, Stage::Running { from, .. } if due >= from)
    }

    /// Gives up scheduled requests that were due at `overdue` or before, and found no session with room.
    pub(super) fn drop_backlog(&mut self, overdue: Time, now: Time) {
        while let Some(due) = self.due(overdue) {
            if let Some(schedule) = &mut self.schedule {
                schedule.take();
            }
            if self.is_measured(due) {
                self.tally.requests += 1;
                self.tally.fail(Failure::Unsent);
            }
        }
        self.end_if_past(now);
    }
}
