//! A link that is lost and made again, with the same session at its other end: lines go through a
//! [`Channel`], and while there is no connection the session only pauses.
//!
//! ```text
//!            granted                  lost                     connected
//!   Asked ─────────────▶ Granted ─────────────▶ Lost ────────────────────▶ Verdict
//!     │ another first line  ▲  ▲                 ▲  └▶ the time is over:     │ │ │
//!     ▼                     │  └── resumed ──────┼──────── as lost ──────────┘ │ │
//!   Plain                   └────── granted ── Fresh ◀──── not resumed ────────┘ │
//!                                                └───────── no verdict ──────────┘
//! ```
//!
//! `Plain` is what a link is to a proxy that knows nothing of this. In `Fresh` the session at the other end is gone, and there
//! is a new one already: the link is for the next upstream, which it is at once.

use std::io::{self, ErrorKind};
use std::time::Duration;

use log::{debug, info, warn};

use super::link::Link;
use super::{Connector, Due, Sides};
use crate::buffers::budget::BufferBudget;
use crate::protocol::envelope::{Control, Message};
use crate::protocol::own_messages;
use crate::pump::{READ_BYTES, READS_PER_RUN, SCRATCH_BYTES, Transport, pump};
use crate::reactor::io::{Input, Io};
use crate::reactor::timers::boot_time;
use crate::resume::wire::{self, Ask, FromProxy, SessionId, Side};
use crate::resume::{Channel, Client, LEAST_WINDOW_BYTES, Lie, Piece, WINDOW_BYTES};
use crate::session::{Context, Event, Session};
use crate::transport::connection::Connection;
use crate::util::secret::Secret;
use crate::util::time::Time;

/// A proxy that keeps sessions says so within a round trip. After this, lines are sent beyond the window.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// The link, as far as it may come back.
pub(super) struct KeptLink {
    state: State,
    channel: Channel,
    client: Client,
    /// Spare buffers.
    buffers: BufferBudget,
    /// What is said first over a connection that may not be the session's, and how much of it was written.
    first: (Vec<u8>, usize),
    /// What a new session has said that has not begun here.
    early: Vec<u8>,
    /// How many lines the proxy has said that it has taken, and how many were let go of before it had.
    heard: u64,
    forgotten: u64,
    /// When it was asked.
    asked_at: Time,
    /// Whether the proxy has said that it ends the session.
    has_bye: bool,
    /// Whether our side has ended.
    has_ended: bool,
    /// Whether an attempt is to be made, and none is planned.
    wants_attempt: bool,
    /// Why no further attempt is of use.
    has_failed: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    Plain,
    Granted,
    Lost,
    Verdict,
    Fresh,
}

impl KeptLink {
    fn new(id: SessionId, heartbeat: Duration, now: Time) -> Self {
        Self {
            state: State::Asked,
            channel: Channel::new(Side::Client, WINDOW_BYTES),
            client: Client::new(id, heartbeat, boot_time()),
            buffers: BufferBudget::new(0),
            first: (Vec::new(), 0),
            early: Vec::new(),
            heard: 0,
            forgotten: 0,
            asked_at: now,
            has_bye: false,
            has_ended: false,
            wants_attempt: false,
            has_failed: None,
        }
    }

    /// Whether the session would survive the connection.
    fn can_come_back(&self) -> bool {
        let is_over = self.has_bye || self.channel.is_ending();
        self.state == State::Granted && !is_over && self.heard >= self.forgotten
    }

    /// Whether the proxy has had the time to answer, and has not: one that knows nothing of this may say nothing for long.
    fn is_unanswered(&self, now: Time) -> bool {
        self.state == State::Asked && self.asked_at + ANSWER_TIME <= now
    }

    /// When that is so.
    fn unanswered_at(&self) -> Option<Time> {
        (self.state == State::Asked).then(|| self.asked_at + ANSWER_TIME)
    }

    /// Whether lines may be sent.
    fn takes_lines(&self) -> bool {
        matches!(self.state, State::Asked | State::Plain | State::Granted)
    }

