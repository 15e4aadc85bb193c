//! The turns at a process as they are written down: the identities in their order, each with its seats.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Identity, SeatKey, Turns};

impl Serialize for Turns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seats = |identity| Some((identity, self.seats.get(identity)?));
        serializer.collect_seq(self.order.iter().filter_map(seats))
    }
}

impl<'de> Deserialize<'de> for Turns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Vec::<(Identity, VecDeque<SeatKey>)>::deserialize(deserializer)?;
        Ok(Self {
            order: all.iter().map(|(identity, _)| identity.clone()).collect(),
            seats: all.into_iter().collect(),
        })
    }
}
