//! A share with scripted clients and servers around it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::copy::{Copy, text};
use crate::buffers::budget::BufferBudget;
use crate::share::{Context, Effect, Limits, ProcessKey, SeatKey, Share};
use crate::util::client_address::Origin;
use crate::util::time::Time;

pub(super) const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub(super) const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

/// So much of what happens first is also done to copies, and of the rest some: what has become large takes long to be written.
const FIRST_EVENTS: usize = 40;
const SOME: usize = 50;

pub(super) struct World {
    pub(super) share: Share,
    pub(super) memory: BufferBudget,
    pub(super) now: Time,
    /// What each process that is there has got, and not handled.
    pub(super) processes: BTreeMap<ProcessKey, Vec<u8>>,
    pub(super) closed: Vec<SeatKey>,
    /// Sessions that are to end because the server is another.
    pub(super) changed: Vec<SeatKey>,
    /// Processes that are to end.
    pub(super) stopped: Vec<ProcessKey>,
    /// Those that went because nobody used them.
    pub(super) given_back: Vec<ProcessKey>,
    /// Whether processes that are asked for come at once.
    pub(super) starts: bool,
    pub(super) asked: Vec<ProcessKey>,
    /// How much has happened so far.
    events: usize,
}

pub(super) fn limits() -> Limits {
    Limits {
        processes: 2,
        in_flight: 3,
        max_restarts: 5,
        restarts: true,
        max_message_bytes: 64 * 1024,
        legacy: false,
        handshake_time: Duration::from_secs(30),
        max_age: None,
        max_requests: None,
        hibernate_after: None,
    }
}

impl World {
    /// The server is known to be modern.
    pub(super) fn new(limits: Limits) -> Self {
        let mut world = Self::unprobed(limits);
        let seat = world.seat(9);
        world.client(seat, &request(json!(1), "tools/list", json!({})));
        let probe = ProcessKey(limits.processes);
        world.get(probe);
        world.server(
            probe,
            &json!({"id": 0, "result": {"supportedVersions": ["2026-07-28"]}}),
        );
        world.end(probe, "exit code 0");
        world.leave(seat);
        for process in 0..limits.processes {
            world.get(ProcessKey(process));
        }
        world
    }

    pub(super) fn unprobed(limits: Limits) -> Self {
        Self {
            share: Share::new(limits),
            memory: BufferBudget::new(64 * 1024 * 1024),
            now: Time::from_nanos(1_000_000_000_000),
            processes: BTreeMap::new(),
            closed: Vec::new(),
            changed: Vec::new(),
            stopped: Vec::new(),
            given_back: Vec::new(),
            starts: true,
            asked: Vec::new(),
            events: 0,
        }
    }

