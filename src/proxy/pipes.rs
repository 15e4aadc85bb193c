//! Our ends of the pipes of a server, registered for a session or for the pool.

use std::io;

use mio::unix::pipe;
use mio::{Interest, Registry, Token};

use crate::process::Spawned;
use crate::reactor::endpoint::Endpoint;
use crate::reactor::token::Port;

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
