//! What `connect` knows of its session at the proxy, besides what it has itself: under which id it is found there, and how
//! it is asked for.

use std::collections::VecDeque;
use std::time::Duration;

use super::server::{CONTENTION_TIME, MOST_TAKEOVERS};
use super::wire::{Ask, Grant, Previous, SessionId};
use crate::util::time::Time;

/// The proxy may see attempts closer together than they were made, so they are further apart than it asks for: by more than
/// any of them is likely to be late.
const SPREAD_TIME: Duration = CONTENTION_TIME.saturating_mul(2);

/// Why no attempt is made to resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// It was never granted.
    NotGranted,
    /// The time is over.
    TooLate,
}

/// The client's view of the session.
#[derive(Debug)]
pub struct Client {
    /// Under which the proxy knows the session.
    id: SessionId,
    /// The id of the connection that is being tried.
    fresh: Option<SessionId>,
    granted: Option<Grant>,
    attempt: u64,
    heartbeat: Duration,
    /// When attempts were made over which nothing was moved, if that was not long ago.
    fruitless: VecDeque<Time>,
    /// How many lines either side had taken at the last attempt.
    moved: (u64, u64),
    /// When something last came from the proxy, by a clock that goes on while the machine sleeps.
    last_byte: Time,
}

impl Client {
    /// A session begins, under this id.
    pub fn new(id: SessionId, heartbeat: Duration, now: Time) -> Self {
        Self {
            id,
            fresh: None,
            granted: None,
            attempt: 0,
            heartbeat,
            fruitless: VecDeque::new(),
            moved: (0, 0),
            last_byte: now,
        }
    }

    /// What is asked for in the first line of the first connection.
    pub fn ask(&self) -> Ask {
        Ask {
            session: self.id,
            heartbeat: self.heartbeat,
            previous: None,
        }
    }

    /// What is asked for in the first line of another one. `taken` lines were taken of the proxy, and as far as is `known`
    /// so many by it.
    pub fn ask_again(&mut self, fresh: SessionId, taken: u64, known: u64, now: Time) -> Ask {
        if self.moved != (taken, known) {
            self.moved = (taken, known);
            self.fruitless.clear();
        }
        self.fruitless.push_back(now);
        if self.fruitless.len() > MOST_TAKEOVERS {
            self.fruitless.pop_front();
        }
        self.attempt += 1;
        self.fresh = Some(fresh);
        Ask {
            session: fresh,
            heartbeat: self.heartbeat,
            previous: Some(Previous {
                session: self.id,
                attempt: self.attempt,
                lines: Some(taken),
            }),
        }
    }

    /// The proxy ends a session for which two seem to fight. An attempt that would look like that is not made before this.
    pub fn not_before(&self, taken: u64, known: u64) -> Option<Time> {
        let is_fruitless = self.moved == (taken, known) && self.fruitless.len() >= MOST_TAKEOVERS;
        let first = self.fruitless.front().filter(|_| is_fruitless);
        first.map(|at| *at + SPREAD_TIME)
    }

    /// The proxy grants it.
    pub fn granted(&mut self, grant: Grant) {
        self.granted = Some(grant);
    }

    /// Whether it was granted.
    pub fn is_granted(&self) -> bool {
        self.granted.is_some()
    }

    /// The session is gone; there is a new one, under the id of the connection.
    pub fn not_resumed(&mut self) {
        if let Some(fresh) = self.fresh.take() {
            self.id = fresh;
        }
        (self.granted, self.attempt) = (None, 0);
        (self.fruitless, self.moved) = (VecDeque::new(), (0, 0));
    }

    /// Something came from the proxy, at this time by a clock that goes on while the machine sleeps.
    pub fn heard(&mut self, now: Time) {
        self.last_byte = now;
    }

    /// How long the session can still be asked for.
    pub fn time_left(&self, now: Time) -> Result<Duration, GivenUp> {
        let grant = self.granted.ok_or(GivenUp::NotGranted)?;
        let left = grant
            .timeout
            .saturating_sub(now.saturating_since(self.last_byte));
        if left.is_zero() {
            Err(GivenUp::TooLate)
        } else {
            Ok(left)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);

    #[test]
    fn each_attempt_has_an_id_and_a_number_of_its_own_and_asks_for_the_session() {
        let [first, second, third] = [1, 2, 3].map(|byte| SessionId::new([byte; 16]));
        let mut client = Client::new(first, Duration::from_secs(30), NOW);
        assert_eq!((client.ask().session, client.ask().previous), (first, None));
        for (fresh, attempt) in [(second, 1), (third, 2)] {
            let ask = client.ask_again(fresh, 7, 0, NOW);
            assert_eq!(ask.session, fresh);
            let previous = ask.previous.unwrap();
            assert_eq!((previous.session, previous.attempt), (first, attempt));
            assert_eq!(previous.lines, Some(7));
        }
        client.not_resumed();
        let ask = client.ask_again(second, 0, 0, NOW);
        let previous = ask.previous.unwrap();
        assert_eq!((previous.session, previous.attempt), (third, 1));
    }

    #[test]
    fn a_session_is_asked_for_as_long_as_it_is_kept() {
        let mut client = Client::new(SessionId::new([1; 16]), Duration::from_secs(30), NOW);
        assert_eq!(client.time_left(NOW), Err(GivenUp::NotGranted));
        client.granted(Grant {
            timeout: Duration::from_secs(10),
            window: 1,
        });
        let at = |seconds| NOW + Duration::from_secs(seconds);
        client.heard(at(5));
        assert_eq!(client.time_left(at(7)), Ok(Duration::from_secs(8)));
        assert_eq!(client.time_left(at(15)), Err(GivenUp::TooLate));
    }

    #[test]
    fn attempts_that_move_nothing_are_not_made_so_often_that_two_clients_seem_to_fight() {
        let mut client = Client::new(SessionId::new([1; 16]), Duration::from_secs(30), NOW);
        let fresh = SessionId::new([2; 16]);
        let at = |seconds| NOW + Duration::from_secs(seconds);
        for second in 0..MOST_TAKEOVERS as u64 {
            assert_eq!(client.not_before(7, 3), None);
            client.ask_again(fresh, 7, 3, at(second));
        }
        assert_eq!(client.not_before(7, 3), Some(NOW + SPREAD_TIME));
        client.ask_again(fresh, 7, 3, at(20));
        assert_eq!(client.not_before(7, 3), Some(at(1) + SPREAD_TIME));
        assert_eq!(client.not_before(7, 4), None, "something was moved");
        client.ask_again(fresh, 8, 3, at(20));
        assert_eq!(client.not_before(8, 3), None);
    }
}