    /// The connection is lost. Returns whether it may come back.
    fn lose(&mut self, why: &str, session: &mut Session, cx: &mut Context<'_>) -> bool {
        match self.state {
            State::Verdict => self.state = State::Lost,
            _ if self.can_come_back() => {
                self.state = State::Lost;
                warn!("lost the connection to {}: {why}", session.label().peer());
                self.channel.detach();
                session.handle(Event::Detached, cx);
            }
            _ => return false,
        }
        self.wants_attempt = true;
        true
    }

    /// Passes on what came, and does what its control lines say.
    fn take(
        &mut self,
        mut input: &[u8],
        session: &mut Session,
        cx: &mut Context<'_>,
    ) -> Result<(), Lie> {
        if matches!(self.state, State::Asked | State::Verdict) && !begins_with_object(input) {
            // Another protocol may never end its first line.
            self.lines(input, session, cx);
            return Ok(());
        }
        while !input.is_empty() {
            if self.state == State::Plain {
                session.handle(Event::UpstreamBytes(input), cx);
                return Ok(());
            }
            match self.channel.next(&mut input, cx.now).transpose()? {
                Some(Piece::Lines(lines)) => self.lines(lines, session, cx),
                Some(Piece::Joined(line)) => self.lines(&line, session, cx),
                Some(Piece::Control(control, line)) => {
                    self.control(control, line, session, cx)?;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn lines(&mut self, lines: &[u8], session: &mut Session, cx: &mut Context<'_>) {
        match self.state {
            State::Fresh => self.early.extend_from_slice(lines),
            State::Asked => {
                self.become_plain(session, cx);
                session.handle(Event::UpstreamBytes(lines), cx);
                let begun = self.channel.give_up(&mut self.buffers);
                if !begun.is_empty() {
                    session.handle(Event::UpstreamBytes(&begun), cx);
                }
            }
            State::Plain | State::Granted => session.handle(Event::UpstreamBytes(lines), cx),
            State::Verdict => self.note_other_verdict(lines),
            State::Lost => {}
        }
    }

    /// The proxy knows nothing of this.
    fn become_plain(&mut self, session: &mut Session, cx: &mut Context<'_>) {
        debug!("the proxy keeps no session whose connection is lost");
        self.state = State::Plain;
        session.handle(Event::NotKept, cx);
    }

    /// Something came in the place of a verdict. A proxy that has no room, or is being stopped, may have another answer later.
    fn note_other_verdict(&mut self, lines: &[u8]) {
        let line = lines.split(|byte| *byte == b'\n').next();
        let message = line.and_then(|line| Message::read(line).ok());
        let is_refusal = message.is_some_and(|message| {
            let mut envelopes = message.envelopes().iter();
            envelopes.any(crate::protocol::envelope::Envelope::is_proxy_error)
        });
        if !is_refusal {
            self.has_failed = Some("the proxy knows nothing of it");
        }
        self.state = State::Lost;
        self.wants_attempt = true;
    }

    fn control(
        &mut self,
        control: Control,
        mut line: Vec<u8>,
        session: &mut Session,
        cx: &mut Context<'_>,
    ) -> Result<(), Lie> {
        debug!("proxy → connect: a line of type {control:?}");
        match (FromProxy::read(control, &line), self.state) {
            (Some(FromProxy::Granted(grant)), State::Asked | State::Fresh) => {
                self.client.granted(grant);
                self.channel.set_window(grant.window);
                if self.state == State::Asked {
                    self.state = State::Granted;
                    session.handle(Event::LinkSaid(&line), cx);
                }
            }
            (Some(FromProxy::Resumed(lines)), State::Verdict) => {
                self.channel.attach(lines, &mut self.buffers)?;
                self.state = State::Granted;
                info!("the session goes on: {}", session.label().peer());
                session.handle(Event::Attached, cx);
                session.handle(Event::LinkSaid(&line), cx);
            }
            (Some(FromProxy::NotResumed { reason, lines }), State::Verdict) => {
                self.not_resumed(&reason, lines, session, cx);
            }
            (Some(FromProxy::Ack(lines)), State::Granted) => {
                self.channel
                    .acknowledged(lines, cx.now, &mut self.buffers)?;
                self.heard = self.heard.max(lines.unwrap_or(0));
                session.handle(Event::UpstreamBytes(&[]), cx);
            }
            (Some(FromProxy::Bye), State::Granted) => self.has_bye = true,
            (Some(FromProxy::Heartbeat), State::Asked) => {
                line.push(b'\n');
                self.lines(&line, session, cx);
            }
            (Some(FromProxy::Heartbeat), _) => session.handle(Event::LinkSaid(&line), cx),
            (_, State::Verdict) => self.note_other_verdict(&line),
            _ => {}
        }
        Ok(())
    }

    /// The session is gone, and there is a new one. What was not taken goes there.
    fn not_resumed(
        &mut self,
        reason: &str,
        lines: Option<u64>,
        session: &mut Session,
        cx: &mut Context<'_>,
    ) {
        let peer = session.label().peer();
        warn!("{peer}: the session could not be resumed ({reason}); there is a new one");
        let known = lines.is_some_and(|lines| {
            let attached = self.channel.attach(Some(lines), &mut self.buffers);
            attached.is_ok()
        });
        let old = std::mem::replace(&mut self.channel, Channel::new(Side::Client, WINDOW_BYTES));
        self.state = State::Fresh;
        self.client.not_resumed();
        if known {
            let untaken = old.kept().all();
            session.handle(Event::NotResumed { untaken }, cx);
        } else {
            let error = io::Error::from(ErrorKind::ConnectionReset);
            session.handle(Event::UpstreamEof(Some(&error)), cx);
        }
    }
}

/// Whether it may be the beginning of one of our lines, or what follows it.
fn begins_with_object(input: &[u8]) -> bool {
    matches!(input.trim_ascii_start().first(), None | Some(b'{'))
}

/// The link for the pump. It is read this way only if it is a plain one.
struct LinkSide<'a> {
    link: &'a mut Link,
    kept: &'a mut KeptLink,
    bound: usize,
    now: Time,
}

impl Transport for LinkSide<'_> {
    fn is_readable(&self) -> bool {
        self.kept.state == State::Plain && self.link.is_readable()
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.link.read(buffer)
    }

    fn is_writable(&self) -> bool {
        self.link.is_writable() && self.kept.takes_lines() && self.kept.channel.has_room(self.bound)
    }

    /// An error shows once the link is read, after what was sent before.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self {
            link, kept, bound, ..
        } = self;
        let write = |bytes: &[u8]| Ok(link.write(bytes).unwrap_or(0));
        kept.channel
            .send(bytes, *bound, self.now, &mut kept.buffers, write)
    }
}

