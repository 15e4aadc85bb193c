//! The system of a loop in worlds that look at its sessions from outside: what it asks is answered by what is [`Beneath`].

use std::io;
use std::time::Duration;

use mcp_tcp_proxy::buffers::budget::BufferBudget;
use mcp_tcp_proxy::entrance::Rules;
use mcp_tcp_proxy::process::Spawned;
use mcp_tcp_proxy::process::reap::Reaped;
use mcp_tcp_proxy::reactor::Reactor;
use mcp_tcp_proxy::reactor::io::{Io, Readiness};
use mcp_tcp_proxy::reactor::poller::{Poll, Register, Reregister};
use mcp_tcp_proxy::reactor::signals::Pending;
use mcp_tcp_proxy::reactor::token::Target;
use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::serve::reload::Contents;
use mcp_tcp_proxy::serve::system::{ServerUser, System};
use mcp_tcp_proxy::serve::{Channel, Limits, Plan, Proxy};
use mcp_tcp_proxy::util::client_address::ClientAddress;
use mcp_tcp_proxy::util::service_key::ServiceKey;
use mcp_tcp_proxy::util::time::Time;
use mio::{Interest, Token};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::script::{Listener, Sleep};
use crate::transport::{Events, Output, Shared, Socket, Stdin};

/// What is below a loop.
pub trait Beneath {
    fn now(&self) -> Time;

    fn began(&self) -> Time;

    /// What the loop is told next.
    fn events(&mut self, who: Who) -> &mut Events;

    fn take_signals(&mut self) -> Pending;

    fn accept(&mut self) -> io::Result<(Socket, ClientAddress)>;

    /// Signals come under this token.
    fn is_signalled(&mut self, token: Token);

    /// Connections come to be accepted under this token.
    fn listens(&mut self, token: Token);

    /// A connection is the one of this session.
    fn accepted(&mut self, slot: usize, key: SessionKey);

    fn spawn(&mut self, user: Option<SessionKey>) -> io::Result<Spawned<Stdin, Output>>;

    fn reap(&mut self) -> Reaped;

    /// Whether there is such a process that was not reaped.
    fn exists(&self, pid: Pid) -> bool;

    fn signal(&mut self, leader: Pid, signal: Signal) -> nix::Result<()>;
}

/// The loop of the proxy, over a script.
pub fn proxy<B: Beneath>(
    below: &Shared<B>,
    limits: Limits,
    plan: Plan,
    memory: BufferBudget,
) -> Proxy<Script<B>> {
    let mut reactor = Reactor::new(Poller::new(below, Who::Proxy));
    let mut token = |channel| reactor.next_token(Target { key: 0, channel });
    let (signals, listener) = (token(Channel::Signals), token(Channel::Listener));
    below.borrow_mut().is_signalled(signals);
    below.borrow_mut().listens(listener);
    let listeners = vec![(Io::new(Listener, listener, Interest::READABLE), None)];
    let (system, rules) = (Script(below.clone()), Rules::default());
    Proxy::new(system, reactor, listeners, limits, rules, plan, memory)
}

/// Whose loop it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Proxy,
    Connectors,
}

pub struct Script<B>(pub Shared<B>);

/// What a loop waits with.
pub struct Poller<B> {
    pub below: Shared<B>,
    pub who: Who,
    pub sleeps_until: Sleep,
}

impl<B> Poller<B> {
    pub fn new(below: &Shared<B>, who: Who) -> Self {
        Self {
            below: below.clone(),
            who,
            sleeps_until: Sleep::No,
        }
    }
}

impl<B: Beneath> Poll for Poller<B> {
    type Events = Events;

    fn wait(&mut self, events: &mut Events, deadline: Option<Time>, now: Time) -> io::Result<()> {
        events.clear();
        let mut below = self.below.borrow_mut();
        events.append(below.events(self.who));
        self.sleeps_until = Sleep::until(deadline, now.max(below.now()));
        Ok(())
    }

    fn iter(events: &Events) -> impl Iterator<Item = (Token, Readiness)> {
        events.iter().copied()
    }

    fn now(&self) -> Time {
        self.below.borrow().now()
    }
}

impl<B: Beneath> Register<Socket> for Poller<B> {
    fn register(
        &mut self,
        source: Socket,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Socket>> {
        let mut below = self.below.borrow_mut();
        if self.who == Who::Proxy {
            let target = Target::<Channel>::of(token).unwrap();
            if target.channel == Channel::Client {
                below.accepted(source.slot, SessionKey(target.key));
            }
        }
        source.watch(token);
        source.tell_all(below.events(self.who));
        Ok(Io::new(source, token, interest))
    }
}

impl<B: Beneath> Reregister<Socket> for Poller<B> {
    fn reregister(
        &mut self,
        io: Io<Socket>,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Socket>> {
        self.register(io.into_source(), token, interest)
    }
}

impl<B: Beneath> Register<Listener> for Poller<B> {
    fn register(
        &mut self,
        source: Listener,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Listener>> {
        self.below.borrow_mut().listens(token);
        Ok(Io::new(source, token, interest))
    }
}

impl<B: Beneath> Register<Stdin> for Poller<B> {
    fn register(
        &mut self,
        source: Stdin,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Stdin>> {
        source.watch(token);
        source.forget_told();
        Ok(Io::new(source, token, interest))
    }
}

impl<B: Beneath> Register<Output> for Poller<B> {
    fn register(
        &mut self,
        source: Output,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<Output>> {
        source.watch(token);
        source.forget_told();
        Ok(Io::new(source, token, interest))
    }
}

impl<B: Beneath> System for Script<B> {
    type Poller = Poller<B>;
    type Listener = Listener;
    type Client = Socket;
    type Stdin = Stdin;
    type Output = Output;

    fn take_signals(&mut self) -> Pending {
        self.0.borrow_mut().take_signals()
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
        self.0.borrow().exists(pid)
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
        Duration::from_secs(1) + below.now().saturating_since(below.began())
    }

    fn read_files(&mut self) -> Result<Contents, String> {
        Err("there are none".to_owned())
    }
}
