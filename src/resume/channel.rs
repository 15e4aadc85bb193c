//! One end of a session that outlives its connections.

use std::io;

use serde::{Deserialize, Serialize};

use super::NO_ACK_TIME;
use super::acks::{Acks, Place};
use super::control::Control;
use super::intake::Intake;
pub use super::intake::Piece;
use super::kept::{Kept, whole_lines};
use super::wire::{self, Side};
use crate::buffers::budget::{BufferBudget, UNCHARGED_BYTES};
use crate::util::time::Time;

/// The other end says what can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// It breaks the protocol.
    Protocol,
    /// It takes lines, and never acknowledges them.
    NoAck,
}

impl Lie {
    /// The reason in a `bye`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Protocol => "protocol_error",
            Self::NoAck => "no_ack",
        }
    }
}

/// One end. An idle one is small.
#[derive(Debug, Serialize, Deserialize)]
pub struct Channel {
    kept: Kept,
    intake: Intake,
    acks: Acks,
    control: Option<Box<Control>>,
    /// How much may be sent without an acknowledgement, and may come without one, in bytes.
    window: u32,
    /// How much of the shared memory it is charged for, in bytes.
    #[serde(skip)]
    charged: u32,
    /// How many lines the next acknowledgement is for, besides those that the other end was told of; none if that is not due.
    #[serde(default)]
    owed: u32,
    side: Side,
    is_detached: bool,
    /// Whether the other end takes no acknowledgements.
    is_unheard: bool,
}

impl Channel {
    /// An end on this side, with a connection, over which nothing has passed yet.
    pub fn new(side: Side, window: usize) -> Self {
        Self {
            kept: Kept::default(),
            intake: Intake::default(),
            acks: Acks::default(),
            control: None,
            window: bytes(window),
            charged: 0,
            owed: 0,
            side,
            is_detached: false,
            is_unheard: false,
        }
    }

    /// The other end has said how much it takes.
    pub fn set_window(&mut self, window: usize) {
        self.window = bytes(window);
    }

    /// How much may be sent without an acknowledgement, in bytes.
    pub fn window(&self) -> usize {
        self.window as usize
    }

    /// Whether there is no connection.
    pub fn is_detached(&self) -> bool {
        self.is_detached
    }

    /// How many lines were taken of the other end.
    pub fn taken(&self) -> u64 {
        self.intake.taken()
    }

    /// What is kept.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Whether a line of the other end is under way.
    pub fn has_begun(&self) -> bool {
        self.intake.has_begun()
    }

    /// Whether a counted line has passed either way.
    pub fn is_used(&self) -> bool {
        self.taken() > 0 || self.kept.acked() > 0 || !self.kept.is_empty()
    }

    // What comes in.

