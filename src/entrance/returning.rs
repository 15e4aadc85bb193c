//! Clients that are expected back, as their sessions have lost their connections. Each may have a place more than strangers, as
//! a session without a connection has left one free.

use crate::util::client_address::Origin;
use crate::util::counts::Counts;

/// How many there are, and where they have come from before.
#[derive(Debug, Default)]
pub struct Returning {
    all: usize,
    by_origin: Counts<Origin>,
}

impl Returning {
    /// One more has gone.
    pub fn add(&mut self, origin: Origin) {
        self.all += 1;
        self.by_origin.add(origin);
    }

    /// One has come back, or will not.
    pub fn remove(&mut self, origin: Origin) {
        self.all -= usize::from(self.by_origin.remove(&origin));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all == 0
    }

    /// How many have come from here.
    pub fn of(&self, origin: Origin) -> usize {
        self.by_origin.of(&origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_come_back_is_not_expected() {
        let (ann, ben) = (Origin::Ipv4(1), Origin::Ipv4(2));
        let mut returning = Returning::default();
        for origin in [ann, ann, ben] {
            returning.add(origin);
        }
        assert_eq!((returning.of(ann), returning.of(ben)), (2, 1));
        for origin in [ann, ben, ben] {
            returning.remove(origin);
        }
        assert_eq!((returning.of(ann), returning.of(ben)), (1, 0));
        assert_eq!(returning.len(), 1);
        returning.remove(ann);
        assert!(returning.is_empty() && returning.by_origin.is_empty());
    }
}
