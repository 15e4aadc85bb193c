//! What is below the loop: clients, servers that they share, and the system that tells of them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use mcp_tcp_proxy::process::Spawned;
use mcp_tcp_proxy::process::reap::Reaped;
use mcp_tcp_proxy::reactor::io::Readiness;
use mcp_tcp_proxy::reactor::signals::Pending;
use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::util::client_address::ClientAddress;
use mcp_tcp_proxy::util::time::Time;
use mio::Token;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use slab::Slab;

use super::client::{Client, Habits, State};
use super::record::{Kind, Record, Request};
use super::server::{Era, Server};
use crate::plain_system::{Beneath, Who};
use crate::processes::Processes;
use crate::rng::Rng;
use crate::trace;
use crate::transport::{Events, Output, Socket, Stdin};

pub struct Below {
    pub rng: Rng,
    pub calm: bool,
    pub now: Time,
    pub began: Time,
    pub clients: Slab<Client>,
    pub servers: Processes<Server>,
    clients_so_far: usize,
    /// The numbers of the clients, by their sessions.
    sessions: HashMap<SessionKey, usize>,
    pub backlog: VecDeque<usize>,
    pub signals: Pending,
    pub signal_token: Token,
    pub listener_token: Token,
    pub events: Events,
    pub record: Record,
    pub era: Era,
    pub max_line: usize,
    pub in_flight: usize,
    /// Requests of clients of this address kill servers.
    pub killer: Option<u8>,
    pub legacy_clients: usize,
    /// Those of before share servers, too.
    pub shares_legacy: bool,
    pub is_stopping: bool,
    /// Clients whose connections the proxy has closed.
    pub closed_by_proxy: u64,
    pub upgrades: u64,
}

impl Beneath for Below {
    fn now(&self) -> Time {
        self.now
    }

    fn began(&self) -> Time {
        self.began
    }

    fn events(&mut self, _: Who) -> &mut Events {
        &mut self.events
    }

    fn take_signals(&mut self) -> Pending {
        std::mem::take(&mut self.signals)
    }

    fn is_signalled(&mut self, token: Token) {
        self.signal_token = token;
    }

    fn listens(&mut self, token: Token) {
        self.listener_token = token;
    }

    fn accept(&mut self) -> io::Result<(Socket, ClientAddress)> {
        let slot = self.backlog.pop_front().ok_or(Errno::EAGAIN)?;
        let client = &self.clients[slot];
        let address = SocketAddr::from(([10, 0, 0, client.identity], 1000));
        let duplex = client.socket.clone();
        Ok((Socket { duplex, slot }, ClientAddress::of_tcp(address)))
    }

    fn accepted(&mut self, slot: usize, key: SessionKey) {
        trace::note(|| format!("client {} is {key:?}", self.clients[slot].number));
        self.clients[slot].was_accepted = true;
        self.sessions.insert(key, self.clients[slot].number);
    }

    fn spawn(&mut self, user: Option<SessionKey>) -> io::Result<Spawned<Stdin, Output>> {
        if self.happens_in_thousand(30) {
            return Err(self.rng.pick(&[Errno::EAGAIN, Errno::ENOENT]).into());
        }
        let (era, calm, max_line) = (self.era, self.calm, self.max_line);
        let rng = &mut self.rng;
        let make = |pid| Server::new(pid, era, calm, max_line, rng);
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
        self.with_server(key, |server, record| {
            let exit = mcp_tcp_proxy::session::report::Exit::Signal(signal as i32);
            server.ends(exit, record);
        });
        Ok(())
    }
}

impl Below {
    /// Whether something goes wrong that seldom does.
    fn happens_in_thousand(&mut self, chance: usize) -> bool {
        !self.calm && self.rng.below(1000) < chance
    }

    pub fn open(&mut self, is_slow: bool) {
        self.clients_so_far += 1;
        let identity = 1 + self.rng.below(4) as u8;
        let habits = Habits {
            is_legacy: self.rng.percent(self.legacy_clients),
            shares: self.shares_legacy,
            kills: self.killer == Some(identity),
            is_slow,
            calm: self.calm,
            max_line: self.max_line,
        };
        let client = Client::new(
            self.clients_so_far,
            identity,
            habits,
            self.now,
            &mut self.rng,
        );
        let slot = self.clients.insert(client);
        self.backlog.push_back(slot);
        self.events.push((self.listener_token, Readiness::READABLE));
    }

    /// A server is a session's own.
    pub fn note_user(&mut self, pid: Pid, user: SessionKey) {
        let owner = self.sessions[&user];
        let server = self.servers.key(pid).map(|key| &mut self.servers.all[key]);
        if let Some(server) = server.filter(|server| server.owner.is_none()) {
            // It is not what is looked at here.
            server.calm = true;
            server.owner = Some(owner);
            self.record.alone.insert(owner);
        }
    }

    fn with_server(&mut self, key: usize, act: impl FnOnce(&mut Server, &mut Record)) {
        let record = &mut self.record;
        self.servers.act(key, |server| act(server, record));
    }

    pub fn server_acts(&mut self, key: usize) {
        self.with_server(key, Server::act);
    }

    pub fn client_acts(&mut self, slot: usize) {
        self.clients[slot].act(self.now, &mut self.record);
    }

    pub fn notify_client(&mut self, slot: usize) {
        let mut socket = self.clients[slot].socket.borrow_mut();
        socket.notify(&mut self.events);
    }

    pub fn notify_server(&mut self, key: usize) {
        self.servers.all[key].process.notify(&mut self.events);
    }

