//! Many upgrades in a row under sessions of all kinds: servers crash and are replayed to, clients are slow, or come to speak
//! late, lines come in halves, connections are lost and come back. Every request has one response, in order.
//!
//! `MCP_TCP_PROXY_UPGRADES` and `MCP_TCP_PROXY_UPGRADE_SESSIONS` set how many upgrades there are, and how many sessions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::counting::{Counting, resumed};
use crate::common::{Client, DEADLINE, Finally, Proxy, eventually, servers};
use crate::many::setting;
use crate::upgrade;

/// No upgrade is begun after this time.
const TIME: Duration = Duration::from_mins(2);

/// How long a response may take on a machine that has too much to do.
const PATIENCE: Duration = Duration::from_mins(1);

/// What all clients share.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    upgrades: AtomicU64,
    /// Sessions that have begun.
    begun: AtomicU64,
    exchanges: AtomicU64,
    lost: AtomicU64,
    doubled: AtomicU64,
    reordered: AtomicU64,
    crashes: AtomicU64,
    returns: AtomicU64,
    /// How long a client of which nothing is slow has waited for a response, in microseconds.
    longest_wait: AtomicU64,
    /// Between two rounds of a client.
    rest: Duration,
}

impl Load {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn upgrades(&self) -> u64 {
        self.upgrades.load(Ordering::Relaxed)
    }

    /// Waits until another program goes on, or it is over.
    fn wait_for_upgrade(&self) {
        let before = self.upgrades();
        while !self.is_over() && self.upgrades() == before {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What is particular about a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Its server crashes, and is started again while there are more requests.
    Crashing,
    /// It sends a lot and reads late.
    Slow,
    /// It has nothing to say for a while, and goes soon after it has.
    Late,
    /// It loses its connection and comes back.
    Returning,
    /// It has half a line under way for a while.
    Halting,
}

impl Kind {
    /// It does what is particular about it once in so many upgrades. Sessions that have lost their server come before those
    /// that never had one: if too many did, these would have to wait for too long.
    fn period(self) -> u64 {
        if self == Self::Crashing { 20 } else { 5 }
    }
}

const KINDS: [Kind; 8] = [
    Kind::Plain,
    Kind::Crashing,
    Kind::Slow,
    Kind::Late,
    Kind::Returning,
    Kind::Halting,
    Kind::Plain,
    Kind::Crashing,
];

enum Wire {
    Plain(Client),
    Kept {
        counting: Counting,
        /// What it has sent.
        lines: Vec<String>,
        attempts: u64,
    },
}

struct Caller<'a> {
    load: &'a Load,
    proxy: &'a Proxy,
    number: u64,
    kind: Kind,
    wire: Wire,
    last_id: u64,
    /// Before this upgrade, it does nothing special.
    next_special: u64,
    /// The ids of requests with their texts; `None`: the server crashes of it.
    expected: VecDeque<(u64, Option<String>)>,
}

impl<'a> Caller<'a> {
    fn new(load: &'a Load, proxy: &'a Proxy, number: u64, kind: Kind) -> Self {
        let client = proxy.connect();
        let wire = if kind == Kind::Returning {
            let id = format!("{number:016x}{:016x}", u64::MAX);
            Wire::Kept {
                counting: Counting::ask_as(client, id),
                lines: Vec::new(),
                attempts: 0,
            }
        } else {
            Wire::Plain(client)
        };
        Self {
            load,
            proxy,
            number,
            kind,
            wire,
            last_id: 0,
            next_special: number % kind.period(),
            expected: VecDeque::new(),
        }
    }

    fn run(mut self) {
        let has_begun = || self.load.begun.fetch_add(1, Ordering::Relaxed);
        if self.kind == Kind::Late {
            has_begun();
            self.load.wait_for_upgrade();
            self.initialize();
        } else {
            self.initialize();
            has_begun();
        }
        while !self.load.is_over() {
            self.round();
            thread::sleep(self.load.rest);
        }
    }

    fn round(&mut self) {
        if self.load.upgrades() >= self.next_special {
            self.next_special += self.kind.period();
            self.be_special();
        }
        for _ in 0..=self.number % 3 {
            self.ask(self.number as usize % 7 * 500);
        }
        self.take_all();
    }

