//! A server that many share, as a random program: it answers in any order, late, twice or never, speaks of what it was not
//! asked, and dies at any byte.

use std::collections::VecDeque;
use std::io::ErrorKind;

use mcp_tcp_proxy::session::report::Exit;
use serde_json::Value;

use super::lines::{self, Marked, mark};
use super::record::{Kind, Record, What};
use crate::outgoing::Outgoing;
use crate::rng::Rng;
use crate::trace;
use crate::transport::{Duplex, End, Inflow, Shared, arrived, shared};

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
enum Input {
    Probe,
    Request {
        number: u64,
        key: usize,
    },
    Cancelled(u64),
    /// A request of the only client.
    Own(usize),
    Other,
}

#[derive(Debug)]
pub struct Server {
    pub pid: i32,
    pub pipes: Shared<Duplex>,
    pub stderr: Shared<Inflow>,
    pub exit: Option<Exit>,
    pub reaped: bool,
    /// The number of the client whose alone it is.
    pub owner: Option<usize>,
    era: Era,
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

impl Server {
    pub fn new(pid: i32, era: Era, calm: bool, max_line: usize, rng: &mut Rng) -> Self {
        let mut rng = rng.fork();
        let capacity = rng.pick(&[700, 4096, 65_536]);
        Self {
            pid,
            pipes: shared(Duplex::new(capacity, &mut rng)),
            stderr: shared(Inflow::new(4096, rng.fork())),
            exit: None,
            reaped: false,
            owner: None,
            era,
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

    pub fn is_running(&self) -> bool {
        self.exit.is_none()
    }

    /// Looks at the lines that have begun to come: each has to be what some client has sent, with what must be changed.
    pub fn note_input(&mut self, record: &mut Record, in_flight: usize) {
        let begun = std::mem::take(&mut self.pipes.borrow_mut().output.begun);
        for line in begun {
            let text = String::from_utf8(line.text).unwrap();
            trace::note(|| format!("pid {} gets {text}", self.pid));
            self.is_used = true;
            let input = self.read(&text, line.end, record);
            self.coming.push_back((line.end, input));
        }
        if self.owner.is_none() {
            self.check_in_flight(record, in_flight);
        }
    }

    fn read(&mut self, text: &str, end: u64, record: &mut Record) -> Input {
        if let Some(owner) = self.owner {
            return own_input(text, owner, record);
        }
        let value: Value = serde_json::from_str(text).unwrap();
        if value["method"] == "server/discover" && mark(text, 'r').is_none() {
            assert_eq!(value["id"], 0, "{text}");
            self.is_probe = true;
            return Input::Probe;
        }
        if value["method"] == "notifications/cancelled" {
            return self.cancellation(text, &value, record);
        }
        let Some(key) = mark(text, 'r') else {
            let asked = self
                .asked
                .iter()
                .position(|serial| value["id"] == format!("a{serial}"));
            let asked = asked.unwrap_or_else(|| panic!("nobody has said this: {text}"));
            self.asked.swap_remove(asked);
            return Input::Other;
        };
        self.request(text, end, &value, key, record)
    }

    fn request(
        &mut self,
        text: &str,
        end: u64,
        value: &Value,
        key: usize,
        record: &mut Record,
    ) -> Input {
        let number = value["id"].as_u64();
        let number = number.unwrap_or_else(|| panic!("the id is not a number: {text}"));
        let request = &mut record.requests[key];
        let expected = request.text.at_server(&number.to_string());
        // Of one that comes again, a process that is gone may have read the blanks before it.
        let is_again = request.number.is_some();
        let is_same = text == expected || (is_again && text == expected.trim_start());
        assert!(
            is_same,
            "it is not the client's line with what must be changed: {text}\n{expected}"
        );
        assert!(
            !matches!(request.kind, Kind::Flawed(_) | Kind::Legacy),
            "{text}"
        );
        let is_leaving = record.gone.contains(&request.client);
        assert!(!request.is_over || is_leaving, "it has its answer: {text}");
        let before = request.number.replace(number);
        assert!(
            before.is_none_or(|before| before == number),
            "it has two numbers: {text}"
        );
        if let Some(other) = record.by_number.insert(number, key) {
            assert_eq!(other, key, "the number was used before: {text}");
            let pid = request.sent_to.unwrap_or_default();
            // It may come twice only if nobody has seen it.
            assert!(
                record.unread.remove(&(pid, number)),
                "it was read already: {text}"
            );
        }
        request.sent_to = Some(self.pid);
        let start = end - text.trim_start().len() as u64 - 1;
        record.starts.insert((self.pid, number), start);
        if let Kind::Listen(content) = request.kind {
            let is_like = |(number, _): &&(u64, bool)| {
                let other = &record.requests[record.by_number[number]];
                other.kind == Kind::Listen(content) && !other.is_told
            };
            let other = self.listens.iter().find(is_like);
            assert_eq!(other, None, "it could share one with another: {text}");
            self.listens.push((number, false));
        }
        Input::Request { number, key }
    }

    fn cancellation(&mut self, text: &str, value: &Value, record: &mut Record) -> Input {
        let number = value["params"]["requestId"].as_u64();
        let key = number.and_then(|number| record.by_number.get(&number));
        let (Some(number), Some(key)) = (number, key.copied()) else {
            panic!("nobody has asked what is taken back: {text}");
        };
        let request = &record.requests[key];
        assert_eq!(request.sent_to, Some(self.pid), "it is not here: {text}");
        assert!(!request.is_told, "it is taken back twice: {text}");
        if let Kind::Listen(content) = request.kind {
            let open = record.open.values().flatten();
            let mut others = open.map(|key| &record.requests[*key]).filter(|other| {
                other.kind == Kind::Listen(content) && other.listens_at == Some((self.pid, number))
            });
            let listens = |other: &super::record::Request| {
                !other.is_cancelled && !record.gone.contains(&other.client)
            };
            assert!(!others.any(listens), "others listen: {text}");
        } else {
            let has_left = record.gone.contains(&request.client);
            assert!(
                request.is_cancelled || has_left,
                "nobody has taken it back: {text}"
            );
        }
        if let Some(by) = mark(text, 'r') {
            let by = &record.requests[by];
            let expected = lines::cancelled(mark(text, 'r').unwrap_or_default());
            assert_eq!(text, expected.at_server(&number.to_string()));
            let is_same =
                by.kind == request.kind && (by.kind != Kind::Call || by.number == Some(number));
            assert!(is_same, "another was taken back: {text}");
        }
        record.requests[key].is_told = true;
        Input::Cancelled(number)
    }

    /// Once all that was written for it has come, it was told of all that was taken back.
    pub fn check_told(&self, record: &Record) {
        let pipes = self.pipes.borrow();
        let is_idle = self.coming.is_empty() && pipes.writes && pipes.output.has_room();
        for (number, key) in self.pending.iter().filter(|_| is_idle) {
            let request = &record.requests[*key];
            let is_untold = request.is_cancelled_for_sure && !request.is_told;
            assert!(
                !is_untold,
                "pid {} was not told that nobody waits for {number}",
                self.pid
            );
        }
    }

    /// No client has more at a process than it may.
    fn check_in_flight(&self, record: &Record, most: usize) {
        let mut counts = std::collections::HashMap::new();
        let coming = self.coming.iter().filter_map(|(_, input)| match input {
            Input::Request { key, .. } => Some(*key),
            _ => None,
        });
        for key in self.pending.iter().map(|(_, key)| *key).chain(coming) {
            let request = &record.requests[key];
            if request.kind == Kind::Call && !request.is_cancelled {
                let count: &mut usize = counts.entry(request.client).or_default();
                *count += 1;
                assert!(
                    *count <= most,
                    "client {} has more in flight than it may",
                    request.client
                );
            }
        }
    }

    pub fn act(&mut self, record: &mut Record) {
        if !self.is_running() || self.stalls && !self.rng.percent(2) {
            return;
        }
        self.stalls = false;
        let most = self.rng.pick(&[1, 40, 700, 70_000]);
        self.pipes.borrow_mut().output.consume(most);
        let consumed = self.pipes.borrow().output.consumed;
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
        if !self.pipes.borrow().writes && self.coming.is_empty() && self.rng.percent(50) {
            self.ends(Exit::Code(0), record);
        }
    }

    /// It does all that it was asked, and nothing else.
    pub fn behave(&mut self) {
        (self.calm, self.stalls, self.says_no_more) = (true, false, true);
    }

    fn write(&mut self, record: &mut Record) {
        if !self.is_running() {
            return;
        }
        let mut pipes = self.pipes.borrow_mut();
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
            Input::Own(key) => self.own.push(key),
            Input::Request { number, key } => {
                if record.requests[key].text.0.contains(r#""do":"kill""#) && !self.calm {
                    return self.ends(Exit::Signal(11), record);
                }
                if record.requests[key].kind == Kind::Call
                    || record.requests[key].kind == Kind::Double
                {
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

    fn answer_probe(&mut self, record: &mut Record) {
        let text = match self.era {
            Era::Modern => r#"{"id":0,"result":{"supportedVersions":["2026-07-28"]}}"#,
            Era::OtherVersion => {
                r#"{"id":"0","error":{"code":-32022,"data":{"supported":["2026-07-28"]}}}"#
            }
            Era::Legacy => r#"{"id":0,"error":{"code":-32601,"message":"no"}}"#,
            Era::Silent => return,
            Era::Fragile => return self.ends(Exit::Code(1), record),
        };
        self.push(text);
    }

    fn push(&mut self, text: &str) {
        trace::note(|| format!("pid {} says {text}", self.pid));
        self.said_bytes += text.len() as u64 + 1;
        self.out.push(text.as_bytes());
        self.out.push(b"\n");
    }

    fn say(
        &mut self,
        record: &mut Record,
        number: &str,
        what: What,
        text: impl FnOnce(usize) -> Marked,
    ) {
        let text = text(record.said.len());
        let at_server = text.at_server(number);
        let serial = record.says(self.pid, text, what);
        self.push(&at_server);
        self.saying.push_back((self.said_bytes, serial));
    }

    fn speak(&mut self, record: &mut Record) {
        if self.owner.is_some() {
            return self.speak_to_owner(record);
        }
        match self.rng.below(10) {
            0..=4 => self.answer(record),
            6 if self.says_no_more => self.acknowledge(record),
            _ if self.says_no_more => {}
            5 => self.report_progress(record),
            6 | 7 => self.speak_to_listeners(record),
            8 if !self.calm => self.speak_out_of_turn(record),
            9 if !self.calm && self.rng.percent(20) => self.end_something(record),
            _ => {}
        }
    }

    fn speak_to_owner(&mut self, record: &mut Record) {
        if self.own.is_empty() {
            return;
        }
        let at = self.rng.below(self.own.len());
        let key = self.own.swap_remove(at);
        let serial = record.said.len();
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{{"protocolVersion":"2025-06-18","capabilities":{{}},"serial":"s{serial}."}}}}"#,
            record.requests[key].id
        );
        self.say(record, "", What::Own(key), |_| Marked(text));
    }

    fn answer(&mut self, record: &mut Record) {
        if self.pending.is_empty() {
            return;
        }
        let at = self.rng.below(self.pending.len());
        let (number, _) = self.pending.swap_remove(at);
        self.respond(number, record);
        self.over.push(number);
        if self.over.len() > 30 {
            self.over.swap_remove(0);
        }
    }

    fn respond(&mut self, number: u64, record: &mut Record) {
        let order = self.rng.below(4);
        let pad = if self.rng.percent(10) {
            self.rng.below(self.max_line - 300)
        } else {
            0
        };
        let is_long = !self.calm && self.rng.percent(2);
        let (what, pad) = if is_long {
            (What::TooLong(number), self.max_line + 100)
        } else {
            (What::Response(number), pad)
        };
        let is_error = !is_long && self.rng.percent(5);
        let number_text = lines::written(number, self.rng.below(8));
        self.say(record, &number_text, what, |serial| {
            if is_error {
                lines::error_response(serial)
            } else {
                lines::response(serial, number, pad, order)
            }
        });
    }

    fn report_progress(&mut self, record: &mut Record) {
        let known = if self.over.is_empty() || self.calm || self.rng.percent(80) {
            self.pending.iter().map(|(number, _)| *number).collect()
        } else {
            self.over.clone()
        };
        if known.is_empty() {
            return;
        }
        let number = self.rng.pick(&known);
        let has_token = record.requests[record.by_number[&number]].token.is_some();
        if self.calm && !has_token {
            return;
        }
        let text = lines::written(number, self.rng.below(8));
        self.say(record, &text, What::Progress(number), lines::progress);
    }

    fn speak_to_listeners(&mut self, record: &mut Record) {
        if self.listens.is_empty() {
            return;
        }
        let at = self.rng.below(self.listens.len());
        let (number, was_acknowledged) = self.listens[at];
        self.listens[at].1 = true;
        let text = lines::written(number, self.rng.below(8));
        if was_acknowledged {
            let event = |serial| lines::event(serial, lines::CHANGED);
            self.say(record, &text, What::Event(number), event);
        } else {
            let event = |serial| lines::event(serial, lines::ACKNOWLEDGED);
            self.say(record, &text, What::Acknowledgment(number), event);
        }
    }

    fn acknowledge(&mut self, record: &mut Record) {
        if self
            .listens
            .iter()
            .any(|(_, was_acknowledged)| !was_acknowledged)
        {
            self.speak_to_listeners(record);
        }
    }

    /// It ends a listen, or gives up a request.
    fn end_something(&mut self, record: &mut Record) {
        let is_listen = !self.listens.is_empty() && self.rng.percent(50);
        if is_listen {
            let at = self.rng.below(self.listens.len());
            let (number, _) = self.listens.swap_remove(at);
            let text = lines::written(number, self.rng.below(8));
            self.say(record, &text, What::Response(number), lines::closed);
        } else if !self.pending.is_empty() {
            let at = self.rng.below(self.pending.len());
            let (number, _) = self.pending.swap_remove(at);
            self.say(
                record,
                &number.to_string(),
                What::GivesUp(number),
                lines::given_up,
            );
            self.over.push(number);
        }
    }

    /// What a server that has many clients can say to none of them.
    fn speak_out_of_turn(&mut self, record: &mut Record) {
        let serial = record.said.len();
        let (some, number) = (self.over.first().copied(), self.rng.below(2000) as u64);
        match self.rng.below(8) {
            // What it has said already.
            0 | 1 => {
                if let Some(number) = some {
                    self.respond(number, record);
                }
            }
            2 => self.say(record, "null", What::Other, |serial| lines::response(serial, 0, 0, 0)),
            3 => {
                let number = 1 << 40 | number;
                self.say(record, &number.to_string(), What::Response(number), |serial| lines::response(serial, 0, 0, 1));
            }
            4 => self.say(record, "", What::Other, |serial| Marked(format!(r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{"x":"s{serial}."}}}}"#))),
            5 => self.say(record, "", What::Other, |serial| Marked(format!(r#"{{"method":"notifications/message","params":{{"level":"debug","data":"s{serial}."}}}}"#))),
            6 => {
                let pending = self.pending.first().map_or(number, |(number, _)| *number);
                self.say(record, &pending.to_string(), What::Other, |serial| Marked(format!(r#"{{"id":{},"result":"s{serial}.","Id":{}}}"#, lines::ID, lines::ID)));
            }
            _ => {
                let method = self.rng.pick(&["ping", "sampling/createMessage", "roots/list"]);
                self.asked.push(serial);
                self.say(record, "", What::Other, |serial| Marked(format!(r#"{{"id":"a{serial}","method":"{method}","params":{{"x":"s{serial}."}}}}"#)));
            }
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
            5 => self.pipes.borrow_mut().input.end(End::Closed),
            6 => self.stalls = true,
            7 => self.push("this is no message"),
            _ => {}
        }
    }

    fn close_input(&self) {
        self.pipes
            .borrow_mut()
            .output
            .break_off(ErrorKind::BrokenPipe);
    }

    pub fn ends(&mut self, exit: Exit, record: &mut Record) {
        if !self.is_running() {
            return;
        }
        trace::note(|| format!("pid {} ends: {exit}", self.pid));
        self.exit = Some(exit);
        record.dead.insert(self.pid);
        let consumed = self.pipes.borrow().output.consumed;
        let unread = record
            .starts
            .iter()
            .filter(|((pid, _), start)| *pid == self.pid && **start >= consumed);
        record.unread.extend(unread.map(|(at, _)| *at));
        record.starts.retain(|(pid, _), _| *pid != self.pid);
        self.close_input();
        self.pipes.borrow_mut().input.end(End::Closed);
        self.stderr.borrow_mut().end(End::Closed);
    }
}

/// A server that has one client gets its lines as they are.
fn own_input(text: &str, owner: usize, record: &Record) -> Input {
    // What is wrong with a line is for such a server to say, and this one does not.
    let Some(key) = mark(text, 'r').filter(|_| !text.contains("notifications/")) else {
        return Input::Other;
    };
    let request = &record.requests[key];
    assert_eq!(request.client, owner, "it is another's: {text}");
    let token = request.token.unwrap_or_default();
    assert_eq!(text, request.text.at_client(request.id, token));
    Input::Own(key)
}
