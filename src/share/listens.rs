//! Subscriptions at one process. Requests to listen to the same share one there, whoever they are from.

mod state;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::SeatKey;
use crate::util::side_bytes;

/// Listens that a process may have: those of the SDKs take 1,024, and each of the clients' may have an end and a successor.
pub(super) const MAX_LISTENS: usize = 512;

/// The longest acknowledgment that is kept for those who come later, in bytes. What is longer is not shared.
const MAX_RECORD_BYTES: usize = 64 * 1024;

/// The listens of a process, by the numbers of the requests that opened them.
#[derive(Debug, Default)]
pub(super) struct Listens {
    all: BTreeMap<u64, Listen>,
    /// Those that others may join.
    by_content: HashMap<Box<[u8]>, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listen {
    #[serde(with = "side_bytes")]
    content: Box<[u8]>,
    /// Whoever listens, by the numbers of their requests.
    pub(super) members: BTreeMap<u64, SeatKey>,
    acknowledgment: Option<Acknowledgment>,
}

/// The line with which the process has agreed to a listen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Acknowledgment {
    #[serde(with = "side_bytes")]
    pub(super) line: Box<[u8]>,
    /// Where the number is.
    pub(super) at: Range<usize>,
}

impl Listens {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The numbers of all.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.all.keys().copied().collect()
    }

    /// The listen of this content that others may join.
    pub(super) fn find(&self, content: &[u8]) -> Option<u64> {
        self.by_content.get(content).copied()
    }

    /// The request of this number opens a listen for this seat.
    pub(super) fn open(&mut self, number: u64, content: Box<[u8]>, seat: SeatKey) {
        self.by_content.insert(content.clone(), number);
        let listen = Listen {
            content,
            members: BTreeMap::from([(number, seat)]),
            acknowledgment: None,
        };
        self.all.insert(number, listen);
    }

    /// The request `member` shares a listen. Returns what the process had answered, if it has.
    pub(super) fn join(
        &mut self,
        listen: u64,
        member: u64,
        seat: SeatKey,
    ) -> Option<Acknowledgment> {
        let listen = self.all.get_mut(&listen)?;
        listen.members.insert(member, seat);
        listen.acknowledgment.clone()
    }

    /// The process has agreed to a listen.
    pub(super) fn acknowledge(&mut self, listen: u64, line: &[u8], at: Range<usize>) {
        let Some(found) = self.all.get_mut(&listen) else {
            return;
        };
        if line.len() <= MAX_RECORD_BYTES {
            let line = line.into();
            found.acknowledgment = Some(Acknowledgment { line, at });
        } else {
            self.by_content.remove(&found.content);
        }
    }

    /// Who takes part in a listen, with the numbers of their requests.
    pub(super) fn members(&self, listen: u64) -> Vec<(u64, SeatKey)> {
        let members = self.all.get(&listen).map(|listen| &listen.members);
        let pairs = members.into_iter().flatten();
        pairs.map(|(number, seat)| (*number, *seat)).collect()
    }

    /// The request `member` shares a listen no more. Returns whether it was the last.
    pub(super) fn part(&mut self, listen: u64, member: u64) -> bool {
        let Some(found) = self.all.get_mut(&listen) else {
            return false;
        };
        found.members.remove(&member);
        let is_last = found.members.is_empty();
        if is_last {
            self.end(listen);
        }
        is_last
    }

    /// A listen is over. Returns who took part.
    pub(super) fn end(&mut self, listen: u64) -> Vec<(u64, SeatKey)> {
        let members = self.members(listen);
        if let Some(ended) = self.all.remove(&listen)
            && self.by_content.get(&ended.content) == Some(&listen)
        {
            self.by_content.remove(&ended.content);
        }
        members
    }

    /// All are over. Returns who took part.
    pub(super) fn end_all(&mut self) -> Vec<(u64, SeatKey)> {
        self.by_content.clear();
        let all = std::mem::take(&mut self.all).into_values();
        all.flat_map(|listen| listen.members).collect()
    }
}
