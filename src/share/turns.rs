//! Whose turn it is at a process: first the identities take turns, then the sessions of each.

mod state;

use std::collections::{HashMap, VecDeque};

use super::SeatKey;
use super::identity::Identity;

/// Seats that have something to send and may send it, each at most once.
#[derive(Debug, Default)]
pub(super) struct Turns {
    order: VecDeque<Identity>,
    seats: HashMap<Identity, VecDeque<SeatKey>>,
}

impl Turns {
    /// A seat that is not among them has its turn after those of its identity, and an identity that comes new after the
    /// others.
    pub(super) fn join(&mut self, identity: &Identity, seat: SeatKey) {
        if let Some(seats) = self.seats.get_mut(identity) {
            return seats.push_back(seat);
        }
        self.order.push_back(identity.clone());
        self.seats.insert(identity.clone(), VecDeque::from([seat]));
    }

    /// Takes the seat whose turn it is, of an identity that is not held back. Only while others wait are any.
    pub(super) fn next(&mut self, is_held_back: impl Fn(&Identity) -> bool) -> Option<SeatKey> {
        let is_alone = self.order.len() == 1;
        for _ in 0..self.order.len() {
            let identity = self.order.pop_front()?;
            if !is_alone && is_held_back(&identity) {
                self.order.push_back(identity);
                continue;
            }
            let seats = self.seats.get_mut(&identity)?;
            let seat = seats.pop_front();
            if seats.is_empty() {
                self.seats.remove(&identity);
            } else {
                self.order.push_back(identity);
            }
            return seat;
        }
        None
    }

    /// Whether seats of another identity wait.
    pub(super) fn has_others(&self, identity: &Identity) -> bool {
        self.order.iter().any(|other| other != identity)
    }

    /// A seat has nothing more to send, or is gone.
    pub(super) fn leave(&mut self, identity: &Identity, seat: SeatKey) {
        let Some(seats) = self.seats.get_mut(identity) else {
            return;
        };
        seats.retain(|other| *other != seat);
        if seats.is_empty() {
            self.seats.remove(identity);
            self.order.retain(|other| other != identity);
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Takes all, in no particular order of identities.
    pub(super) fn take_all(&mut self) -> Vec<SeatKey> {
        let order = std::mem::take(&mut self.order);
        let mut seats = std::mem::take(&mut self.seats);
        let of = |identity| seats.remove(&identity).unwrap_or_default();
        order.into_iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::client_address::Origin;

    fn of(address: u32) -> Identity {
        Origin::Ipv4(address).into()
    }

    fn turns(seats: &[(u32, usize)]) -> Turns {
        let mut turns = Turns::default();
        for (identity, seat) in seats {
            turns.join(&of(*identity), SeatKey(*seat));
        }
        turns
    }

    #[test]
    fn identities_take_turns_and_then_their_seats() {
        let mut turns = turns(&[(1, 10), (1, 11), (1, 12), (2, 20), (3, 30)]);
        let order: Vec<usize> = std::iter::from_fn(|| turns.next(|_| false))
            .map(|seat| seat.0)
            .collect();
        assert_eq!(order, [10, 20, 30, 11, 12]);
        assert!(turns.is_empty());
    }

    #[test]
    fn an_identity_is_held_back_only_while_others_wait() {
        let one = |identity: &Identity| *identity == of(1);
        let mut turns = turns(&[(1, 10), (2, 20)]);
        assert!(turns.has_others(&of(1)));
        assert_eq!(turns.next(one), Some(SeatKey(20)));
        assert!(!turns.has_others(&of(1)));
        assert_eq!(turns.next(one), Some(SeatKey(10)), "nobody else waits");
        assert_eq!(turns.next(one), None);
    }

    #[test]
    fn who_leaves_is_not_asked_again() {
        let mut turns = turns(&[(1, 10), (1, 11), (2, 20)]);
        turns.leave(&of(2), SeatKey(20));
        turns.leave(&of(1), SeatKey(10));
        assert_eq!(turns.next(|_| false), Some(SeatKey(11)));
        assert_eq!(turns.next(|_| false), None);
    }
}
