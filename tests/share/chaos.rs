//! Clients and servers that come and go at random: no client hears of another, and none waits for ever.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::call;
use crate::common::{Client, DEADLINE, NoLine, Proxy, Random, skip_on_reference};

const CLIENTS: u64 = 30;

const STEPS: usize = 2000;

/// How long the shortest wait for a line is.
const AT_ONCE: Duration = Duration::from_millis(1);

struct Visitor {
    client: Client,
    name: String,
    /// What it waits for, by id.
    open: HashMap<u64, String>,
    /// What it has taken back; a response may cross that.
    taken_back: HashSet<u64>,
}

impl Visitor {
    fn ask(&mut self, params: &Value, text: String) {
        let id = self.client.send_request("tools/call", params);
        self.open.insert(id, text);
    }
}

struct Chaos {
    proxy: Proxy,
    random: Random,
    visitors: Vec<Visitor>,
    arrived: usize,
    answers: usize,
    errors: usize,
}

impl Chaos {
    fn arrive(&mut self) -> Visitor {
        self.arrived += 1;
        let own = Ipv4Addr::new(127, 0, 1, 1 + (self.arrived % 200) as u8);
        Visitor {
            // Nobody is to pay for others who were at servers that were killed.
            client: Client::connect_from(own, self.proxy.address()),
            name: format!("visitor-{}-", self.arrived),
            open: HashMap::new(),
            taken_back: HashSet::new(),
        }
    }

    fn step(&mut self) {
        let at = self.random.below(CLIENTS) as usize;
        match self.random.below(100) {
            0..55 => self.ask(at),
            55..60 => self.take_back(at),
            60..63 => {
                let new = self.arrive();
                let old = std::mem::replace(&mut self.visitors[at], new);
                if self.random.below(2) == 0 {
                    old.client.reset();
                } else {
                    old.client.close();
                }
            }
            63..67 => {
                let servers = self.proxy.servers();
                if let Some(server) = self.random.pick(&servers) {
                    // It may be gone.
                    let _ = kill(Pid::from_raw(*server), Signal::SIGKILL);
                }
            }
            _ => self.read(at, AT_ONCE),
        }
    }

    fn ask(&mut self, at: usize) {
        let visitor = &mut self.visitors[at];
        let what = self.random.below(1000);
        let mut text = format!("{}{what}", visitor.name);
        if what.is_multiple_of(20) {
            text.push_str(&"x".repeat(100_000));
        }
        let params = if what.is_multiple_of(3) {
            call("sleep", &json!({"seconds": 0.01}))
        } else {
            call("echo", &json!({"text": text}))
        };
        visitor.ask(&params, text);
    }

    /// Reads until this one waits for nothing.
    fn settle(&mut self, at: usize) {
        let start = Instant::now();
        while !self.visitors[at].open.is_empty() {
            assert!(
                start.elapsed() < DEADLINE,
                "{:?}",
                self.visitors[at].open.keys()
            );
            self.read(at, AT_ONCE);
        }
    }

    /// Kills servers until a request is lost with one: by chance alone, it may be that none was.
    fn lose_a_request(&mut self) {
        let start = Instant::now();
        while self.errors == 0 {
            assert!(start.elapsed() < DEADLINE, "no request is lost");
            self.visitors[0].ask(&call("sleep", &json!({"seconds": 10.01})), String::new());
            self.read(0, Duration::from_millis(50));
            for server in self.proxy.servers() {
                // It may be gone.
                let _ = kill(Pid::from_raw(server), Signal::SIGKILL);
            }
            self.settle(0);
        }
    }

    fn take_back(&mut self, at: usize) {
        let visitor = &mut self.visitors[at];
        let Some(id) = visitor.open.keys().min().copied() else {
            return;
        };
        visitor.open.remove(&id);
        visitor.taken_back.insert(id);
        visitor
            .client
            .notify("notifications/cancelled", &json!({"requestId": id}));
    }

    fn read(&mut self, at: usize, deadline: Duration) {
        loop {
            let line = match self.visitors[at].client.try_recv(deadline) {
                Ok(line) => line,
                Err(NoLine::Deadline) => return,
                Err(other) => panic!("{other:?}"),
            };
            self.check(at, &line);
        }
    }

    fn check(&mut self, at: usize, line: &[u8]) {
        let visitor = &mut self.visitors[at];
        let line = std::str::from_utf8(line).unwrap();
        let others = line.replace(&visitor.name, "");
        assert!(!others.contains("visitor-"), "{}: {line}", visitor.name);
        let line: Value = serde_json::from_str(line).unwrap();
        if line["method"] == "$/mcp/serverRestarted" {
            return;
        }
        let id = line["id"].as_u64().unwrap();
        if visitor.taken_back.remove(&id) {
            return;
        }
        let text = visitor.open.remove(&id);
        let text = text.unwrap_or_else(|| panic!("{} waits for no {id}: {line}", visitor.name));
        if line["error"].is_object() {
            assert_eq!(line["error"]["data"]["source"], "mcp-tcp-proxy", "{line}");
            self.errors += 1;
        } else {
            let got = line["result"]["content"][0]["text"].as_str().unwrap();
            assert!(got == text || got.contains("0.01"), "{got}");
            self.answers += 1;
        }
    }
}

#[test]
fn whatever_happens_no_client_hears_of_another() {
    skip_on_reference!("has nothing shared");
    let options = ["--share", "3", "--max-restarts", "1000", "--demo"];
    let mut chaos = Chaos {
        proxy: Proxy::start(&options, &[]),
        random: Random::seeded(),
        visitors: Vec::new(),
        arrived: 0,
        answers: 0,
        errors: 0,
    };
    for _ in 0..CLIENTS {
        let visitor = chaos.arrive();
        chaos.visitors.push(visitor);
    }
    for _ in 0..STEPS {
        chaos.step();
    }
    for at in 0..chaos.visitors.len() {
        chaos.settle(at);
    }
    chaos.lose_a_request();
    eprintln!("{} answers, {} errors", chaos.answers, chaos.errors);
    assert!(chaos.answers > STEPS / 10 && chaos.errors > 0);
    chaos.proxy.signal(Signal::SIGTERM);
    assert_eq!(chaos.proxy.wait_exit(DEADLINE).code(), Some(0));
}