impl Sides {
    /// Whether there is no connection, or one of which it is not known whether the session goes on over it.
    pub(super) fn is_lost(&self) -> bool {
        let kept = self.kept.as_ref();
        kept.is_some_and(|kept| matches!(kept.state, State::Lost | State::Verdict))
    }

    /// Says that nothing follows, once all is written, and then ends our side. Returns whether that is to be said.
    pub(super) fn end_kept(&mut self) -> bool {
        let Some(kept) = &mut self.kept else {
            return false;
        };
        match kept.state {
            // Any proxy takes it for a heartbeat.
            State::Asked | State::Granted => kept.channel.end_with(wire::CLIENT_BYE),
            State::Plain => {}
            State::Lost | State::Verdict | State::Fresh => {
                self.kept = None;
                return false;
            }
        }
        true
    }

    /// Whether our side has ended, once that was begun.
    pub(super) fn has_ended_side(&self) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.has_ended)
    }

    /// Moves what can be moved.
    pub(super) fn run_kept(
        &mut self,
        session: &mut Session,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let flushed = self.link.flush();
        if let Err(error) = flushed {
            self.link_broke(Some(&error), session, cx);
        }
        self.receive(session, scratch, cx);
        self.flush_kept(session, cx);
        let Some(kept) = self.kept.as_deref_mut() else {
            return true;
        };
        let bound = if cx.memory.has_headroom() {
            usize::MAX
        } else {
            LEAST_WINDOW_BYTES
        };
        let mut side = LinkSide {
            link: &mut self.link,
            kept,
            bound,
            now: cx.now,
        };
        let mut has_more = pump(session, &mut self.stdio, &mut side, scratch, cx);
        self.flush_kept(session, cx);
        let Some(kept) = self.kept.as_deref_mut() else {
            return true;
        };
        kept.channel.recharge(cx.memory);
        let waiting = session.waiting_for_other_side();
        let at = kept.channel.deadline(waiting);
        let at = at.into_iter().chain(kept.unanswered_at()).min();
        session.set_resume_deadline(at.filter(|at| *at > cx.now));
        let is_plain = kept.state == State::Plain;
        let holds_input = self.link.note_held_input();
        has_more |= if is_plain {
            holds_input && session.wants_upstream_output(cx.memory)
        } else {
            self.reads_link() && self.link.is_readable()
        };
        has_more
    }

    /// Whether what comes over the link is for anybody. What a new session says waits until it has begun here, too.
    fn reads_link(&self) -> bool {
        self.kept.as_deref().is_some_and(|kept| {
            matches!(kept.state, State::Asked | State::Granted | State::Verdict)
        })
    }

    fn receive(&mut self, session: &mut Session, scratch: &mut [u8], cx: &mut Context<'_>) {
        for _ in 0..READS_PER_RUN {
            if !self.reads_link() || !self.link.is_readable() {
                return;
            }
            let Some(kept) = self.kept.as_deref_mut() else {
                return;
            };
            let size = if session.is_within_long_line_of_upstream() {
                SCRATCH_BYTES
            } else {
                READ_BYTES
            };
            match self.link.read(&mut scratch[..size]) {
                Input::Blocked => return,
                Input::Bytes(count) => {
                    kept.client.heard(boot_time());
                    match kept.take(&scratch[..count], session, cx) {
                        Ok(()) => self.drop_refused_link(),
                        Err(lie) => {
                            let error = io::Error::new(ErrorKind::InvalidData, lie.name());
                            self.end_link(Some(&error), session, cx);
                        }
                    }
                }
                Input::End => self.link_broke(None, session, cx),
                Input::Broken(error) => self.link_broke(Some(&error), session, cx),
            }
        }
    }

    /// A proxy that has no verdict has nothing else for us either.
    fn drop_refused_link(&mut self) {
        let kept = self.kept.as_ref();
        if kept.is_some_and(|kept| kept.state == State::Lost) {
            self.link = Link::Down;
        }
    }

    fn link_broke(
        &mut self,
        error: Option<&io::Error>,
        session: &mut Session,
        cx: &mut Context<'_>,
    ) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        let why = error.map_or_else(
            || "closed by the other side".to_owned(),
            ToString::to_string,
        );
        let is_up = matches!(self.link, Link::Up { .. });
        if is_up && kept.lose(&why, session, cx) {
            self.link = Link::Down;
        } else {
            self.end_link(error, session, cx);
        }
    }

    /// The link is gone for good.
    fn end_link(&mut self, error: Option<&io::Error>, session: &mut Session, cx: &mut Context<'_>) {
        if let Some(mut kept) = self.kept.take() {
            kept.channel.release(cx.memory);
        }
        session.handle(Event::UpstreamEof(error), cx);
    }

    /// Writes what the channel itself has.
    fn flush_kept(&mut self, session: &mut Session, cx: &mut Context<'_>) {
        let Some(kept) = self.kept.as_deref_mut() else {
            return;
        };
        if let Some(line) = session.take_heartbeat() {
            kept.channel.beat(&line);
        }
        let waiting = session.waiting_for_other_side();
        let is_half_closed = matches!(self.link, Link::HalfClosed { .. });
        let Some(link) = self.link.io_mut() else {
            return;
        };
        if link.is_writable() {
            kept.flush(waiting, cx.now, link);
        }
        if is_half_closed && kept.channel.is_flushed() && !kept.has_ended {
            kept.has_ended = true;
            link.source_mut().end();
        }
        if kept.state == State::Plain || kept.is_unanswered(cx.now) {
            kept.channel.set_window(usize::MAX);
            let forgotten = kept.channel.let_go(&mut kept.buffers);
            kept.forgotten = forgotten.unwrap_or(kept.forgotten);
        }
    }
}

