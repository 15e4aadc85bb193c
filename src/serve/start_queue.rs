//! Whose server is started next, and whether one may be started now. Nothing here starts anything.
//!
//! Sessions whose clients have something to say come before those of silent clients, each in order of arrival: whoever
//! connects without a word delays nobody. Servers that are still starting up are limited in number, because a herd of
//! heavy runtimes thrashes a small machine, and then none of them is ready soon.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Due;
use crate::reactor::timers::{Deadline, Timers};
use crate::util::time::Time;

/// A server counts as starting up until it writes something, but no longer than this: most MCP servers write nothing
/// before they are spoken to.
const START_UP_TIME: Duration = Duration::from_secs(1);

/// The sessions that wait for their servers to be started, and the servers that are starting up.
#[derive(Debug)]
pub(super) struct Starting {
    limit: usize,
    last_number: u64,
    /// By slot.
    tickets: HashMap<usize, Ticket>,
    /// Slots by the numbers of their tickets, of sessions whose clients have something to say and of the others.
    speaking: BTreeMap<u64, usize>,
    silent: BTreeMap<u64, usize>,
    /// Until when each server counts as starting up, by the numbers of their processes. Both ascend.
    warming_up: BTreeMap<usize, Time>,
    /// The deadline that is set for the next of them.
    deadline: Deadline,
}

/// A session's place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Where the session is kept.
    pub(super) slot: usize,
    number: u64,
    speaks: bool,
}

