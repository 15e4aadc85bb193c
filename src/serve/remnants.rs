//! Servers that were reaped, while there may be more in their groups.
//!
//! Nothing tells when a group becomes empty: it has to be asked for, and each question costs a call of the system. So
//! nobody asks for all at once, but for a slice at a time, however many there are.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::servers::ServerKey;

/// Groups that are asked for in one iteration: some 20 µs.
pub(super) const GROUPS_PER_ITERATION: usize = 32;

/// The servers, and how far the present round of questions has come.
#[derive(Debug, Default)]
pub(super) struct Remnants {
    keys: BTreeSet<ServerKey>,
    round: Option<Round>,
}

#[derive(Debug, Default)]
struct Round {
    /// The last one that was asked for.
    last: Option<ServerKey>,
    /// Another round is to follow: a group that this one has passed may have become empty.
    again: bool,
}

impl Remnants {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn contains(&self, key: ServerKey) -> bool {
        self.keys.contains(&key)
    }

    pub(super) fn insert(&mut self, key: ServerKey) {
        self.keys.insert(key);
    }

    pub(super) fn remove(&mut self, key: ServerKey) {
        self.keys.remove(&key);
    }

    /// Any group may have become empty: has all of them asked for.
    pub(super) fn begin_round(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        match &mut self.round {
            Some(round) => round.again = round.last.is_some(),
            None => self.round = Some(Round::default()),
        }
    }

    /// Whether some are to be asked for.
    pub(super) fn is_under_way(&self) -> bool {
        self.round.is_some()
    }

    /// Those that are to be asked for in this iteration.
    pub(super) fn next_slice(&mut self) -> Vec<ServerKey> {
        let Some(round) = &mut self.round else {
            return Vec::new();
        };
        let from = round.last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.keys.range((from, Bound::Unbounded));
        let slice: Vec<ServerKey> = rest.take(GROUPS_PER_ITERATION).copied().collect();
        round.last = slice.last().copied();
        if slice.len() < GROUPS_PER_ITERATION {
            self.round = round.again.then(Round::default);
        }
        slice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: usize) -> Remnants {
        let mut remnants = Remnants::default();
        for key in 0..count {
            remnants.insert(ServerKey::at(key));
        }
        remnants
    }

    /// Asks until the round is over. Returns how many iterations that takes.
    fn ask_all(remnants: &mut Remnants, asked: &mut Vec<ServerKey>) -> usize {
        let mut iterations = 0;
        while remnants.is_under_way() {
            let slice = remnants.next_slice();
            assert!(slice.len() <= GROUPS_PER_ITERATION);
            asked.extend(slice);
            iterations += 1;
        }
        iterations
    }

    #[test]
    fn all_are_asked_for_in_slices() {
        let mut remnants = of(1200);
        assert_eq!(remnants.next_slice(), [], "nobody has asked for a round");
        remnants.begin_round();
        let mut asked = Vec::new();
        assert_eq!(
            ask_all(&mut remnants, &mut asked),
            1200 / GROUPS_PER_ITERATION + 1
        );
        assert_eq!(asked, (0..1200).map(ServerKey).collect::<Vec<_>>());
        of(0).begin_round();
        assert!(!of(0).is_under_way());
    }

    #[test]
    fn those_that_a_round_has_passed_are_asked_for_in_another_once() {
        let mut remnants = of(GROUPS_PER_ITERATION + 1);
        remnants.begin_round();
        remnants.begin_round();
        remnants.next_slice();
        for _ in 0..3 {
            remnants.begin_round();
        }
        remnants.remove(ServerKey(0));
        let mut asked = Vec::new();
        ask_all(&mut remnants, &mut asked);
        let last = ServerKey::at(GROUPS_PER_ITERATION);
        assert_eq!(asked.len(), 1 + GROUPS_PER_ITERATION);
        assert_eq!((asked[0], asked[asked.len() - 1]), (last, last));
    }
}
