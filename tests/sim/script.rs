//! The system below the loop: connections that wait to be accepted, processes, signals and a clock, as the world has
//! scripted them.

use std::io;
use std::time::Duration;

use mcp_tcp_proxy::process::Spawned;
use mcp_tcp_proxy::process::reap::Reaped;
use mcp_tcp_proxy::reactor::io::{Io, Readiness};
use mcp_tcp_proxy::reactor::poller::{Poll, Register, Reregister};
use mcp_tcp_proxy::reactor::signals::Pending;
use mcp_tcp_proxy::reactor::token::Target;
use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::serve::Channel;
use mcp_tcp_proxy::serve::reload::Contents;
use mcp_tcp_proxy::serve::system::{ClientSocket, Pipe, ServerUser, System};
use mcp_tcp_proxy::session::{Action, Session};
use mcp_tcp_proxy::util::client_address::ClientAddress;
use mcp_tcp_proxy::util::service_key::ServiceKey;
use mcp_tcp_proxy::util::time::Time;
use mio::{Interest, Token};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::allocated::Outside;
use crate::below::Below;
use crate::server::{Kind, Server};
use crate::stats::Fault;
use crate::transport::{Events, Output, Shared, Socket, Stdin};

/// After the start of a world it is this late by the wall clock.
const UNIX_TIME: Duration = Duration::from_secs(1);

/// The system of the serving loop.
pub struct Script(pub Shared<Below>);

/// What a loop waits with. Each kind of session has a loop of its own.
pub struct Poller {
    pub below: Shared<Below>,
    pub kind: Kind,
    /// For how long the loop would have slept the last time.
    pub sleeps_until: Sleep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// It had something to do, or something was due.
    No,
    Until(Option<Time>),
}

impl Sleep {
    /// How long a loop sleeps that waits for this deadline.
    pub fn until(deadline: Option<Time>, now: Time) -> Self {
        if deadline.is_some_and(|at| at <= now) {
            Self::No
        } else {
            Self::Until(deadline)
        }
    }
}

impl Poll for Poller {
    type Events = Events;

    fn wait(&mut self, events: &mut Events, deadline: Option<Time>, now: Time) -> io::Result<()> {
        let _outside = Outside::new();
        events.clear();
        let mut below = self.below.borrow_mut();
        events.append(below.events(self.kind));
        self.sleeps_until = Sleep::until(deadline, now.max(below.now));
        Ok(())
    }

    fn iter(events: &Events) -> impl Iterator<Item = (Token, Readiness)> {
        events.iter().copied()
    }

    fn now(&self) -> Time {
        self.below.borrow().now
    }
}

impl Poller {
    fn watch<S>(&self, source: S, token: Token, interest: Interest) -> Io<S> {
        let _outside = Outside::new();
        self.below.borrow_mut().watched(token);
        Io::new(source, token, interest)
    }

    /// The system has no memory for this one.
    fn turned_away(&self, socket: &Socket) {
        let mut below = self.below.borrow_mut();
        if let Some(place) = below.places.get_mut(socket.slot) {
            place.must_get_in = false;
        }
    }

    /// Sometimes the system has no memory for one more.
    fn exhaust(&self) -> io::Result<()> {
        let mut below = self.below.borrow_mut();
        if below.happens_in_thousand(2) {
            below.stats.fault(Fault::RegisterExhausted);
            below.order.exhausted_at = Some(below.now);
            return Err(Errno::ENOMEM.into());
        }
        Ok(())
    }
}

impl Register<Socket> for Poller {
    fn register(
        &mut self,
        source: Socket,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Socket>> {
        if self.kind == Kind::Process && !self.below.borrow().is_upgrading {
            let _outside = Outside::new();
            self.exhaust().inspect_err(|_| self.turned_away(&source))?;
            let target = Target::<Channel>::of(token).unwrap();
            let mut below = self.below.borrow_mut();
            if target.channel == Channel::Client {
                below.accepted(source.slot, SessionKey(target.key));
            }
        }
        source.watch(token);
        {
            let _outside = Outside::new();
            source.tell_all(self.below.borrow_mut().events(self.kind));
        }
        Ok(self.watch(source, token, interest))
    }
}

impl Reregister<Socket> for Poller {
    fn reregister(
        &mut self,
        io: Io<Socket>,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Socket>> {
        let _outside = Outside::new();
        let source = io.into_source();
        let key = Target::<Channel>::of(token).map(|target| SessionKey(target.key));
        let mut below = self.below.borrow_mut();
        below.accepted(source.slot, key.unwrap());
        source.watch(token);
        source.tell_all(below.events(self.kind));
        drop(below);
        Ok(self.watch(source, token, interest))
    }
}

impl Register<Listener> for Poller {
    fn register(
        &mut self,
        source: Listener,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Listener>> {
        self.below.borrow_mut().listener_token = token;
        Ok(self.watch(source, token, interest))
    }
}

impl Register<Stdin> for Poller {
    fn register(
        &mut self,
        source: Stdin,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Stdin>> {
        let is_upgrading = self.below.borrow().is_upgrading;
        if !is_upgrading {
            self.exhaust()?;
        }
        source.watch(token);
        if is_upgrading {
            source.forget_told();
        }
        Ok(self.watch(source, token, interest))
    }
}

impl Register<Output> for Poller {
    fn register(
        &mut self,
        source: Output,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Output>> {
        source.watch(token);
        if self.below.borrow().is_upgrading {
            source.forget_told();
        }
        Ok(self.watch(source, token, interest))
    }
}

/// A listening socket.
pub struct Listener;

impl System for Script {
    type Poller = Poller;
    type Listener = Listener;
    type Client = Socket;
    type Stdin = Stdin;
    type Output = Output;

