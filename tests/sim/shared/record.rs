//! What was asked and what was said, whose it is, and what each client may get of it.
//!
//! Every request and every line of a server has a number of its own in its text. So it is known of each line that reaches a
//! client what it has to be, byte by byte, and whether it is for this one.

mod own_lines;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::legacy::Legacy;
use super::lines::{Marked, mark};

/// A request of a client.
#[derive(Debug)]
pub struct Request {
    /// The number of its client. No two clients have the same, one after the other or otherwise.
    pub client: usize,
    /// As the client writes it.
    pub id: &'static str,
    pub token: Option<&'static str>,
    pub text: Marked,
    pub kind: Kind,
    /// What the proxy has put in the place of the id.
    pub number: Option<u64>,
    /// The client has taken it back.
    pub is_cancelled: bool,
    /// It has, and the proxy has long read that.
    pub is_cancelled_for_sure: bool,
    /// A process was told.
    pub is_told: bool,
    /// The line that is the answer, once all of it was written.
    pub answer: Option<usize>,
    /// It has its answer, or an error.
    pub is_over: bool,
    /// The process and the number of what it listens to, once it was told so.
    pub listens_at: Option<(i32, u64)>,
    /// Lines that have to come before the answer, in order.
    pub expected: VecDeque<usize>,
    /// The last of them that has come.
    pub last_heard: Option<usize>,
    /// The process that was sent it last.
    pub sent_to: Option<i32>,
}

