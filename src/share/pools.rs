//! Which process a session uses. It stays the same until it is lost: what a server has handed out, only its process may know.

use log::warn;

use super::process::{Life, Pool, Process};
use super::seat::SeatEra;
use super::{Context, Effect, ProcessKey, SeatKey, Share};
use crate::protocol::own_messages::ErrorReason;
use crate::util::time::Time;

pub(super) const BARRED: &str = "the server was lost too often and is not started again for now";

const NOT_INITIALIZED: &str = "initialize comes first, and has not succeeded";

/// Why there is no process for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoProcess {
    /// All were lost too often.
    Barred,
    /// None takes what it is sent.
    Stuck,
}

impl Share {
    /// The process that a seat is to use, if there is any.
    pub(super) fn pin(&mut self, key: SeatKey, cx: &mut Context<'_>) -> Option<ProcessKey> {
        let pool = self.pool_of(key, cx)?;
        if self.seats[key.0].is_suspect {
            return self.try_suspect(key, cx);
        }
        if let Some(process) = self.seats[key.0].process {
            return Some(process);
        }
        let last = self.last_used(key, pool, cx.now);
        let chosen = last.map_or_else(|| self.choose(pool, cx.now), Ok);
        let process = match chosen {
            Ok(process) => process,
            Err(NoProcess::Barred) => {
                self.refuse_waiting(key, ErrorReason::RestartLimit, BARRED, cx);
                return None;
            }
            Err(NoProcess::Stuck) => {
                self.homeless.insert(key);
                return None;
            }
        };
        self.seats[key.0].process = Some(process);
        self.processes[process.0].seats += 1;
        self.want(process);
        self.restore(key, process, cx);
        Some(process)
    }

    /// The processes that a seat may use, if it is known what they are.
    fn pool_of(&mut self, key: SeatKey, cx: &mut Context<'_>) -> Option<Pool> {
        match self.seats[key.0].era {
            SeatEra::Legacy(None) => {
                self.refuse_waiting(key, ErrorReason::InvalidRequest, NOT_INITIALIZED, cx);
                None
            }
            SeatEra::Legacy(Some(group)) => {
                let is_ready = self.groups.is_ready(group);
                is_ready.then_some(Pool::Legacy(group))
            }
            SeatEra::Undecided | SeatEra::Modern => self.knows_era(key).then_some(Pool::Modern),
        }
    }

    /// The process that a named client has used last, if it has no other session, and that lives.
    fn last_used(&self, key: SeatKey, pool: Pool, now: Time) -> Option<ProcessKey> {
        let (key, serial) = self.affinity.find(&self.seats[key.0].identity, now)?;
        let process = &self.processes[key.0];
        let is_it = process.serial == serial && process.pool == pool && process.life == Life::Up;
        (is_it && !process.is_silent(now)).then_some(key)
    }

    /// The process that the fewest seats use, of those that can be had soonest. One that does not do what it was asked is
    /// the last to be taken, and one that does not even take it is not.
    pub(super) fn choose(&mut self, pool: Pool, now: Time) -> Result<ProcessKey, NoProcess> {
        let rank = |life| match life {
            Life::Up | Life::Greeting(_) | Life::Asked | Life::Absent => Some(0),
            Life::Cooling(_) => Some(1),
            Life::Barred(_) | Life::Retiring(_) => None,
        };
        let mut best = None;
        let mut none = NoProcess::Barred;
        let (mut count, mut silent) = (0, Vec::new());
        for (at, process) in self.processes.iter().enumerate() {
            if process.pool != pool {
                continue;
            }
            count += 1;
            let Some(mut rank) = rank(process.life) else {
                continue;
            };
            if process.is_stopped {
                rank = 1;
            }
            let is_silent = process.is_silent(now);
            if is_silent {
                silent.push(ProcessKey(at));
            }
            if is_silent && !process.outbox.is_empty() {
                none = NoProcess::Stuck;
                continue;
            }
            let candidate = (is_silent, rank, process.seats, at);
            best = Some(best.map_or(candidate, |best| candidate.min(best)));
        }
        let is_new = (false, 0, 0, usize::MAX);
        if count < self.limits.processes && best.is_none_or(|best| is_new < best) {
            best = Some(is_new);
        }
        for key in silent {
            self.report_silent(key);
        }
        match best {
            Some((.., usize::MAX)) => Ok(self.add_place(pool)),
            Some((.., at)) => Ok(ProcessKey(at)),
            None => Err(none),
        }
    }

    fn report_silent(&mut self, key: ProcessKey) {
        let process = &mut self.processes[key.0];
        if !std::mem::replace(&mut process.is_reported, true) {
            warn!(
                "shared server {}: it has taken and said nothing for 10 s, and work waits; new sessions go to others",
                key.0
            );
        }
    }

    /// A place for one more process.
    pub(super) fn add_place(&mut self, pool: Pool) -> ProcessKey {
        let process = Process::new(pool, self.limits.max_restarts);
        let mut all = self.processes.iter();
        if let Some(free) = all.position(|process| process.pool == Pool::None) {
            self.processes[free] = process;
            return ProcessKey(free);
        }
        self.processes.push(process);
        ProcessKey(self.processes.len() - 1)
    }

    pub(super) fn places_of(&self, pool: Pool) -> Vec<ProcessKey> {
        let all = self.processes.iter().enumerate();
        let of_pool = all.filter(|(_, process)| process.pool == pool);
        of_pool.map(|(at, _)| ProcessKey(at)).collect()
    }

    /// Something waits for a process.
    pub(super) fn want(&mut self, key: ProcessKey) {
        let process = &mut self.processes[key.0];
        if process.life == Life::Absent {
            process.life = Life::Asked;
            self.effects.push_back(Effect::Start(key));
        }
    }

    /// Whether a process that is not there is to be, when it may be.
    pub(super) fn is_needed(&self, key: ProcessKey) -> bool {
        let is_subscribed = || {
            let mut seats = self.seats.iter();
            seats.any(|(_, seat)| seat.process == Some(key) && !seat.uris.is_empty())
        };
        !self.processes[key.0].turns.is_empty() || self.is_asked(key) || is_subscribed()
    }

    /// A process takes something again, or is gone: those that found none may have one now.
    pub(super) fn house_homeless(&mut self, cx: &mut Context<'_>) {
        for seat in std::mem::take(&mut self.homeless) {
            self.seek_turn(seat, cx);
        }
    }

    /// A seat does not use its process any more, which lives on.
    pub(super) fn unpin(&mut self, key: SeatKey, cx: &mut Context<'_>) {
        let seat = &mut self.seats[key.0];
        let Some(at) = seat.process.take() else {
            return;
        };
        let process = &mut self.processes[at.0];
        process.seats -= 1;
        if std::mem::take(&mut seat.has_turn) {
            process.turns.leave(&seat.identity, key);
        }
        self.unsubscribe_all(key, at, cx);
    }
}
