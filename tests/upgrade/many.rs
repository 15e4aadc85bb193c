//! Many upgrades of a busy proxy: every request has one response, in order.
//!
//! `MCP_TCP_PROXY_UPGRADES` and `MCP_TCP_PROXY_UPGRADE_SESSIONS` set how many upgrades there are, and how many sessions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Client, DEADLINE, Finally, Proxy, eventually, servers};
use crate::upgrade;

fn setting(name: &str, default: usize) -> usize {
    let text = std::env::var(format!("MCP_TCP_PROXY_{name}"));
    text.map_or(default, |text| text.parse().unwrap())
}

/// What all clients share.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    exchanges: AtomicU64,
}

/// A client with manners of its own.
struct Busy<'a> {
    load: &'a Load,
    client: Client,
    number: usize,
    last_id: u64,
}

impl Busy<'_> {
    /// Asks without end, some requests at a time, and takes the responses in order. Every so often a server crashes, and
    /// what it had is answered with an error.
    fn run(mut self) {
        let mut round = 0;
        while !self.load.is_over.load(Ordering::Relaxed) {
            round += 1;
            let crashes = self.number % 10 == 3 && round % 50 == 0;
            self.round(round, crashes);
            // Some have less to say.
            let pause = if self.number % 5 == 4 { 20 } else { 2 };
            thread::sleep(Duration::from_millis(pause));
        }
    }

    fn round(&mut self, round: usize, crashes: bool) {
        let filler = "x".repeat(self.number % 7 * 1000);
        let text = format!("{} {round} {filler}", self.number);
        let echo = json!({"name": "echo", "arguments": {"text": text}});
        let mut ids: Vec<u64> = (0..=self.number % 4).map(|_| self.ask(&echo)).collect();
        if crashes {
            ids.push(self.ask(&json!({"name": "crash", "arguments": {}})));
        }
        // Some are slow to listen.
        if self.number % 8 == 7 {
            thread::sleep(Duration::from_millis(10));
        }
        for id in ids {
            let answer = self.next_response();
            assert_eq!(answer["id"], id, "{answer}");
            if answer.get("error").is_none() {
                assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}");
            } else {
                assert!(crashes, "{answer}");
                assert_eq!(answer["error"]["data"]["reason"], "process_terminated");
            }
            self.load.exchanges.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Some send half of a line first.
    fn ask(&mut self, params: &Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        let line = format!("{request}\n");
        let half = if self.number % 3 == 1 {
            line.len() / 2
        } else {
            0
        };
        self.client.send_raw(&line.as_bytes()[..half]);
        if half > 0 {
            thread::yield_now();
        }
        self.client.send_raw(&line.as_bytes()[half..]);
        id
    }

    fn next_response(&mut self) -> Value {
        loop {
            let message = self.client.recv_json_within(3 * DEADLINE);
            if message.get("id").is_some() && message.get("method").is_none() {
                return message;
            }
        }
    }
}

#[test]
fn busy_sessions_lose_nothing_by_many_upgrades() {
    let upgrades = setting("UPGRADES", 6);
    let sessions = setting("UPGRADE_SESSIONS", 24);
    let options = [
        "--prespawn",
        "2",
        "--max-restarts",
        "1000",
        "--spawn",
        "lazy",
    ];
    let proxy = Proxy::start(&options, &servers::demo());
    // These say nothing before all is over.
    let mut silent: Vec<Client> = (0..=sessions / 10).map(|_| proxy.connect()).collect();
    let clients: Vec<Client> = (0..sessions)
        .map(|_| {
            let mut client = proxy.connect();
            client.initialize();
            client
        })
        .collect();
    let load = Load::default();
    thread::scope(|scope| {
        let ended = Finally(&load.is_over);
        for (number, client) in clients.into_iter().enumerate() {
            let busy = Busy {
                load: &load,
                client,
                number,
                last_id: 1000,
            };
            scope.spawn(move || busy.run());
        }
        for _ in 0..upgrades {
            let before = load.exchanges.load(Ordering::Relaxed);
            upgrade(&proxy);
            eventually("the sessions to go on", 3 * DEADLINE, || {
                load.exchanges.load(Ordering::Relaxed) > before + sessions as u64
            });
        }
        drop(ended);
    });
    for client in &mut silent {
        client.initialize();
    }
    for line in proxy.wait_for_logs(crate::GOES_ON, upgrades) {
        println!("{line}");
    }
    println!("{} exchanges", load.exchanges.load(Ordering::Relaxed));
}
