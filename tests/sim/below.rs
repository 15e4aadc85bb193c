//! What is below the loops: clients, servers, and what the system knows of them. The loops reach it by their systems, the
//! world lets it act.

mod signals;

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;

use mcp_tcp_proxy::process::Spawned;
use mcp_tcp_proxy::process::reap::Reaped;
use mcp_tcp_proxy::reactor::signals::Pending;
use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::serve::Limits;
use mcp_tcp_proxy::session::Settings;
use mcp_tcp_proxy::util::time::Time;
use mio::Token;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use slab::Slab;

use crate::client::Client;
use crate::journal::Journal;
use crate::order::Order;
use crate::place::Place;
use crate::rng::Rng;
use crate::server::{Kind, Server};
use crate::stats::{Fault, Stats};
use crate::strangers::{Asks, Comer, STRANGER, Stranger};
use crate::trace;
use crate::transport::{Duplex, Events, Inflow, Output, Shared, Socket, Stdin, shared};
use crate::unused::Activity;

/// Tokens that are kept to be told of once more, when their descriptors are long closed.
const MAX_OLD_TOKENS: usize = 64;

/// A pid that does not belong to a server.
const ORPHAN: Pid = Pid::from_raw(999_999);

pub struct Below {
    pub rng: Rng,
    /// Nothing goes wrong in this one, so nothing may be lost.
    pub calm: bool,
    pub now: Time,
    pub began: Time,
    pub places: Slab<Place>,
    pub servers: Slab<Server>,
    /// The servers by their pids.
    by_pid: HashMap<i32, usize>,
    last_pid: i32,
    /// Of the places that were accepted by the serving loop, by the keys of their sessions.
    slots: Vec<Option<usize>>,
    /// Connections that were not accepted.
    pub backlog: VecDeque<Comer>,
    pub strangers: Slab<Stranger>,
    /// What is asked of whoever comes.
    pub asks: Asks,
    /// Processes that have exited and were not reaped.
    pub exited: Vec<usize>,
    pub signals: Pending,
    pub signal_token: Token,
    pub listener_token: Token,
    /// Whether a loop takes over from another.
    pub is_upgrading: bool,
    old_tokens: Vec<Token>,
    /// Whether connections and pipes are kept to the end, so that it is not the loop that frees them.
    pub keeps_pipes: bool,
    kept: Vec<(Shared<Duplex>, Option<Shared<Inflow>>)>,
    for_processes: Events,
    for_connections: Events,
    pub proxy: Settings,
    pub connector: Settings,
    pub limits: Limits,
    /// How many servers may wait for sessions.
    pub spares: usize,
    /// Whether old servers end before new ones are started that are to take their places.
    pub swaps_in_place: bool,
    /// What is known of the order in which servers are started.
    pub order: Order,
    pub memory_is_short: bool,
    /// How often the loop has asked for a group in this iteration, and why it may have.
    pub group_questions: Cell<usize>,
    pub group_reasons: usize,
    /// Servers die at their starts.
    is_deadly: bool,
    /// Whether the system tells what clients have not taken.
    pub tells_queues: bool,
    pub stopping: bool,
    /// When a stop has taken long enough.
    pub stop_until: Option<Time>,
    pub stats: Stats,
}

impl Below {
    pub fn new(
        rng: Rng,
        calm: bool,
        now: Time,
        settings: [Settings; 2],
        (limits, spares): (Limits, usize),
        memory_is_short: bool,
    ) -> Self {
        let [proxy, connector] = settings;
        let mut rng = rng;
        let is_deadly = !calm && rng.percent(5);
        Self {
            is_deadly,
            tells_queues: rng.percent(80),
            rng,
            calm,
            now,
            began: now,
            places: Slab::new(),
            servers: Slab::new(),
            by_pid: HashMap::new(),
            last_pid: 0,
            slots: Vec::new(),
            backlog: VecDeque::new(),
            strangers: Slab::new(),
            asks: Asks::default(),
            exited: Vec::new(),
            signals: Pending::default(),
            signal_token: Token(0),
            listener_token: Token(0),
            is_upgrading: false,
            old_tokens: Vec::new(),
            keeps_pipes: false,
            kept: Vec::new(),
            for_processes: Vec::new(),
            for_connections: Vec::new(),
            proxy,
            connector,
            limits,
            spares,
            swaps_in_place: false,
            order: Order::default(),
            memory_is_short,
            group_questions: Cell::new(0),
            group_reasons: 0,
            stopping: false,
            stop_until: None,
            stats: Stats::default(),
        }
    }

    // What the loops ask.

    pub fn events(&mut self, kind: Kind) -> &mut Events {
        kind.choose(&mut self.for_processes, &mut self.for_connections)
    }

    pub fn slot_of(&self, key: SessionKey) -> usize {
        self.slots[key.0].unwrap()
    }

    /// Whether something goes wrong that seldom does.
    pub fn happens_in_thousand(&mut self, chance: usize) -> bool {
        !self.calm && self.rng.below(1000) < chance
    }

