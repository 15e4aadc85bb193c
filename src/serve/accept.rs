//! Who gets in: connections are accepted, and sessions get their servers, in order and few in a turn.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use log::{debug, error};
use mio::Interest;
use mio::net::{TcpListener, TcpStream};

use super::client::ClientSession;
use super::pipes::Pipes;
use super::{Channel, Due, Proxy, Stopping};
use crate::process::Owner;
use crate::reactor::io::Io;
use crate::reactor::listener::{self, AcceptError};
use crate::reactor::tcp;
use crate::reactor::token::{MAX_KEYS, Target};
use crate::scheduler::SessionKey;
use crate::session::Event;
use crate::session::Session;
use crate::session::report::Label;
use crate::util::timer_wheel::TimerId;

/// Clients that are being turned away at the same time; more wait in the backlog.
pub(super) const MAX_REFUSED: usize = 64;

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 8;

/// Waiting servers that are handed out in one turn.
const TAKES_PER_TURN: usize = 8;

/// Without descriptors, memory or processes for a new session, the next attempt is made after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Whether connections are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    Yes,
    /// Something ran out. The deadline is that of the next attempt.
    Paused {
        retry: TimerId,
    },
}

/// What came of the start of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Nothing had to be started.
    Settled,
    /// One was started, or should have been and could not.
    Spawned,
    /// Something ran out.
    Exhausted,
}

impl Proxy {
    pub(super) fn can_accept(&self) -> bool {
        self.accepting == Accepting::Yes
            && (self.starting.is_empty() || self.scheduler.len() < self.sessions_possible)
            && self.refused < MAX_REFUSED
            && self.listeners.iter().any(Io::is_readable)
    }

    /// One on which a connection may wait; each in its turn, so that a flood on one address does not keep the others
    /// waiting.
    fn next_listener(&mut self) -> Option<&mut Io<TcpListener>> {
        self.turn_of_listener = (self.turn_of_listener + 1) % self.listeners.len().max(1);
        let (later, sooner) = self.listeners.split_at_mut_checked(self.turn_of_listener)?;
        sooner
            .iter_mut()
            .chain(later)
            .find(|listener| listener.is_readable())
    }

