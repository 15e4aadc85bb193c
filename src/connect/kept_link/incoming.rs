//! What comes over a link that may come back: lines for the session, and what the proxy says of the link itself.

use log::{debug, info, warn};

use super::{KeptLink, State};
use crate::protocol::envelope::{Control, Envelope, Message};
use crate::resume::intake::MAX_CONTROL_BYTES;
use crate::resume::wire::{self, FromProxy, Side};
use crate::resume::{Channel, Lie, Piece, WINDOW_BYTES};
use crate::session::{Context, Event, Session};

impl KeptLink {
    /// Passes on what came, and does what its control lines say.
    pub(in crate::connect) fn take(
        &mut self,
        mut input: &[u8],
        session: &mut Session,
        cx: &mut Context<'_>,
    ) -> Result<(), Lie> {
        while !input.is_empty() {
            match self.state {
                State::Plain => {
                    session.handle(Event::UpstreamBytes(input), cx);
                    return Ok(());
                }
                // Nothing more that comes over it is for us.
                State::Lost => return Ok(()),
                State::Verdict => {
                    self.take_verdict(&mut input, session, cx)?;
                    continue;
                }
                // Another protocol may never end its first line.
                State::Asked if !self.channel.has_begun() && !begins_with_object(input) => {
                    self.lines(input, session, cx);
                    return Ok(());
                }
                State::Asked | State::Granted | State::Fresh => {}
            }
            match self.channel.next(&mut input, cx.now).transpose()? {
                Some(Piece::Lines(lines)) => self.lines(lines, session, cx),
                Some(Piece::Joined(line)) => self.lines(&line, session, cx),
                Some(Piece::Control(control, line)) => {
                    self.control(control, line, session, cx)?;
                }
                // Part of a line is a sign of life, too.
                None => session.handle(Event::UpstreamBytes(&[]), cx),
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
            State::Verdict | State::Lost => {}
        }
    }

    /// The proxy knows nothing of this.
    fn become_plain(&mut self, session: &mut Session, cx: &mut Context<'_>) {
        debug!("the proxy keeps no session whose connection is lost");
        self.state = State::Plain;
        session.handle(Event::NotKept, cx);
    }

    /// Takes the next line, as far as it has come, of a proxy that is to say whether the session goes on.
    fn take_verdict(
        &mut self,
        input: &mut &[u8],
        session: &mut Session,
        cx: &mut Context<'_>,
    ) -> Result<(), Lie> {
        let end = memchr::memchr(b'\n', input);
        let (line, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
        *input = rest;
        self.verdict.extend_from_slice(line);
        let is_whole = end.is_some();
        let is_one = begins_with_object(&self.verdict) && self.verdict.len() <= MAX_CONTROL_BYTES;
        if !is_whole && is_one {
            return Ok(());
        }
        let mut line = std::mem::take(&mut self.verdict);
        if is_whole {
            line.pop();
        }
        match wire::control(&line, Side::Proxy) {
            Some(control) => self.control(control, line, session, cx)?,
            None if line.trim_ascii().is_empty() => {}
            None => self.note_other_verdict(&line),
        }
        Ok(())
    }

    /// Something came in the place of a verdict. A proxy that has no room, or is being stopped, may have another answer later.
    fn note_other_verdict(&mut self, line: &[u8]) {
        let is_refusal = Message::read(line).is_ok_and(|message| {
            let mut envelopes = message.envelopes().iter();
            envelopes.any(Envelope::is_proxy_error)
        });
        if !is_refusal {
            self.has_failed = Some("the proxy knows nothing of it");
        }
        self.try_again();
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
                self.heard = self.heard.max(lines.unwrap_or(0));
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
        if self.is_ending() {
            // A new one is of no use.
            self.has_failed = Some("it has ended there, too");
            return self.try_again();
        }
        warn!("{peer}: the session could not be resumed ({reason}); there is a new one");
        let known = lines.is_some_and(|lines| {
            let attached = self.channel.attach(Some(lines), &mut self.buffers);
            attached.is_ok()
        });
        let mut old =
            std::mem::replace(&mut self.channel, Channel::new(Side::Client, WINDOW_BYTES));
        self.state = State::Fresh;
        self.client.not_resumed();
        (self.heard, self.forgotten, self.asked_at) = (0, 0, cx.now);
        let untaken = known.then(|| old.kept().all());
        let untaken = untaken.as_deref();
        session.handle(Event::NotResumed { untaken }, cx);
        old.release(cx.memory);
    }
}

/// Whether it may be the beginning of one of our lines, or what follows it.
fn begins_with_object(input: &[u8]) -> bool {
    matches!(input.trim_ascii_start().first(), None | Some(b'{'))
}
