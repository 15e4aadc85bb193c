//! State as JSON, with its buffers beside it: bytes are no text, and to escape megabytes of them takes longer than a session
//! may stand still.
//!
//! A field of bytes is marked `#[serde(with = "side_bytes")]`, or `side_bytes::maybe` if it may be missing. In the JSON it is
//! where its bytes begin beside it, and how many they are.

mod filed;

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use self::filed::{FromFile, ToFile};

/// State that was written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// All but the buffers.
    pub json: Vec<u8>,
    /// The buffers, one after the other; `None`: they were left out.
    pub bytes: Option<Vec<u8>>,
}

enum Side {
    /// Nothing is being written or read.
    Idle,
    Writing(Vec<u8>),
    /// They are left out, and only this many are counted.
    LeavingOut(usize),
    WritingToFile(ToFile),
    Reading(Vec<u8>),
    ReadingFromFile(FromFile),
    /// The buffers were left out: all are empty.
    WithoutBytes,
}

thread_local! {
    // serde hands no context through to the fields of a value.
    static SIDE: RefCell<Side> = const { RefCell::new(Side::Idle) };
}

/// Puts the side back in order, whatever happens between.
struct Turn;

impl Turn {
    fn begin(side: Side) -> Self {
        SIDE.set(side);
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        SIDE.set(Side::Idle);
    }
}

fn nested<T>() -> serde_json::Result<T> {
    Err(ser::Error::custom("a state within a state"))
}

impl Written {
    /// Writes a state down.
    ///
    /// # Errors
    /// It holds something that can't be.
    pub fn new(state: &impl Serialize) -> serde_json::Result<Self> {
        let _turn = Turn::begin(Side::Writing(Vec::new()));
        let json = serde_json::to_vec(state)?;
        let Side::Writing(bytes) = SIDE.replace(Side::Idle) else {
            return nested();
        };
        let bytes = Some(bytes);
        Ok(Self { json, bytes })
    }

    /// The same without its buffers, of which no copy is made.
    ///
    /// # Errors
    /// As above.
    pub fn without_bytes(state: &impl Serialize) -> serde_json::Result<Self> {
        let _turn = Turn::begin(Side::LeavingOut(0));
        let json = serde_json::to_vec(state)?;
        Ok(Self { json, bytes: None })
    }

    /// Reads a state. Without the buffers, all of them are empty.
    ///
    /// # Errors
    /// It is not such a state.
    pub fn read<T: DeserializeOwned>(self) -> serde_json::Result<T> {
        let side = self.bytes.map_or(Side::WithoutBytes, Side::Reading);
        let _turn = Turn::begin(side);
        serde_json::from_slice(&self.json)
    }
}

/// Writes a state down whose buffers go to a file as they are, from where it stands. Returns all but these, and how many
/// bytes they have.
///
/// # Errors
/// Those of the file, or it holds something that can't be written down.
pub fn write_to_file(state: &impl Serialize, file: &File) -> io::Result<(Vec<u8>, usize)> {
    let _turn = Turn::begin(Side::WritingToFile(ToFile::new(file)?));
    let json = serde_json::to_vec(state)?;
    let Side::WritingToFile(bytes) = SIDE.replace(Side::Idle) else {
        return Ok(nested()?);
    };
    Ok((json, bytes.finish()?))
}

/// Reads a state whose buffers are in this part of a file, each straight to where it belongs.
///
/// # Errors
/// It is not such a state.
pub fn read_from_file<T: DeserializeOwned>(
    json: &[u8],
    file: &File,
    part: Range<u64>,
) -> io::Result<T> {
    let _turn = Turn::begin(Side::ReadingFromFile(FromFile::new(file, part)?));
    Ok(serde_json::from_slice(json)?)
}