impl KeptLink {
    /// Writes what this end itself has, and ends our side once all is said. An error shows once the link is read.
    fn flush(&mut self, waiting: usize, now: Time, link: &mut Io<Connection>) {
        let (first, sent) = &mut self.first;
        if *sent < first.len() {
            *sent += link.write(&first[*sent..]).unwrap_or(0);
        } else if self.takes_lines() && self.channel.wants_flush(waiting, now) {
            let write = |bytes: &[u8]| Ok(link.write(bytes).unwrap_or(0));
            let _ = self.channel.flush(waiting, now, write);
        }
    }
}

impl Connector {
    /// Begins a session that is kept when its connection is lost, if that is wanted.
    pub(super) fn ask(&mut self) {
        let heartbeat = self.scheduler.settings().heartbeat_interval;
        let Some(id) = self.fresh_id() else {
            return;
        };
        let mut kept = KeptLink::new(id, heartbeat, self.reactor.now());
        kept.channel.begin_with(&self.handshake(&kept.client.ask()));
        self.sides.kept = Some(Box::new(kept));
        self.tell(Event::Kept);
    }

    fn fresh_id(&self) -> Option<SessionId> {
        let mut random = [0; 16];
        let is_random = self.resumes && getrandom::fill(&mut random).is_ok();
        is_random.then(|| SessionId::new(random))
    }

