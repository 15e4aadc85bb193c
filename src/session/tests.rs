//! A session on its own: driven by events, on a clock that the test sets.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod away;
mod backlog;
mod cancellations;
mod connector;
mod ends;
mod guard;
mod handshakes;
mod held;
mod hibernation;
mod idle;
mod ids;
mod last_words;
mod lazy;
mod losses;
mod peer;
mod probes;
mod questions;
mod slow_clients;
mod spare_buffers;
mod standing;
mod stillborn;
mod subscriptions;
mod swaps;
mod tallies;
mod tidy;
mod times;
mod unfinished;
mod unread;
mod vanished;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::Event;
use super::counts::Counts;
use super::idle::IdleLimits;
use super::log_limits::LogLimits;
use super::records::Records;
use super::refusals::Refusals;
use super::report::{Exit, Label};
use super::stderr::ServerLogging;
use super::tally::Tally;
use super::{Action, Backend, Context, OUTBOX_BYTES, Session, Settings, Spawn};
use crate::buffers::budget::{BufferBudget, DEFAULT_BUDGET_BYTES};
use crate::util::time::Time;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// More deadlines than any of these tests passes: here a session is stopped that does nothing about one of its own.
const MAX_TIMEOUTS: usize = 10_000;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const AGREED: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#;

/// A session of `connect` that never stops asking for a connection.
const CONNECTOR: Backend = Backend::Proxy {
    max_delay: SECOND,
    max_attempts: None,
    held_timeout: None,
    is_tidy: false,
    token: None,
    server: None,
};

/// A session, and what is around it.
struct World {
    session: Session,
    settings: Settings,
    memory: BufferBudget,
    logs: LogLimits,
    /// What the session wanted done, and the test has not looked at yet.
    actions: Vec<Action>,
    now: Time,
    /// What the system says about the client's send queue.
    unsent: Option<u32>,
    /// What the wall clock shows. Only time stamps depend on it.
    unix_time: Duration,
}

impl World {
    /// A session of `serve` that has asked for its first server.
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A session of `connect` that has asked for its first connection.
    fn connector() -> Self {
        Self::with(|settings| settings.role = CONNECTOR)
    }

