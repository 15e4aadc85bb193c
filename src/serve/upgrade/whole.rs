//! All that is written down: the loop, and what is below it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::{net, os::unix::net as unix};

use mio::net::{TcpListener, TcpStream, UnixStream};
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use serde::{Deserialize, Serialize};

use super::super::Proxy;
use super::super::sharing::Sharing;
use super::super::source::SourceState;
use super::super::state::{ProxyState, SourceCounts, Sources};
use super::super::system::Linux;
use crate::logger;
use crate::reactor::timers;
use crate::resume::Server as KeptSession;
use crate::session::Session;
use crate::transport::listener::Listener;
use crate::transport::socket::Socket;
use crate::transport::unix_listener::{FileState, UnixSocket};
use crate::upgrade::program::Program;
use crate::util::side_bytes;
use crate::util::time::Time;

/// A proxy as it is written down. `S` is a session, `K` what is kept of it, and `H` what is shared, or where they are.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Whole<S = Session, K = Box<KeptSession>, H = Sharing> {
    /// Where the program lies that goes on next, and how often one has.
    pub(super) program: Program,
    /// When it was written down.
    pub(super) at: Time,
    /// The soft limit of descriptors that servers get.
    pub(super) original_descriptors: u64,
    /// Whether SIGHUP has files read again.
    pub(super) reloads_on_hangup: bool,
    pub(super) source: SourceState,
    /// The files of unix sockets, in the order of the listeners.
    pub(super) files: Vec<Option<FileState>>,
    /// What the log has to begin with.
    #[serde(with = "side_bytes")]
    pub(super) log_rest: Vec<u8>,
    pub(super) proxy: ProxyState<S, K, H>,
}

impl Proxy<Linux> {
    /// The state of the whole.
    pub(super) fn whole(&self) -> Whole<&Session, &KeptSession, &Sharing> {
        let files = self.all_listeners().map(|listener| match listener {
            Listener::Tcp(_) => None,
            Listener::Unix(socket) => socket.file_state(),
        });
        Whole {
            program: self.system.program.clone(),
            at: timers::now(),
            original_descriptors: self.system.source.descriptors.original(),
            reloads_on_hangup: self.system.signals.reloads_on_hangup(),
            source: SourceState::of(&self.system),
            files: files.collect(),
            log_rest: logger::rest(),
            proxy: self.snapshot(),
        }
    }

    /// What keeps others from the paths of unix sockets; after all other descriptors.
    pub(super) fn locks(&self) -> Vec<BorrowedFd<'_>> {
        let locks = self.all_listeners().filter_map(|listener| match listener {
            Listener::Tcp(_) => None,
            Listener::Unix(socket) => socket.lock(),
        });
        locks.collect()
    }
}

impl<S, K, H> Whole<S, K, H> {
    /// How many descriptors there have to be.
    fn count(&self) -> usize {
        let SourceCounts {
            listeners,
            status,
            clients,
            stdins,
            outputs,
        } = self.proxy.sources();
        listeners + status + clients + stdins + outputs + self.files.iter().flatten().count()
    }

    /// Makes of the descriptors what they are.
    pub(super) fn sources(&self, descriptors: Vec<OwnedFd>) -> io::Result<Sources<Linux>> {
        if descriptors.len() != self.count() {
            return Err(io::Error::other(format!(
                "there are {} descriptors, and there have to be {}",
                descriptors.len(),
                self.count()
            )));
        }
        let counts = self.proxy.sources();
        let mut all = VecDeque::from(descriptors);
        let mut next = |count: usize| -> Vec<OwnedFd> { all.drain(..count).collect() };
        let listeners = next(counts.listeners + counts.status);
        let clients = next(counts.clients);
        let stdins = next(counts.stdins);
        let outputs = next(counts.outputs);
        let mut listeners = self.listeners(listeners, all.into())?;
        Ok(Sources {
            status: listeners.split_off(counts.listeners),
            listeners,
            clients: clients
                .into_iter()
                .map(|descriptor| Ok(socket(descriptor)?.into()))
                .collect::<io::Result<_>>()?,
            stdins: stdins.into_iter().map(Into::into).collect(),
            outputs: outputs.into_iter().map(Into::into).collect(),
        })
    }

    fn listeners(
        &self,
        sockets: Vec<OwnedFd>,
        locks: Vec<OwnedFd>,
    ) -> io::Result<VecDeque<Listener>> {
        let mut locks = locks.into_iter();
        let mut listeners = VecDeque::new();
        for (descriptor, file) in sockets.into_iter().zip(&self.files) {
            listeners.push_back(if is_unix(&descriptor)? {
                let listener = unix::UnixListener::from(descriptor);
                let lock = file.as_ref().and_then(|_| locks.next());
                let file = file.clone().zip(lock.map(File::from));
                Listener::Unix(UnixSocket::taken_over(listener, file))
            } else {
                Listener::Tcp(TcpListener::from_std(net::TcpListener::from(descriptor)))
            });
        }
        Ok(listeners)
    }
}

fn socket(descriptor: OwnedFd) -> io::Result<Socket> {
    Ok(if is_unix(&descriptor)? {
        Socket::Unix(UnixStream::from_std(unix::UnixStream::from(descriptor)))
    } else {
        Socket::Tcp(TcpStream::from_std(net::TcpStream::from(descriptor)))
    })
}

fn is_unix(descriptor: &OwnedFd) -> io::Result<bool> {
    let address: SockaddrStorage = getsockname(descriptor.as_raw_fd())?;
    Ok(address.family() == Some(AddressFamily::Unix))
}
