//! A queue as it is written down: without what was consumed.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Outbox, SmallQueue, Tagged};
use crate::util::side_bytes;

/// `B` are the bytes that wait, and `T` the tags, or where they are.
#[derive(Serialize, Deserialize)]
#[serde(bound(
    serialize = "B: AsRef<[u8]>, T: Serialize",
    deserialize = "B: From<Vec<u8>>, T: Deserialize<'de>"
))]
struct OutboxState<B, T> {
    #[serde(with = "side_bytes")]
    bytes: B,
    position: u64,
    mid_line: bool,
    tags: T,
    tagged_bytes: usize,
}

impl<M: Serialize> Serialize for Outbox<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        OutboxState {
            bytes: self.waiting(),
            position: self.position,
            mid_line: self.mid_line,
            tags: &self.tags,
            tagged_bytes: self.tagged_bytes,
        }
        .serialize(serializer)
    }
}

impl<'de, M: Deserialize<'de>> Deserialize<'de> for Outbox<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let state = OutboxState::<Vec<u8>, SmallQueue<Tagged<M>>>::deserialize(deserializer)?;
        Ok(Self {
            bytes: state.bytes,
            head: 0,
            position: state.position,
            mid_line: state.mid_line,
            tags: state.tags,
            tagged_bytes: state.tagged_bytes,
        })
    }
}
