//! A session of which the connection may be lost and come back: what is read of it and written to it goes through its
//! [`Channel`](crate::resume::Channel).
//!
//! It is read whenever it can be read. What its client sends waits in the session, within the client's window.

mod check;
mod state;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Duration;

pub(super) use self::state::ResumingState;
use super::client::ClientSession;
use super::newcomers::Newcomers;
use super::system::{ClientSocket, System};
use crate::buffers::budget::BufferBudget;
use crate::entrance::Returning;
use crate::protocol::envelope::Control;
use crate::pump::{Transport, read_bytes};
use crate::reactor::io::{Input, Io};
use crate::resume::totals::Totals;
use crate::resume::wire::{self, Heartbeat};
use crate::resume::{LEAST_WINDOW_BYTES, Lie, Piece, Registry, Server};
use crate::scheduler::SessionKey;
use crate::session::{Context, Event, Session};
use crate::util::about::about;
use crate::util::client_address::Origin;
use crate::util::time::Time;

/// What may become of a connection that is to go on with a session.
pub(super) const RESULTS: [&str; 7] = [
    "resumed",
    "stale",
    "unknown",
    "ended",
    "overflow",
    "contended",
    "protocol_error",
];

/// What the loop has for sessions that can be resumed.
pub(super) struct Resuming<C> {
    /// How long a session without a connection is kept.
    pub(super) timeout: Duration,
    pub(super) registry: Registry,
    pub(super) newcomers: Newcomers<C>,
    /// Those that have lost their connections, in that order. They may have come back since.
    pub(super) lost: VecDeque<(SessionKey, Time)>,
    /// How many of them have not.
    pub(super) detached: usize,
    /// Those of these that have a place, which is free meanwhile.
    pub(super) returning: Returning,
    /// Sessions that take no place any more: they have no server, and only wait for their clients to take the end.
    pub(super) lingering: usize,
    pub(super) totals: Totals,
    /// What became of connections that were to go on with a session, as [`RESULTS`] names it.
    pub(super) results: [u64; RESULTS.len()],
    /// Spare buffers.
    pub(super) buffers: BufferBudget,
}

impl<C> Resuming<C> {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            registry: Registry::default(),
            newcomers: Newcomers::default(),
            lost: VecDeque::new(),
            detached: 0,
            returning: Returning::default(),
            lingering: 0,
            totals: Totals::default(),
            results: [0; RESULTS.len()],
            buffers: BufferBudget::new(0),
        }
    }

    /// A session has lost its connection.
    pub(super) fn is_away(&mut self, origin: Origin, has_place: bool) {
        self.detached += 1;
        if has_place {
            self.returning.add(origin);
        }
    }

    /// A session has another connection, or has ended.
    pub(super) fn is_away_no_more(&mut self, origin: Origin, has_place: bool) {
        self.detached -= 1;
        if has_place {
            self.returning.remove(origin);
        }
    }
}

/// The connection to a client, through the channel of its session. It is not read this way.
pub(super) struct KeptSide<'a, C> {
    client: Option<&'a mut Io<C>>,
    server: &'a mut Server,
    buffers: &'a mut BufferBudget,
    bound: usize,
    /// What waits for the server, in bytes.
    waiting: usize,
    now: Time,
    error: Option<io::Error>,
}

impl<C> KeptSide<'_, C> {
    /// What the connection has come to.
    pub(super) fn into_error(self) -> Option<io::Error> {
        self.error
    }
}

impl<C: ClientSocket> Transport for KeptSide<'_, C> {
    fn is_readable(&self) -> bool {
        false
    }

    fn read(&mut self, _: &mut [u8]) -> Input {
        Input::Blocked
    }

    fn is_writable(&self) -> bool {
        let is_writable = self.client.as_ref().is_some_and(|io| io.is_writable());
        is_writable && self.error.is_none() && self.server.channel.has_room(self.bound)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(client) = &mut self.client else {
            return Ok(0);
        };
        let write = |pieces: [&[u8]; 2]| client.write_pair(pieces);
        let (channel, waiting) = (&mut self.server.channel, self.waiting);
        match channel.send(bytes, self.bound, waiting, self.now, self.buffers, write) {
            Ok(count) => Ok(count),
            Err(error) => {
                self.error = Some(error);
                Ok(0)
            }
        }
    }
}

impl<S: System> ClientSession<S> {
    /// Reads what has come over a connection that may be lost, before the session is pumped.
    #[inline(never)]
    pub(super) fn receive(
        &mut self,
        key: SessionKey,
        session: &mut Session,
        resuming: &mut Resuming<S::Client>,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) {
        self.take_early(session, resuming, cx);
        if self.read(key, session, resuming, scratch, cx) {
            self.note_time(key, session, resuming, cx);
        }
    }

