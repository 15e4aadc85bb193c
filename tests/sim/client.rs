//! A client as a random program: what it says, when it reads, how it leaves.

use std::collections::VecDeque;

use crate::journal::{ClientSays, Comes, Journal, ServerSays};
use crate::rng::Rng;
use crate::stats::{Fault, Stats};
use crate::text;
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
    /// It reads nothing any more.
    stalls: bool,
    /// Of 100 chances to read, so many are taken.
    reads: usize,
    crlf: bool,
    max_line: usize,
    flood: bool,
    /// What it is going to say, and what of it was sent.
    out: Vec<u8>,
    head: usize,
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
            out: Vec::new(),
            head: 0,
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
        self.send(socket);
        if !self.calm {
            self.misbehave(socket, stats);
        }
    }

    /// Is going to say this before all else, for the entrance: a header, and the first line.
    pub fn introduce(&mut self, header: &[u8], token: Option<&str>, journal: &mut Journal) {
        self.out.extend_from_slice(header);
        self.said = header.len() as u64;
        if let Some(token) = token {
            let serial = journal.lines.len();
            let text = format!(r#"{{"n":{serial},"type":"handshake","token":"{token}"}}"#);
            self.say(text, ClientSays::Control, Vec::new(), journal);
        }
    }

    /// Says it at once.
    pub fn speak_at_once(&mut self, socket: &mut Duplex) {
        while self.head < self.out.len() {
            self.send(socket);
            if self.out.is_empty() {
                return;
            }
        }
    }

    fn misbehave(&mut self, socket: &mut Duplex, stats: &mut Stats) {
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
            self.send(socket);
            if !self.calm && !self.has_last_word && self.out.is_empty() && self.rng.percent(30) {
                self.has_last_word = true;
                // The last line may have no line end.
                self.request("tools/call", ClientSays::Other, journal);
                self.out.pop();
                self.send(socket);
            }
            let waits = self.head < self.out.len() || (self.calm && journal.awaited() > 0);
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
        stats.fault_if(self.head < self.out.len(), Fault::ClientLeavesMidLine);
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

    fn send(&mut self, socket: &mut Duplex) {
        let waiting = self.out.len() - self.head;
        if waiting == 0 {
            return;
        }
        let most = if self.rng.percent(40) {
            self.rng.between(1, waiting)
        } else {
            waiting
        };
        self.head += socket.input.write(&self.out[self.head..self.head + most]);
        if self.head == self.out.len() {
            self.out.clear();
            self.head = 0;
        }
    }

    fn say_something(&mut self, journal: &mut Journal, stats: &mut Stats) {
        if !std::mem::replace(&mut self.opened, true) {
            let is_first = journal.lines.is_empty() && !journal.is_connector;
            if !self.calm && is_first && self.rng.percent(5) {
                stats.fault(Fault::OtherProtocol);
                return self.other_protocol(journal);
            }
            match self.era {
                Era::Legacy => {
                    self.request("initialize", ClientSays::Initialize, journal);
                    if self.rng.percent(20) {
                        self.say_initialized(journal);
                    }
                    return;
                }
                Era::Both => {
                    self.request("server/discover", ClientSays::Discover, journal);
                    if self.rng.percent(50) {
                        self.request("initialize", ClientSays::Initialize, journal);
                    }
                    return;
                }
                Era::Modern => {
                    return self.request("server/discover", ClientSays::Discover, journal);
                }
                Era::Abrupt => {}
            }
        }
        match self.rng.below(100) {
            0..=54 => {
                let method =
                    self.rng
                        .pick(&["tools/call", "tools\\/list", "ping", "resources/read"]);
                self.request(method, ClientSays::Other, journal);
            }
            55..=66 => self.notify(journal),
            67..=72 => self.batch(journal),
            73..=77 => self.control(journal),
            78..=81 => self.cancel(journal),
            82..=84 => self.blank(journal),
            85..=86 => self.request("server/discover", ClientSays::Discover, journal),
            87..=92 => {
                stats.bad_lines += 1;
                self.invalid(journal);
            }
            93..=96 => {
                stats.bad_lines += 1;
                self.too_long(journal);
            }
            97 => self.stray_answer(journal),
            98 => self.request("subscriptions/listen", ClientSays::Listen, journal),
            99 => {
                let methods = ["resources/subscribe", "logging/setLevel"];
                let method = self.rng.pick(&methods);
                self.request(method, ClientSays::SetsUp, journal);
            }
            _ => {}
        }
    }

    fn say(
        &mut self,
        text: impl Into<Vec<u8>>,
        what: ClientSays,
        ids: Vec<String>,
        journal: &mut Journal,
    ) {
        let text = text.into();
        let line_end: &[u8] = if self.crlf && self.rng.percent(50) {
            b"\r\n"
        } else {
            b"\n"
        };
        self.out.extend_from_slice(&text);
        self.out.extend_from_slice(line_end);
        let text_end = self.said + text.len() as u64;
        self.said = text_end + line_end.len() as u64;
        let line = journal.client_says(text, what, ids);
        journal.lines[line].text_end = text_end;
        journal.lines[line].end = self.said;
    }

    fn new_id(&mut self, journal: &Journal) -> String {
        text::id(journal.requests.len() + 1, &mut self.rng)
    }

    /// Parameters of a random length, far from and close to the limit.
    fn params(&mut self) -> String {
        let len = match self.rng.below(20) {
            0..=14 => self.rng.below(60),
            15..=18 => self.rng.below(400),
            _ => self.rng.below(self.max_line - 250),
        };
        let meta = if self.era == Era::Modern {
            text::MODERN.len()
        } else {
            0
        };
        let len = len.min(self.max_line - 250 - meta);
        let constant = if self.rng.percent(3) { "NaN" } else { "1" };
        let padding = text::padding(len, &mut self.rng);
        format!(r#"{{"method":"initialize","id":3,"x":{constant},"pad":"{padding}"}}"#)
    }

    fn request(&mut self, method: &str, what: ClientSays, journal: &mut Journal) {
        let (serial, id) = (journal.lines.len(), self.new_id(journal));
        // Of what may be sent again, only so much is kept.
        let params = if what == ClientSays::Other {
            self.params()
        } else if what == ClientSays::SetsUp {
            format!(r#"{{"uri":"a:/{}"}}"#, self.rng.below(5))
        } else {
            "{}".into()
        };
        let is_modern = matches!(what, ClientSays::Other | ClientSays::Listen);
        let params = if self.era == Era::Modern && is_modern {
            let comma = if params == "{}" { "" } else { "," };
            params.replacen('{', &format!("{{{}{comma}", text::MODERN), 1)
        } else {
            params
        };
        let text = if self.rng.percent(50) {
            format!(
                r#"{{"n":{serial},"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#
            )
        } else {
            format!(
                r#"  {{ "jsonrpc":"2.0", "method":"{method}","params":{params},"n":{serial}, "id":{id}}}"#
            )
        };
        self.say(text, what, vec![id], journal);
    }

    fn say_initialized(&mut self, journal: &mut Journal) {
        let serial = journal.lines.len();
        let text =
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/initialized","n":{serial}}}"#);
        self.say(text, ClientSays::Initialized, Vec::new(), journal);
    }

    fn notify(&mut self, journal: &mut Journal) {
        let (serial, params) = (journal.lines.len(), self.params());
        let text = format!(
            r#"{{"n":{serial},"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#
        );
        self.say(text, ClientSays::Other, Vec::new(), journal);
    }

    fn batch(&mut self, journal: &mut Journal) {
        let serial = journal.lines.len();
        let room = self.max_line.saturating_sub(200) / 80;
        let most = if !self.calm && self.rng.percent(10) {
            1500
        } else {
            5
        };
        let count = self.rng.below(room.min(most) + 1);
        let first = journal.requests.len() + 1;
        let ids: Vec<String> = (0..count)
            .map(|nth| text::id(first + nth, &mut self.rng))
            .collect();
        let mut text = format!(r#"[{{"n":{serial},"method":"notifications/progress"}}"#);
        for id in &ids {
            text.extend([r#",{"id":"#, id, r#","method":"m"}"#]);
        }
        text.push(']');
        self.say(text, ClientSays::Other, ids, journal);
    }

    fn control(&mut self, journal: &mut Journal) {
        let serial = journal.lines.len();
        let kind = self
            .rng
            .pick(&["heartbeat", "handshake", "heart\\u0062eat"]);
        let replay = self.rng.pick(&["", r#","replay":"eager""#]);
        let text = format!(r#"{{"n":{serial},"type":"{kind}"{replay}}}"#);
        let what = if journal.is_connector {
            ClientSays::Other
        } else {
            ClientSays::Control
        };
        self.say(text, what, Vec::new(), journal);
    }

    fn cancel(&mut self, journal: &mut Journal) {
        let count = journal.requests.len();
        if self.calm || count == 0 {
            return;
        }
        let at = self.rng.between(count.saturating_sub(5), count - 1);
        let request = &mut journal.requests[at];
        request.cancelled = true;
        let id = text::respelt(&request.id, &mut self.rng);
        let serial = journal.lines.len();
        let text = format!(
            r#"{{"n":{serial},"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
        );
        self.say(text, ClientSays::Cancel(at), Vec::new(), journal);
    }

    /// What it says then is what a web page would have a browser say: anything.
    fn other_protocol(&mut self, journal: &mut Journal) {
        let text: &[u8] = self.rng.pick(&[
            b"POST / HTTP/1.1".as_slice(),
            b"\r\n\r\nGET /?a={} HTTP/1.0\r\nHost: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
            b"SSH-2.0-x",
        ]);
        self.say(text, ClientSays::OtherProtocol, Vec::new(), journal);
    }

    fn blank(&mut self, journal: &mut Journal) {
        let text = self.rng.pick(&["", "  ", "\t \t"]);
        self.say(text, ClientSays::Blank, Vec::new(), journal);
    }

    fn invalid(&mut self, journal: &mut Journal) {
        let text: &[u8] = self.rng.pick(&[
            b"hello".as_slice(),
            b"{\"n\":0,\"id\":1",
            b"{\"method\":\"m\",\"id\":1]",
            b"{\"method\":\"\xff\xfe\",\"id\":1}",
            b"42",
            b"\"text\"",
            b"null",
            b"[1,2",
            b"\x00",
        ]);
        self.say(text, ClientSays::Invalid, Vec::new(), journal);
    }

    fn too_long(&mut self, journal: &mut Journal) {
        let (serial, id) = (journal.lines.len(), self.new_id(journal));
        let more = if self.rng.percent(20) {
            3 * self.max_line
        } else {
            self.rng.below(50)
        };
        let padding = "y".repeat(self.max_line + 1 + more);
        match self.rng.below(4) {
            0 => {
                let text =
                    format!(r#"{{"n":{serial},"id":{id},"method":"m","params":"{padding}"}}"#);
                self.say(text, ClientSays::TooLong, vec![id], journal);
            }
            1 => {
                let text =
                    format!(r#"{{"n":{serial},"method":"m","params":["{padding}"],"id": {id} }}"#);
                self.say(text, ClientSays::TooLong, vec![id], journal);
            }
            2 => self.say(padding, ClientSays::TooLong, Vec::new(), journal),
            _ if self.max_line > 1200 => {
                let id = "z".repeat(1025);
                let text = format!(r#"{{"n":{serial},"id":"{id}","method":"m"}}"#);
                self.say(text, ClientSays::TooLong, Vec::new(), journal);
            }
            _ => {}
        }
    }

    /// Answers what a server has asked.
    fn answer(&mut self, line: usize, journal: &mut Journal) {
        let ServerSays::Request(id) = &journal.said[line].what else {
            return;
        };
        let serial = journal.lines.len();
        let text = format!(r#"{{"n":{serial},"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        self.say(text, ClientSays::Answer(line), Vec::new(), journal);
    }

    fn stray_answer(&mut self, journal: &mut Journal) {
        let serial = journal.lines.len();
        let text = format!(r#"{{"n":{serial},"jsonrpc":"2.0","id":"nobody","result":{{}}}}"#);
        self.say(text, ClientSays::StrayAnswer, Vec::new(), journal);
    }
}