    pub(super) fn accept_waiting(&mut self) {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.can_accept() {
                return;
            }
            let Some(listener) = self.next_listener() else {
                return;
            };
            match listener.source().accept() {
                Ok((stream, peer)) => {
                    self.accepted(stream, peer);
                    // If descriptors are few, its server is started before the next connection takes what that needs.
                    self.apply_actions();
                }
                Err(error) => match listener::classify_accept_error(&error) {
                    AcceptError::Blocked => {
                        listener.clear_readable();
                        self.note_whether_anyone_waits();
                    }
                    AcceptError::Connection => {
                        debug!("a connection was gone before it was accepted: {error}");
                    }
                    AcceptError::Exhausted => self.pause_accepting(&error),
                },
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream, peer: SocketAddr) {
        let key = self.scheduler.next_key();
        if key.0 >= MAX_KEYS {
            return;
        }
        if let Err(error) = tcp::configure(&stream) {
            debug!("a connection was gone when it was accepted: {error}");
            return;
        }
        let target = Target {
            key: key.0,
            channel: Channel::Client,
        };
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let client = match self.reactor.register(stream, target, interest) {
            Ok(client) => client,
            Err(error) => return self.pause_accepting(&error),
        };
        self.sessions_so_far += 1;
        let label = Label::Session {
            number: self.sessions_so_far,
            client: peer,
            pid: None,
        };
        let is_full = self.scheduler.len() - self.refused >= self.max_sessions;
        let place = ClientSession::new(client);
        let timers = &mut self.reactor.timers;
        if is_full {
            self.refused += 1;
            self.scheduler
                .refuse(label, self.max_sessions, place, timers);
        } else {
            self.scheduler.open(label, place, timers);
        }
    }

    fn pause_accepting(&mut self, error: &io::Error) {
        let retry = self
            .reactor
            .timers
            .set(self.now() + ACCEPT_PAUSE, Due::Accept);
        match self.accepting {
            Accepting::Yes => {}
            Accepting::Paused { retry } => self.reactor.timers.cancel(retry),
        }
        self.accepting = Accepting::Paused { retry };
        if !self.exhaustion_logged {
            self.exhaustion_logged = true;
            error!(
                "new connections have to wait: {error}; {} sessions are open",
                self.scheduler.len()
            );
        }
    }

    /// Sees to servers that are waited for. To start one is the dearest thing that a turn can do, so there is one in a
    /// turn, and a rush delays open sessions by no more than that; those that wait in the pool are cheap. When something
    /// has run out, the first one waits for the next attempt, and all others behind it.
    pub(super) fn start_servers(&mut self) {
        let mut spawned = false;
        for _ in 0..TAKES_PER_TURN {
            if spawned || !self.can_start() {
                break;
            }
            let Some(ticket) = self.starting.take_next() else {
                break;
            };
            match self.start_server(ticket.slot) {
                Start::Exhausted => self.starting.put_back(ticket),
                start => {
                    spawned = start == Start::Spawned;
                    self.note_whether_anyone_waits();
                }
            }
            self.apply_actions();
        }
        if !spawned && self.can_prespawn() {
            self.prespawn();
        }
        let wanted = !self.starting.is_empty() || self.pool.wants_server();
        let now = self.now();
        self.starting.watch(wanted, now, &mut self.reactor.timers);
    }

    /// Once nobody waits, there is enough of everything, and the next shortage is a new one.
    fn note_whether_anyone_waits(&mut self) {
        let connections_wait = self.listeners.iter().any(Io::is_readable);
        self.exhaustion_logged &= connections_wait || !self.starting.is_empty();
    }

    pub(super) fn can_start(&mut self) -> bool {
        let forced = matches!(self.stopping, Stopping::Forced | Stopping::Over);
        let now = self.now();
        self.accepting == Accepting::Yes
            && !self.starting.is_empty()
            && !forced
            && (self.pool.has_waiting() || self.starting.has_room(now))
    }

    fn start_server(&mut self, slot: usize) -> Start {
        let session = self.scheduler.session(SessionKey(slot));
        if !session.is_some_and(Session::wants_start) {
            return Start::Settled;
        }
        if self.take_from_pool(slot) {
            return Start::Settled;
        }
        let now = self.now();
        let started = self.spawner.spawn().and_then(|spawned| {
            let pid = spawned.pid;
            let process = self.processes.add(pid, Owner::Session(slot));
            self.starting.started(process, now);
            let target = |channel| Target { key: slot, channel };
            Pipes::register(spawned, &mut self.reactor, target)
                .inspect_err(|_| self.processes.stop(process, now, &mut self.reactor.timers))
                .map(|pipes| (pipes, process, pid))
        });
        match started {
            Ok((pipes, process, pid)) => {
                self.pool.missed();
                self.connect_server(slot, pipes, process, u32::try_from(pid.as_raw()).ok());
            }
            Err(error) if listener::is_exhaustion(&error) => {
                self.pause_accepting(&error);
                return Start::Exhausted;
            }
            Err(error) => {
                self.pool.missed();
                self.tell(SessionKey(slot), Event::UpstreamFailed(&error.to_string()));
            }
        }
        Start::Spawned
    }

    /// A session gets its server.
    pub(super) fn connect_server(
        &mut self,
        slot: usize,
        pipes: Pipes,
        process: usize,
        pid: Option<u32>,
    ) {
        if let Some(connection) = self.scheduler.place_mut(SessionKey(slot)) {
            connection.attach(pipes, process);
            self.tell(SessionKey(slot), Event::UpstreamStarted { pid });
        }
    }
}
