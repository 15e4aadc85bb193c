//! Descriptors that this process was given and shares with others: used without blocking, and left as they were.
//!
//! `O_NONBLOCK` belongs to the open file description, and so to the shell and to everyone else that shares a terminal
//! or a pipe. So pipes and terminals are opened anew, sockets are told with each call not to wait, and files do not
//! block.

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, send, sockopt};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{read, write};

/// As in limits.h. A pipe that polls as writable takes this much without blocking.
const PIPE_BUF: usize = 4096;

/// A terminal's buffers are dealt out in multiples of 256 bytes: a terminal that polls as writable takes this much text,
/// or one newline, without blocking.
const TERMINAL_CHUNK: usize = 128;

/// The longest message that is sent over a socket of messages, in bytes: it fits the smallest send buffer that a socket
/// can have (4,608 bytes with what the kernel adds to it, socket(7)), and a reader that reads like from a pipe.
const MESSAGE_BYTES: usize = 4096;

/// Which way a descriptor is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// For reading.
    In,
    /// For writing.
    Out,
}

/// Stdin, stdout and stderr as the program was given them.
#[derive(Debug)]
pub struct StandardStreams {
    /// Descriptor 0.
    pub input: Stdio,
    /// Descriptor 1.
    pub output: Stdio,
    /// Descriptor 2.
    pub error: Stdio,
}

impl StandardStreams {
    /// Takes all three, without changing them.
    pub fn open() -> Self {
        Self {
            input: Stdio::open(io::stdin().as_fd(), Direction::In),
            output: Stdio::open(io::stdout().as_fd(), Direction::Out),
            error: Stdio::open(io::stderr().as_fd(), Direction::Out),
        }
    }
}

/// A descriptor, and how to use it without blocking.
#[derive(Debug)]
pub struct Stdio {
    access: Access,
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
    /// A socket with a stream of bytes.
    Stream(OwnedFd),
    /// A socket that keeps messages apart (`SOCK_SEQPACKET`, `SOCK_DGRAM`), and what is left of a message that was longer
    /// than the buffer it was to be read to: the socket itself would drop it.
    Messages(OwnedFd, Cursor<Vec<u8>>),
    /// A regular file. Its description is shared on purpose: the file's offset must be.
    Plain(OwnedFd),
    Closed,
}

impl Stdio {
    /// Takes a descriptor, without changing it. One that is not open, or not open for that direction, can be neither
    /// read nor written.
    pub fn open(descriptor: BorrowedFd<'_>, direction: Direction) -> Self {
        Self {
            access: Access::of(descriptor, direction),
            always_ready: false,
        }
    }

    /// Whether it can be read and written at any time, so that no event tells of it.
    pub fn is_always_ready(&self) -> bool {
        self.always_ready
    }

    /// Whether a short read does not mean that there is nothing more. A terminal gives a line a read, a socket of messages
    /// a message, and a pipe a packet, if whoever writes to it has set `O_DIRECT` (pipe(2)), which the end that is read
    /// does not tell.
    pub fn reads_in_pieces(&self) -> bool {
        !matches!(self.access, Access::Stream(_))
    }

    /// Writes some of `bytes`, without blocking.
    pub fn write_some(&self, bytes: &[u8]) -> nix::Result<usize> {
        match &self.access {
            Access::Reopened(own) | Access::Plain(own) => write(own, bytes),
            Access::Polled(own, chunk) => {
                wait_for(own, PollFlags::POLLOUT)?;
                // Should it be an error that it polls with, this returns it.
                write(own, piece(bytes, *chunk))
            }
            Access::Stream(own) => send_now(own, bytes),
            Access::Messages(own, _) => {
                let message = &bytes[..bytes.len().min(MESSAGE_BYTES)];
                match send_now(own, message) {
                    // So says a socket without connections of a reader that is gone (unix(7)).
                    Err(Errno::ECONNREFUSED) => Err(Errno::EPIPE),
                    result => result,
                }
            }
            Access::Closed => Err(Errno::EBADF),
        }
    }

    /// One that could not be opened anew.
    #[cfg(test)]
    pub(crate) fn polled(own: OwnedFd) -> Self {
        Self {
            access: Access::Polled(own, PIPE_BUF),
            always_ready: false,
        }
    }

