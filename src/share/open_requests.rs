//! The requests of a seat that were not answered. Most seats have one or two, and there are thousands of seats; but some have
//! a thousand, and each of these is found in a time that does not grow with their number.

use std::collections::VecDeque;
use std::ops::{Index as At, IndexMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::seat::{Open, State};
use crate::protocol::id::RequestId;
use crate::util::keyed_queue::Index;

/// Up to so many have room made for them one by one.
const FEW: usize = 4;

/// Up to so many are searched one by one.
const MANY: usize = 24;

/// Requests, in the order in which they arrived, which is that of their numbers.
#[derive(Debug, Default)]
pub(super) struct OpenRequests {
    all: VecDeque<Open>,
    /// By their ids, while there are many.
    index: Option<Box<Index>>,
    /// What their ids hold.
    id_bytes: usize,
}

impl OpenRequests {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Open> {
        self.all.iter()
    }

    /// What their ids hold besides the size of each, in bytes.
    pub(super) fn id_bytes(&self) -> usize {
        self.id_bytes
    }

    /// Takes one in. Its number is greater than those of the others.
    pub(super) fn push(&mut self, open: Open) {
        debug_assert!(self.all.back().is_none_or(|last| last.number < open.number));
        if self.len() < FEW {
            self.all.reserve_exact(1);
        }
        self.id_bytes += open.id.heap_bytes();
        if let Some(index) = &mut self.index {
            index.insert(&open.id, open.number);
        }
        self.all.push_back(open);
        if self.index.is_none() && self.len() > MANY {
            let mut index = Box::<Index>::default();
            for open in &self.all {
                index.insert(&open.id, open.number);
            }
            self.index = Some(index);
        }
    }

    /// Takes the one at this place out.
    #[expect(
        clippy::expect_used,
        reason = "to name a place where none is panics like an index out of bounds"
    )]
    pub(super) fn remove(&mut self, at: usize) -> Open {
        let open = self.all.remove(at).expect("there is one at this place");
        self.id_bytes -= open.id.heap_bytes();
        if let Some(index) = &mut self.index {
            index.remove(&open.id, open.number);
        }
        if self.len() <= MANY / 2 {
            self.index = None;
        }
        if self.is_empty() {
            self.all = VecDeque::new();
        }
        open
    }

    /// Where the request of this id is that the client still waits for.
    pub(super) fn wanted(&self, id: &RequestId) -> Option<usize> {
        let is_it = |open: &Open| open.state != State::Cancelled && open.id == *id;
        match &self.index {
            None => self.all.iter().position(is_it),
            Some(index) => {
                let places = index.numbers_of(id).filter_map(|it| self.numbered(it));
                places.into_iter().find(|at| is_it(&self.all[*at]))
            }
        }
    }

    /// Where the request of this number is.
    pub(super) fn numbered(&self, number: u64) -> Option<usize> {
        self.all
            .binary_search_by_key(&number, |open| open.number)
            .ok()
    }
}

/// As the requests themselves: the rest follows from them.
impl Serialize for OpenRequests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.all.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OpenRequests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut requests = Self::default();
        for open in Vec::<Open>::deserialize(deserializer)? {
            requests.push(open);
        }
        Ok(requests)
    }
}

impl At<usize> for OpenRequests {
    type Output = Open;

    fn index(&self, at: usize) -> &Open {
        &self.all[at]
    }
}

impl IndexMut<usize> for OpenRequests {
    fn index_mut(&mut self, at: usize) -> &mut Open {
        &mut self.all[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::IdText;

    fn id(text: &str) -> RequestId {
        RequestId::new(IdText::new(text.as_bytes()))
    }

    #[test]
    fn each_is_found_by_id_and_number_however_many_there_are() {
        for count in [1, MANY as u64, 100] {
            let mut requests = OpenRequests::default();
            for number in 0..count {
                let text = format!("\"{number}{}\"", "x".repeat(100));
                requests.push(Open::new(id(&text), 3 * number, State::Waiting));
            }
            let mut left: Vec<u64> = (0..count).collect();
            while !left.is_empty() {
                for number in 0..count {
                    let at = left.iter().position(|it| *it == number);
                    let text = format!("\"{number}{}\"", "x".repeat(100));
                    assert_eq!(requests.wanted(&id(&text)), at);
                    assert_eq!(requests.numbered(3 * number), at);
                    assert_eq!(requests.numbered(3 * number + 1), None);
                }
                let at = left.len() * 2 / 3;
                assert_eq!(requests.remove(at).number, 3 * left.remove(at));
            }
            assert!(requests.is_empty() && requests.index.is_none());
            assert_eq!(requests.id_bytes(), 0);
        }
    }

    #[test]
    fn what_was_taken_back_is_not_wanted_and_its_id_may_be_used_again() {
        let mut requests = OpenRequests::default();
        for number in 0..50 {
            requests.push(Open::new(id(&number.to_string()), number, State::Sent));
        }
        requests[7].state = State::Cancelled;
        assert_eq!(requests.wanted(&id("7")), None);
        requests.push(Open::new(id("7"), 50, State::Sent));
        assert_eq!(requests.wanted(&id("7")), Some(50));
    }
}