    pub(super) fn with<T>(&mut self, act: impl Fn(&mut Share, &mut Context<'_>) -> T) -> T {
        self.events += 1;
        // A copy, written down and read, is to do the same.
        let is_copied = self.events < FIRST_EVENTS || self.events.is_multiple_of(SOME);
        let copy = is_copied.then(|| Copy::of(&self.share, &self.memory));
        let mut cx = Context {
            now: self.now,
            memory: &mut self.memory,
        };
        let result = act(&mut self.share, &mut cx);
        if let Some(mut copy) = copy {
            copy.with(self.now, &act);
            assert_eq!(
                text(&copy.share),
                text(&self.share),
                "a copy goes on otherwise"
            );
        }
        self.carry_out();
        result
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.share.next_effect() {
            match effect {
                Effect::Start(process) if self.starts => {
                    self.processes.insert(process, Vec::new());
                    self.with(|share, cx| share.process_started(process, cx));
                }
                Effect::Start(process) => self.asked.push(process),
                Effect::Close(seat, _) => self.closed.push(seat),
                Effect::Changed(seat) => self.changed.push(seat),
                Effect::Stop(process) => self.stopped.push(process),
                Effect::GiveBack(process) => {
                    let unread = self.processes.remove(&process);
                    assert!(unread.is_some_and(|it| it.is_empty()), "{process:?}");
                    self.given_back.push(process);
                }
                Effect::Write(_)
                | Effect::Wake(_)
                | Effect::NoMessage(..)
                | Effect::TooLong(..) => {}
            }
        }
    }

    pub(super) fn seat(&mut self, identity: u32) -> SeatKey {
        self.share.take_seat(Origin::Ipv4(identity))
    }

    pub(super) fn leave(&mut self, seat: SeatKey) {
        self.with(|share, cx| share.leave(seat, cx));
    }

    pub(super) fn client(&mut self, seat: SeatKey, line: &Value) {
        self.client_text(seat, &line.to_string());
    }

    pub(super) fn client_text(&mut self, seat: SeatKey, line: &str) {
        let line = format!("{line}\n");
        self.with(|share, cx| share.client_lines(seat, line.as_bytes(), cx));
    }

    pub(super) fn server(&mut self, process: ProcessKey, line: &Value) {
        self.server_text(process, &line.to_string());
    }

    pub(super) fn server_text(&mut self, process: ProcessKey, line: &str) {
        let line = format!("{line}\n");
        self.with(|share, cx| share.process_bytes(process, line.as_bytes(), cx));
    }

    /// The process takes up to `most` bytes.
    pub(super) fn take(&mut self, process: ProcessKey, most: usize) {
        let waiting = self.share.to_process(process);
        let count = waiting.len().min(most);
        let bytes = waiting[..count].to_vec();
        if let Some(got) = self.processes.get_mut(&process) {
            got.extend(bytes);
            self.with(|share, cx| share.process_written(process, count, cx));
        }
    }

    /// The lines that a process has got.
    pub(super) fn get(&mut self, process: ProcessKey) -> Vec<Value> {
        loop {
            let before = self.share.to_process(process).len();
            if before == 0 {
                break;
            }
            self.take(process, usize::MAX);
        }
        self.take_lines(process)
    }

    /// Those that are whole of what it has got.
    pub(super) fn take_lines(&mut self, process: ProcessKey) -> Vec<Value> {
        let Some(got) = self.processes.get_mut(&process) else {
            return Vec::new();
        };
        let end = got.iter().rposition(|byte| *byte == b'\n');
        let whole: Vec<u8> = got.drain(..end.map_or(0, |end| end + 1)).collect();
        lines(&whole)
    }

    /// The lines that a client has got.
    pub(super) fn read(&mut self, seat: SeatKey) -> Vec<Value> {
        lines(&self.read_bytes(seat))
    }

    pub(super) fn read_bytes(&mut self, seat: SeatKey) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let waiting = self.share.to_client(seat).to_vec();
            if waiting.is_empty() {
                return bytes;
            }
            self.with(|share, cx| share.client_took(seat, waiting.len(), cx));
            bytes.extend(waiting);
        }
    }

    pub(super) fn end(&mut self, process: ProcessKey, status: &str) {
        self.end_with(process, status, b"");
    }

    pub(super) fn end_with(&mut self, process: ProcessKey, status: &str, unread: &[u8]) {
        self.processes.remove(&process);
        self.with(|share, cx| share.process_ended(process, status, unread, cx));
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.share.next_deadline().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            self.with(Share::timeout);
        }
        self.now = until;
    }
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// A modern request.
#[expect(clippy::needless_pass_by_value, reason = "it is a literal mostly")]
pub(super) fn request(id: Value, method: &str, mut params: Value) -> Value {
    params["_meta"][VERSION] = json!("2026-07-28");
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

pub(super) fn cancelled(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
}

/// A request to listen.
pub(super) fn listen(id: Value, what: &str) -> Value {
    request(
        id,
        "subscriptions/listen",
        json!({"notifications": {what: true}}),
    )
}

pub(super) fn notification(method: &str, number: &Value) -> Value {
    json!({"method": method, "params": {"_meta": {SUBSCRIPTION: number}}})
}

pub(super) const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";
pub(super) const CHANGED: &str = "notifications/tools/list_changed";
