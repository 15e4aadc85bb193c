//! Clients of the demo server that do a bit of everything, at random, and check every answer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, assert_own_error};
use super::connect::{Connect, request};
use super::random::Random;

/// The least receive buffer: of answers that are not read, few are under way.
const SMALL_BUFFER: usize = 4096;

/// An answer may have to wait for a server that is started again, and killed again.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often which things happened.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (what, count) in other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.iter().map(|(what, count)| format!("{count} {what}"));
        f.write_str(&entries.collect::<Vec<_>>().join(", "))
    }
}

/// The id of a request, and the text that is to come back.
type Sent = (u64, Option<String>);

/// By which way a visitor talks to the proxy.
enum Way {
    Tcp(Client),
    /// By a `connect` process.
    Connect(Connect),
}

/// One session of a visitor.
struct Visit<'a> {
    way: Way,
    random: &'a mut Random,
    tally: &'a mut Tally,
    last_id: u64,
    /// How often requests were lost with the server.
    losses: u32,
}

/// Opens a session, calls tools, sends what is no message, has the server crash, and leaves in one way or another. Every
/// request has to be answered in its turn, by the server or, if that was lost, by the proxy.
pub(crate) fn visit(address: SocketAddr, random: &mut Random, tally: &mut Tally) {
    tally.note("sessions");
    let way = match random.below(6) {
        0 => Way::Connect(Connect::start(&[], address)),
        1 => Way::Tcp(Client::connect_with_receive_buffer(address, SMALL_BUFFER)),
        _ => Way::Tcp(Client::connect(address)),
    };
    let mut visit = Visit {
        way,
        random,
        tally,
        last_id: 0,
        losses: 0,
    };
    if visit.random.once_in(10) {
        visit.tally.note("silent ones");
        return visit.leave(Vec::new());
    }
    visit.initialize();
    visit.stay();
    let last_calls = visit.send_calls(10, 200);
    visit.leave(last_calls);
}

