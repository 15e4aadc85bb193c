//! A working directory of the servers' own.
//!
//! `posix_spawn(3)` starts a process where its parent is. So the proxy, which is one thread, goes there for that moment.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{self, Path, PathBuf};

use log::error;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir};

/// Where servers are started, and the way back.
#[derive(Debug)]
pub struct WorkingDirectory {
    path: PathBuf,
    own: OwnedFd,
}

impl WorkingDirectory {
    /// A relative path is one from where the proxy is now. Errors say what is wrong with the directory.
    pub fn new(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = Self {
            path: path::absolute(path)?,
            own: open(".", flags, Mode::empty())?,
        };
        directory.inside(|| ())?;
        Ok(directory)
    }

    /// Does something there. The directory is looked up each time: it may have been replaced by another of its name.
    pub(super) fn inside<T>(&self, action: impl FnOnce() -> T) -> io::Result<T> {
        chdir(&self.path).map_err(|error| self.named(error))?;
        let result = action();
        if let Err(error) = fchdir(&self.own) {
            error!("there is no way back to the working directory: {error}");
        }
        Ok(result)
    }

    /// An error that is about the directory says so. What has run out may be there again later, and is told as it is.
    fn named(&self, error: Errno) -> io::Error {
        let plain = io::Error::from(error);
        if error == Errno::ENOMEM {
            return plain;
        }
        io::Error::new(
            plain.kind(),
            format!("the working directory {}: {plain}", self.path.display()),
        )
    }
}
