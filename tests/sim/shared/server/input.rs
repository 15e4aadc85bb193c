//! What comes to a server that many share: each line has to be what some client has sent, with what must be changed.

use serde_json::Value;

use super::{Input, Server};
use crate::shared::lines::{self, mark};
use crate::shared::record::{Kind, Record};
use crate::trace;

impl Server {
    /// Looks at the lines that have begun to come: each has to be what some client has sent, with what must be changed.
    pub fn note_input(&mut self, record: &mut Record, in_flight: usize) {
        let begun = std::mem::take(&mut self.process.pipes.borrow_mut().output.begun);
        if begun.is_empty() {
            return;
        }
        for line in begun {
            let text = String::from_utf8(line.text).unwrap();
            trace::note(|| format!("pid {} gets {text}", self.process.pid));
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
        if mark(text, 'r').is_none()
            && let Some(input) = self.own_line(text, &value)
        {
            return input;
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
        let client = record.requests[key].client;
        self.check_era(text, client, record);
        let is_gone = record.may_be_ended(client);
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
            !matches!(
                request.kind,
                Kind::Flawed(_) | Kind::Legacy | Kind::Initialize(_) | Kind::SetLevel
            ),
            "{text}"
        );
        let is_leaving = is_gone || record.gone.contains(&request.client);
        // A listen that was on its way to a process that is replaced comes, and its cancellation after it.
        let was_on_its_way = record.replaces && matches!(request.kind, Kind::Listen(_));
        assert!(
            !request.is_over || is_leaving || was_on_its_way,
            "it has its answer: {text}"
        );
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
        request.sent_to = Some(self.process.pid);
        let start = end - text.trim_start().len() as u64 - 1;
        record.starts.insert((self.process.pid, number), start);
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
        assert_eq!(
            request.sent_to,
            Some(self.process.pid),
            "it is not here: {text}"
        );
        assert!(!request.is_told, "it is taken back twice: {text}");
        if record.replaces && text.contains("the server is replaced") {
            assert!(matches!(request.kind, Kind::Listen(_)), "{text}");
        } else if let Kind::Listen(content) = request.kind {
            let open = record.open.values().flatten();
            let mut others = open.map(|key| &record.requests[*key]).filter(|other| {
                other.kind == Kind::Listen(content)
                    && other.listens_at == Some((self.process.pid, number))
            });
            let listens = |other: &crate::shared::record::Request| {
                !other.is_cancelled && !record.gone.contains(&other.client)
            };
            assert!(!others.any(listens), "others listen: {text}");
        } else {
            let has_left =
                record.gone.contains(&request.client) || record.may_be_ended(request.client);
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
        let pipes = self.process.pipes.borrow();
        let is_idle = self.coming.is_empty() && pipes.writes && pipes.output.has_room();
        for (number, key) in self.pending.iter().filter(|_| is_idle) {
            let request = &record.requests[*key];
            let is_untold = request.is_cancelled_for_sure && !request.is_told;
            assert!(
                !is_untold,
                "pid {} was not told that nobody waits for {number}",
                self.process.pid
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
