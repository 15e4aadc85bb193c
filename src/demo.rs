//! The demo MCP server on stdio: small but real, the default for first runs, tests and benches.
//!
//! This file moves bytes between file descriptors and the `Server`, and is the only one here that knows descriptors and
//! reads the clock. It must not know what a message says. Nothing of the proxy is used, so that the proxy can be tested
//! against it.

mod message;
mod note;
mod server;
mod tools;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use memchr::memchr;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::raise;
use nix::unistd::{read, write};

use server::Server;
use tools::Crash;

/// What a pipe holds by default, so that a full one is emptied by one read.
const READ_BYTES: usize = 64 * 1024;

/// Buffers that a huge message has grown beyond this are given back afterwards.
const KEEP_BYTES: usize = 1024 * 1024;

/// A client that sends this much without a line end is not talking MCP.
const MAX_LINE_BYTES: usize = 256 * 1024 * 1024;

/// Serves MCP on file descriptors 0 and 1 until standard input ends; calls of `sleep` that still run then are dropped.
/// Takes over both descriptors: nothing else may read or write them meanwhile.
///
/// # Errors
/// What reading or writing reports, except a closed standard output, which ends the server quietly.
/// A line of more than 256 MiB is [`io::ErrorKind::InvalidData`].
pub fn run() -> io::Result<()> {
    match serve(io::stdin().as_fd(), io::stdout().as_fd()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn serve(stdin: BorrowedFd, stdout: BorrowedFd) -> io::Result<()> {
    let mut server = Server::default();
    let mut chunk = vec![0; READ_BYTES];
    // The beginning of a line whose end has not been read yet.
    let mut rest = Vec::new();
    loop {
        let deadline = server.next_deadline();
        let read = || read(stdin, &mut chunk);
        let count = complete(stdin, PollFlags::POLLIN, deadline, read)?;
        let at_end = count == Some(0);
        let now = Instant::now();
        let bytes = &chunk[..count.unwrap_or(0)];
        split(&mut rest, bytes, |line| server.handle_line(line, now));
        if at_end && message::is_json(&rest) {
            // Only its line end is missing. A message cut off in the middle needs no response.
            server.handle_line(&rest, now);
        }
        if let Some(crash) = server.crash {
            // Only the call that ends the process stays open: what came before it is answered.
            flush(&mut server.out, stdout)?;
            die(crash);
        }
        server.fire(now);
        flush(&mut server.out, stdout)?;
        if at_end {
            return Ok(());
        }
        if rest.len() > MAX_LINE_BYTES {
            let message = format!("a line of more than {MAX_LINE_BYTES} bytes on standard input");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
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

/// Passes each line that `bytes` complete to `handle`, without its line end.
fn split(rest: &mut Vec<u8>, mut bytes: &[u8], mut handle: impl FnMut(&[u8])) {
    while let Some(end) = memchr(b'\n', bytes) {
        if rest.is_empty() {
            handle(&bytes[..end]);
        } else {
            rest.extend_from_slice(&bytes[..end]);
            handle(rest);
            empty(rest);
        }
        bytes = &bytes[end + 1..];
    }
    rest.extend_from_slice(bytes);
}

fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEEP_BYTES);
}

/// Writes everything, however long it takes: while a client doesn't read, nothing is read from it either.
fn flush(out: &mut Vec<u8>, stdout: BorrowedFd) -> io::Result<()> {
    let mut written = 0;
    while written < out.len() {
        let write = || write(stdout, &out[written..]);
        written += complete(stdout, PollFlags::POLLOUT, None, write)?.unwrap_or(0);
    }
    empty(out);
    Ok(())
}

/// Reads or writes once, by `call`, as soon as that is possible. `None`: `deadline` came first.
fn complete(
    fd: BorrowedFd,
    readiness: PollFlags,
    deadline: Option<Instant>,
    mut call: impl FnMut() -> nix::Result<usize>,
) -> io::Result<Option<usize>> {
    // Without a deadline the call itself waits, which spares a system call per round trip, unless the descriptor is
    // non-blocking.
    let mut must_poll = deadline.is_some();
    loop {
        if must_poll {
            match poll(&mut [PollFd::new(fd, readiness)], timeout_until(deadline)) {
                Ok(0) => return Ok(None),
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
        }
        match call() {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => must_poll = true,
            done => return Ok(Some(done?)),
        }
    }
}

fn timeout_until(deadline: Option<Instant>) -> PollTimeout {
    deadline.map_or(PollTimeout::NONE, |deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: a poll that ends within the last millisecond would find nothing due, and spin.
        let left = left + Duration::from_nanos(999_999);
        PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::thread;

    use nix::fcntl::OFlag;
    use nix::unistd::{pipe, pipe2};

    use super::*;

    /// All lines of `bytes`, read `step` bytes at a time, and what was left.
    fn lines(bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut rest = Vec::new();
        let mut lines = Vec::new();
        for piece in bytes.chunks(step) {
            split(&mut rest, piece, |line| lines.push(line.to_vec()));
        }
        (lines, rest)
    }

    /// What the server writes to a client that sends `input`, closes its end, and reads then.
    fn served(input: &str) -> String {
        let (stdin, sender) = pipe().unwrap();
        let (receiver, stdout) = pipe().unwrap();
        File::from(sender).write_all(input.as_bytes()).unwrap();
        serve(stdin.as_fd(), stdout.as_fd()).unwrap();
        drop(stdout);
        io::read_to_string(File::from(receiver)).unwrap()
    }

    fn pong(id: u32) -> String {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n")
    }

    fn ping(id: u32) -> String {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}")
    }

    fn sleep(id: u32, seconds: f32) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"sleep","arguments":{{"seconds":{seconds}}}}}}}"#
        )
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
            let (lines, rest) = lines(bytes, step);
            assert_eq!(lines, expected, "reads of {step} bytes");
            assert_eq!(rest, b"rest", "reads of {step} bytes");
        }
    }

    #[test]
    fn long_lines_grow_the_buffer_and_give_it_back() {
        let (piece, mut rest) = (vec![b'x'; READ_BYTES], Vec::new());
        for _ in 0..48 {
            split(&mut rest, &piece, |_| panic!());
        }
        assert!(rest.capacity() > KEEP_BYTES);
        let mut length = 0;
        split(&mut rest, b"\n", |line| length = line.len());
        assert_eq!(length, 48 * READ_BYTES);
        assert_eq!(rest.capacity(), KEEP_BYTES);
    }

    #[test]
    fn endless_lines_are_an_error() {
        let (stdin, sender) = pipe().unwrap();
        let (receiver, stdout) = pipe().unwrap();
        let server = thread::spawn(move || serve(stdin.as_fd(), stdout.as_fd()));
        let mut sender = File::from(sender);
        writeln!(sender, "{}", ping(1)).unwrap();
        let piece = vec![b'x'; 1024 * 1024];
        while sender.write_all(&piece).is_ok() {}
        let error = server.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(io::read_to_string(File::from(receiver)).unwrap(), pong(1));
    }

    #[test]
    fn an_unterminated_line_counts_only_if_it_is_whole() {
        assert_eq!(
            served(&format!("{}\n{}", ping(1), ping(2))),
            pong(1) + &pong(2)
        );
        let half = &ping(2)[..20];
        assert_eq!(served(&format!("{}\n{half}", ping(1))), pong(1));
        assert_eq!(served(""), "");
    }

    #[test]
    fn the_end_of_input_drops_calls_that_sleep() {
        let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#;
        let input = format!("{initialize}\n{}\n{}\n", sleep(1, 3600.0), ping(2));
        let output = served(&input);
        assert_eq!(output.lines().count(), 2, "{output}");
        assert!(output.ends_with(&pong(2)), "{output}");
    }

    #[test]
    fn calls_that_sleep_are_answered_while_nothing_comes() {
        let (stdin, sender) = pipe().unwrap();
        let (receiver, stdout) = pipe().unwrap();
        let server = thread::spawn(move || serve(stdin.as_fd(), stdout.as_fd()));
        let (mut sender, receiver) = (File::from(sender), File::from(receiver));
        let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#;
        // By one write, so that both calls begin at the same time.
        let input = format!("{initialize}\n{}\n{}\n", sleep(1, 0.02), sleep(2, 0.01));
        sender.write_all(input.as_bytes()).unwrap();
        let mut output = io::BufRead::lines(io::BufReader::new(receiver)).skip(1);
        assert!(output.next().unwrap().unwrap().contains(r#""id":2"#));
        assert!(output.next().unwrap().unwrap().contains(r#""id":1"#));
        drop(sender);
        assert!(output.next().is_none());
        server.join().unwrap().unwrap();
    }

    #[test]
    fn a_client_may_read_its_responses_late() {
        const COUNT: u32 = 20_000;
        for flags in [OFlag::empty(), OFlag::O_NONBLOCK] {
            let (stdin, sender) = pipe2(flags).unwrap();
            let (receiver, stdout) = pipe2(flags).unwrap();
            // Neither pipe holds all of it, so the server waits for room, and the client for the server.
            let server = thread::spawn(move || serve(stdin.as_fd(), stdout.as_fd()));
            let client = thread::spawn(move || {
                for id in 0..COUNT {
                    let line = ping(id) + "\n";
                    flush(&mut line.into_bytes(), sender.as_fd()).unwrap();
                }
            });
            let mut output = Vec::new();
            let mut chunk = [0; 1000];
            let receiver = receiver.as_fd();
            loop {
                let count = complete(receiver, PollFlags::POLLIN, None, || {
                    read(receiver, &mut chunk)
                });
                match count.unwrap().unwrap() {
                    0 => break,
                    count => output.extend_from_slice(&chunk[..count]),
                }
            }
            client.join().unwrap();
            server.join().unwrap().unwrap();
            let expected: String = (0..COUNT).map(pong).collect();
            assert!(output == expected.as_bytes());
        }
    }

    #[test]
    fn a_client_that_is_gone_is_a_broken_pipe() {
        let (stdin, sender) = pipe().unwrap();
        let (receiver, stdout) = pipe().unwrap();
        drop(receiver);
        crate::util::others_end::wait_until_others_have_closed(&stdout);
        writeln!(File::from(sender), "{}", ping(1)).unwrap();
        let error = serve(stdin.as_fd(), stdout.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
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
