//! The requests of one session that wait for their responses, by their ids: whole numbers, each used once.

use std::collections::{BTreeSet, VecDeque};

use crate::util::time::Time;

/// A request that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// When it was to be sent: its latency counts from here.
    pub(super) due: Time,
    /// Whether it is a part of the measurement, and not of the warm-up.
    pub(super) is_measured: bool,
    /// Its length, in bytes, with its line end.
    pub(super) bytes: usize,
}

/// What a response belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// This request, which waits no longer.
    Asked(Asked),
    /// A request that was answered before.
    Twice,
    /// A request that was given up.
    Late,
    /// No request.
    Unknown,
}

/// The requests of a session.
#[derive(Debug, Default)]
pub(super) struct OpenRequests {
    /// The id of the first slot. All before it are settled.
    first: u64,
    slots: VecDeque<Option<Asked>>,
    open: usize,
    given_up: BTreeSet<u64>,
}

impl OpenRequests {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.open
    }

    /// The id of the next request.
    pub(super) fn next_id(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The request with [`Self::next_id`] is sent.
    pub(super) fn push(&mut self, asked: Asked) {
        self.slots.push_back(Some(asked));
        self.open += 1;
    }

    /// A response with this id has come.
    pub(super) fn settle(&mut self, id: i64) -> Settled {
        let Ok(id) = u64::try_from(id) else {
            return Settled::Unknown;
        };
        if id >= self.next_id() {
            return Settled::Unknown;
        }
        let slot = id.checked_sub(self.first);
        let slot = slot.and_then(|slot| self.slots.get_mut(slot as usize));
        match slot.and_then(Option::take) {
            Some(asked) => {
                self.open -= 1;
                self.drop_settled();
                Settled::Asked(asked)
            }
            None if self.given_up.remove(&id) => Settled::Late,
            None => Settled::Twice,
        }
    }

    /// Gives up the oldest request that waits, if it was due at `time` or before.
    pub(super) fn give_up(&mut self, time: Time) -> Option<Asked> {
        let asked = (*self.slots.front()?).filter(|asked| asked.due <= time)?;
        self.given_up.insert(self.first);
        self.slots.pop_front();
        self.first += 1;
        self.open -= 1;
        self.drop_settled();
        Some(asked)
    }

    /// All that wait; the session is gone.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Asked> {
        self.open = 0;
        self.first = self.next_id();
        std::mem::take(&mut self.slots).into_iter().flatten()
    }

    fn drop_settled(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(due: u64) -> Asked {
        Asked {
            due: Time::from_nanos(due),
            is_measured: true,
            bytes: 1,
        }
    }

    /// Requests 0, 1, 2, … that are due at these times.
    fn requests(due: &[u64]) -> OpenRequests {
        let mut requests = OpenRequests::default();
        for due in due {
            requests.push(asked(*due));
        }
        requests
    }

    #[test]
    fn each_request_is_settled_once_in_any_order() {
        let mut requests = requests(&[10, 20, 30]);
        for id in [2_i64, 0, 1] {
            let due = 10 + 10 * id.cast_unsigned();
            assert_eq!(requests.settle(id), Settled::Asked(asked(due)));
            assert_eq!(requests.settle(id), Settled::Twice);
        }
        assert_eq!((requests.len(), requests.next_id()), (0, 3));
        assert!(requests.slots.is_empty());
        for id in [3, -1, i64::MAX] {
            assert_eq!(requests.settle(id), Settled::Unknown);
        }
    }

    #[test]
    fn what_is_given_up_can_be_late_once() {
        let mut requests = requests(&[10, 20, 30]);
        assert_eq!(requests.settle(1), Settled::Asked(asked(20)));
        assert_eq!(requests.give_up(Time::from_nanos(9)), None);
        assert_eq!(requests.give_up(Time::from_nanos(10)), Some(asked(10)));
        assert_eq!(requests.give_up(Time::from_nanos(10)), None);
        assert_eq!(requests.settle(0), Settled::Late);
        assert_eq!(requests.settle(0), Settled::Twice);
        assert_eq!(requests.len(), 1);
        assert_eq!(requests.drain().collect::<Vec<_>>(), [asked(30)]);
        assert_eq!((requests.len(), requests.next_id()), (0, 3));
    }
}
