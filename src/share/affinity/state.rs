//! Who has used which process, as it is written down: in the order in which they left. Who has which sessions follows from
//! the seats.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Affinity, Last};
use crate::util::counts::Counts;

#[derive(Serialize, Deserialize)]
struct AffinityState<N, L> {
    last: Vec<(N, L)>,
    departures: u64,
}

impl Serialize for Affinity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let last = |name| Some((name, self.last.get(name)?));
        AffinityState {
            last: self.order.values().filter_map(last).collect(),
            departures: self.departures,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Affinity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let AffinityState { last, departures } =
            AffinityState::<Arc<str>, Last>::deserialize(deserializer)?;
        let order = last
            .iter()
            .map(|(name, last)| (last.departure, Arc::clone(name)));
        Ok(Self {
            open: Counts::default(),
            order: order.collect(),
            last: last.into_iter().collect(),
            departures,
        })
    }
}
