//! What is between the two programs: connections that carry bytes in order, in pieces, as late as they like, and are cut
//! anywhere.

use crate::rng::Rng;
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
    /// Nothing arrives any more. The ends learn of it one after the other, or never.
    pub is_cut: bool,
    /// Which ends have learnt of it.
    told: [bool; 2],
    /// Which ends have seen the end of the other's side.
    ended: [bool; 2],
    rng: Rng,
}

impl Connection {
    pub fn new(number: usize, host: usize, rng: &mut Rng) -> Self {
        let capacity = rng.pick(&[300, 4096, 65_536, 1 << 20]);
        let mut end = || shared(Duplex::new(capacity, rng));
        Self {
            number,
            host,
            connector: end(),
            proxy: end(),
            is_cut: false,
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
    pub fn arrive(&mut self, to: Side, most: usize) {
        if self.is_cut {
            return;
        }
        let (from, into) = self.ends(to);
        let (mut source, mut target) = (from.borrow_mut(), into.borrow_mut());
        source.output.begun.clear();
        let room = target.input.room().min(most);
        let is_gone = !target.reads;
        let bytes: Vec<u8> = source.output.take(room).collect();
        let has_ended = !source.writes && source.output.unconsumed() == 0;
        if is_gone {
            // Whoever writes to one that is gone is told so.
            if !bytes.is_empty() && source.reads {
                source.reset();
            }
        } else {
            target.input.write(&bytes);
        }
        drop((source, target));
        if has_ended && !std::mem::replace(&mut self.ended[to as usize], true) && !is_gone {
            let (_, into) = self.ends(to);
            into.borrow_mut().input.end(End::Closed);
        }
    }

    /// All arrives for which there is room.
    pub fn flow(&mut self) {
        for to in [Side::Connector, Side::Proxy] {
            self.arrive(to, usize::MAX);
        }
    }

    pub fn cut(&mut self) {
        trace::note(|| format!("connection {} is cut", self.number));
        self.is_cut = true;
    }

    /// One end learns that the connection is no more. What had arrived may still be read, or not.
    pub fn tell_of_cut(&mut self, side: Side) {
        if !self.is_cut || std::mem::replace(&mut self.told[side as usize], true) {
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
