//! The program that a session is for: behind a `connect`, or a client that knows nothing of resuming. It knows of every line
//! what it may be.

use std::collections::{HashMap, HashSet};

use crate::outgoing::Outgoing;
use crate::rng::Rng;
use crate::text::{self, MODERN, OwnError};
use crate::trace;
use crate::transport::{Duplex, End, Shared, shared};

/// What it does.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Lines may get lost, as the world is such that sessions end.
    pub may_lose: bool,
    /// Its session may end before it does, with what nobody has read.
    pub may_be_left: bool,
    /// It knows nothing of resuming, and nothing comes between it and the proxy.
    pub is_plain: bool,
    /// It does not read while it has something to write.
    pub writes_first: bool,
    /// It opens with a handshake, which must not be said again.
    pub is_legacy: bool,
    /// It seldom reads.
    pub is_slow: bool,
    /// As many requests are open.
    pub window: usize,
    /// It asks for responses, and sends lines, of up to this many bytes.
    pub longest: usize,
}

#[derive(Debug)]
pub struct Host {
    pub number: usize,
    pub duplex: Shared<Duplex>,
    pub habits: Habits,
    out: Outgoing,
    /// How many lines it has said.
    pub said: u64,
    /// What it has asked, and nobody has answered.
    open: HashSet<u64>,
    /// What it was asked, and has not answered.
    questions: Vec<u64>,
    /// What has come of a line.
    begun: Vec<u8>,
    /// The server that speaks, and how many lines it has said.
    pid: Option<i32>,
    heard: u64,
    /// What servers have read.
    read: HashSet<u64>,
    /// Where each of them is.
    servers: HashMap<i32, u64>,
    /// What it was told that no server has seen.
    unseen: HashSet<u64>,
    pub has_ended: bool,
    /// Its session is over.
    pub is_gone: bool,
    /// Its `connect` had no more time for what was still to be said or heard.
    is_cut_off: bool,
    pub answered: u64,
    pub lost: u64,
    rng: Rng,
}

impl Host {
    pub fn new(number: usize, habits: Habits, rng: &mut Rng) -> Self {
        let mut rng = rng.fork();
        let capacity = rng.pick(&[500, 4096, 65_536]);
        Self {
            number,
            duplex: shared(Duplex::new(capacity, &mut rng)),
            habits,
            out: Outgoing::default(),
            said: 0,
            open: HashSet::new(),
            questions: Vec::new(),
            begun: Vec::new(),
            pid: None,
            heard: 0,
            read: HashSet::new(),
            servers: HashMap::new(),
            unseen: HashSet::new(),
            has_ended: false,
            is_gone: false,
            is_cut_off: false,
            answered: 0,
            lost: 0,
            rng,
        }
    }

    fn length(&mut self) -> usize {
        match self.rng.below(100) {
            0 => self.rng.below(self.habits.longest),
            1..=10 => self.rng.below(self.habits.longest.min(5000)),
            _ => self.rng.below(80),
        }
    }

    fn say(&mut self, text: &str) {
        trace::note(|| format!("host {} says {}", self.number, text::show(text.as_bytes())));
        self.out.push(text.as_bytes());
        self.out.push(b"\n");
        self.said += 1;
    }

