//! Sessions get their servers: in order and few in an iteration, from those that wait or by a new process. What is left of
//! an iteration is for those that are to wait.

use std::io;

use log::debug;

use super::server::{Life, User};
use super::servers::ServerKey;
use super::system::{ServerUser, System};
use super::{ClientSession, Proxy, Stopping};
use crate::entrance::{Identity, Name};
use crate::process::is_for_good;
use crate::reactor::io::Io;
use crate::scheduler::{Scheduler, SessionKey};
use crate::session::report::Label;
use crate::session::{Event, Session};
use crate::transport::listener::is_exhaustion;
use crate::util::service_key::ServiceKey;

/// Waiting servers that are handed out in one iteration: as many as connections are accepted.
const TAKES_PER_ITERATION: usize = 8;

/// What came of the start of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StartOutcome {
    /// Nothing had to be started.
    Settled,
    /// One was started, or should have been and could not.
    Spawned,
    /// Something ran out.
    Exhausted,
}

/// The session that a server is started for, as the system has to know it.
fn server_user<S: System>(
    scheduler: &Scheduler<ClientSession<S>>,
    key: SessionKey,
) -> Option<ServerUser<'_, S::Client>> {
    let Label::Session { number, client, .. } = scheduler.session(key)?.label() else {
        return None;
    };
    let place = scheduler.place(key)?;
    Some(ServerUser {
        key,
        number: *number,
        address: *client,
        name: place
            .identity()
            .and_then(Identity::client)
            .map(Name::as_str),
        connection: place.client().map(Io::source),
    })
}

impl<S: System> Proxy<S> {
    /// Whether a session that waits for its server can be given one.
    pub(super) fn can_start(&self) -> bool {
        !self.start_queue.is_empty()
            && !self.is_paused()
            && matches!(self.stopping, Stopping::No | Stopping::Gently)
            && (self.start_queue.has_room(self.now()) || self.has_spare_for_waiting())
    }

    /// Whether a session waits for its server for which one is there.
    fn has_spare_for_waiting(&self) -> bool {
        let mut services = self.services.keys();
        services.any(|key| {
            self.services.get(key).spares.has_waiting() && self.start_queue.has_waiting(key)
        })
    }

    /// Whether a server may be started that waits. Sessions come first.
    pub(super) fn can_prespawn(&self) -> bool {
        self.services.want_spares()
            && self.start_queue.is_empty()
            && !self.is_paused()
            && self.stopping == Stopping::No
            && self.start_queue.has_room(self.now())
    }

    /// Whether a server is wanted, or the start of one is watched.
    pub(super) fn is_starting(&self) -> bool {
        !self.start_queue.is_idle()
            || self.services.want_spares()
            || self.services.swapping > 0
            || self.wants_shared()
    }

    /// Starts queued servers. A spawn is the most expensive step of an iteration, so there is one at most, and a rush delays
    /// open sessions by no more than that; to hand out a server that waits is cheap. When something has run out, the first
    /// session waits for the next attempt, and all others after it.
    pub(super) fn start_servers(&mut self) {
        if !self.is_starting() {
            return;
        }
        let mut has_spawned = false;
        // Many wait for one of these.
        while !has_spawned && let Some(service) = self.next_to_share() {
            has_spawned = self.start_shared(service);
        }
        for _ in 0..TAKES_PER_ITERATION {
            if has_spawned || !self.can_start() {
                break;
            }
            let has_room = self.start_queue.has_room(self.now());
            let services = &self.services;
            let can_serve = |service| has_room || services.get(service).spares.has_waiting();
            let Some(ticket) = self.start_queue.take_next(can_serve) else {
                break;
            };
            match self.start_server(ticket.session) {
                StartOutcome::Exhausted => self.start_queue.put_back(ticket),
                outcome => {
                    has_spawned = outcome == StartOutcome::Spawned;
                    self.note_whether_anyone_waits();
                }
            }
            self.apply_actions();
        }
        if !has_spawned && let Some(service) = self.next_to_swap() {
            has_spawned = self.start_successor(service);
            self.apply_actions();
        }
        if !has_spawned && self.can_prespawn() {
            self.prespawn();
        }
        let wanted = !self.start_queue.is_empty()
            || self.services.want_spares()
            || self.services.swapping > 0
            || self.wants_shared();
        self.start_queue.watch(wanted, &mut self.reactor.timers);
    }

    fn start_server(&mut self, key: SessionKey) -> StartOutcome {
        let session = self.scheduler.session(key);
        let place = self.scheduler.place(key);
        let place = place.filter(|_| session.is_some_and(Session::wants_start));
        let Some(service) = place.map(ClientSession::service) else {
            return StartOutcome::Settled;
        };
        if let Some(server) = self.take_spare(service) {
            self.assign(server, key);
            return StartOutcome::Settled;
        }
        match self.spawn(service, Some(key)) {
            Ok(server) => {
                self.services.get_mut(service).spares.missed();
                self.assign(server, key);
            }
            Err(error) if is_exhaustion(&error) => {
                self.pause(&error);
                return StartOutcome::Exhausted;
            }
            Err(error) if self.is_for_good(service, &error) => {
                self.tell(key, Event::UpstreamMissing(&error.to_string()));
            }
            Err(error) => {
                self.services.get_mut(service).spares.missed();
                self.tell(key, Event::UpstreamFailed(&error.to_string()));
            }
        }
        StartOutcome::Spawned
    }

    /// Whether what keeps a server from being started is its configuration. Without one, it was found right at the start, and
    /// what is missing now is likely to come back, as by an update.
    fn is_for_good(&self, service: ServiceKey, error: &io::Error) -> bool {
        self.services.get(service).name.is_some() && is_for_good(error)
    }

