//! How often each of some keys is there. What is there no more takes no memory.

use std::collections::HashMap;
use std::hash::Hash;

/// Keys, each with how often it is there.
#[derive(Debug)]
pub struct Counts<K>(HashMap<K, usize>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Counts<K> {
    /// It is there once more.
    pub fn add(&mut self, key: K) {
        *self.0.entry(key).or_default() += 1;
    }

    /// It is there once less. Returns whether it was there.
    pub fn remove(&mut self, key: &K) -> bool {
        let Some(count) = self.0.get_mut(key) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.0.remove(key);
        }
        true
    }

    /// How often it is there.
    pub fn of(&self, key: &K) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing is there any more.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_as_often_as_it_was_added_and_not_removed() {
        let mut counts = Counts::default();
        for key in ["a", "a", "b"] {
            counts.add(key);
        }
        assert_eq!(["a", "b", "c"].map(|key| counts.of(&key)), [2, 1, 0]);
        assert!(counts.remove(&"a") && counts.remove(&"b") && !counts.remove(&"b"));
        assert_eq!((counts.of(&"a"), counts.0.len()), (1, 1));
        assert!(counts.remove(&"a") && counts.is_empty());
        counts.add("a");
        counts.clear();
        assert!(counts.is_empty());
    }
}
