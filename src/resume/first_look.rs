//! The look at a new connection before it is a session: whoever comes back says so in the first line, and needs no place.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::util::side_bytes;

/// A first line is waited for this long: it comes with the connection, or there is none.
pub const LOOK_TIME: Duration = Duration::from_millis(100);

/// And up to this many bytes.
pub const LOOK_BYTES: usize = 8 * 1024;

/// What has come of a connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FirstLook {
    #[serde(with = "side_bytes")]
    bytes: Vec<u8>,
    /// Where the line begins that is under way.
    start: usize,
}

impl FirstLook {
    /// Takes what came. Returns whether there is nothing more to wait for.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        while let Some(end) = memchr::memchr(b'\n', &self.bytes[self.start..]) {
            let line = &self.bytes[self.start..self.start + end];
            if !line.trim_ascii().is_empty() {
                return true;
            }
            self.start += end + 1;
        }
        self.bytes.len() > LOOK_BYTES
    }

    /// The first line that is not blank, without its line end, if it has come, and what follows it.
    pub fn line(&self) -> Option<(&[u8], &[u8])> {
        let rest = &self.bytes[self.start..];
        let end = memchr::memchr(b'\n', rest)?;
        Some((&rest[..end], &rest[end + 1..]))
    }

    /// All that came.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_is_not_blank_is_waited_for() {
        let mut look = FirstLook::default();
        assert!(!look.take(b"\n \r\n{\"a\"") && look.line().is_none());
        assert!(look.take(b":1}\nmore"));
        assert_eq!(look.line(), Some((&b"{\"a\":1}"[..], &b"more"[..])));
        assert_eq!(look.into_bytes(), b"\n \r\n{\"a\":1}\nmore");
    }

    #[test]
    fn a_line_without_an_end_is_not_waited_for_for_ever() {
        let mut look = FirstLook::default();
        assert!(!look.take(&[b'x'; LOOK_BYTES]) && look.take(b"x"));
        assert_eq!(look.line(), None);
        assert!(FirstLook::default().take(&[b'\n'; LOOK_BYTES + 1]));
    }
}
