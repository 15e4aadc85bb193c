//! The demo MCP server on stdio: small but real, the default for first runs, tests and benches.
//!
//! This file moves bytes between the process's descriptors and the `Server`, and is
//! the only one here that knows descriptors and reads the clock. It must not know what a message says.
//! It stands alone: nothing of the proxy is used, so that the proxy can be tested against it.

mod answer;
mod json;
mod message;
mod pending;
mod server;
mod tools;

use std::io::{self, Stdin, Stdout};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use memchr::memchr;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::raise;
use nix::unistd::{read, write};

use server::Server;
use tools::Crash;

/// What a pipe holds by default, so that a full one is taken in one read.
const READ_BYTES: usize = 64 * 1024;

/// Answers are gathered up to this size before they are written, to spare a pipelining client's
/// server a system call per answer.
const GATHER_BYTES: usize = 64 * 1024;

/// Buffers that a huge message has grown beyond this are given back when it is done.
const KEEP_BYTES: usize = 1024 * 1024;

/// A peer that sends this much without a line end is not talking MCP.
const MAX_LINE_BYTES: usize = 256 * 1024 * 1024;

/// Serves MCP on file descriptors 0 and 1 until standard input ends; calls of `sleep` that still run
/// then are dropped. Takes over both descriptors: nothing else may read or write them meanwhile.
///
/// # Errors
/// What reading or writing reports, except a closed standard output, which ends the server quietly.
/// A line of more than 256 MiB is [`io::ErrorKind::InvalidData`].
pub fn run() -> io::Result<()> {
    match serve(&io::stdin(), &io::stdout()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn serve(stdin: &Stdin, stdout: &Stdout) -> io::Result<()> {
    let mut server = Server::default();
    let mut input = Input::default();
    let mut out = Vec::new();
    loop {
        let event = input.fill(stdin, server.next_deadline())?;
        let now = Instant::now();
        while let Some(line) = input.next_line() {
            handle(&mut server, line, now, &mut out, stdout)?;
        }
        if event == Event::End
            && let Some(line) = input.unterminated()
        {
            handle(&mut server, line, now, &mut out, stdout)?;
        }
        server.fire(now, &mut out);
        flush(stdout, &mut out)?;
        if event == Event::End {
            return Ok(());
        }
    }
}

fn handle(
    server: &mut Server,
    line: &[u8],
    now: Instant,
    out: &mut Vec<u8>,
    stdout: &Stdout,
) -> io::Result<()> {
    if let ControlFlow::Break(crash) = server.handle_line(line, now, out) {
        // What was answered before the crash was answered: only the call itself stays open.
        flush(stdout, out)?;
        die(crash);
    }
    if out.len() >= GATHER_BYTES {
        flush(stdout, out)?;
    }
    Ok(())
}

fn die(crash: Crash) -> ! {
    match crash {
        Crash::Exit(code) => std::process::exit(code.into()),
        Crash::Signal(signal) => {
            // Twice, for std handles SIGSEGV and SIGBUS: the first one only restores the default.
            let _ = raise(signal).and_then(|()| raise(signal));
            // Still here: whoever started us had the signal ignored. Exit as a shell reports it.
            std::process::exit(128 + signal as i32)
        }
    }
}

#[derive(PartialEq, Eq)]
enum Event {
    Bytes,
    Deadline,
    End,
}

/// What was read of standard input and not handled yet. Not a `BufReader`, whose buffer would hide
/// lines from `poll`.
#[derive(Default)]
struct Input {
    buffer: Vec<u8>,
    /// Where the line begins that is handled next.
    start: usize,
    /// Up to here there is no line end, so that a long line is not searched anew with every read.
    scanned: usize,
    /// The end of what was read; behind it is room.
    filled: usize,
}

impl Input {
    /// Reads once, waiting until there is something to read or `deadline` has come.
    fn fill(&mut self, stdin: &Stdin, deadline: Option<Instant>) -> io::Result<Event> {
        self.make_room()?;
        // Without a deadline the read itself waits, which spares a system call per round trip.
        let mut must_poll = deadline.is_some();
        loop {
            if must_poll && !ready_by(stdin, PollFlags::POLLIN, deadline)? {
                return Ok(Event::Deadline);
            }
            match read(stdin, &mut self.buffer[self.filled..]) {
                Ok(0) => return Ok(Event::End),
                Ok(count) => {
                    self.filled += count;
                    return Ok(Event::Bytes);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => must_poll = true,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn make_room(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.scanned -= self.start;
        self.filled -= self.start;
        self.start = 0;
        if self.filled > MAX_LINE_BYTES {
            let message = format!("a line of more than {MAX_LINE_BYTES} bytes on standard input");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if self.filled == 0 && self.buffer.len() > KEEP_BYTES {
            self.buffer = Vec::new();
        }
        if self.buffer.len() - self.filled < READ_BYTES {
            let grown = (2 * self.buffer.len()).max(READ_BYTES);
            self.buffer.resize(grown, 0);
        }
        Ok(())
    }

    fn next_line(&mut self) -> Option<&[u8]> {
        let unscanned = &self.buffer[self.scanned..self.filled];
        let Some(length) = memchr(b'\n', unscanned) else {
            self.scanned = self.filled;
            return None;
        };
        let start = self.start;
        let end = self.scanned + length;
        self.start = end + 1;
        self.scanned = self.start;
        Some(&self.buffer[start..end])
    }

    /// The last line, if only its line end is missing. What was cut off in its middle is nothing to answer.
    fn unterminated(&self) -> Option<&[u8]> {
        let rest = &self.buffer[self.start..self.filled];
        json::is_json(rest).then_some(rest)
    }
}

fn flush(stdout: &Stdout, out: &mut Vec<u8>) -> io::Result<()> {
    write_all(stdout, out)?;
    out.clear();
    if out.capacity() > KEEP_BYTES {
        *out = Vec::new();
    }
    Ok(())
}

/// std's `write_all` gives up at EAGAIN without saying how much was written.
fn write_all(stdout: &Stdout, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(stdout, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                ready_by(stdout, PollFlags::POLLOUT, None)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Waits until `fd` is ready, or has failed, which the next call on it will tell. False: `deadline` came first.
fn ready_by(fd: &impl AsFd, flags: PollFlags, deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        match poll(
            &mut [PollFd::new(fd.as_fd(), flags)],
            timeout_until(deadline),
        ) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn timeout_until(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    // Rounded up: a poll that ends within the last millisecond would find nothing due, and spin.
    let left = left + Duration::from_nanos(999_999);
    PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An input into which `bytes` were read `step` at a time; returns all lines and what was left.
    fn split(bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut input = Input::default();
        let mut lines = Vec::new();
        for piece in bytes.chunks(step) {
            input.make_room().unwrap();
            input.buffer[input.filled..][..piece.len()].copy_from_slice(piece);
            input.filled += piece.len();
            while let Some(line) = input.next_line() {
                lines.push(line.to_vec());
            }
        }
        (lines, input.buffer[input.start..input.filled].to_vec())
    }

    #[test]
    fn lines_are_the_same_wherever_reads_end() {
        let bytes = b"{}\n\n[1]\r\nlonger than the others\nrest";
        let expected: Vec<Vec<u8>> = bytes
            .rsplitn(2, |&byte| byte == b'\n')
            .last()
            .map(|lines| lines.split(|&byte| byte == b'\n').map(Vec::from).collect())
            .unwrap();
        for step in 1..=bytes.len() {
            let (lines, rest) = split(bytes, step);
            assert_eq!(lines, expected, "reads of {step} bytes");
            assert_eq!(rest, b"rest", "reads of {step} bytes");
        }
    }

    #[test]
    fn long_lines_grow_the_buffer_and_give_it_back() {
        let mut bytes = vec![b'x'; 3 * KEEP_BYTES];
        bytes.push(b'\n');
        let (lines, rest) = split(&bytes, READ_BYTES);
        assert_eq!(lines[0].len(), 3 * KEEP_BYTES);
        assert!(rest.is_empty());

        let mut input = Input {
            buffer: vec![0; 2 * KEEP_BYTES],
            ..Input::default()
        };
        input.make_room().unwrap();
        assert_eq!(input.buffer.len(), READ_BYTES);
    }

    #[test]
    fn an_unterminated_line_counts_only_if_it_is_whole() {
        let rest = |bytes: &[u8]| {
            let input = Input {
                buffer: bytes.to_vec(),
                filled: bytes.len(),
                ..Input::default()
            };
            input.unterminated().map(<[u8]>::to_vec)
        };
        assert_eq!(rest(br#"{"id":1}"#), Some(br#"{"id":1}"#.to_vec()));
        assert_eq!(rest(br#"{"id":1"#), None);
        assert_eq!(rest(b""), None);
    }

    #[test]
    fn timeouts_round_up() {
        assert_eq!(timeout_until(None), PollTimeout::NONE);
        assert_eq!(timeout_until(Some(Instant::now())), PollTimeout::ZERO);
        let soon = Instant::now() + Duration::from_millis(500);
        let millis = timeout_until(Some(soon)).as_millis().unwrap();
        assert!((1..=500).contains(&millis), "{millis}");
    }
}
