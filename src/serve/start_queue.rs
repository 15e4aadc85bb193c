//! Whose server is started next, and whether one may be started now. Nothing here starts anything.
//!
//! Sessions whose clients have something to say come before those of silent clients, each in order of arrival: whoever
//! connects without a word delays nobody. Servers that are still starting up are limited in number, because a herd of
//! heavy runtimes thrashes a small machine, and then none of them is ready soon.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::Due;
use super::servers::ServerKey;
use crate::reactor::timers::{Deadline, Timers};
use crate::scheduler::SessionKey;
use crate::util::time::Time;

/// A server counts as starting up until it writes something, but no longer than this, which most runtimes need: most MCP
/// servers write nothing before they are spoken to.
const START_UP_TIME: Duration = Duration::from_secs(1);

/// The sessions that wait for their servers to be started, and the servers that are starting up.
#[derive(Debug)]
pub(super) struct StartQueue {
    limit: usize,
    last_number: u64,
    tickets: HashMap<SessionKey, Ticket>,
    /// By the numbers of their tickets: sessions whose clients have something to say, and the others.
    speaking: BTreeMap<u64, SessionKey>,
    silent: BTreeMap<u64, SessionKey>,
    /// Until when each server counts as starting up, the one that was started first in front.
    warming_up: VecDeque<(Time, ServerKey)>,
    /// When the next of them does not count any more, if someone waits for that.
    deadline: Deadline,
}

/// A session's place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) session: SessionKey,
    number: u64,
    speaks: bool,
}

