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

/// What is known of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<K> {
    /// The session is there.
    Session(K),
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

/// Sessions that can be resumed. `K` names one.
#[derive(Debug)]
pub struct Registry<K> {
    sessions: HashMap<Fingerprint, K>,
    ended: HashMap<Fingerprint, (Ended, Time)>,
    /// In the order of their ends.
    order: VecDeque<Fingerprint>,
}

impl<K> Default for Registry<K> {
    fn default() -> Self {
        Self {
            sessions: HashMap::new(),
            ended: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<K: Copy> Registry<K> {
    /// What is known of this session.
    pub fn find(&mut self, id: Fingerprint, now: Time) -> Option<Found<K>> {
        self.forget_old(now);
        let session = self.sessions.get(&id).copied().map(Found::Session);
        session.or_else(|| self.ended.get(&id).map(|(end, _)| Found::Ended(*end)))
    }

    /// A session begins. Returns whether there was none of this id: one of two would not be found.
    pub fn begin(&mut self, id: Fingerprint, session: K) -> bool {
        if self.sessions.contains_key(&id) || self.ended.contains_key(&id) {
            return false;
        }
        self.sessions.insert(id, session);
        true
    }

    /// A session has ended.
    pub fn end(&mut self, id: Fingerprint, end: Ended, now: Time) {
        if self.sessions.remove(&id).is_none() {
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
