//! Our ends of the pipes of a server, registered for a session or for the pool.

use std::io;
use std::os::fd::AsFd;

use mio::unix::pipe;
use mio::{Interest, Registry, Token};
use nix::fcntl::{FcntlArg, fcntl};

use crate::process::Spawned;
use crate::reactor::endpoint::Endpoint;
use crate::reactor::token::Port;

/// What a pipe holds by default, in bytes (pipe(7)).
pub(super) const PIPE_BYTES: usize = 64 * 1024;

/// What a pipe is to hold that carries lines longer than that, in bytes.
const WIDE_PIPE_BYTES: i32 = 256 * 1024;

/// Gives a pipe more room, so that a long line does not take a change of processes for every 64 KiB. The system may
/// refuse that to users other than root, and then it has to do as it is.
pub(super) fn widen(pipe: &impl AsFd) {
    let _ = fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(WIDE_PIPE_BYTES));
}

/// The pipes of a server.
#[derive(Debug)]
pub(super) struct Pipes {
    /// `None` after the end of its input.
    pub(super) stdin: Option<Endpoint<pipe::Sender>>,
    pub(super) stdout: Endpoint<pipe::Receiver>,
    pub(super) stderr: Endpoint<pipe::Receiver>,
}

impl Pipes {
    /// Registers the pipes of a new server; `token` has a new token for each of them.
    pub(super) fn register(
        spawned: Spawned,
        registry: &Registry,
        mut token: impl FnMut(Port) -> Token,
    ) -> io::Result<Self> {
        let (write, read) = (Interest::WRITABLE, Interest::READABLE);
        Ok(Self {
            stdin: Some(Endpoint::register(
                spawned.stdin,
                registry,
                token(Port::Stdin),
                write,
            )?),
            stdout: Endpoint::register(spawned.stdout, registry, token(Port::Stdout), read)?,
            stderr: Endpoint::register(spawned.stderr, registry, token(Port::Stderr), read)?,
        })
    }

    /// Registers them anew, for someone else.
    pub(super) fn hand_over(
        &mut self,
        registry: &Registry,
        mut token: impl FnMut(Port) -> Token,
    ) -> io::Result<()> {
        let (write, read) = (Interest::WRITABLE, Interest::READABLE);
        if let Some(stdin) = &mut self.stdin {
            stdin.register_anew(registry, token(Port::Stdin), write)?;
        }
        self.stdout
            .register_anew(registry, token(Port::Stdout), read)?;
        self.stderr
            .register_anew(registry, token(Port::Stderr), read)
    }
}
