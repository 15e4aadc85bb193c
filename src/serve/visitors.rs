//! Drives the entrance: reads from the connections in it, does what follows, and makes sessions of those that are let in.

use std::collections::VecDeque;

use log::debug;
use mio::{Interest, Token};

use super::client::ClientSession;
use super::system::{ClientSocket, System};
use super::{Channel, Due, Proxy, newcomers};
use crate::entrance::{Admission, Arrival, Capacity, Displaced, Entrance, Rules, Step, VisitorKey};
use crate::reactor::io::{Input, Io, Readiness};
use crate::reactor::timers::{Deadline, Timers};
use crate::reactor::token::{MAX_KEYS, Target};
use crate::session::{Event, Session};
use crate::util::about::about;
use crate::util::client_address::ClientAddress;
use crate::util::service_key::ServiceKey;

/// What is read at once of a visitor, in bytes: twice the longest first line. Who is let in goes on in larger pieces.
const READ_BYTES: usize = 16 * 1024;

/// Visitors that are run in one iteration: several times as many as are accepted in one, so that they never pile up, and
/// sessions are not delayed by more than a few hundred microseconds.
const VISITORS_PER_ITERATION: usize = 32;

/// What is watched of a connection.
const INTEREST: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::PRIORITY);

/// The connections in the entrance.
pub(super) struct Visitors<C> {
    pub(super) entrance: Entrance<Visit<C>>,
    /// Those that may have something to say, each at most once: those of which not all was heard that they have said at once,
    /// and the others. Nobody comes in while there are any of the former, so that none of them has to make room before.
    fresh: VecDeque<VisitorKey>,
    ready: VecDeque<VisitorKey>,
    /// Those whose handshake may go on, each at most once: in the order in which they came to it.
    pub(super) shaking: VecDeque<VisitorKey>,
}

/// What is kept beside a visitor.
pub(super) struct Visit<C> {
    pub(super) io: Io<C>,
    deadline: Deadline,
    /// Whether it is in one of the queues.
    pub(super) queued: bool,
    was_heard: bool,
    /// Whether a TLS handshake is under way.
    pub(super) is_shaking: bool,
}

impl<C> Visitors<C> {
    /// Nobody is there; `None` if nothing is asked of anybody.
    pub(super) fn new(rules: Rules, places: usize) -> Option<Self> {
        rules.ask_anything().then(|| Self::of(rules, places))
    }

    /// Nobody is there, although nothing may be asked of anybody.
    pub(super) fn of(rules: Rules, places: usize) -> Self {
        let capacity = Capacity {
            places: places.max(1),
            ..Capacity::default()
        };
        Self {
            entrance: Entrance::new(rules, capacity),
            fresh: VecDeque::new(),
            ready: VecDeque::new(),
            shaking: VecDeque::new(),
        }
    }

    /// Asks this from now on.
    pub(super) fn set_rules(&mut self, rules: Rules, places: usize) {
        self.entrance.set_capacity(Capacity {
            places: places.max(1),
            ..Capacity::default()
        });
        *self.entrance.rules_mut() = rules;
    }

    /// Latches what an event says of a connection.
    pub(super) fn latch(&mut self, key: VisitorKey, token: Token, readiness: Readiness) {
        if let Some(visit) = self.entrance.place_mut(key)
            && visit.io.latch(token, readiness)
            && !std::mem::replace(&mut visit.queued, true)
        {
            self.push(key);
        }
    }

    fn push(&mut self, key: VisitorKey) {
        match self.entrance.place_mut(key) {
            Some(visit) if visit.is_shaking => self.shaking.push_back(key),
            Some(visit) if visit.was_heard => self.ready.push_back(key),
            _ => self.fresh.push_back(key),
        }
    }

    pub(super) fn report_left_out(&mut self) {
        self.entrance.report_left_out();
    }

    /// What holds between two iterations of the loop. Returns how many deadlines are set.
    pub(super) fn check(&self) -> usize {
        for (key, visit) in self.entrance.iter() {
            let queues = [&self.fresh, &self.ready, &self.shaking];
            let is_queued = queues.iter().any(|queue| queue.contains(&key));
            assert!(!visit.queued || is_queued, "{key:?} is not queued");
            let at = self.entrance.next_deadline(key);
            assert_eq!(visit.deadline.at(), at, "the deadline of {key:?}");
            let has_more = visit.io.is_readable() && self.entrance.wants_input(key);
            assert!(!has_more || is_queued, "{key:?} is not run");
        }
        self.entrance.len()
    }

