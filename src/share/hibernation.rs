//! Processes that nobody uses are given back, if the user wants that: they go some time after the last session has left or
//! become idle. The sessions stay, and their next requests start others.

use std::time::Duration;

use super::process::{Life, Pool, Process};
use super::{Context, Effect, ProcessKey, SeatKey, Share};

/// If something is still at a process, it is looked at again after this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Process {
    /// Whether no session uses it, and nothing is on its way to or from it.
    fn is_unused(&self) -> bool {
        self.seats == 0 && self.owners.is_empty() && self.outbox.is_empty()
    }
}

impl Share {
    /// Nothing passes over a session, and nothing is open in it: its seat is not kept for it at any process.
    pub fn seat_idle(&mut self, key: SeatKey, cx: &mut Context<'_>) {
        let solo = self.solo();
        let Some(seat) = self.seats.get_mut(key.0) else {
            return;
        };
        if !seat.open.is_empty() || !seat.uris.is_empty() {
            return;
        }
        let Some(process) = seat.process.filter(|process| *process != solo) else {
            return;
        };
        self.unpin(key, cx);
        self.give_back_unused(process, Duration::ZERO, cx);
    }

    /// A seat was left, or a process started that may not be wanted any more: if nobody uses it, it goes after a while.
    pub(super) fn note_unused(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        if let Some(after) = self.limits.hibernate_after {
            self.give_back_unused(key, after, cx);
        }
    }

    fn give_back_unused(&mut self, key: ProcessKey, after: Duration, cx: &mut Context<'_>) {
        let process = &mut self.processes[key.0];
        let is_shared = matches!(process.pool, Pool::Modern | Pool::Legacy(_));
        if !is_shared || process.seats > 0 {
            return;
        }
        process.unused_until = Some(cx.now + after);
        self.unused_timeout(key, cx);
    }

    /// Gives a process back if its time has come.
    pub(super) fn unused_timeout(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        let process = &mut self.processes[key.0];
        if process.unused_until.is_none_or(|at| at > cx.now) {
            return;
        }
        process.unused_until = None;
        if process.life != Life::Up || process.is_stopped || process.seats > 0 {
            return;
        }
        if !process.is_unused() {
            process.unused_until = Some(cx.now + LOOK_INTERVAL);
            return;
        }
        process.life = Life::Absent;
        process.forget();
        let group = process.group();
        self.effects.push_back(Effect::GiveBack(key));
        self.recharge_process(key, cx);
        self.discovered.forget();
        if let Some(group) = group {
            self.forget_unused(group);
        }
    }
}
