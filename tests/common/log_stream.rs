//! What a program's log goes to, other than a file: it is read when a test says so, and not before.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;

use super::{DEADLINE, eventually};

/// How much is read at a time: more than the longest datagram.
const READ_BYTES: usize = 64 * 1024;

/// The end by which a log can be read.
pub(crate) struct LogStream {
    from: File,
    text: Vec<u8>,
}

impl LogStream {
    pub(crate) fn new(from: impl Into<OwnedFd>) -> Self {
        let from = from.into();
        set_nonblocking(&from);
        Self {
            from: from.into(),
            text: Vec::new(),
        }
    }

    /// Reads all that is there, and returns it with what was read before.
    pub(crate) fn read(&mut self) -> String {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match self.from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.text.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing more for now, or a terminal that nobody has open any more.
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&self.text).into_owned()
    }

    /// Reads until a line is there that contains `text`.
    #[track_caller]
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        eventually(&format!("the log to say {text:?}"), DEADLINE, || {
            self.read().contains(text)
        });
        self.read()
    }
}

pub(crate) fn set_nonblocking(descriptor: &impl AsFd) {
    let flags = fcntl(descriptor, FcntlArg::F_GETFL).unwrap();
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(descriptor, FcntlArg::F_SETFL(flags)).unwrap();
}

/// Whether the open file description has `O_NONBLOCK`.
pub(crate) fn is_nonblocking(descriptor: &impl AsFd) -> bool {
    let flags = fcntl(descriptor, FcntlArg::F_GETFL).unwrap();
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

/// A terminal: the end by which it is read, and the one that programs have.
pub(crate) fn terminal() -> (LogStream, OwnedFd) {
    let pty = openpty(None, None).unwrap();
    (LogStream::new(pty.master), pty.slave)
}

/// The number of lines that the log says to have lost.
pub(crate) fn lost_lines(log: &str) -> u64 {
    log.lines()
        .filter_map(|line| line.split_once("log lines lost, as stderr did not take them: "))
        .map(|(_, number)| number.trim_end().parse::<u64>().unwrap())
        .sum()
}

/// All lines have to be whole: a time, and one only.
#[track_caller]
pub(crate) fn assert_whole_lines(log: &str) {
    for line in log.split_inclusive('\n') {
        let stamps = line.match_indices("Z INFO  [").count()
            + line.match_indices("Z WARN  [").count()
            + line.match_indices("Z DEBUG [").count();
        assert!(
            line.starts_with('2') && stamps == 1 && line.ends_with('\n'),
            "{line:?}"
        );
    }
}