    fn take_signals(&mut self) -> Pending {
        std::mem::take(&mut self.0.borrow_mut().signals)
    }

    fn accept(&mut self, _: &Listener) -> io::Result<(Socket, ClientAddress)> {
        let _outside = Outside::new();
        let mut below = self.0.borrow_mut();
        let (socket, own) = below.accept()?;
        Ok((socket, below.asks.peer(own)))
    }

    fn spawn(
        &mut self,
        _: ServiceKey,
        user: Option<ServerUser<'_, Socket>>,
    ) -> io::Result<Spawned<Stdin, Output>> {
        let _outside = Outside::new();
        self.0.borrow_mut().spawn(user.map(|user| user.key))
    }

    fn reap(&mut self) -> Reaped {
        let _outside = Outside::new();
        self.0.borrow_mut().reap()
    }

    fn process_exists(&self, pid: Pid) -> bool {
        let below = self.0.borrow();
        below.process(pid).is_some_and(|server| !server.reaped)
    }

    fn group_exists(&self, leader: Pid) -> bool {
        let below = self.0.borrow();
        below.group_questions.update(|count| count + 1);
        below.process(leader).is_some_and(Server::group_is_left)
    }

    fn signal_process(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        let _outside = Outside::new();
        self.0.borrow_mut().signal_process(leader, signal)
    }

    fn signal_group(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        let _outside = Outside::new();
        self.0.borrow_mut().signal_group(leader, signal)
    }

    fn vanished<'a>(
        &mut self,
        clients: impl Iterator<Item = (SessionKey, &'a Socket)>,
        time: Duration,
    ) -> Vec<SessionKey> {
        let below = self.0.borrow();
        let is_silent = |slot| below.places[slot].is_silent_for(time, below.now);
        clients
            .filter(|(_, socket)| is_silent(socket.slot))
            .map(|(key, _)| key)
            .collect()
    }

    fn unsent(&mut self, client: &Socket) -> Option<u32> {
        let below = self.0.borrow();
        let duplex = client.duplex.borrow();
        let unsent = duplex.output.unconsumed() as u32;
        // The end of our side waits behind it.
        let end = u32::from(!duplex.writes && unsent > 0);
        below.tells_queues.then_some(unsent + end)
    }

    fn unix_time(&self) -> Duration {
        let below = self.0.borrow();
        UNIX_TIME + below.now.saturating_since(below.began)
    }

    fn read_files(&mut self) -> Result<Contents, String> {
        let _outside = Outside::new();
        let below = self.0.borrow();
        let tokens = below.asks.tokens();
        Ok(Contents { tokens, tls: None })
    }

    fn action_taken(&mut self, key: SessionKey, action: Action, session: &Session) {
        let _outside = Outside::new();
        let mut below = self.0.borrow_mut();
        let slot = below.slot_of(key);
        below.action_taken(slot, action, session);
    }

    fn session_freed(&mut self, key: SessionKey, session: &Session) {
        let _outside = Outside::new();
        let mut below = self.0.borrow_mut();
        let slot = below.slot_of(key);
        below.session_freed(slot, session);
    }
}

impl ClientSocket for Socket {
    fn configure(&self) -> io::Result<()> {
        if self.duplex.borrow().output.broken.is_some() {
            return Err(Errno::EINVAL.into());
        }
        Ok(())
    }

    fn end(&mut self) {
        self.duplex.borrow_mut().writes = false;
    }

    fn take_error(&self) -> Option<io::Error> {
        let kind = self.duplex.borrow().output.broken?;
        Some(kind.into())
    }
}

impl Pipe for Stdin {
    fn widen(&self) {}
}

impl Pipe for Output {
    fn widen(&self) {}
}