    fn with(configure: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            role: Backend::Process { max_restarts: 5 },
            heartbeat_interval: 30 * SECOND,
            restarts_upstream: true,
            max_message_bytes: 1000,
            replays: true,
            replay_timeout: 10 * SECOND,
            stop_timeout: 30 * SECOND,
            spawn: Spawn::Eager,
            idle_limits: IdleLimits::default(),
            server_log: ServerLogging::Limited,
        };
        configure(&mut settings);
        let (mut memory, mut actions, now) = (
            BufferBudget::new(DEFAULT_BUDGET_BYTES),
            Vec::new(),
            Time::from_nanos(1 << 40),
        );
        let label = match settings.role {
            Backend::Process { .. } => Label::Session {
                number: 1,
                server: None,
                client: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
                pid: None,
            },
            Backend::Proxy { .. } => Label::Connection("localhost:1".into()),
        };
        let mut logs = LogLimits::default();
        let mut cx = Context {
            now,
            settings: &settings,
            memory: &mut memory,
            logs: &mut logs,
            records: &mut Records::default(),
            counts: &mut Counts::default(),
            actions: &mut actions,
        };
        let session = Session::open(label, &mut cx);
        Self {
            session,
            settings,
            memory,
            logs,
            actions,
            now,
            unsent: None,
            unix_time: SECOND,
        }
    }

    /// A session with its first server.
    fn up() -> Self {
        let mut world = Self::new();
        world.start();
        world
    }

    /// A session after the handshake, which both sides have read.
    fn greeted() -> Self {
        let mut world = Self::up();
        world.client(INITIALIZE);
        world.client(INITIALIZED);
        assert_eq!(world.server_got(), [INITIALIZE, INITIALIZED]);
        world.server(AGREED);
        assert_eq!(world.client_got(), [AGREED]);
        world
    }

    fn event<T>(&mut self, event: impl FnOnce(&mut Session, &mut Context<'_>) -> T) -> T {
        let mut cx = Context {
            now: self.now,
            settings: &self.settings,
            memory: &mut self.memory,
            logs: &mut self.logs,
            records: &mut Records::default(),
            counts: &mut Counts::default(),
            actions: &mut self.actions,
        };
        self.session.begin_run(&mut cx);
        let result = event(&mut self.session, &mut cx);
        while let Some(at) = cx
            .actions
            .iter()
            .position(|it| *it == Action::MeasureClient)
        {
            cx.actions.remove(at);
            let unsent = self.unsent;
            let answer = Event::ClientQueue { unsent };
            self.session.handle(answer, &mut cx);
        }
        result
    }

    // The client.

    fn client(&mut self, line: &str) {
        self.event(|session, cx| {
            session.handle(Event::ClientBytes(format!("{line}\n").as_bytes()), cx);
        });
    }

    fn client_ends(&mut self) {
        self.event(|session, cx| session.handle(Event::ClientEof, cx));
    }

    /// Writes everything that waits for the client, and returns its lines.
    fn client_got(&mut self) -> Vec<String> {
        let text = self.session.to_client().to_vec();
        if !text.is_empty() {
            self.event(|session, cx| session.handle(Event::ClientWritten(text.len()), cx));
        }
        lines(text)
    }

    /// The same as JSON.
    fn client_got_json(&mut self) -> Vec<Value> {
        let json = |line: String| serde_json::from_str(&line).unwrap();
        self.client_got().into_iter().map(json).collect()
    }

    /// All that waits for the client must be one error of the proxy's own.
    #[track_caller]
    fn client_got_error(&mut self, id: &Value, code: i32, reason: &str) -> Value {
        let mut got = self.client_got_json();
        assert_eq!(got.len(), 1, "{got:?}");
        assert_error(&got[0], id, code, reason);
        got.remove(0)
    }

    // The server.

    /// A server was asked for; it is started.
    #[track_caller]
    fn start(&mut self) {
        assert_eq!(self.took_actions(), [Action::StartUpstream]);
        self.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(7) }, cx));
    }

    /// The next server was asked for; it is started.
    #[track_caller]
    fn start_next(&mut self) {
        let expected = [Action::ReleaseUpstream, Action::StartUpstream];
        assert_eq!(self.took_actions(), expected);
        self.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
    }

    fn server(&mut self, line: &str) {
        self.event(|session, cx| {
            session.handle(Event::UpstreamBytes(format!("{line}\n").as_bytes()), cx);
        });
    }

    /// Sends more than may wait for a client that does not read.
    fn server_floods(&mut self) {
        let line = format!(r#"{{"method":"flood","params":"{}"}}"#, "x".repeat(900));
        for _ in 0..=OUTBOX_BYTES / 900 {
            self.server(&line);
        }
        assert!(!self.session.wants_upstream_output(&self.memory));
    }

    /// Writes everything that waits for the server, and returns its lines.
    fn server_got(&mut self) -> Vec<String> {
        let text = self.session.to_upstream().to_vec();
        if !text.is_empty() {
            self.event(|session, cx| session.handle(Event::UpstreamWritten(text.len()), cx));
        }
        lines(text)
    }

    fn server_exits(&mut self, exit: Exit) {
        self.event(|session, cx| session.handle(Event::UpstreamExited(exit), cx));
    }

    fn server_output_ends(&mut self) {
        self.event(|session, cx| session.handle(Event::UpstreamEof(None), cx));
    }

    /// Exits, with nothing left to be read.
    fn server_dies(&mut self, exit: Exit) {
        self.server_exits(exit);
        self.server_output_ends();
    }

    // The world.

    fn took_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Lets time pass, and reports every deadline on the way.
    #[track_caller]
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..MAX_TIMEOUTS {
            let next = self.session.next_deadline(&self.settings);
            let Some(at) = next.filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            let unix_time = self.unix_time;
            self.event(|session, cx| session.handle(Event::Deadline { unix_time }, cx));
        }
        panic!("nothing is done about a deadline");
    }

    fn shut_down(&mut self) {
        self.event(|session, cx| session.handle(Event::ShutDown, cx));
    }

    /// Why the session ended, as the log has it.
    fn reason(&self) -> String {
        self.session.goal.reason().unwrap().to_string()
    }
}

#[track_caller]
fn assert_error(response: &Value, id: &Value, code: i32, reason: &str) {
    let error = &response["error"];
    assert_eq!(
        (&response["id"], &error["code"], &error["data"]["reason"]),
        (id, &json!(code), &json!(reason)),
        "{response}"
    );
}

fn lines(text: Vec<u8>) -> Vec<String> {
    let text = String::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().map(str::to_owned).collect()
}

/// A request without parameters.
fn request(id: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#)
}

fn response(id: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#)
}

/// The id of the replayed handshake, which has to be all that the upstream got.
#[track_caller]
fn replay_id(got: &[String]) -> Value {
    assert_eq!(got.len(), 1, "{got:?}");
    let replay: Value = serde_json::from_str(&got[0]).unwrap();
    assert_eq!(replay["method"], "initialize");
    replay["id"].clone()
}

/// The server agrees to the handshake that was replayed with this id. It gets the rest of it, and then the line that
/// waits.
#[track_caller]
fn agree_to_replay(world: &mut World, id: &Value, waiting: &str) {
    world.server(&AGREED.replace("\"id\":1", &format!("\"id\":{id}")));
    assert_eq!(world.server_got(), [INITIALIZED, waiting]);
}
