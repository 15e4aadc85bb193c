//! What a server's output adds to the log: its stderr, which is always read so that no server ever blocks on it, and
//! lines of its stdout that are not messages.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use log::{Level, log_enabled};
use serde::{Deserialize, Serialize};

use super::Context;
use super::last_words::LastWords;
use super::report::Label;
use crate::util::about::{Subject, about};
use crate::util::log_rate_limit::{LogRate, LogRateLimit};
use crate::util::plural::Counted;
use crate::util::side_bytes;
use crate::util::time::Time;

/// The longest line that is logged, in bytes; the rest of it is dropped. Together with its prefix, it still fits the
/// longest line of the log (`PIPE_BUF`, 4096 bytes).
const MAX_LINE_BYTES: usize = 3900;

/// How many lines the servers of one session may log.
pub static SESSION_OUTPUT: LogRate = LogRate {
    burst: 100,
    interval: Duration::from_millis(50),
};

/// Lines of a server that many sessions share.
pub static SHARED_OUTPUT: LogRate = LogRate {
    burst: 500,
    interval: Duration::from_millis(10),
};

/// Which lines of a server's stderr are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerLogging {
    /// All lines.
    All,
    /// Lines within the limit; and the last of the others if the server ends without having been asked to.
    Limited,
    /// No lines.
    None,
}

impl ServerLogging {
    /// The given limit, if lines are limited.
    pub fn limited_by(self, limit: &mut LogRateLimit) -> Option<&mut LogRateLimit> {
        (self == Self::Limited).then_some(limit)
    }
}

/// How many bytes of the last line are kept: enough for most lines.
const MAX_KEPT_BYTES: usize = 200;

/// The stderr of one server process. Costs no memory between lines.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StderrLines {
    #[serde(with = "side_bytes")]
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

/// The log output of one session's servers. Costs a pointer until there is something to log.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ServerLog(Option<Box<Output>>);

#[derive(Debug, Serialize, Deserialize)]
struct Output {
    stderr: StderrLines,
    limit: LogRateLimit,
    last_words: LastWords,
    /// The beginning of the last line on stderr, if there was any since the server was started.
    last_line: String,
}

impl ServerLog {
    /// Whether there never was anything to log.
    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The server wrote these bytes to its stderr.
    pub(super) fn stderr(&mut self, bytes: &[u8], label: &Label, cx: &mut Context<'_>) {
        let logging = cx.settings.server_log;
        if logging == ServerLogging::None {
            return;
        }
        let Output {
            stderr,
            limit,
            last_words,
            last_line,
        } = self.begin();
        let mut gate = Gate {
            limit: logging.limited_by(limit),
            shared: Some(&mut cx.logs.output),
            last_words: cx.memory.has_headroom().then_some(last_words),
        };
        stderr.push(bytes, |line| {
            keep_beginning(line, last_line);
            gate.log_stderr(label, line, cx.now);
        });
    }

    /// What the server last wrote to stderr. The next one begins anew.
    pub(super) fn take_last_line(&mut self) -> Option<String> {
        let output = self.0.as_deref_mut()?;
        Some(std::mem::take(&mut output.last_line)).filter(|line| !line.is_empty())
    }

    /// The server is gone: logs its last line even if it has no line end, and how many lines were left out; the last of
    /// them, too, if it was not asked to end.
    pub(super) fn server_ended(&mut self, was_asked: bool, label: &Label, cx: &mut Context<'_>) {
        let Some(Output {
            stderr,
            limit,
            last_words,
            last_line,
        }) = self.0.as_deref_mut()
        else {
            return;
        };
        let mut gate = Gate {
            limit: cx.settings.server_log.limited_by(limit),
            shared: Some(&mut cx.logs.output),
            last_words: Some(&mut *last_words),
        };
        stderr.end(|line| {
            keep_beginning(line, last_line);
            gate.log_stderr(label, line, cx.now);
        });
        log_left_out(limit, label);
        if was_asked {
            last_words.clear();
        } else {
            log_last_words(last_words, label);
        }
    }

    /// Warns of something in the server's output, within the limit.
    pub(super) fn warn(&mut self, label: &Label, cx: &mut Context<'_>, text: fmt::Arguments<'_>) {
        let Output {
            limit, last_words, ..
        } = self.begin();
        let mut gate = Gate {
            limit: Some(limit),
            shared: Some(&mut cx.logs.output),
            last_words: cx.memory.has_headroom().then_some(last_words),
        };
        gate.log(Level::Warn, label, text, cx.now);
    }

    /// How many bytes are kept of lines that were left out of the log.
    pub(super) fn kept_bytes(&self) -> usize {
        let output = self.0.as_ref();
        output.map_or(0, |output| output.last_words.bytes())
    }

    fn begin(&mut self) -> &mut Output {
        self.0.get_or_insert_with(|| {
            Box::new(Output {
                stderr: StderrLines::default(),
                limit: LogRateLimit::new(&SESSION_OUTPUT),
                last_words: LastWords::default(),
                last_line: String::new(),
            })
        })
    }
}

