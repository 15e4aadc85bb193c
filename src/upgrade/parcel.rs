//! Descriptors that go on to another program: through a pair of unix sockets, from this process to itself.
//!
//! All descriptors are closed by execve(2), as they are from the start, so there is nothing to be undone if that fails. Those
//! that are on their way through a socket are not closed by it, and the other program gets the socket's other end as its
//! stdin.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_type};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use serde::Serialize;

use super::text;

/// The most descriptors that the kernel takes with one message (unix(7), `SCM_MAX_FD`).
const PER_MESSAGE: usize = 253;

/// Room for all messages, of which each takes a kilobyte; the kernel gives as much of it as it is set to (socket(7),
/// `wmem_max`).
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// The longest message, in bytes: a number.
const MAX_MESSAGE_BYTES: usize = 20;

/// A state with all descriptors that it speaks of.
#[derive(Debug)]
pub struct Parcel {
    /// The state as a text.
    pub state: File,
    /// The program that sends it.
    pub sender: File,
    /// What that was told, beginning with its name; each word ends in a NUL.
    pub words: File,
    /// The rest, in an order that the state knows.
    pub others: Vec<OwnedFd>,
}

impl Parcel {
    /// Takes what a program has sent before it was replaced by this one. `None` if this is no such socket.
    ///
    /// # Errors
    /// Something is missing.
    pub fn receive(from: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        if !matches!(socket_type(from), Ok(SocketType::SEQPACKET)) {
            return Ok(None);
        }
        let mut all = Vec::new();
        // Each message says how many there are after it.
        loop {
            let left = receive_some(from, &mut all)?;
            if left == 0 {
                break;
            }
        }
        let mut all = all.into_iter();
        let own = [all.next(), all.next(), all.next()];
        let [Some(state), Some(sender), Some(words)] = own else {
            return Err(missing());
        };
        Ok(Some(Self {
            state: state.into(),
            sender: sender.into(),
            words: words.into(),
            others: all.collect(),
        }))
    }

    /// Sends it back. The descriptors stay open here, too. In the place of the program that sends it is what can't be
    /// started: it does not come back once more.
    ///
    /// # Errors
    /// As of [`send`].
    pub fn send_back(&self) -> io::Result<OwnedFd> {
        let others: Vec<BorrowedFd<'_>> = self.others.iter().map(AsFd::as_fd).collect();
        send([&self.state, &self.state, &self.words], &others)
    }

    /// What the program that has sent it was told.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn words_of_sender(&self) -> io::Result<Vec<OsString>> {
        let mut file = &self.words;
        file.rewind()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let words = bytes.split_inclusive(|byte| *byte == 0);
        let words = words.map(|word| word.strip_suffix(b"\0").unwrap_or(word));
        Ok(words
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect())
    }
}

/// Sends a state, the program that sends it and what that was told, and descriptors. Returns the end from which they can be received.
///
/// # Errors
/// Those of socketpair(2) and sendmsg(2): nothing is on its way then. Some pass, as the limit of descriptors that all
/// processes of a user have on their way (unix(7), ETOOMANYREFS).
pub fn send(own: [&File; 3], others: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    set_socket_send_buffer_size(&near, SEND_BUFFER_BYTES)?;
    let own = own.map(AsFd::as_fd);
    let all: Vec<BorrowedFd<'_>> = own.into_iter().chain(others.iter().copied()).collect();
    let mut left = all.len();
    for some in all.chunks(PER_MESSAGE) {
        left -= some.len();
        send_some(&near, some, left)?;
    }
    Ok(far)
}

fn send_some(near: &OwnedFd, some: &[BorrowedFd<'_>], left: usize) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(some)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let text = left.to_string();
    loop {
        let text = [IoSlice::new(text.as_bytes())];
        match sendmsg(near, &text, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent.map(drop)?),
        }
    }
}

