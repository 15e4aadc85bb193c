//! Whose server is started next, and whether one may be started now. Nothing here starts anything.
//!
//! Sessions that have lost their server come before those that never had one: whoever is served is not to wait for
//! strangers. Of the others, those whose clients have something to say come before those of silent clients: whoever
//! connects without a word delays nobody. Within each of these three, the origins of the clients take turns (an IPv4 address,
//! an IPv6 network, a user; for each service apart), so that many connections of one do not keep the others waiting, and each
//! has its sessions in order of arrival.
//!
//! Servers that are still starting up are limited in number, because a herd of heavy runtimes thrashes a small machine,
//! and then none of them is ready soon.

mod state;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) use self::state::StartQueueState;
use super::Due;
use super::servers::ServerKey;
use crate::reactor::timers::{Deadline, Timers};
use crate::scheduler::SessionKey;
use crate::util::client_address::Origin;
use crate::util::service_key::ServiceKey;
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
    /// How many tickets there are for each service.
    counts: Vec<usize>,
    /// One for each [`Rank`].
    ranks: [Turns; 3],
    /// Until when each server counts as starting up, the one that was started first in front.
    warming_up: VecDeque<(Time, ServerKey)>,
    /// When the next of them does not count any more, if someone waits for that.
    deadline: Deadline,
}

/// An origin, as a client of one service.
type Client = (ServiceKey, Origin);

/// How urgent a session is; the first comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rank {
    /// It has lost its server.
    Recovering,
    /// Something waits for its first server.
    Speaking,
    /// Nothing does.
    Silent,
}

/// A session's place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub(super) session: SessionKey,
    /// Whose sessions take turns.
    client: Client,
    number: u64,
    rank: Rank,
    /// The turn of its origin, once it was taken.
    turn: u64,
}

/// Sessions of one rank, of which the origins take turns.
#[derive(Debug, Default)]
struct Turns {
    last_turn: u64,
    /// The origins by their turns.
    order: BTreeMap<u64, Client>,
    origins: HashMap<Client, Waiting>,
}

/// The sessions of one origin.
#[derive(Debug)]
struct Waiting {
    turn: u64,
    /// By the numbers of their tickets.
    sessions: BTreeMap<u64, SessionKey>,
}

impl Turns {
    /// An origin that comes new has its turn after those that wait.
    fn insert(&mut self, ticket: &Ticket) {
        let (last_turn, order) = (&mut self.last_turn, &mut self.order);
        let waiting = self.origins.entry(ticket.client).or_insert_with(|| {
            *last_turn += 1;
            order.insert(*last_turn, ticket.client);
            Waiting {
                turn: *last_turn,
                sessions: BTreeMap::new(),
            }
        });
        waiting.sessions.insert(ticket.number, ticket.session);
    }

    fn remove(&mut self, ticket: &Ticket) {
        if let Some(waiting) = self.origins.get_mut(&ticket.client) {
            waiting.sessions.remove(&ticket.number);
            if waiting.sessions.is_empty() {
                self.order.remove(&waiting.turn);
                self.origins.remove(&ticket.client);
            }
        }
    }

    /// Takes the first session of the origin whose turn it is, of those of services that `can_serve`; it has its next turn
    /// after the others. Returns the turn, too.
    fn take_next(&mut self, can_serve: impl Fn(ServiceKey) -> bool) -> Option<(SessionKey, u64)> {
        let mut order = self.order.iter();
        let (turn, client) = order.find(|(_, (service, _))| can_serve(*service))?;
        let (turn, client) = (*turn, *client);
        self.order.remove(&turn);
        let waiting = self.origins.get_mut(&client)?;
        let (_, session) = waiting.sessions.pop_first()?;
        if waiting.sessions.is_empty() {
            self.origins.remove(&client);
        } else {
            self.last_turn += 1;
            waiting.turn = self.last_turn;
            self.order.insert(waiting.turn, client);
        }
        Some((session, turn))
    }

