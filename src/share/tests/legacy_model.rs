//! Random legacy clients and servers against a model: what is one client's reaches no other, each request has exactly one
//! answer unless it was taken back, and of resources hears who has subscribed to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::model::Random;
use super::world::{World, cancelled, limits};
use crate::share::{Limits, ProcessKey, SeatKey};

const VERSIONS: [&str; 3] = ["2024-11-05", "2025-06-18", "2025-11-25"];

/// What the servers agree to: of these versions two are one.
fn agreed(version: &str) -> &str {
    if version == VERSIONS[0] {
        VERSIONS[1]
    } else {
        version
    }
}

const URIS: [&str; 4] = ["r:/a/", "r:/a/b", "r:/c", "r:/a/b/d"];

struct Client {
    name: String,
    seat: SeatKey,
    version: String,
    /// By id, the secrets in what it waits for.
    open: BTreeMap<u64, String>,
    /// Ids of what it has taken back: an answer may cross that.
    taken_back: BTreeSet<u64>,
    /// What it may hear of: whatever it has asked for, with the latest request for it, and not had the end of confirmed.
    may_hear: BTreeMap<String, u64>,
    /// By id of the request that ends it.
    ending: BTreeMap<u64, String>,
}

#[derive(Default)]
struct Server {
    /// The version that it has agreed to.
    version: Option<String>,
    requests: BTreeMap<u64, Value>,
    over: BTreeSet<u64>,
    subscribed: BTreeSet<String>,
}