    /// Says something new.
    pub fn speak(&mut self) {
        if self.has_ended || self.out.len() > 1 << 22 {
            return;
        }
        let (host, serial) = (self.number, self.said);
        if self.habits.is_legacy && serial < 2 {
            return self.greet();
        }
        if let Some(question) = self.questions.pop() {
            return self.say(&format!(
                r#"{{"jsonrpc":"2.0","id":"q{question}","result":{{"n":{serial},"h":{host}}}}}"#
            ));
        }
        let length = self.length();
        let pad = text::looks_like_ours('x', length, &mut self.rng);
        if self.open.len() >= self.habits.window || self.rng.percent(20) {
            return self.say(&format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/x","params":{{"n":{serial},"h":{host},"x":{pad}}}}}"#
            ));
        }
        let size = self.length();
        let meta = if self.habits.is_legacy {
            String::new()
        } else {
            format!(",{MODERN}")
        };
        self.open.insert(serial);
        self.say(&format!(
            r#"{{"jsonrpc":"2.0","id":{serial},"method":"m","params":{{"n":{serial},"h":{host},"size":{size},"x":{pad}{meta}}}}}"#
        ));
    }

    /// Says what is next of its handshake, if it is its turn.
    fn greet(&mut self) {
        let (host, serial) = (self.number, self.said);
        if serial == 0 {
            self.open.insert(serial);
            self.say(&format!(
                r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"n":0,"h":{host},"size":0,"protocolVersion":"2025-06-18"}}}}"#
            ));
        } else if self.open.is_empty() {
            self.say(&format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/initialized","params":{{"n":{serial},"h":{host}}}}}"#
            ));
        }
    }

    /// Writes, reads, or both.
    pub fn act(&mut self) {
        if self.rng.percent(70) {
            self.write();
        }
        let reads = if self.habits.is_slow { 3 } else { 70 };
        if (!self.habits.writes_first || self.out.is_empty()) && self.rng.percent(reads) {
            let most = self.rng.pick(&[10, 300, 100_000, usize::MAX]);
            self.read_some(most);
        }
    }

    pub fn write(&mut self) {
        self.out
            .write_to(&mut self.duplex.borrow_mut().input, &mut self.rng);
    }

    pub fn read_some(&mut self, most: usize) {
        let bytes: Vec<u8> = {
            let mut duplex = self.duplex.borrow_mut();
            duplex.output.begun.clear();
            duplex.output.take(most).collect()
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if self.begun.ends_with(b"\n") {
                let line = std::mem::take(&mut self.begun);
                self.hear(&line[..line.len() - 1]);
            }
        }
    }

    fn hear(&mut self, line: &[u8]) {
        let shown = text::show(line);
        trace::note(|| format!("host {} hears {shown}", self.number));
        let Some(serial) = text::serial(line, text::SERVER_SERIAL) else {
            return self.hear_of_proxy(line);
        };
        let pid = text::serial(line, br#""pid":"#).unwrap();
        let pid = i32::try_from(pid).unwrap();
        if self.pid.replace(pid) != Some(pid) {
            assert!(
                self.heard == 0 || self.habits.may_lose,
                "host {}: it is another server: {shown}",
                self.number
            );
            self.heard = 0;
        }
        assert_eq!(
            serial as u64, self.heard,
            "host {}: a line is missing, comes twice or out of order: {shown}",
            self.number
        );
        self.heard += 1;
        if let Some(question) = text::serial(line, br#""id":"q"#) {
            self.questions.push(question as u64);
        } else if let Some(id) = text::serial(line, br#""id":"#) {
            let is_open = self.open.remove(&(id as u64));
            assert!(
                is_open,
                "host {}: it is answered twice: {shown}",
                self.number
            );
            self.answered += 1;
        }
    }

    /// A line that no server has said.
    fn hear_of_proxy(&mut self, line: &[u8]) {
        let shown = text::show(line);
        assert!(
            self.habits.may_lose,
            "host {}: this is of no server: {shown}",
            self.number
        );
        if let Some(error) = OwnError::read(line) {
            let id: Option<u64> = error.id.parse().ok();
            self.check_delivered(id, &error.delivered);
            let is_open = id.is_none_or(|id| self.open.remove(&id));
            assert!(
                is_open,
                "host {}: it is answered twice: {shown}",
                self.number
            );
            self.lost += 1;
            return;
        }
        let is_notice = [
            "$/mcp/serverRestarted",
            "notifications/cancelled",
            "list_changed",
        ];
        assert!(
            is_notice.iter().any(|what| shown.contains(what)),
            "host {}: nobody says this: {shown}",
            self.number
        );
        if shown.contains("notifications/cancelled") {
            self.questions.clear();
        }
    }

    /// Whoever is told that no server has seen a request may send it again.
    fn check_delivered(&mut self, id: Option<u64>, delivered: &str) {
        let Some(id) = id.filter(|_| delivered == "false") else {
            return;
        };
        assert!(
            !self.read.contains(&id),
            "host {}: a server has read request {id}",
            self.number
        );
        self.unseen.insert(id);
    }

    /// A server has read a whole line.
    pub fn was_read(&mut self, line: &[u8], pid: i32) {
        let serial = text::serial(line, text::CLIENT_SERIAL).unwrap() as u64;
        let next = self.servers.entry(pid).or_default();
        // A server of a session that was given up may read on.
        let is_next = serial == *next || (self.habits.may_lose && serial > *next);
        assert!(
            is_next && self.read.insert(serial),
            "host {}: the server has read {next} lines, and now comes {}",
            self.number,
            text::show(line)
        );
        *next = serial + 1;
        assert!(
            !self.unseen.contains(&serial),
            "host {} was told that no server has seen this: {}",
            self.number,
            text::show(line)
        );
        assert!(
            self.habits.may_lose || self.servers.len() == 1,
            "host {} has another server",
            self.number
        );
    }

    /// Says nothing more.
    pub fn end(&mut self) {
        if !self.has_ended && self.out.is_empty() {
            trace::note(|| format!("host {} ends its side", self.number));
            self.has_ended = true;
            self.duplex.borrow_mut().input.end(End::Closed);
        }
    }

    pub fn waits(&self) -> bool {
        !self.open.is_empty()
    }

    /// After its end, everything has some time, and what is not said or heard then is lost.
    pub fn cut_off(&mut self) {
        trace::note(|| format!("host {} is cut off", self.number));
        assert!(
            self.has_ended && self.habits.may_lose,
            "host {}: everything had time to arrive",
            self.number
        );
        self.is_cut_off = true;
    }

    /// What has to hold once its session is over.
    pub fn check_end(&mut self) {
        self.read_some(usize::MAX);
        if self.is_cut_off || self.habits.may_be_left {
            return;
        }
        assert!(
            self.habits.may_lose || self.begun.is_empty(),
            "half a line is left"
        );
        assert!(
            self.open.is_empty(),
            "host {}: not answered: {:?}",
            self.number,
            self.open
        );
    }

    /// Whether all has come to its end. What the proxy has taken may get to the server later than the end of the session here.
    pub fn is_done(&self) -> bool {
        self.is_gone && (self.habits.may_lose || self.read.len() as u64 == self.said)
    }
}
