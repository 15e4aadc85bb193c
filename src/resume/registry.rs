//! Finds sessions by what is left of their ids: a hash, from which nobody can tell the id. And remembers those that have
//! ended, so that whoever comes back learns what was taken.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::wire::SessionId;
use crate::util::time::Time;

/// Sessions that have ended are remembered this long: longer than any client tries.
const MEMORY: Duration = Duration::from_mins(10);

/// And at most so many of them.
const MOST_REMEMBERED: usize = 10_000;

/// The first half of the SHA-256 of an id. 128 bits are as many as the id has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u128", into = "u128")]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// Of this id.
    pub fn of(id: &SessionId) -> Self {
        let hash = Sha256::digest(id.bytes());
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        Self(half)
    }
}

impl From<u128> for Fingerprint {
    fn from(number: u128) -> Self {
        Self(number.to_be_bytes())
    }
}

impl From<Fingerprint> for u128 {
    fn from(id: Fingerprint) -> Self {
        Self::from_be_bytes(id.0)
    }
}

/// What a session is found by: half of its fingerprint, which saves memory. Whoever finds one has to compare the rest.
type Half = [u8; 8];

impl Fingerprint {
    fn half(self) -> Half {
        std::array::from_fn(|byte| self.0[byte])
    }
}

/// What is known of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The session of this number may be the one: if it is there, only that can be.
    Session(usize),
    /// It has ended.
    Ended(Ended),
}

/// What is remembered of a session that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How many lines it had taken.
    pub lines: u64,
    /// Whether more had come for its client, while that was away, than is kept.
    pub has_overflowed: bool,
}

/// Sessions that can be resumed. Each has a number.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: HashMap<Half, u32>,
    ended: HashMap<Fingerprint, (Ended, Time)>,
    /// In the order of their ends.
    order: VecDeque<Fingerprint>,
}

impl Registry {
    /// What is known of this session.
    pub fn find(&mut self, id: Fingerprint, now: Time) -> Option<Found> {
        self.forget_old(now);
        if let Some((end, _)) = self.ended.get(&id) {
            return Some(Found::Ended(*end));
        }
        let session = self.sessions.get(&id.half())?;
        Some(Found::Session(*session as usize))
    }

    /// A session begins. Returns whether it can be found: one of two with an id, or with half of it, could not.
    pub fn begin(&mut self, id: Fingerprint, session: usize) -> bool {
        let is_new = !self.sessions.contains_key(&id.half()) && !self.ended.contains_key(&id);
        let number = u32::try_from(session).ok().filter(|_| is_new);
        if let Some(number) = number {
            self.sessions.insert(id.half(), number);
        }
        number.is_some()
    }

    /// A session that could be found has ended.
    pub fn end(&mut self, id: Fingerprint, end: Ended, now: Time) {
        if self.sessions.remove(&id.half()).is_none() {
            return;
        }
        self.forget_old(now);
        if self.order.len() >= MOST_REMEMBERED {
            self.forget_oldest();
        }
        self.ended.insert(id, (end, now));
        self.order.push_back(id);
    }

    /// Those that have ended and are remembered, in the order of their ends.
    pub fn ended(&self) -> impl Iterator<Item = (Fingerprint, Ended, Time)> {
        self.order.iter().filter_map(|id| {
            let (end, at) = self.ended.get(id)?;
            Some((*id, *end, *at))
        })
    }

    /// Remembers those that had ended when there were none here.
    pub fn remember(&mut self, ended: impl IntoIterator<Item = (Fingerprint, Ended, Time)>) {
        for (id, end, at) in ended {
            self.ended.insert(id, (end, at));
            self.order.push_back(id);
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn forget_old(&mut self, now: Time) {
        while let Some(oldest) = self.order.front()
            && self
                .ended
                .get(oldest)
                .is_none_or(|(_, at)| *at + MEMORY <= now)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.ended.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);

    fn ended(lines: u64) -> Ended {
        Ended {
            lines,
            has_overflowed: false,
        }
    }

    fn id(number: usize) -> Fingerprint {
        let mut bits = [0; 16];
        bits[..8].copy_from_slice(&number.to_le_bytes());
        Fingerprint::of(&SessionId::new(bits))
    }

    #[test]
    fn a_session_is_found_while_it_is_there_and_remembered_for_a_while() {
        let mut registry = Registry::default();
        assert!(registry.begin(id(1), 7) && !registry.begin(id(1), 8));
        assert_eq!(registry.find(id(1), NOW), Some(Found::Session(7)));
        assert_eq!(registry.find(id(2), NOW), None);
        registry.end(id(1), ended(5), NOW);
        registry.end(id(1), ended(6), NOW);
        assert!(registry.is_empty() && !registry.begin(id(1), 9));
        let later = NOW + MEMORY - Duration::from_nanos(1);
        assert_eq!(registry.find(id(1), later), Some(Found::Ended(ended(5))));
        assert_eq!(registry.find(id(1), NOW + MEMORY), None);
        assert!(registry.order.is_empty() && registry.ended.is_empty());
    }

    /// That is more than chance, and one of them can't be kept.
    #[test]
    fn of_two_sessions_with_half_a_fingerprint_in_common_one_can_be_found() {
        let mut registry = Registry::default();
        let [mut first, mut second] = [id(1), id(1)];
        (first.0[15], second.0[15]) = (1, 2);
        assert!(registry.begin(first, 7) && !registry.begin(second, 8));
        assert_eq!(registry.find(first, NOW), Some(Found::Session(7)));
        registry.end(first, ended(5), NOW);
        assert_eq!(registry.find(first, NOW), Some(Found::Ended(ended(5))));
        assert_eq!(registry.find(second, NOW), None);
        assert!(registry.begin(second, 8) && registry.len() == 1);
    }

    #[test]
    fn the_ends_that_are_remembered_are_not_too_many() {
        let mut registry = Registry::default();
        for number in 0..=MOST_REMEMBERED {
            registry.begin(id(number), number);
            registry.end(id(number), ended(1), NOW);
        }
        assert_eq!(registry.ended.len(), MOST_REMEMBERED);
        assert_eq!(registry.find(id(0), NOW), None);
        assert_eq!(registry.find(id(1), NOW), Some(Found::Ended(ended(1))));
    }
}
