//! A queue as it is written down: without what was consumed, but for its last byte, which tells whether a line has begun.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Outbox, SmallQueue, Tagged};
use crate::util::side_bytes;

/// `B` are the bytes that wait, after at most one that was consumed, and `T` the tags, or where they are.
#[derive(Serialize, Deserialize)]
#[serde(bound(
    serialize = "B: AsRef<[u8]>, T: Serialize",
    deserialize = "B: From<Vec<u8>>, T: Deserialize<'de>"
))]
struct OutboxState<B, T> {
    #[serde(with = "side_bytes")]
    bytes: B,
    head: usize,
    position: u64,
    tags: T,
}

impl<M: Serialize> Serialize for Outbox<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let head = self.head.min(1);
        OutboxState {
            bytes: &self.bytes[self.head - head..],
            head,
            position: self.position,
            tags: &self.tags,
        }
        .serialize(serializer)
    }
}

impl<'de, M: Deserialize<'de>> Deserialize<'de> for Outbox<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let state = OutboxState::<Vec<u8>, SmallQueue<Tagged<M>>>::deserialize(deserializer)?;
        Ok(Self {
            // Buffers may have been left out.
            head: state.head.min(state.bytes.len()),
            bytes: state.bytes,
            position: state.position,
            tags: state.tags,
        })
    }
}
