//! What is between the two programs: connections that carry bytes in order, in pieces, as late as they like, and are cut
//! anywhere.

use std::time::Duration;

use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::util::time::Time;

use super::talk::Talk;
use crate::rng::Rng;
use crate::text;
use crate::trace;
use crate::transport::{Duplex, End, Events, Shared, shared};

/// Which of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Connector,
    Proxy,
}

/// One connection: what each program writes lies with the other one's once it has arrived.
#[derive(Debug)]
pub struct Connection {
    pub number: usize,
    pub host: usize,
    pub connector: Shared<Duplex>,
    pub proxy: Shared<Duplex>,
    /// Since then nothing arrives any more. The ends learn of it one after the other, or never.
    pub cut_at: Option<Time>,
    /// The session at the proxy that has it.
    pub session: Option<SessionKey>,
    /// When something last arrived at the proxy.
    heard_at: Time,
    /// It is to be cut after so many bytes in this direction.
    pub cut_after: Option<(Side, usize)>,
    pub talk: Talk,
    /// Which ends could not write all that they had.
    was_blocked: [bool; 2],
    /// Which ends have learnt of it.
    told: [bool; 2],
    /// Which ends have seen the end of the other's side.
    ended: [bool; 2],
    rng: Rng,
}

impl Connection {
    pub fn new(number: usize, host: usize, now: Time, rng: &mut Rng) -> Self {
        let capacity = rng.pick(&[300, 4096, 65_536, 1 << 20]);
        let mut end = || shared(Duplex::new(capacity, rng));
        Self {
            number,
            host,
            connector: end(),
            proxy: end(),
            cut_at: None,
            session: None,
            heard_at: now,
            cut_after: None,
            talk: Talk::new(number),
            was_blocked: [false; 2],
            told: [false; 2],
            ended: [false; 2],
            rng: rng.fork(),
        }
    }

    fn ends(&self, to: Side) -> (&Shared<Duplex>, &Shared<Duplex>) {
        match to {
            Side::Connector => (&self.proxy, &self.connector),
            Side::Proxy => (&self.connector, &self.proxy),
        }
    }

    /// Up to `most` bytes arrive, and what follows them.
    pub fn arrive(&mut self, to: Side, most: usize, now: Time) {
        if self.cut_at.is_some() {
            return;
        }
        let left = match self.cut_after {
            Some((side, left)) if side == to => left,
            _ => usize::MAX,
        };
        let (from, into) = self.ends(to);
        let (mut source, mut target) = (from.borrow_mut(), into.borrow_mut());
        let is_gone = !target.reads;
        let room = if is_gone {
            usize::MAX
        } else {
            target.input.room()
        };
        let room = room.min(most).min(left);
        let bytes: Vec<u8> = source.output.take(room).collect();
        let has_ended = !source.writes && source.output.unconsumed() == 0;
        let still_listens = source.reads;
        if is_gone {
            // Whoever writes to one that is gone is told so.
            if !bytes.is_empty() && source.reads {
                source.reset();
            }
        } else {
            target.input.write(&bytes);
        }
        let has_arrived = !bytes.is_empty();
        let has_more = source.output.unconsumed() > 0;
        drop((source, target));
        if has_arrived {
            self.note_arrived(to, &bytes, now);
        }
        if let Some((side, left)) = &mut self.cut_after
            && *side == to
        {
            *left -= bytes.len();
            if *left == 0 && has_more {
                return self.cut(now);
            }
        }
        if has_ended && !std::mem::replace(&mut self.ended[to as usize], true) && !is_gone {
            if still_listens {
                self.talk.check_end(to);
            }
            let (_, into) = self.ends(to);
            into.borrow_mut().input.end(End::Closed);
        }
    }

    fn note_arrived(&mut self, to: Side, bytes: &[u8], now: Time) {
        if to == Side::Proxy {
            self.heard_at = now;
        }
        self.talk.note(to, bytes);
    }

    /// If this end has acknowledged something since it was last asked: how much it has read behind that, in bytes. What could
    /// not be written then may have waited, and is not asked for.
    pub fn take_acknowledged(&mut self, of: Side) -> Option<u64> {
        let (end, begin) = match of {
            Side::Connector => (&self.connector, br#"{"type":"heartbeat""#.as_slice()),
            Side::Proxy => (&self.proxy, br#"{"type":"ack""#.as_slice()),
        };
        let end = &mut *end.borrow_mut();
        let is_blocked = end.output.is_blocked();
        let may_be_late = std::mem::replace(&mut self.was_blocked[of as usize], is_blocked);
        let lines = std::mem::take(&mut end.output.begun);
        let texts = lines.iter().map(|line| &line.text);
        let mut acks = texts.filter(|text| text.starts_with(begin));
        let acked = acks.find_map(|text| text::serial(text, br#""lines":"#));
        let acked = acked.filter(|_| !may_be_late)?;
        let end_of = self.talk.end_of(of, acked as u64)?;
        Some(end.input.read.saturating_sub(end_of))
    }

    /// The proxy has kept a session alive of which nothing has come for this long.
    pub fn check_heard(&self, now: Time, patience: Duration) {
        let proxy = self.proxy.borrow();
        // What was not read has not been heard either, and after the end of a side nothing more is expected.
        let is_kept = self.talk.is_granted() && proxy.reads && proxy.input.end.is_none();
        assert!(
            !is_kept || now < self.heard_at + patience,
            "connection {} is kept although nothing comes over it",
            self.number
        );
    }

    pub fn make_roomy(&self) {
        self.connector.borrow_mut().make_roomy();
        self.proxy.borrow_mut().make_roomy();
    }

    /// All arrives for which there is room.
    pub fn flow(&mut self, now: Time) {
        for to in [Side::Connector, Side::Proxy] {
            self.arrive(to, usize::MAX, now);
        }
    }

    pub fn cut(&mut self, now: Time) {
        trace::note(|| format!("connection {} is cut", self.number));
        self.cut_at = Some(now);
    }

    /// One end learns that the connection is no more. What had arrived may still be read, or not.
    pub fn tell_of_cut(&mut self, side: Side) {
        if self.cut_at.is_none() || std::mem::replace(&mut self.told[side as usize], true) {
            return;
        }
        trace::note(|| format!("connection {} is no more for the {side:?}", self.number));
        let is_reset = self.rng.percent(50);
        let (_, end) = self.ends(side);
        let mut end = end.borrow_mut();
        if is_reset {
            end.reset();
        } else {
            // As a machine on the way does that closes both connections when one of them breaks.
            end.input.end(End::Closed);
        }
    }

    /// Neither program has it any more.
    pub fn is_over(&self) -> bool {
        [&self.connector, &self.proxy].iter().all(|end| {
            let end = end.borrow();
            !end.reads && !end.writes
        })
    }

    pub fn notify(&self, side: Side, events: &mut Events) {
        let (_, end) = self.ends(side);
        end.borrow_mut().notify(events);
    }
}