    /// Reads once, if there is anything: what it brings is passed on before more is read. Returns whether the connection is
    /// what it was.
    fn read(
        &mut self,
        key: SessionKey,
        session: &mut Session,
        resuming: &mut Resuming<S::Client>,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let (Some(server), Some(client)) = (&mut self.resume, &mut self.client) else {
            return true;
        };
        // What has come before is handled first, if it can be.
        if server.has_ended || !client.is_readable() || session.has_more_lines_of_client() {
            return true;
        }
        let size = read_bytes(session.is_within_long_line_of_client());
        match client.read(&mut scratch[..size]) {
            Input::Blocked => {}
            Input::Bytes(count) => {
                server.heard(cx.now);
                let input = &scratch[..count];
                if let Err(lie) = take(session, server, input, &mut resuming.buffers, cx) {
                    self.expose(lie, session, cx);
                    return false;
                }
            }
            Input::End if server.has_left || is_over(server, session) => server.has_ended = true,
            Input::End if server.channel.is_used() => {
                self.lose(key, "its end came without a word", session, resuming, cx);
                return false;
            }
            Input::End => server.has_ended = true,
            Input::Broken(error) => {
                self.broke(key, &error, session, resuming, cx);
                return false;
            }
        }
        true
    }

    /// Looks at what had come with the first line.
    fn take_early(
        &mut self,
        session: &mut Session,
        resuming: &mut Resuming<S::Client>,
        cx: &mut Context<'_>,
    ) {
        let Some(server) = &mut self.resume else {
            return;
        };
        let early = server.take_early();
        if !early.is_empty()
            && let Err(lie) = take(session, server, &early, &mut resuming.buffers, cx)
        {
            self.expose(lie, session, cx);
        }
    }

    /// What follows from the time, and from an end that was read before.
    fn note_time(
        &mut self,
        key: SessionKey,
        session: &mut Session,
        resuming: &mut Resuming<S::Client>,
        cx: &mut Context<'_>,
    ) {
        let Some(server) = &mut self.resume else {
            return;
        };
        if is_end_due(server, session) {
            session.handle(Event::ClientEof, cx);
        }
        if server.is_silent(cx.now) && !server.has_ended {
            let silence = server.silence(cx.now).as_secs_f64();
            let why = if server.is_given_up() {
                "another program goes on, and can't go on with TLS".to_owned()
            } else {
                format!("no sign of life for {silence:.3} s")
            };
            if server.has_left {
                return session.handle(Event::ClientFailed(&timed_out(&why)), cx);
            }
            return self.lose(key, &why, session, resuming, cx);
        }
        let is_late = server
            .gives_up_at(resuming.timeout)
            .is_some_and(|at| at <= cx.now);
        if is_late {
            let timeout = resuming.timeout.as_secs_f64();
            let error = format!("it did not come back within {timeout} s (--resume-timeout)");
            session.handle(Event::ClientFailed(&timed_out(&error)), cx);
        }
    }

    fn broke(
        &mut self,
        key: SessionKey,
        error: &io::Error,
        session: &mut Session,
        resuming: &mut Resuming<S::Client>,
        cx: &mut Context<'_>,
    ) {
        let may_come_back = self
            .resume
            .as_ref()
            .is_some_and(|server| !server.has_left && server.channel.is_used());
        if may_come_back {
            self.lose(key, &error.to_string(), session, resuming, cx);
        } else {
            session.handle(Event::ClientFailed(error), cx);
        }
    }

    /// The connection is lost, and may come back.
    pub(super) fn lose(
        &mut self,
        key: SessionKey,
        why: &str,
        session: &mut Session,
        resuming: &mut Resuming<S::Client>,
        cx: &mut Context<'_>,
    ) {
        let Some(server) = self.resume.as_mut().filter(|_| self.client.is_some()) else {
            return;
        };
        let timeout = resuming.timeout.as_secs_f64();
        let label = session.label();
        about!(
            info,
            label,
            "lost its connection: {why}; it is kept for {timeout} s"
        );
        self.client = None;
        server.lost(cx.now);
        resuming.lost.push_back((key, cx.now));
        resuming.is_away(label.client().origin(), !self.gave_up_place);
        session.handle(Event::Detached, cx);
        server.recharge(&mut resuming.totals, cx.memory);
        if session.is_stopping() {
            let error = "it was lost when the proxy was being stopped";
            session.handle(Event::ClientFailed(&timed_out(error)), cx);
            return;
        }
        let kept = server.channel.kept();
        let is_large = kept.len() > LEAST_WINDOW_BYTES && kept.lines() > 1;
        if is_large && resuming.totals.are_too_large(cx.memory) {
            let error = "there is no buffer memory to keep it without a connection";
            session.handle(Event::ClientFailed(&timed_out(error)), cx);
        }
    }

    /// The client says what can't be.
    fn expose(&mut self, lie: Lie, session: &mut Session, cx: &mut Context<'_>) {
        let name = lie.name();
        if let (Some(server), Some(client)) = (&mut self.resume, &mut self.client) {
            server.channel.end_with(&wire::bye(name));
            let _ = server.channel.flush(0, cx.now, |bytes| client.write(bytes));
            client.source_mut().end();
        }
        let error = io::Error::new(ErrorKind::InvalidData, name);
        session.handle(Event::ClientFailed(&error), cx);
    }