/// Keeps enough of a line to tell what was wrong.
fn keep_beginning(line: &str, kept: &mut String) {
    let beginning = &line[..line.floor_char_boundary(MAX_KEPT_BYTES)];
    kept.clear();
    kept.push_str(beginning);
    if beginning.len() < line.len() {
        kept.push('…');
    }
}

/// Lets lines of a server's output into the log, up to a limit.
pub struct Gate<'a> {
    /// `None` for no limit. It counts what is left out.
    pub limit: Option<&'a mut LogRateLimit>,
    /// The limit of all sessions together, if this is a session's and there is one.
    pub shared: Option<&'a mut LogRateLimit>,
    /// Where lines that are left out are kept; `None` if they are not kept.
    pub last_words: Option<&'a mut LastWords>,
}

impl Gate<'_> {
    /// A line of stderr.
    pub fn log_stderr(&mut self, label: &dyn Subject, line: &str, now: Time) {
        self.log(Level::Info, label, format_args!("stderr: {line}"), now);
    }

    fn log(&mut self, level: Level, label: &dyn Subject, text: fmt::Arguments<'_>, now: Time) {
        if log_enabled!(level) && self.admit(now) {
            if let Some(limit) = &mut self.limit {
                log_left_out(limit, label);
            }
            about!(at level, label; "{text}");
        } else if let Some(last_words) = &mut self.last_words {
            last_words.keep(text.to_string());
        }
    }

    /// When a server writes again after a quiet spell, it is about something else, and what was left out before is out
    /// of date.
    fn admit(&mut self, now: Time) -> bool {
        let Some(limit) = &mut self.limit else {
            return true;
        };
        if limit.is_full(now)
            && let Some(last_words) = &mut self.last_words
        {
            last_words.clear();
        }
        let is_admitted = limit.take(now) && self.shared.as_mut().is_none_or(|it| it.take(now));
        if !is_admitted {
            limit.leave_out();
        }
        is_admitted
    }
}

/// Logs how many lines were left out since the last time.
pub fn log_left_out(limit: &mut LogRateLimit, label: &dyn Subject) {
    let left_out = limit.take_left_out();
    if left_out > 0 {
        about!(
            info,
            label,
            "left out of the log: {} of the server's output",
            Counted(left_out, "line")
        );
    }
}

/// Logs what a server said last that was left out.
pub fn log_last_words(last_words: &mut LastWords, label: &dyn Subject) {
    let lines = last_words.take();
    if !lines.is_empty() {
        let count = lines.len();
        about!(
            warn,
            label,
            "the last of the output that was left out of the log, {}:",
            Counted(count, "line")
        );
    }
    for line in lines {
        about!(warn, label, "{line}");
    }
}

/// A message as the debug log shows it.
pub fn excerpt(line: &[u8]) -> Cow<'_, str> {
    /// The longest part of a message that is logged, in bytes: enough for most small messages.
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

    #[test]
    fn a_server_of_many_may_say_five_times_as_much_as_that_of_one() {
        assert_eq!(SHARED_OUTPUT.burst, 5 * SESSION_OUTPUT.burst);
        assert_eq!(SHARED_OUTPUT.interval, SESSION_OUTPUT.interval / 5);
    }

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
    fn the_beginning_of_the_last_line_is_kept() {
        let mut kept = String::new();
        let mut stderr = StderrLines::default();
        stderr.push(b"one\ntwo\nthr", |line| keep_beginning(line, &mut kept));
        assert_eq!(kept, "two");
        stderr.push(b"ee", |line| keep_beginning(line, &mut kept));
        stderr.end(|line| keep_beginning(line, &mut kept));
        assert_eq!(kept, "three");
        keep_beginning(&"ü".repeat(1000), &mut kept);
        assert_eq!(kept, "ü".repeat(100) + "…");
    }

    #[test]
    fn all_sessions_together_have_a_limit_and_each_counts_what_it_has_left_out() {
        static ALL: LogRate = LogRate {
            burst: 500,
            interval: Duration::from_millis(1),
        };
        let mut shared = LogRateLimit::new(&ALL);
        let now = Time::from_nanos(1 << 40);
        let mut admitted = 0;
        for _ in 0..10 {
            let mut own = LogRateLimit::new(&SESSION_OUTPUT);
            let mut gate = Gate {
                limit: Some(&mut own),
                shared: Some(&mut shared),
                last_words: None,
            };
            let more = (0..SESSION_OUTPUT.burst)
                .filter(|_| gate.admit(now))
                .count();
            admitted += more;
            assert_eq!(
                own.take_left_out(),
                u64::from(SESSION_OUTPUT.burst) - more as u64
            );
        }
        assert_eq!(admitted, ALL.burst as usize);
    }

    #[test]
    fn excerpts_tell_the_length() {
        assert_eq!(excerpt(b"short"), "short");
        assert!(excerpt(&[b'x'; 2000]).ends_with("… (2000 bytes)"));
    }
}
