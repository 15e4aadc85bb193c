//! Legacy clients that share servers: the handshake, which the proxy makes once for all of them, subscriptions to
//! resources, and what a server tells all that it has.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::client::Client;
use super::lines;
use super::record::{Kind, Record, Said, What};
use super::server::{Input, Server};

/// What clients ask for. The proxy knows no version that is older than all others.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-06-18", "2025-11-25", "1999-12-31"];

/// What servers agree to: those who ask for the oldest come to share with others, once it is known.
fn agreed(version: &str) -> &'static str {
    match version {
        "2024-11-05" | "2025-06-18" => "2025-06-18",
        _ => "2025-11-25",
    }
}

pub const URIS: [&str; 4] = ["r:/a/", "r:/a/b", "r:/c", "r:/a/b/d"];

/// Whether what is said of a resource concerns whoever has subscribed to this.
fn is_above(above: &str, uri: &str) -> bool {
    let below = uri.strip_prefix(above);
    below.is_some_and(|rest| rest.is_empty() || above.ends_with('/') || rest.starts_with('/'))
}

/// What is known of legacy clients, and of the servers that they share.
#[derive(Debug, Default)]
pub struct Legacy {
    /// What the clients have come to agree to, or will.
    clients: HashMap<usize, &'static str>,
    /// Those of them that have their answer.
    initialized: HashSet<usize>,
    /// What the servers have agreed to, by pid.
    servers: HashMap<i32, &'static str>,
    /// Of which resources clients may hear, with their last request for that.
    wishes: HashMap<usize, BTreeMap<&'static str, usize>>,
    /// The last requests for the end of that, by client and resource.
    ending: HashMap<(usize, &'static str), usize>,
    /// Subscriptions that were confirmed, and of which nobody has asked for the end.
    confirmed: HashMap<usize, BTreeMap<&'static str, usize>>,
    /// What clients have yet to hear of.
    awaited: HashMap<usize, Vec<usize>>,
    /// What clients have heard last of what servers said to all.
    last: HashMap<(usize, i32), usize>,
    /// A server may have answered otherwise than others.
    pub may_change: bool,
    /// Some ask for the version that others come to have as well, which makes one group of two.
    pub asks_old: bool,
    /// Whoever has subscribed stays where it is.
    pub is_sure: bool,
}

impl Record {
    /// The session of a client may be ended, as its server is another.
    pub fn may_be_ended(&self, client: usize) -> bool {
        self.legacy.may_change && self.legacy.clients.contains_key(&client)
    }

    /// A request of a legacy client begins to be sent.
    pub fn note_wish(&mut self, client: usize, key: usize) {
        let of = |wishes: &mut HashMap<usize, BTreeMap<&'static str, usize>>, uri| {
            wishes.entry(client).or_default().insert(uri, key);
        };
        match self.requests[key].kind {
            Kind::Initialize(version) => {
                self.legacy.clients.insert(client, agreed(version));
            }
            Kind::Subscribe(uri) => of(&mut self.legacy.wishes, uri),
            Kind::Unsubscribe(uri) => {
                let confirmed = self.legacy.confirmed.entry(client).or_default();
                confirmed.remove(uri);
                self.legacy.ending.insert((client, uri), key);
                // What was said may be read after that.
                self.legacy.awaited.remove(&client);
            }
            _ => {}
        }
    }

    /// A request of a legacy client is over.
    pub fn note_over(&mut self, key: usize, line: &str) {
        let request = &self.requests[key];
        let (client, kind) = (request.client, request.kind.clone());
        if line.contains(r#""error":{"#) {
            return;
        }
        let wishes = self.legacy.wishes.entry(client).or_default();
        match kind {
            Kind::Initialize(_) => {
                self.legacy.initialized.insert(client);
            }
            Kind::Subscribe(uri) if self.legacy.ending.get(&(client, uri)) < Some(&key) => {
                let confirmed = self.legacy.confirmed.entry(client).or_default();
                confirmed.insert(uri, key);
            }
            Kind::Unsubscribe(uri) if wishes.get(uri).is_some_and(|asked| *asked < key) => {
                wishes.remove(uri);
            }
            _ => {}
        }
    }

    /// All of a line was written that is for all who have subscribed to this.
    pub fn note_update(&mut self, pid: i32, uri: &str, serial: usize) {
        if !self.legacy.is_sure {
            return;
        }
        for (client, confirmed) in &self.legacy.confirmed {
            let is_at = |key: &usize| self.requests[*key].sent_to == Some(pid);
            let mut above = confirmed.iter().filter(|(above, _)| is_above(above, uri));
            if above.any(|(_, key)| is_at(key)) {
                let awaited = self.legacy.awaited.entry(*client).or_default();
                awaited.push(serial);
            }
        }
    }