    /// Undoes that: it is the turn of the origin again.
    fn put_back(&mut self, ticket: &Ticket) {
        self.insert(ticket);
        if let Some(waiting) = self.origins.get_mut(&ticket.client) {
            self.order.remove(&waiting.turn);
            waiting.turn = ticket.turn;
            self.order.insert(waiting.turn, ticket.client);
        }
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl StartQueue {
    /// From now on, so many.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// At most `limit` servers start up at the same time.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            last_number: 0,
            tickets: HashMap::new(),
            counts: Vec::new(),
            ranks: Default::default(),
            warming_up: VecDeque::new(),
            deadline: Deadline::default(),
        }
    }

    /// A session wants its server to be started.
    pub(super) fn ask(
        &mut self,
        session: SessionKey,
        service: ServiceKey,
        client: Origin,
        rank: Rank,
    ) {
        self.leave(session);
        self.last_number += 1;
        let ticket = Ticket {
            session,
            client: (service, client),
            number: self.last_number,
            rank,
            turn: 0,
        };
        self.ranks[rank as usize].insert(&ticket);
        self.insert(ticket);
    }

    fn insert(&mut self, ticket: Ticket) {
        let (service, _) = ticket.client;
        if self.counts.len() <= service.0 {
            self.counts.resize(service.0 + 1, 0);
        }
        self.counts[service.0] += 1;
        self.tickets.insert(ticket.session, ticket);
    }

    fn remove(&mut self, session: SessionKey) -> Option<Ticket> {
        let ticket = self.tickets.remove(&session)?;
        let (service, _) = ticket.client;
        self.counts[service.0] -= 1;
        Some(ticket)
    }

    /// How many sessions of this service wait.
    pub(super) fn waiting(&self, service: ServiceKey) -> usize {
        self.counts.get(service.0).copied().unwrap_or(0)
    }

    /// Whether a session of this service waits.
    pub(super) fn has_waiting(&self, service: ServiceKey) -> bool {
        self.waiting(service) > 0
    }

    /// Something waits for the server of a session that may be in the queue.
    #[inline(never)]
    pub(super) fn speaks(&mut self, session: SessionKey) {
        if let Some(ticket) = self.tickets.get_mut(&session)
            && ticket.rank == Rank::Silent
        {
            self.ranks[Rank::Silent as usize].remove(ticket);
            ticket.rank = Rank::Speaking;
            self.ranks[Rank::Speaking as usize].insert(ticket);
        }
    }

