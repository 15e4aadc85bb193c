//! The timer wheel with the clock's side of it: instants in, milliseconds inside.

use std::time::{Duration, Instant};

use crate::timer_wheel::{TimerId, TimerWheel};

/// Whose deadline has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// Of the session in this slot.
    Session(usize),
    /// Of a server process that is to go.
    Process(usize),
    /// Connections may be accepted again.
    Accept,
    /// What must be looked after now and then.
    Monitor,
    /// Of an attempt to connect.
    Connect,
    /// Of a connection that is to be closed by its other side.
    Close,
}

/// All deadlines of the program.
#[derive(Debug)]
pub struct Timers {
    epoch: Instant,
    wheel: TimerWheel<Timer>,
}

impl Timers {
    /// No deadlines.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            wheel: TimerWheel::new(0),
        }
    }

    /// Sets a deadline. It is never reported early, and at most a millisecond late.
    pub fn set(&mut self, at: Instant, timer: Timer) -> TimerId {
        self.wheel.set(self.tick_of(at), timer)
    }

    /// Forgets a deadline.
    pub fn cancel(&mut self, id: TimerId) {
        self.wheel.cancel(id);
    }

    /// Takes a deadline that has come.
    pub fn pop(&mut self, now: Instant) -> Option<Timer> {
        let elapsed = now.saturating_duration_since(self.epoch);
        self.wheel.pop_expired(elapsed.as_millis() as u64)
    }

    /// How long nothing is due; `None` if nothing ever is.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let at = self.epoch + Duration::from_millis(self.wheel.next_deadline()?);
        Some(at.saturating_duration_since(now))
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
    fn tick_of(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch)
            .as_nanos()
            .div_ceil(1_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_early() {
        let begin = Instant::now();
        let mut timers = Timers::new(begin);
        let at = begin + Duration::from_micros(2100);
        timers.set(at, Timer::Monitor);
        assert_eq!(timers.wait(begin), Some(Duration::from_millis(3)));
        assert_eq!(timers.pop(begin + Duration::from_micros(2999)), None);
        assert_eq!(
            timers.pop(begin + Duration::from_millis(3)),
            Some(Timer::Monitor)
        );
        assert_eq!((timers.wait(at), timers.is_empty()), (None, true));
    }
}