    /// Whether anybody who is there has yet to hear of what it has subscribed to.
    pub fn awaits_updates(&self) -> bool {
        let mut awaited = self.legacy.awaited.iter();
        awaited.any(|(client, awaited)| !self.gone.contains(client) && !awaited.is_empty())
    }

    /// A client gets what a server has said to all that it has, or to all that have subscribed.
    pub fn hears(&mut self, client: usize, line: &str, serial: usize) {
        let Said {
            pid, text, what, ..
        } = &self.said[serial];
        assert_eq!(line, text.at_client("", ""));
        let version = self.legacy.clients.get(&client);
        let of = self.legacy.servers.get(pid);
        assert!(
            version.is_some() && version == of,
            "client {client} shares no server with whom that is for: {line}"
        );
        if let What::Updated(uri) = what {
            let wishes = self.legacy.wishes.get(&client).into_iter().flatten();
            let mut above = wishes.filter(|(above, _)| is_above(above, uri));
            assert!(
                above.next().is_some(),
                "client {client} has not asked for that: {line}"
            );
            if let Some(awaited) = self.legacy.awaited.get_mut(&client) {
                awaited.retain(|other| *other != serial);
            }
        }
        let last = self.legacy.last.insert((client, *pid), serial);
        assert!(last < Some(serial), "it has come before: {line}");
        self.heard += 1;
    }

    /// A client gets what a server has answered to the proxy's `initialize`.
    pub fn gets_greeting(&mut self, client: usize, line: &str, serial: usize) {
        let said = &self.said[serial];
        let is_it = |key: &&usize| {
            let request = &self.requests[**key];
            let Kind::Initialize(version) = request.kind else {
                return false;
            };
            let is_agreed = self.legacy.servers.get(&said.pid) == Some(&agreed(version));
            is_agreed && line == said.text.at_client(request.id, "")
        };
        let key = self.open_of(client).iter().find(is_it).copied();
        let key = key.unwrap_or_else(|| {
            panic!("client {client} does not wait for that, or not like this: {line}\n{said:?}")
        });
        self.answered += 1;
        self.end(key, line);
    }

    /// The proxy answers what no server has to. Returns whether the line is that.
    pub fn gets_empty(&mut self, client: usize, line: &str) -> bool {
        let is_it = |key: &&usize| {
            let request = &self.requests[**key];
            let id = request.id;
            let is_such = matches!(request.kind, Kind::Unsubscribe(_) | Kind::SetLevel);
            let is_there = request.sent_to.is_some_and(|pid| !self.dead.contains(&pid));
            is_such
                && !is_there
                && line == format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
        };
        let key = self.open_of(client).iter().find(is_it).copied();
        if let Some(key) = key {
            self.answered += 1;
            self.end(key, line);
        }
        key.is_some()
    }
}

