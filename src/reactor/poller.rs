//! Waits for events and for the next deadline.
//!
//! The deadline is a descriptor among the others, and no time-out of the wait. A time-out has the kernel set a timer and
//! cancel it again at each wait, which costs more than all else in it where setting the hardware's timer is expensive, as
//! on virtual machines. A timerfd is set once and stays set over any number of waits.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::io::{Io, Readiness};
use super::timers;
use crate::util::time::Time;

/// What events about the alarm bear. No other token has all its bits set.
pub const ALARM: Token = Token(usize::MAX);

/// Waits for events, and has the clock.
pub trait Poll {
    /// What one wait has brought.
    type Events;

    /// Waits until `deadline`, and with a `deadline` that has passed not at all. `now` is the time, as far as the caller
    /// knows. Without a deadline there has to be something to wait for.
    fn wait(
        &mut self,
        events: &mut Self::Events,
        deadline: Option<Time>,
        now: Time,
    ) -> io::Result<()>;

    /// The events, in the order in which they came.
    fn iter(events: &Self::Events) -> impl Iterator<Item = (Token, Readiness)>;

    /// What the clock says.
    fn now(&self) -> Time;

    /// The same at the kernel's last tick, which takes a fraction of the time to read.
    fn coarse_now(&self) -> Time {
        self.now()
    }

    /// An event with the token [`ALARM`] has come.
    fn alarm_fired(&mut self) {}
}

/// Watches descriptors of a kind.
pub trait Register<S> {
    /// From now on there are events about this descriptor.
    fn register(&mut self, source: S, token: Token, interest: Interest) -> io::Result<Io<S>>;
}

/// Goes on to watch a descriptor under another token.
pub trait Reregister<S>: Register<S> {
    /// From now on events about this descriptor bear this token. Whatever is known of its readiness comes as an event once
    /// more.
    fn reregister(&mut self, io: Io<S>, token: Token, interest: Interest) -> io::Result<Io<S>>;
}

/// An epoll instance with an alarm.
#[derive(Debug)]
pub struct Poller {
    poll: mio::Poll,
    alarm: TimerFd,
    /// What the alarm is set for, unless it has rung since.
    alarm_at: Option<Time>,
}

impl Poller {
    /// Nothing is registered but the alarm.
    pub fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let alarm = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let descriptor = alarm.as_fd().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&descriptor), ALARM, Interest::READABLE)?;
        Ok(Self {
            poll,
            alarm,
            alarm_at: None,
        })
    }

    /// Where descriptors are registered that are not kept as an [`Io`].
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    #[inline(never)]
    fn set_alarm(&mut self, at: Time) -> io::Result<()> {
        let time = TimeSpec::from_duration(Duration::from_nanos(at.as_nanos()));
        self.alarm.set(
            Expiration::OneShot(time),
            TimerSetTimeFlags::TFD_TIMER_ABSTIME,
        )?;
        self.alarm_at = Some(at);
        Ok(())
    }

    /// Looks what has happened, without waiting, after a wait that a signal has cut short.
    #[inline(never)]
    fn look_once_more(&mut self, mut error: io::Error, events: &mut Events) -> io::Result<()> {
        while error.kind() == io::ErrorKind::Interrupted {
            match self.poll.poll(events, Some(Duration::ZERO)) {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
        }
        Err(error)
    }
}

impl Poll for Poller {
    type Events = Events;

    /// A signal that is not taken as an event, as SIGCONT is, cuts the wait short; what has happened meanwhile is looked
    /// at all the same, before the clock says that it came too late.
    fn wait(&mut self, events: &mut Events, deadline: Option<Time>, now: Time) -> io::Result<()> {
        let mut timeout = None;
        match deadline {
            Some(deadline) if deadline <= now => timeout = Some(Duration::ZERO),
            // An alarm that is set for an earlier time may stay: it costs one iteration too many.
            Some(deadline) if self.alarm_at.is_some_and(|set| set <= deadline) => {}
            Some(deadline) => self.set_alarm(deadline)?,
            None => {}
        }
        match self.poll.poll(events, timeout) {
            Ok(()) => Ok(()),
            Err(error) => self.look_once_more(error, events),
        }
    }

    fn iter(events: &Events) -> impl Iterator<Item = (Token, Readiness)> {
        events
            .iter()
            .map(|event| (event.token(), Readiness::of(event)))
    }

    fn now(&self) -> Time {
        timers::now()
    }

    fn coarse_now(&self) -> Time {
        timers::coarse_now()
    }

    /// The alarm is not read: setting it anew makes it ready to ring again.
    fn alarm_fired(&mut self) {
        self.alarm_at = None;
    }
}

impl<S: Source> Register<S> for Poller {
    fn register(&mut self, mut source: S, token: Token, interest: Interest) -> io::Result<Io<S>> {
        self.registry().register(&mut source, token, interest)?;
        Ok(Io::new(source, token, interest))
    }
}

impl<S: Source> Reregister<S> for Poller {
    fn reregister(&mut self, io: Io<S>, token: Token, interest: Interest) -> io::Result<Io<S>> {
        let mut source = io.into_source();
        self.registry().reregister(&mut source, token, interest)?;
        Ok(Io::new(source, token, interest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Waits once. Returns whether the alarm rang.
    fn wait(poller: &mut Poller, deadline: Time) -> bool {
        let mut events = Events::with_capacity(8);
        poller
            .wait(&mut events, Some(deadline), timers::now())
            .unwrap();
        let rang = Poller::iter(&events).any(|(token, _)| token == ALARM);
        if rang {
            poller.alarm_fired();
        }
        rang
    }

    #[test]
    fn the_alarm_rings_at_each_deadline_and_not_before() {
        let mut poller = Poller::new().unwrap();
        for _ in 0..3 {
            let deadline = timers::now() + 5 * MILLISECOND;
            assert!(wait(&mut poller, deadline));
            assert!(timers::now() >= deadline);
        }
    }

    #[test]
    fn an_alarm_for_an_earlier_time_stays() {
        let mut poller = Poller::new().unwrap();
        let now = timers::now();
        poller.set_alarm(now + 5 * MILLISECOND).unwrap();
        assert!(wait(&mut poller, now + Duration::from_hours(1)));
        let later = timers::now() + 5 * MILLISECOND;
        poller.set_alarm(now + Duration::from_hours(1)).unwrap();
        assert!(wait(&mut poller, later), "an earlier one takes its place");
    }

    #[test]
    fn a_deadline_that_has_passed_is_not_waited_for() {
        let mut poller = Poller::new().unwrap();
        assert!(!wait(&mut poller, timers::now()));
        assert_eq!(poller.alarm_at, None);
    }
}
