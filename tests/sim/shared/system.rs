//! The system of the loop: what it asks is answered by the script below.

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
use mcp_tcp_proxy::serve::system::{ServerUser, System};
use mcp_tcp_proxy::util::client_address::ClientAddress;
use mcp_tcp_proxy::util::service_key::ServiceKey;
use mcp_tcp_proxy::util::time::Time;
use mio::{Interest, Token};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::below::Below;
use crate::script::{Listener, Sleep};
use crate::transport::{Events, Output, Shared, Socket, Stdin};

pub struct Script(pub Shared<Below>);

/// What the loop waits with.
pub struct Poller {
    pub below: Shared<Below>,
    pub sleeps_until: Sleep,
}

impl Poll for Poller {
    type Events = Events;

    fn wait(&mut self, events: &mut Events, deadline: Option<Time>, now: Time) -> io::Result<()> {
        events.clear();
        let mut below = self.below.borrow_mut();
        events.append(&mut below.events);
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

impl Register<Socket> for Poller {
    fn register(
        &mut self,
        source: Socket,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Socket>> {
        let target = Target::<Channel>::of(token).unwrap();
        let mut below = self.below.borrow_mut();
        below.accepted(source.slot, SessionKey(target.key));
        source.watch(token);
        source.tell_all(&mut below.events);
        Ok(Io::new(source, token, interest))
    }
}

impl Reregister<Socket> for Poller {
    fn reregister(
        &mut self,
        io: Io<Socket>,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Socket>> {
        self.register(io.into_source(), token, interest)
    }
}

impl Register<Listener> for Poller {
    fn register(
        &mut self,
        source: Listener,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Listener>> {
        Ok(Io::new(source, token, interest))
    }
}

impl Register<Stdin> for Poller {
    fn register(
        &mut self,
        source: Stdin,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Stdin>> {
        source.watch(token);
        Ok(Io::new(source, token, interest))
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
        Ok(Io::new(source, token, interest))
    }
}

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
        self.0.borrow_mut().accept()
    }

    fn spawn(
        &mut self,
        _: ServiceKey,
        user: Option<ServerUser<'_, Socket>>,
    ) -> io::Result<Spawned<Stdin, Output>> {
        self.0.borrow_mut().spawn(user.map(|user| user.key))
    }

    fn reap(&mut self) -> Reaped {
        self.0.borrow_mut().reap()
    }

    fn process_exists(&self, pid: Pid) -> bool {
        let below = self.0.borrow();
        below.process(pid).is_some_and(|server| !server.reaped)
    }

    fn group_exists(&self, leader: Pid) -> bool {
        self.process_exists(leader)
    }

    fn signal_process(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        self.0.borrow_mut().signal(leader, signal)
    }

    fn signal_group(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        self.0.borrow_mut().signal(leader, signal)
    }

    fn vanished<'a>(
        &mut self,
        _: impl Iterator<Item = (SessionKey, &'a Socket)>,
        _: Duration,
    ) -> Vec<SessionKey> {
        Vec::new()
    }

    fn unsent(&mut self, client: &Socket) -> Option<u32> {
        Some(client.duplex.borrow().output.unconsumed() as u32)
    }

    fn unix_time(&self) -> Duration {
        let below = self.0.borrow();
        Duration::from_secs(1) + below.now.saturating_since(below.began)
    }

    fn read_files(&mut self) -> Result<Contents, String> {
        Err("there are none".to_owned())
    }
}
