//! What a server has left unread in its stdin.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

use mio::unix::pipe;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::ioctl_fionread;

/// Our end of a pipe to which we write.
pub trait Unread {
    /// Takes what was written and nobody has read, if nobody is left who can.
    fn take_unread(&self) -> Option<Vec<u8>>;

    /// Whether anything was written that nobody has read yet.
    fn has_unread(&self) -> bool;
}

impl Unread for pipe::Sender {
    fn take_unread(&self) -> Option<Vec<u8>> {
        has_no_reader(self).then(|| read_back(self).unwrap_or_default())
    }

    fn has_unread(&self) -> bool {
        // Either end tells what is in between (pipe(7), "FIONREAD").
        ioctl_fionread(self).is_ok_and(|bytes| bytes > 0)
    }
}

/// Whether all other ends of the pipe are closed. That may not have been told by an event yet.
fn has_no_reader(pipe: &pipe::Sender) -> bool {
    let mut descriptors = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
    let polled = poll(&mut descriptors, PollTimeout::ZERO);
    let events = descriptors[0].revents().unwrap_or(PollFlags::empty());
    polled.is_ok() && events.contains(PollFlags::POLLERR)
}

/// Opens the other end of the pipe once more, which takes a `/proc`. An error stands for a reader that has read all.
///
/// That is as much as the pipe holds at most, which may be a wide one.
fn read_back(pipe: &pipe::Sender) -> io::Result<Vec<u8>> {
    let mut reader = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(format!("/proc/self/fd/{}", pipe.as_raw_fd()))?;
    let mut unread = Vec::new();
    match reader.read_to_end(&mut unread) {
        // There is nothing more, and our own end is open.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(unread),
        result => result.map(|_| unread),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;
    use crate::util::others_end::wait_until_others_have_closed;

    #[test]
    fn what_nobody_has_read_is_taken_back_once_nobody_can() {
        let (mut sender, mut receiver) = pipe::new().unwrap();
        sender.set_nonblocking(true).unwrap();
        sender.write_all(b"one two").unwrap();
        receiver.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(sender.take_unread(), None);
        let other = receiver.as_fd().try_clone_to_owned().unwrap();
        drop(receiver);
        assert_eq!(sender.take_unread(), None, "another can read it");
        drop(other);
        wait_until_others_have_closed(&sender);
        assert_eq!(sender.take_unread().as_deref(), Some(&b"two"[..]));
        assert_eq!(sender.take_unread(), Some(Vec::new()));
        let broken = sender.write(b"x").unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_pipe_holds_something_until_it_was_read() {
        let (mut sender, mut receiver) = pipe::new().unwrap();
        assert!(!sender.has_unread());
        sender.write_all(b"one two").unwrap();
        receiver.read_exact(&mut [0; 4]).unwrap();
        assert!(sender.has_unread());
        receiver.read_exact(&mut [0; 3]).unwrap();
        assert!(!sender.has_unread());
    }

    #[test]
    fn a_wide_pipe_gives_all_of_it_back() {
        const BYTES: usize = 400_000;
        let (mut sender, receiver) = pipe::new().unwrap();
        fcntl(sender.as_fd(), FcntlArg::F_SETPIPE_SZ(512 * 1024)).unwrap();
        let written = vec![b'x'; BYTES];
        sender.write_all(&written).unwrap();
        drop(receiver);
        wait_until_others_have_closed(&sender);
        assert!(sender.take_unread() == Some(written));
    }
}
