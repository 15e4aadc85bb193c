//! The timer wheel with the clock's side of it: times in, milliseconds inside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::util::time::Time;
use crate::util::timer_wheel::{TimerId, TimerWheel};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What the wheel counts in: fine enough for any time-out here, and a wheel of hours is small.
const NANOS_PER_TICK: u64 = 1_000_000;

/// The time now, by `CLOCK_MONOTONIC`.
pub fn now() -> Time {
    read(ClockId::CLOCK_MONOTONIC)
}

/// The same at the kernel's last tick: 1 to 10 ms ago, as the kernel was built (time(7), "The software clock").
pub fn coarse_now() -> Time {
    read(ClockId::CLOCK_MONOTONIC_COARSE)
}

/// The time now, by a clock that goes on while the machine sleeps.
pub fn boot_time() -> Time {
    read(ClockId::CLOCK_BOOTTIME)
}

fn read(clock: ClockId) -> Time {
    // It can't fail: both clocks exist on every Linux (clock_gettime(2)).
    clock_gettime(clock).map_or(Time::default(), |now| {
        let seconds = now.tv_sec().cast_unsigned() * NANOS_PER_SECOND;
        Time::from_nanos(seconds + now.tv_nsec().cast_unsigned())
    })
}

/// The time since 1970. The wall clock may be set at any time, so it is read when it is needed.
pub fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// All deadlines of a loop, and the time of its present iteration. `D` says what a deadline is for.
#[derive(Debug)]
pub struct Timers<D> {
    epoch: Time,
    now: Time,
    wheel: TimerWheel<D>,
    /// When something may be due next, so that the wheel need not be asked in each iteration.
    next: Option<Time>,
}

impl<D: Copy> Timers<D> {
    /// No deadlines.
    pub fn new(now: Time) -> Self {
        Self {
            epoch: now,
            now,
            wheel: TimerWheel::new(0),
            next: None,
        }
    }

    /// The time, as it was last told by [`Self::advance`].
    pub fn now(&self) -> Time {
        self.now
    }

    /// The clock has gone on.
    pub fn advance(&mut self, now: Time) {
        self.now = now;
    }

    /// Sets a deadline. It is never reported early, and at most a millisecond late.
    pub fn set(&mut self, at: Time, what: D) -> TimerId {
        let id = self.wheel.set(self.tick_of(at), what);
        self.note_next();
        id
    }

    /// Forgets a deadline.
    pub fn cancel(&mut self, id: TimerId) {
        self.wheel.cancel(id);
        self.note_next();
    }

    /// Whether a deadline may have come.
    pub fn is_due(&self) -> bool {
        self.next.is_some_and(|next| next <= self.now)
    }

    /// Takes a deadline that has come.
    #[inline]
    pub fn pop(&mut self) -> Option<D> {
        if !self.is_due() {
            return None;
        }
        self.pop_expired()
    }

    #[inline(never)]
    fn pop_expired(&mut self) -> Option<D> {
        let popped = self
            .wheel
            .pop_expired(self.nanos_to(self.now) / NANOS_PER_TICK);
        self.note_next();
        popped
    }

    /// When something may be due next; `None` if nothing ever is.
    pub fn next(&self) -> Option<Time> {
        self.next
    }

    fn note_next(&mut self) {
        let at = |tick: u64| {
            let nanos = tick.saturating_mul(NANOS_PER_TICK);
            Time::from_nanos(self.epoch.as_nanos().saturating_add(nanos))
        };
        self.next = self.wheel.next_deadline().map(at);
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
        self.nanos_to(at).div_ceil(NANOS_PER_TICK)
    }

    fn nanos_to(&self, at: Time) -> u64 {
        at.as_nanos().saturating_sub(self.epoch.as_nanos())
    }
}

/// The one deadline of an owner: set or not, never two at a time.
#[derive(Debug, Default)]
pub struct Deadline(Option<(Time, TimerId)>);

impl Deadline {
    /// What it is set for.
    pub fn at(&self) -> Option<Time> {
        self.0.map(|(at, _)| at)
    }

    /// Sets it to another time or to none. `what` says whose it is.
    #[inline]
    pub fn set<D: Copy>(&mut self, at: Option<Time>, what: D, timers: &mut Timers<D>) {
        if self.at() != at {
            self.move_to(at, what, timers);
        }
    }

    #[inline(never)]
    fn move_to<D: Copy>(&mut self, at: Option<Time>, what: D, timers: &mut Timers<D>) {
        self.clear(timers);
        self.0 = at.map(|at| (at, timers.set(at, what)));
    }

    /// Forgets it.
    pub fn clear<D: Copy>(&mut self, timers: &mut Timers<D>) {
        if let Some((_, id)) = self.0.take() {
            timers.cancel(id);
        }
    }

    /// It was taken from the timers: it has come.
    pub fn fired(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Time = Time::from_nanos(1 << 40);

    #[test]
    fn an_owner_has_one_deadline() {
        let mut timers = Timers::new(BEGIN);
        let mut deadline = Deadline::default();
        for millis in [Some(5), Some(5), Some(9), None, Some(7)] {
            let at = millis.map(|millis| BEGIN + Duration::from_millis(millis));
            deadline.set(at, (), &mut timers);
            assert_eq!(
                (deadline.at(), timers.len()),
                (at, usize::from(at.is_some()))
            );
        }
        assert_eq!(timers.next(), Some(BEGIN + Duration::from_millis(7)));
        deadline.clear(&mut timers);
        assert_eq!((deadline.at(), timers.is_empty()), (None, true));
    }

    #[test]
    fn a_deadline_that_has_come_can_be_set_again_for_the_same_time() {
        let mut timers = Timers::new(BEGIN);
        let mut deadline = Deadline::default();
        deadline.set(Some(BEGIN), (), &mut timers);
        assert_eq!(timers.pop(), Some(()));
        deadline.fired();
        assert_eq!(deadline.at(), None);
        deadline.set(Some(BEGIN), (), &mut timers);
        assert_eq!((timers.len(), timers.is_empty()), (1, false));
    }

    #[test]
    fn never_early() {
        let mut timers = Timers::new(BEGIN);
        timers.set(BEGIN + Duration::from_micros(2100), 'x');
        assert_eq!(timers.next(), Some(BEGIN + Duration::from_millis(3)));
        timers.advance(BEGIN + Duration::from_micros(2999));
        assert_eq!(timers.pop(), None);
        timers.advance(BEGIN + Duration::from_millis(3));
        assert_eq!(timers.pop(), Some('x'));
        assert_eq!((timers.next(), timers.is_empty()), (None, true));
    }

    #[test]
    fn the_clocks_go_on() {
        let began = now();
        while now() == began {}
        assert!(now() > began && unix_time() > Duration::from_hours(24 * 365 * 50));
    }
}
