//! A [`log::Log`] on stderr that never blocks, panics or ends the proxy.
//!
//! `simple_logger` prints with `eprintln!`, which panics when stderr is closed and blocks when it
//! is a full pipe; then one slow reader of the log would hold up every session. Here a line that
//! stderr does not take at once is lost, and counted.
//!
//! This file must not know what is logged.

use std::fmt::{self, Write as _};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::Result;
use nix::errno::Errno;

use crate::reactor::stdio::{Direction, Stdio};

/// Logs to stderr from now on, what is at `max_level` or more severe; of other crates (`mio`
/// traces a lot) only what is at `Info` or more severe. Only the first call opens stderr, later
/// ones just change the level.
///
/// A line that stderr took only a part of is finished, and lost ones are reported, when the next
/// line is logged or `log::logger().flush()` is called. Neither blocks.
pub fn init(max_level: LevelFilter) {
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let logger = LOGGER.get_or_init(|| {
        let stderr = std::io::stderr();
        Logger {
            out: Mutex::new(LineWriter::new(Stdio::open(stderr.as_fd(), Direction::Out))),
        }
    });
    // Fails if there is a logger already, and that one is either ours or meant by the embedder.
    let _ = log::set_logger(logger);
    log::set_max_level(max_level);
}

/// All of a line, its newline included. The rest is cut off: it bounds what is kept of a line that
/// stderr took the half of.
const MAX_LINE_BYTES: usize = 64 * 1024;

struct Logger {
    out: Mutex<LineWriter<Stdio>>,
}

impl Logger {
    fn out(&self) -> MutexGuard<'_, LineWriter<Stdio>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let limit = if is_ours(metadata.target()) {
            LevelFilter::Trace
        } else {
            LevelFilter::Info
        };
        metadata.level() <= limit.min(log::max_level())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Before the lock is taken: what is formatted may log in turn.
            let line = format_line(SystemTime::now(), record.level(), *record.args());
            self.out().write_line(&line);
        }
    }

    fn flush(&self) {
        self.out().catch_up();
    }
}

fn is_ours(target: &str) -> bool {
    let rest = target.strip_prefix(env!("CARGO_CRATE_NAME"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What a message looks like in the log: one line that can't take over the terminal.
pub fn one_line(message: &dyn fmt::Display) -> String {
    let mut line = String::new();
    // An error is the message's own, or says that the line is cut.
    let _ = Escaped { line: &mut line }.write_fmt(format_args!("{message}"));
    line
}

fn format_line(now: SystemTime, level: Level, message: fmt::Arguments<'_>) -> String {
    let mut line = String::with_capacity(128);
    // humantime panics before 1970.
    let time = humantime::format_rfc3339_millis(now.max(SystemTime::UNIX_EPOCH));
    // Errors are humantime's after the year 9999, a message's own, or say that the line is cut:
    // in each case the line goes out as far as it got.
    let _ = write!(line, "{time} {level:<5} ");
    let _ = Escaped { line: &mut line }.write_fmt(message);
    line.push('\n');
    line
}

/// Writes to a line what can't end it, forge another, or take over the terminal.
struct Escaped<'a> {
    line: &'a mut String,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const CUT: &str = "…";
        const LONGEST_ESCAPE: usize = "\\u{10ffff}".len();
        for c in text.chars() {
            if self.line.len() + LONGEST_ESCAPE + CUT.len() + 1 > MAX_LINE_BYTES {
                self.line.push_str(CUT);
                return Err(fmt::Error);
            }
            if is_unsafe_to_show(c) {
                self.line.extend(c.escape_default());
            } else {
                self.line.push(c);
            }
        }
        Ok(())
    }
}

/// Control characters, and those that break a line or reverse its direction where it is displayed.
fn is_unsafe_to_show(c: char) -> bool {
    let breaks_or_reverses =
        matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\t') || breaks_or_reverses
}

/// Where lines go. The seam under which tests put their own.
trait Sink {
    /// Writes some of `bytes` and says how many, without blocking: `EAGAIN` if that is none.
    fn write(&mut self, bytes: &[u8]) -> Result<usize>;
}

/// Whole lines or nothing: keeps the tail of a line that was half written, and counts what was lost.
struct LineWriter<S> {
    sink: S,
    /// What must be written before anything else. At most the rest of one line.
    tail: Vec<u8>,
    /// Lines lost since the last time that it was told.
    lost: u64,
}

impl<S: Sink> LineWriter<S> {
    fn new(sink: S) -> Self {
        Self {
            sink,
            tail: Vec::new(),
            lost: 0,
        }
    }

    /// Writes a line that ends in its newline; it may be lost.
    fn write_line(&mut self, line: &str) {
        if !self.catch_up() || !self.put(line.as_bytes()) {
            self.lost += 1;
        }
    }

    /// Writes what is left of an earlier line, and tells of lost ones. False if there is no room.
    fn catch_up(&mut self) -> bool {
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() && !self.put(&tail) {
            self.tail = tail;
        }
        if self.tail.is_empty() && self.lost > 0 && self.put(lost_line(self.lost).as_bytes()) {
            self.lost = 0;
        }
        self.tail.is_empty() && self.lost == 0
    }

    /// Writes `bytes`, and keeps as the tail what did not fit. False if nothing was written.
    fn put(&mut self, bytes: &[u8]) -> bool {
        debug_assert!(self.tail.is_empty());
        let sent = self.push(bytes);
        if sent > 0 {
            self.tail = bytes[sent..].to_vec();
        }
        sent > 0
    }

    /// Writes as much as there is room for. Errors are no room: whatever they are, all that is left
    /// to do is to try again with the next line.
    fn push(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.sink.write(&bytes[sent..]) {
                Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => break,
                Ok(count) => sent += count.min(bytes.len() - sent),
            }
        }
        sent
    }
}