    /// Closes all of them.
    pub(super) fn close(&mut self, timers: &mut Timers<Due>) {
        self.fresh.clear();
        self.ready.clear();
        self.shaking.clear();
        let keys: Vec<VisitorKey> = self.entrance.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.leave(key, timers);
        }
    }

    /// A connection is in no longer. Returns it.
    pub(super) fn leave(&mut self, key: VisitorKey, timers: &mut Timers<Due>) -> Option<Io<C>> {
        let mut visit = self.entrance.leave(key)?;
        visit.deadline.clear(timers);
        Some(visit.io)
    }

    /// Sets the time at which a visitor is looked at again.
    fn set_deadline(&mut self, key: VisitorKey, timers: &mut Timers<Due>) {
        let at = self.entrance.next_deadline(key);
        if let Some(visit) = self.entrance.place_mut(key) {
            visit.deadline.set(at, Due::Visitor(key), timers);
        }
    }
}

impl<C: ClientSocket> Visitors<C> {
    /// Takes the place of somebody. What it is told is so short that the system takes it at once, or never.
    fn see_off(displaced: Displaced<Visit<C>>, scratch: &mut [u8], timers: &mut Timers<Due>) {
        let Displaced {
            place: mut visit,
            farewell,
        } = displaced;
        visit.deadline.clear(timers);
        if let Some(text) = farewell {
            let _ = visit.io.write(text.as_bytes());
            visit.io.source_mut().end();
            // A close with something unread is a reset, which would destroy what was written.
            let _ = visit.io.read(scratch);
        }
    }

    /// Reads once, if that is wanted now, and says what follows.
    fn read(&mut self, key: VisitorKey, scratch: &mut [u8], timers: &Timers<Due>) -> Step {
        if !self.entrance.wants_input(key) {
            return Step::Wait;
        }
        let Some(visit) = self.entrance.place_mut(key) else {
            return Step::Wait;
        };
        if !visit.io.is_readable() {
            return Step::Wait;
        }
        let now = timers.now();
        let read = visit.io.read(scratch);
        if visit.io.source().holds_input() {
            visit.io.note_readable();
        }
        match read {
            Input::Bytes(count) => self.entrance.bytes(key, &scratch[..count], now),
            Input::End => self.entrance.eof(key, now),
            Input::Blocked => Step::Wait,
            Input::Broken(_) => self.entrance.broken(key, now),
        }
    }

    /// Whether a visitor has more to say although no event will tell.
    fn has_more(&mut self, key: VisitorKey) -> bool {
        let wants_input = self.entrance.wants_input(key);
        let visit = self.entrance.place_mut(key);
        wants_input && visit.is_some_and(|visit| visit.io.is_readable() && !visit.is_shaking)
    }

    /// Has a visitor run if it has more to say. If not, all was heard that it has said at once.
    fn requeue(&mut self, key: VisitorKey) {
        let has_more = self.has_more(key);
        let Some(visit) = self.entrance.place_mut(key) else {
            return;
        };
        visit.was_heard |= !has_more;
        if has_more && !std::mem::replace(&mut visit.queued, true) {
            self.push(key);
        }
    }
}

impl<S: System> Proxy<S> {
    /// The connections in the entrance.
    pub fn visitors(&self) -> usize {
        let visitors = self.visitors.as_ref();
        visitors.map_or(0, |visitors| visitors.entrance.len())
    }

    pub(super) fn has_ready_visitors(&self) -> bool {
        let visitors = self.visitors.as_ref();
        visitors.is_some_and(|visitors| {
            let queues = [&visitors.fresh, &visitors.ready, &visitors.shaking];
            queues.iter().any(|queue| !queue.is_empty())
        })
    }

    /// Whether somebody in the entrance waits to be heard for the first time.
    pub(super) fn has_fresh_visitors(&self) -> bool {
        let visitors = self.visitors.as_ref();
        visitors.is_some_and(|visitors| !visitors.fresh.is_empty())
    }

    /// Connections are about to be accepted.
    pub(super) fn begin_round_of_visitors(&mut self) {
        if let Some(visitors) = &mut self.visitors
            && visitors.fresh.is_empty()
        {
            visitors.entrance.begin_round();
        }
    }

    /// A connection has come where something may be asked of it.
    pub(super) fn arrived(
        &mut self,
        door: Option<ServiceKey>,
        client: S::Client,
        address: ClientAddress,
    ) {
        let now = self.now();
        let Some(visitors) = &mut self.visitors else {
            return;
        };
        match visitors.entrance.rules().judge(door, address) {
            Arrival::Free => self.accept_free(door, client, address),
            Arrival::Refused(refusal) => visitors.entrance.refused(address, refusal, now),
            Arrival::Asked => self.enter(door, client, address),
        }
    }

