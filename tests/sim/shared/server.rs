//! A server that many share, as a random program: it answers in any order, late, twice or never, speaks of what it was not
//! asked, and dies at any byte.

mod input;
mod speech;

use std::collections::VecDeque;
use std::io::ErrorKind;

use super::legacy::Greeting;
use mcp_tcp_proxy::session::report::Exit;

use super::lines;
use super::record::{Kind, Record, What};
use crate::outgoing::Outgoing;
use crate::processes::Process;
use crate::rng::Rng;
use crate::trace;
use crate::transport::{End, arrived};

/// What it does when it is asked what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    Modern,
    /// It says so by an error.
    OtherVersion,
    /// It knows no such question.
    Legacy,
    /// The same, and it says nothing.
    Silent,
    /// It dies of it.
    Fragile,
}

/// What comes to it.
#[derive(Debug, Clone, Copy)]
pub enum Input {
    Probe,
    Request {
        number: u64,
        key: usize,
    },
    Cancelled(u64),
    /// A request of the only client.
    Own(usize),
    /// The proxy asks it to initialise itself.
    Greeting(u64),
    /// Another request of the proxy's own.
    OfProxy(u64),
    Other,
}

#[derive(Debug)]
pub struct Server {
    pub process: Process,
    /// The number of the client whose alone it is.
    pub owner: Option<usize>,
    era: Era,
    /// Present if it has legacy clients.
    pub greeting: Option<Greeting>,
    pub calm: bool,
    pub stalls: bool,
    /// It says what it is waited for to say, and no more.
    says_no_more: bool,
    /// It was only asked what it is.
    pub is_probe: bool,
    /// It was sent anything.
    pub is_used: bool,
    max_line: usize,
    coming: VecDeque<(u64, Input)>,
    /// What it was asked and has not answered; with the keys of the requests.
    pending: Vec<(u64, usize)>,
    own: Vec<usize>,
    listens: Vec<(u64, bool)>,
    over: Vec<u64>,
    out: Outgoing,
    /// Lines that are being written, with where they end.
    saying: VecDeque<(u64, usize)>,
    said_bytes: u64,
    /// What it has asked, and nobody has answered.
    asked: Vec<usize>,
    pub rng: Rng,
}

impl AsRef<Process> for Server {
    fn as_ref(&self) -> &Process {
        &self.process
    }
}

impl AsMut<Process> for Server {
    fn as_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Server {
    pub fn new(pid: i32, era: Era, calm: bool, max_line: usize, rng: &mut Rng) -> Self {
        let mut rng = rng.fork();
        Self {
            process: Process::new(pid, &mut rng),
            owner: None,
            era,
            greeting: None,
            calm,
            stalls: !calm && rng.percent(3),
            says_no_more: false,
            is_probe: false,
            is_used: false,
            max_line,
            coming: VecDeque::new(),
            pending: Vec::new(),
            own: Vec::new(),
            listens: Vec::new(),
            over: Vec::new(),
            out: Outgoing::default(),
            saying: VecDeque::new(),
            said_bytes: 0,
            asked: Vec::new(),
            rng,
        }
    }

    /// Whether anything has come before what comes now.
    pub fn was_used(&self) -> bool {
        !self.coming.is_empty() || self.process.pipes.borrow().output.consumed > 0
    }

    pub fn act(&mut self, record: &mut Record) {
        if !self.process.is_running() || self.stalls && !self.rng.percent(2) {
            return;
        }
        self.stalls = false;
        let most = self.rng.pick(&[1, 40, 700, 70_000]);
        self.process.pipes.borrow_mut().output.consume(most);
        let consumed = self.process.pipes.borrow().output.consumed;
        while let Some((_, input)) = arrived(&mut self.coming, consumed) {
            self.handle(input, record);
        }
        // Whose it is going to be, if it waits, is not known.
        if self.is_used && self.out.len() < 200_000 && self.rng.percent(60) {
            self.speak(record);
        }
        if !self.calm && self.rng.below(1000) < 4 {
            self.misbehave(record);
        }
        self.write(record);
        if !self.process.pipes.borrow().writes && self.coming.is_empty() && self.rng.percent(50) {
            self.ends(Exit::Code(0), record);
        }
    }

    /// It does all that it was asked, and nothing else.
    pub fn behave(&mut self) {
        (self.calm, self.stalls, self.says_no_more) = (true, false, true);
    }

    fn write(&mut self, record: &mut Record) {
        if !self.process.is_running() {
            return;
        }
        let mut pipes = self.process.pipes.borrow_mut();
        self.out.write_to(&mut pipes.input, &mut self.rng);
        while self
            .saying
            .front()
            .is_some_and(|(end, _)| *end <= pipes.input.written)
        {
            let Some((_, serial)) = self.saying.pop_front() else {
                break;
            };
            record.was_said(serial);
        }
    }

    fn handle(&mut self, input: Input, record: &mut Record) {
        match input {
            Input::Probe => self.answer_probe(record),
            Input::Greeting(number) => self.answer_greeting(number, record),
            Input::OfProxy(number) => {
                let number = number.to_string();
                self.say(record, &number, What::Other, |serial| {
                    lines::response(serial, 0, 0, 0)
                });
            }
            Input::Own(key) => self.own.push(key),
            Input::Request { number, key } => {
                if record.requests[key].text.0.contains(r#""do":"kill""#) && !self.calm {
                    return self.ends(Exit::Signal(11), record);
                }
                if !matches!(record.requests[key].kind, Kind::Listen(_)) {
                    self.pending.push((number, key));
                }
            }
            // It may go on all the same.
            Input::Cancelled(number) if self.rng.percent(70) => {
                self.listens.retain(|(other, _)| *other != number);
                self.pending.retain(|(other, _)| *other != number);
                self.over.push(number);
            }
            Input::Cancelled(_) | Input::Other => {}
        }
    }

    fn misbehave(&mut self, record: &mut Record) {
        match self.rng.below(10) {
            0..=3 => {
                let exit = self
                    .rng
                    .pick(&[Exit::Code(1), Exit::Signal(9), Exit::Code(0)]);
                self.ends(exit, record);
            }
            4 => self.close_input(),
            5 => self.process.pipes.borrow_mut().input.end(End::Closed),
            6 => self.stalls = true,
            7 => self.push("this is no message"),
            _ => {}
        }
    }

    fn close_input(&self) {
        self.process
            .pipes
            .borrow_mut()
            .output
            .break_off(ErrorKind::BrokenPipe);
    }

    pub fn ends(&mut self, exit: Exit, record: &mut Record) {
        if !self.process.is_running() {
            return;
        }
        trace::note(|| format!("pid {} ends: {exit}", self.process.pid));
        self.process.exit = Some(exit);
        record.dead.insert(self.process.pid);
        let consumed = self.process.pipes.borrow().output.consumed;
        let unread = record
            .starts
            .iter()
            .filter(|((pid, _), start)| *pid == self.process.pid && **start >= consumed);
        record.unread.extend(unread.map(|(at, _)| *at));
        record.starts.retain(|(pid, _), _| *pid != self.process.pid);
        self.close_input();
        self.process.pipes.borrow_mut().input.end(End::Closed);
        self.process.stderr.borrow_mut().end(End::Closed);
    }
}