struct Model {
    world: World,
    random: Random,
    clients: Vec<Client>,
    servers: BTreeMap<ProcessKey, Server>,
    serial: u64,
    answered: usize,
    heard: usize,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let max_requests = [None, Some(5)][random.below(2) as usize];
        let max_age = [None, Some(Duration::from_secs(20))][random.below(2) as usize];
        let mut model = Self {
            world: World::unprobed(Limits {
                legacy: true,
                max_requests,
                max_age,
                ..limits()
            }),
            random,
            clients: Vec::new(),
            servers: BTreeMap::new(),
            serial: 0,
            answered: 0,
            heard: 0,
        };
        for _ in 0..5 {
            model.arrive();
        }
        model
    }

    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn arrive(&mut self) {
        let number = self.next();
        let identity = self.random.below(3) as u32;
        let seat = self.world.seat(identity);
        let version = self.random.of(&VERSIONS).unwrap().to_owned();
        let params = json!({"protocolVersion": version, "capabilities": {}});
        self.clients.push(Client {
            name: format!("client-{number}-"),
            seat,
            version,
            open: BTreeMap::from([(0, String::new())]),
            taken_back: BTreeSet::new(),
            may_hear: BTreeMap::new(),
            ending: BTreeMap::new(),
        });
        self.world.client(
            seat,
            &json!({"id": 0, "method": "initialize", "params": params}),
        );
    }

    fn step(&mut self) {
        self.end_stopped();
        match self.random.below(20) {
            0..=5 => self.ask(),
            6 => self.take_back(),
            7 if self.random.below(3) == 0 => self.leave(),
            8..=9 => {
                let client = self.random.below(self.clients.len() as u64) as usize;
                self.read(client);
            }
            10..=12 => {
                if let Some(process) = self.some_process() {
                    let most = [7, 300, usize::MAX][self.random.below(3) as usize];
                    self.world.take(process, most);
                    self.note_input(process);
                }
            }
            13..=15 => self.server_answers(),
            16 => self.server_notifies(),
            17 if self.random.below(8) == 0 => {
                if let Some(process) = self.some_process() {
                    self.servers.remove(&process);
                    self.world.end(process, "exit code 1");
                }
            }
            18 if self.random.below(20) == 0 => {
                self.world.with(super::super::Share::renew);
            }
            _ => {
                let millis = self.random.below(3_000);
                self.world.pass(Duration::from_millis(millis));
            }
        }
    }

    fn end_stopped(&mut self) {
        for process in std::mem::take(&mut self.world.stopped) {
            if self.world.processes.contains_key(&process) {
                self.servers.remove(&process);
                self.world.end(process, "exit code 0");
            }
        }
    }

    fn ask(&mut self) {
        let client = self.random.below(self.clients.len() as u64) as usize;
        let uri = self.random.of(&URIS).unwrap();
        let what = self.random.below(6);
        let id = self.next();
        let client = &mut self.clients[client];
        let secret = format!("{}{id}", client.name);
        let mut params = json!({"secret": secret, "_meta": {"progressToken": 0}});
        let method = match what {
            0 => {
                params["uri"] = json!(uri);
                client.may_hear.insert(uri.to_owned(), id);
                "resources/subscribe"
            }
            1 => {
                params["uri"] = json!(uri);
                client.ending.insert(id, uri.to_owned());
                "resources/unsubscribe"
            }
            _ => "tools/call",
        };
        client.open.insert(id, secret);
        let seat = client.seat;
        self.world
            .client(seat, &json!({"id": id, "method": method, "params": params}));
    }

    fn take_back(&mut self) {
        let at = self.random.below(self.clients.len() as u64) as usize;
        self.read(at);
        let client = &mut self.clients[at];
        let ids: Vec<u64> = client.open.keys().copied().collect();
        if let Some(id) = self.random.of(&ids) {
            let client = &mut self.clients[at];
            client.open.remove(&id);
            client.taken_back.insert(id);
            let seat = client.seat;
            self.world.client(seat, &cancelled(&json!(id)));
        }
    }

    fn leave(&mut self) {
        let at = self.random.below(self.clients.len() as u64) as usize;
        let gone = self.clients.remove(at);
        self.world.leave(gone.seat);
        self.arrive();
    }

    fn some_process(&mut self) -> Option<ProcessKey> {
        let all: Vec<ProcessKey> = self.world.processes.keys().copied().collect();
        self.random.of(&all)
    }

    fn read(&mut self, at: usize) {
        let bytes = self.world.read_bytes(self.clients[at].seat);
        let text = String::from_utf8(bytes).unwrap();
        for line in text.lines() {
            let client = &mut self.clients[at];
            let others = line.replace(&client.name, "");
            assert!(!others.contains("client-"), "{}: {line}", client.name);
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(method) = line["method"].as_str() {
                self.heard += 1;
                client.check_notification(method, &line["params"]);
            } else {
                self.answered += 1;
                client.check_answer(&line);
            }
        }
    }

    fn note_input(&mut self, process: ProcessKey) {
        let lines = self.world.take_lines(process);
        let server = self.servers.entry(process).or_default();
        for line in lines {
            let is_request = !line["method"].is_null();
            let Some(number) = line["id"].as_u64().filter(|_| is_request) else {
                continue;
            };
            let is_new = !server.requests.contains_key(&number) && !server.over.contains(&number);
            assert!(is_new, "{line}");
            let is_initialize = line["method"] == "initialize";
            assert!(is_initialize || server.version.is_some(), "{line} too soon");
            let uri = line["params"]["uri"].as_str().unwrap_or_default();
            match line["method"].as_str() {
                Some("resources/subscribe") => {
                    server.subscribed.insert(uri.to_owned());
                }
                Some("resources/unsubscribe") => {
                    server.subscribed.remove(uri);
                }
                _ => {}
            }
            server.requests.insert(number, line);
        }
    }

    fn server_answers(&mut self) {
        let Some(process) = self.some_process() else {
            return;
        };
        let server = self.servers.entry(process).or_default();
        let numbers: Vec<u64> = server.requests.keys().copied().collect();
        if let Some(number) = self.random.of(&numbers) {
            self.answer(process, number);
        }
    }

    fn answer(&mut self, process: ProcessKey, number: u64) {
        let server = self.servers.entry(process).or_default();
        let request = server.requests.remove(&number).unwrap();
        server.over.insert(number);
        let params = &request["params"];
        let mut result = json!({"secret": params["secret"]});
        if request["method"] == "initialize" {
            let version = agreed(params["protocolVersion"].as_str().unwrap());
            result = json!({"protocolVersion": version, "capabilities": {"tasks": {}}});
            server.version = Some(version.to_owned());
        }
        self.world
            .server(process, &json!({"id": number, "result": result}));
    }

    fn server_notifies(&mut self) {
        let Some(process) = self.some_process() else {
            return;
        };
        let uri = self.random.of(&URIS).unwrap();
        let open: Vec<Value> = self
            .servers
            .entry(process)
            .or_default()
            .requests
            .values()
            .cloned()
            .collect();
        if let Some(request) = self.random.of(&open)
            && let Some(secret) = request["params"]["secret"].as_str()
        {
            let params = json!({"progressToken": request["id"], "secret": secret});
            let line = json!({"method": "notifications/progress", "params": params});
            self.world.server(process, &line);
        }
        let over: Vec<u64> = self
            .servers
            .entry(process)
            .or_default()
            .over
            .iter()
            .copied()
            .collect();
        let number = self.random.of(&over).unwrap_or(1);
        let nobody = "client-nobody";
        let lines = [
            json!({"method": "notifications/resources/updated", "params": {"uri": uri}}),
            json!({"method": "notifications/tools/list_changed"}),
            json!({"method": "notifications/message", "params": {"data": nobody}}),
            json!({"method": "notifications/progress", "params": {"progressToken": number, "x": nobody}}),
            json!({"id": number, "result": nobody}),
            json!({"id": number, "method": "sampling/createMessage", "params": {"x": nobody}}),
            cancelled(&json!(number)),
        ];
        let line = self.random.of(&lines).unwrap();
        self.world.server(process, &line);
    }

    /// All that is open is answered at last, and subscriptions are where they have to be.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(
                round < 500,
                "it does not come to an end: {:#?}",
                self.world.share
            );
            while !self.is_quiet() {
                self.serve_all();
            }
            let is_open = |client: &Client| !client.open.is_empty();
            if round > 30 && !self.clients.iter().any(is_open) {
                break;
            }
            self.world.pass(Duration::from_secs(5));
        }
        assert!(self.world.changed.is_empty(), "no server is another");
        self.check_subscriptions();
        for client in std::mem::take(&mut self.clients) {
            let seat = &self.world.share.seats[client.seat.0];
            assert!(seat.open.is_empty() && seat.waiting.is_empty());
            assert_eq!(seat.at_process, 0);
            self.world.leave(client.seat);
        }
        let bytes: usize = self.world.share.processes.iter().map(|it| it.charged).sum();
        assert_eq!(self.world.memory.used(), bytes);
    }

    /// Servers and clients read all that there is for them, and all that was asked is answered.
    fn serve_all(&mut self) {
        self.end_stopped();
        let all: Vec<ProcessKey> = self.world.processes.keys().copied().collect();
        for process in all {
            self.world.take(process, usize::MAX);
            self.note_input(process);
            let server = self.servers.entry(process).or_default();
            let numbers: Vec<u64> = server.requests.keys().copied().collect();
            for number in numbers {
                self.answer(process, number);
            }
        }
        for client in 0..self.clients.len() {
            self.read(client);
        }
    }

    fn is_quiet(&self) -> bool {
        let share = &self.world.share;
        let mut processes = self.world.processes.keys();
        let mut servers = self.servers.values();
        let mut clients = self.clients.iter();
        self.world.stopped.is_empty()
            && processes.all(|process| share.to_process(*process).is_empty())
            && servers.all(|server| server.requests.is_empty())
            && clients.all(|client| share.to_client(client.seat).is_empty())
    }

    /// Servers know of each subscription of the sessions that they serve.
    fn check_subscriptions(&self) {
        for (_, seat) in &self.world.share.seats {
            if seat.uris.is_empty() {
                continue;
            }
            let process = seat.process.expect("whoever has subscribed has a process");
            let subscribed = &self.servers[&process].subscribed;
            for uri in seat.uris.all() {
                assert!(subscribed.contains(&*uri), "{uri} at {process:?}");
            }
        }
    }
}