    fn enter(&mut self, door: Option<ServiceKey>, client: S::Client, address: ClientAddress) {
        if let Err(error) = client.configure() {
            debug!("a connection was gone when it was accepted: {error}");
            return;
        }
        let now = self.now();
        let returning = self.resuming.as_ref().map(|it| &it.returning);
        let Some(visitors) = &mut self.visitors else {
            return;
        };
        while let Some(displaced) = visitors.entrance.make_room(address, returning, now) {
            let scratch = self.scheduler.scratch();
            Visitors::see_off(displaced, scratch, &mut self.reactor.timers);
        }
        let target = Target {
            key: visitors.entrance.next_key().0,
            channel: Channel::Visitor,
        };
        let io = match self.reactor.register(client, target, INTEREST) {
            Ok(io) => io,
            Err(error) => return self.pause(&error),
        };
        let visit = Visit {
            io,
            deadline: Deadline::default(),
            queued: false,
            is_shaking: false,
            was_heard: false,
        };
        let key = visitors.entrance.enter_for(door, address, visit, now);
        visitors.set_deadline(key, &mut self.reactor.timers);
    }

    /// Runs those that may have something to say, some of them.
    pub(super) fn run_visitors(&mut self) {
        self.read_visitors();
        self.shake_hands();
    }

    fn read_visitors(&mut self) {
        for _ in 0..VISITORS_PER_ITERATION {
            let Some(visitors) = &mut self.visitors else {
                return;
            };
            let next = visitors.fresh.pop_front();
            let Some(key) = next.or_else(|| visitors.ready.pop_front()) else {
                return;
            };
            // It may be gone, and its key another's.
            let visit = visitors.entrance.place_mut(key);
            if visit.is_some_and(|visit| std::mem::take(&mut visit.queued)) {
                let scratch = &mut self.scheduler.scratch()[..READ_BYTES];
                let step = visitors.read(key, scratch, &self.reactor.timers);
                self.follow(key, step);
            }
        }
    }

    /// The time of a visitor has come.
    pub(super) fn visitor_timeout(&mut self, key: VisitorKey) {
        let now = self.now();
        let Some(visitors) = &mut self.visitors else {
            return;
        };
        if let Some(visit) = visitors.entrance.place_mut(key) {
            visit.deadline.fired();
            let step = visitors.entrance.deadline(key, now);
            self.follow(key, step);
        }
    }

    /// Does what is to be done about a visitor.
    pub(super) fn follow(&mut self, key: VisitorKey, step: Step) {
        let now = self.now();
        let Some(visitors) = &mut self.visitors else {
            return;
        };
        let timers = &mut self.reactor.timers;
        let returning = self.resuming.as_ref().map(|it| &it.returning);
        while let Some(displaced) = visitors.entrance.make_room_beside(key, returning, now) {
            Visitors::see_off(displaced, self.scheduler.scratch(), timers);
        }
        match step {
            Step::Wait => {}
            Step::StartTls(early) => {
                self.start_tls(key, early);
                return;
            }
            Step::Close => {
                visitors.leave(key, timers);
                return;
            }
            Step::Answer(text) => {
                if let Some(visit) = visitors.entrance.place_mut(key) {
                    let _ = visit.io.write(text.as_bytes());
                    visit.io.source_mut().end();
                }
            }
            Step::Admit(admission) => {
                if let Some(io) = visitors.leave(key, timers) {
                    self.admit(io, admission);
                }
                return;
            }
        }
        visitors.requeue(key);
        visitors.set_deadline(key, timers);
    }

    /// A connection becomes a session.
    fn admit(&mut self, io: Io<S::Client>, admission: Admission) {
        let Admission {
            client,
            service,
            identity,
            early,
        } = admission;
        if self.resuming.is_some() {
            let arrival = newcomers::Arrival {
                client,
                service,
                identity,
            };
            return self.let_in(io, arrival, &early);
        }
        let key = self.scheduler.next_key();
        if key.0 >= MAX_KEYS {
            return;
        }
        let target = Target {
            key: key.0,
            channel: Channel::Client,
        };
        let mut io = match self.reactor.hand_over(io, target, INTEREST) {
            Ok(io) => io,
            Err(error) => return self.pause(&error),
        };
        if io.source().is_tls() {
            // What came with the last that was read is decrypted already.
            io.note_readable();
            io.expect_short_writes();
        }
        let shown = identity.as_ref().map(ToString::to_string);
        let key = self.open_session(client, ClientSession::new(service, io, identity));
        if let (Some(shown), Some(label)) = (shown, self.scheduler.session(key).map(Session::label))
        {
            about!(info, label, "let in as {shown}");
        }
        let session = self.scheduler.session(key);
        let is_heard = session.is_some_and(|session| !session.was_refused());
        if is_heard && !early.is_empty() {
            self.tell(key, Event::ClientBytes(&early));
        }
    }
}
