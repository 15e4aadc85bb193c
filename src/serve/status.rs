//! Drives those who ask how things are: accepts their connections, reads, has their requests answered a piece at a time, and
//! writes. Whoever is served comes first: in each iteration there is only so much that all of them together may cost.

mod state;

use std::collections::VecDeque;
use std::time::Duration;

use log::debug;
use mio::{Interest, Token};
use slab::Slab;

pub(super) use self::state::StatusState;
use super::status_answers::{Job, Piece};
use super::system::{ClientSocket, System};
use super::{Channel, Due, Proxy};
use crate::reactor::io::{Input, Io, Readiness};
use crate::reactor::timers::Deadline;
use crate::reactor::token::Target;
use crate::session::counts::Counts;
use crate::status::exchange::Exchange;
use crate::status::history::{History, Progress};
use crate::status::request::{Hosts, MAX_HEAD_BYTES, Request};
use crate::status::response::{Kind, Status, plain, whole};
use crate::status::route::Route;
use crate::transport::listener::{AcceptError, classify_accept_error};
use crate::util::client_address::ClientAddress;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// Connections at a time. For one more, the one makes room on which nothing has moved for longest.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// Connections accepted in one iteration.
const ACCEPTS_PER_ITERATION: usize = 4;

/// When something has run out, the next connection is accepted after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What all that is made in one iteration may cost, where to look at a session costs 1: some 300 µs.
const COST_PER_ITERATION: usize = 1024;

/// What of this program those are told who ask.
#[derive(Debug, Clone)]
pub struct About {
    /// Where it listens.
    pub addresses: String,
    /// The program that is run as the server, for each service.
    pub commands: Vec<String>,
    /// When this program was started.
    pub started: Time,
    /// The same since 1970.
    pub started_unix: Duration,
    /// The names under which it may be asked.
    pub hosts: Hosts,
    /// Whether those on other machines may see everything.
    pub is_public: bool,
}

/// The service for those who ask.
pub(super) struct StatusService<S: System> {
    listeners: Vec<Io<S::Listener>>,
    pub(super) about: About,
    /// Those of each service.
    pub(super) history: Vec<History>,
    /// That of all together.
    pub(super) whole_history: History,
    connections: Slab<Connection<S::Client>>,
    /// Those that may have something to do, each at most once.
    ready: VecDeque<usize>,
    /// When connections are accepted again, after something had run out.
    accept_at: Option<Time>,
    deadline: Deadline,
}

struct Connection<C> {
    io: Io<C>,
    exchange: Exchange,
    job: Option<Job>,
    may_see_all: bool,
    queued: bool,
}

impl<S: System> StatusService<S> {
    /// Listens on these, which are watched under [`Channel::StatusListener`].
    pub(super) fn new(listeners: Vec<Io<S::Listener>>, about: About) -> Self {
        Self {
            listeners,
            about,
            history: Vec::new(),
            whole_history: History::default(),
            connections: Slab::new(),
            ready: VecDeque::new(),
            accept_at: None,
            deadline: Deadline::default(),
        }
    }

    /// Whether there is something to do although no event tells.
    pub(super) fn is_busy(&self) -> bool {
        !self.ready.is_empty() || self.can_accept()
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline.at()
    }

    /// Another has taken the place of a service of which nothing is left.
    pub(super) fn forget(&mut self, service: ServiceKey) {
        if let Some(history) = self.history.get_mut(service.0) {
            *history = History::default();
        }
    }

