//! What a loop waits with: descriptors and their readiness, the clock, and how an event finds what it is about.
//!
//! A loop has channels of its own (the kinds of descriptors that it watches) and deadlines of its own; nothing here knows
//! them. Nor does anything here decide what is done about an event.

pub mod io;
pub mod peers;
pub mod poller;
pub mod signals;
pub mod sock_diag;
pub mod stdio;
pub mod timers;
pub mod token;

use std::time::Duration;

use mio::{Interest, Token};

use self::io::Io;
use self::poller::{ALARM, Poll, Poller, Register, Reregister};
use self::timers::Timers;
use self::token::{Channel, Target, Tokens};
use crate::util::histogram::Histogram;
use crate::util::time::Time;

/// A poller with the tokens of what it watches and the deadlines that end a wait. `C` are the channels of a loop, `D` its
/// deadlines; `P` is epoll, or the simulation's script.
#[derive(Debug)]
pub struct Reactor<C, D, P = Poller> {
    poller: P,
    tokens: Tokens<C>,
    /// The deadlines, and the time of this iteration of the loop.
    pub timers: Timers<D>,
    /// The longest time between two waits, of all and since they were last asked for.
    longest: Duration,
    longest_of_late: Duration,
    /// All of them, if they are to be counted.
    iterations: Option<Box<Histogram>>,
}

impl<C: Channel, D: Copy, P: Poll> Reactor<C, D, P> {
    /// Watches nothing yet.
    pub fn new(poller: P) -> Self {
        let timers = Timers::new(poller.now());
        Self {
            poller,
            tokens: Tokens::default(),
            timers,
            longest: Duration::ZERO,
            longest_of_late: Duration::ZERO,
            iterations: None,
        }
    }

    /// Measures each iteration from now on, and not only the long ones. That takes a look at the clock more.
    pub fn count_iterations(&mut self) {
        self.iterations.get_or_insert_default();
    }

    /// The same, after others that were counted.
    pub fn count_iterations_from(&mut self, counted: Histogram) {
        self.iterations = Some(Box::new(counted));
    }

    /// How long iterations took, if they are counted.
    pub fn iterations(&self) -> Option<&Histogram> {
        self.iterations.as_deref()
    }

    /// The longest time between two waits: as long as an event may have had to wait for the loop. Iterations within one
    /// tick of the kernel, at most 10 ms, may go unnoticed.
    pub fn longest_iteration(&self) -> Duration {
        self.longest
    }

    /// The same since the last call.
    pub fn take_longest_iteration(&mut self) -> Duration {
        std::mem::take(&mut self.longest_of_late)
    }

    /// The time of this iteration: it stands still between two calls of [`Self::wait`].
    pub fn now(&self) -> Time {
        self.timers.now()
    }

    /// Waits for events, until the next deadline at most, and not at all if there is something to do without them. This
    /// is the one place where time passes.
    pub fn wait(&mut self, events: &mut P::Events, is_busy: bool) -> std::io::Result<()> {
        let deadline = if is_busy {
            Some(self.now())
        } else {
            self.timers.next()
        };
        self.wait_until(events, deadline)
    }

    /// The same, until this time at most, whatever the deadlines are. They are told apart by milliseconds, and this one is
    /// exact.
    #[inline]
    pub fn wait_until(
        &mut self,
        events: &mut P::Events,
        deadline: Option<Time>,
    ) -> std::io::Result<()> {
        let now = self.now();
        if self.iterations.is_some() || self.poller.coarse_now() > now {
            self.note_iteration(now);
        }
        self.poller.wait(events, deadline, now)?;
        self.timers.advance(self.poller.now());
        Ok(())
    }

    /// Each is counted, or the clock has ticked since the wait: this iteration may be one of the long ones.
    #[inline(never)]
    fn note_iteration(&mut self, began: Time) {
        let worked = self.poller.now().saturating_since(began);
        if let Some(iterations) = &mut self.iterations {
            iterations.note(worked);
        }
        self.longest = self.longest.max(worked);
        self.longest_of_late = self.longest_of_late.max(worked);
    }

    /// What an event is about; `None` if that is nothing of the loop's.
    pub fn target(&mut self, token: Token) -> Option<Target<C>> {
        if token == ALARM {
            self.poller.alarm_fired();
            return None;
        }
        Target::of(token)
    }