/// What a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Call,
    /// To listen to this.
    Listen(&'static str),
    /// The proxy refuses it for this reason.
    Flawed(&'static str),
    /// Its id is that of another, which may be answered before.
    Double,
    /// It comes from a client of before, whose server is its own.
    Legacy,
    /// A client of before that shares servers opens its session, and asks for this version.
    Initialize(&'static str),
    /// Such a client wants to hear of this resource.
    Subscribe(&'static str),
    /// It wants to hear of it no more.
    Unsubscribe(&'static str),
    /// It wants to hear less of the log, or more.
    SetLevel,
}

/// A line of a server.
#[derive(Debug)]
pub struct Said {
    pub pid: i32,
    pub text: Marked,
    pub what: What,
    /// No client may get it.
    pub is_for_nobody: bool,
}

/// What a line of a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Response(u64),
    /// It is longer than any line may be.
    TooLong(u64),
    Progress(u64),
    GivesUp(u64),
    Acknowledgment(u64),
    Event(u64),
    /// The answer to this request, from a server that nobody else has.
    Own(usize),
    /// The answer to the proxy's `initialize`.
    Greeting,
    /// All are told that a list has changed.
    ListChanged,
    /// Those that have subscribed to it are told that this has changed.
    Updated(&'static str),
    Other,
}

impl What {
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Response(number)
            | Self::TooLong(number)
            | Self::Progress(number)
            | Self::GivesUp(number)
            | Self::Acknowledgment(number)
            | Self::Event(number) => Some(number),
            Self::Own(_) | Self::Greeting | Self::ListChanged | Self::Updated(_) | Self::Other => {
                None
            }
        }
    }

    /// Whether it is for somebody although it bears no number of a request.
    fn goes_without_number(self) -> bool {
        matches!(
            self,
            Self::Own(_) | Self::Greeting | Self::ListChanged | Self::Updated(_)
        )
    }

    /// Whether the request is over by it.
    pub fn is_answer(self) -> bool {
        matches!(
            self,
            Self::Response(_) | Self::TooLong(_) | Self::GivesUp(_) | Self::Own(_)
        )
    }
}

/// All that was asked and said in a world.
#[derive(Debug, Default)]
pub struct Record {
    pub requests: Vec<Request>,
    pub said: Vec<Said>,
    /// The requests that numbers stand for.
    pub by_number: HashMap<u64, usize>,
    /// Requests without an outcome, by client.
    pub open: BTreeMap<usize, Vec<usize>>,
    /// Numbers that have been answered.
    pub over: HashSet<u64>,
    /// Servers that have died, by pid.
    pub dead: HashSet<i32>,
    /// Where the requests begin in what each process was sent.
    pub starts: HashMap<(i32, u64), u64>,
    /// Requests of which a process has read nothing before it died.
    pub unread: HashSet<(i32, u64)>,
    /// Clients whose sessions are over, or are going to be.
    pub gone: HashSet<usize>,
    /// Clients that have a server of their own.
    pub alone: HashSet<usize>,
    /// Processes are replaced in good order, which ends their listens.
    pub replaces: bool,
    /// What is known of clients of before that share servers.
    pub legacy: Legacy,
    /// The server may be taken for one that can't be shared.
    pub may_be_legacy: bool,
    /// Errors without an id that are still to come, by client.
    pub unnamed: HashMap<usize, usize>,
    pub answered: u64,
    pub failed: u64,
    pub heard: u64,
}

impl Record {
    pub fn next_request(&self) -> usize {
        self.requests.len()
    }

    pub fn asks(
        &mut self,
        client: usize,
        kind: Kind,
        id: &'static str,
        token: Option<&'static str>,
        text: Marked,
    ) -> String {
        let at_client = text.at_client(id, token.unwrap_or_default());
        self.open
            .entry(client)
            .or_default()
            .push(self.requests.len());
        self.requests.push(Request {
            client,
            id,
            token,
            text,
            kind,
            number: None,
            is_cancelled: false,
            is_cancelled_for_sure: false,
            is_told: false,
            answer: None,
            is_over: false,
            listens_at: None,
            expected: VecDeque::new(),
            last_heard: None,
            sent_to: None,
        });
        self.note_wish(client, self.requests.len() - 1);
        at_client
    }

    /// Requests of a client for which nothing has come yet.
    pub fn open_of(&self, client: usize) -> &[usize] {
        self.open.get(&client).map_or(&[], Vec::as_slice)
    }

    /// Those of a number: one, or all that share a listen, as far as is known.
    fn owners(&self, said: &Said) -> Vec<usize> {
        let Some(key) = said
            .what
            .number()
            .and_then(|number| self.by_number.get(&number))
        else {
            return Vec::new();
        };
        let Kind::Listen(content) = self.requests[*key].kind else {
            return vec![*key];
        };
        let open = self.open.values().flatten().copied();
        open.filter(|key| self.requests[*key].kind == Kind::Listen(content))
            .collect()
    }

    /// A server begins to say a line that bears this number.
    pub fn says(&mut self, pid: i32, text: Marked, what: What) -> usize {
        let is_over = |key: &usize| {
            let request = &self.requests[*key];
            request.sent_to != Some(pid) || request.is_told
        };
        let of = what.number().map(|number| self.by_number.get(&number));
        let was_answered = what
            .number()
            .is_some_and(|number| self.over.contains(&number));
        let is_for_nobody = match of {
            Some(key) => was_answered || key.is_none_or(is_over),
            None => !what.goes_without_number(),
        };
        if let Some(number) = what.number().filter(|_| what.is_answer()) {
            self.over.insert(number);
        }
        self.said.push(Said {
            pid,
            text,
            what,
            is_for_nobody,
        });
        self.said.len() - 1
    }

    /// All of a line was written: whoever it is for has to get it.
    pub fn was_said(&mut self, serial: usize) {
        let said = &self.said[serial];
        if said.is_for_nobody {
            return;
        }
        let (what, pid) = (said.what, said.pid);
        if let What::Updated(uri) = what {
            return self.note_update(pid, uri, serial);
        }
        let owners = match what {
            What::Own(key) => vec![key],
            _ => self.owners(said),
        };
        for key in owners {
            let request = &mut self.requests[key];
            let is_member = what
                .number()
                .is_some_and(|number| request.listens_at == Some((pid, number)));
            let is_single = !matches!(request.kind, Kind::Listen(_));
            if request.is_over || !(is_member || is_single) {
                continue;
            }
            if what.is_answer() {
                request.answer.get_or_insert(serial);
            } else if request.answer.is_none()
                && !request.is_cancelled
                && (is_member || request.token.is_some())
            {
                request.expected.push_back(serial);
            }
        }
    }

    /// A client gets a line.
    pub fn client_gets(&mut self, client: usize, line: &str, is_stopping: bool) {
        match mark(line, 's') {
            Some(serial) => self.gets_said(client, line, serial),
            None => self.gets_own(client, line, is_stopping),
        }
    }

    fn gets_said(&mut self, client: usize, line: &str, serial: usize) {
        let said = &self.said[serial];
        assert!(
            !said.is_for_nobody,
            "client {client} gets what is for nobody ({:?}): {line}",
            said.what
        );
        match said.what {
            What::ListChanged | What::Updated(_) => return self.hears(client, line, serial),
            What::Greeting => return self.gets_greeting(client, line, serial),
            _ => {}
        }
        let open = self.open_of(client).iter().copied();
        let of_number = said
            .what
            .number()
            .and_then(|number| self.by_number.get(&number));
        let is_of = |key: &usize| match said.what {
            What::Own(own) => own == *key,
            _ => of_number.is_some_and(|of| {
                let (of, mine) = (&self.requests[*of], &self.requests[*key]);
                match of.kind {
                    Kind::Listen(_) => of.kind == mine.kind,
                    _ => std::ptr::eq(of, mine),
                }
            }),
        };
        let is_right = |key: &usize| {
            let request = &self.requests[*key];
            line == said
                .text
                .at_client(request.id, request.token.unwrap_or_default())
        };
        let found: Vec<usize> = open.filter(is_of).collect();
        // Ids are used again once what had them was taken back.
        let rank = |key: &&usize| {
            let request = &self.requests[**key];
            let at = said.what.number().map(|number| (said.pid, number));
            let at = at.filter(|_| !matches!(said.what, What::Acknowledgment(_)));
            (
                request.listens_at != at,
                request.is_cancelled_for_sure,
                request.is_cancelled,
            )
        };
        let key = found.iter().filter(|key| is_right(key)).min_by_key(rank);
        let key = *key.unwrap_or_else(|| {
            let of: Vec<_> = found.iter().map(|key| &self.requests[*key]).collect();
            panic!("client {client} gets a line that is not for it, or not like this: {line}\nsaid: {said:?}\nopen: {of:#?}")
        });
        self.takes(key, serial, line);
    }

    fn takes(&mut self, key: usize, serial: usize, line: &str) {
        let said = &self.said[serial];
        let request = &mut self.requests[key];
        // A server of its own may answer all the same.
        let is_late = request.is_cancelled_for_sure && !matches!(said.what, What::Own(_));
        assert!(!is_late, "it was taken back long ago: {line}");
        match said.what {
            What::Acknowledgment(number) => {
                assert_eq!(request.listens_at, None, "it is acknowledged twice: {line}");
                request.listens_at = Some((said.pid, number));
                self.heard += 1;
            }
            What::Event(number) => {
                assert_eq!(request.listens_at, Some((said.pid, number)), "{line}");
                self.expect(key, serial, line);
            }
            What::Progress(_) => {
                assert!(
                    request.token.is_some(),
                    "nobody wants to hear of it: {line}"
                );
                self.expect(key, serial, line);
            }
            What::TooLong(_)
            | What::Greeting
            | What::ListChanged
            | What::Updated(_)
            | What::Other => panic!("it reaches a client: {line}"),
            What::Response(_) | What::GivesUp(_) | What::Own(_) => {
                self.answered += 1;
                self.end(key, line);
            }
        }
    }

    /// A line comes that has to come in order. If it was taken back, or the client is leaving, it may or may not.
    fn expect(&mut self, key: usize, serial: usize, line: &str) {
        let request = &mut self.requests[key];
        self.heard += 1;
        if request.is_cancelled || self.gone.contains(&request.client) {
            request.expected.clear();
        } else if request.expected.contains(&serial) || matches!(request.kind, Kind::Call) {
            let first = request.expected.pop_front();
            assert_eq!(
                first,
                Some(serial),
                "something is missing before it: {line}"
            );
        }
        // A listen may hear of what was said while it joined.
        assert!(
            request.last_heard < Some(serial),
            "it has come before: {line}"
        );
        request.last_heard = Some(serial);
    }

    pub fn end(&mut self, key: usize, line: &str) {
        let request = &mut self.requests[key];
        let may_miss = request.is_cancelled || self.gone.contains(&request.client);
        let is_complete = may_miss || request.expected.is_empty();
        assert!(
            is_complete,
            "{:?} are missing before it: {line}",
            request.expected
        );
        request.is_over = true;
        if let Some(open) = self.open.get_mut(&request.client) {
            open.retain(|other| *other != key);
        }
        self.note_over(key, line);
    }
}
