//! A client of servers that others use, too, as a random program. It takes the same ids as all others.

use mcp_tcp_proxy::util::time::Time;

use super::legacy;
use super::lines;
use super::record::{Kind, Record};
use crate::outgoing::Outgoing;
use crate::rng::Rng;
use crate::trace;
use crate::transport::{Duplex, End, Shared, shared};

/// Ids are different values, whatever they are written as.
const IDS: [&str; 12] = [
    "0",
    "1",
    "2",
    "3",
    "-7",
    "\"1\"",
    "\"2\"",
    "1.5",
    "\"\\u00e9\"",
    "\"a\"",
    "9007199254740993",
    "\"x y\"",
];
const TOKENS: [&str; 6] = [
    "0",
    "1",
    "\"1\"",
    "\"t\\u0074\"",
    "-4",
    "123456789012345678901234567890",
];
const TOPICS: [&str; 3] = ["tools", "resources", "prompts"];

/// What is wrong in the session of a modern client, and how it is answered.
const WRONG: [(&str, &str); 9] = [
    (r#"{"id":@,"method":"initialize","params":{}}"#, "wrong_era"),
    (
        r#"{"id":@,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"a":NaN}}"#,
        "parse_error",
    ),
    (
        r#"{"id":@,"method":"x","params":{"a":"\ud800"}}"#,
        "parse_error",
    ),
    (
        r#"{"id":@,"Id":1,"method":"x","params":{}}"#,
        "invalid_request",
    ),
    (r#"{"id":@,"method":"x","params":[]}"#, "invalid_request"),
    (
        r#"{"id":@,"method":"x","params":{"_meta":{"progressToken":1.5}}}"#,
        "invalid_request",
    ),
    (r#"[{"id":@,"method":"x"}]"#, "invalid_request"),
    (
        r#"{"id":@,"method":"notifications/cancelled","params":{"requestId":1}}"#,
        "invalid_request",
    ),
    (r#"{"id":@,"method":"x","params":{}}"#, "wrong_era"),
];

/// A client waits with more once it has as many requests open.
const MOST_OPEN: usize = 12;

/// What its requests look like.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    pub is_legacy: bool,
    /// It shares servers all the same.
    pub shares: bool,
    /// Servers die of what it asks.
    pub kills: bool,
    /// It reads seldom.
    pub is_slow: bool,
    pub calm: bool,
    /// The longest line, in bytes.
    pub max_line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    /// It has ended its side, and reads.
    HalfClosed,
    Gone,
}

#[derive(Debug)]
pub struct Client {
    /// Which one it is of all that there ever were.
    pub number: usize,
    pub identity: u8,
    pub socket: Shared<Duplex>,
    pub was_accepted: bool,
    pub state: State,
    pub last_consumed: Time,
    pub habits: Habits,
    /// Cancellations, with where they end.
    cancelled: Vec<(u64, usize)>,
    pub has_begun: bool,
    out: Outgoing,
    said_bytes: u64,
    pub rng: Rng,
}

impl Client {
    pub fn new(number: usize, identity: u8, habits: Habits, now: Time, rng: &mut Rng) -> Self {
        let mut rng = rng.fork();
        let capacity = rng.pick(&[1000, 8192, 65_536]);
        Self {
            number,
            identity,
            socket: shared(Duplex::new(capacity, &mut rng)),
            was_accepted: false,
            state: State::Open,
            last_consumed: now,
            habits,
            cancelled: Vec::new(),
            has_begun: false,
            out: Outgoing::default(),
            said_bytes: 0,
            rng,
        }
    }

    /// Looks at the lines that have begun to come.
    pub fn note_output(&mut self, record: &mut Record, is_stopping: bool) {
        let begun = std::mem::take(&mut self.socket.borrow_mut().output.begun);
        for line in begun {
            let text = String::from_utf8(line.text).unwrap();
            trace::note(|| format!("client {} gets {text}", self.number));
            record.client_gets(self.number, &text, is_stopping);
        }
    }

    /// What it has taken back and the proxy has read long ago can't be answered any more.
    pub fn note_rest(&mut self, record: &mut Record) {
        let socket = self.socket.borrow();
        let waits = socket.output.unconsumed() > 0 || !socket.output.has_room();
        self.cancelled.retain(|(end, key)| {
            let is_read = *end <= socket.input.read && !waits;
            record.requests[*key].is_cancelled_for_sure |= is_read;
            !is_read
        });
    }

    pub fn act(&mut self, now: Time, record: &mut Record) {
        let reads = if self.habits.is_slow { 1 } else { 70 };
        if self.rng.percent(reads) {
            self.read(now);
        }
        if self.state != State::Open {
            return;
        }
        if self.out.is_empty() && self.rng.percent(60) {
            self.speak(record);
        }
        self.write();
        if !self.habits.calm && self.rng.below(1000) < 6 {
            self.leave(record);
        }
    }

    /// It says nothing new, and takes what comes.
    pub fn wind_up(&mut self, now: Time) {
        if self.state != State::Gone {
            self.read(now);
        }
        if self.state == State::Open {
            self.write();
        }
    }

    pub fn has_unsent(&self) -> bool {
        self.state == State::Open && !self.out.is_empty()
    }

    fn write(&mut self) {
        self.out
            .write_to(&mut self.socket.borrow_mut().input, &mut self.rng);
    }

    fn read(&mut self, now: Time) {
        let most = self.rng.pick(&[1, 100, 5000, 200_000]);
        let output = &mut self.socket.borrow_mut().output;
        let before = output.consumed;
        output.consume(most);
        if output.consumed > before {
            self.last_consumed = now;
        }
    }

    /// It leaves, with whatever is open.
    pub fn leave(&mut self, record: &mut Record) {
        record.gone.insert(self.number);
        trace::note(|| format!("client {} leaves", self.number));
        let mut socket = self.socket.borrow_mut();
        if self.rng.percent(30) {
            self.state = State::HalfClosed;
            // What it has begun to say is no message.
            *record.unnamed.entry(self.number).or_default() += 1;
            socket.input.end(End::Closed);
        } else {
            self.state = State::Gone;
            socket.reset();
        }
    }

    pub fn push(&mut self, text: &str) {
        trace::note(|| format!("client {} says {text}", self.number));
        self.said_bytes += text.len() as u64 + 1;
        self.out.push(text.as_bytes());
        self.out.push(b"\n");
    }

    fn speak(&mut self, record: &mut Record) {
        if self.habits.is_legacy && self.habits.shares {
            return self.speak_as_legacy(record);
        }
        if self.habits.is_legacy {
            return self.speak_legacy(record);
        }
        match self.rng.below(20) {
            0..=9 => self.call(record),
            10..=12 => self.listen(record),
            13..=16 => self.cancel(record),
            17 => self.say_what_nobody_is_told(),
            18 if !self.habits.calm => self.say_something_wrong(record),
            19 if !self.habits.calm => self.ask_with_an_id_in_use(record),
            _ => {}
        }
    }

    /// An id that it does not use now.
    pub fn free_id(&mut self, record: &Record) -> Option<&'static str> {
        let open = record.open_of(self.number);
        if open.len() >= MOST_OPEN {
            return None;
        }
        // What it has taken back may still be answered while it is on its way.
        let is_used = |key: &usize, id: &str| {
            let request = &record.requests[*key];
            request.id == id && !request.is_cancelled_for_sure
        };
        let is_free = |id: &&&str| !open.iter().any(|key| is_used(key, id));
        let free: Vec<&'static str> = IDS.iter().filter(is_free).copied().collect();
        (!free.is_empty()).then(|| self.rng.pick(&free))
    }

    pub fn call(&mut self, record: &mut Record) {
        if let Some(id) = self.free_id(record) {
            self.call_as(id, Kind::Call, record);
        }
    }

    fn call_as(&mut self, id: &'static str, kind: Kind, record: &mut Record) {
        self.has_begun = true;
        let token = self.rng.percent(50).then(|| self.rng.pick(&TOKENS));
        let meta = if self.habits.is_legacy {
            lines::legacy_meta(token.is_some())
        } else {
            lines::meta(token.is_some(), self.rng.percent(20), self.rng.below(4))
        };
        let pad = if self.rng.percent(10) {
            self.rng.below(self.habits.max_line - 500)
        } else {
            0
        };
        let kills = self.habits.kills && self.rng.percent(30);
        let text = lines::call(record.next_request(), &meta, kills, pad, self.rng.below(3));
        let line = record.asks(self.number, kind, id, token, text);
        self.push(&line);
    }

    fn listen(&mut self, record: &mut Record) {
        let open = record.open_of(self.number).iter();
        let listens = open.filter(|key| matches!(record.requests[**key].kind, Kind::Listen(_)));
        if listens.count() >= 4 {
            return;
        }
        let Some(id) = self.free_id(record) else {
            return;
        };
        self.has_begun = true;
        let topic = self.rng.pick(&TOPICS);
        let meta = lines::meta(false, self.rng.percent(20), self.rng.below(4));
        let text = lines::listen(record.next_request(), topic, &meta);
        let line = record.asks(self.number, Kind::Listen(topic), id, None, text);
        self.push(&line);
    }

    pub fn cancel(&mut self, record: &mut Record) {
        let open = record
            .open_of(self.number)
            .iter()
            .map(|key| &record.requests[*key]);
        let doubles = open.filter(|request| request.kind == Kind::Double);
        let doubles: Vec<&str> = doubles.map(|request| request.id).collect();
        let is_wanted = |key: &usize| {
            let request = &record.requests[*key];
            // It could mean either.
            let is_clear = !doubles.contains(&request.id);
            is_clear
                && !request.is_cancelled
                && matches!(request.kind, Kind::Call | Kind::Listen(_))
        };
        let open = record.open_of(self.number).iter().copied();
        let open: Vec<usize> = open.filter(is_wanted).collect();
        if open.is_empty() || self.habits.calm && self.rng.percent(60) {
            return;
        }
        let key = self.rng.pick(&open);
        let request = &mut record.requests[key];
        request.is_cancelled = true;
        request.expected.clear();
        let line = lines::cancelled(key).at_client(request.id, "");
        self.push(&line);
        self.cancelled.push((self.said_bytes, key));
    }

    pub fn say_what_nobody_is_told(&mut self) {
        if !self.has_begun {
            return;
        }
        let line = self.rng.pick(&[
            r#"{"jsonrpc":"2.0","id":1,"result":{"x":"no"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"no"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#,
            r#"{"method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#,
            r#"{"method":"notifications/cancelled","params":{"requestId":"unheard of"}}"#,
        ]);
        self.push(line);
    }

    pub fn say_something_wrong(&mut self, record: &mut Record) {
        if !self.has_begun {
            return;
        }
        if self.rng.percent(20) {
            let line = self.rng.pick(&[r#"{"id":null,"method":"x"}"#, "[]", "["]);
            *record.unnamed.entry(self.number).or_default() += 1;
            return self.push(line);
        }
        let Some(id) = self.free_id(record) else {
            return;
        };
        let (text, reason) = if self.habits.is_legacy {
            self.rng.pick(&legacy::WRONG)
        } else {
            // Before a server has seen anything of it, its first request may be this one.
            let mut requests = record.requests.iter();
            let is_known = requests.any(|it| it.client == self.number && it.sent_to.is_some());
            self.rng.pick(&WRONG[usize::from(!is_known)..])
        };
        let text = lines::Marked(text.replace('@', &lines::ID.to_string()));
        let line = record.asks(self.number, Kind::Flawed(reason), id, None, text);
        self.push(&line);
    }

    pub fn ask_with_an_id_in_use(&mut self, record: &mut Record) {
        let open = record.open_of(self.number).iter();
        let open: Vec<_> = open.map(|key| &record.requests[*key]).collect();
        // Of two such, nobody could tell which was refused.
        let is_doubled = |id: &str| {
            let mut doubles = open.iter().filter(|it| it.kind == Kind::Double);
            doubles.any(|it| it.id == id)
        };
        let calls = open
            .iter()
            .filter(|it| it.kind == Kind::Call && !it.is_cancelled && !is_doubled(it.id));
        let ids: Vec<&'static str> = calls.map(|request| request.id).collect();
        if !ids.is_empty() {
            let id = self.rng.pick(&ids);
            self.call_as(id, Kind::Double, record);
        }
    }

    fn speak_legacy(&mut self, record: &mut Record) {
        if record.open_of(self.number).len() >= 3 {
            return;
        }
        let Some(id) = self.free_id(record) else {
            return;
        };
        let method = if self.has_begun {
            "tools/call"
        } else {
            "initialize"
        };
        if self.has_begun || record.open_of(self.number).is_empty() {
            self.has_begun = true;
            let text = lines::legacy(record.next_request(), method);
            let line = record.asks(self.number, Kind::Legacy, id, None, text);
            self.push(&line);
        }
    }
}