/// Returns how many are still to come.
fn receive_some(from: BorrowedFd<'_>, all: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; MAX_MESSAGE_BYTES];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = loop {
        let mut text = [IoSliceMut::new(&mut text)];
        match recvmsg(from, &mut text, &mut control, flags) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            all.extend(some);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("not all descriptors could be taken"));
    }
    let text = str::from_utf8(&text[..received.bytes]).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(missing)
}

fn missing() -> io::Error {
    io::Error::other("descriptors are missing")
}

/// A state in a file without a name.
///
/// # Errors
/// There is no such file to be had, or no room in it.
pub fn file_of(state: &impl Serialize) -> io::Result<File> {
    let file = new_file()?;
    text::write_to_file(state, &file)?;
    Ok(file)
}

/// Words in such a file, each with a NUL after it.
///
/// # Errors
/// As of [`file_of`].
pub fn words_in_file(words: impl Iterator<Item = OsString>) -> io::Result<File> {
    let mut file = new_file()?;
    let words = words.flat_map(|word| [word.as_bytes(), b"\0"].concat());
    file.write_all(&words.collect::<Vec<u8>>())?;
    Ok(file)
}

/// In memory, or else on disk.
pub(super) fn new_file() -> io::Result<File> {
    memory_file().or_else(|_| file_on_disk())
}

fn memory_file() -> io::Result<File> {
    const NAME: &str = "mcp-tcp-proxy state";
    let flags = MemfdFlags::CLOEXEC;
    // Linux before 6.3 does not know the second flag, and takes no file that may be executed if it is set to.
    let made = memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL).or_else(|error| match error {
        Errno::INVAL => memfd_create(NAME, flags),
        other => Err(other),
    });
    Ok(made?.into())
}

fn file_on_disk() -> io::Result<File> {
    let folder = env::temp_dir();
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let file = open(&folder, flags, Mode::S_IRUSR | Mode::S_IWUSR);
    Ok(file?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipes(count: usize) -> Vec<OwnedFd> {
        let pipe = |_| std::io::pipe().unwrap().0.into();
        (0..count).map(pipe).collect()
    }

    const STATE: [u8; 2] = [1, 2];

    fn inode(descriptor: &impl AsFd) -> u64 {
        nix::sys::stat::fstat(descriptor).unwrap().st_ino
    }

    #[test]
    fn what_is_received_is_what_was_sent() {
        for count in [0, 1, 250, 251, 252, 600] {
            let own = pipes(count);
            let borrowed: Vec<BorrowedFd<'_>> = own.iter().map(AsFd::as_fd).collect();
            let state = file_of(&STATE).unwrap();
            let sender = File::open("/proc/self/exe").unwrap();
            let words = ["a", "", "b c"].map(OsString::from);
            let told = words_in_file(words.clone().into_iter()).unwrap();
            let far = send([&state, &sender, &told], &borrowed).unwrap();
            let inodes: Vec<u64> = own.iter().map(inode).collect();
            drop((state, sender, told, own));
            let parcel = Parcel::receive(far.as_fd()).unwrap().unwrap();
            assert_eq!(parcel.others.iter().map(inode).collect::<Vec<_>>(), inodes);
            assert_eq!(text::read_from_file(&parcel.state), Ok(STATE));
            assert_eq!(parcel.words_of_sender().unwrap(), words);
            assert!(Parcel::receive(far.as_fd()).is_err(), "it was taken");
        }
    }

    #[test]
    fn it_can_be_sent_back() {
        let state = file_of(&STATE).unwrap();
        let far = send([&state; 3], &[]).unwrap();
        let parcel = Parcel::receive(far.as_fd()).unwrap().unwrap();
        let far = parcel.send_back().unwrap();
        drop(parcel);
        let parcel = Parcel::receive(far.as_fd()).unwrap().unwrap();
        assert_eq!(text::read_from_file(&parcel.state), Ok(STATE));
    }

    #[test]
    fn nothing_is_taken_from_another_kind_of_stdin() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(Parcel::receive(reader.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_file_on_disk_does_as_well() {
        let file = file_on_disk().unwrap();
        text::write_to_file(&STATE, &file).unwrap();
        assert_eq!(text::read_from_file(&file), Ok(STATE));
    }
}
