//! A queue as it is written down: without what was consumed, but for its last byte, which tells whether a line has begun.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Outbox, SmallQueue, Tagged};
use crate::util::defaults::is_default;
use crate::util::side_bytes;

/// `B` are the bytes that wait, after at most one that was consumed, and `T` the tags, or where they are.
#[derive(Serialize, Deserialize)]
#[serde(bound(
    serialize = "B: AsRef<[u8]>, T: Serialize",
    deserialize = "B: From<Vec<u8>>, T: Deserialize<'de>"
))]
struct OutboxState<B, T> {
    #[serde(with = "side_bytes::maybe")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<B>,
    #[serde(default, skip_serializing_if = "is_default")]
    head: usize,
    #[serde(default, skip_serializing_if = "is_default")]
    position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<T>,
}

impl<M: Serialize> Serialize for Outbox<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let head = self.head.min(1);
        let bytes = &self.bytes[self.head - head..];
        OutboxState {
            bytes: (!bytes.is_empty()).then_some(bytes),
            head,
            position: self.position,
            tags: (!self.tags.is_empty()).then_some(&self.tags),
        }
        .serialize(serializer)
    }
}

impl<'de, M: Deserialize<'de>> Deserialize<'de> for Outbox<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let state = OutboxState::<Vec<u8>, SmallQueue<Tagged<M>>>::deserialize(deserializer)?;
        let bytes = state.bytes.unwrap_or_default();
        Ok(Self {
            // Buffers may have been left out.
            head: state.head.min(bytes.len()),
            bytes,
            position: state.position,
            tags: state.tags.unwrap_or_default(),
        })
    }
}
