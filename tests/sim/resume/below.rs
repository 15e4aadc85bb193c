//! What is below the two loops: hosts, the network between the programs, and servers.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mcp_tcp_proxy::process::Spawned;
use mcp_tcp_proxy::process::reap::Reaped;
use mcp_tcp_proxy::reactor::io::Readiness;
use mcp_tcp_proxy::reactor::signals::Pending;
use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::session::report::Exit;
use mcp_tcp_proxy::util::client_address::ClientAddress;
use mcp_tcp_proxy::util::time::Time;
use mio::Token;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use slab::Slab;

use super::host::Host;
use super::network::{Connection, Side};
use super::server::Server;
use crate::plain_system::{Beneath, Who};
use crate::processes::Processes;
use crate::rng::Rng;
use crate::trace;
use crate::transport::{Duplex, Events, Output, Shared, Socket, Stdin, shared};

/// An attempt of a `connect` to reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dial {
    None,
    Pending,
    Refused,
    Accepted(usize),
}

/// Who waits to be accepted.
#[derive(Debug, Clone, Copy)]
enum Caller {
    /// A connection of a `connect`.
    Connection(usize),
    /// A host that knows nothing of resuming.
    Host(usize),
}

pub struct Below {
    pub rng: Rng,
    pub now: Time,
    pub began: Time,
    /// How much longer the machines slept than the clock says that stands still meanwhile.
    pub slept: Duration,
    /// Whether servers may be slow, and speak before they are spoken to.
    pub is_rough: bool,
    pub hosts: Vec<Host>,
    pub dials: Vec<Dial>,
    pub connections: Slab<Connection>,
    pub connections_so_far: usize,
    pub servers: Processes<Server>,
    backlog: VecDeque<Caller>,
    signals: Pending,
    pub signal_token: Token,
    pub listener_token: Token,
    proxy_events: Events,
    connector_events: Events,
    pub cuts: u64,
    pub upgrades: u64,
}

impl Beneath for Below {
    fn now(&self) -> Time {
        self.now
    }

    fn began(&self) -> Time {
        self.began
    }

    fn events(&mut self, who: Who) -> &mut Events {
        match who {
            Who::Proxy => &mut self.proxy_events,
            Who::Connectors => &mut self.connector_events,
        }
    }

    fn take_signals(&mut self) -> Pending {
        std::mem::take(&mut self.signals)
    }

    fn accept(&mut self) -> io::Result<(Socket, ClientAddress)> {
        let caller = self.backlog.pop_front().ok_or(Errno::EAGAIN)?;
        let (slot, duplex) = match caller {
            Caller::Connection(key) => (key, self.connections[key].proxy.clone()),
            Caller::Host(number) => (usize::MAX, self.hosts[number].duplex.clone()),
        };
        let address = SocketAddr::from(([10, 0, 0, 1], 1000));
        Ok((Socket { duplex, slot }, ClientAddress::of_tcp(address)))
    }

    fn is_signalled(&mut self, token: Token) {
        self.signal_token = token;
    }

    fn listens(&mut self, token: Token) {
        self.listener_token = token;
    }

    fn accepted(&mut self, slot: usize, key: SessionKey) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.session = Some(key);
        }
    }

    fn spawn(&mut self, user: Option<SessionKey>) -> io::Result<Spawned<Stdin, Output>> {
        let (rng, is_rough) = (&mut self.rng, self.is_rough);
        let make = |pid| Server::new(pid, is_rough, rng);
        Ok(self.servers.start(user, make))
    }

    fn reap(&mut self) -> Reaped {
        self.servers.reap()
    }

    fn exists(&self, pid: Pid) -> bool {
        self.servers.key(pid).is_some()
    }

    fn signal(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        let key = self.servers.key(leader).ok_or(Errno::ESRCH)?;
        self.with_server(key, |server, _| server.ends(Exit::Signal(signal as i32)));
        Ok(())
    }
}

impl Below {
    pub fn new(mut rng: Rng, now: Time) -> Self {
        Self {
            rng: rng.fork(),
            now,
            began: now,
            slept: Duration::ZERO,
            is_rough: false,
            hosts: Vec::new(),
            dials: Vec::new(),
            connections: Slab::new(),
            connections_so_far: 0,
            servers: Processes::default(),
            backlog: VecDeque::new(),
            signals: Pending::default(),
            signal_token: Token(0),
            listener_token: Token(0),
            proxy_events: Events::new(),
            connector_events: Events::new(),
            cuts: 0,
            upgrades: 0,
        }
    }

    fn call(&mut self, caller: Caller) {
        self.backlog.push_back(caller);
        self.ring();
    }

    fn ring(&mut self) {
        let event = (self.listener_token, Readiness::READABLE);
        self.proxy_events.push(event);
    }

