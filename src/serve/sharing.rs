//! Processes that serve many sessions: between their pipes and [`Share`], which decides what passes.
//!
//! They are servers like all others, kept in [`Servers`](super::Servers); what uses them is not a session but a place of
//! the share. They are read whether or not anybody takes what they say: where it waits is the share's business.

mod state;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

pub(super) use self::state::SharingState;
use super::servers::ServerKey;
use super::system::System;
use super::{Due, Proxy, Stopping};
use crate::entrance::{self, Name};
use crate::reactor::timers::Deadline;
use crate::scheduler::SessionKey;
use crate::session::last_words::LastWords;
use crate::session::report::Exit;
use crate::session::stderr::excerpt;
use crate::session::stderr::{Gate, SHARED_OUTPUT, ServerLogging, StderrLines};
use crate::session::{Event, Session};
use crate::share::{Context, Effect, Identity, Limits, ProcessKey, SeatKey, Share};
use crate::status::facts::{SharedFacts, SharedKind};
use crate::util::about::{ServerProcess, about};
use crate::util::log_rate_limit::LogRateLimit;
use crate::util::service_key::ServiceKey;
use crate::util::side_bytes;
use crate::util::time::Time;

/// The share, and what is around it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sharing {
    /// What the log calls it, if it has a name.
    name: Option<Name>,
    pub(super) share: Share,
    /// Whose each seat is.
    sessions: Vec<Option<SessionKey>>,
    pub(super) processes: Vec<Process>,
    /// Those that are to be started, in order.
    pub(super) to_start: VecDeque<ProcessKey>,
    /// Those that may have something to do, each at most once.
    pub(super) ready: Vec<ProcessKey>,
    #[serde(skip)]
    deadline: Deadline,
    logging: ServerLogging,
    /// What one session has written for the processes, between two runs.
    #[serde(skip)]
    pub(super) outgoing: Vec<u8>,
}

/// What is around a process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) server: Option<ServerKey>,
    pub(super) pid: i32,
    pub(super) is_ready: bool,
    /// What it has left unread in its stdin, once nobody reads it any more.
    #[serde(with = "side_bytes")]
    pub(super) unread: Vec<u8>,
    stderr: StderrLines,
    pub(super) last_words: LastWords,
    log_rate_limit: LogRateLimit,
}

impl Sharing {
    pub(super) fn new(limits: Limits, logging: ServerLogging) -> Self {
        Self {
            name: None,
            share: Share::new(limits),
            sessions: Vec::new(),
            processes: Vec::new(),
            to_start: VecDeque::new(),
            ready: Vec::new(),
            deadline: Deadline::default(),
            logging,
            outgoing: Vec::new(),
        }
    }

    /// The same for one of several services.
    pub(super) fn of(self, name: Option<Name>) -> Self {
        Self { name, ..self }
    }

    /// How the log calls a process.
    pub(super) fn label(&self, pid: i32) -> ServerProcess {
        ServerProcess {
            what: "shared",
            server: self.name.as_ref().map(|name| name.as_str().into()),
            pid,
        }
    }

    /// What there is to say of its processes.
    pub(super) fn facts(&self, now: Time) -> Vec<SharedFacts> {
        let all = self.processes.iter().enumerate();
        let running = all.filter(|(_, process)| process.server.is_some());
        let facts = running.map(|(place, process)| {
            let key = ProcessKey(place);
            let load = self.share.load(key, now);
            SharedFacts {
                place,
                pid: process.pid,
                sessions: load.seats,
                in_flight: load.in_flight,
                kind: self.kind(key),
                is_silent: load.is_silent,
            }
        });
        facts.collect()
    }

    fn kind(&self, key: ProcessKey) -> SharedKind {
        if self.share.is_solo(key) {
            SharedKind::Solo
        } else if key == self.share.probe() {
            SharedKind::Probe
        } else {
            SharedKind::Shared
        }
    }

    /// Whether something is to be done although no event tells.
    pub(super) fn is_busy(&self) -> bool {
        !self.ready.is_empty() || self.share.has_effects()
    }

    /// Whether a process is to be started.
    pub(super) fn wants_server(&self) -> bool {
        !self.to_start.is_empty()
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline.at()
    }

    /// What there is to say at the end, if anything was dropped.
    pub(super) fn summary(&self) -> Option<String> {
        let drops = self.share.drops();
        drops.is_any().then(|| {
            let of = self.name.as_ref();
            let of = of.map_or_else(String::new, |name| format!(" of {name}"));
            format!("lines of shared servers{of} and their clients that reached nobody:{drops}")
        })
    }

    /// A process is to be started.
    fn ask_for(&mut self, key: ProcessKey) {
        if self.processes.len() <= key.0 {
            self.processes.resize_with(key.0 + 1, Process::default);
        }
        self.to_start.push_back(key);
    }

    /// Something has happened to a process.
    pub(super) fn note(&mut self, key: ProcessKey) {
        let process = &mut self.processes[key.0];
        if !process.is_ready {
            process.is_ready = true;
            self.ready.push(key);
        }
    }