    /// Notes what was counted of each service since the last call.
    pub(super) fn note_history<'a>(&mut self, counts: impl Iterator<Item = &'a Counts>) {
        let mut all = Progress::default();
        for (place, counts) in counts.enumerate() {
            if self.history.len() <= place {
                self.history.push(History::default());
            }
            all.add(&self.history[place].note(counts));
        }
        self.whole_history.push(&all);
    }

    fn can_accept(&self) -> bool {
        self.accept_at.is_none() && self.listeners.iter().any(Io::is_readable)
    }

    fn enqueue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.ready.push_back(key);
        }
    }

    /// Closes the connection on which nothing has moved for longest, if there are as many as there may be.
    fn make_room(&mut self) {
        if self.connections.len() < MAX_CONNECTIONS {
            return;
        }
        let all = self.connections.iter();
        let oldest = all.min_by_key(|(_, connection)| connection.exchange.idle_since());
        if let Some(key) = oldest.map(|(key, _)| key) {
            self.connections.remove(key);
        }
    }

    /// Reads what has come, up to a request.
    fn read(&mut self, key: usize, scratch: &mut [u8], now: Time) -> Option<Request> {
        let connection = self.connections.get_mut(key)?;
        let (io, exchange) = (&mut connection.io, &mut connection.exchange);
        while exchange.wants_input() && io.is_readable() {
            match io.read(scratch) {
                Input::Bytes(count) => {
                    let request = exchange.bytes(&scratch[..count], &self.about.hosts, now);
                    if request.is_some() {
                        return request;
                    }
                }
                Input::End => exchange.ended(),
                Input::Blocked => {}
                Input::Broken(_) => exchange.broken(),
            }
        }
        None
    }

    /// Writes what there is room for.
    fn write(&mut self, key: usize, now: Time) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let (io, exchange) = (&mut connection.io, &mut connection.exchange);
        while io.is_writable() && !exchange.output().is_empty() {
            match io.write(exchange.output()) {
                Ok(count) => {
                    if exchange.written(count, now) {
                        io.source_mut().end();
                    }
                }
                Err(_) => exchange.broken(),
            }
        }
    }

    /// Closes what is over. What is left may have more to do.
    fn settle(&mut self, key: usize) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if connection.exchange.is_over() {
            self.connections.remove(key);
            return;
        }
        let exchange = &connection.exchange;
        let has_more = connection.job.is_some() && exchange.has_room()
            || exchange.wants_input() && connection.io.is_readable()
            || !exchange.output().is_empty() && connection.io.is_writable();
        if has_more {
            self.enqueue(key);
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        let all = self.connections.iter();
        let deadlines = all.map(|(_, connection)| connection.exchange.deadline());
        deadlines.chain(self.accept_at).min()
    }
}

impl<S: System> Proxy<S> {
    /// From now on, those who connect to these listeners are told how things are.
    pub(super) fn serve_status(&mut self, listeners: Vec<Io<S::Listener>>, about: About) {
        self.reactor.count_iterations();
        self.status = Some(Box::new(StatusService::new(listeners, about)));
    }

    pub(super) fn latch_status(
        &mut self,
        channel: Channel,
        key: usize,
        token: Token,
        readiness: Readiness,
    ) {
        let Some(status) = &mut self.status else {
            return;
        };
        if channel == Channel::StatusListener {
            if let Some(listener) = status.listeners.get_mut(key) {
                listener.latch(token, readiness);
            }
            return;
        }
        let connection = status.connections.get_mut(key);
        if connection.is_some_and(|it| it.io.latch(token, readiness)) {
            status.enqueue(key);
        }
    }