    /// Another loop takes over: what the one before was told of is forgotten.
    pub fn begin_upgrade(&mut self) {
        self.proxy_events.clear();
    }

    /// What is watched anew is told of at once, if there is something to tell.
    pub fn end_upgrade(&mut self) {
        self.upgrades += 1;
        self.notify_all();
        if !self.backlog.is_empty() {
            self.ring();
        }
        self.raise();
    }

    /// A host that needs no `connect` comes.
    pub fn call_plainly(&mut self, host: usize) {
        self.call(Caller::Host(host));
    }

    /// Something comes of an attempt to connect.
    pub fn answer_dial(&mut self, host: usize, is_refused: bool) {
        if self.dials[host] != Dial::Pending {
            return;
        }
        if is_refused {
            self.dials[host] = Dial::Refused;
            return;
        }
        let number = self.connections_so_far;
        self.connections_so_far += 1;
        trace::note(|| format!("connection {number} is made for host {host}"));
        let connection = Connection::new(number, host, self.now, &mut self.rng);
        let key = self.connections.insert(connection);
        self.dials[host] = Dial::Accepted(key);
        self.call(Caller::Connection(key));
    }

    /// The end of a new connection for the `connect` that has made it.
    pub fn dialled(&mut self, host: usize) -> Option<Result<Socket, ()>> {
        let dial = self.dials[host];
        let result = match dial {
            Dial::None | Dial::Pending => return None,
            Dial::Refused => Err(()),
            Dial::Accepted(slot) => {
                let duplex = self.connections[slot].connector.clone();
                Ok(Socket { duplex, slot })
            }
        };
        self.dials[host] = Dial::None;
        Some(result)
    }

    /// A connection that was made and is not wanted any more.
    pub fn hang_up(&mut self, host: usize) {
        if let Dial::Accepted(key) = self.dials[host] {
            let duplex = self.connections[key].connector.clone();
            drop(Socket { duplex, slot: key });
        }
        self.dials[host] = Dial::None;
    }

    fn with_server(&mut self, key: usize, act: impl FnOnce(&mut Server, &mut [Host])) {
        let hosts = &mut self.hosts;
        self.servers.act(key, |server| act(server, hosts));
    }

    pub fn server_acts(&mut self, key: usize) {
        self.with_server(key, Server::act);
    }

    pub fn crash(&mut self, key: usize) {
        self.with_server(key, |server, _| server.ends(Exit::Signal(9)));
    }

    pub fn duplex_of(&self, host: usize) -> Shared<Duplex> {
        self.hosts[host].duplex.clone()
    }

    /// Events tell of all that has happened.
    pub fn notify_all(&mut self) {
        for host in &self.hosts {
            let events = if host.habits.is_plain {
                &mut self.proxy_events
            } else {
                &mut self.connector_events
            };
            host.duplex.borrow_mut().notify(events);
        }
        for (_, connection) in &self.connections {
            connection.notify(Side::Connector, &mut self.connector_events);
            connection.notify(Side::Proxy, &mut self.proxy_events);
        }
        for (_, server) in &self.servers.all {
            server.process.notify(&mut self.proxy_events);
        }
        self.raise_child();
    }

    fn raise_child(&mut self) {
        if !self.servers.exited().is_empty() {
            self.signals.child = true;
            self.raise();
        }
    }

    pub fn raise_stop(&mut self) {
        self.signals.stop = true;
        self.raise();
    }

    fn raise(&mut self) {
        let event = (self.signal_token, Readiness::READABLE);
        self.proxy_events.push(event);
    }

    /// Whether a loop was told of something that it has not seen.
    pub fn has_told(&self) -> bool {
        !self.proxy_events.is_empty() || !self.connector_events.is_empty()
    }

    /// Forgets who is gone.
    pub fn sweep(&mut self) {
        self.connections.retain(|_, it| !it.is_over());
        self.servers.forget();
        for host in &mut self.hosts {
            let duplex = host.duplex.borrow();
            // It was opened by somebody once its token was set; both sides are closed with the session.
            let is_over = !duplex.reads && !duplex.writes;
            drop(duplex);
            if is_over && !host.is_gone {
                trace::note(|| format!("the session of host {} is over", host.number));
                host.is_gone = true;
                host.check_end();
            }
        }
    }

    /// Connections that a host of a `connect` has now.
    pub fn connections_of(&self, host: usize) -> Vec<usize> {
        let all = self.connections.iter();
        let its = all.filter(|(_, connection)| connection.host == host);
        its.map(|(key, _)| key).collect()
    }
}

pub fn below(rng: &mut Rng) -> Shared<Below> {
    shared(Below::new(rng.fork(), Time::from_nanos(1 << 40)))
}