    fn be_special(&mut self) {
        match self.kind {
            Kind::Plain => {}
            Kind::Crashing => self.crash(),
            Kind::Slow => self.send_much(),
            Kind::Late => self.begin_anew(),
            Kind::Returning => {
                self.ask(100);
                self.lose_connection();
            }
            Kind::Halting => self.halt(),
        }
    }

    fn initialize(&mut self) {
        let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
        self.send(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}));
        let answer = self.next_response();
        assert_eq!(answer["id"], 0, "{answer}");
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    }

    fn crash(&mut self) {
        self.call("crash", &json!({}), None);
        self.take_all();
        self.load.crashes.fetch_add(1, Ordering::Relaxed);
    }

    fn send_much(&mut self) {
        for _ in 0..4 {
            self.ask(40_000);
        }
        self.load.wait_for_upgrade();
    }

    fn begin_anew(&mut self) {
        self.wire = Wire::Plain(self.proxy.connect());
        self.load.wait_for_upgrade();
        self.initialize();
    }

    fn halt(&mut self) {
        let (line, id, text) = self.request(3000);
        self.send_bytes(&line.as_bytes()[..line.len() / 2]);
        self.load.wait_for_upgrade();
        self.send_bytes(&line.as_bytes()[line.len() / 2..]);
        self.expected.push_back((id, Some(text)));
    }

    fn lose_connection(&mut self) {
        let (load, proxy) = (self.load, self.proxy);
        let Wire::Kept {
            counting,
            lines,
            attempts,
        } = &mut self.wire
        else {
            return;
        };
        // That of a connection that ends, in place of this one.
        counting.client = proxy.connect();
        load.wait_for_upgrade();
        *attempts += 1;
        let verdict = counting.come_back(proxy, *attempts);
        let taken = verdict["lines"].as_u64().unwrap();
        assert_eq!(verdict, resumed(taken));
        for line in &lines[usize::try_from(taken).unwrap()..] {
            counting.client.send_raw(line.as_bytes());
        }
        load.returns.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks for an echo of so many bytes.
    fn ask(&mut self, bytes: usize) {
        let (line, id, text) = self.request(bytes);
        self.send_line(line);
        self.expected.push_back((id, Some(text)));
    }

    fn request(&mut self, bytes: usize) -> (String, u64, String) {
        let text = format!("{} {} {}", self.number, self.last_id, "x".repeat(bytes));
        let line = self.line("echo", &json!({"text": text}));
        (line, self.last_id, text)
    }

    fn call(&mut self, name: &str, arguments: &Value, text: Option<String>) {
        let line = self.line(name, arguments);
        self.send_line(line);
        self.expected.push_back((self.last_id, text));
    }

    fn line(&mut self, name: &str, arguments: &Value) -> String {
        self.last_id += 1;
        let params = json!({"name": name, "arguments": arguments});
        let request =
            json!({"jsonrpc": "2.0", "id": self.last_id, "method": "tools/call", "params": params});
        format!("{request}\n")
    }

    fn send(&mut self, message: &Value) {
        self.send_line(format!("{message}\n"));
    }

    fn send_line(&mut self, line: String) {
        self.send_bytes(line.as_bytes());
        if let Wire::Kept { lines, .. } = &mut self.wire {
            lines.push(line);
        }
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        match &mut self.wire {
            Wire::Plain(client) => client.send_raw(bytes),
            Wire::Kept { counting, .. } => counting.client.send_raw(bytes),
        }
    }

    /// Takes what is expected, and counts what else there is.
    fn take_all(&mut self) {
        while !self.expected.is_empty() {
            let begin = Instant::now();
            let answer = self.next_response();
            if matches!(self.kind, Kind::Plain) {
                let waited = begin.elapsed().as_micros() as u64;
                self.load.longest_wait.fetch_max(waited, Ordering::Relaxed);
            }
            self.take(&answer);
        }
        if let Wire::Kept { counting, .. } = &mut self.wire {
            counting.acknowledge();
        }
    }

    fn take(&mut self, answer: &Value) {
        let id = answer["id"].as_u64().unwrap();
        let at = self.expected.iter().position(|(other, _)| *other == id);
        let Some((_, text)) = at.and_then(|at| self.expected.remove(at)) else {
            self.load.doubled.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if at != Some(0) {
            self.load.reordered.fetch_add(1, Ordering::Relaxed);
        }
        match text {
            Some(text) => assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}"),
            None => assert_eq!(answer["error"]["data"]["reason"], "process_terminated"),
        }
        self.load.exchanges.fetch_add(1, Ordering::Relaxed);
    }

    /// What the proxy says about the session.
    fn log(&self) -> String {
        let client = match &self.wire {
            Wire::Plain(client) => client,
            Wire::Kept { counting, .. } => &counting.client,
        };
        let address = client.local_address().to_string();
        let mut lines = self.proxy.log();
        lines.retain(|line| line.contains(&address));
        lines.join("\n")
    }

    /// The next response. One that does not come is lost, and with it the session.
    fn next_response(&mut self) -> Value {
        loop {
            let message = match &mut self.wire {
                Wire::Plain(client) => client.try_recv(PATIENCE),
                Wire::Kept { counting, .. } => counting.try_recv(PATIENCE),
            };
            let Ok(message) = message else {
                let lost = self.expected.len() as u64;
                self.load.lost.fetch_add(lost, Ordering::Relaxed);
                let log = self.log();
                panic!("{:?} {}: {message:?}\n{log}", self.kind, self.number);
            };
            let message: Value = serde_json::from_slice(&message).unwrap();
            if message.get("id").is_some() && message.get("method").is_none() {
                return message;
            }
        }
    }
}

