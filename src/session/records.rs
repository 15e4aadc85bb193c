//! What sessions record and have in common: the handshakes of the same client program with the same server are equal.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use super::era::Version;
use super::handshake::Record;

/// How many of a kind are known at a time: more different clients and servers come to one proxy seldom, and then only cost
/// memory.
const MAX_KNOWN: usize = 16;

/// What sessions record, and others may record, too.
#[derive(Debug, Default)]
pub struct Records {
    pub(super) handshakes: Known<Record>,
    pub(super) versions: Known<Version>,
}

/// What was recorded last and any session still has.
#[derive(Debug)]
pub(super) struct Known<T>(VecDeque<Weak<T>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Eq> Known<T> {
    /// Takes the place of a record by an equal one that others have, too.
    pub(super) fn share(&mut self, record: &mut Rc<T>) {
        let mut known = self.0.iter().filter_map(Weak::upgrade);
        if let Some(equal) = known.find(|known| known == record) {
            *record = equal;
            return;
        }
        drop(known);
        self.0.retain(|known| known.strong_count() > 0);
        self.0.truncate(MAX_KNOWN - 1);
        self.0.push_front(Rc::downgrade(record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::handshake::tests::recorded;

    const RESULT: &str = r#"{"protocolVersion":"1","capabilities":{}}"#;

    #[test]
    fn equal_records_are_one_as_long_as_anybody_has_it() {
        let mut records = Known::default();
        let mut make = |request: &str| {
            let mut record = recorded(request, RESULT);
            records.share(&mut record);
            record
        };
        let (first, other, second) = (make("{}"), make("[]"), make("{}"));
        assert!(Rc::ptr_eq(&first, &second) && !Rc::ptr_eq(&first, &other));
        let gone = Rc::downgrade(&other);
        drop(other);
        assert!(gone.upgrade().is_none(), "nobody else keeps it");
    }

    #[test]
    fn only_the_last_ones_are_known() {
        let mut records = Known::default();
        let mut all: Vec<Rc<Record>> = Vec::new();
        for number in 0..=MAX_KNOWN {
            let mut record = recorded(&number.to_string(), RESULT);
            records.share(&mut record);
            all.push(record);
        }
        assert_eq!(records.0.len(), MAX_KNOWN);
        let is_shared = |records: &mut Known<Record>, at: usize| {
            let mut record = recorded(&at.to_string(), RESULT);
            records.share(&mut record);
            Rc::ptr_eq(&record, &all[at])
        };
        assert!(is_shared(&mut records, MAX_KNOWN) && !is_shared(&mut records, 0));
        all.clear();
        records.share(&mut recorded("new", RESULT));
        assert_eq!(records.0.len(), 1, "those that nobody has are forgotten");
    }
}
