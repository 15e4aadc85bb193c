//! A run of a session whose link may be lost and come back: moves what can be moved between the host, the session and the
//! [`KeptLink`].

use std::io::{self, ErrorKind};

use super::kept_link::{KeptLink, State};
use crate::pump::{Transport, pump_on, read_bytes};
use crate::reactor::io::Input;
use crate::resume::{ACK_BYTES, LEAST_WINDOW_BYTES};
use crate::session::{Context, Event, Session};
use crate::util::time::Time;

/// The connection below, if there is one.
pub trait Carrier: Transport {
    /// Whether our side is to end, or has, and the other one may still say something.
    fn is_half_closed(&self) -> bool;

    /// Ends our side, behind what was written.
    fn end(&mut self);

    /// Has what was written before go out, if there is room for it now.
    fn flush(&mut self) -> io::Result<()>;

    /// Has the next run look for what no event tells of. Returns whether there is such a thing.
    fn note_held_input(&mut self) -> bool;

    /// The time by a clock that goes on while the machine sleeps.
    fn boot_time(&self) -> Time;
}

/// A session's link with what carries it.
pub struct KeptRun<'a, C> {
    /// What is known of the link. It is gone once that can't come back.
    pub kept: &'a mut Option<Box<KeptLink>>,
    /// The connection. Whoever has it drops it while the link is down.
    pub carrier: &'a mut C,
}

/// The link for the pump. It is read this way only if it is a plain one.
struct LinkSide<'a, C> {
    carrier: &'a mut C,
    kept: &'a mut KeptLink,
    bound: usize,
    /// What waits for the host, in bytes.
    waiting: usize,
    now: Time,
}

impl<C: Carrier> Transport for LinkSide<'_, C> {
    fn is_readable(&self) -> bool {
        self.kept.state == State::Plain && self.carrier.is_readable()
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.carrier.read(buffer)
    }

    fn is_writable(&self) -> bool {
        self.carrier.is_writable()
            && self.kept.takes_lines()
            && self.kept.channel.has_room(self.bound)
    }

    /// An error shows once the link is read, after what was sent before.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self {
            carrier,
            kept,
            bound,
            waiting,
            now,
        } = self;
        let write = |pieces: [&[u8]; 2]| Ok(carrier.write_pair(pieces).unwrap_or(0));
        kept.channel
            .send(bytes, *bound, *waiting, *now, &mut kept.buffers, write)
    }
}

