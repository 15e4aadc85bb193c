//! A map as a list of its keys and values, in the order of the keys: in JSON, keys are texts, and equal maps are to be equal
//! texts.
//!
//! A field is marked `#[serde(with = "pairs")]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes the pairs of a map.
pub(crate) fn serialize<'a, M, K, V, S>(map: &'a M, serializer: S) -> Result<S::Ok, S::Error>
where
    &'a M: IntoIterator<Item = (K, V)>,
    K: Serialize + Ord,
    V: Serialize,
    S: Serializer,
{
    let mut pairs: Vec<(K, V)> = map.into_iter().collect();
    pairs.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    pairs.serialize(serializer)
}

/// Makes a map of pairs.
pub(crate) fn deserialize<'de, M, K, V, D>(deserializer: D) -> Result<M, D::Error>
where
    M: IntoIterator<Item = (K, V)> + FromIterator<(K, V)>,
    K: Deserialize<'de>,
    V: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Vec::<(K, V)>::deserialize(deserializer).map(M::from_iter)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use slab::Slab;

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct State {
        #[serde(with = "super")]
        map: HashMap<(u8, u8), char>,
        #[serde(with = "super")]
        slab: Slab<bool>,
    }

    #[test]
    fn maps_are_written_in_order_and_read_again() {
        let state = State {
            map: (0..3).map(|key| ((9 - key, key), 'x')).collect(),
            slab: [(1, true), (7, false)].into_iter().collect(),
        };
        let text = serde_json::to_string(&state).unwrap();
        let written =
            r#"{"map":[[[7,2],"x"],[[8,1],"x"],[[9,0],"x"]],"slab":[[1,true],[7,false]]}"#;
        assert_eq!(text, written);
        let read: State = serde_json::from_str(&text).unwrap();
        assert_eq!(read.map, state.map);
        assert_eq!((read.slab.get(7), read.slab.len()), (Some(&false), 2));
    }
}