    /// Whose a seat is.
    fn session(&self, seat: SeatKey) -> Option<SessionKey> {
        self.sessions.get(seat.0).copied().flatten()
    }

    fn has_seats(&self) -> bool {
        self.share.has_seats()
    }

    pub(super) fn log_stderr(&mut self, key: ProcessKey, bytes: Option<&[u8]>, now: Time) {
        if self.logging == ServerLogging::None {
            return;
        }
        let label = self.label(self.processes[key.0].pid);
        let process = &mut self.processes[key.0];
        let is_limited = self.logging == ServerLogging::Limited;
        let mut gate = Gate {
            limit: is_limited.then_some(&mut process.log_rate_limit),
            shared: None,
            last_words: Some(&mut process.last_words),
        };
        let log = |line: &str| gate.log_stderr(&label, line, now);
        match bytes {
            Some(bytes) => process.stderr.push(bytes, log),
            None => process.stderr.end(log),
        }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self {
            server: None,
            pid: 0,
            is_ready: false,
            unread: Vec::new(),
            stderr: StderrLines::default(),
            last_words: LastWords::default(),
            log_rate_limit: LogRateLimit::new(&SHARED_OUTPUT),
        }
    }
}

// Seats.
impl<S: System> Proxy<S> {
    /// Whether this session is to use a shared process, and not one of its own.
    pub(super) fn is_to_share(&self, service: ServiceKey, session: &Session) -> bool {
        let now = self.reactor.now();
        self.services.sharing(service).is_some_and(|sharing| {
            if session.is_legacy() {
                session.is_opened() && sharing.share.serves_legacy()
            } else {
                !(session.is_modern() && sharing.share.is_legacy(now))
            }
        })
    }

    /// A session gets a seat instead of a server.
    pub(super) fn take_seat(&mut self, key: SessionKey) {
        let Some(session) = self.scheduler.session(key) else {
            return;
        };
        let origin = session.label().client().origin();
        let Some(place) = self.scheduler.place_mut(key) else {
            return;
        };
        let Some(sharing) = self.services.sharing_mut(place.service()) else {
            return;
        };
        let name = place.identity().and_then(entrance::Identity::client);
        let identity = Identity::new(origin, name.map(Name::as_str));
        let seat = sharing.share.take_seat(identity);
        let serves_legacy = sharing.share.serves_legacy();
        if sharing.sessions.len() <= seat.0 {
            sharing.sessions.resize(seat.0 + 1, None);
        }
        sharing.sessions[seat.0] = Some(key);
        place.seat = Some(seat);
        self.tell(key, Event::Seated { serves_legacy });
    }

    /// A session leaves its seat. For the session that is the end of its upstream.
    pub(super) fn leave_seat(&mut self, key: SessionKey) {
        let Some(place) = self.scheduler.place_mut(key) else {
            return;
        };
        let sharing = self.services.sharing_mut(place.service());
        let (Some(seat), Some(sharing)) = (place.seat.take(), sharing) else {
            return;
        };
        sharing.sessions[seat.0] = None;
        let now = self.reactor.now();
        let (_, memory) = self.scheduler.scratch_and_memory();
        sharing.share.leave(seat, &mut Context { now, memory });
        self.tell(key, Event::UpstreamExited(Exit::Left));
        self.tell(key, Event::UpstreamEof(None));
    }
}

// Hibernation.
impl<S: System> Proxy<S> {
    /// Nothing passes over a session: its seat is not used.
    pub(super) fn note_idle_seat(&mut self, key: SessionKey) {
        let Some(place) = self.scheduler.place(key) else {
            return;
        };
        let sharing = self.services.sharing_mut(place.service());
        let (Some(seat), Some(sharing)) = (place.seat, sharing) else {
            return;
        };
        let now = self.reactor.now();
        let (_, memory) = self.scheduler.scratch_and_memory();
        sharing.share.seat_idle(seat, &mut Context { now, memory });
    }

    /// Nobody uses a process: it goes, and is not waited for.
    fn give_back_shared(&mut self, service: ServiceKey, key: ProcessKey) {
        let Some(sharing) = self.services.sharing_mut(service) else {
            return;
        };
        sharing.log_stderr(key, None, self.reactor.now());
        let label = sharing.label(sharing.processes[key.0].pid);
        let process = &mut sharing.processes[key.0];
        let Some(server) = process.server.take() else {
            return;
        };
        process.unread.clear();
        process.last_words.clear();
        about!(info, label, "hibernates, as no session uses it");
        self.servers.stop_idle(server, &mut self.reactor.timers);
        self.servers.release(server);
    }
}

