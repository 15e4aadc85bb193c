//! The state as a text: a line that says what follows, JSON, and the buffers.
//!
//! Any program may take a state over whose number it knows, an older one too. So the number changes only when a program
//! that does not know what is new would go wrong; fields that may be missing are no reason.

use std::io::{self, Read, Write};

use crate::util::side_bytes::Written;

/// What the number of the format follows.
const KIND: &str = "mcp-tcp-proxy state";

/// The format that is written, and read.
const FORMAT: u32 = 1;

/// What stands for the size of buffers that were left out.
const LEFT_OUT: &str = "-";

/// The longest first line, in bytes.
const MAX_FIRST_LINE: usize = 128;

/// Writes a state.
///
/// # Errors
/// Those of `to`.
pub fn write(written: &Written, to: &mut impl Write) -> io::Result<()> {
    let bytes = written.bytes.as_deref();
    let size = bytes.map_or_else(|| LEFT_OUT.to_owned(), |bytes| bytes.len().to_string());
    writeln!(to, "{KIND} {FORMAT} {} {size}", written.json.len())?;
    to.write_all(&written.json)?;
    to.write_all(bytes.unwrap_or_default())
}

/// Reads a state.
///
/// # Errors
/// Why it can't be read.
pub fn read(from: &mut impl Read) -> Result<Written, String> {
    let line = first_line(from)?;
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
    let json = part(json, from)?;
    let bytes = (bytes != LEFT_OUT).then(|| part(bytes, from)).transpose()?;
    Ok(Written { json, bytes })
}

fn first_line(from: &mut impl Read) -> Result<String, String> {
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

fn part(size: &str, from: &mut impl Read) -> Result<Vec<u8>, String> {
    let size: u64 = size
        .parse()
        .map_err(|_| "its first line is not one".to_owned())?;
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
    use super::*;

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
}
