//! Our ends of the pipes of a server, registered for a session or for the pool.

use std::io;
use std::os::fd::AsFd;

use mio::Interest;
use mio::unix::pipe;
use nix::fcntl::{FcntlArg, fcntl};

use super::{Channel, Due};
use crate::process::Spawned;
use crate::reactor::Reactor;
use crate::reactor::io::Io;
use crate::reactor::token::Target;

/// What a pipe holds by default, in bytes (pipe(7)).
const PIPE_BYTES: usize = 64 * 1024;

/// What a pipe is to hold that carries lines of many times that, in bytes.
const WIDE_PIPE_BYTES: i32 = 512 * 1024;

/// So many pipes full of one line, and it is worth while.
const MANY_PIPES: u8 = 4;

/// Finds out whether a pipe has too little room, and gives it more, so that a long line does not take a change of
/// processes for every 64 KiB. Once is enough: the system may refuse it to users other than root, as what all their pipes
/// hold is limited, and then the pipe has to do as it is.
#[derive(Debug, Default)]
pub(super) struct PipeWidener {
    full_reads: u8,
    is_wide: bool,
}

impl PipeWidener {
    /// So many bytes were read at once, of as many as `wanted`.
    pub(super) fn was_read(&mut self, count: usize, wanted: usize, pipe: &impl AsFd) {
        let is_full = count >= PIPE_BYTES && wanted > PIPE_BYTES;
        self.full_reads = if is_full {
            self.full_reads.saturating_add(1)
        } else {
            0
        };
        if self.full_reads >= MANY_PIPES {
            self.widen(pipe);
        }
    }

    /// So many bytes had no room.
    pub(super) fn was_left(&mut self, count: usize, pipe: &impl AsFd) {
        if count >= usize::from(MANY_PIPES) * PIPE_BYTES {
            self.widen(pipe);
        }
    }

    fn widen(&mut self, pipe: &impl AsFd) {
        if !self.is_wide {
            self.is_wide = true;
            let _ = fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(WIDE_PIPE_BYTES));
        }
    }
}

/// The pipes of a server.
#[derive(Debug)]
pub(super) struct Pipes {
    /// `None` after the end of its input.
    pub(super) stdin: Option<Io<pipe::Sender>>,
    pub(super) stdout: Io<pipe::Receiver>,
    pub(super) stderr: Io<pipe::Receiver>,
}

impl Pipes {
    /// Registers the pipes of a new server; `target` says where each of them is kept.
    pub(super) fn register(
        spawned: Spawned,
        reactor: &mut Reactor<Channel, Due>,
        target: impl Fn(Channel) -> Target<Channel>,
    ) -> io::Result<Self> {
        let (write, read) = (Interest::WRITABLE, Interest::READABLE);
        Ok(Self {
            stdin: Some(reactor.register(spawned.stdin, target(Channel::Stdin), write)?),
            stdout: reactor.register(spawned.stdout, target(Channel::Stdout), read)?,
            stderr: reactor.register(spawned.stderr, target(Channel::Stderr), read)?,
        })
    }

    /// Registers them anew, for someone else.
    pub(super) fn hand_over(
        &mut self,
        reactor: &mut Reactor<Channel, Due>,
        target: impl Fn(Channel) -> Target<Channel>,
    ) -> io::Result<()> {
        let (write, read) = (Interest::WRITABLE, Interest::READABLE);
        if let Some(stdin) = &mut self.stdin {
            reactor.register_anew(stdin, target(Channel::Stdin), write)?;
        }
        reactor.register_anew(&mut self.stdout, target(Channel::Stdout), read)?;
        reactor.register_anew(&mut self.stderr, target(Channel::Stderr), read)
    }
}
