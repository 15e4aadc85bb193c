//! Cuts what a server writes to stderr into lines for the log. It is always read, so that no server ever blocks on it.

use std::borrow::Cow;

/// The longest line that is logged, in bytes; the rest of it is dropped. With what the log puts before it, that still is
/// a line of the log (`PIPE_BUF`, 4096 bytes).
const MAX_LINE_BYTES: usize = 3900;

/// The stderr of one server process. Costs no memory between lines.
#[derive(Debug, Default)]
pub struct StderrLines {
    partial: Vec<u8>,
    cut: bool,
}

impl StderrLines {
    /// Takes bytes and hands out the lines that end in them.
    pub fn push(&mut self, mut bytes: &[u8], mut log: impl FnMut(&str)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.keep(&bytes[..end]);
            self.end(&mut log);
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// Hands out what has no line end.
    pub fn end(&mut self, mut log: impl FnMut(&str)) {
        let line = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if std::mem::take(&mut self.cut) {
            log(&format!("{text}… (cut at {MAX_LINE_BYTES} bytes)"));
        } else if !text.is_empty() {
            log(text);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE_BYTES - self.partial.len();
        self.cut |= bytes.len() > room;
        self.partial
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A message as the debug log shows it.
pub fn excerpt(line: &[u8]) -> Cow<'_, str> {
    /// The longest part of a message that is logged, in bytes.
    const MAX_EXCERPT_BYTES: usize = 1024;
    match line.get(..MAX_EXCERPT_BYTES) {
        Some(start) if line.len() > MAX_EXCERPT_BYTES => {
            format!("{}… ({} bytes)", String::from_utf8_lossy(start), line.len()).into()
        }
        _ => String::from_utf8_lossy(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut stderr = StderrLines::default();
        let mut lines = Vec::new();
        for piece in pieces {
            stderr.push(piece, |line| lines.push(line.to_owned()));
        }
        stderr.end(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_are_put_together() {
        assert_eq!(lines(&[b"a\r\nb", b"c\n\n", b"d"]), ["a", "bc", "d"]);
        assert_eq!(lines(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    #[test]
    fn long_lines_are_cut() {
        let long = vec![b'x'; 3 * MAX_LINE_BYTES];
        let logged = lines(&[&long, &long, b"\nnext\n"]);
        assert!(logged[0].starts_with("xxx") && logged[0].ends_with("(cut at 3900 bytes)"));
        assert_eq!(logged[1], "next");
    }

    #[test]
    fn excerpts_tell_the_length() {
        assert_eq!(excerpt(b"short"), "short");
        assert!(excerpt(&[b'x'; 2000]).ends_with("… (2000 bytes)"));
    }
}