    /// A session is gone.
    pub(super) fn leave(&mut self, session: SessionKey) {
        if let Some(ticket) = self.remove(session) {
            self.ranks[ticket.rank as usize].remove(&ticket);
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
        !self.ranks[Rank::Silent as usize].is_empty()
    }

    /// Takes whoever is next of those of services that `can_serve`.
    pub(super) fn take_next(&mut self, can_serve: impl Fn(ServiceKey) -> bool) -> Option<Ticket> {
        let mut ranks = self.ranks.iter_mut();
        let (session, turn) = ranks.find_map(|rank| rank.take_next(&can_serve))?;
        let ticket = self.remove(session)?;
        Some(Ticket { turn, ..ticket })
    }

    /// Gives a place back.
    pub(super) fn put_back(&mut self, ticket: Ticket) {
        self.ranks[ticket.rank as usize].put_back(&ticket);
        self.insert(ticket);
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
    use std::net::SocketAddr;

    use super::*;
    use crate::util::client_address::ClientAddress;

    const BEGIN: Time = Time::from_nanos(1 << 40);

    fn order(queue: &mut StartQueue) -> Vec<usize> {
        let tickets = std::iter::from_fn(|| queue.take_next(|_| true));
        tickets.map(|ticket| ticket.session.0).collect()
    }

    fn ask(queue: &mut StartQueue, session: usize, speaks: bool) {
        let rank = if speaks { Rank::Speaking } else { Rank::Silent };
        ask_from(queue, session, "127.0.0.1", rank);
    }

    fn ask_from(queue: &mut StartQueue, session: usize, client: &str, rank: Rank) {
        let client = SocketAddr::new(client.parse().unwrap(), 1);
        let origin = ClientAddress::from(client).origin();
        queue.ask(SessionKey(session), ServiceKey::ONLY, origin, rank);
    }

    #[test]
    fn whoever_has_lost_a_server_comes_first() {
        let mut queue = StartQueue::new(1);
        ask(&mut queue, 1, true);
        ask(&mut queue, 2, false);
        ask_from(&mut queue, 3, "10.0.0.1", Rank::Recovering);
        queue.speaks(SessionKey(3));
        ask_from(&mut queue, 4, "10.0.0.1", Rank::Recovering);
        assert_eq!(order(&mut queue), [3, 4, 1, 2]);
    }

    #[test]
    fn addresses_take_turns() {
        let mut queue = StartQueue::new(1);
        for session in 0..5 {
            ask_from(&mut queue, session, "10.0.0.1", Rank::Speaking);
        }
        assert_eq!(queue.take_next(|_| true).unwrap().session, SessionKey(0));
        for (session, client) in [(10, "10.0.0.2"), (20, "10.0.0.3"), (11, "10.0.0.2")] {
            ask_from(&mut queue, session, client, Rank::Speaking);
        }
        assert_eq!(order(&mut queue), [1, 10, 20, 2, 11, 3, 4]);
    }

    /// New addresses come again and again: those that wait have their turns all the same.
    #[test]
    fn no_address_is_passed_over_by_ever_new_ones() {
        let mut queue = StartQueue::new(1);
        ask_from(&mut queue, 0, "10.0.0.1", Rank::Speaking);
        ask_from(&mut queue, 1, "10.0.0.1", Rank::Speaking);
        let mut turns = Vec::new();
        for new in 0..3 {
            ask_from(
                &mut queue,
                100 + new,
                &format!("10.0.1.{new}"),
                Rank::Speaking,
            );
            turns.push(queue.take_next(|_| true).unwrap().session.0);
        }
        assert_eq!(turns, [0, 100, 1]);
    }

    #[test]
    fn all_addresses_of_a_host_are_one() {
        let mut queue = StartQueue::new(1);
        let clients = [
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::3",
            "2001:db8:0:1::1",
        ];
        for (session, client) in clients.iter().enumerate() {
            ask_from(&mut queue, session, client, Rank::Speaking);
        }
        ask_from(&mut queue, 10, "::ffff:10.0.0.1", Rank::Speaking);
        ask_from(&mut queue, 11, "10.0.0.1", Rank::Speaking);
        assert_eq!(order(&mut queue), [0, 3, 10, 1, 11, 2]);
    }

    #[test]
    fn who_speaks_comes_first_and_each_in_order_of_arrival() {
        let mut queue = StartQueue::new(1);
        for (session, speaks) in [(5, false), (3, true), (9, false), (1, true), (7, false)] {
            ask(&mut queue, session, speaks);
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
            ask(&mut queue, session, session % 2 == 0);
        }
        queue.leave(SessionKey(0));
        queue.leave(SessionKey(1));
        ask(&mut queue, 2, false);
        assert_eq!(order(&mut queue), [3, 2]);
    }

    #[test]
    fn a_place_that_was_given_back_is_the_same() {
        let mut queue = StartQueue::new(1);
        ask(&mut queue, 1, true);
        ask(&mut queue, 2, true);
        let ticket = queue.take_next(|_| true).unwrap();
        assert_eq!(ticket.session, SessionKey(1));
        queue.put_back(ticket);
        ask_from(&mut queue, 3, "10.0.0.3", Rank::Speaking);
        let ticket = queue.take_next(|_| true).unwrap();
        queue.put_back(ticket);
        assert_eq!(order(&mut queue), [1, 3, 2]);
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
        ask(&mut queue, 1, true);
        queue.started(ServerKey(1), BEGIN);
        queue.watch(true, &mut timers);
        timers.advance(BEGIN + START_UP_TIME);
        assert_eq!(timers.pop(), Some(Due::Starting));
        queue.timer_fired();
        queue.watch(true, &mut timers);
        assert_eq!(timers.next(), None);
    }
}
