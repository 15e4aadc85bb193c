//! Processes that serve many sessions: between their pipes and [`Share`], which decides what passes.
//!
//! They are servers like all others, kept in [`Servers`](super::Servers); what uses them is not a session but a place of
//! the share. They are read whether or not anybody takes what they say: where it waits is the share's business.

use std::collections::VecDeque;

use super::servers::ServerKey;
use super::system::System;
use super::{Due, Proxy, Stopping};
use crate::reactor::timers::Deadline;
use crate::scheduler::SessionKey;
use crate::session::last_words::LastWords;
use crate::session::report::Exit;
use crate::session::stderr::excerpt;
use crate::session::stderr::{Gate, SHARED_OUTPUT, ServerLogging, StderrLines};
use crate::session::{Event, Session};
use crate::share::{Context, Effect, Limits, ProcessKey, SeatKey, Share};
use crate::util::about::{ServerProcess, about};
use crate::util::log_rate_limit::LogRateLimit;
use crate::util::time::Time;

/// The share, and what is around it.
pub(super) struct Sharing {
    pub(super) share: Share,
    /// Whose each seat is.
    sessions: Vec<Option<SessionKey>>,
    pub(super) processes: Vec<Process>,
    /// Those that are to be started, in order.
    pub(super) to_start: VecDeque<ProcessKey>,
    /// Those that may have something to do, each at most once.
    pub(super) ready: Vec<ProcessKey>,
    deadline: Deadline,
    logging: ServerLogging,
    /// What one session has written for the processes, between two runs.
    pub(super) outgoing: Vec<u8>,
}

/// What is around a process.
pub(super) struct Process {
    pub(super) server: Option<ServerKey>,
    pub(super) pid: i32,
    pub(super) is_ready: bool,
    /// What it has left unread in its stdin, once nobody reads it any more.
    pub(super) unread: Vec<u8>,
    stderr: StderrLines,
    pub(super) last_words: LastWords,
    log_rate_limit: LogRateLimit,
}

impl Sharing {
    pub(super) fn new(limits: Limits, logging: ServerLogging) -> Self {
        let processes = (0..limits.places()).map(|_| Process {
            server: None,
            pid: 0,
            is_ready: false,
            unread: Vec::new(),
            stderr: StderrLines::default(),
            last_words: LastWords::default(),
            log_rate_limit: LogRateLimit::new(&SHARED_OUTPUT),
        });
        Self {
            share: Share::new(limits),
            sessions: Vec::new(),
            processes: processes.collect(),
            to_start: VecDeque::new(),
            ready: Vec::new(),
            deadline: Deadline::default(),
            logging,
            outgoing: Vec::new(),
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
            format!("lines of shared servers and their clients that reached nobody:{drops}")
        })
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
        let process = &mut self.processes[key.0];
        if self.logging == ServerLogging::None {
            return;
        }
        let label = label(process.pid);
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

/// How the log calls a process.
pub(super) fn label(pid: i32) -> ServerProcess {
    ServerProcess {
        what: "shared",
        pid,
    }
}

// Seats.
impl<S: System> Proxy<S> {
    /// Whether this session is to use a shared process, and not one of its own.
    pub(super) fn is_to_share(&self, session: &Session) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| {
            let is_for_own =
                session.is_legacy() || (session.is_modern() && sharing.share.is_legacy());
            !is_for_own
        })
    }

    /// A session gets a seat instead of a server.
    pub(super) fn take_seat(&mut self, key: SessionKey) {
        let Some(session) = self.scheduler.session(key) else {
            return;
        };
        let identity = session.label().client().origin();
        let (Some(sharing), Some(place)) = (&mut self.sharing, self.scheduler.place_mut(key))
        else {
            return;
        };
        let seat = sharing.share.take_seat(identity);
        if sharing.sessions.len() <= seat.0 {
            sharing.sessions.resize(seat.0 + 1, None);
        }
        sharing.sessions[seat.0] = Some(key);
        place.seat = Some(seat);
        self.tell(key, Event::UpstreamStarted { pid: None });
    }

    /// A session leaves its seat. For the session that is the end of its upstream.
    pub(super) fn leave_seat(&mut self, key: SessionKey) {
        let seat = self
            .scheduler
            .place_mut(key)
            .and_then(|place| place.seat.take());
        let (Some(seat), Some(sharing)) = (seat, &mut self.sharing) else {
            return;
        };
        sharing.sessions[seat.0] = None;
        let now = self.reactor.now();
        let (_, memory) = self.scheduler.scratch_and_memory();
        sharing.share.leave(seat, &mut Context { now, memory });
        self.tell(key, Event::UpstreamExited(Exit::Code(0)));
        self.tell(key, Event::UpstreamEof(None));
    }
}

