//! What a server has left unread in its stdin.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

use mio::unix::pipe;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Our end of a pipe to which we write.
pub trait Unread {
    /// Takes what was written and nobody has read, if nobody is left who can. Returns how many bytes that is.
    fn take_unread(&self, buffer: &mut [u8]) -> Option<usize>;
}

impl Unread for pipe::Sender {
    fn take_unread(&self, buffer: &mut [u8]) -> Option<usize> {
        has_no_reader(self).then(|| read_back(self, buffer).unwrap_or(0))
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
fn read_back(pipe: &pipe::Sender, buffer: &mut [u8]) -> io::Result<usize> {
    let mut reader = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(format!("/proc/self/fd/{}", pipe.as_raw_fd()))?;
    let mut count = 0;
    loop {
        match reader.read(&mut buffer[count..]) {
            // It is full, and there may be more.
            Ok(0) => return Err(ErrorKind::OutOfMemory.into()),
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_nobody_has_read_is_taken_back_once_nobody_can() {
        let (mut sender, mut receiver) = pipe::new().unwrap();
        sender.set_nonblocking(true).unwrap();
        sender.write_all(b"one two").unwrap();
        receiver.read_exact(&mut [0; 4]).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(sender.take_unread(&mut buffer), None);
        let other = receiver.as_fd().try_clone_to_owned().unwrap();
        drop(receiver);
        assert_eq!(sender.take_unread(&mut buffer), None, "another can read it");
        drop(other);
        assert_eq!(sender.take_unread(&mut buffer), Some(3));
        assert_eq!(&buffer[..3], b"two");
        assert_eq!(sender.take_unread(&mut buffer), Some(0));
        let broken = sender.write(b"x").unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_has_no_room_counts_as_read() {
        let (mut sender, receiver) = pipe::new().unwrap();
        sender.write_all(b"one two").unwrap();
        drop(receiver);
        assert_eq!(sender.take_unread(&mut [0; 7]), Some(0));
    }
}