    /// The side of the client for the pump.
    pub(super) fn kept_side<'a>(
        client: &'a mut Option<Io<S::Client>>,
        server: &'a mut Server,
        resuming: &'a mut Resuming<S::Client>,
        waiting: usize,
        cx: &Context<'_>,
    ) -> KeptSide<'a, S::Client> {
        KeptSide {
            client: client.as_mut(),
            bound: if server.has_ended {
                usize::MAX
            } else {
                resuming.totals.bound(cx.memory)
            },
            server,
            buffers: &mut resuming.buffers,
            waiting,
            now: cx.now,
            error: None,
        }
    }

    /// Writes what the channel itself has. An error is that of the connection. `waiting` is what waits for the server, in
    /// bytes.
    pub(super) fn flush_channel(
        &mut self,
        waiting: usize,
        session: &mut Session,
        resuming: &mut Resuming<S::Client>,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        let Some(server) = &mut self.resume else {
            return Ok(());
        };
        if session.is_ending() {
            server.ends(cx.now);
        }
        if let Some(line) = session.take_heartbeat() {
            server.channel.beat(&line);
        }
        let Some(client) = &mut self.client else {
            // Nobody takes it for now, and the session is to come to its end without that.
            if session.is_ending() && session.has_output_for_client() {
                server
                    .channel
                    .keep(session.to_client(), &mut resuming.buffers);
                let count = session.to_client().len();
                session.handle(Event::ClientWritten(count), cx);
            }
            return Ok(());
        };
        if server.has_ended {
            // Nobody acknowledges anything any more.
            server.channel.set_window(usize::MAX);
            server.channel.give_up(&mut resuming.buffers);
        }
        if client.is_writable() && server.channel.wants_flush(waiting, cx.now) {
            let write = |bytes: &[u8]| client.write(bytes);
            server.channel.flush(waiting, cx.now, write)?;
        }
        if server.channel.is_ending() && server.channel.is_flushed() {
            client.source_mut().end();
            if server.has_ended {
                session.handle(Event::ClientEof, cx);
            }
        }
        Ok(())
    }

    /// After a run: what the connection came to, what is charged, and when to run again. Returns whether there is more to do
    /// although no event tells.
    pub(super) fn finish_run(
        &mut self,
        key: SessionKey,
        failed: Option<io::Error>,
        session: &mut Session,
        resuming: &mut Resuming<S::Client>,
        cx: &mut Context<'_>,
    ) -> bool {
        let waiting = session.waiting_for_other_side();
        if let Some(error) = failed {
            self.broke(key, &error, session, resuming, cx);
        } else if let Err(error) = self.flush_channel(waiting, session, resuming, cx) {
            self.broke(key, &error, session, resuming, cx);
        }
        let Some(server) = &mut self.resume else {
            return false;
        };
        server.recharge(&mut resuming.totals, cx.memory);
        let waiting = session.waiting_for_other_side();
        // What is due and could not be done waits for room.
        let at = server.deadline(resuming.timeout, waiting);
        session.set_resume_deadline(at.filter(|at| *at > cx.now));
        let Some(client) = &self.client else {
            return session.is_ending() && session.has_output_for_client();
        };
        is_end_due(server, session)
            || (client.is_readable() && !server.has_ended)
            || (client.is_writable() && server.channel.wants_flush(waiting, cx.now))
    }
}

/// Whether the client has nothing more to get: it was told of the end, and then ended its own side.
fn is_over(server: &Server, session: &Session) -> bool {
    session.is_ending() && server.channel.is_ending() && server.channel.is_flushed()
}

/// Whether the session is to be told of the client's end. Once it has come to its own end, that closes the connection, and the
/// rest of what the client is to get may still have to be written.
fn is_end_due(server: &Server, session: &Session) -> bool {
    let is_untold = server.has_ended && session.has_handled_client() && !session.client_has_left();
    is_untold && (!session.is_ending() || is_over(server, session))
}

fn timed_out(why: &str) -> io::Error {
    io::Error::new(ErrorKind::TimedOut, why)
}

/// Passes on what came, and does what its control lines say.
fn take(
    session: &mut Session,
    server: &mut Server,
    mut input: &[u8],
    buffers: &mut BufferBudget,
    cx: &mut Context<'_>,
) -> Result<(), Lie> {
    while !input.is_empty() {
        match server.channel.next(&mut input, cx.now).transpose()? {
            Some(Piece::Lines(lines)) => session.handle(Event::ClientBytes(lines), cx),
            Some(Piece::Joined(line)) => session.handle(Event::ClientBytes(&line), cx),
            Some(Piece::Control(Control::Heartbeat, line)) => {
                session.handle(Event::ClientBytes(&[]), cx);
                let heartbeat = Heartbeat::in_line(&line);
                server.has_left |= heartbeat.bye;
                if let Some(lines) = heartbeat.lines {
                    server.channel.acknowledged(lines.ok(), cx.now, buffers)?;
                }
            }
            Some(Piece::Control(..)) | None => {}
        }
    }
    Ok(())
}
