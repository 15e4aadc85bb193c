//! What `connect` knows of its session at the proxy, besides what it has itself: under which id it is found there, and how
//! it is asked for.

use std::time::Duration;

use super::wire::{Ask, Grant, Previous, SessionId};
use crate::util::time::Time;

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

    /// What is asked for in the first line of another one. `taken` lines were taken of the proxy.
    pub fn ask_again(&mut self, fresh: SessionId, taken: u64) -> Ask {
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
            let ask = client.ask_again(fresh, 7);
            assert_eq!(ask.session, fresh);
            let previous = ask.previous.unwrap();
            assert_eq!((previous.session, previous.attempt), (first, attempt));
            assert_eq!(previous.lines, Some(7));
        }
        client.not_resumed();
        let ask = client.ask_again(second, 0);
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
}
