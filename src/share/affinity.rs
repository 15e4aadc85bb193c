//! Clients that have shown a name go back to the process that they used last: `requestState` and the ids of tasks, which
//! outlive a session, mean something to that one alone.

mod state;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ProcessKey;
use super::identity::Identity;
use crate::util::counts::Counts;
use crate::util::time::Time;

/// For this long it is remembered who has used what.
const MEMORY: Duration = Duration::from_mins(10);

/// Clients that are remembered, at most.
const MAX_REMEMBERED: usize = 10_000;

/// Who has which sessions, and who has used which process.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    open: Counts<Arc<str>>,
    last: HashMap<Arc<str>, Last>,
    /// In the order in which they left.
    order: BTreeMap<u64, Arc<str>>,
    departures: u64,
}

/// The process that a client used last.
#[derive(Debug, Serialize, Deserialize)]
struct Last {
    process: ProcessKey,
    serial: u64,
    left: Time,
    /// Its place in the order.
    departure: u64,
}

impl Affinity {
    /// A session begins.
    pub(super) fn arrive(&mut self, identity: &Identity) {
        if let Identity::Name(name) = identity {
            self.open.add(Arc::clone(name));
        }
    }

    /// A session ends that has used this process last, the one of this serial number.
    pub(super) fn leave(
        &mut self,
        identity: &Identity,
        process: Option<(ProcessKey, u64)>,
        now: Time,
    ) {
        let Identity::Name(name) = identity else {
            return;
        };
        self.open.remove(name);
        if let Some((process, serial)) = process {
            self.departures += 1;
            let last = Last {
                process,
                serial,
                left: now,
                departure: self.departures,
            };
            if let Some(before) = self.last.insert(Arc::clone(name), last) {
                self.order.remove(&before.departure);
            }
            self.order.insert(self.departures, Arc::clone(name));
        }
        self.forget(now);
    }

    /// Forgets whoever left too long ago, or before too many others.
    fn forget(&mut self, now: Time) {
        while let Some(first) = self.order.first_entry() {
            let last = self.last.get(first.get());
            let is_fresh = last.is_some_and(|last| now.saturating_since(last.left) < MEMORY);
            if is_fresh && self.last.len() <= MAX_REMEMBERED {
                return;
            }
            self.last.remove(&first.remove());
        }
    }

    /// What a client has used that has one session, which has just begun.
    pub(super) fn find(&self, identity: &Identity, now: Time) -> Option<(ProcessKey, u64)> {
        let Identity::Name(name) = identity else {
            return None;
        };
        let last = self.last.get(name)?;
        let is_fresh = now.saturating_since(last.left) < MEMORY;
        let is_only = self.open.of(name) == 1;
        (is_fresh && is_only).then_some((last.process, last.serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::client_address::Origin;

    const START: Time = Time::from_nanos(1 << 40);

    fn name(name: &str) -> Identity {
        Identity::new(Origin::Unknown, Some(name))
    }

    #[test]
    fn who_has_no_other_session_goes_back_for_ten_minutes() {
        let mut affinity = Affinity::default();
        let (a, used) = (name("a"), (ProcessKey(3), 7));
        affinity.arrive(&a);
        affinity.leave(&a, Some(used), START);
        assert_eq!(affinity.find(&a, START), None, "it has no session");
        affinity.arrive(&a);
        assert_eq!(affinity.find(&a, START), Some(used));
        assert_eq!(affinity.find(&name("b"), START), None);
        let late = START + MEMORY;
        assert_eq!(affinity.find(&a, late), None);
        affinity.arrive(&a);
        assert_eq!(affinity.find(&a, START), None, "another is open");
        affinity.leave(&a, None, START);
        assert_eq!(affinity.find(&a, START), Some(used));
    }

    #[test]
    fn no_more_are_remembered_than_may_be() {
        let mut affinity = Affinity::default();
        for number in 0..MAX_REMEMBERED + 5 {
            let client = name(&number.to_string());
            affinity.arrive(&client);
            let at = START + Duration::from_millis(number as u64);
            affinity.leave(&client, Some((ProcessKey(0), 1)), at);
        }
        assert_eq!(affinity.last.len(), MAX_REMEMBERED);
        assert!(affinity.open.is_empty());
        let soon = START + Duration::from_secs(20);
        for (number, is_known) in [(4, false), (5, true)] {
            let client = name(&number.to_string());
            affinity.arrive(&client);
            assert_eq!(affinity.find(&client, soon).is_some(), is_known);
        }
    }

    #[test]
    fn addresses_are_not_names() {
        let mut affinity = Affinity::default();
        let address = Identity::from(Origin::Ipv4(1));
        affinity.arrive(&address);
        affinity.leave(&address, Some((ProcessKey(0), 1)), START);
        affinity.arrive(&address);
        assert_eq!(affinity.find(&address, START), None);
    }
}
