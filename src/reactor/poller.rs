//! Waits for events and for the next deadline.
//!
//! The deadline is a descriptor among the others, and no time-out of the wait. A time-out has the kernel set a timer and
//! cancel it again at each wait, which costs more than all else in it where setting the hardware's timer is dear, as on
//! virtual machines. A timerfd is set once and stays set over any number of waits.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::token::{Address, Channel, Tokens};
use crate::util::time::Time;

/// An epoll instance with an alarm.
#[derive(Debug)]
pub struct Poller {
    poll: Poll,
    alarm: TimerFd,
    /// What the alarm is set for, unless it has rung since.
    alarm_at: Option<Time>,
}

impl Poller {
    /// Nothing is registered but the alarm.
    pub fn new(tokens: &mut Tokens) -> io::Result<Self> {
        let poll = Poll::new()?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let alarm = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let token = tokens.next(Address {
            slot: 0,
            port: Channel::Alarm,
        });
        let descriptor = alarm.as_fd().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&descriptor), token, Interest::READABLE)?;
        Ok(Self {
            poll,
            alarm,
            alarm_at: None,
        })
    }

    /// Where descriptors are registered.
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Waits for events until `deadline`, and with a `deadline` that has passed not at all. `now` is the time, as far as
    /// the caller knows. Without a deadline there has to be something to wait for.
    ///
    /// A signal that is not taken as an event, as SIGCONT is, cuts the wait short; what has happened meanwhile is looked
    /// at all the same, before the clock says that it came too late.
    pub fn wait(
        &mut self,
        events: &mut Events,
        deadline: Option<Time>,
        now: Time,
    ) -> io::Result<()> {
        let mut timeout = None;
        match deadline {
            Some(deadline) if deadline <= now => timeout = Some(Duration::ZERO),
            Some(deadline) => self.set_alarm(deadline, now)?,
            None => {}
        }
        while let Err(error) = self.poll.poll(events, timeout) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            timeout = Some(Duration::ZERO);
        }
        Ok(())
    }

    /// An event of [`Channel::Alarm`] has come. It is not read: setting the alarm anew makes it ready to ring again.
    pub fn alarm_fired(&mut self) {
        self.alarm_at = None;
    }

    /// An alarm that is set for an earlier time may stay: it costs one turn too many.
    fn set_alarm(&mut self, at: Time, now: Time) -> io::Result<()> {
        if self.alarm_at.is_some_and(|set| set <= at) {
            return Ok(());
        }
        let left = TimeSpec::from_duration(at.saturating_since(now));
        self.alarm
            .set(Expiration::OneShot(left), TimerSetTimeFlags::empty())?;
        self.alarm_at = Some(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::timers;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Waits once. Returns whether the alarm rang.
    fn wait(poller: &mut Poller, deadline: Time) -> bool {
        let mut events = Events::with_capacity(8);
        poller
            .wait(&mut events, Some(deadline), timers::now())
            .unwrap();
        let rang = events
            .iter()
            .filter_map(|event| Address::of(event.token()))
            .any(|address| address.port == Channel::Alarm);
        if rang {
            poller.alarm_fired();
        }
        rang
    }

    #[test]
    fn the_alarm_rings_at_each_deadline_and_not_before() {
        let mut poller = Poller::new(&mut Tokens::default()).unwrap();
        for _ in 0..3 {
            let deadline = timers::now() + 5 * MILLISECOND;
            assert!(wait(&mut poller, deadline));
            assert!(timers::now() >= deadline);
        }
    }

    #[test]
    fn an_alarm_for_an_earlier_time_stays() {
        let mut poller = Poller::new(&mut Tokens::default()).unwrap();
        let now = timers::now();
        poller.set_alarm(now + 5 * MILLISECOND, now).unwrap();
        assert!(wait(&mut poller, now + Duration::from_hours(1)));
        let later = timers::now() + 5 * MILLISECOND;
        poller
            .set_alarm(now + Duration::from_hours(1), now)
            .unwrap();
        assert!(wait(&mut poller, later), "an earlier one takes its place");
    }

    #[test]
    fn a_deadline_that_has_passed_is_not_waited_for() {
        let mut poller = Poller::new(&mut Tokens::default()).unwrap();
        assert!(!wait(&mut poller, timers::now()));
        assert_eq!(poller.alarm_at, None);
    }
}
