//! Descriptors that this process was given and shares with others: used without blocking, and left as they were.
//!
//! `O_NONBLOCK` belongs to the open file description, and so to the shell and to everyone else who shares a terminal
//! or a pipe. So pipes and terminals are opened anew, sockets are told with each call not to wait, and files do not
//! block.

use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{read, write};

/// As in limits.h. A pipe that polls as writable takes this much without blocking.
const PIPE_BUF: usize = 4096;

/// A terminal's buffers are dealt out in multiples of 256 bytes, and a newline becomes two bytes: a terminal that
/// polls as writable takes this much without blocking.
const TERMINAL_CHUNK: usize = 128;

/// Which way a descriptor is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// For reading.
    In,
    /// For writing.
    Out,
}

/// A descriptor, and how to use it without blocking.
#[derive(Debug)]
pub struct Stdio {
    access: Access,
    is_terminal: bool,
    /// epoll does not take it, because it never blocks (`epoll_ctl(2)`, EPERM).
    always_ready: bool,
}

#[derive(Debug)]
enum Access {
    /// An open file description of our own, with `O_NONBLOCK`.
    Reopened(OwnedFd),
    /// A pipe or terminal that could not be opened anew, as it belongs to another user. It is polled before each
    /// operation; a write is of at most this many bytes. If someone else is faster, it blocks.
    Polled(OwnedFd, usize),
    Socket(OwnedFd),
    /// A regular file. Its description is shared on purpose: the file's offset must be.
    Plain(OwnedFd),
    Closed,
}

impl Stdio {
    /// Takes a descriptor, without changing it. One that is not open can be neither read nor written.
    pub fn open(descriptor: BorrowedFd<'_>, direction: Direction) -> Self {
        Self {
            access: Access::of(descriptor, direction),
            is_terminal: descriptor.is_terminal(),
            always_ready: false,
        }
    }

    /// Whether it can be read and written at any time, so that no event tells of it.
    pub fn is_always_ready(&self) -> bool {
        self.always_ready
    }

    /// Whether a short read does not mean that there is nothing more: a terminal gives a line a read, however many there
    /// are.
    pub fn reads_in_pieces(&self) -> bool {
        self.is_terminal || self.always_ready
    }

    /// Writes some of `bytes`, without blocking.
    pub fn write_some(&self, bytes: &[u8]) -> nix::Result<usize> {
        match &self.access {
            Access::Reopened(own) | Access::Plain(own) => write(own, bytes),
            Access::Polled(own, chunk) => {
                wait_for(own, PollFlags::POLLOUT)?;
                // Should it be an error that it polls with, this returns it.
                write(own, &bytes[..bytes.len().min(*chunk)])
            }
            Access::Socket(own) => send(
                own.as_raw_fd(),
                bytes,
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            ),
            Access::Closed => Err(Errno::EBADF),
        }
    }

    /// One that could not be opened anew.
    #[cfg(test)]
    pub(crate) fn polled(own: OwnedFd) -> Self {
        Self {
            access: Access::Polled(own, PIPE_BUF),
            is_terminal: false,
            always_ready: false,
        }
    }

    /// One that is not open.
    #[cfg(test)]
    pub(crate) fn closed() -> Self {
        Self {
            access: Access::Closed,
            is_terminal: false,
            always_ready: false,
        }
    }

    fn read_some(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        match &self.access {
            Access::Reopened(own) | Access::Plain(own) => read(own, buffer),
            Access::Polled(own, _) => {
                wait_for(own, PollFlags::POLLIN)?;
                read(own, buffer)
            }
            Access::Socket(own) => recv(own.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT),
            Access::Closed => Ok(0),
        }
    }

    fn descriptor(&self) -> io::Result<&OwnedFd> {
        match &self.access {
            Access::Reopened(own)
            | Access::Polled(own, _)
            | Access::Socket(own)
            | Access::Plain(own) => Ok(own),
            Access::Closed => Err(Errno::EBADF.into()),
        }
    }
}

