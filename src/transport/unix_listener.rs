//! Listening unix sockets: who may connect, that one program at a time listens at a path, and what is left of the dead.
//!
//! A socket's file outlives its program if that is killed, and bind(2) takes no path that exists. So a file may have to be
//! removed, and must not be if anyone listens there. Programs of this kind find out about each other by a lock beside the
//! socket, so that of two that start at the same time, one does not remove the other's socket; of all others, an attempt to
//! connect tells.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;

use log::warn;
use mio::net::{UnixListener, UnixStream};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{self, Backlog};
use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};

/// What follows the path of a socket in that of its lock.
const LOCK_SUFFIX: &str = ".lock";

/// The permissions of the lock: it is for whoever runs the program, and nobody else can hold it.
const LOCK_MODE: u32 = 0o600;

/// A listening unix socket. Its end removes its file.
#[derive(Debug)]
pub struct UnixSocket {
    // In the order in which they have to go: nobody finds a file at which nobody listens, and nobody else binds the path
    // before that.
    file: Option<SocketFile>,
    listener: UnixListener,
    lock: Option<Flock<File>>,
    /// What another program has left, and may get back.
    left: Option<Box<(FileState, File)>>,
}

impl UnixSocket {
    /// Listens at a path, with these permissions. A socket that is left of a program that was killed is replaced.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let lock = lock(path)?;
        let listener = match bind_with_mode(path, mode) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_leftover(path)?;
                bind_with_mode(path, mode)?
            }
            bound => bound?,
        };
        socket::listen(&listener, Backlog::MAXCONN)?;
        Ok(Self {
            file: Some(SocketFile::at(path)?),
            listener,
            lock: Some(lock),
            left: None,
        })
    }

    /// One that listens already, and whose file is somebody else's.
    pub fn opened_elsewhere(listener: StdUnixListener) -> Self {
        Self {
            file: None,
            listener: UnixListener::from_std(listener),
            lock: None,
            left: None,
        }
    }

    /// One that another program has listened on in this process, and perhaps its file, with the lock that keeps others from
    /// its path. These are only looked after from [`Self::take_charge`] on.
    pub fn taken_over(listener: StdUnixListener, file: Option<(FileState, File)>) -> Self {
        Self {
            left: file.map(Box::new),
            ..Self::opened_elsewhere(listener)
        }
    }

    /// The other program is gone: this one looks after the file.
    ///
    /// # Errors
    /// Somebody else has the lock.
    pub fn take_charge(&mut self) -> io::Result<()> {
        let Some((file, lock)) = self.left.take().map(|left| *left) else {
            return Ok(());
        };
        self.file = Some(SocketFile(file));
        // It belongs to the open file, and is held already.
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock);
        self.lock = Some(lock.map_err(|(_, errno)| io::Error::from(errno))?);
        Ok(())
    }

    /// Its file, if that was made here.
    pub fn file_state(&self) -> Option<FileState> {
        self.file.as_ref().map(|file| file.0.clone())
    }

    /// What keeps others from its path.
    pub fn lock(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(|lock| lock.as_fd())
    }

    /// The socket itself.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// The same.
    pub fn listener_mut(&mut self) -> &mut UnixListener {
        &mut self.listener
    }

    /// Where its file is, or was, as far as it was made here.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| Path::new(&file.0.path))
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Whoever holds the lock may bind the path. It is given back with the end of the process at the latest; the file stays, as
/// another process may just be about to lock it.
fn lock(path: &Path) -> io::Result<Flock<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(LOCK_SUFFIX);
    let shown = name.display();
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(LOCK_MODE)
        .custom_flags(flags.bits())
        .open(&name)
        .map_err(explained(format!("its lock {shown} can't be opened")))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => io::Error::new(
            ErrorKind::AddrInUse,
            format!("another mcp-tcp-proxy listens there (it has locked {shown})"),
        ),
        other => explained(format!("{shown} can't be locked"))(other.into()),
    })
}

/// There must be no moment at which the file has other permissions. This is the only thread.
fn bind_with_mode(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let inherited = umask(Mode::from_bits_truncate(!mode & 0o777));
    let bound = UnixListener::bind(path);
    umask(inherited);
    bound
}

/// Removes a socket at which nobody listens. Everything else is left alone, and an error.
fn remove_leftover(path: &Path) -> io::Result<()> {
    let taken = |what: &str| Err(io::Error::new(ErrorKind::AddrInUse, what.to_owned()));
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return taken("a file is there that is not a socket (remove it, or listen elsewhere)");
    }
    match UnixStream::connect(path).map_err(|error| errno_of(&error)) {
        Err(Some(Errno::ECONNREFUSED)) => fs::remove_file(path).map_err(explained(
            "a socket that nobody uses can't be removed".to_owned(),
        )),
        Err(Some(Errno::ENOENT)) => Ok(()),
        // EAGAIN: more wait than it takes at a time. EPROTOTYPE: a socket of another type.
        Ok(_) | Err(Some(Errno::EAGAIN | Errno::EPROTOTYPE)) => {
            taken("another program listens there")
        }
        Err(Some(errno)) => Err(explained(
            "a socket is there, and it is not known whether anyone listens".to_owned(),
        )(errno.into())),
        Err(None) => taken("a socket is there"),
    }
}

fn errno_of(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw)
}

/// Says what could not be done.
fn explained(what: String) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// The file of a socket, as it can be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    path: OsString,
    device: u64,
    inode: u64,
}

/// The file of a socket, which is removed at the end, unless it is another's by then.
#[derive(Debug)]
struct SocketFile(FileState);

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self(FileState {
            path: path.into(),
            device: found.dev(),
            inode: found.ino(),
        }))
    }

    /// The inode can't be another's while the socket is open.
    fn is_ours(&self) -> bool {
        let FileState {
            path,
            device,
            inode,
        } = &self.0;
        fs::symlink_metadata(path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (*device, *inode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours()
            && let Err(error) = fs::remove_file(&self.0.path)
        {
            warn!("{} can't be removed: {error}", self.0.path.display());
        }
    }
}