    /// One that is not open.
    #[cfg(test)]
    pub(crate) fn closed() -> Self {
        Self {
            access: Access::Closed,
            always_ready: false,
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> nix::Result<usize> {
        match &mut self.access {
            Access::Reopened(own) | Access::Plain(own) => read(own, buffer),
            Access::Polled(own, _) => {
                wait_for(own, PollFlags::POLLIN)?;
                read(own, buffer)
            }
            Access::Stream(own) => recv(own.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT),
            Access::Messages(own, rest) => receive(own, rest, buffer),
            Access::Closed => Ok(0),
        }
    }

    fn descriptor(&self) -> io::Result<&OwnedFd> {
        match &self.access {
            Access::Reopened(own)
            | Access::Polled(own, _)
            | Access::Stream(own)
            | Access::Messages(own, _)
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
        // To open it anew would give more than was given.
        if !is_open_for(direction, descriptor) {
            return Self::Closed;
        }
        let chunk = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFIFO => PIPE_BUF,
            SFlag::S_IFCHR => TERMINAL_CHUNK,
            SFlag::S_IFSOCK => return Self::of_socket(own),
            _ => return Self::Plain(own),
        };
        reopen(descriptor, direction).map_or(Self::Polled(own, chunk), Self::Reopened)
    }

    fn of_socket(own: OwnedFd) -> Self {
        match getsockopt(&own, sockopt::SockType) {
            Ok(SockType::SeqPacket | SockType::Datagram) => Self::Messages(own, Cursor::default()),
            _ => Self::Stream(own),
        }
    }
}

/// What a descriptor takes without blocking that polls as writable. A terminal takes text as a whole, and makes of what
/// controls it something else, for which it may have no room after the text.
fn piece(bytes: &[u8], chunk: usize) -> &[u8] {
    let piece = &bytes[..bytes.len().min(chunk)];
    if chunk != TERMINAL_CHUNK {
        return piece;
    }
    match piece.iter().position(u8::is_ascii_control) {
        Some(at) => &piece[..at.max(1)],
        None => piece,
    }
}

fn send_now(socket: &OwnedFd, bytes: &[u8]) -> nix::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    send(socket.as_raw_fd(), bytes, flags)
}

/// Reads of one message. An empty one is the end, as nothing else ends a stream of datagrams.
fn receive(socket: &OwnedFd, rest: &mut Cursor<Vec<u8>>, buffer: &mut [u8]) -> nix::Result<usize> {
    let left = Read::read(rest, buffer).unwrap_or_default();
    if left > 0 {
        return Ok(left);
    }
    *rest = Cursor::default();
    let (socket, now) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let length = recv(
        socket,
        &mut [],
        now | MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC,
    )?;
    if length <= buffer.len() {
        return recv(socket, buffer, now);
    }
    let mut message = vec![0; length];
    let length = recv(socket, &mut message, now)?;
    message.truncate(length);
    *rest = Cursor::new(message);
    Ok(Read::read(rest, buffer).unwrap_or_default())
}

fn is_open_for(direction: Direction, descriptor: BorrowedFd<'_>) -> bool {
    let wrong = match direction {
        Direction::In => OFlag::O_WRONLY,
        Direction::Out => OFlag::O_RDONLY,
    };
    fcntl(descriptor, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE != wrong)
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
    use nix::sys::socket::{AddressFamily, SockFlag, socketpair};
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
    fn a_terminal_gets_text_and_what_controls_it_apart() {
        let mut rest: &[u8] = b"one\ttwo\n\nx";
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let next = piece(rest, TERMINAL_CHUNK);
            pieces.push(std::str::from_utf8(next).unwrap());
            rest = &rest[next.len()..];
        }
        assert_eq!(pieces, ["one", "\t", "two", "\n", "\n", "x"]);
        assert_eq!(piece(&[b'x'; 1000], TERMINAL_CHUNK).len(), TERMINAL_CHUNK);
        assert_eq!(piece(&[b'\n'; 5000], PIPE_BUF).len(), PIPE_BUF);
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
    fn a_message_that_is_longer_than_the_buffer_is_read_in_pieces() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let mut stdio = Stdio::open(ours.as_fd(), Direction::In);
        assert!(stdio.reads_in_pieces() && !register(&mut stdio));
        for message in ["0123456789", "abc"] {
            send_now(&theirs, message.as_bytes()).unwrap();
        }
        let mut buffer = [0; 4];
        let mut read = String::new();
        while let Ok(count @ 1..) = stdio.read(&mut buffer) {
            read += std::str::from_utf8(&buffer[..count]).unwrap();
        }
        assert_eq!(read, "0123456789abc");
        let last = stdio.read(&mut buffer).unwrap_err();
        assert_eq!(last.kind(), ErrorKind::WouldBlock);
        assert!(!is_nonblocking(&ours));
        drop(theirs);
        crate::util::others_end::wait_until_others_have_closed(&ours);
        assert_eq!(stdio.read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn only_a_stream_socket_is_drained_by_a_short_read() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let (reader, _writer) = pipe2(OFlag::O_DIRECT).unwrap();
        for (descriptor, in_pieces) in [(stream.as_fd(), false), (reader.as_fd(), true)] {
            let stdio = Stdio::open(descriptor, Direction::In);
            assert_eq!(stdio.reads_in_pieces(), in_pieces);
        }
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

    #[test]
    fn what_is_not_open_for_a_direction_is_not_opened_for_it() {
        let (reader, writer) = pipe2(OFlag::empty()).unwrap();
        let null = File::open("/dev/null").unwrap();
        for descriptor in [reader.as_fd(), null.as_fd()] {
            let output = Stdio::open(descriptor, Direction::Out);
            assert_eq!(output.write_some(b"x"), Err(Errno::EBADF));
        }
        (&File::from(writer.try_clone().unwrap()))
            .write_all(b"x")
            .unwrap();
        let mut input = Stdio::open(writer.as_fd(), Direction::In);
        assert_eq!(input.read(&mut [0; 4]).unwrap(), 0);
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
