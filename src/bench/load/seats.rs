//! Sessions are opened, lost, and opened again.

use std::time::Duration;

use super::{
    Action, FIRST_DELAY, LONGEST_DELAY, Load, MAX_REOPENINGS, OPENED_AT_ONCE, Seat, SeatState,
    Stage,
};
use crate::bench::client::Client;
use crate::bench::failure::Failure;
use crate::util::plural::Counted;
use crate::util::time::Time;

impl Load {
    /// Begins. If sessions are for one request each, they are opened as these come.
    pub(in crate::bench) fn begin(&mut self, now: Time) {
        self.began = now;
        if self.plan.churn {
            return self.begin_requests(now);
        }
        for _ in 0..OPENED_AT_ONCE.min(self.plan.sessions) {
            self.open_next(now);
        }
    }

    fn open_next(&mut self, now: Time) {
        if self.begun < self.plan.sessions {
            let key = self.begun;
            self.begun += 1;
            self.open(key, now);
        }
    }

    pub(super) fn open(&mut self, key: usize, now: Time) {
        let seat = &mut self.seats[key];
        seat.state = SeatState::Opening;
        seat.since = now;
        self.actions.push_back(Action::Open(key));
    }

    /// The time after which this session was to be opened again has come.
    pub(in crate::bench) fn reopen(&mut self, key: usize, now: Time) {
        if self.is_over() || self.seats[key].state != SeatState::Waiting {
            return;
        }
        if self.plan.churn {
            self.seats[key].state = SeatState::Empty;
            self.go_on(key, now);
        } else {
            self.open(key, now);
        }
    }

    /// A session is connected, or its process has started.
    pub(in crate::bench) fn connected(&mut self, key: usize, now: Time) {
        let first_line = self.plan.first_line.as_deref();
        self.seats[key].client = Client::open(&self.workload, first_line, now);
        self.dirty.push(key);
    }

    /// The first response has come.
    pub(super) fn opened(&mut self, key: usize, now: Time) {
        let is_churn = self.plan.churn;
        let seat = &mut self.seats[key];
        seat.state = SeatState::Open;
        let time = now.saturating_since(seat.since);
        self.tally.first_response.add(time);
        self.tally.opened += 1;
        seat.in_a_row = 0;
        if is_churn {
            seat.failures = 0;
            self.opening = now.saturating_since(self.began);
            return self.run_errand(key);
        }
        seat.client.start_at(key);
        match self.stage {
            Stage::Opening => {
                self.ready += 1;
                self.opening = now.saturating_since(self.began);
                self.open_next(now);
                if self.ready == self.plan.sessions {
                    self.begin_requests(now);
                }
            }
            Stage::Running { .. } => self.go_on(key, now),
            Stage::Over => {}
        }
    }

    /// The session that was opened for one request sends it.
    fn run_errand(&mut self, key: usize) {
        let seat = &mut self.seats[key];
        if let Some(errand) = seat.errand.take() {
            seat.client
                .ask(&self.workload, errand.due, errand.is_measured);
        }
    }

    /// The server does not want this session.
    pub(super) fn refused(&mut self, key: usize, words: &str, now: Time) {
        self.actions.push_back(Action::Close(key));
        self.lost(key, &format!("the session was refused: {words}"), now);
    }

    /// A session could not be connected, or its process not started.
    pub(in crate::bench) fn not_connected(&mut self, key: usize, why: &str, now: Time) {
        self.ended(key, why, now);
    }

    /// A session has ended.
    pub(in crate::bench) fn ended(&mut self, key: usize, why: &str, now: Time) {
        if matches!(self.seats[key].state, SeatState::Opening | SeatState::Open) {
            self.lost(key, why, now);
        }
    }

    fn lost(&mut self, key: usize, why: &str, now: Time) {
        let seat = &mut self.seats[key];
        let was_open = seat.state == SeatState::Open;
        let open: Vec<_> = seat.client.end().collect();
        let errand = seat.errand.take();
        seat.client = Client::default();
        seat.state = SeatState::Waiting;
        seat.failures += 1;
        seat.in_a_row += 1;
        let (failures, in_a_row) = (seat.failures, seat.in_a_row);
        if was_open && self.stage == Stage::Opening {
            self.ready -= 1;
        }
        // A server that nobody could speak to yet is more likely to be the wrong one than to be late.
        let is_first = self.tally.opened == 0;
        if is_first || failures > MAX_REOPENINGS {
            let often = if failures > 1 {
                format!(" (after {})", Counted(failures, "attempt"))
            } else {
                String::new()
            };
            self.trouble.get_or_insert(format!("{why}{often}"));
        }
        for asked in open {
            self.settle(asked, 0, Err(Failure::SessionEnded), now);
        }
        if let Some(asked) = errand {
            let failure = if was_open {
                Failure::SessionEnded
            } else {
                Failure::NoConnection
            };
            self.settle(asked, 0, Err(failure), now);
        }
        if self.trouble.is_some() {
            return self.end(now);
        }
        if !self.is_over() {
            let delay = delay_after(in_a_row);
            self.actions.push_back(Action::OpenLater(key, delay));
        }
    }

    /// Gives up what has waited for too long. To be called every now and then.
    pub(in crate::bench) fn sweep(&mut self, now: Time) {
        if self.is_over() {
            return;
        }
        let timeout = self.plan.timeout;
        let overdue = now - timeout;
        self.drop_backlog(overdue, now);
        for key in 0..self.seats.len() {
            let Seat { state, since, .. } = self.seats[key];
            if state == SeatState::Opening && since <= overdue {
                let seconds = timeout.as_secs_f64();
                let why = format!("no first response within {seconds} s (--timeout)");
                self.actions.push_back(Action::Close(key));
                self.lost(key, &why, now);
            }
            if state == SeatState::Open {
                self.sweep_requests(key, overdue, now);
            }
        }
        self.end_if_past(now);
    }

    fn sweep_requests(&mut self, key: usize, overdue: Time, now: Time) {
        let mut is_any = false;
        while let Some(asked) = self.seats[key].client.give_up(overdue) {
            is_any = true;
            self.settle(asked, 0, Err(Failure::Timeout), now);
        }
        if is_any {
            self.go_on(key, now);
        }
    }

    /// Closes a session that has done what it was opened for.
    pub(super) fn close(&mut self, key: usize) {
        let seat = &mut self.seats[key];
        seat.state = SeatState::Empty;
        seat.client = Client::default();
        self.actions.push_back(Action::Close(key));
    }
}

fn delay_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST_DELAY * 2_u32.pow(doublings)).min(LONGEST_DELAY)
}