    fn handshake(&self, ask: &Ask) -> String {
        let role = &self.scheduler.settings().role;
        let token = role.token().map(Secret::reveal);
        own_messages::handshake(token, role.server(), Some(&ask.text()))
    }

    /// There is a connection again: says whose it was. Nothing more is sent before the verdict.
    pub(super) fn ask_again(&mut self) {
        let Some(fresh) = self.fresh_id() else {
            return self.give_up_resuming("there are no random bits");
        };
        let Some(kept) = &mut self.sides.kept else {
            return;
        };
        // Of a verdict that was cut off, a part may have come.
        kept.channel.detach();
        let ask = kept.client.ask_again(fresh, kept.channel.taken());
        kept.state = State::Verdict;
        let mut line = self.handshake(&ask).into_bytes();
        line.push(b'\n');
        if let Some(kept) = &mut self.sides.kept {
            kept.first = (line, 0);
        }
        let timers = &mut self.reactor.timers;
        let at = timers.now() + self.connect_timeout;
        self.retry.set(Some(at), Due::Retry, timers);
        self.scheduler.enqueue(self.session);
    }

    /// An attempt has failed.
    pub(super) fn try_again(&mut self) {
        if let Some(kept) = &mut self.sides.kept {
            kept.state = State::Lost;
            kept.wants_attempt = true;
        }
        self.go_on_resuming();
    }

    /// Plans the next attempt, if one is wanted.
    pub(super) fn go_on_resuming(&mut self) {
        if !self.sides.is_lost() {
            let timers = &mut self.reactor.timers;
            self.retry.clear(timers);
            self.not_resumed.clear(timers);
            return;
        }
        let Some(kept) = &mut self.sides.kept else {
            return;
        };
        if let Some(why) = kept.has_failed {
            return self.give_up_resuming(why);
        }
        if !std::mem::take(&mut kept.wants_attempt) {
            return;
        }
        let Ok(left) = kept.client.time_left(boot_time()) else {
            return self.give_up_resuming("its time is over");
        };
        let now = self.reactor.now();
        let timers = &mut self.reactor.timers;
        self.not_resumed
            .set(Some(now + left), Due::NotResumed, timers);
        let session = self.scheduler.session_mut(self.session);
        match session.and_then(|session| session.next_attempt(now)) {
            None => self.give_up_resuming("there were as many attempts as there may be"),
            Some(at) if at <= now => {
                self.retry.clear(timers);
                self.connect();
            }
            Some(at) => self.retry.set(Some(at), Due::Retry, timers),
        }
    }