impl StartQueue {
    /// At most `limit` servers start up at the same time.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            last_number: 0,
            tickets: HashMap::new(),
            speaking: BTreeMap::new(),
            silent: BTreeMap::new(),
            warming_up: VecDeque::new(),
            deadline: Deadline::default(),
        }
    }

    /// A session wants its server to be started. `speaks` tells whether something waits for that server.
    pub(super) fn ask(&mut self, session: SessionKey, speaks: bool) {
        self.leave(session);
        self.last_number += 1;
        self.put_back(Ticket {
            session,
            number: self.last_number,
            speaks,
        });
    }

    /// Something waits for the server of a session that may be in the queue.
    pub(super) fn speaks(&mut self, session: SessionKey) {
        if let Some(ticket) = self.tickets.get_mut(&session)
            && !ticket.speaks
        {
            ticket.speaks = true;
            self.silent.remove(&ticket.number);
            self.speaking.insert(ticket.number, session);
        }
    }

    /// A session is gone.
    pub(super) fn leave(&mut self, session: SessionKey) {
        if let Some(ticket) = self.tickets.remove(&session) {
            self.queue(ticket.speaks).remove(&ticket.number);
        }
    }

    /// Whether no session waits.
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Whether no session waits, and nothing has to be watched.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && self.warming_up.is_empty() && self.deadline.at().is_none()
    }

    /// Whether a session waits for whose server nothing was known to wait.
    pub(super) fn has_silent(&self) -> bool {
        !self.silent.is_empty()
    }

    /// Takes whoever is next.
    pub(super) fn take_next(&mut self) -> Option<Ticket> {
        let (_, session) = self
            .speaking
            .pop_first()
            .or_else(|| self.silent.pop_first())?;
        self.tickets.remove(&session)
    }

    /// Gives a place back.
    pub(super) fn put_back(&mut self, ticket: Ticket) {
        self.queue(ticket.speaks)
            .insert(ticket.number, ticket.session);
        self.tickets.insert(ticket.session, ticket);
    }

    fn queue(&mut self, speaking: bool) -> &mut BTreeMap<u64, SessionKey> {
        if speaking {
            &mut self.speaking
        } else {
            &mut self.silent
        }
    }

    /// A server was started.
    pub(super) fn started(&mut self, server: ServerKey, now: Time) {
        self.warming_up.push_back((now + START_UP_TIME, server));
    }

    /// A server has written something, or has ended.
    #[inline]
    pub(super) fn has_started_up(&mut self, server: ServerKey) {
        if self.warming_up.is_empty() {
            return;
        }
        self.warming_up.retain(|(_, other)| *other != server);
    }

    /// Whether a server may be started now, as far as the others that are starting up go.
    pub(super) fn has_room(&self, now: Time) -> bool {
        self.warming_up.len() - self.over(now) < self.limit
    }

    /// How many do not count any more.
    fn over(&self, now: Time) -> usize {
        self.warming_up.partition_point(|(until, _)| *until <= now)
    }

    /// Forgets servers that do not count any more, and sets a deadline for the time when one may be started again, if none
    /// may be now and one is wanted.
    pub(super) fn watch(&mut self, wanted: bool, timers: &mut Timers<Due>) {
        if self.warming_up.is_empty() && self.deadline.at().is_none() {
            return;
        }
        let now = timers.now();
        self.warming_up.drain(..self.over(now));
        let is_full = !self.has_room(now);
        let next = self.warming_up.front().map(|(until, _)| *until);
        let at = next.filter(|_| wanted && is_full);
        self.deadline.set(at, Due::Starting, timers);
    }

    /// When one may be started again, if someone waits for that.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline.at()
    }

    /// The deadline has come.
    pub(super) fn timer_fired(&mut self) {
        self.deadline.fired();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Time = Time::from_nanos(1 << 40);

    fn order(queue: &mut StartQueue) -> Vec<usize> {
        let tickets = std::iter::from_fn(|| queue.take_next());
        tickets.map(|ticket| ticket.session.0).collect()
    }

    #[test]
    fn who_speaks_comes_first_and_each_in_order_of_arrival() {
        let mut queue = StartQueue::new(1);
        for (session, speaks) in [(5, false), (3, true), (9, false), (1, true), (7, false)] {
            queue.ask(SessionKey(session), speaks);
        }
        for session in [9, 1, 100] {
            queue.speaks(SessionKey(session));
        }
        assert!(queue.has_silent() && !queue.is_empty());
        assert_eq!(order(&mut queue), [3, 9, 1, 5, 7]);
        assert!(queue.is_empty() && !queue.has_silent());
    }

    #[test]
    fn whoever_has_left_or_asks_again_has_one_place_at_most() {
        let mut queue = StartQueue::new(1);
        for session in 0..4 {
            queue.ask(SessionKey(session), session % 2 == 0);
        }
        queue.leave(SessionKey(0));
        queue.leave(SessionKey(1));
        queue.ask(SessionKey(2), false);
        assert_eq!(order(&mut queue), [3, 2]);
    }

    #[test]
    fn a_place_that_was_given_back_is_the_same() {
        let mut queue = StartQueue::new(1);
        queue.ask(SessionKey(1), true);
        queue.ask(SessionKey(2), true);
        let ticket = queue.take_next().unwrap();
        assert_eq!(ticket.session, SessionKey(1));
        queue.put_back(ticket);
        assert_eq!(order(&mut queue), [1, 2]);
    }

    #[test]
    fn a_server_makes_room_when_it_writes_or_ends_or_its_time_is_over() {
        let mut timers = Timers::new(BEGIN);
        let mut queue = StartQueue::new(2);
        let half = BEGIN + START_UP_TIME / 2;
        queue.started(ServerKey(1), BEGIN);
        assert!(queue.has_room(BEGIN));
        queue.started(ServerKey(2), half);
        assert!(!queue.has_room(half));
        timers.advance(half);
        queue.watch(false, &mut timers);
        assert_eq!(timers.len(), 0, "nobody waits");
        queue.watch(true, &mut timers);
        assert_eq!(timers.next(), Some(BEGIN + START_UP_TIME));
        queue.has_started_up(ServerKey(2));
        assert!(queue.has_room(half));
        queue.watch(true, &mut timers);
        assert_eq!(timers.len(), 0, "there is room");
        queue.started(ServerKey(3), half);
        assert!(!queue.has_room(half));
        assert!(queue.has_room(BEGIN + START_UP_TIME));
        timers.advance(half + START_UP_TIME);
        queue.watch(true, &mut timers);
        assert_eq!((queue.warming_up.len(), timers.len()), (0, 0));
    }

    /// Whoever waits may wait for something else: then nobody asks for room, and a deadline that has passed would keep the
    /// loop turning.
    #[test]
    fn no_deadline_is_set_for_a_time_that_is_over() {
        let mut timers = Timers::new(BEGIN);
        let mut queue = StartQueue::new(1);
        queue.ask(SessionKey(1), true);
        queue.started(ServerKey(1), BEGIN);
        queue.watch(true, &mut timers);
        timers.advance(BEGIN + START_UP_TIME);
        assert_eq!(timers.pop(), Some(Due::Starting));
        queue.timer_fired();
        queue.watch(true, &mut timers);
        assert_eq!(timers.next(), None);
    }
}
