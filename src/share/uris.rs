//! The resources that the client of a seat has subscribed to. Most have to none, and that takes no more room than a pointer.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Resources, by their URIs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Uris(Option<Box<Set>>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Set {
    uris: BTreeSet<Arc<str>>,
    bytes: usize,
}

impl Uris {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |set| set.uris.len())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether this is one of them.
    pub(super) fn contains(&self, uri: &str) -> bool {
        self.0.as_ref().is_some_and(|set| set.uris.contains(uri))
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> Vec<Arc<str>> {
        let set = self.0.iter();
        set.flat_map(|set| set.uris.iter().cloned()).collect()
    }

    /// What they hold, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |set| set.bytes)
    }

    /// Adds one.
    pub(super) fn add(&mut self, uri: &Arc<str>) {
        let set = self.0.get_or_insert_default();
        if set.uris.insert(Arc::clone(uri)) {
            set.bytes += uri.len();
        }
    }

    /// Takes one out, if it is there.
    pub(super) fn remove(&mut self, uri: &str) {
        let Some(set) = &mut self.0 else {
            return;
        };
        if set.uris.remove(uri) {
            set.bytes -= uri.len();
        }
        if set.uris.is_empty() {
            self.0 = None;
        }
    }
}