    /// The time for the next attempt has come, or that for the verdict is over.
    pub(super) fn retry_due(&mut self) {
        self.retry.fired();
        match self.sides.kept.as_ref().map(|kept| kept.state) {
            Some(State::Lost) if matches!(self.sides.link, Link::Down) => self.connect(),
            Some(State::Verdict) => self.give_up_resuming("the proxy does not answer"),
            _ => {}
        }
    }

    /// The proxy has no session any more, if the clock is right that goes on while the machine sleeps.
    pub(super) fn resume_overdue(&mut self) {
        self.not_resumed.fired();
        let kept = self.sides.kept.as_ref().filter(|_| self.sides.is_lost());
        let Some(left) = kept.map(|kept| kept.client.time_left(boot_time())) else {
            return;
        };
        match left {
            Ok(left) => {
                let timers = &mut self.reactor.timers;
                let at = timers.now() + left;
                self.not_resumed.set(Some(at), Due::NotResumed, timers);
            }
            Err(_) => self.give_up_resuming("its time is over"),
        }
    }

    /// What is in flight is lost, and the session begins anew.
    fn give_up_resuming(&mut self, why: &str) {
        warn!("{}: the session is not resumed: {why}", self.address);
        if let Some(mut kept) = self.sides.kept.take() {
            let (_, memory) = self.scheduler.scratch_and_memory();
            kept.channel.release(memory);
        }
        let timers = &mut self.reactor.timers;
        self.retry.clear(timers);
        self.not_resumed.clear(timers);
        self.sides.link.bring_down(timers);
        let error = io::Error::from(ErrorKind::TimedOut);
        self.tell(Event::UpstreamEof(Some(&error)));
    }

    /// Makes a link, or takes the one that is there for a new session.
    pub(super) fn start_link(&mut self) {
        let Some(kept) = self
            .sides
            .kept
            .as_mut()
            .filter(|it| it.state == State::Fresh)
        else {
            return self.connect();
        };
        kept.state = if kept.client.is_granted() {
            State::Granted
        } else {
            State::Asked
        };
        let early = std::mem::take(&mut kept.early);
        self.tell(Event::Kept);
        self.tell(Event::UpstreamStarted { pid: None });
        if !early.is_empty() {
            self.tell(Event::UpstreamBytes(&early));
        }
    }

    /// The session has no use for its link any more. One that is for the next is not meant.
    pub(super) fn release_link(&mut self) {
        let kept = self.sides.kept.as_ref();
        if kept.is_some_and(|kept| kept.state == State::Fresh) {
            return;
        }
        if let Some(mut kept) = self.sides.kept.take() {
            let (_, memory) = self.scheduler.scratch_and_memory();
            kept.channel.release(memory);
        }
        self.sides.link.bring_down(&mut self.reactor.timers);
    }

    /// Nothing comes over the link any more.
    pub(super) fn link_is_silent(&mut self) {
        let Some(kept) = &mut self.sides.kept else {
            return;
        };
        if !kept.can_come_back() {
            self.drop_connection();
            return;
        }
        kept.state = State::Lost;
        kept.wants_attempt = true;
        kept.channel.detach();
        self.sides.link.bring_down(&mut self.reactor.timers);
        self.tell(Event::Detached);
    }

    /// At the end of the program: nobody comes back.
    pub(super) fn say_bye(&mut self) {
        let now = self.reactor.now();
        let (Some(kept), Some(link)) = (&mut self.sides.kept, self.sides.link.io_mut()) else {
            return;
        };
        if matches!(kept.state, State::Asked | State::Granted) {
            kept.channel.end_with(wire::CLIENT_BYE);
            kept.flush(usize::MAX, now, link);
            link.source_mut().end();
        }
    }
}
