//! Many upgrades of a busy proxy: every request has one response, in order.
//!
//! `MCP_TCP_PROXY_UPGRADES` and `MCP_TCP_PROXY_UPGRADE_SESSIONS` set how many upgrades there are, and how many sessions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::client::modern_meta;
use crate::common::{Client, DEADLINE, Finally, Proxy, eventually, servers};
use crate::upgrade;

pub(super) fn setting(name: &str, default: usize) -> usize {
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
    era: Era,
    /// Whether servers crash of it.
    may_crash: bool,
}

/// How a client talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

impl Busy<'_> {
    /// Asks without end, some requests at a time, and takes the responses in order. Every so often a server crashes, and
    /// what it had is answered with an error.
    fn run(mut self) {
        let mut round = 0;
        while !self.load.is_over.load(Ordering::Relaxed) {
            round += 1;
            let crashes = self.may_crash && self.number % 10 == 3 && round % 50 == 0;
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
        let mut params = params.clone();
        if self.era == Era::Modern {
            params["_meta"] = modern_meta();
        }
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
    let options = [
        "--prespawn",
        "2",
        "--max-restarts",
        "1000",
        "--spawn",
        "lazy",
    ];
    upgrade_often(&options, &[Era::Legacy], true);
}

/// The servers of both eras are shared, and none of them crashes.
#[test]
fn busy_clients_of_shared_servers_lose_nothing_either() {
    let options = ["--share", "2", "--share-legacy"];
    let proxy = upgrade_often(&options, &[Era::Legacy, Era::Modern], false);
    eventually("the same as before, and no others", DEADLINE, || {
        proxy.servers().len() == 4
    });
    assert!(!proxy.log().join("\n").contains("ended ("));
}

/// Has a busy proxy upgraded again and again, with clients of these eras by turns.
fn upgrade_often(options: &[&str], eras: &[Era], may_crash: bool) -> Proxy {
    let upgrades = setting("UPGRADES", 6);
    let sessions = setting("UPGRADE_SESSIONS", 24);
    let proxy = Proxy::start(options, &servers::demo());
    // These say nothing before all is over.
    let mut silent: Vec<Client> = (0..=sessions / 10).map(|_| proxy.connect()).collect();
    let eras = eras.iter().copied().cycle();
    let clients: Vec<(Client, Era)> = eras
        .take(sessions)
        .map(|era| {
            let mut client = proxy.connect();
            if era == Era::Legacy {
                client.initialize();
            }
            (client, era)
        })
        .collect();
    let load = Load::default();
    thread::scope(|scope| {
        let ended = Finally(&load.is_over);
        for (number, (client, era)) in clients.into_iter().enumerate() {
            let busy = Busy {
                load: &load,
                client,
                number,
                last_id: 1000,
                era,
                may_crash,
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
    proxy
}