impl<C: Carrier> KeptRun<'_, C> {
    /// Moves what can be moved. Returns whether there is more to be moved although no event will tell.
    pub fn run(
        &mut self,
        session: &mut Session,
        host: &mut impl Transport,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        session.begin_run(cx);
        if let Err(error) = self.carrier.flush() {
            self.broke(Some(&error), session, cx);
        }
        self.receive(session, scratch, cx);
        // An acknowledgement can wait for lines to go along with.
        self.flush(usize::MAX, session, cx);
        let Some(kept) = self.kept.as_deref_mut() else {
            return true;
        };
        let bound = if cx.memory.has_headroom() {
            usize::MAX
        } else {
            LEAST_WINDOW_BYTES
        };
        let mut side = LinkSide {
            carrier: &mut *self.carrier,
            kept,
            bound,
            // That grows no more: all that there is was read.
            waiting: session.waiting_for_other_side(),
            now: cx.now,
        };
        let mut has_more = pump_on(session, host, &mut side, scratch, cx);
        let waiting = session.waiting_for_other_side();
        self.flush(waiting, session, cx);
        has_more |= self.goes_beyond_window(session, cx);
        let Some(kept) = self.kept.as_deref_mut() else {
            return true;
        };
        kept.channel.recharge(cx.memory);
        let waiting = session.waiting_for_other_side();
        let at = kept.channel.deadline(waiting);
        let at = at.into_iter().chain(kept.unanswered_at()).min();
        session.set_resume_deadline(at.filter(|at| *at > cx.now));
        let is_plain = kept.state == State::Plain;
        let holds_input = self.carrier.note_held_input();
        has_more |= if is_plain {
            holds_input && session.wants_upstream_output(cx.memory)
        } else {
            self.is_read(session, cx) && self.carrier.is_readable()
        };
        has_more
    }

    /// Whether what comes over the link is for anybody. What a new session says waits until it has begun here, too. And once
    /// nothing follows from here, nothing is acknowledged that would slow the proxy down: then the host does that, as on a plain
    /// link.
    fn is_read(&self, session: &Session, cx: &Context<'_>) -> bool {
        self.kept.as_deref().is_some_and(|kept| match kept.state {
            State::Verdict => true,
            State::Asked | State::Granted => {
                !kept.is_ending()
                    || session.waiting_for_other_side() <= ACK_BYTES
                    || session.wants_upstream_output(cx.memory)
            }
            State::Plain | State::Lost | State::Fresh => false,
        })
    }

    /// Reads once, if there is anything: what it brings is passed on before more is read.
    fn receive(&mut self, session: &mut Session, scratch: &mut [u8], cx: &mut Context<'_>) {
        // What has come before is handled first.
        let has_more = session.has_more_lines_of_upstream();
        if has_more || !self.is_read(session, cx) || !self.carrier.is_readable() {
            return;
        }
        let Some(kept) = self.kept.as_deref_mut() else {
            return;
        };
        let size = read_bytes(session.is_within_long_line_of_upstream());
        match self.carrier.read(&mut scratch[..size]) {
            Input::Blocked => {}
            Input::Bytes(count) => {
                kept.client.heard(self.carrier.boot_time());
                if let Err(lie) = kept.take(&scratch[..count], session, cx) {
                    let error = io::Error::new(ErrorKind::InvalidData, lie.name());
                    self.ended(Some(&error), session, cx);
                }
            }
            Input::End => self.broke(None, session, cx),
            Input::Broken(error) => self.broke(Some(&error), session, cx),
        }
    }

    fn broke(&mut self, error: Option<&io::Error>, session: &mut Session, cx: &mut Context<'_>) {
        let Some(kept) = self.kept.as_deref_mut() else {
            return;
        };
        let why = error.map_or_else(
            || "closed by the other side".to_owned(),
            ToString::to_string,
        );
        if !kept.lose(&why, session, cx) {
            self.ended(error, session, cx);
        }
    }

    /// The link is gone for good.
    fn ended(&mut self, error: Option<&io::Error>, session: &mut Session, cx: &mut Context<'_>) {
        if let Some(mut kept) = self.kept.take() {
            kept.release(cx.memory);
        }
        session.handle(Event::UpstreamEof(error), cx);
    }

    /// Writes what the channel itself has. `waiting` is what waits for the host, in bytes.
    fn flush(&mut self, waiting: usize, session: &mut Session, cx: &mut Context<'_>) {
        let Some(kept) = self.kept.as_deref_mut() else {
            return;
        };
        if let Some(line) = session.take_heartbeat() {
            kept.channel.beat(&line);
        }
        if self.carrier.is_writable() {
            kept.flush(waiting, cx.now, self.carrier);
        }
        if self.carrier.is_half_closed() && kept.channel.is_flushed() && !kept.has_ended {
            kept.has_ended = true;
            self.carrier.end();
        }
        if kept.state == State::Plain {
            kept.channel.set_window(usize::MAX);
            kept.let_go();
        }
    }

    /// A proxy that has not answered for long may know nothing of acknowledgements: lets go of a full window. Returns whether
    /// that has made room.
    fn goes_beyond_window(&mut self, session: &Session, cx: &Context<'_>) -> bool {
        let Some(kept) = self
            .kept
            .as_deref_mut()
            .filter(|it| it.is_unanswered(cx.now))
        else {
            return false;
        };
        let is_full = session.has_output_for_upstream()
            && self.carrier.is_writable()
            && kept.channel.unsent() == 0;
        if is_full {
            kept.let_go();
        }
        is_full
    }
}

impl KeptLink {
    /// Writes what this end itself has. An error shows once the link is read.
    pub fn flush(&mut self, waiting: usize, now: Time, carrier: &mut impl Transport) {
        let (first, sent) = &mut self.first;
        if *sent < first.len() {
            *sent += carrier.write(&first[*sent..]).unwrap_or(0);
        } else if self.takes_lines() && self.channel.wants_flush(waiting, now) {
            let write = |bytes: &[u8]| Ok(carrier.write(bytes).unwrap_or(0));
            let _ = self.channel.flush(waiting, now, write);
        }
    }
}
