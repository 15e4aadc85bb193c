//! A pipe of our own where stdout was: what is printed to stdout comes back to us.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{dup2_stdout, pipe2, read};

/// An empty pipe takes this much in any number of writes; as in limits.h.
pub(super) const PIPE_BUF: usize = 4096;

/// Stands where descriptor 1 was; the original is kept.
#[derive(Debug)]
pub(super) struct StdoutPipe {
    reader: OwnedFd,
    /// Of the original stdout and the pipe's end for writing, the one that is not descriptor 1.
    other: OwnedFd,
}

impl StdoutPipe {
    /// Puts the pipe where descriptor 1 is.
    ///
    /// Both its ends are non-blocking: if somebody prints more than it holds, and nobody looks, that panics. To wait for
    /// ourselves would be worse.
    pub(super) fn install() -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let mut pipe = Self {
            reader,
            other: writer,
        };
        pipe.swap()?;
        Ok(pipe)
    }

    /// Puts the original stdout where the pipe is, or the other way round. What was printed before stays where it is.
    pub(super) fn swap(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout();
        // What is still in the buffer belongs to the one that goes. One that does not take it is no reason to stay.
        let _ = stdout.flush();
        let current = stdout.as_fd().try_clone_to_owned()?;
        dup2_stdout(&self.other)?;
        self.other = current;
        Ok(())
    }

    /// All that was printed since the last call.
    pub(super) fn take(&self) -> Vec<u8> {
        // An error leaves what could not be written in the buffer; there is nothing that could be done about it here.
        let _ = io::stdout().flush();
        let mut printed = Vec::new();
        while let Some(part) = self.take_some() {
            printed.extend(part);
        }
        printed
    }

    /// Some of what was printed; of a record that was printed into the empty pipe, all.
    pub(super) fn take_some(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; PIPE_BUF];
        loop {
            match read(&self.reader, &mut buffer) {
                Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => return None,
                Ok(count) => return Some(buffer[..count].to_vec()),
            }
        }
    }
}
