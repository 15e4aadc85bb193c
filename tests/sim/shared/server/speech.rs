//! What a server that many share says: answers in any order, and what it was not asked.

use mcp_tcp_proxy::session::report::Exit;

use super::{Era, Server};
use crate::shared::lines::{self, Marked};
use crate::shared::record::{Record, What};
use crate::trace;

impl Server {
    pub(super) fn answer_probe(&mut self, record: &mut Record) {
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

    pub(super) fn push(&mut self, text: &str) {
        trace::note(|| format!("pid {} says {text}", self.process.pid));
        self.said_bytes += text.len() as u64 + 1;
        self.out.push(text.as_bytes());
        self.out.push(b"\n");
    }

    pub fn say(
        &mut self,
        record: &mut Record,
        number: &str,
        what: What,
        text: impl FnOnce(usize) -> Marked,
    ) {
        let text = text(record.said.len());
        let at_server = text.at_server(number);
        let serial = record.says(self.process.pid, text, what);
        self.push(&at_server);
        self.saying.push_back((self.said_bytes, serial));
    }

    pub(super) fn speak(&mut self, record: &mut Record) {
        if self.owner.is_some() {
            return self.speak_to_owner(record);
        }
        match self.rng.below(10) {
            0..=4 => self.answer(record),
            6 if self.greeting.is_some() && !self.says_no_more => self.speak_to_all(record),
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
            let (number, _) = self.pending[at];
            // Servers of before take back nothing but what they have asked themselves.
            let what = if self.greeting.is_some() {
                What::Other
            } else {
                self.pending.swap_remove(at);
                self.over.push(number);
                What::GivesUp(number)
            };
            self.say(record, &number.to_string(), what, lines::given_up);
        }
    }

    /// It bears the number of a request that another server has.
    fn speak_for_another(&mut self, record: &mut Record) {
        let is_there = |pid: i32| pid != self.process.pid && !record.dead.contains(&pid);
        let open = record.requests.iter().rev().take(100);
        let elsewhere = open.filter(|request| request.sent_to.is_some_and(is_there));
        let numbers: Vec<u64> = elsewhere.filter_map(|request| request.number).collect();
        if numbers.is_empty() {
            return;
        }
        let number = self.rng.pick(&numbers).to_string();
        // What servers of before say of lists is for all.
        let manner = self.rng.below(if self.greeting.is_none() { 3 } else { 2 });
        self.say(record, &number, What::Other, |serial| match manner {
            0 => lines::response(serial, 0, 0, 1),
            1 => lines::progress(serial),
            _ => lines::event(serial, lines::CHANGED),
        });
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
            3 if self.rng.percent(70) => self.speak_for_another(record),
            3 => {
                let number = 1 << 40 | number;
                self.say(record, &number.to_string(), What::Response(number), |serial| lines::response(serial, 0, 0, 1));
            }
            4 if self.greeting.is_none() => self.say(record, "", What::Other, lines::list_changed),
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
}
