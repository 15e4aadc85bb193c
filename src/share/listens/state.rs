//! The listens of a process as they are written down: those that others may join are named by their numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Listen, Listens};

/// `L` is the listens, or where they are.
#[derive(Serialize, Deserialize)]
struct ListensState<L> {
    all: L,
    joinable: Vec<u64>,
}

impl Serialize for Listens {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut joinable: Vec<u64> = self.by_content.values().copied().collect();
        joinable.sort_unstable();
        let all = &self.all;
        ListensState { all, joinable }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Listens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ListensState { all, joinable } =
            ListensState::<BTreeMap<u64, Listen>>::deserialize(deserializer)?;
        let content = |number| Some((all.get(&number)?.content.clone(), number));
        Ok(Self {
            by_content: joinable.into_iter().filter_map(content).collect(),
            all,
        })
    }
}