    /// Takes the next part of what came from the front of `input`; `None` when all is taken.
    pub fn next<'a>(&mut self, input: &mut &'a [u8], now: Time) -> Option<Result<Piece<'a>, Lie>> {
        let before = self.taken();
        let piece = self.intake.next(input, self.side.other())?;
        let count = match &piece {
            Piece::Lines(lines) => lines.len(),
            Piece::Joined(line) => line.len(),
            Piece::Control(..) => 0,
        };
        if count > 0 {
            let (lines, window) = (self.taken() - before, self.window());
            self.acks.taken(count, lines, window, now);
        }
        // Whoever has said that nothing follows acknowledges nothing any more, and is sent the rest all the same.
        let is_bound = !self.is_ending();
        Some(if is_bound && self.acks.is_beyond(self.window()) {
            Err(Lie::Protocol)
        } else {
            Ok(piece)
        })
    }

    /// The other end says that it has taken this many lines.
    pub fn acknowledged(
        &mut self,
        lines: Option<u64>,
        now: Time,
        memory: &mut BufferBudget,
    ) -> Result<(), Lie> {
        let lines = lines.ok_or(Lie::Protocol)?;
        let before = self.kept.acked();
        if !self.kept.acknowledge(lines, memory) {
            return Err(Lie::Protocol);
        }
        let Some(control) = &mut self.control else {
            return Ok(());
        };
        if self.kept.acked() > before {
            control.full_since = None;
        }
        match control.full_since {
            Some(since) if since + NO_ACK_TIME <= now => Err(Lie::NoAck),
            _ => Ok(()),
        }
    }

    // What goes out.

    /// Queues the line with which this end begins on a connection.
    pub fn begin_with(&mut self, line: &str) {
        self.control_mut().begin(line);
    }

    fn control_mut(&mut self) -> &mut Control {
        self.control.get_or_insert_default()
    }

    /// Queues a heartbeat, which takes the place of one that waits.
    pub fn beat(&mut self, line: &str) {
        if !self.is_detached {
            self.control_mut().heartbeat = Some(line.into());
        }
    }

    /// Nothing follows but this line.
    pub fn end_with(&mut self, bye: &str) {
        self.control_mut().bye.get_or_insert(bye.into());
    }

    /// Whether the end was announced.
    pub fn is_ending(&self) -> bool {
        let control = self.control.as_ref();
        control.is_some_and(|control| control.bye.is_some())
    }

    /// Whether the last line waits.
    fn owes_bye(&self) -> bool {
        let control = self.control.as_ref();
        control.is_some_and(|control| control.bye.is_some() && !control.is_bye_sent)
    }

    fn owes_heartbeat(&self) -> bool {
        let control = self.control.as_ref();
        control.is_some_and(|control| control.heartbeat.is_some())
    }

    /// Whether all is written, the last line too, if the end was announced.
    pub fn is_flushed(&self) -> bool {
        !self.owes_bye() && !self.is_detached && self.unsent() == 0
    }

    /// How much is to be written before the session's next line, in bytes.
    pub fn unsent(&self) -> usize {
        let control = self.control.as_ref();
        let control = control.map_or(0, |control| control.out.len() - control.out_sent);
        self.kept.unsent_len() + control
    }

    /// Whether [`Self::send`] may take something. At most `bound` bytes are kept.
    pub fn has_room(&self, bound: usize) -> bool {
        let is_within = self.kept.len() < bound.min(self.window()) && !self.is_full();
        let is_within = self.kept.is_empty() || is_within;
        !self.is_detached && is_within && self.unsent() == 0
    }

    /// Whether the next line has found no room, and there was no acknowledgement since.
    fn is_full(&self) -> bool {
        let control = self.control.as_ref();
        control.is_some_and(|control| control.full_since.is_some())
    }

    /// Writes of these lines, whole ones, what the window allows, and an acknowledgement before them if one is ripe. Returns
    /// how much is now kept: the rest of a line that was written in part, too. `waiting` is what waits for the other side of
    /// the session. `write` writes one behind the other, or a part of that.
    pub fn send(
        &mut self,
        lines: &[u8],
        bound: usize,
        waiting: usize,
        now: Time,
        memory: &mut BufferBudget,
        write: impl FnMut([&[u8]; 2]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if !self.has_room(bound) {
            return Ok(0);
        }
        let bound = bound.min(self.window());
        let room = bound.saturating_sub(self.kept.len());
        let allowed = whole_lines(lines, room, self.kept.is_empty());
        if allowed == 0 {
            self.control_mut().full_since.get_or_insert(now);
            return Ok(0);
        }
        if let Some(waiting) = self.heard(waiting) {
            self.owe(self.acks.ripe(waiting, self.window(), now));
        }
        let written = self.write_with_control(&lines[..allowed], now, write)?;
        if written == 0 {
            return Ok(0);
        }
        let end = memchr::memchr(b'\n', &lines[written - 1..allowed]);
        let taken = end.map_or(allowed, |end| written + end);
        self.kept.push(&lines[..taken], written, memory);
        if self.kept.len() >= bound {
            self.control_mut().full_since.get_or_insert(now);
        }
        Ok(taken)
    }

    /// Writes these lines, a heartbeat or an acknowledgement before them if one waits. Returns how much of the lines.
    fn write_with_control(
        &mut self,
        lines: &[u8],
        now: Time,
        mut write: impl FnMut([&[u8]; 2]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.put_news_between(now);
        let control = self.control.as_deref_mut().filter(|it| it.has_begun());
        let Some(control) = control else {
            return write([lines, &[]]);
        };
        let first = control.out.len() - control.out_sent;
        let written = write([&control.out[control.out_sent..], lines])?;
        control.written(written.min(first));
        self.control.take_if(|control| control.is_idle());
        match written.checked_sub(first) {
            // Not every connection takes two at once.
            Some(0) => write([lines, &[]]),
            of_lines => Ok(of_lines.unwrap_or(0)),
        }
    }

    /// Keeps lines, whole ones, that can't be written now.
    pub fn keep(&mut self, lines: &[u8], memory: &mut BufferBudget) {
        self.kept.push(lines, 0, memory);
    }

    /// Whether [`Self::flush`] has something to write. `waiting` is what waits for the other side of the session.
    pub fn wants_flush(&self, waiting: usize, now: Time) -> bool {
        !self.is_detached
            && (self.unsent() > 0
                || self.owes_heartbeat()
                || self.due_ack(waiting, now).is_some()
                || self.owes_bye())
    }

    /// Writes what this end itself has: control lines, and lines that go once more over a new connection. Returns whether
    /// anything was written.
    pub fn flush(
        &mut self,
        waiting: usize,
        now: Time,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let mut has_written = false;
        if self.is_detached {
            return Ok(false);
        }
        self.owe(self.due_ack(waiting, now));
        loop {
            self.put_control_between(now);
            let control = self.control.as_deref().filter(|it| it.has_begun());
            let next = match control {
                Some(control) => &control.out[control.out_sent..],
                None => self.kept_part(),
            };
            let is_control = control.is_some();
            let count = if next.is_empty() { 0 } else { write(next)? };
            if count == 0 {
                break;
            }
            has_written = true;
            if is_control {
                self.control_mut().written(count);
            } else {
                self.kept.written(count);
            }
        }
        self.control.take_if(|control| control.is_idle());
        Ok(has_written)
    }

    /// Begins the next control line, if one waits and can go now.
    fn put_control_between(&mut self, now: Time) {
        let is_free = self.control.as_ref().is_none_or(|it| !it.has_begun());
        if !is_free || !self.kept.is_between_lines() {
            return;
        }
        let has_news = self.put_news_between(now);
        if !has_news && self.kept.unsent().is_empty() && self.owes_bye() {
            let control = self.control_mut();
            control.is_bye_sent = true;
            if let Some(bye) = control.bye.clone() {
                control.begin(&bye);
            }
        }
    }

    /// Begins the next control line that others may follow, between lines. Returns whether there is one.
    fn put_news_between(&mut self, now: Time) -> bool {
        let heartbeat = self.control.as_mut().and_then(|it| it.heartbeat.take());
        if let Some(line) = heartbeat {
            self.control_mut().begin(&line);
        } else if self.owed > 0 {
            self.acks.told_of(self.owed, self.window(), now);
            self.owed = 0;
            let line = wire::ack(self.side, self.taken() - self.acks.untold());
            self.control_mut().begin(&line);
        } else {
            return false;
        }
        true
    }

    /// What is unsent of the kept lines, up to the next line end if a control line waits.
    fn kept_part(&self) -> &[u8] {
        let unsent = self.kept.unsent();
        if !self.owes_heartbeat() && self.owed == 0 {
            return unsent;
        }
        memchr::memchr(b'\n', unsent).map_or(unsent, |end| &unsent[..=end])
    }

    fn due_ack(&self, waiting: usize, now: Time) -> Option<Place> {
        self.acks.due(self.heard(waiting)?, self.window(), now)
    }

    /// Has an acknowledgement go up to this place.
    fn owe(&mut self, place: Option<Place>) {
        if let Some(place) = place {
            self.owed = place.lines();
        }
    }

    /// What waits, unless acknowledgements are not heard.
    fn heard(&self, waiting: usize) -> Option<usize> {
        (!self.is_unheard).then_some(waiting)
    }

    // What happens to connections.

    /// The connection is gone.
    pub fn detach(&mut self) {
        self.is_detached = true;
        self.intake.reset();
        self.owed = 0;
        let bye = self.control.take().and_then(|control| control.bye);
        if let Some(bye) = bye {
            self.end_with(&bye);
        }
    }

    /// There is another connection, and the other end has taken this many lines, not fewer than it said before. It is told
    /// of those that were taken here by whoever calls this.
    pub fn attach(&mut self, lines: Option<u64>, memory: &mut BufferBudget) -> Result<(), Lie> {
        let lines = lines.ok_or(Lie::Protocol)?;
        if lines < self.kept.acked() || !self.kept.acknowledge(lines, memory) {
            return Err(Lie::Protocol);
        }
        self.detach();
        self.kept.rewind();
        self.acks.told();
        self.is_detached = false;
        Ok(())
    }

    /// The other end knows nothing of all this: nothing is kept for it, and what comes is not counted. Returns what has come
    /// of a line that is not finished, and was not passed on.
    pub fn give_up(&mut self, memory: &mut BufferBudget) -> Vec<u8> {
        self.is_unheard = true;
        self.let_go(memory);
        self.intake.take_begun()
    }

    /// Lets go of lines that were written. What was written in part still goes on. Returns how many lines were ever sent, if
    /// it did.
    pub fn let_go(&mut self, memory: &mut BufferBudget) -> Option<u64> {
        let total = self.kept.total();
        let is_sent = self.kept.unsent().is_empty();
        is_sent.then(|| {
            self.kept.acknowledge(total, memory);
            if let Some(control) = &mut self.control {
                control.full_since = None;
            }
            total
        })
    }

    /// When something is due. `waiting` is what waits for the other side of the session.
    pub fn deadline(&self, waiting: usize) -> Option<Time> {
        let waiting = self.heard(waiting).filter(|_| !self.is_detached)?;
        self.acks.deadline(waiting)
    }

    // Memory.

    /// What is kept beyond what any buffer may hold, in bytes.
    pub fn charge(&self) -> usize {
        self.charged as usize
    }

    /// Charges the shared memory for what is kept.
    pub fn recharge(&mut self, memory: &mut BufferBudget) {
        let charge = bytes(self.kept.capacity().saturating_sub(UNCHARGED_BYTES));
        if charge != self.charged {
            memory.recharge(self.charge(), charge as usize);
            self.charged = charge;
        }
    }

    /// Gives the memory back. Call it before the channel is dropped.
    pub fn release(&mut self, memory: &mut BufferBudget) {
        memory.recharge(self.charge(), 0);
        self.charged = 0;
    }
}

/// No line is as long as this can say.
fn bytes(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
