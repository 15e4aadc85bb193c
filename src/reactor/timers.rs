//! The timer wheel with the clock's side of it: instants in, milliseconds inside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::util::time::Time;
use crate::util::timer_wheel::{TimerId, TimerWheel};

/// Whose deadline has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Of the session in this slot.
    Session(usize),
    /// Of a server process that is to go.
    Process(usize),
    /// Connections may be accepted again.
    Accept,
    /// More servers may be started.
    Starting,
    /// The pool of waiting servers may be filled up.
    Spares,
    /// What must be looked after now and then.
    Monitor,
    /// Of an attempt to connect.
    Connect,
    /// Of a connection that is to be closed by its other side.
    Close,
}

/// The time now, by `CLOCK_MONOTONIC`.
pub fn now() -> Time {
    // It can't fail: the clock exists on every Linux (clock_gettime(2)).
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    Time::default() + now
}

/// The time since 1970. The wall clock may be set at any time, so it is read when it is needed.
pub fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// All deadlines of the program.
#[derive(Debug)]
pub struct Timers {
    epoch: Time,
    wheel: TimerWheel<Timer>,
}

impl Timers {
    /// No deadlines.
    pub fn new(now: Time) -> Self {
        Self {
            epoch: now,
            wheel: TimerWheel::new(0),
        }
    }

    /// Sets a deadline. It is never reported early, and at most a millisecond late.
    pub fn set(&mut self, at: Time, timer: Timer) -> TimerId {
        self.wheel.set(self.tick_of(at), timer)
    }

    /// Forgets a deadline.
    pub fn cancel(&mut self, id: TimerId) {
        self.wheel.cancel(id);
    }

    /// Sets the one deadline of an owner, who keeps it in `current`, to another time or to none.
    pub fn reset(&mut self, current: &mut Option<(Time, TimerId)>, at: Option<Time>, timer: Timer) {
        if current.map(|(at, _)| at) == at {
            return;
        }
        if let Some((_, id)) = current.take() {
            self.cancel(id);
        }
        *current = at.map(|at| (at, self.set(at, timer)));
    }

    /// Takes a deadline that has come.
    pub fn pop(&mut self, now: Time) -> Option<Timer> {
        let elapsed = now.saturating_since(self.epoch);
        self.wheel.pop_expired(elapsed.as_millis() as u64)
    }

    /// When something may be due next; `None` if nothing ever is.
    pub fn next(&self) -> Option<Time> {
        let tick = self.wheel.next_deadline()?;
        Some(self.epoch + Duration::from_millis(tick))
    }

    /// How many deadlines there are.
    pub fn len(&self) -> usize {
        self.wheel.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.wheel.is_empty()
    }

    /// Rounded up, so that nothing comes early.
    fn tick_of(&self, at: Time) -> u64 {
        at.saturating_since(self.epoch)
            .as_nanos()
            .div_ceil(1_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_one_deadline() {
        let begin = now();
        let mut timers = Timers::new(begin);
        let mut current = None;
        for millis in [Some(5), Some(5), Some(9), None, Some(7)] {
            let at = millis.map(|millis| begin + Duration::from_millis(millis));
            timers.reset(&mut current, at, Timer::Monitor);
            assert_eq!(
                (current.map(|(at, _)| at), timers.len()),
                (at, usize::from(at.is_some()))
            );
        }
        assert_eq!(timers.next(), Some(begin + Duration::from_millis(7)));
    }

    #[test]
    fn never_early() {
        let begin = now();
        let mut timers = Timers::new(begin);
        let at = begin + Duration::from_micros(2100);
        timers.set(at, Timer::Monitor);
        assert_eq!(timers.next(), Some(begin + Duration::from_millis(3)));
        assert_eq!(timers.pop(begin + Duration::from_micros(2999)), None);
        assert_eq!(
            timers.pop(begin + Duration::from_millis(3)),
            Some(Timer::Monitor)
        );
        assert_eq!((timers.next(), timers.is_empty()), (None, true));
    }
}
