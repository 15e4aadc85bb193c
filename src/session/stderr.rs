//! What a server's output puts into the log: its stderr, which is always read so that no server ever blocks on it, and
//! what of its stdout is not a message.

use std::borrow::Cow;

use log::warn;

use super::report::Label;
use crate::util::log_rate_limit::LogRateLimit;
use crate::util::time::Time;

/// The longest line that is logged, in bytes; the rest of it is dropped. With what the log puts before it, that still is
/// a line of the log (`PIPE_BUF`, 4096 bytes).
const MAX_LINE_BYTES: usize = 3900;

/// What is kept of the last line, in bytes: most lines as a whole.
const MAX_KEPT_BYTES: usize = 200;

/// The stderr of one server process. Costs no memory between lines.
#[derive(Debug, Default)]
pub struct StderrLines {
    partial: Vec<u8>,
    cut: bool,
}

impl StderrLines {
    /// Takes bytes, and passes on the lines that end in them.
    pub fn push(&mut self, mut bytes: &[u8], mut log: impl FnMut(&str)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.keep(&bytes[..end]);
            self.end(&mut log);
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// Passes on what has no line end.
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

/// What the log gets to see of one session's servers, at a limited rate. Costs a pointer until there is something to
/// log.
#[derive(Debug, Default)]
pub(super) struct ServerLog(Option<Box<Output>>);

#[derive(Debug)]
struct Output {
    stderr: StderrLines,
    limit: LogRateLimit,
    /// The beginning of the last line on stderr, if there was any since the server was started.
    last_line: String,
}

impl ServerLog {
    /// The server wrote these bytes to its stderr.
    pub(super) fn stderr(&mut self, bytes: &[u8], label: &Label, now: Time) {
        let output = self.begin(now);
        let (limit, last_line) = (&mut output.limit, &mut output.last_line);
        output.stderr.push(bytes, |line| {
            keep_beginning(line, last_line);
            log_stderr(line, limit, label, now);
        });
    }

    /// What the server last wrote to stderr. The next one begins anew.
    pub(super) fn take_last_line(&mut self) -> Option<String> {
        let output = self.0.as_deref_mut()?;
        Some(std::mem::take(&mut output.last_line)).filter(|line| !line.is_empty())
    }

    /// The server is gone: logs its last line even if it has no line end, and how many lines were left out.
    pub(super) fn server_ended(&mut self, label: &Label, now: Time) {
        let Some(output) = self.0.as_deref_mut() else {
            return;
        };
        let (limit, last_line) = (&mut output.limit, &mut output.last_line);
        output.stderr.end(|line| {
            keep_beginning(line, last_line);
            log_stderr(line, limit, label, now);
        });
        log_left_out(limit, label);
    }

    /// Logs one line about the server's output, unless there were too many.
    pub(super) fn limited(&mut self, label: &Label, now: Time, log: impl FnOnce()) {
        limited(&mut self.begin(now).limit, label, now, log);
    }

    fn begin(&mut self, now: Time) -> &mut Output {
        self.0.get_or_insert_with(|| {
            Box::new(Output {
                stderr: StderrLines::default(),
                limit: LogRateLimit::new(now),
                last_line: String::new(),
            })
        })
    }
}

/// Keeps so much of a line that it tells what was wrong.
fn keep_beginning(line: &str, kept: &mut String) {
    let beginning = &line[..line.floor_char_boundary(MAX_KEPT_BYTES)];
    kept.clear();
    kept.push_str(beginning);
    if beginning.len() < line.len() {
        kept.push('…');
    }
}

fn log_stderr(line: &str, limit: &mut LogRateLimit, label: &Label, now: Time) {
    limited(limit, label, now, || warn!("{label} stderr: {line}"));
}

fn limited(limit: &mut LogRateLimit, label: &Label, now: Time, log: impl FnOnce()) {
    if limit.admit(now) {
        log_left_out(limit, label);
        log();
    }
}

fn log_left_out(limit: &mut LogRateLimit, label: &Label) {
    let left_out = limit.take_left_out();
    if left_out > 0 {
        warn!("{label}: {left_out} lines of the server's output were left out of the log");
    }
}

/// A message as the debug log shows it.
pub(super) fn excerpt(line: &[u8]) -> Cow<'_, str> {
    /// The longest part of a message that is logged, in bytes: most small messages whole.
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
    fn the_last_line_is_kept_until_the_server_has_ended() {
        let label = Label::Connection("localhost:1".into());
        let now = Time::from_nanos(1 << 40);
        let mut log = ServerLog::default();
        assert_eq!(log.take_last_line(), None);
        log.stderr(b"one\ntwo\nthr", &label, now);
        log.stderr(b"ee", &label, now);
        log.server_ended(&label, now);
        assert_eq!(log.take_last_line().as_deref(), Some("three"));
        assert_eq!(log.take_last_line(), None);
        log.stderr("ü".repeat(1000).as_bytes(), &label, now);
        log.server_ended(&label, now);
        let kept = log.take_last_line().unwrap_or_default();
        assert_eq!(kept, "ü".repeat(100) + "…");
    }

    #[test]
    fn excerpts_tell_the_length() {
        assert_eq!(excerpt(b"short"), "short");
        assert!(excerpt(&[b'x'; 2000]).ends_with("… (2000 bytes)"));
    }
}