    /// The time of a connection has come, or that of the next accept.
    pub(super) fn status_timeout(&mut self) {
        let now = self.now();
        let Some(status) = &mut self.status else {
            return;
        };
        status.deadline.fired();
        if status.accept_at.is_some_and(|at| at <= now) {
            status.accept_at = None;
        }
        let keys: Vec<usize> = status.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(connection) = status.connections.get_mut(key)
                && connection.exchange.deadline() <= now
            {
                connection.exchange.timeout(now);
                status.enqueue(key);
            }
        }
    }

    /// Accepts, reads, answers and writes, all within a budget.
    pub(super) fn run_status(&mut self) {
        let Some(mut status) = self.status.take() else {
            return;
        };
        if status.is_busy() {
            self.accept_status(&mut status);
            let mut budget = COST_PER_ITERATION;
            for _ in 0..status.ready.len() {
                let Some(key) = status.ready.pop_front() else {
                    break;
                };
                self.run_connection(&mut status, key, &mut budget);
            }
        }
        let at = status.next_deadline();
        status
            .deadline
            .set(at, Due::Status, &mut self.reactor.timers);
        self.status = Some(status);
    }

    fn accept_status(&mut self, status: &mut StatusService<S>) {
        for _ in 0..ACCEPTS_PER_ITERATION {
            if !status.can_accept() {
                return;
            }
            let Some(listener) = status.listeners.iter_mut().find(|it| it.is_readable()) else {
                return;
            };
            match self.system.accept(listener.source()) {
                Ok((client, address)) => self.accepted_status(status, client, address),
                Err(error) => match classify_accept_error(&error) {
                    AcceptError::Blocked => listener.clear_readable(),
                    AcceptError::Connection => {}
                    AcceptError::Exhausted => {
                        debug!("status: no connection can be accepted: {error}");
                        status.accept_at = Some(self.now() + ACCEPT_PAUSE);
                    }
                },
            }
        }
    }

    fn accepted_status(
        &mut self,
        status: &mut StatusService<S>,
        client: S::Client,
        address: ClientAddress,
    ) {
        status.make_room();
        let target = Target {
            key: status.connections.vacant_key(),
            channel: Channel::StatusClient,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self.reactor.register(client, target, interest) {
            Ok(io) => {
                let is_near = match address {
                    ClientAddress::Ip(address) => address.ip().is_loopback(),
                    ClientAddress::Unix { .. } => true,
                    ClientAddress::Unknown => false,
                };
                status.connections.insert(Connection {
                    io,
                    exchange: Exchange::new(self.now()),
                    job: None,
                    may_see_all: is_near || status.about.is_public,
                    queued: false,
                });
            }
            Err(error) => debug!("status: a connection can't be watched: {error}"),
        }
    }

    fn run_connection(&mut self, status: &mut StatusService<S>, key: usize, budget: &mut usize) {
        let now = self.now();
        match status.connections.get_mut(key) {
            Some(connection) => connection.queued = false,
            None => return,
        }
        let scratch = &mut self.scheduler.scratch()[..MAX_HEAD_BYTES];
        if let Some(request) = status.read(key, scratch, now) {
            self.begin_answer(status, key, &request);
        }
        let job = status
            .connections
            .get_mut(key)
            .and_then(|connection| connection.job.take());
        if let Some(job) = job {
            self.go_on(status, key, job, budget);
        }
        status.write(key, now);
        status.settle(key);
    }

    /// Answers a request, or begins to.
    fn begin_answer(&mut self, status: &mut StatusService<S>, key: usize, request: &Request) {
        let now = self.now();
        let Some(connection) = status.connections.get_mut(key) else {
            return;
        };
        let is_head = request.is_head;
        let response = match Route::of(request, connection.may_see_all) {
            Err(bad) => plain(bad, is_head),
            Ok(Route::Health) => plain(Status::Ok, is_head),
            Ok(Route::Ready(server)) => {
                let facts = self.facts(status, &[]);
                match facts.readiness(server.as_deref()) {
                    Some((true, body)) => whole(Status::Ok, Kind::Text, &body, is_head),
                    Some((false, body)) => whole(Status::Unavailable, Kind::Text, &body, is_head),
                    None => {
                        let body = "There is no server of this name.\n";
                        whole(Status::NotFound, Kind::Text, body, is_head)
                    }
                }
            }
            Ok(route) => {
                connection.exchange.respond(Vec::new(), false, now);
                connection.job = Some(Job::new(route, is_head));
                return;
            }
        };
        if let Some(connection) = status.connections.get_mut(key) {
            connection.exchange.respond(response, true, now);
        }
    }

    /// Makes more of an answer, as far as that is wanted and the budget goes. It is all there once there is no job any more.
    fn go_on(
        &mut self,
        status: &mut StatusService<S>,
        key: usize,
        mut job: Job,
        budget: &mut usize,
    ) {
        loop {
            let connection = status.connections.get(key);
            if !connection.is_some_and(|it| it.exchange.has_room()) {
                break;
            }
            let Some(Piece { text, is_last }) = self.make(status, &mut job, budget) else {
                break;
            };
            if let Some(connection) = status.connections.get_mut(key) {
                connection.exchange.append(text.as_bytes(), is_last);
            }
            if is_last {
                return;
            }
        }
        if let Some(connection) = status.connections.get_mut(key) {
            connection.job = Some(job);
        }
    }
}
