//! The state as a text: a line that says what follows, the buffers, and JSON.
//!
//! The line is filled up with blanks, so that the buffers can be written before it is known how many there are.
//!
//! Any program may take a state over whose number it knows, an older one too. So the number changes only when a program
//! that does not know what is new would go wrong; fields that may be missing are no reason.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::util::side_bytes::{self, Written};

/// What the number of the format follows.
const KIND: &str = "mcp-tcp-proxy state";

/// The format that is written, and read.
const FORMAT: u32 = 1;

/// What stands for the size of buffers that were left out.
const LEFT_OUT: &str = "-";

/// The first line, in bytes; there is room for any two sizes in it.
const FIRST_LINE_BYTES: usize = 80;

/// The longest first line that is read, in bytes.
const MAX_FIRST_LINE: usize = 128;

fn first_line(json: usize, bytes: Option<usize>) -> String {
    let bytes = bytes.map_or_else(|| LEFT_OUT.to_owned(), |bytes| bytes.to_string());
    let line = format!("{KIND} {FORMAT} {json} {bytes}");
    format!("{line:<width$}\n", width = FIRST_LINE_BYTES - 1)
}

/// Writes a state.
///
/// # Errors
/// Those of `to`.
pub fn write(written: &Written, to: &mut impl Write) -> io::Result<()> {
    let Written { json, bytes } = written;
    let line = first_line(json.len(), bytes.as_ref().map(Vec::len));
    to.write_all(line.as_bytes())?;
    to.write_all(bytes.as_deref().unwrap_or_default())?;
    to.write_all(json)
}

/// Writes a state down into an empty file, with no copy of its buffers on the way.
///
/// # Errors
/// Those of the file, or it can't be written down.
pub fn write_to_file(state: &impl Serialize, mut file: &File) -> io::Result<()> {
    file.seek(SeekFrom::Start(FIRST_LINE_BYTES as u64))?;
    let (json, bytes) = side_bytes::write_to_file(state, file)?;
    file.write_all(&json)?;
    file.write_all_at(first_line(json.len(), Some(bytes)).as_bytes(), 0)
}

/// Reads a state.
///
/// # Errors
/// Why it can't be read.
pub fn read(from: &mut impl Read) -> Result<Written, String> {
    let Sizes { json, bytes, .. } = sizes(from)?;
    let bytes = bytes.map(|bytes| part(bytes, from)).transpose()?;
    let json = part(json, from)?;
    Ok(Written { json, bytes })
}

/// Reads a state that a file holds and nothing else, wherever the file stands.
///
/// # Errors
/// Why it can't be read.
pub fn read_from_file<T: DeserializeOwned>(mut file: &File) -> Result<T, String> {
    file.rewind().map_err(cut_off)?;
    let Sizes { line, json, bytes } = sizes(&mut file)?;
    let end = line.checked_add(bytes.ok_or("its buffers are missing")?);
    let end = end.ok_or("its first line is not one")?;
    let size = file.metadata().map_err(cut_off)?.len();
    if end.checked_add(json) != Some(size) {
        return Err(cut_off("it has another size"));
    }
    let mut text = vec![0; json as usize];
    file.read_exact_at(&mut text, end).map_err(cut_off)?;
    side_bytes::read_from_file(&text, file, line..end)
        .map_err(|error| format!("it is not understood: {error}"))
}

/// How long each part is.
struct Sizes {
    line: u64,
    json: u64,
    /// `None`: they were left out.
    bytes: Option<u64>,
}

fn sizes(from: &mut impl Read) -> Result<Sizes, String> {
    let line = line(from)?;
    let rest = line.strip_prefix(KIND).ok_or("it is not a state")?;
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let [format, json, bytes] = words[..] else {
        return Err("its first line is not one".to_owned());
    };
    if format != FORMAT.to_string() {
        return Err(format!(
            "it has format {format}, and this program knows format {FORMAT}"
        ));
    }
    let size = |word: &str| {
        let size = word.parse::<u64>();
        size.map_err(|_| "its first line is not one".to_owned())
    };
    let bytes = (bytes != LEFT_OUT).then_some(bytes);
    Ok(Sizes {
        line: line.len() as u64 + 1,
        json: size(json)?,
        bytes: bytes.map(size).transpose()?,
    })
}