// Hibernation.
impl<S: System> Proxy<S> {
    /// Nothing passes over a session: its seat is not used.
    pub(super) fn note_idle_seat(&mut self, key: SessionKey) {
        let seat = self.scheduler.place(key).and_then(|place| place.seat);
        let (Some(seat), Some(sharing)) = (seat, &mut self.sharing) else {
            return;
        };
        let now = self.reactor.now();
        let (_, memory) = self.scheduler.scratch_and_memory();
        sharing.share.seat_idle(seat, &mut Context { now, memory });
    }

    /// Nobody uses a process: it goes, and is not waited for.
    fn give_back_shared(&mut self, key: ProcessKey) {
        let Some(sharing) = &mut self.sharing else {
            return;
        };
        sharing.log_stderr(key, None, self.reactor.now());
        let process = &mut sharing.processes[key.0];
        let Some(server) = process.server.take() else {
            return;
        };
        process.unread.clear();
        process.last_words.clear();
        about!(
            info,
            label(process.pid),
            "hibernates, as no session uses it"
        );
        self.servers.stop_idle(server, &mut self.reactor.timers);
        self.servers.release(server);
    }
}

// Processes.
impl<S: System> Proxy<S> {
    /// Carries out what the share wants done.
    pub(super) fn carry_out_sharing(&mut self) {
        while let Some(effect) = self.next_effect() {
            match effect {
                Effect::Start(key) => self.with_sharing(|it| it.to_start.push_back(key)),
                Effect::Stop(key) => {
                    let server = self
                        .sharing
                        .as_ref()
                        .and_then(|it| it.processes[key.0].server);
                    if let Some(server) = server {
                        self.servers.stop(server, &mut self.reactor.timers);
                    }
                }
                Effect::GiveBack(key) => self.give_back_shared(key),
                Effect::Write(key) => self.with_sharing(|it| it.note(key)),
                Effect::Wake(seat) => {
                    let session = self.sharing.as_ref().and_then(|it| it.session(seat));
                    if let Some(session) = session {
                        self.scheduler.enqueue(session);
                    }
                }
                Effect::Close(seat, why) => self.close_seat(seat, why),
                Effect::NoMessage(key, line) => self.log_no_message(key, &line),
            }
        }
    }

    fn next_effect(&mut self) -> Option<Effect> {
        self.sharing.as_mut()?.share.next_effect()
    }

    pub(super) fn with_sharing(&mut self, act: impl FnOnce(&mut Sharing)) {
        if let Some(sharing) = &mut self.sharing {
            act(sharing);
        }
    }

    fn close_seat(&mut self, seat: SeatKey, why: &'static str) {
        let session = self.sharing.as_ref().and_then(|it| it.session(seat));
        if let Some(session) = session {
            let error = std::io::Error::new(std::io::ErrorKind::TimedOut, why);
            self.tell(session, Event::ClientFailed(&error));
        }
    }

    fn log_no_message(&mut self, key: ProcessKey, line: &[u8]) {
        let now = self.reactor.now();
        self.with_sharing(|sharing| {
            let process = &mut sharing.processes[key.0];
            if sharing.logging != ServerLogging::Limited || process.log_rate_limit.take(now) {
                let text = excerpt(line);
                about!(
                    warn,
                    label(process.pid),
                    "stdout: the line is not JSON: {text}"
                );
            } else {
                process.log_rate_limit.leave_out();
            }
        });
    }

    /// Does what is due.
    pub(super) fn share_timeout(&mut self) {
        let now = self.reactor.now();
        if let Some(sharing) = &mut self.sharing {
            sharing.deadline.fired();
            let (_, memory) = self.scheduler.scratch_and_memory();
            sharing.share.timeout(&mut Context { now, memory });
        }
        self.carry_out_sharing();
    }

    /// What follows at the end of an iteration: what is due next, and the end of it all.
    pub(super) fn settle_sharing(&mut self) {
        let Some(sharing) = &mut self.sharing else {
            return;
        };
        let is_over = self.stopping != Stopping::No && !sharing.has_seats();
        let at = sharing.share.next_deadline().filter(|_| !is_over);
        sharing
            .deadline
            .set(at, Due::Share, &mut self.reactor.timers);
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
    pub(super) fn note_shared(&mut self, key: ProcessKey) {
        self.with_sharing(|sharing| sharing.note(key));
    }

    /// Whether a shared process is to be started.
    pub(super) fn wants_shared(&self) -> bool {
        self.sharing.as_ref().is_some_and(Sharing::wants_server)
    }

    /// Whether a shared process can be started.
    pub(super) fn can_start_shared(&self) -> bool {
        self.sharing.as_ref().is_some_and(Sharing::wants_server)
            && !self.is_paused()
            && matches!(self.stopping, Stopping::No | Stopping::Gently)
            && (self.spares.has_waiting() || self.start_queue.has_room(self.now()))
    }
}
