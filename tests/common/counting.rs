//! A client that has its session kept, and counts the lines that it gets.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Client, DEADLINE, NoLine, Proxy, eventually};

/// A client that counts the lines that it gets.
pub(crate) struct Counting {
    pub(crate) client: Client,
    pub(crate) id: String,
    /// Lines that were taken of the proxy.
    pub(crate) taken: u64,
}

/// The first line of a client; `previous` says whose session it wants back.
pub(crate) fn first_line(id: &str, previous: Option<(&str, u64, u64)>) -> String {
    first_line_with(id, 30.0, previous)
}

pub(crate) fn first_line_with(
    id: &str,
    heartbeat: f64,
    previous: Option<(&str, u64, u64)>,
) -> String {
    let mut resume = json!({"version": 1, "session": id, "heartbeat": heartbeat});
    if let Some((session, attempt, lines)) = previous {
        resume["previous"] = json!({"session": session, "attempt": attempt, "lines": lines});
    }
    json!({"type": "handshake", "resume": resume}).to_string()
}

/// An id of 32 times this digit.
pub(crate) fn id(digit: char) -> String {
    digit.to_string().repeat(32)
}

impl Counting {
    /// Asks for a session to be kept, and is granted that.
    #[track_caller]
    pub(crate) fn ask(proxy: &Proxy, digit: char) -> Self {
        Self::ask_over(proxy.connect(), digit)
    }

    #[track_caller]
    pub(crate) fn ask_over(client: Client, digit: char) -> Self {
        Self::ask_as(client, id(digit))
    }

    #[track_caller]
    pub(crate) fn ask_as(mut client: Client, id: String) -> Self {
        client.send_line(&first_line(&id, None));
        assert_granted(&client.recv_json());
        Self {
            client,
            id,
            taken: 0,
        }
    }

    /// Comes back with a new connection. Returns what the proxy says to that.
    #[track_caller]
    pub(crate) fn come_back(&mut self, proxy: &Proxy, attempt: u64) -> Value {
        self.client = proxy.connect();
        let previous = Some((self.id.as_str(), attempt, self.taken));
        let fresh = format!("{}{attempt:016}", &self.id[..16]);
        self.client.send_line(&first_line(&fresh, previous));
        self.client.recv_json()
    }

    /// The same at a proxy that is full: whoever is late with the first line is turned away, and tries again.
    #[track_caller]
    pub(crate) fn get_back(&mut self, proxy: &Proxy, first_attempt: u64) {
        let mut attempts = first_attempt..;
        eventually("it is back", DEADLINE, || {
            let verdict = self.come_back(proxy, attempts.next().unwrap());
            let is_late = verdict["error"]["data"]["reason"] == "session_limit";
            assert!(is_late || verdict == resumed(1), "{verdict}");
            !is_late
        });
    }

    /// Sends a line that the server sends back. It is not waited for.
    pub(crate) fn send(&mut self, number: u64) {
        self.client.send_json(&line(number));
    }

    /// The next line has to be this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, number: u64) {
        assert_eq!(self.recv(), line(number));
    }

    #[track_caller]
    pub(crate) fn recv(&mut self) -> Value {
        let line = self.try_recv(DEADLINE).unwrap();
        serde_json::from_slice(&line).unwrap()
    }

    /// The next line that counts.
    pub(crate) fn try_recv(&mut self, deadline: Duration) -> Result<Vec<u8>, NoLine> {
        loop {
            let line = self.client.try_recv(deadline)?;
            let value: Value = serde_json::from_slice(&line).unwrap();
            if !matches!(value["type"].as_str(), Some("ack" | "heartbeat_response")) {
                self.taken += 1;
                return Ok(line);
            }
        }
    }

    pub(crate) fn acknowledge(&mut self) {
        let lines = self.taken;
        self.client
            .send_json(&json!({"type": "heartbeat", "lines": lines}));
    }
}

pub(crate) fn line(number: u64) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"number": number}})
}

#[track_caller]
pub(crate) fn assert_granted(line: &Value) {
    let expected = json!({"type": "resumable", "version": 1, "timeout": 120, "window": 1_048_576});
    let mut line = line.clone();
    assert!(line["timeout"].as_f64().unwrap() > 0.0);
    line["timeout"] = json!(120);
    assert_eq!(line, expected);
}

pub(crate) fn resumed(lines: u64) -> Value {
    json!({"type": "resumed", "lines": lines})
}