/// Writes the bytes beside the JSON.
pub(crate) fn serialize<S: Serializer>(
    bytes: &impl AsRef<[u8]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let bytes = bytes.as_ref();
    let start = SIDE.with_borrow_mut(|side| match side {
        Side::Writing(all) => {
            let start = all.len();
            all.extend_from_slice(bytes);
            Ok(start)
        }
        Side::LeavingOut(count) => {
            let start = *count;
            *count += bytes.len();
            Ok(start)
        }
        Side::WritingToFile(file) => file.put(bytes).map_err(ser::Error::custom),
        _ => Err(ser::Error::custom("bytes have no place in it")),
    });
    (start?, bytes.len()).serialize(serializer)
}

/// Reads bytes from beside the JSON.
pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<Vec<u8>>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let (start, len) = <(usize, usize)>::deserialize(deserializer)?;
    let bytes = SIDE.with_borrow_mut(|side| match side {
        Side::Reading(all) => Ok(range(start, len)
            .and_then(|range| all.get(range))
            .map(<[u8]>::to_vec)),
        Side::ReadingFromFile(file) => file.take(start, len).map_err(D::Error::custom),
        Side::WithoutBytes => Ok(Some(Vec::new())),
        Side::Idle | Side::Writing(_) | Side::LeavingOut(_) | Side::WritingToFile(_) => Ok(None),
    });
    let bytes = bytes?.ok_or_else(|| D::Error::custom("bytes are missing"))?;
    Ok(bytes.into())
}

fn range(start: usize, len: usize) -> Option<Range<usize>> {
    Some(start..start.checked_add(len)?)
}

/// Bytes that may be missing.
pub(crate) mod maybe {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(bound(serialize = "T: AsRef<[u8]>", deserialize = "T: From<Vec<u8>>"))]
    struct Bytes<T>(#[serde(with = "super")] T);

    #[allow(clippy::ref_option, reason = "so serde calls it")]
    pub(crate) fn serialize<S: Serializer>(
        bytes: &Option<impl AsRef<[u8]>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes = bytes.as_ref().map(|bytes| Bytes(bytes.as_ref()));
        bytes.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<Vec<u8>>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let bytes = Option::<Bytes<T>>::deserialize(deserializer)?;
        Ok(bytes.map(|bytes| bytes.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct State {
        name: String,
        #[serde(with = "super")]
        line: Vec<u8>,
        #[serde(with = "super::maybe")]
        rest: Option<Box<[u8]>>,
        #[serde(with = "super::maybe")]
        other: Option<Box<[u8]>>,
    }

    fn state() -> State {
        State {
            name: "x".to_owned(),
            line: b"\"\xff\n".to_vec(),
            rest: Some(b"abc".as_slice().into()),
            other: None,
        }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let written = Written::new(&state()).unwrap();
        assert_eq!(written.bytes.as_deref(), Some(b"\"\xff\nabc".as_slice()));
        let json = br#"{"name":"x","line":[0,3],"rest":[3,3],"other":null}"#;
        assert_eq!(written.json, json);
        assert_eq!(written.read::<State>().unwrap(), state());
    }

    #[test]
    fn buffers_can_be_left_out() {
        let written = Written::without_bytes(&state()).unwrap();
        let json = Written::new(&state()).unwrap().json;
        assert_eq!((&written.json, &written.bytes), (&json, &None));
        let read: State = written.read().unwrap();
        assert_eq!((read.name.as_str(), read.line.len()), ("x", 0));
        assert_eq!((read.rest, read.other), (Some(Box::default()), None));
    }

    #[test]
    fn bytes_that_are_not_there_are_an_error() {
        for range in ["[0,4]", "[9,0]", "[18446744073709551615,2]", "[-1,1]", "3"] {
            let json = format!(r#"{{"name":"x","line":{range},"rest":null,"other":null}}"#);
            let written = Written {
                json: json.into_bytes(),
                bytes: Some(b"abc".to_vec()),
            };
            assert!(written.read::<State>().is_err(), "{range}");
        }
        assert!(serde_json::to_string(&state()).is_err(), "there is no side");
        assert!(serde_json::from_str::<State>("{}").is_err());
    }
}