    /// A descriptor is watched under this token.
    pub fn watched(&mut self, token: Token) {
        if self.old_tokens.len() == MAX_OLD_TOKENS {
            self.old_tokens.swap_remove(0);
        }
        self.old_tokens.push(token);
    }

    pub fn accept(&mut self) -> io::Result<(Socket, Ipv4Addr)> {
        if self.happens_in_thousand(30) {
            self.stats.fault(Fault::AcceptExhausted);
            self.order.exhausted_at = Some(self.now);
            return Err(self
                .rng
                .pick(&[Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM])
                .into());
        }
        let slot = match self.backlog.pop_front().ok_or(Errno::EAGAIN)? {
            Comer::Client(slot) => slot,
            Comer::Stranger(key) => return Ok(self.stranger_socket(key)),
        };
        let duplex = self.places[slot].socket.clone();
        if self.happens_in_thousand(10) {
            self.places.remove(slot);
            return Err(Errno::ECONNABORTED.into());
        }
        Ok((Socket { duplex, slot }, Ipv4Addr::LOCALHOST))
    }

    /// The connection has become a session.
    pub fn accepted(&mut self, slot: usize, key: SessionKey) {
        assert_ne!(slot, STRANGER, "a stranger has become a session");
        let mut open = self.places.iter().filter(|(_, place)| {
            place.kind == Kind::Process && place.key.is_some() && !place.is_refused
        });
        let is_full = open.by_ref().count() >= self.limits.max_sessions;
        let place = &mut self.places[slot];
        if self.slots.len() <= key.0 {
            self.slots.resize(key.0 + 1, None);
        }
        let before = self.slots[key.0].replace(slot);
        assert!(before.is_none(), "{key:?} is used");
        place.key = Some(key);
        place.is_refused = is_full;
        place.activity = Activity::new(self.now);
        place.last_taken = self.now;
        self.stats.fault_if(is_full, Fault::Refused);
        trace::note(|| format!("{}: accepted as {key:?}", self.places[slot].number));
    }

    pub fn forget(&mut self, slot: usize) -> Place {
        let place = self.places.remove(slot);
        if let Some(key) = place.key.filter(|_| place.kind == Kind::Process) {
            self.slots[key.0] = None;
        }
        place
    }

    pub fn spawn(&mut self, user: Option<SessionKey>) -> io::Result<Spawned<Stdin, Output>> {
        let user = user.map(|key| self.slot_of(key));
        // One that is to live beside another has nobody waiting for it.
        let waits = user.filter(|slot| self.places[*slot].server.is_none());
        self.check_spawn(waits, user.is_none());
        if self.happens_in_thousand(30) {
            self.stats.fault(Fault::StartExhausted);
            self.order.exhausted_at = waits.map(|_| self.now).or(self.order.exhausted_at);
            return Err(Errno::EAGAIN.into());
        }
        if self.happens_in_thousand(50) {
            self.stats.fault(Fault::StartRefused);
            if let Some(slot) = waits {
                self.places[slot].start_failed(self.now);
                self.order.assigned(slot);
            }
            return Err(Errno::ENOENT.into());
        }
        let key = self.new_server(Kind::Process);
        let server = &mut self.servers[key];
        server.is_spare = user.is_none();
        Ok(Spawned {
            pid: Pid::from_raw(server.pid),
            stdin: Stdin(server.pipes.clone()),
            stdout: Output::Stdout(server.pipes.clone()),
            stderr: Output::Stderr(server.stderr.clone()),
        })
    }

    pub fn new_server(&mut self, kind: Kind) -> usize {
        self.last_pid += 1;
        let max_line = self.proxy.max_message_bytes;
        let (pid, stats) = (self.last_pid, &mut self.stats);
        let server = Server::new(
            kind,
            pid,
            self.now,
            self.calm,
            max_line,
            stats,
            &mut self.rng,
        );
        let mut server = server;
        if kind == Kind::Process && self.is_deadly && self.rng.percent(95) {
            server.is_stillborn();
        }
        if self.keeps_pipes {
            let pipes = (server.pipes.clone(), Some(server.stderr.clone()));
            self.kept.push(pipes);
        }
        let key = self.servers.insert(server);
        self.by_pid.insert(pid, key);
        key
    }

    pub fn reap(&mut self) -> Reaped {
        if self.happens_in_thousand(20) {
            return Reaped::Process(ORPHAN, mcp_tcp_proxy::session::report::Exit::Code(0));
        }
        let Some(key) = self.exited.pop() else {
            return Reaped::Nothing;
        };
        let server = &mut self.servers[key];
        server.reaped = true;
        self.group_reasons += 1;
        let (pid, exit) = (Pid::from_raw(server.pid), server.exit.unwrap());
        trace::note(|| format!("pid {pid} is reaped"));
        if self.happens_in_thousand(20) {
            return Reaped::Unknown;
        }
        Reaped::Process(pid, exit)
    }

    pub fn key_of(&self, pid: Pid) -> usize {
        self.by_pid[&pid.as_raw()]
    }

    pub fn process(&self, pid: Pid) -> Option<&Server> {
        let key = self.by_pid.get(&pid.as_raw())?;
        self.servers.get(*key)
    }