fn lost_line(lost: u64) -> String {
    let message = format_args!("log lines lost, as stderr did not take them: {lost}");
    format_line(SystemTime::now(), Level::Warn, message)
}

impl Sink for Stdio {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.write_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::unistd::pipe2;

    use super::*;

    /// Takes what the script says, then everything.
    #[derive(Default)]
    struct Scripted {
        script: VecDeque<Result<usize>>,
        taken: String,
    }

    impl Sink for Scripted {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            let count = self.script.pop_front().unwrap_or(Ok(bytes.len()))?;
            self.taken
                .push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            Ok(count)
        }
    }

    fn scripted(script: &[Result<usize>]) -> LineWriter<Scripted> {
        let script = script.iter().copied().collect();
        LineWriter::new(Scripted {
            script,
            taken: String::new(),
        })
    }

    /// Drops the time from lines that have one.
    fn messages(text: &str) -> Vec<&str> {
        text.lines()
            .map(|line| line.split_once("Z ").map_or(line, |(_, rest)| rest))
            .collect()
    }

    const FULL: Result<usize> = Err(Errno::EAGAIN);

    #[test]
    fn lines_pass() {
        let mut out = scripted(&[Ok(1), Err(Errno::EINTR), Ok(2)]);
        out.write_line("one\n");
        out.write_line("two\n");
        assert_eq!(out.sink.taken, "one\ntwo\n");
    }

    #[test]
    fn lost_lines_are_counted_and_told_of() {
        let mut out = scripted(&[FULL, Err(Errno::EPIPE), FULL, Err(Errno::ENOSPC), Ok(0)]);
        for _ in 0..5 {
            out.write_line("lost\n");
        }
        out.write_line("back\n");
        out.write_line("again\n");
        let told = "WARN  log lines lost, as stderr did not take them: 5";
        assert_eq!(messages(&out.sink.taken), [told, "back", "again"]);
    }

    #[test]
    fn a_flush_tells_of_lost_lines_too() {
        let mut out = scripted(&[FULL]);
        out.write_line("lost\n");
        assert!(out.catch_up());
        assert_eq!(
            messages(&out.sink.taken),
            ["WARN  log lines lost, as stderr did not take them: 1"]
        );
    }

    #[test]
    fn a_half_written_line_is_finished_first() {
        let mut out = scripted(&[Ok(3), FULL, FULL, Ok(1), FULL]);
        out.write_line("abcdef\n");
        out.write_line("lost\n");
        out.write_line("lost\n");
        out.write_line("next\n");
        let told = "WARN  log lines lost, as stderr did not take them: 2";
        assert_eq!(messages(&out.sink.taken), ["abcdef", told, "next"]);
    }

    #[test]
    fn a_half_written_loss_is_not_told_twice() {
        let mut out = scripted(&[FULL, Ok(10), FULL, FULL]);
        for line in ["lost\n", "lost\n", "lost\n", "next\n"] {
            out.write_line(line);
        }
        let expected = [
            "WARN  log lines lost, as stderr did not take them: 1",
            "WARN  log lines lost, as stderr did not take them: 2",
            "next",
        ];
        assert_eq!(messages(&out.sink.taken), expected);
    }

    #[test]
    fn an_error_in_the_middle_of_a_line_does_not_glue_the_next_to_it() {
        let mut out = scripted(&[Ok(2), Err(Errno::EIO), Err(Errno::EIO)]);
        for line in ["half\n", "lost\n", "back\n"] {
            out.write_line(line);
        }
        let told = "WARN  log lines lost, as stderr did not take them: 1";
        assert_eq!(messages(&out.sink.taken), ["half", told, "back"]);
    }

    fn line_of(message: fmt::Arguments<'_>) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_357_518_123);
        format_line(now, Level::Warn, message)
    }

    #[test]
    fn a_line_is_time_level_and_message() {
        assert_eq!(
            line_of(format_args!("a\tb é")),
            "2026-11-22T14:25:18.123Z WARN  a\tb é\n"
        );
    }

    #[test]
    fn no_message_forges_a_line() {
        let line = line_of(format_args!("a\r\nb\x1b[2J\0\u{85}\u{2028}\u{202e}c"));
        let escaped = r"a\r\nb\u{1b}[2J\u{0}\u{85}\u{2028}\u{202e}c";
        assert_eq!(messages(&line), [format!("WARN  {escaped}")]);
    }

    #[test]
    fn long_lines_are_cut() {
        for c in ["x", "€", "\x1b"] {
            let line = line_of(format_args!("{}", c.repeat(MAX_LINE_BYTES)));
            assert!(line.len() <= MAX_LINE_BYTES && line.len() > MAX_LINE_BYTES - 32);
            assert!(line.ends_with("…\n"));
        }
    }

    #[test]
    fn odd_clocks_do_not_panic() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        let line = format_line(before, Level::Info, format_args!("x"));
        assert_eq!(line, "1970-01-01T00:00:00.000Z INFO  x\n");
        let after = SystemTime::UNIX_EPOCH + Duration::from_mins(5_000_000_000);
        assert!(format_line(after, Level::Info, format_args!("x")).ends_with("x\n"));
    }

    #[test]
    fn other_crates_are_heard_from_info_up() {
        log::set_max_level(LevelFilter::Trace);
        let logger = Logger {
            out: Mutex::new(LineWriter::new(Stdio::closed())),
        };
        let enabled = |target, level| {
            logger.enabled(&Metadata::builder().target(target).level(level).build())
        };
        assert!(enabled("mcp_tcp_proxy", Level::Trace));
        assert!(enabled("mcp_tcp_proxy::session", Level::Debug));
        assert!(!enabled("mcp_tcp_proxy_other", Level::Debug));
        assert!(!enabled("mio::poll", Level::Trace));
        assert!(enabled("mio::poll", Level::Info));
        logger.log(
            &Record::builder()
                .args(format_args!("into the void"))
                .build(),
        );
    }

    fn pipe() -> (File, OwnedFd) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        (read.into(), write)
    }

    /// Writes to a full pipe, empties it, writes again; what was not lost must be whole.
    fn fill_and_recover(stderr: Stdio, mut reader: impl Read) {
        let mut out = LineWriter::new(stderr);
        let line = format!("{}\n", "x".repeat(9_000));
        for _ in 0..100 {
            out.write_line(&line);
        }
        assert!(out.lost > 0);
        let mut text = vec![0; 4 << 20];
        let read = reader.read(&mut text).unwrap();
        text.truncate(read);
        assert!(out.catch_up());
        out.write_line("after\n");
        drop(out);
        reader.read_to_end(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let (whole, others): (Vec<_>, Vec<_>) =
            text.lines().partition(|kept| *kept == line.trim_end());
        assert!(!whole.is_empty());
        assert!(others[0].contains("log lines lost"), "{:.80}", others[0]);
        assert_eq!(others[1..], ["after"]);
    }

    #[test]
    fn a_full_pipe_does_not_block_and_is_left_as_it_was() {
        let (reader, writer) = pipe();
        let stderr = Stdio::open(writer.as_fd(), Direction::Out);
        let flags = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
        drop(writer);
        fill_and_recover(stderr, reader);
    }

    #[test]
    fn a_full_pipe_of_someone_else_does_not_block() {
        let (reader, writer) = pipe();
        fill_and_recover(Stdio::polled(writer), reader);
    }

    #[test]
    fn a_full_socket_does_not_block() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let stderr = Stdio::open(writer.as_fd(), Direction::Out);
        drop(writer);
        fill_and_recover(stderr, reader);
    }

    #[test]
    fn a_stderr_that_nobody_reads_is_no_ones_end() {
        let (reader, writer) = pipe();
        let reopened = Stdio::open(writer.as_fd(), Direction::Out);
        drop(reader);
        let (peer, socket) = UnixStream::pair().unwrap();
        drop(peer);
        for stderr in [
            reopened,
            Stdio::open(writer.as_fd(), Direction::Out),
            Stdio::polled(writer),
            Stdio::open(socket.as_fd(), Direction::Out),
            Stdio::closed(),
        ] {
            let mut out = LineWriter::new(stderr);
            out.write_line("gone\n");
            assert_eq!((out.lost, out.tail.len()), (1, 0));
        }
    }

    #[test]
    fn a_file_is_appended_to_where_its_sharers_stand() {
        let path = std::env::temp_dir().join(format!("logger-test-{}", std::process::id()));
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .clone();
        let mut file = options.open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(b"before\n").unwrap();
        let stderr = Stdio::open(file.as_fd(), Direction::Out);
        let mut out = LineWriter::new(stderr);
        out.write_line("one\n");
        file.write_all(b"between\n").unwrap();
        out.write_line("two\n");
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before\none\nbetween\ntwo\n");
    }

    #[test]
    fn a_full_device_loses_lines() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut out = LineWriter::new(Stdio::open(full.as_fd(), Direction::Out));
        out.write_line("lost\n");
        out.write_line("lost\n");
        assert_eq!(out.lost, 2);
    }
}
