//! Random clients and servers against a model: no byte of one client reaches another, and each request has exactly one
//! response or error, unless it was taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::world::{
    ACKNOWLEDGED, CHANGED, SUBSCRIPTION, World, cancelled, limits, notification, request,
};
use crate::share::{Limits, ProcessKey, SeatKey};

/// A generator of random numbers (`SplitMix64`).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }

    pub(super) fn of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let most = all.len() as u64;
        (most > 0).then(|| all[self.below(most) as usize].clone())
    }
}

/// What a client knows.
struct Client {
    name: String,
    seat: SeatKey,
    /// What it waits for: ids as text, and the secrets in the requests. One for each request.
    open: BTreeMap<String, Wanted>,
    /// Secrets of what it has taken back.
    taken_back: BTreeSet<String>,
}

struct Wanted {
    id: Value,
    secret: String,
    token: Value,
    /// What it listens to, if it does.
    listens: Option<String>,
}

/// What a server process knows.
#[derive(Default)]
struct Server {
    /// By number.
    requests: BTreeMap<u64, Value>,
    /// Numbers of what is over.
    over: Vec<u64>,
    /// Numbers of what was taken back.
    cancelled: BTreeSet<u64>,
    /// The input after the last line end.
    partial: bool,
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

const PROCESSES: usize = 2;

/// The one that is asked for the era. All others do what clients want.
const PROBE: ProcessKey = ProcessKey(PROCESSES);

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let max_requests = [None, Some(7)][random.below(2) as usize];
        let mut model = Self {
            world: World::new(Limits {
                processes: PROCESSES,
                max_requests,
                ..limits()
            }),
            random,
            clients: Vec::new(),
            servers: BTreeMap::new(),
            serial: 0,
            answered: 0,
            heard: 0,
        };
        for _ in 0..4 {
            model.arrive();
        }
        model
    }

    fn arrive(&mut self) {
        self.serial += 1;
        let name = format!("client-{}-", self.serial);
        let identity = self.random.below(3) as u32;
        let seat = self.world.seat(identity);
        self.clients.push(Client {
            name,
            seat,
            open: BTreeMap::new(),
            taken_back: BTreeSet::new(),
        });
    }

    fn pick(&mut self) -> usize {
        self.random.below(self.clients.len() as u64) as usize
    }

    /// All processes that do what clients want.
    fn all(&self) -> Vec<ProcessKey> {
        let all = self.world.processes.keys().copied();
        all.filter(|process| *process != PROBE).collect()
    }

    fn some_process(&mut self) -> ProcessKey {
        let all = self.all();
        self.random.of(&all).unwrap_or(PROBE)
    }

    /// Processes that were told to end do.
    fn end_stopped(&mut self) {
        for process in std::mem::take(&mut self.world.stopped) {
            if self.world.processes.contains_key(&process) {
                self.servers.remove(&process);
                self.world.end(process, "exit code 0");
            }
        }
    }

    fn step(&mut self) {
        self.end_stopped();
        match self.random.below(20) {
            0..=5 => self.ask(),
            6 => self.take_back(),
            7 => self.leave(),
            8..=9 => {
                let client = self.pick();
                self.read(client);
            }
            10..=11 => self.server_reads(),
            12..=15 => self.server_answers(),
            16 => self.server_notifies(),
            17 => self.server_misbehaves(),
            18 if self.random.below(10) == 0 => self.crash(),
            18 if self.random.below(10) == 0 => {
                let process = self.some_process();
                self.world.with(|share, cx| share.retire(process, cx));
            }
            _ => {
                let millis = self.random.below(4_000);
                self.world.pass(Duration::from_millis(millis));
            }
        }
    }

    fn ask(&mut self) {
        let client = self.pick();
        self.serial += 1;
        let secret = format!("{}{}", self.clients[client].name, self.serial);
        let ids = [
            json!(0),
            json!("0"),
            json!(1),
            json!(1.5),
            json!("é"),
            json!(2),
        ];
        let id = self.random.of(&ids).unwrap();
        let token = self.random.of(&ids[..2]).unwrap();
        let listens = (self.random.below(4) == 0).then(|| format!("what{}", self.random.below(2)));
        let (method, mut params) = match &listens {
            Some(what) => (
                "subscriptions/listen",
                json!({"notifications": {what: true}}),
            ),
            None => (
                "tools/call",
                json!({"secret": secret, "_meta": {"progressToken": token}}),
            ),
        };
        if self.random.below(8) == 0 {
            params["_meta"]["io.modelcontextprotocol/logLevel"] = json!("debug");
        }
        if self.random.below(30) == 0 {
            params["filler"] = json!("y".repeat(30_000));
        }
        let line = request(id.clone(), method, params);
        let seat = self.clients[client].seat;
        let is_open = self.clients[client].open.contains_key(&id.to_string());
        if is_open {
            // It is refused under the id of the one that is open; a client that does this can't tell.
            self.read(client);
            if self.clients[client].open.contains_key(&id.to_string()) {
                self.world.client(seat, &line);
                let got = self.world.read(seat);
                let refused = got
                    .iter()
                    .find(|line| line["id"] == id && !line["error"].is_null());
                let refused = refused.expect("a second request of an id is refused");
                assert_eq!(refused["error"]["data"]["reason"], "invalid_request");
                return;
            }
        }
        let wanted = Wanted {
            id: id.clone(),
            secret,
            token,
            listens,
        };
        self.clients[client].open.insert(id.to_string(), wanted);
        self.world.client(seat, &line);
    }

    fn take_back(&mut self) {
        let client = self.pick();
        self.read(client);
        let ids: Vec<String> = self.clients[client].open.keys().cloned().collect();
        let (Some(id), seat) = (self.random.of(&ids), self.clients[client].seat) else {
            return;
        };
        let wanted = self.clients[client].open.remove(&id).unwrap();
        self.clients[client].taken_back.insert(wanted.secret);
        self.world.client(seat, &cancelled(&wanted.id));
    }

    fn leave(&mut self) {
        if self.random.below(3) > 0 {
            return;
        }
        let client = self.pick();
        let gone = self.clients.remove(client);
        self.world.leave(gone.seat);
        self.arrive();
    }

    /// A client reads all that is there, and makes sure that all of it is for it.
    fn read(&mut self, client: usize) {
        let seat = self.clients[client].seat;
        let bytes = self.world.read_bytes(seat);
        let text = String::from_utf8(bytes).unwrap();
        for line in text.lines() {
            self.check_line(client, line);
        }
    }

    fn check_line(&mut self, client: usize, line: &str) {
        let client = &mut self.clients[client];
        let others = line.replace(&client.name, "");
        assert!(!others.contains("client-"), "{}: {line}", client.name);
        let line: Value = serde_json::from_str(line).unwrap();
        if line["method"].is_null() {
            let id = line["id"].to_string();
            let wanted = client.open.remove(&id);
            let wanted =
                wanted.unwrap_or_else(|| panic!("{} waits for no {id}: {line}", client.name));
            self.answered += 1;
            if line["error"].is_null() {
                match &wanted.listens {
                    None => assert_eq!(line["result"]["secret"], *wanted.secret),
                    Some(what) => {
                        assert_eq!(line["result"]["_meta"][SUBSCRIPTION], wanted.id);
                        // The proxy ends those of a process that is replaced.
                        let is_own = line["result"]["resultType"] == "complete";
                        assert!(is_own || line["result"]["what"] == **what, "{line}");
                    }
                }
            }
            return;
        }
        self.heard += 1;
        let params = &line["params"];
        let secret = params["secret"].as_str().unwrap_or_default();
        assert!(!client.taken_back.contains(secret), "it was taken back");
        match line["method"].as_str().unwrap() {
            "notifications/progress" => {
                let mut open = client.open.values();
                let of = open.find(|wanted| wanted.secret == secret);
                let of = of.unwrap_or_else(|| panic!("progress of what is over: {line}"));
                assert_eq!(params["progressToken"], of.token);
            }
            ACKNOWLEDGED | CHANGED => {
                let id = params["_meta"][SUBSCRIPTION].to_string();
                let of = &client.open[&id];
                assert_eq!(params["what"], **of.listens.as_ref().unwrap());
            }
            "notifications/cancelled" => {
                let id = params["requestId"].to_string();
                client.open.remove(&id).expect("what is cancelled is open");
                self.answered += 1;
            }
            other => panic!("{other} reached {}", client.name),
        }
    }

    fn server_reads(&mut self) {
        let process = self.some_process();
        let most = [7, 300, usize::MAX][self.random.below(3) as usize];
        self.world.take(process, most);
        self.note_input(process);
    }

    fn note_input(&mut self, process: ProcessKey) {
        let lines = self.world.take_lines(process);
        let server = self.servers.entry(process).or_default();
        server.partial = self
            .world
            .processes
            .get(&process)
            .is_some_and(|rest| !rest.is_empty());
        for line in lines {
            let text = line.to_string();
            assert!(!text.contains("logLevel"), "{line}");
            if let Some(number) = line["id"].as_u64().filter(|_| !line["method"].is_null()) {
                assert!(!server.requests.contains_key(&number) && !server.over.contains(&number));
                let token = &line["params"]["_meta"]["progressToken"];
                assert!(token.is_null() || *token == line["id"], "{line}");
                server.requests.insert(number, line);
            } else if line["method"] == "notifications/cancelled" {
                let number = line["params"]["requestId"].as_u64().expect("a number");
                let is_known =
                    server.requests.contains_key(&number) || server.over.contains(&number);
                assert!(is_known, "never asked: {line}");
                assert!(
                    server.cancelled.insert(number),
                    "it is cancelled twice: {line}"
                );
            }
        }
    }

    fn some_request(&mut self) -> Option<(ProcessKey, u64, Value)> {
        let process = self.some_process();
        let server = self.servers.get(&process)?;
        let numbers: Vec<u64> = server.requests.keys().copied().collect();
        let number = self.random.of(&numbers)?;
        Some((
            process,
            number,
            self.servers[&process].requests[&number].clone(),
        ))
    }

    fn server_answers(&mut self) {
        let Some((process, number, request)) = self.some_request() else {
            return;
        };
        let server = self.servers.get_mut(&process).unwrap();
        server.requests.remove(&number);
        server.over.push(number);
        let line = self.response(number, &request);
        if self.random.below(20) == 0 {
            let line = cancelled(&json!(number));
            return self.world.server(process, &line);
        }
        self.world.server(process, &line);
        if self.random.below(4) == 0 {
            self.world.server(process, &line);
        }
    }

    fn response(&mut self, number: u64, request: &Value) -> Value {
        let id = [
            json!(number),
            json!(number.to_string()),
            json!(number as f64),
        ];
        let id = self.random.of(&id).unwrap();
        let filler = [0, 0, 0, 0, 30_000][self.random.below(5) as usize];
        let filler = "x".repeat(filler);
        match what(request) {
            Some(what) => {
                let meta = json!({SUBSCRIPTION: number});
                json!({"id": id, "result": {"_meta": meta, "what": what, "f": filler}})
            }
            None => {
                json!({"id": id, "result": {"secret": request["params"]["secret"], "f": filler}})
            }
        }
    }

    fn server_notifies(&mut self) {
        let Some((process, number, request)) = self.some_request() else {
            return;
        };
        let line = if let Some(what) = what(&request) {
            let method = [ACKNOWLEDGED, CHANGED][self.random.below(2) as usize];
            let mut line = notification(method, &json!(number));
            line["params"]["what"] = json!(what);
            line
        } else {
            let secret = &request["params"]["secret"];
            let params = json!({"progressToken": number, "secret": secret});
            json!({"method": "notifications/progress", "params": params})
        };
        self.world.server(process, &line);
    }

    /// A server says what it should not: about what is over, about what never was, about what another process has, to
    /// everybody.
    fn server_misbehaves(&mut self) {
        let to = self.some_process();
        if !self.world.processes.contains_key(&to) {
            return;
        }
        let other = self.some_process();
        if other == to {
            return;
        }
        let others = self
            .servers
            .get(&other)
            .map(|server| server.requests.keys().copied().collect::<Vec<u64>>());
        let over = self.servers.get(&to).map(|server| server.over.clone());
        let mut numbers: Vec<u64> = others.unwrap_or_default();
        numbers.extend(over.unwrap_or_default());
        numbers.push(1_000_000);
        let number = self.random.of(&numbers).unwrap();
        let secret = "client-nobody";
        let lines = [
            json!({"id": number, "result": {"secret": secret}}),
            json!({"id": null, "result": {"secret": secret}}),
            json!({"method": "notifications/progress", "params": {"progressToken": number, "secret": secret}}),
            json!({"method": "notifications/message", "params": {"data": secret}}),
            json!({"method": CHANGED, "params": {"secret": secret}}),
            json!({"method": CHANGED, "params": {"secret": secret, "_meta": {SUBSCRIPTION: number}}}),
            json!({"id": number, "method": "roots/list", "params": {"secret": secret}}),
            json!([{"id": number, "result": {"secret": secret}}]),
            cancelled(&json!(number)),
        ];
        let line = self.random.of(&lines).unwrap();
        self.world.server(to, &line);
    }

    fn crash(&mut self) {
        let process = self.some_process();
        if self.world.processes.contains_key(&process) {
            self.servers.remove(&process);
            self.world.end(process, "exit code 1");
        }
    }

    /// Whether a client waits for the response to a request.
    fn is_wanted(&self, request: &Value) -> bool {
        let mut open = self.clients.iter().flat_map(|client| client.open.values());
        match what(request) {
            Some(what) => open.any(|wanted| wanted.listens.as_ref() == Some(&what)),
            None => open.any(|wanted| request["params"]["secret"] == *wanted.secret),
        }
    }

    /// All that is open is answered at last.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(
                round < 1000,
                "it does not come to an end: {:#?}",
                self.world.share
            );
            self.end_stopped();
            for client in 0..self.clients.len() {
                self.read(client);
            }
            for process in self.all() {
                while !self.world.share.to_process(process).is_empty()
                    && self.world.processes.contains_key(&process)
                {
                    self.world.take(process, usize::MAX);
                    self.note_input(process);
                }
                let Some(server) = self.servers.get_mut(&process) else {
                    continue;
                };
                let numbers: Vec<u64> = server.requests.keys().copied().collect();
                for number in numbers {
                    // It may have been replaced because of the answer before.
                    self.world.take(process, usize::MAX);
                    self.note_input(process);
                    let server = self.servers.get_mut(&process).unwrap();
                    let request = server.requests.remove(&number).unwrap();
                    let is_cancelled = self.servers[&process].cancelled.contains(&number);
                    let is_wanted = self.is_wanted(&request);
                    assert!(is_cancelled || is_wanted, "nobody waits: {request}");
                    // Who listens to the same may share another listen.
                    let is_call = what(&request).is_none();
                    assert!(!(is_cancelled && is_wanted && is_call), "{request}");
                    let line = self.response(number, &request);
                    self.world.server(process, &line);
                    let server = self.servers.get_mut(&process).unwrap();
                    server.over.push(number);
                    for client in 0..self.clients.len() {
                        self.read(client);
                    }
                }
            }
            if self.clients.iter().all(|client| client.open.is_empty()) {
                break;
            }
            self.world.pass(Duration::from_secs(5));
        }
        self.world.pass(Duration::from_mins(2));
        for process in &self.world.share.processes {
            assert_eq!(process.in_flight, 0, "{:?}", process.owners);
            assert!(process.owners.is_empty());
            assert_eq!(process.listens.len(), 0);
            assert!(process.turns.is_empty());
        }
        for client in std::mem::take(&mut self.clients) {
            let seat = &self.world.share.seats[client.seat.0];
            assert!(seat.open.is_empty() && seat.waiting.is_empty());
            assert_eq!((seat.at_process, seat.listens), (0, 0));
            self.world.leave(client.seat);
        }
        let bytes: usize = self.world.share.processes.iter().map(|it| it.charged).sum();
        assert_eq!(self.world.memory.used(), bytes);
    }
}

/// What a request listens to.
fn what(request: &Value) -> Option<String> {
    let notifications = request["params"]["notifications"].as_object()?;
    notifications.keys().next().cloned()
}

#[test]
fn no_client_hears_of_another_and_each_request_ends_once() {
    let seeds: Option<u64> = std::env::var("MCP_TCP_PROXY_SHARE_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let first = std::env::var("MCP_TCP_PROXY_SHARE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
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