impl Access {
    fn of(descriptor: BorrowedFd<'_>, direction: Direction) -> Self {
        let (Ok(stat), Ok(own)) = (fstat(descriptor), descriptor.try_clone_to_owned()) else {
            return Self::Closed;
        };
        let chunk = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFIFO => PIPE_BUF,
            SFlag::S_IFCHR => TERMINAL_CHUNK,
            SFlag::S_IFSOCK => return Self::Socket(own),
            _ => return Self::Plain(own),
        };
        reopen(descriptor, direction).map_or(Self::Polled(own, chunk), Self::Reopened)
    }
}

fn reopen(descriptor: BorrowedFd<'_>, direction: Direction) -> nix::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let access = match direction {
        Direction::In => OFlag::O_RDONLY,
        Direction::Out => OFlag::O_WRONLY,
    };
    open(
        path.as_str(),
        access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// An error if an operation would block now.
fn wait_for(descriptor: &OwnedFd, what: PollFlags) -> nix::Result<()> {
    let mut polled = [PollFd::new(descriptor.as_fd(), what)];
    if poll(&mut polled, PollTimeout::ZERO)? == 0 {
        Err(Errno::EAGAIN)
    } else {
        Ok(())
    }
}

impl Read for Stdio {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.read_some(buffer) {
            // A terminal whose other end is gone.
            Err(Errno::EIO) => Ok(0),
            result => Ok(result?),
        }
    }
}

/// Writes as much as there is room for, so that less than all means that there is no more room.
impl Write for Stdio {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.write_some(&bytes[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(Errno::EINTR) => {}
                Err(_) if written > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Stdio {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        let descriptor = self.descriptor()?.as_raw_fd();
        match SourceFd(&descriptor).register(registry, token, interests) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.always_ready = true;
                Ok(())
            }
            registered => registered,
        }
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.descriptor()?.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.descriptor()?.as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use mio::Poll;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::unistd::pipe2;

    use super::*;

    fn register(stdio: &mut Stdio) -> bool {
        let poll = Poll::new().unwrap();
        stdio
            .register(poll.registry(), Token(0), Interest::READABLE)
            .unwrap();
        stdio.is_always_ready()
    }

    fn is_nonblocking(descriptor: &impl AsFd) -> bool {
        let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL).unwrap());
        flags.contains(OFlag::O_NONBLOCK)
    }

    #[test]
    fn a_pipe_does_not_block_and_is_left_as_it_was() {
        let (reader, writer) = pipe2(OFlag::empty()).unwrap();
        let mut input = Stdio::open(reader.as_fd(), Direction::In);
        let mut output = Stdio::open(writer.as_fd(), Direction::Out);
        assert!(!register(&mut input));
        let mut buffer = vec![0; 1 << 20];
        assert_eq!(
            input.read(&mut buffer).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        let taken = output.write(&buffer).unwrap();
        assert!(taken > 0 && taken < buffer.len());
        assert_eq!(
            output.write(&buffer).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        assert_eq!(input.read(&mut buffer).unwrap(), taken);
        assert!(!is_nonblocking(&reader) && !is_nonblocking(&writer));
        drop((writer, output));
        assert_eq!(input.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_socket_does_not_block_and_is_left_as_it_was() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut stdio = Stdio::open(ours.as_fd(), Direction::In);
        assert!(!register(&mut stdio));
        let mut buffer = [0; 16];
        assert_eq!(
            stdio.read(&mut buffer).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        (&theirs).write_all(b"hello").unwrap();
        assert_eq!(stdio.read(&mut buffer).unwrap(), 5);
        assert!(!is_nonblocking(&ours));
    }

    #[test]
    fn files_and_the_null_device_are_always_ready() {
        let mut file = tempfile();
        file.write_all(b"text").unwrap();
        let mut null = Stdio::open(File::open("/dev/null").unwrap().as_fd(), Direction::In);
        let mut plain = Stdio::open(file.as_fd(), Direction::Out);
        assert!(register(&mut null) && register(&mut plain));
        assert_eq!(null.read(&mut [0; 4]).unwrap(), 0);
        assert_eq!(plain.write(b" and more").unwrap(), 9);
        assert_eq!(file.metadata().unwrap().len(), 13);
    }

    /// A file without a name.
    fn tempfile() -> File {
        let folder = std::env::temp_dir();
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        open(&folder, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .unwrap()
            .into()
    }
}