    /// Watches a descriptor. Events about it name `target`.
    pub fn register<S>(
        &mut self,
        source: S,
        target: Target<C>,
        interest: Interest,
    ) -> std::io::Result<Io<S>>
    where
        P: Register<S>,
    {
        let token = self.tokens.next(target);
        self.poller.register(source, token, interest)
    }

    /// Goes on to watch a descriptor for another target.
    pub fn hand_over<S>(
        &mut self,
        io: Io<S>,
        target: Target<C>,
        interest: Interest,
    ) -> std::io::Result<Io<S>>
    where
        P: Reregister<S>,
    {
        let token = self.tokens.next(target);
        self.poller.reregister(io, token, interest)
    }

    /// What waits for events.
    pub fn poller(&self) -> &P {
        &self.poller
    }

    /// A token for what is registered by other means.
    pub fn next_token(&mut self, target: Target<C>) -> Token {
        self.tokens.next(target)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::Events;
    use mio::unix::pipe;

    use super::*;
    use crate::reactor::io::Readiness;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Only {
        Pipe,
    }

    impl Channel for Only {
        const ALL: &'static [Self] = &[Self::Pipe];

        fn number(self) -> usize {
            self as usize
        }
    }

    fn reactor() -> (Reactor<Only, u8>, Events) {
        let reactor = Reactor::new(Poller::new().unwrap());
        (reactor, Events::with_capacity(8))
    }

    #[test]
    fn a_deadline_ends_a_wait_and_time_stands_still_until_the_next() {
        let (mut reactor, mut events) = reactor();
        let began = reactor.now();
        let at = began + Duration::from_millis(5);
        reactor.timers.set(at, 1);
        assert_eq!(reactor.timers.pop(), None);
        while reactor.timers.next().is_some() {
            reactor.wait(&mut events, false).unwrap();
            for event in &events {
                assert_eq!(reactor.target(event.token()), None);
            }
            if reactor.timers.pop() == Some(1) {
                assert!(reactor.now() >= at);
            }
        }
    }

    #[test]
    fn whoever_is_busy_does_not_wait() {
        let (mut reactor, mut events) = reactor();
        reactor.wait(&mut events, true).unwrap();
        assert!(events.is_empty());
    }

    #[test]
    fn the_longest_iteration_is_known() {
        // Longer than any tick.
        const WORK: Duration = Duration::from_millis(25);
        let (mut reactor, mut events) = reactor();
        reactor.wait(&mut events, true).unwrap();
        reactor.take_longest_iteration();
        let began = reactor.now();
        while reactor.poller().now() < began + WORK {}
        reactor.wait(&mut events, true).unwrap();
        assert!(reactor.take_longest_iteration() >= WORK);
        assert_eq!(reactor.take_longest_iteration(), Duration::ZERO);
        assert!(reactor.longest_iteration() >= WORK);
    }

    #[test]
    fn what_is_handed_over_is_told_once_more_under_its_new_name() {
        use std::io::Write;
        let (mut reactor, mut events) = reactor();
        let (mut sender, receiver) = pipe::new().unwrap();
        let target = |key| Target {
            key,
            channel: Only::Pipe,
        };
        let interest = Interest::READABLE;
        let io = reactor.register(receiver, target(7), interest).unwrap();
        sender.write_all(b"x").unwrap();
        reactor.wait(&mut events, false).unwrap();
        let mut io = reactor.hand_over(io, target(8), interest).unwrap();
        let told = events.iter().next().unwrap();
        assert!(!io.latch(told.token(), Readiness::of(told)) && !io.is_readable());
        reactor.wait(&mut events, false).unwrap();
        let event = events.iter().next().unwrap();
        assert_eq!(reactor.target(event.token()), Some(target(8)));
        assert!(io.latch(event.token(), Readiness::of(event)) && io.is_readable());
    }

    #[test]
    fn an_event_names_what_it_is_about() {
        use std::io::Write;
        let (mut reactor, mut events) = reactor();
        let (mut sender, receiver) = pipe::new().unwrap();
        let target = Target {
            key: 7,
            channel: Only::Pipe,
        };
        let mut io = reactor
            .register(receiver, target, Interest::READABLE)
            .unwrap();
        sender.write_all(b"x").unwrap();
        reactor.wait(&mut events, false).unwrap();
        let event = events.iter().next().unwrap();
        assert_eq!(reactor.target(event.token()), Some(target));
        assert!(io.latch(event.token(), Readiness::of(event)) && io.is_readable());
    }
}