impl Client {
    fn check_notification(&mut self, method: &str, params: &Value) {
        match method {
            "notifications/resources/updated" => {
                let uri = params["uri"].as_str().unwrap();
                let mut may_hear = self.may_hear.keys();
                let is_above = |above: &String| uri.starts_with(above.as_str());
                assert!(may_hear.any(is_above), "{} hears of {uri}", self.name);
            }
            "notifications/tools/list_changed" => {}
            "notifications/progress" => {
                let secret = params["secret"].as_str().unwrap();
                assert!(self.open.values().any(|open| open == secret), "{params}");
                assert_eq!(params["progressToken"], 0);
            }
            other => panic!("{other} reached {}", self.name),
        }
    }

    fn check_answer(&mut self, line: &Value) {
        let id = line["id"].as_u64().unwrap();
        if let Some(uri) = self.ending.remove(&id)
            && line["error"].is_null()
            && self.may_hear.get(&uri).is_some_and(|asked| *asked < id)
        {
            self.may_hear.remove(&uri);
        }
        if self.taken_back.remove(&id) && line["error"].is_object() {
            return;
        }
        let secret = self.open.remove(&id);
        let secret = secret.unwrap_or_else(|| panic!("{} waits for no {id}: {line}", self.name));
        if line["error"].is_object() {
            return;
        }
        if id == 0 {
            let version = &line["result"]["protocolVersion"];
            assert_eq!(version, agreed(&self.version));
            assert_eq!(line["result"]["capabilities"], json!({}));
        } else {
            let got = &line["result"]["secret"];
            assert!(*got == secret.as_str() || got.is_null(), "{line}");
        }
    }
}

#[test]
fn no_legacy_client_hears_of_another_and_each_request_ends_once() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = number("MCP_TCP_PROXY_SHARE_SEEDS");
    let first = number("MCP_TCP_PROXY_SHARE_SEED").unwrap_or(0);
    let (mut answered, mut heard) = (0, 0);
    for seed in first..first + seeds.unwrap_or(40) {
        let result = std::panic::catch_unwind(|| {
            let mut model = Model::new(seed);
            for _ in 0..400 {
                model.step();
            }
            model.settle();
            (model.answered, model.heard)
        });
        let Ok(counts) = result else {
            panic!("seed {seed}");
        };
        answered += counts.0;
        heard += counts.1;
    }
    let is_default = seeds.is_none();
    assert!(
        !is_default || (answered > 1000 && heard > 200),
        "{answered} {heard}: it tests nothing"
    );
}
