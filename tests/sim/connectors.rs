//! The stdio side: sessions over the shared scheduler whose upstreams are connections, in the phases of `connect`.

use std::io::ErrorKind;
use std::time::Duration;

use mcp_tcp_proxy::buffers::budget::BufferBudget;
use mcp_tcp_proxy::pump::pump;
use mcp_tcp_proxy::reactor::Reactor;
use mcp_tcp_proxy::reactor::io::Io;
use mcp_tcp_proxy::reactor::timers::Deadline;
use mcp_tcp_proxy::reactor::token::{Channel, Target};
use mcp_tcp_proxy::scheduler::{Driver, Scheduler, SessionKey};
use mcp_tcp_proxy::session::report::Label;
use mcp_tcp_proxy::session::{Action, Context, Event, Session};
use mio::Interest;

use crate::below::Below;
use crate::place::Route;
use crate::script::{Poller, Sleep};
use crate::server::Kind;
use crate::stats::Fault;
use crate::transport::{Events, Shared, Socket};

/// An attempt to connect has this long.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);

/// After the end of our side of a connection, the other side has this long.
pub const CLOSE_TIME: Duration = Duration::from_secs(10);

/// After the end of its client's side, a session has this long for everything.
pub const END_TIME: Duration = Duration::from_secs(40);

/// Deadlines of one turn. A session that sets one that it does not see to is stopped here.
const MAX_TIMEOUTS: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Upstream,
}

impl Channel for Side {
    const ALL: &'static [Self] = &[Self::Client, Self::Upstream];

    fn number(self) -> usize {
        self as usize
    }
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Session(SessionKey),
    /// Of what the session in this place is, or gets, connected to.
    Server(SessionKey),
    /// [`END_TIME`] is over.
    End(SessionKey),
}

impl From<SessionKey> for Due {
    fn from(key: SessionKey) -> Self {
        Self::Session(key)
    }
}

/// What is around one session.
pub struct Link {
    pub slot: usize,
    client: Option<Io<Socket>>,
    upstream: Option<Io<Socket>>,
    /// Set by the end of the client's side.
    end: Deadline,
    is_cut_off: bool,
}

pub struct Connectors {
    below: Shared<Below>,
    pub reactor: Reactor<Side, Due, Poller>,
    pub scheduler: Scheduler<Link>,
    events: Events,
}

struct Sides;

impl Driver for Sides {
    type Place = Link;

    fn run(
        &mut self,
        _: SessionKey,
        session: &mut Session,
        link: &mut Link,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        if let Some(client) = link
            .client
            .as_ref()
            .filter(|client| client.is_read_closed())
        {
            session.handle(Event::ClientHup, cx);
            if client.is_write_closed() {
                session.handle(Event::ClientFailed(&ErrorKind::ConnectionReset.into()), cx);
            }
        }
        pump(session, &mut link.client, &mut link.upstream, scratch, cx)
    }
}

impl Connectors {
    pub fn new(below: Shared<Below>, memory: BufferBudget) -> Self {
        let settings = below.borrow().connector.clone();
        let reactor = Reactor::new(Poller {
            below: below.clone(),
            kind: Kind::Connection,
            sleeps_until: Sleep::No,
        });
        Self {
            below,
            reactor,
            scheduler: Scheduler::new(settings, memory),
            events: Events::new(),
        }
    }

