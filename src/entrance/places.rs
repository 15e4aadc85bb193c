//! Who holds places in the entrance, and who has to give one up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use super::{Returning, VisitorKey};
use crate::util::client_address::Origin;

/// How many places there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// All of them.
    pub places: usize,
    /// Those that one origin may have.
    pub of_one_origin: usize,
}

impl Capacity {
    /// The most that is of use: as many as come in at once with a first line, and far more than are looked at in a second.
    pub const MAX_PLACES: usize = 1000;

    /// A whole office behind one address.
    pub const MAX_OF_ONE_ORIGIN: usize = 64;
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            places: Self::MAX_PLACES,
            of_one_origin: Self::MAX_OF_ONE_ORIGIN,
        }
    }
}

/// Whose place it is; `None` while a balancer has not said so.
type Holder = Option<Origin>;

/// The places that are taken.
#[derive(Debug)]
pub(super) struct Places {
    capacity: Capacity,
    /// The places of each holder, the oldest first.
    holders: HashMap<Holder, BTreeMap<u64, VisitorKey>>,
    visitors: HashMap<VisitorKey, (Holder, u64)>,
    last_number: u64,
    /// Places with greater numbers were taken in this round.
    last_before_round: u64,
}

impl Places {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            holders: HashMap::new(),
            visitors: HashMap::new(),
            last_number: 0,
            last_before_round: 0,
        }
    }

    /// From now on, there are so many.
    pub(super) fn set_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
    }

    /// From now on, whoever has come before may have to make room.
    pub(super) fn begin_round(&mut self) {
        self.last_before_round = self.last_number;
    }

    /// Who has to give up a place so that a newcomer can have one.
    pub(super) fn whom_to_displace(
        &self,
        newcomer: Holder,
        returning: Option<&Returning>,
    ) -> Option<VisitorKey> {
        if newcomer.is_some_and(|origin| self.count(newcomer) >= self.most_of(origin, returning)) {
            return self.oldest_of(newcomer);
        }
        if self.visitors.len() < self.capacity.places + returning.map_or(0, Returning::len) {
            return None;
        }
        // Of those that hold as many, whoever has held one longest.
        let holders = self.holders.values();
        let oldest = holders.filter_map(|places| {
            let (number, key) = places.first_key_value()?;
            let is_of_before = *number <= self.last_before_round;
            is_of_before.then_some((places.len(), Reverse(*number), *key))
        });
        oldest.max().map(|(_, _, key)| key)
    }

    /// The same once the holder of a place has come to hold too many: the oldest of the others.
    pub(super) fn whom_to_displace_beside(
        &self,
        key: VisitorKey,
        returning: Option<&Returning>,
    ) -> Option<VisitorKey> {
        let (holder, _) = self.visitors.get(&key)?;
        let origin = (*holder)?;
        if self.count(*holder) <= self.most_of(origin, returning) {
            return None;
        }
        let mut places = self.holders.get(holder)?.values();
        places.find(|other| **other != key).copied()
    }

    pub(super) fn take(&mut self, key: VisitorKey, holder: Holder) {
        self.last_number += 1;
        self.put(key, holder, self.last_number);
    }

    /// It has become known whose place it is.
    pub(super) fn belongs_to(&mut self, key: VisitorKey, origin: Origin) {
        if let Some((holder, number)) = self.visitors.get(&key).copied()
            && holder != Some(origin)
        {
            self.give_up(key);
            self.put(key, Some(origin), number);
        }
    }

    pub(super) fn give_up(&mut self, key: VisitorKey) {
        let Some((holder, number)) = self.visitors.remove(&key) else {
            return;
        };
        if let Some(places) = self.holders.get_mut(&holder) {
            places.remove(&number);
            if places.is_empty() {
                self.holders.remove(&holder);
            }
        }
    }

    fn put(&mut self, key: VisitorKey, holder: Holder, number: u64) {
        self.visitors.insert(key, (holder, number));
        let places = self.holders.entry(holder).or_default();
        places.insert(number, key);
    }

    fn most_of(&self, origin: Origin, returning: Option<&Returning>) -> usize {
        let more = returning.map_or(0, |all| all.of(origin));
        self.capacity.of_one_origin + more
    }

    fn count(&self, holder: Holder) -> usize {
        self.holders.get(&holder).map_or(0, BTreeMap::len)
    }

    fn oldest_of(&self, holder: Holder) -> Option<VisitorKey> {
        self.holders.get(&holder)?.values().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_just_come_does_not_have_to_make_room() {
        let mut places = places(3, 3);
        for (key, holder) in [(0, BEN), (1, ANN), (2, ANN)] {
            places.take(VisitorKey(key), holder);
        }
        assert_eq!(
            places.whom_to_displace(CAT, None),
            None,
            "nobody has been here before"
        );
        places.begin_round();
        assert_eq!(places.whom_to_displace(CAT, None), Some(VisitorKey(1)));
        places.give_up(VisitorKey(1));
        places.take(VisitorKey(1), CAT);
        places.give_up(VisitorKey(2));
        places.take(VisitorKey(2), CAT);
        assert_eq!(places.whom_to_displace(CAT, None), Some(VisitorKey(0)));
    }

    fn places(places: usize, of_one_origin: usize) -> Places {
        Places::new(Capacity {
            places,
            of_one_origin,
        })
    }

    const ANN: Holder = Some(Origin::Ipv4(1));
    const BEN: Holder = Some(Origin::Ipv4(2));
    const CAT: Holder = Some(Origin::User(3));

    #[test]
    fn at_the_limit_of_an_origin_its_oldest_place_is_given_up() {
        let mut places = places(10, 2);
        for (key, holder) in [(0, ANN), (1, BEN), (2, ANN)] {
            assert_eq!(places.whom_to_displace(holder, None), None);
            places.take(VisitorKey(key), holder);
        }
        assert_eq!(places.whom_to_displace(ANN, None), Some(VisitorKey(0)));
        assert_eq!(places.whom_to_displace(BEN, None), None);
        places.give_up(VisitorKey(0));
        assert_eq!(places.whom_to_displace(ANN, None), None);
        places.give_up(VisitorKey(0));
    }

    #[test]
    fn at_the_limit_of_all_whoever_holds_most_gives_up_the_oldest() {
        let mut places = places(4, 3);
        for (key, holder) in [(0, BEN), (1, ANN), (2, ANN), (3, BEN)] {
            places.take(VisitorKey(key), holder);
            places.begin_round();
        }
        assert_eq!(
            places.whom_to_displace(CAT, None),
            Some(VisitorKey(0)),
            "a tie"
        );
        places.give_up(VisitorKey(0));
        places.take(VisitorKey(0), CAT);
        assert_eq!(places.whom_to_displace(BEN, None), Some(VisitorKey(1)));
    }

    #[test]
    fn those_of_which_a_balancer_has_not_said_whose_they_are_have_only_the_limit_of_all() {
        let mut places = places(5, 2);
        for key in 0..4 {
            assert_eq!(places.whom_to_displace(None, None), None);
            places.take(VisitorKey(key), None);
        }
        for key in [1, 2] {
            places.belongs_to(VisitorKey(key), Origin::Ipv4(1));
            assert_eq!(places.whom_to_displace_beside(VisitorKey(key), None), None);
        }
        places.belongs_to(VisitorKey(0), Origin::Ipv4(1));
        let other = places.whom_to_displace_beside(VisitorKey(0), None);
        assert_eq!(
            other,
            Some(VisitorKey(1)),
            "not the newcomer, though it is older"
        );
        places.give_up(VisitorKey(1));
        assert_eq!(places.whom_to_displace_beside(VisitorKey(0), None), None);
        assert_eq!(places.whom_to_displace_beside(VisitorKey(3), None), None);
    }

    #[test]
    fn for_whoever_is_expected_back_there_is_a_place_more() {
        let mut places = places(3, 2);
        let mut returning = Returning::default();
        let (ann, ben) = (Origin::Ipv4(1), Origin::Ipv4(2));
        for origin in [ann, ann, ben] {
            returning.add(origin);
        }
        for key in 0..4 {
            assert_eq!(places.whom_to_displace(ANN, Some(&returning)), None);
            places.take(VisitorKey(key), ANN);
            places.begin_round();
        }
        assert_eq!(
            places.whom_to_displace(ANN, Some(&returning)),
            Some(VisitorKey(0)),
            "no more than that"
        );
        places.take(VisitorKey(4), BEN);
        places.take(VisitorKey(5), BEN);
        assert_eq!(
            places.whom_to_displace(CAT, Some(&returning)),
            Some(VisitorKey(0))
        );
        places.give_up(VisitorKey(0));
        returning.remove(ann);
        assert_eq!(
            places.whom_to_displace_beside(VisitorKey(1), Some(&returning)),
            None
        );
        returning.remove(ann);
        assert_eq!(
            places.whom_to_displace_beside(VisitorKey(1), Some(&returning)),
            Some(VisitorKey(2))
        );
    }
}
