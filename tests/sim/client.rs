//! A client as a random program: what it says, when it reads, how it leaves.

mod speech;

use std::collections::VecDeque;

use mcp_tcp_proxy::session::backlog::LINES_PER_RUN;

use crate::journal::{ClientSays, Comes, Journal};
use crate::outgoing::Outgoing;
use crate::rng::Rng;
use crate::stats::{Fault, Stats};
use crate::transport::{Duplex, End, arrived};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    /// Opens with `initialize`.
    Legacy,
    /// Opens with `server/discover`.
    Modern,
    /// Opens with that, and goes on with `initialize`.
    Both,
    /// Just asks.
    Abrupt,
}

/// How a client behaves.
#[derive(Debug)]
pub struct Client {
    era: Era,
    opened: bool,
    /// Nothing that it does is wrong, and it waits for what it is due.
    calm: bool,
    /// It has stopped reading.
    stalls: bool,
    /// Of 100 chances to read, this many are taken.
    reads: usize,
    crlf: bool,
    max_line: usize,
    flood: bool,
    out: Outgoing,
    said: u64,
    /// Lines that have begun to come, with where they end.
    coming: VecDeque<(u64, Comes)>,
    leaving: bool,
    /// Its last line has no line end, so nothing can follow.
    has_last_word: bool,
    pub gone: bool,
    /// It has got a heartbeat, so that there will be more.
    pub gets_heartbeats: bool,
    /// Its machine is gone without a word: it says nothing, acknowledges nothing, and no reset comes.
    pub has_vanished: bool,
    rng: Rng,
}

impl Client {
    pub fn new(calm: bool, max_line: usize, stats: &mut Stats, rng: &mut Rng) -> Self {
        let mut rng = rng.fork();
        // Where lines are long, so that both directions fill up.
        let stalls = !calm && rng.percent(if max_line > 64 * 1024 { 50 } else { 4 });
        stats.fault_if(stalls, Fault::ClientStalls);
        Self {
            era: rng.pick(&[
                Era::Legacy,
                Era::Legacy,
                Era::Modern,
                Era::Both,
                Era::Abrupt,
            ]),
            opened: false,
            calm,
            stalls,
            reads: rng.pick(&[100, 90, 50, 10]),
            crlf: rng.percent(20),
            max_line,
            flood: rng.percent(15),
            out: Outgoing::default(),
            said: 0,
            coming: VecDeque::new(),
            leaving: false,
            has_last_word: false,
            gone: false,
            gets_heartbeats: false,
            has_vanished: false,
            rng,
        }
    }

    /// Notes a line that the session has begun to send.
    pub fn expect(&mut self, end: u64, comes: Comes) {
        if !matches!(comes, Comes::Nothing) {
            self.coming.push_back((end, comes));
        }
    }

    /// One step of the program.
    pub fn act(&mut self, socket: &mut Duplex, journal: &mut Journal, stats: &mut Stats) {
        if self.gone || self.has_vanished {
            return;
        }
        self.read(socket, journal);
        let waits = self.calm && journal.unanswered() > 500;
        if !self.leaving && !waits && self.out.len() < 200_000 {
            let lines = if self.flood {
                self.rng.below(12)
            } else {
                self.rng.below(3)
            };
            for _ in 0..lines {
                self.say_something(journal, stats);
            }
        }
        self.out.write_to(&mut socket.input, &mut self.rng);
        if !self.calm {
            self.misbehave(socket, journal, stats);
        }
    }

    /// One step in which it says nothing of its own accord.
    pub fn listen(&mut self, socket: &mut Duplex, journal: &mut Journal) {
        if !self.gone && !self.has_vanished {
            self.read(socket, journal);
            self.out.write_to(&mut socket.input, &mut self.rng);
        }
    }

    /// Says it at once.
    pub fn speak_at_once(&mut self, socket: &mut Duplex) {
        while !self.out.is_empty() {
            self.out.write_to(&mut socket.input, &mut self.rng);
        }
    }

    fn misbehave(&mut self, socket: &mut Duplex, journal: &mut Journal, stats: &mut Stats) {
        match self.rng.below(1000) {
            0 | 1 => {
                stats.fault(Fault::ClientResets);
                self.gone = true;
                socket.reset();
            }
            2 | 3 => {
                stats.fault(Fault::ClientStalls);
                self.stalls = !self.stalls;
            }
            4..=7 => self.leave(socket, stats),
            8..=14 if self.gets_heartbeats => {
                stats.fault(Fault::ClientVanishes);
                self.has_vanished = true;
            }
            15..=17 if self.opened && !self.leaving => {
                stats.fault(Fault::ShortLines);
                for _ in 0..self.rng.between(LINES_PER_RUN, 3 * LINES_PER_RUN) {
                    self.notify_shortly(journal);
                }
            }
            _ => {}
        }
    }

    /// The world comes to its end: says what it has begun to say, reads, and ends its side.
    pub fn wind_up(
        &mut self,
        patient: bool,
        socket: &mut Duplex,
        journal: &mut Journal,
        stats: &mut Stats,
    ) {
        if self.gone || self.has_vanished {
            return;
        }
        if self.stalls && journal.is_connector {
            // Nobody is going to read a stdout that is not read any more.
            self.gone = true;
            socket.reset();
            return;
        }
        self.read(socket, journal);
        if !self.leaving {
            self.out.write_to(&mut socket.input, &mut self.rng);
            if !self.calm && !self.has_last_word && self.out.is_empty() && self.rng.percent(30) {
                self.has_last_word = true;
                // The last line may have no line end.
                self.request("tools/call", ClientSays::Other, journal);
                self.out.drop_line_end();
                self.out.write_to(&mut socket.input, &mut self.rng);
            }
            let waits = !self.out.is_empty() || (self.calm && journal.awaited() > 0);
            if !waits || !patient {
                self.leave(socket, stats);
            }
        }
    }

    /// Ends its side; the last line may have no line end.
    fn leave(&mut self, socket: &mut Duplex, stats: &mut Stats) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        stats.fault_if(!self.out.is_empty(), Fault::ClientLeavesMidLine);
        socket.input.end(End::Closed);
    }

    /// The session has ended its side: it reads what is there, and goes.
    pub fn sees_end(&mut self, socket: &mut Duplex) {
        if !self.has_vanished && self.rng.percent(80) {
            self.leaving = true;
            socket.input.end(End::Closed);
        }
    }

    fn read(&mut self, socket: &mut Duplex, journal: &mut Journal) {
        if self.stalls || !self.rng.percent(self.reads) {
            return;
        }
        let most = if self.rng.percent(30) {
            self.rng.below(300)
        } else {
            usize::MAX
        };
        socket.output.consume(most);
        while let Some((_, comes)) = arrived(&mut self.coming, socket.output.consumed) {
            self.react(&comes, journal);
        }
    }

    fn react(&mut self, comes: &Comes, journal: &mut Journal) {
        if self.leaving || self.has_last_word {
            return;
        }
        match comes {
            Comes::Initialized => self.say_initialized(journal),
            Comes::Request(line) if self.calm || self.rng.percent(80) => {
                self.answer(*line, journal);
            }
            Comes::Restarted if self.era == Era::Legacy && self.rng.percent(30) => {
                self.request("initialize", ClientSays::Initialize, journal);
            }
            Comes::Request(_) | Comes::Restarted | Comes::Nothing => {}
        }
    }
}