    pub(super) fn spawn(
        &mut self,
        service: ServiceKey,
        user: Option<SessionKey>,
    ) -> io::Result<ServerKey> {
        let user = user.and_then(|key| server_user(&self.scheduler, key));
        let spawned = match self.system.spawn(service, user) {
            Ok(spawned) => spawned,
            Err(error) => {
                if !is_exhaustion(&error) {
                    let now = self.reactor.now();
                    let counts = &mut self.services.get_mut(service).counts;
                    counts.start_failed(&error.to_string(), now);
                }
                return Err(error);
            }
        };
        self.services.get_mut(service).counts.started();
        let (server, watched) = self.servers.add(service, spawned, &mut self.reactor);
        self.start_queue.started(server, self.now());
        if watched.is_err() {
            self.servers.stop(server, &mut self.reactor.timers);
        }
        watched.map(|()| server)
    }

    /// A session gets its server.
    fn assign(&mut self, key: ServerKey, user: SessionKey) {
        let (Some(server), Some(place)) =
            (self.servers.get_mut(key), self.scheduler.place_mut(user))
        else {
            return;
        };
        debug_assert!(server.user.is_none() && place.server.is_none());
        server.user = Some(User::Session(user));
        place.server = Some(key);
        let pid = u32::try_from(server.pid.as_raw()).ok();
        self.tell(user, Event::UpstreamStarted { pid });
    }

    /// The server of a service that has waited longest.
    pub(super) fn take_spare(&mut self, service: ServiceKey) -> Option<ServerKey> {
        if !self.services.get(service).spares.has_waiting() {
            return None;
        }
        // One that has ended may not have been reaped yet.
        self.reap();
        let spares = &mut self.services.get_mut(service).spares;
        spares.take(&mut self.reactor.timers)
    }

    fn prespawn(&mut self) {
        let Some(service) = self.services.next_to_prespawn() else {
            return;
        };
        let spares = &mut self.services.get_mut(service).spares;
        spares.started(&mut self.reactor.timers);
        let spawned = self.spawn(service, None);
        let spares = &mut self.services.get_mut(service).spares;
        match spawned {
            Ok(key) => {
                if let Some(server) = self.servers.get(key) {
                    debug!("{}: server pid {} was started", spares.called(), server.pid);
                    spares.add(key, server.pid);
                }
            }
            Err(error) => spares.lost(&error.to_string(), &mut self.reactor.timers),
        }
    }

    /// A server without a user has shown that it is of no use, or has something on its stderr.
    pub(super) fn spare_latched(&mut self, key: ServerKey) {
        let Some(server) = self.servers.get(key) else {
            return;
        };
        if server.has_stderr() && !self.talking_spares.contains(&key) {
            self.talking_spares.push(key);
        }
        let spares = &mut self.services.get_mut(server.service).spares;
        if server.is_useless() && spares.retire(key) {
            self.servers.stop(key, &mut self.reactor.timers);
        }
    }

    /// Logs what waiting servers have written to stderr, within a budget.
    pub(super) fn log_spares(&mut self) {
        if self.talking_spares.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.talking_spares) {
            if self.log_spare(key) {
                self.talking_spares.push(key);
            }
        }
    }

    /// Returns whether there is more.
    fn log_spare(&mut self, key: ServerKey) -> bool {
        let now = self.now();
        let server = self.servers.get_mut(key);
        // If it was handed out meanwhile, whoever has it reads it.
        let Some(server) = server.filter(|server| server.user.is_none()) else {
            return false;
        };
        let spares = &mut self.services.get_mut(server.service).spares;
        server.read_stderr(self.scheduler.scratch(), |bytes| {
            spares.log(key, bytes, now);
        });
        server.has_stderr()
    }

    /// Reaps all that have ended.
    pub(super) fn reap(&mut self) {
        let ended = self.servers.reap(&mut self.system);
        for key in &ended {
            self.server_ended(*key);
        }
        let timers = &mut self.reactor.timers;
        self.servers.stop_remnants(&ended, &mut self.system, timers);
    }

    /// Uses force on a server, as it is due. One that no force ends keeps nobody waiting: it is as good as gone.
    pub(super) fn escalate(&mut self, key: ServerKey) {
        let timers = &mut self.reactor.timers;
        if self.servers.escalate(key, &mut self.system, timers) {
            self.server_ended(key);
            self.servers.free_if_gone(key);
        }
    }

    fn server_ended(&mut self, key: ServerKey) {
        self.start_queue.has_started_up(key);
        let Some(server) = self.servers.get(key) else {
            return;
        };
        match server.user {
            Some(User::Session(user)) => self.scheduler.enqueue(user),
            Some(User::Share(process)) => self.note_shared(server.service, process),
            None => self.spare_ended(key),
        }
    }

    fn spare_ended(&mut self, key: ServerKey) {
        self.log_spare(key);
        self.talking_spares.retain(|other| *other != key);
        let now = self.now();
        let Some(server) = self.servers.get_mut(key) else {
            return;
        };
        let spares = &mut self.services.get_mut(server.service).spares;
        let is_loss = spares.ended(key, now);
        debug_assert_ne!(server.life, Life::Running);
        server.close();
        if let Some(exit) = server.exit.as_deref().filter(|_| is_loss) {
            let timers = &mut self.reactor.timers;
            spares.lost(&exit.to_string(), timers);
        }
    }

    /// Stops the servers that wait.
    pub(super) fn close_spares(&mut self) {
        let timers = &mut self.reactor.timers;
        for service in self.services.keys() {
            for key in self.services.get_mut(service).spares.close(timers) {
                self.servers.stop(key, timers);
            }
        }
    }
}