fn line(from: &mut impl Read) -> Result<String, String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_FIRST_LINE {
        from.read_exact(&mut byte).map_err(cut_off)?;
        if byte == *b"\n" {
            return String::from_utf8(line).map_err(|_| "it is not a state".to_owned());
        }
        line.extend(byte);
    }
    Err("it is not a state".to_owned())
}

fn part(size: u64, from: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut part = Vec::new();
    let read = from.take(size).read_to_end(&mut part).map_err(cut_off)?;
    if (read as u64) < size {
        return Err(cut_off("the rest is missing"));
    }
    Ok(part)
}

fn cut_off(error: impl std::fmt::Display) -> String {
    format!("it can't be read: {error}")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::upgrade::parcel::new_file;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct State {
        a: u8,
        #[serde(with = "side_bytes")]
        line: Vec<u8>,
    }

    fn text(written: &Written) -> Vec<u8> {
        let mut text = Vec::new();
        write(written, &mut text).unwrap();
        text
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for bytes in [None, Some(Vec::new()), Some(b"\nx\xff".to_vec())] {
            let json = b"{\"a\":1}".to_vec();
            let written = Written { json, bytes };
            assert_eq!(read(&mut text(&written).as_slice()), Ok(written));
        }
    }

    #[test]
    fn what_is_not_a_state_or_not_all_of_one_is_refused() {
        let written = Written {
            json: b"{}".to_vec(),
            bytes: Some(b"xyz".to_vec()),
        };
        let text = text(&written);
        for len in 0..text.len() {
            assert!(read(&mut &text[..len]).is_err(), "{len} bytes of it");
        }
        let long = "x".repeat(1000);
        for other in [
            "",
            "\n",
            &long,
            "mcp-tcp-proxy state\n",
            "mcp-tcp-proxy state 2 0 0\n",
            "mcp-tcp-proxy state 1 -1 0\n",
        ] {
            assert!(read(&mut other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn an_unknown_format_is_named() {
        let error = read(&mut b"mcp-tcp-proxy state 9 0 0\n".as_slice()).unwrap_err();
        assert_eq!(error, "it has format 9, and this program knows format 1");
    }

    fn state() -> State {
        let line = b"\nx\xff".to_vec();
        State { a: 1, line }
    }

    #[test]
    fn a_file_holds_the_same_text() {
        let mut file = new_file().unwrap();
        write_to_file(&state(), &file).unwrap();
        assert_eq!(read_from_file(&file), Ok(state()));
        assert_eq!(read_from_file(&file), Ok(state()), "it is still there");
        file.rewind().unwrap();
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        assert_eq!(all, text(&Written::new(&state()).unwrap()));
    }

    #[test]
    fn a_file_that_holds_anything_else_is_refused() {
        let whole = text(&Written::new(&state()).unwrap());
        let text_of = |json: &[u8]| {
            text(&Written {
                json: json.to_vec(),
                bytes: Some(Vec::new()),
            })
        };
        let others = (0..whole.len()).map(|len| whole[..len].to_vec());
        let others = others.chain([
            [&whole[..], b" "].concat(),
            text(&Written::without_bytes(&state()).unwrap()),
            text_of(b"{}"),
            text_of(br#"{"a":1,"line":[0,3]}"#),
            format!("{KIND} {FORMAT} {0} {0}\n", u64::MAX).into_bytes(),
            format!("{KIND} {FORMAT} {} 0\n", 1_u64 << 60).into_bytes(),
        ]);
        for other in others {
            let mut file = new_file().unwrap();
            file.write_all(&other).unwrap();
            let read = read_from_file::<State>(&file);
            assert!(read.is_err(), "{}", String::from_utf8_lossy(&other));
        }
    }
}
