//! Whole lines to something that may not take them: what it does not take at once is lost, and counted.

use nix::Result;
use nix::errno::Errno;

use crate::reactor::stdio::Stdio;

/// Where lines go. The seam under which tests put their own.
pub(super) trait Sink {
    /// Writes some of `bytes` and says how many, without blocking: `EAGAIN` if that is none.
    fn write(&mut self, bytes: &[u8]) -> Result<usize>;
}

/// Whole lines or nothing: keeps the tail of a line that was half written, and counts what was lost.
#[derive(Debug)]
pub(super) struct LineWriter<S> {
    sink: S,
    /// What must be written before anything else. At most the rest of one line.
    tail: Vec<u8>,
    /// Lines lost since the last time that it was told.
    lost: u64,
    lost_ever: u64,
}

impl<S: Sink> LineWriter<S> {
    pub(super) fn new(sink: S) -> Self {
        Self {
            sink,
            tail: Vec::new(),
            lost: 0,
            lost_ever: 0,
        }
    }

    /// What is left of a line that was half written.
    pub(super) fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Another program has written half a line, and this is left of it.
    pub(super) fn set_tail(&mut self, tail: Vec<u8>) {
        debug_assert!(self.tail.is_empty());
        self.tail = tail;
    }

    /// How many lines were lost so far.
    pub(super) fn lost_ever(&self) -> u64 {
        self.lost_ever
    }

    /// Writes a line that ends in its newline; it may be lost. `lost_line` makes a line of the number of lines that were
    /// lost before.
    pub(super) fn write_line(&mut self, line: &[u8], lost_line: impl FnOnce(u64) -> Vec<u8>) {
        if !self.catch_up(lost_line) || !self.put(line) {
            self.lost += 1;
            self.lost_ever += 1;
        }
    }

    /// Writes what is left of an earlier line, and tells of lost ones. False if there is no room.
    pub(super) fn catch_up(&mut self, lost_line: impl FnOnce(u64) -> Vec<u8>) -> bool {
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() && !self.put(&tail) {
            self.tail = tail;
        }
        if self.tail.is_empty() && self.lost > 0 && self.put(&lost_line(self.lost)) {
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
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::unistd::pipe2;

    use super::*;
    use crate::reactor::stdio::Direction;
    use crate::util::others_end::wait_until_others_have_closed;

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

    fn told(lost: u64) -> Vec<u8> {
        format!("log lines lost: {lost}\n").into_bytes()
    }

    fn lines(text: &str) -> Vec<&str> {
        text.lines().collect()
    }

    const FULL: Result<usize> = Err(Errno::EAGAIN);

    #[test]
    fn lines_pass() {
        let mut out = scripted(&[Ok(1), Err(Errno::EINTR), Ok(2)]);
        out.write_line(b"one\n", told);
        out.write_line(b"two\n", told);
        assert_eq!(out.sink.taken, "one\ntwo\n");
    }

    #[test]
    fn lost_lines_are_counted_and_told_of() {
        let mut out = scripted(&[FULL, Err(Errno::EPIPE), FULL, Err(Errno::ENOSPC), Ok(0)]);
        for _ in 0..5 {
            out.write_line(b"lost\n", told);
        }
        out.write_line(b"back\n", told);
        out.write_line(b"again\n", told);
        let lost = "log lines lost: 5";
        assert_eq!(lines(&out.sink.taken), [lost, "back", "again"]);
    }

    #[test]
    fn a_flush_tells_of_lost_lines_too() {
        let mut out = scripted(&[FULL]);
        out.write_line(b"lost\n", told);
        assert!(out.catch_up(told));
        assert_eq!(lines(&out.sink.taken), ["log lines lost: 1"]);
    }

    #[test]
    fn a_half_written_line_is_finished_first() {
        let mut out = scripted(&[Ok(3), FULL, FULL, Ok(1), FULL]);
        out.write_line(b"abcdef\n", told);
        out.write_line(b"lost\n", told);
        out.write_line(b"lost\n", told);
        out.write_line(b"next\n", told);
        let lost = "log lines lost: 2";
        assert_eq!(lines(&out.sink.taken), ["abcdef", lost, "next"]);
    }

    #[test]
    fn a_half_written_loss_is_not_told_twice() {
        let mut out = scripted(&[FULL, Ok(10), FULL, FULL]);
        for line in ["lost\n", "lost\n", "lost\n", "next\n"] {
            out.write_line(line.as_bytes(), told);
        }
        let expected = ["log lines lost: 1", "log lines lost: 2", "next"];
        assert_eq!(lines(&out.sink.taken), expected);
    }

    #[test]
    fn an_error_in_the_middle_of_a_line_does_not_glue_the_next_to_it() {
        let mut out = scripted(&[Ok(2), Err(Errno::EIO), Err(Errno::EIO)]);
        for line in ["half\n", "lost\n", "back\n"] {
            out.write_line(line.as_bytes(), told);
        }
        let lost = "log lines lost: 1";
        assert_eq!(lines(&out.sink.taken), ["half", lost, "back"]);
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
            out.write_line(line.as_bytes(), told);
        }
        assert!(out.lost > 0);
        let mut text = vec![0; 4 << 20];
        let read = reader.read(&mut text).unwrap();
        text.truncate(read);
        assert!(out.catch_up(told));
        out.write_line(b"after\n", told);
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
        wait_until_others_have_closed(&writer);
        wait_until_others_have_closed(&socket);
        for stderr in [
            reopened,
            Stdio::open(writer.as_fd(), Direction::Out),
            Stdio::polled(writer),
            Stdio::open(socket.as_fd(), Direction::Out),
            Stdio::closed(),
        ] {
            let mut out = LineWriter::new(stderr);
            out.write_line(b"gone\n", told);
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
        out.write_line(b"one\n", told);
        file.write_all(b"between\n").unwrap();
        out.write_line(b"two\n", told);
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before\none\nbetween\ntwo\n");
    }

    #[test]
    fn a_full_device_loses_lines() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut out = LineWriter::new(Stdio::open(full.as_fd(), Direction::Out));
        out.write_line(b"lost\n", told);
        out.write_line(b"lost\n", told);
        assert_eq!(out.lost, 2);
    }
}
