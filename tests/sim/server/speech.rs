//! What a server says: answers, what nobody asked for, and what is not a message.

use mcp_tcp_proxy::session::backlog::LINES_PER_RUN;

use super::{Job, Kind, Probe, Replay, Server};
use crate::journal::{ClientSays, Journal, ServerLine, ServerSays, Swap};
use crate::stats::{Fault, Stats};
use crate::text;

impl Server {
    pub(super) fn say(&mut self, text: Vec<u8>, what: ServerSays, journal: &mut Journal) {
        self.out.push(&text);
        self.out.push(b"\n");
        let end = self.said + text.len() as u64;
        self.said = end + 1;
        journal.server_says(self.index, text, end, what);
    }

    pub(super) fn answer(&mut self, request: usize, journal: &mut Journal) {
        if !self.manners.calm && self.rng.percent(2) {
            // It never answers.
            return;
        }
        if self.manners.probe == Probe::Ignores && journal.is_probe(request) {
            return;
        }
        let serial = journal.said.len();
        let id = text::respelt(&journal.requests[request].id, &mut self.rng);
        let what = journal.lines[journal.requests[request].line].what;
        if self.rng.percent(3) && what == ClientSays::Other {
            let padding = "y".repeat(self.max_line + self.rng.below(100));
            let text =
                format!(r#"{{"m":{serial},"jsonrpc":"2.0","result":"{padding}","id":{id}}}"#);
            return self.say(text.into(), ServerSays::TooLong(Some(request)), journal);
        }
        let is_error = self.rng.percent(10) && what != ClientSays::Initialize;
        let outcome = match what {
            ClientSays::Initialize => {
                journal.initialize_answered();
                let version = self.version;
                format!(
                    r#""result":{{"protocolVersion":"2025-06-18","capabilities":{{"tools":{{"listChanged":true}}}},"serverInfo":{{"version":"{version}"}}}}"#
                )
            }
            _ if is_error => r#""error":{"code":-32601,"message":"no"}"#.to_owned(),
            _ => format!(r#""result":{{"id":1,"pad":"{}"}}"#, self.padding(5)),
        };
        let text = match self.rng.below(4) {
            0 => format!(r#"{{"m":{serial},"id":{id},{outcome}}}"#),
            1 => format!("{{\"m\":{serial},\"jsonrpc\":\"2.0\",{outcome},\"id\":{id}}}\r"),
            2 if what == ClientSays::Other => {
                format!(r#"[{{"m":{serial},"jsonrpc":"2.0","id":{id},{outcome}}}]"#)
            }
            _ => format!(r#" {{"m":{serial}, "jsonrpc":"2.0","id" : {id},{outcome}}}"#),
        };
        self.say(text.into(), ServerSays::Answer(request), journal);
    }

    pub(super) fn answer_replay(&mut self, id: &str, journal: &mut Journal, stats: &mut Stats) {
        stats.fault_if(self.manners.replay != Replay::Agrees, Fault::ReplayRefused);
        let serial = journal.said.len();
        let record = &mut journal.servers[self.index];
        let is_free = matches!(record.swap, Swap::Beside | Swap::InPlace);
        let is_fit = is_free && self.manners.replay == Replay::Differs;
        let agrees = matches!(self.manners.replay, Replay::Agrees | Replay::Never);
        record.replay_differs = !agrees && !is_fit;
        journal.has_other_capabilities |= is_fit;
        record.replay_responded = self.manners.replay != Replay::Never;
        let outcome = match self.manners.replay {
            Replay::Never => return,
            Replay::Agrees => {
                let version = self.version;
                format!(
                    r#""result":{{"serverInfo":{{"version":"{version}"}},"capabilities":{{ "tools":{{"listChanged":true}}}},"protocolVersion":"2025-06-18"}}"#
                )
            }
            Replay::Differs => {
                r#""result":{"capabilities":{},"protocolVersion":"2025-06-18"}"#.to_owned()
            }
            Replay::Refuses => r#""error":{"code":1,"message":"no"}"#.to_owned(),
            Replay::TooLong => format!(r#""result":"{}""#, "y".repeat(self.max_line)),
        };
        let text = format!(r#"{{"m":{serial},"jsonrpc":"2.0","id":{id},{outcome}}}"#);
        self.say(text.into(), ServerSays::Swallowed, journal);
    }

    pub(super) fn answer_question(&mut self, id: &str, journal: &mut Journal) {
        let serial = journal.said.len();
        let outcome = match self.manners.replay {
            Replay::Never => return,
            Replay::Agrees => r#""result":{"supportedVersions":["2026-07-28"]}"#.to_owned(),
            Replay::Differs => r#""result":{"supportedVersions":["2027-01-01"]}"#.to_owned(),
            Replay::Refuses => r#""error":{"code":1,"message":"no"}"#.to_owned(),
            Replay::TooLong => format!(r#""result":"{}""#, "y".repeat(self.max_line)),
        };
        journal.servers[self.index].replay_differs = self.manners.replay != Replay::Agrees;
        let text = format!(r#"{{"m":{serial},"jsonrpc":"2.0","id":{id},{outcome}}}"#);
        self.say(text.into(), ServerSays::Swallowed, journal);
    }

    pub(super) fn answer_restored(&mut self, id: &str, journal: &mut Journal) {
        let serial = journal.said.len();
        let outcome = self.rng.pick(&[
            r#""result":{}"#,
            r#""error":{"code":-32601,"message":"no"}"#,
        ]);
        let text = format!(r#"{{"m":{serial},"jsonrpc":"2.0","id":{id},{outcome}}}"#);
        self.say(text.into(), ServerSays::Swallowed, journal);
    }

    /// Says what nobody asked for.
    pub(super) fn chat(&mut self, journal: &mut Journal, stats: &mut Stats) {
        if !self.rng.percent(if self.manners.chatty { 90 } else { 25 }) {
            return;
        }
        if !self.manners.calm && self.rng.below(1000) < 5 {
            stats.fault(Fault::ShortLines);
            for _ in 0..self.rng.between(LINES_PER_RUN, 3 * LINES_PER_RUN) {
                let text = format!(r#"{{"m":{},"method":"m"}}"#, journal.said.len());
                self.say(text.into(), ServerSays::Other, journal);
            }
        }
        let serial = journal.said.len();
        match self.rng.below(100) {
            0..=49 => self.say_progress(serial, journal),
            50..=69 => self.ask(serial, journal),
            70..=75 => self.take_back_own(serial, journal),
            76..=79 => self.take_back_clients(serial, journal),
            80..=89 => {
                stats.bad_lines += 1;
                self.say_noise(journal);
            }
            90..=93 => {
                stats.bad_lines += 1;
                let padding = "y".repeat(self.max_line);
                let text = format!(r#"{{"m":{serial},"method":"m","params":"{padding}","id":1}}"#);
                self.say(text.into(), ServerSays::TooLong(None), journal);
            }
            94..=97 if self.kind == Kind::Process => {
                self.stderr
                    .borrow_mut()
                    .write(b"a line for the log\nand a part of");
            }
            94..=97 => {
                let text = br#"{"jsonrpc":"2.0","method":"$/mcp/serverRestarted","params":{}}"#;
                self.say(text.to_vec(), ServerSays::Swallowed, journal);
            }
            _ => {
                let text =
                    format!(r#"{{"m":{serial},"jsonrpc":"2.0","id":"nobody","result":{{}}}}"#);
                self.say(text.into(), ServerSays::Other, journal);
            }
        }
    }

    fn say_progress(&mut self, serial: usize, journal: &mut Journal) {
        let padding = self.padding(20);
        let text = format!(
            r#"{{"m":{serial},"jsonrpc":"2.0","method":"notifications/progress","params":{{"pad":"{padding}"}}}}"#
        );
        self.say(text.into(), ServerSays::Other, journal);
    }

    /// Most lines are short; this many of 100 may have any length.
    fn padding(&mut self, of_any_length: usize) -> String {
        let most = if self.rng.percent(of_any_length) {
            self.max_line - 250
        } else {
            80
        };
        let len = self.rng.below(most);
        text::padding(len, &mut self.rng)
    }

    fn ask(&mut self, serial: usize, journal: &mut Journal) {
        self.asked += 1;
        // Each server counts from 1, as do the others, and the client.
        let id = if self.rng.percent(40) {
            self.asked.to_string()
        } else {
            format!("\"s{}-{}\"", self.index, self.asked)
        };
        let text = format!(
            r#"{{"m":{serial},"jsonrpc":"2.0","id":{id},"method":"sampling/createMessage"}}"#
        );
        self.say(text.into(), ServerSays::Request(id), journal);
    }

    fn say_noise(&mut self, journal: &mut Journal) {
        let text: &[u8] = self.rng.pick(&[
            b"log: ready".as_slice(),
            b"\xff\xfe",
            b"123",
            b"",
            b" \t",
            b"{\"id\":1",
            b"\"text\"\r",
        ]);
        self.say(text.to_vec(), ServerSays::Noise, journal);
    }

    fn take_back_own(&mut self, serial: usize, journal: &mut Journal) {
        let is_own = |line: &ServerLine| {
            line.server == self.index
                && !line.taken_back
                && matches!(line.what, ServerSays::Request(_))
        };
        let recent = journal.said.len().saturating_sub(50);
        let found = journal.said[recent..].iter().rposition(is_own);
        let Some(id) = found.and_then(|at| journal.take_back(recent + at)) else {
            return;
        };
        self.say_cancelled(serial, &id, journal);
    }

    fn take_back_clients(&mut self, serial: usize, journal: &mut Journal) {
        let Some(Job::Answer(request)) = self.jobs.first() else {
            return;
        };
        let request = *request;
        let what = journal.lines[journal.requests[request].line].what;
        if self.manners.calm || what != ClientSays::Other {
            return;
        }
        self.jobs.remove(0);
        let id = journal.requests[request].id.clone();
        self.say_cancelled(serial, &id, journal);
    }

    fn say_cancelled(&mut self, serial: usize, id: &str, journal: &mut Journal) {
        journal.server_cancels(id);
        let text = format!(
            r#"{{"m":{serial},"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
        );
        self.say(text.into(), ServerSays::Other, journal);
    }

    /// Says something without a line end.
    pub(super) fn last_words(&mut self, journal: &mut Journal) {
        match self.jobs.pop() {
            Some(Job::Answer(request)) => self.answer(request, journal),
            Some(Job::AnswerReplay(_) | Job::AnswerRestored(_) | Job::AnswerQuestion(_)) | None => {
                let serial = journal.said.len();
                let text = format!(r#"{{"m":{serial},"method":"notifications/message"}}"#);
                self.say(text.into(), ServerSays::Other, journal);
            }
        }
        self.out.drop_line_end();
        self.flush(journal);
    }
}