    // What the world does.

    /// Someone kills a server.
    pub fn kill(&mut self, pid: i32) {
        let signal = self.signal_process(Pid::from_raw(pid), Signal::SIGKILL);
        assert!(signal.is_ok(), "no server {pid}");
    }

    /// A client connects.
    pub fn open(&mut self, kind: Kind) -> usize {
        self.stats.sessions += 1;
        let number = self.stats.sessions;
        let capacity = self.rng.pick(&[1000, 8192, 65_536]);
        let socket = shared(Duplex::new(capacity, &mut self.rng));
        if self.keeps_pipes {
            self.kept.push((socket.clone(), None));
        }
        let max_line = self.proxy.max_message_bytes;
        let client = Client::new(self.calm, max_line, &mut self.stats, &mut self.rng);
        let mut journal = Journal::new(kind == Kind::Connection, self.memory_is_short);
        journal.may_replay = self.proxy.replays;
        let mut place = Place::new(number, kind, socket, client, journal, self.now);
        if kind == Kind::Process && self.asks.anything() {
            self.introduce(&mut place);
        }
        let slot = self.places.insert(place);
        trace::note(|| format!("{number}: comes, in slot {slot}, {kind:?}"));
        if kind == Kind::Process {
            self.client_comes(slot);
        }
        slot
    }

    /// Lets a server do something, with the journal of the session that uses it.
    fn with_server(
        &mut self,
        key: usize,
        act: impl FnOnce(&mut Server, &mut Journal, Time, &mut Stats),
    ) {
        let server = &mut self.servers[key];
        let was_running = server.is_running();
        let place = server.slot.and_then(|slot| self.places.get_mut(slot));
        if let Some(place) = place {
            act(server, &mut place.journal, self.now, &mut self.stats);
        } else {
            let mut nobody = Journal::default();
            for _ in 0..=server.index {
                nobody.server_started();
            }
            act(server, &mut nobody, self.now, &mut self.stats);
        }
        if was_running && !server.is_running() {
            trace::note(|| format!("pid {} ends: {:?}", server.pid, server.exit));
            if server.kind == Kind::Process {
                self.exited.push(key);
            }
        }
    }

    /// Lets the program of a server do a step.
    pub fn server_acts(&mut self, key: usize) {
        self.with_server(key, |server, journal, now, stats| {
            if server.slot.is_some() {
                server.act(now, journal, stats);
            } else {
                server.wait(now, stats);
            }
        });
    }

    /// The same, but it says nothing that it was not asked.
    pub fn server_obeys(&mut self, key: usize) {
        self.with_server(key, |server, journal, now, stats| {
            if server.slot.is_some() {
                server.obey(now, journal, stats);
            } else {
                server.wait(now, stats);
            }
        });
    }

    /// Clients read, and answer what they are asked.
    pub fn clients_listen(&mut self) {
        for (_, place) in &mut self.places {
            let mut socket = place.socket.borrow_mut();
            place.client.listen(&mut socket, &mut place.journal);
        }
    }

    pub fn client_acts(&mut self, slot: usize) {
        let place = &mut self.places[slot];
        let mut socket = place.socket.borrow_mut();
        place
            .client
            .act(&mut socket, &mut place.journal, &mut self.stats);
        if place.client.has_vanished {
            place.vanished_at.get_or_insert(self.now);
        }
    }

    pub fn notify_client(&mut self, slot: usize) {
        let events = (&mut self.for_processes, &mut self.for_connections);
        self.places[slot].notify(events);
    }

    pub fn notify_server(&mut self, key: usize) {
        let server = &mut self.servers[key];
        let events = server
            .kind
            .choose(&mut self.for_processes, &mut self.for_connections);
        server.notify(events);
    }

    /// All events come that have not come yet.
    pub fn notify_all(&mut self) {
        let (for_processes, for_connections) = (&mut self.for_processes, &mut self.for_connections);
        for (_, place) in &self.places {
            place.notify((&mut *for_processes, &mut *for_connections));
        }
        self.notify_strangers();
        let (for_processes, for_connections) = (&mut self.for_processes, &mut self.for_connections);
        for (_, server) in &mut self.servers {
            server.notify(
                server
                    .kind
                    .choose(&mut *for_processes, &mut *for_connections),
            );
        }
        if self.rng.percent(95) {
            self.raise_child();
        }
    }

    /// Children that servers left behind end by themselves, and what belongs to nobody is forgotten.
    pub fn let_go(&mut self) {
        let (now, by_pid) = (self.now, &mut self.by_pid);
        self.servers.retain(|_, server| {
            server.let_go(now);
            let is_over = server.reaped && server.slot.is_none() && !server.group_is_left();
            if is_over {
                by_pid.remove(&server.pid);
            }
            !is_over
        });
        self.forget_strangers();
        self.check_turned_away();
        let gone = |place: &Place| {
            place.kind == Kind::Process && place.key.is_none() && !place.socket.borrow().reads
        };
        self.places.retain(|_, place| !gone(place));
    }
}