    pub fn open(&mut self) {
        let slot = self.below.borrow_mut().open(Kind::Connection);
        let duplex = self.below.borrow().places[slot].socket.clone();
        let target = Target {
            key: self.scheduler.next_key().0,
            channel: Side::Client,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let client = self
            .reactor
            .register(Socket { duplex, slot }, target, interest);
        let link = Link {
            slot,
            client: client.ok(),
            upstream: None,
            end: Deadline::default(),
            is_cut_off: false,
        };
        let label = Label::Connection("localhost:1".into());
        let key = self.scheduler.open(label, link, &mut self.reactor.timers);
        self.below.borrow_mut().places[slot].key = Some(key);
    }

    /// Whether the loop would sleep now.
    pub fn is_at_rest(&self) -> bool {
        let now = self.below.borrow().now;
        let is_due = self.reactor.timers.next().is_some_and(|at| at <= now);
        let is_asleep = self.reactor.poller().sleeps_until != Sleep::No;
        is_asleep && self.events.is_empty() && !is_due && !self.scheduler.is_busy()
    }

    pub fn iterate(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        let is_busy = self.scheduler.is_busy();
        self.reactor.wait(&mut events, is_busy).unwrap();
        for (token, readiness) in &events {
            if let Some(Target { key, channel }) = self.reactor.target(*token) {
                self.scheduler.note(SessionKey(key), |link| {
                    let io = match channel {
                        Side::Client => &mut link.client,
                        Side::Upstream => &mut link.upstream,
                    };
                    io.as_mut().is_some_and(|io| io.latch(*token, *readiness))
                });
            }
        }
        self.events = events;
        self.scheduler
            .run_ready(&mut Sides, &mut self.reactor.timers);
        self.note_ends();
        self.fire_timers();
        self.apply_actions();
        self.free_cut_off();
        self.scheduler.wake_for_memory();
    }

    fn fire_timers(&mut self) {
        for fired in 0.. {
            let Some(due) = self.reactor.timers.pop() else {
                return;
            };
            assert!(fired < MAX_TIMEOUTS, "a deadline is not seen to: {due:?}");
            match due {
                Due::Session(key) => {
                    let below = self.below.borrow();
                    let unix_time = below.now.saturating_since(below.began);
                    drop(below);
                    self.tell(key, Event::Deadline { unix_time });
                }
                Due::Server(key) => self.server_overdue(key),
                Due::End(key) => self.end_overdue(key),
            }
        }
    }

    fn note_ends(&mut self) {
        let sessions = self.scheduler.iter();
        let ended = sessions
            .filter(|(_, session, link)| link.end.at().is_none() && session.client_has_left());
        let ended: Vec<SessionKey> = ended.map(|(key, ..)| key).collect();
        for key in ended {
            let timers = &mut self.reactor.timers;
            let at = timers.now() + END_TIME;
            let link = self.scheduler.place_mut(key).unwrap();
            link.end.set(Some(at), Due::End(key), timers);
        }
    }

    /// Whatever is still to be served or delivered had its time.
    fn end_overdue(&mut self, key: SessionKey) {
        let link = self.scheduler.place_mut(key).unwrap();
        link.end.fired();
        link.is_cut_off = true;
        if link.upstream.take().is_some() {
            self.tell(key, Event::UpstreamEof(None));
        }
        self.scheduler.enqueue(key);
        self.scheduler
            .run_ready(&mut Sides, &mut self.reactor.timers);
    }

    fn free_cut_off(&mut self) {
        let sessions = self.scheduler.iter();
        let cut_off = sessions.filter(|(_, _, link)| link.is_cut_off);
        let cut_off: Vec<(SessionKey, usize)> =
            cut_off.map(|(key, _, link)| (key, link.slot)).collect();
        for &(key, slot) in &cut_off {
            let session = self.scheduler.session(key).unwrap();
            let below = &mut *self.below.borrow_mut();
            // Who waits for a response was told, if he reads.
            below.places[slot].is_cut_off = !session.to_client().is_empty();
            below.stats.fault(Fault::EndTakesTooLong);
        }
        for (key, slot) in cut_off {
            self.free(key, slot);
        }
    }

    pub fn tell(&mut self, key: SessionKey, event: Event<'_>) {
        self.scheduler.handle(key, event, &mut self.reactor.timers);
    }

    /// All deadlines are someone's.
    pub fn check(&self, below: &Below) {
        self.scheduler.check();
        let servers = below.servers.iter();
        let of_servers = servers.filter(|(_, server)| server.deadline.at().is_some());
        let ends = self
            .scheduler
            .iter()
            .filter(|(_, _, link)| link.end.at().is_some());
        let all = self.scheduler.deadlines() + of_servers.count() + ends.count();
        let timers = self.reactor.timers.len();
        assert_eq!(timers, all, "timers are left that are nobody's");
    }

    pub fn shut_down(&mut self) {
        let keys: Vec<SessionKey> = self.scheduler.iter().map(|(key, ..)| key).collect();
        for key in keys {
            self.tell(key, Event::ShutDown);
        }
    }

    fn apply_actions(&mut self) {
        while let Some((key, action)) = self.scheduler.next_action() {
            self.apply(key, action);
            let slot = self.slot(key);
            // The stdio side ends as soon as its client is done with.
            if self.below.borrow().places[slot].fate != Route::Open {
                self.free(key, slot);
            }
        }
    }

    fn slot(&self, key: SessionKey) -> usize {
        self.scheduler.place(key).unwrap().slot
    }

    fn free(&mut self, key: SessionKey, slot: usize) {
        let timers = &mut self.reactor.timers;
        let Some((session, mut link)) = self.scheduler.free(key, timers) else {
            return;
        };
        link.end.clear(timers);
        let mut below = self.below.borrow_mut();
        let attempt = below.places[slot].connecting.take();
        if let Some(server) = attempt.or(below.places[slot].server) {
            below.servers[server].deadline.clear(timers);
        }
        if let Some(attempt) = attempt {
            below.servers.remove(attempt);
        }
        below.note(slot);
        below.released(slot);
        below.session_freed(slot, &session);
        drop(below);
        drop(link);
    }

    fn apply(&mut self, key: SessionKey, action: Action) {
        let slot = self.slot(key);
        let session = self.scheduler.session(key).unwrap();
        let wants_start = session.wants_start();
        let server = {
            let mut below = self.below.borrow_mut();
            let server = below.places[slot].server;
            if action == Action::ReleaseUpstream
                && let Some(server) = server
            {
                let deadline = &mut below.servers[server].deadline;
                deadline.clear(&mut self.reactor.timers);
            }
            below.action_taken(slot, action, session);
            server
        };
        let link = self.scheduler.place_mut(key).unwrap();
        match action {
            Action::StartUpstream if wants_start => self.connect(key, slot),
            Action::StartUpstream
            | Action::CheckClient
            | Action::CheckUpstream
            | Action::ResumeAsked
            | Action::LinkSilent
            | Action::BeginSwap
            | Action::QueueSwap
            | Action::MoveUpstream
            | Action::EndSwap(_) => {}
            Action::MeasureClient => {
                let timers = &mut self.reactor.timers;
                let unknown = Event::ClientQueue { unsent: None };
                self.scheduler.handle(key, unknown, timers);
            }
            Action::StopUpstream | Action::HibernateUpstream => {
                if let (Some(upstream), Some(server)) = (&link.upstream, server) {
                    upstream.source().duplex.borrow_mut().writes = false;
                    self.set_close_deadline(key, server);
                }
            }
            Action::ReleaseUpstream => link.upstream = None,
            Action::ShutdownClient => {
                if let Some(client) = &link.client {
                    client.source().duplex.borrow_mut().writes = false;
                }
                self.scheduler.enqueue(key);
            }
            Action::CloseClient => link.client = None,
        }
    }

    fn set_close_deadline(&mut self, key: SessionKey, server: usize) {
        let timers = &mut self.reactor.timers;
        let at = timers.now() + CLOSE_TIME;
        let deadline = &mut self.below.borrow_mut().servers[server].deadline;
        deadline.set(Some(at), Due::Server(key), timers);
    }

    fn connect(&mut self, key: SessionKey, slot: usize) {
        let mut below = self.below.borrow_mut();
        if below.places[slot].connecting.is_some() {
            return;
        }
        let server = below.new_server(Kind::Connection);
        below.places[slot].connecting = Some(server);
        let timers = &mut self.reactor.timers;
        let at = timers.now() + CONNECT_TIME;
        let deadline = &mut below.servers[server].deadline;
        deadline.set(Some(at), Due::Server(key), timers);
    }

    /// An attempt to connect takes too long, or the other side of a connection to end it. The time for that is not for a
    /// client that is slow.
    fn server_overdue(&mut self, key: SessionKey) {
        let slot = self.slot(key);
        let (attempt, server) = {
            let place = &self.below.borrow().places[slot];
            (place.connecting, place.server)
        };
        if let Some(attempt) = attempt {
            let mut below = self.below.borrow_mut();
            below.servers[attempt].deadline.fired();
            below.stats.fault(Fault::ConnectTimesOut);
            drop(below);
            return self.connection_failed(key, slot);
        }
        let Some(server) = server else { return };
        self.below.borrow_mut().servers[server].deadline.fired();
        let session = self.scheduler.session(key).unwrap();
        if session.wants_upstream_output(self.scheduler.memory()) {
            self.tell(key, Event::UpstreamEof(None));
        } else {
            self.set_close_deadline(key, server);
        }
    }

    /// Something comes of an attempt to connect.
    pub fn connection_made(&mut self, slot: usize) {
        let mut below = self.below.borrow_mut();
        let (Some(key), Some(attempt)) = (below.places[slot].key, below.places[slot].connecting)
        else {
            return;
        };
        if below.happens_in_thousand(100) {
            drop(below);
            return self.connection_failed(key, slot);
        }
        if below.rng.percent(20) {
            return;
        }
        below.places[slot].connecting = None;
        let timers = &mut self.reactor.timers;
        below.servers[attempt].deadline.clear(timers);
        if !self
            .scheduler
            .session(key)
            .is_some_and(Session::wants_start)
        {
            below.servers.remove(attempt);
            return;
        }
        let duplex = below.servers[attempt].pipes.clone();
        below.attached(slot, attempt);
        drop(below);
        let target = Target {
            key: key.0,
            channel: Side::Upstream,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let upstream = self
            .reactor
            .register(Socket { duplex, slot }, target, interest);
        self.scheduler.place_mut(key).unwrap().upstream = upstream.ok();
        self.tell(key, Event::UpstreamStarted { pid: None });
    }

    fn connection_failed(&mut self, key: SessionKey, slot: usize) {
        let mut below = self.below.borrow_mut();
        below.stats.fault(Fault::StartRefused);
        let now = below.now;
        below.places[slot].start_failed(now);
        if let Some(attempt) = below.places[slot].connecting.take() {
            let mut server = below.servers.remove(attempt);
            server.deadline.clear(&mut self.reactor.timers);
        }
        drop(below);
        self.tell(key, Event::UpstreamFailed("refused"));
    }
}