impl Starting {
    /// At most `limit` servers start up at the same time.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            last_number: 0,
            tickets: HashMap::new(),
            speaking: BTreeMap::new(),
            silent: BTreeMap::new(),
            warming_up: BTreeMap::new(),
            deadline: Deadline::default(),
        }
    }

    /// A session wants its server to be started. `speaks` tells whether something waits for that server.
    pub(super) fn ask(&mut self, slot: usize, speaks: bool) {
        self.leave(slot);
        self.last_number += 1;
        self.put_back(Ticket {
            slot,
            number: self.last_number,
            speaks,
        });
    }

    /// Something waits for the server of a session that may be in the queue.
    pub(super) fn speaks(&mut self, slot: usize) {
        if let Some(ticket) = self.tickets.get(&slot).copied().filter(|it| !it.speaks) {
            self.leave(slot);
            self.put_back(Ticket {
                speaks: true,
                ..ticket
            });
        }
    }

    /// A session is gone.
    pub(super) fn leave(&mut self, slot: usize) {
        if let Some(ticket) = self.tickets.remove(&slot) {
            self.queue(ticket.speaks).remove(&ticket.number);
        }
    }

    /// Whether no session waits.
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Whether a session waits for whose server nothing was known to wait.
    pub(super) fn has_silent(&self) -> bool {
        !self.silent.is_empty()
    }

    /// Takes whoever is next.
    pub(super) fn take_next(&mut self) -> Option<Ticket> {
        let (_, slot) = self
            .speaking
            .pop_first()
            .or_else(|| self.silent.pop_first())?;
        self.tickets.remove(&slot)
    }

    /// Gives a place back.
    pub(super) fn put_back(&mut self, ticket: Ticket) {
        self.queue(ticket.speaks).insert(ticket.number, ticket.slot);
        self.tickets.insert(ticket.slot, ticket);
    }

    fn queue(&mut self, speaking: bool) -> &mut BTreeMap<u64, usize> {
        if speaking {
            &mut self.speaking
        } else {
            &mut self.silent
        }
    }

    /// A server was started, as a process of this number.
    pub(super) fn started(&mut self, process: usize, now: Time) {
        self.warming_up.insert(process, now + START_UP_TIME);
    }

    /// Whether no server is known to be starting up.
    pub(super) fn none_starts_up(&self) -> bool {
        self.warming_up.is_empty()
    }

    /// A server has written something, or has ended.
    pub(super) fn has_started_up(&mut self, process: usize) {
        self.warming_up.remove(&process);
    }

    /// Whether a server may be started now, as far as the others that are starting up go.
    pub(super) fn has_room(&mut self, now: Time) -> bool {
        self.let_go(now);
        self.warming_up.len() < self.limit
    }

    /// Does not count servers any more whose time is over.
    pub(super) fn let_go(&mut self, now: Time) {
        while let Some(first) = self.warming_up.first_entry()
            && *first.get() <= now
        {
            first.remove();
        }
    }

    /// Sets a deadline for the time when a server may be started again, if none may be now and one is wanted.
    pub(super) fn watch(&mut self, wanted: bool, now: Time, timers: &mut Timers<Due>) {
        let is_full = !self.has_room(now);
        let next = self.warming_up.values().next().copied();
        let at = next.filter(|_| wanted && is_full);
        self.deadline.set(at, Due::Starting, timers);
    }

    /// The deadline has come.
    pub(super) fn timer_fired(&mut self) {
        self.deadline.fired();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(starting: &mut Starting) -> Vec<usize> {
        let slots = std::iter::from_fn(|| starting.take_next().map(|ticket| ticket.slot));
        slots.collect()
    }

    #[test]
    fn who_speaks_comes_first_and_each_in_order_of_arrival() {
        let mut starting = Starting::new(1);
        for (slot, speaks) in [(5, false), (3, true), (9, false), (1, true), (7, false)] {
            starting.ask(slot, speaks);
        }
        starting.speaks(9);
        starting.speaks(1);
        starting.speaks(100);
        assert!(starting.has_silent());
        assert_eq!(order(&mut starting), [3, 9, 1, 5, 7]);
        assert!(starting.is_empty() && !starting.has_silent());
    }

    #[test]
    fn whoever_has_left_or_asks_again_has_one_place_at_most() {
        let mut starting = Starting::new(1);
        for slot in 0..4 {
            starting.ask(slot, slot % 2 == 0);
        }
        starting.leave(0);
        starting.leave(1);
        starting.ask(2, false);
        assert_eq!(order(&mut starting), [3, 2]);
    }

    #[test]
    fn a_place_that_was_given_back_is_the_same() {
        let mut starting = Starting::new(1);
        starting.ask(1, true);
        starting.ask(2, true);
        let ticket = starting.take_next().unwrap();
        assert_eq!(ticket.slot, 1);
        starting.put_back(ticket);
        assert_eq!(order(&mut starting), [1, 2]);
    }

    #[test]
    fn a_server_makes_room_when_it_writes_or_ends_or_its_time_is_over() {
        let begin = Time::from_nanos(1 << 40);
        let mut timers = Timers::new(begin);
        let mut starting = Starting::new(2);
        starting.started(1, begin);
        assert!(starting.has_room(begin));
        starting.started(2, begin + START_UP_TIME / 2);
        assert!(!starting.has_room(begin + START_UP_TIME / 2));
        starting.watch(false, begin + START_UP_TIME / 2, &mut timers);
        assert_eq!(timers.len(), 0, "nobody waits");
        starting.watch(true, begin + START_UP_TIME / 2, &mut timers);
        assert_eq!(timers.next(), Some(begin + START_UP_TIME));
        starting.has_started_up(2);
        assert!(starting.has_room(begin + START_UP_TIME / 2));
        starting.watch(true, begin + START_UP_TIME / 2, &mut timers);
        assert_eq!(timers.len(), 0, "there is room");
        starting.started(3, begin + START_UP_TIME / 2);
        assert!(starting.has_room(begin + START_UP_TIME));
        starting.let_go(begin + 2 * START_UP_TIME);
        assert!(starting.none_starts_up());
    }

    /// Whoever waits may wait for something else: then nobody asks for room, and a deadline that has passed would keep the
    /// loop turning.
    #[test]
    fn no_deadline_is_set_for_a_time_that_is_over() {
        let begin = Time::from_nanos(1 << 40);
        let mut timers = Timers::new(begin);
        let mut starting = Starting::new(1);
        starting.ask(1, true);
        starting.started(1, begin);
        starting.watch(true, begin, &mut timers);
        timers.advance(begin + START_UP_TIME);
        assert_eq!(timers.pop(), Some(Due::Starting));
        starting.timer_fired();
        starting.watch(true, begin + START_UP_TIME, &mut timers);
        assert_eq!(timers.next(), None);
    }
}