#[test]
#[ignore = "it takes two minutes"]
fn sessions_of_all_kinds_lose_nothing_by_fifty_upgrades() {
    let upgrades = setting("UPGRADES", 50);
    let sessions = setting("UPGRADE_SESSIONS", 500);
    // Some of the servers take their time, so that upgrades meet them when they start.
    let demo = servers::demo().join(" ");
    let server = servers::sh(&format!("[ $(($$ % 2)) = 0 ] || sleep 0.1; exec {demo}"));
    let options = [
        "--prespawn",
        "4",
        "--max-restarts",
        "1000",
        "--max-starting",
        "50",
        "--spawn",
        "lazy",
    ];
    let proxy = Proxy::start(&options, &server);
    let load = Load {
        rest: Duration::from_millis(sessions as u64 / 4),
        ..Load::default()
    };
    let exchanges = || load.exchanges.load(Ordering::Relaxed);
    let mut begin = Instant::now();
    let mut done = 0;
    thread::scope(|scope| {
        let ended = Finally(&load.is_over);
        for (number, kind) in (0..sessions as u64).zip(KINDS.into_iter().cycle()) {
            let (load, proxy) = (&load, &proxy);
            scope.spawn(move || Caller::new(load, proxy, number, kind).run());
        }
        eventually("all to have begun", 6 * DEADLINE, || {
            load.begun.load(Ordering::Relaxed) == sessions as u64
        });
        begin = Instant::now();
        while done < upgrades && begin.elapsed() < TIME {
            let before = exchanges();
            upgrade(&proxy);
            load.upgrades.fetch_add(1, Ordering::Relaxed);
            done += 1;
            eventually("the sessions to go on", 3 * DEADLINE, || {
                exchanges() > before + 3 * sessions as u64
            });
        }
        drop(ended);
    });
    let longest = pauses(&proxy, done).into_iter().fold(0.0, f64::max);
    let [lost, doubled, reordered] =
        [&load.lost, &load.doubled, &load.reordered].map(|count| count.load(Ordering::Relaxed));
    println!(
        "{done} upgrades of {sessions} sessions in {:.0?}: {} exchanges, {lost} lost, {doubled} doubled, {reordered} reordered; \
         {} crashes, {} connections lost and back; longest pause {longest} ms, longest wait for a response {:.1} ms",
        begin.elapsed(),
        exchanges(),
        load.crashes.load(Ordering::Relaxed),
        load.returns.load(Ordering::Relaxed),
        load.longest_wait.load(Ordering::Relaxed) as f64 / 1000.0,
    );
    assert_eq!([lost, doubled, reordered], [0; 3]);
    if !cfg!(debug_assertions) {
        assert!(longest <= 100.0, "the longest pause took {longest} ms");
    }
}

/// How long sessions stood still each time, in milliseconds.
fn pauses(proxy: &Proxy, count: usize) -> Vec<f64> {
    let lines = proxy.wait_for_logs(", after ", count);
    let millis = lines.iter().map(|line| {
        let (_, after) = line.rsplit_once(", after ").unwrap();
        after.strip_suffix(" ms").unwrap().parse().unwrap()
    });
    millis.collect()
}