// Processes.
impl<S: System> Proxy<S> {
    /// Carries out what the share wants done.
    pub(super) fn carry_out_sharing(&mut self, service: ServiceKey) {
        while let Some(effect) = self.next_effect(service) {
            match effect {
                Effect::Start(key) => self.with_sharing(service, |it| it.ask_for(key)),
                Effect::Stop(key) => {
                    let sharing = self.services.sharing(service);
                    let server = sharing.and_then(|it| it.processes[key.0].server);
                    if let Some(server) = server {
                        self.servers.stop(server, &mut self.reactor.timers);
                    }
                }
                Effect::GiveBack(key) => self.give_back_shared(service, key),
                Effect::Write(key) => self.with_sharing(service, |it| it.note(key)),
                Effect::Wake(seat) => {
                    let sharing = self.services.sharing(service);
                    if let Some(session) = sharing.and_then(|it| it.session(seat)) {
                        self.scheduler.enqueue(session);
                    }
                }
                Effect::Close(seat, why) => self.close_seat(service, seat, &why),
                Effect::Changed(seat) => {
                    let sharing = self.services.sharing(service);
                    if let Some(session) = sharing.and_then(|it| it.session(seat)) {
                        self.tell(session, Event::ServerChanged);
                    }
                }
                Effect::NoMessage(key, line) => {
                    let text = excerpt(&line);
                    self.log_line(service, key, &format_args!("the line is not JSON: {text}"));
                }
                Effect::TooLong(key, len) => {
                    self.log_line(
                        service,
                        key,
                        &format_args!("a line of {len} bytes is too long"),
                    );
                }
            }
        }
    }

    fn next_effect(&mut self, service: ServiceKey) -> Option<Effect> {
        self.services.sharing_mut(service)?.share.next_effect()
    }

    pub(super) fn with_sharing(&mut self, service: ServiceKey, act: impl FnOnce(&mut Sharing)) {
        if let Some(sharing) = self.services.sharing_mut(service) {
            act(sharing);
        }
    }

    fn close_seat(&mut self, service: ServiceKey, seat: SeatKey, why: &str) {
        let sharing = self.services.sharing(service);
        if let Some(session) = sharing.and_then(|it| it.session(seat)) {
            let error = std::io::Error::new(std::io::ErrorKind::TimedOut, why);
            self.tell(session, Event::ClientFailed(&error));
        }
    }

    /// Logs what is wrong with a line of a process.
    fn log_line(&mut self, service: ServiceKey, key: ProcessKey, what: &std::fmt::Arguments<'_>) {
        let now = self.reactor.now();
        self.with_sharing(service, |sharing| {
            let label = sharing.label(sharing.processes[key.0].pid);
            let process = &mut sharing.processes[key.0];
            if sharing.logging != ServerLogging::Limited || process.log_rate_limit.take(now) {
                about!(warn, label, "stdout: {what}");
            } else {
                process.log_rate_limit.leave_out();
            }
        });
    }

    /// Does what is due.
    pub(super) fn share_timeout(&mut self, service: ServiceKey) {
        let now = self.reactor.now();
        if let Some(sharing) = self.services.sharing_mut(service) {
            sharing.deadline.fired();
            let (_, memory) = self.scheduler.scratch_and_memory();
            sharing.share.timeout(&mut Context { now, memory });
        }
        self.carry_out_sharing(service);
    }

    /// What follows at the end of an iteration: what is due next, and the end of it all.
    pub(super) fn settle_sharing(&mut self) {
        for service in self.services.keys() {
            self.settle_sharing_of(service);
        }
    }

    fn settle_sharing_of(&mut self, service: ServiceKey) {
        let is_ending = self.stopping != Stopping::No || self.services.get(service).is_retired;
        let Some(sharing) = self.services.sharing_mut(service) else {
            return;
        };
        let is_over = is_ending && !sharing.has_seats();
        let at = sharing.share.next_deadline().filter(|_| !is_over);
        sharing
            .deadline
            .set(at, Due::Share(service), &mut self.reactor.timers);
        if is_over {
            sharing.to_start.clear();
            let servers: Vec<ServerKey> = sharing
                .processes
                .iter()
                .filter_map(|process| process.server)
                .collect();
            for server in servers {
                self.servers.stop(server, &mut self.reactor.timers);
            }
        }
    }

    /// Something has happened to a shared process.
    pub(super) fn note_shared(&mut self, service: ServiceKey, key: ProcessKey) {
        self.with_sharing(service, |sharing| sharing.note(key));
    }

    /// Whether a shared process is to be started.
    pub(super) fn wants_shared(&self) -> bool {
        self.services.all_sharing().any(Sharing::wants_server)
    }

    /// The service of which a shared process is to be started, and can be.
    pub(super) fn next_to_share(&self) -> Option<ServiceKey> {
        if !self.services.share_anything()
            || self.is_paused()
            || !matches!(self.stopping, Stopping::No | Stopping::Gently)
        {
            return None;
        }
        let has_room = self.start_queue.has_room(self.now());
        self.services.keys().find(|key| {
            let service = self.services.get(*key);
            let wants_server = service.sharing.as_ref().is_some_and(Sharing::wants_server);
            wants_server && (has_room || service.spares.has_waiting())
        })
    }
}