    pub fn notify_all(&mut self) {
        let events = &mut self.events;
        for (_, client) in &self.clients {
            client.socket.borrow_mut().notify(events);
        }
        for (_, server) in &self.servers.all {
            server.process.notify(events);
        }
        self.raise_child();
    }

    pub fn clients_so_far(&self) -> usize {
        self.clients_so_far
    }

    pub fn servers_so_far(&self) -> i32 {
        self.servers.so_far()
    }

    /// SIGCHLD comes, if it is due. What a process has written before its end is known by then.
    pub fn raise_child(&mut self) {
        if self.servers.exited().is_empty() {
            return;
        }
        for key in self.servers.exited().to_vec() {
            self.notify_server(key);
        }
        self.signals.child = true;
        self.raise();
    }

    pub fn raise_stop(&mut self) {
        self.is_stopping = true;
        self.signals.stop = true;
        self.raise();
    }

    pub fn raise(&mut self) {
        self.events.push((self.signal_token, Readiness::READABLE));
    }

    /// Looks at all that was written in an iteration, and forgets who is gone.
    pub fn look(&mut self) {
        let record = &mut self.record;
        for (_, server) in &mut self.servers.all {
            server.note_input(record, self.in_flight);
        }
        for (_, client) in &mut self.clients {
            client.note_output(record, self.is_stopping);
            let is_closed = client.was_accepted && !client.socket.borrow().writes;
            if is_closed && record.gone.insert(client.number) {
                self.closed_by_proxy += 1;
            }
        }
        self.servers.forget();
        self.clients.retain(|_, client| {
            let socket = client.socket.borrow();
            let is_left = client.was_accepted && !socket.reads && !socket.writes;
            if is_left {
                record.open.remove(&client.number);
            }
            !is_left
        });
    }

    /// Nothing can go on before time passes.
    pub fn check_rest(&mut self) {
        for (_, server) in &self.servers.all {
            let pipes = server.process.pipes.borrow();
            // One that waits to be used is not read.
            let is_read =
                !server.is_used || pipes.input.token.is_none() || !pipes.input.has_something();
            assert!(is_read, "pid {} is not read", server.process.pid);
        }
        for (_, client) in &mut self.clients {
            client.note_rest(&mut self.record);
        }
        for (_, server) in &self.servers.all {
            server.check_told(&self.record);
        }
    }

    /// Whether all that was asked has come to its end, as far as its client is there.
    pub fn is_all_answered(&self) -> bool {
        let mut there = self.clients_there();
        let is_waiting =
            |client: &Client| client.has_unsent() || self.waits_for_unnamed(client.number);
        self.waited_for().is_empty() && !there.any(is_waiting)
    }

    /// Whether a client is still to be told of what was wrong.
    fn waits_for_unnamed(&self, client: usize) -> bool {
        let left = self.record.unnamed.get(&client).copied().unwrap_or(0);
        left > 0 && !self.record.alone.contains(&client)
    }

    /// Whether a server is being asked what it is.
    pub fn is_asking(&self) -> bool {
        let mut servers = self.servers.all.iter();
        servers.any(|(_, server)| server.is_probe && server.process.is_running())
    }

    fn clients_there(&self) -> impl Iterator<Item = &Client> {
        let is_there = |client: &&Client| {
            client.state == State::Open && !self.record.gone.contains(&client.number)
        };
        self.clients
            .iter()
            .map(|(_, client)| client)
            .filter(is_there)
    }

    /// What clients who are there wait for.
    pub fn waited_for(&self) -> Vec<&Request> {
        let waits = |request: &&Request| {
            let is_listen = matches!(request.kind, Kind::Listen(_));
            let listens = is_listen && request.listens_at.is_some() && request.expected.is_empty();
            let is_alone = self.record.alone.contains(&request.client);
            let is_ignored = is_alone && matches!(request.kind, Kind::Flawed(_));
            !request.is_cancelled && !listens && !is_ignored
        };
        let keys = self
            .clients_there()
            .flat_map(|client| self.record.open_of(client.number));
        keys.map(|key| &self.record.requests[*key])
            .filter(waits)
            .collect()
    }
}

pub fn build(mut rng: Rng, calm: bool, now: Time) -> Below {
    let eras = [
        Era::Modern,
        Era::Modern,
        Era::OtherVersion,
        Era::Legacy,
        Era::Silent,
        Era::Fragile,
    ];
    let era = if calm || rng.percent(85) {
        Era::Modern
    } else {
        rng.pick(&eras)
    };
    let record = Record {
        // One that is late with what it is, or dies meanwhile, is taken for older.
        may_be_legacy: !calm,
        ..Record::default()
    };
    let shares_legacy = rng.percent(50);
    let legacy_clients = if shares_legacy {
        rng.pick(&[10, 50, 100])
    } else {
        rng.pick(&[0, 0, 10])
    };
    Below {
        calm,
        now,
        began: now,
        clients: Slab::new(),
        servers: Processes::default(),
        clients_so_far: 0,
        sessions: HashMap::new(),
        backlog: VecDeque::new(),
        signals: Pending::default(),
        signal_token: Token(0),
        listener_token: Token(0),
        events: Events::new(),
        record,
        era,
        max_line: rng.pick(&[1500, 3000]),
        in_flight: rng.pick(&[1, 2, 8]),
        killer: (!calm && rng.percent(30)).then_some(1),
        legacy_clients,
        shares_legacy,
        is_stopping: false,
        closed_by_proxy: 0,
        upgrades: 0,
        rng,
    }
}