impl Client {
    /// What a legacy client says that shares servers.
    pub fn speak_as_legacy(&mut self, record: &mut Record) {
        if !record.legacy.initialized.contains(&self.number) {
            if record.open_of(self.number).is_empty() {
                self.initialize(record);
            }
            return;
        }
        if !std::mem::replace(&mut self.has_begun, true) && self.rng.percent(80) {
            return self.push(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        }
        match self.rng.below(20) {
            0..=7 => self.call(record),
            8..=10 => self.ask_of_resource(record),
            11..=14 => self.cancel(record),
            15 => self.say_what_nobody_is_told(),
            16 => self.set_level(record),
            17 if !self.habits.calm => self.say_something_wrong(record),
            18 if !self.habits.calm => self.ask_with_an_id_in_use(record),
            _ => {}
        }
    }

    fn initialize(&mut self, record: &mut Record) {
        let Some(id) = self.free_id(record) else {
            return;
        };
        let version = record.legacy.clients.get(&self.number).copied();
        let known = &VERSIONS[usize::from(!record.legacy.asks_old)..];
        let version = version.unwrap_or_else(|| self.rng.pick(known));
        let text = lines::initialize(record.next_request(), version);
        let line = record.asks(self.number, Kind::Initialize(version), id, None, text);
        self.push(&line);
    }

    fn ask_of_resource(&mut self, record: &mut Record) {
        let Some(id) = self.free_id(record) else {
            return;
        };
        let uri = self.rng.pick(&URIS);
        let (kind, method) = if self.rng.percent(60) {
            (Kind::Subscribe(uri), "subscribe")
        } else {
            (Kind::Unsubscribe(uri), "unsubscribe")
        };
        let text = lines::about_resource(record.next_request(), method, uri);
        let line = record.asks(self.number, kind, id, None, text);
        self.push(&line);
    }

    fn set_level(&mut self, record: &mut Record) {
        if let Some(id) = self.free_id(record) {
            let text = lines::set_level(record.next_request());
            let line = record.asks(self.number, Kind::SetLevel, id, None, text);
            self.push(&line);
        }
    }
}

/// What is wrong in the session of a legacy client, and how it is answered.
pub const WRONG: [(&str, &str); 7] = [
    (
        r#"{"id":@,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        "wrong_era",
    ),
    (
        r#"{"id":@,"method":"tasks/get","params":{"taskId":"1"}}"#,
        "method_not_found",
    ),
    (
        r#"{"id":@,"method":"tools/call","params":{"task":{}}}"#,
        "method_not_found",
    ),
    (r#"{"id":@,"method":"server/discover"}"#, "method_not_found"),
    (r#"{"id":@,"method":"x","params":{"a":NaN}}"#, "parse_error"),
    (
        r#"{"id":@,"Id":1,"method":"x","params":{}}"#,
        "invalid_request",
    ),
    (r#"[{"id":@,"method":"x"}]"#, "invalid_request"),
];

/// How far a server is that has legacy clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// It was asked for this version.
    Asked(&'static str),
    /// It has agreed to this one.
    Agreed(&'static str),
}

impl Server {
    /// The proxy's own part of a session, if the line is that.
    pub fn own_line(&mut self, text: &str, value: &Value) -> Option<Input> {
        match value["method"].as_str()? {
            "initialize" => {
                assert!(!self.was_used(), "it is not what comes first: {text}");
                let version = value["params"]["protocolVersion"].as_str().unwrap();
                let known = VERSIONS.iter().find(|known| **known == version);
                let version = known.unwrap_or_else(|| panic!("nobody asks for that: {text}"));
                assert_eq!(value["params"]["clientInfo"]["name"], "mcp-tcp-proxy");
                self.greeting = Some(Greeting::Asked(version));
                Some(Input::Greeting(value["id"].as_u64().unwrap()))
            }
            "notifications/initialized" => {
                let has_agreed = matches!(self.greeting, Some(Greeting::Agreed(_)));
                assert!(has_agreed, "it has not agreed: {text}");
                Some(Input::Other)
            }
            "resources/subscribe" | "resources/unsubscribe" => {
                Some(Input::OfProxy(value["id"].as_u64().unwrap()))
            }
            _ => None,
        }
    }

    /// A request is of the era, and of the version, of all others here.
    pub fn check_era(&self, text: &str, client: usize, record: &Record) {
        let version = record.legacy.clients.get(&client).copied();
        match (version, self.greeting) {
            (None, None) => {}
            (Some(version), Some(Greeting::Agreed(agreed))) => {
                assert_eq!(version, agreed, "it is of another group: {text}");
            }
            other => panic!("it is of another era, or too early: {text} ({other:?})"),
        }
    }

    /// It answers the proxy's `initialize`, as all do, or not.
    pub fn answer_greeting(&mut self, number: u64, record: &mut Record) {
        let Some(Greeting::Asked(asked)) = self.greeting else {
            return;
        };
        let version = agreed(asked);
        let manner = if self.calm { 99 } else { self.rng.below(100) };
        let number = number.to_string();
        record.legacy.servers.insert(self.process.pid, version);
        match manner {
            0..=1 => {}
            2..=4 => {
                // It may be the first, whose clients are told, or one of those that come after it.
                record.legacy.may_change = true;
                self.say(record, &number, What::Greeting, lines::error_response);
            }
            _ => {
                self.greeting = Some(Greeting::Agreed(version));
                let is_other = manner == 5;
                record.legacy.may_change |= is_other;
                self.say(record, &number, What::Greeting, |serial| {
                    lines::greeting(serial, version, is_other)
                });
            }
        }
    }

    /// It tells all of what concerns all.
    pub fn speak_to_all(&mut self, record: &mut Record) {
        if !matches!(self.greeting, Some(Greeting::Agreed(_))) {
            return;
        }
        if self.rng.percent(30) {
            return self.say(record, "", What::ListChanged, lines::list_changed);
        }
        let uri = self.rng.pick(&URIS);
        self.say(record, "", What::Updated(uri), |serial| {
            lines::updated(serial, uri)
        });
    }
}