impl Visit<'_> {
    fn initialize(&mut self) {
        match &mut self.way {
            Way::Tcp(client) => drop(client.initialize_with(&json!({}), PATIENCE)),
            Way::Connect(connect) => drop(connect.initialize_within(PATIENCE)),
        }
    }

    fn stay(&mut self) {
        for _ in 0..=self.random.below(8) {
            match self.random.below(16) {
                0 => self.say_what_is_no_message(),
                1 => self.crash(),
                2 => self.call_and_read_late(),
                3 => self.call(1, 1_000_000),
                4 => self.call_in_single_bytes(),
                5 => self.beat(),
                _ => self.call(20, 200),
            }
            // The next start would take its time.
            if self.losses > 1 {
                return;
            }
        }
    }

    fn call(&mut self, limit: u64, bytes: u64) {
        let calls = self.send_calls(limit, bytes);
        self.expect_answers(calls);
    }

    fn call_and_read_late(&mut self) {
        self.tally.note("pauses of a reader");
        let calls = self.send_calls(20, 100_000);
        thread::sleep(self.random.milliseconds(200));
        self.expect_answers(calls);
    }

    fn call_in_single_bytes(&mut self) {
        self.tally.note("lines in single bytes");
        let (line, call) = self.next_call(50);
        for byte in line.bytes().chain([b'\n']) {
            self.send_raw(&[byte]);
        }
        self.expect_answers(vec![call]);
    }

    /// Behind `connect`, that is not the host's to say.
    fn beat(&mut self) {
        self.send(r#"{"type":"heartbeat"}"#);
        if matches!(self.way, Way::Connect(_)) {
            assert_own_error(&self.next_answer(), -32600, "invalid_request");
        }
    }

    fn say_what_is_no_message(&mut self) {
        self.tally.note("bad lines");
        self.send("this is no message");
        assert_own_error(&self.next_answer(), -32700, "parse_error");
    }

    /// The server ends with requests before and behind.
    fn crash(&mut self) {
        self.tally.note("crashes");
        let mut calls = self.send_calls(5, 200);
        self.last_id += 1;
        let crash = json!({"name": "crash", "arguments": {"exit_code": 3}});
        self.send(&request(self.last_id, "tools/call", &crash));
        calls.push((self.last_id, None));
        calls.extend(self.send_calls(5, 200));
        self.expect_answers(calls);
    }

    /// Goes in the middle of something, or in good order.
    fn leave(mut self, calls: Vec<Sent>) {
        let in_good_order = self.random.once_in(3);
        let in_the_middle_of_a_line = self.random.once_in(3);
        if in_the_middle_of_a_line && !in_good_order {
            self.send_raw(br#"{"jsonrpc":"2.0","id":"#);
        }
        if in_good_order {
            self.tally.note("half-closes");
            if let Way::Tcp(client) = &mut self.way {
                client.shutdown_write();
            } else if let Way::Connect(connect) = &mut self.way {
                connect.end_input();
            }
            self.expect_answers(calls);
        }
        match self.way {
            Way::Tcp(mut client) if in_good_order => {
                let rest = client.read_to_end();
                assert!(rest.iter().all(|line| !line.contains("\"id\"")), "{rest:?}");
            }
            Way::Tcp(client) if self.random.once_in(2) => {
                self.tally.note("resets");
                client.reset();
            }
            Way::Tcp(client) => {
                self.tally.note("closes");
                client.close();
            }
            Way::Connect(mut connect) if in_good_order => {
                assert_eq!(connect.read_to_end(), [""; 0]);
                connect.wait_exit(0);
            }
            Way::Connect(connect) => {
                self.tally.note("clients killed");
                drop(connect);
            }
        }
    }

    /// Sends up to that many calls; returns what is to come back.
    fn send_calls(&mut self, limit: u64, bytes: u64) -> Vec<Sent> {
        let count = 1 + self.random.below(limit);
        let send = |_| {
            let (line, call) = self.next_call(bytes);
            self.send(&line);
            call
        };
        (0..count).map(send).collect()
    }

    fn next_call(&mut self, bytes: u64) -> (String, Sent) {
        self.last_id += 1;
        let length = usize::try_from(self.random.below(bytes)).unwrap();
        let text = format!("{} {}", self.last_id, "x".repeat(length));
        let echo = json!({"name": "echo", "arguments": {"text": text}});
        (
            request(self.last_id, "tools/call", &echo),
            (self.last_id, Some(text)),
        )
    }

    fn expect_answers(&mut self, calls: Vec<Sent>) {
        let before = self.tally.count("requests lost");
        for (id, text) in calls {
            let answer = self.next_answer();
            assert_eq!(answer["id"], id, "{answer}");
            match text {
                Some(text) if answer.get("error").is_none() => {
                    self.tally.note("requests answered");
                    let same = answer["result"]["content"][0]["text"] == text.as_str();
                    assert!(same, "{text} was changed: {answer}");
                }
                _ => {
                    self.tally.note("requests lost");
                    assert_own_error(&answer, 502, "process_terminated");
                }
            }
        }
        self.losses += u32::from(self.tally.count("requests lost") > before);
    }

    /// The next line that is neither a heartbeat nor a notification.
    fn next_answer(&mut self) -> Value {
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let message = match &mut self.way {
                Way::Tcp(client) => client.recv_json_within(left),
                Way::Connect(connect) => connect.recv_json_within(left),
            };
            if message.get("id").is_some() {
                return message;
            }
        }
    }

    fn send(&mut self, line: &str) {
        self.send_raw(format!("{line}\n").as_bytes());
    }

    fn send_raw(&mut self, bytes: &[u8]) {
        match &mut self.way {
            Way::Tcp(client) => client.send_raw(bytes),
            Way::Connect(connect) => connect.send_raw(bytes),
        }
    }
}
