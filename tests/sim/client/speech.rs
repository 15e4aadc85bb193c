//! What a client says: requests and notifications, answers to what servers ask, and what nobody accepts.

use super::{Client, Era};
use crate::journal::{ClientSays, Journal, ServerSays};
use crate::stats::{Fault, Stats};
use crate::text;

impl Client {
    pub(super) fn say_something(&mut self, journal: &mut Journal, stats: &mut Stats) {
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

    /// Is going to say this before all else, for the entrance: a header, and the first line.
    pub fn introduce(&mut self, header: &[u8], token: Option<&str>, journal: &mut Journal) {
        self.out.push(header);
        self.said = header.len() as u64;
        if let Some(token) = token {
            let serial = journal.lines.len();
            let text = format!(r#"{{"n":{serial},"type":"handshake","token":"{token}"}}"#);
            self.say(text, ClientSays::Control, Vec::new(), journal);
        }
    }

    /// One of the shortest lines that there are.
    pub(super) fn notify_shortly(&mut self, journal: &mut Journal) {
        let text = format!(r#"{{"n":{},"method":"m"}}"#, journal.lines.len());
        self.say(text, ClientSays::Other, Vec::new(), journal);
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
        self.out.push(&text);
        self.out.push(line_end);
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

    pub(super) fn request(&mut self, method: &str, what: ClientSays, journal: &mut Journal) {
        let (serial, id) = (journal.lines.len(), self.new_id(journal));
        // Little is kept of what may be sent again.
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

    pub(super) fn say_initialized(&mut self, journal: &mut Journal) {
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
            ClientSays::AboutLink
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
    pub(super) fn answer(&mut self, line: usize, journal: &mut Journal) {
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
