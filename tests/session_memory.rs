//! What a session really holds, by an allocator that counts, against its account in the shared budget: whatever its two
//! sides send, what it holds is charged, but for a constant.
//!
//! The allocator counts, and is limited, for the whole process. So each test has a process of its own: see [`is_alone`].

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::alloc::System;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use cap::Cap;
use mcp_tcp_proxy::buffers::budget::{BufferBudget, DEFAULT_BUDGET_BYTES, UNCHARGED_BYTES};
use mcp_tcp_proxy::buffers::outbox::Outbox;
use mcp_tcp_proxy::session::counts::Counts;
use mcp_tcp_proxy::session::idle::IdleLimits;
use mcp_tcp_proxy::session::log_limits::LogLimits;
use mcp_tcp_proxy::session::records::Records;
use mcp_tcp_proxy::session::report::Label;
use mcp_tcp_proxy::session::stderr::ServerLogging;
use mcp_tcp_proxy::session::{Action, Backend, Context, Event, Session, Settings, Spawn};
use mcp_tcp_proxy::util::time::Time;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What a session may hold without a charge: the free parts of its buffers, spare buffers of the budget, and tables that
/// are limited in number, such as those of 1,024 requests of either side.
const CONSTANT_BYTES: usize = 10 * UNCHARGED_BYTES;

/// Says to a process that it is for one test alone.
const IS_ALONE: &str = "MCP_TCP_PROXY_TESTS_ALONE";

/// Whether this process is for the test of that name alone: other threads, those of the harness too, must not allocate
/// meanwhile, least of all when there is no memory left for them. If not, one that is has been run, and was well.
#[track_caller]
fn is_alone(test: &str) -> bool {
    if std::env::var_os(IS_ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(IS_ALONE, "1")
        .output()
        .unwrap();
    let all = [output.stdout, output.stderr].concat();
    let all = String::from_utf8_lossy(&all);
    assert!(output.status.success() && all.contains("1 passed"), "{all}");
    println!("{all}");
    false
}

struct World {
    session: Session,
    settings: Settings,
    memory: BufferBudget,
    actions: Vec<Action>,
    logs: LogLimits,
    records: Records,
    /// What was allocated before there was a session.
    before: usize,
    /// The most that was held without a charge.
    most: usize,
}

impl World {
    /// A session whose server is up, and of which neither side takes anything.
    fn new() -> Self {
        let settings = Settings {
            role: Backend::Process { max_restarts: 5 },
            heartbeat_interval: Duration::from_secs(30),
            restarts_upstream: true,
            max_message_bytes: 10 << 20,
            replays: true,
            replay_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(30),
            spawn: Spawn::Eager,
            idle_limits: IdleLimits::default(),
            server_log: ServerLogging::Limited,
        };
        let before = ALLOCATOR.allocated();
        let (mut memory, mut actions) = (BufferBudget::new(DEFAULT_BUDGET_BYTES), Vec::new());
        let (mut logs, mut records) = (LogLimits::default(), Records::default());
        let label = Label::Session {
            number: 1,
            server: None,
            client: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            pid: None,
        };
        let mut cx = Context {
            now: Time::from_nanos(1 << 40),
            settings: &settings,
            memory: &mut memory,
            actions: &mut actions,
            logs: &mut logs,
            records: &mut records,
            counts: &mut Counts::default(),
        };
        let session = Session::open(label, &mut cx);
        let mut world = Self {
            session,
            settings,
            memory,
            actions,
            logs,
            records,
            before,
            most: 0,
        };
        world.event(Event::UpstreamStarted { pid: Some(1) });
        world
    }

    fn event(&mut self, event: Event<'_>) {
        let mut cx = Context {
            now: Time::from_nanos(1 << 40),
            settings: &self.settings,
            memory: &mut self.memory,
            actions: &mut self.actions,
            logs: &mut self.logs,
            records: &mut self.records,
            counts: &mut Counts::default(),
        };
        self.session.begin_run(&mut cx);
        self.session.handle(event, &mut cx);
        while self.session.has_more_lines() {
            self.session.begin_run(&mut cx);
        }
    }

    /// Checks what is held. `besides` is what the test itself holds.
    #[track_caller]
    fn check(&mut self, besides: usize) {
        // Large spare buffers are given back within seconds.
        self.memory.trim();
        self.memory.trim();
        // What runs the tests may have given something back meanwhile.
        let others = self.before + besides;
        let held = ALLOCATOR.allocated().saturating_sub(others);
        let charged = self.memory.used();
        self.most = self.most.max(held.saturating_sub(charged));
        assert!(
            held <= charged + CONSTANT_BYTES,
            "{held} bytes are held, and {charged} are charged"
        );
    }

    /// The client sends these bytes, in the pieces that a loop reads, as far as it is read.
    #[track_caller]
    fn client(&mut self, bytes: &str) {
        for piece in bytes.as_bytes().chunks(64 * 1024) {
            if self.session.wants_client_input() {
                self.event(Event::ClientBytes(piece));
            }
            self.check(bytes.len());
        }
    }

    /// So does the server.
    #[track_caller]
    fn server(&mut self, bytes: &str) {
        for piece in bytes.as_bytes().chunks(64 * 1024) {
            if self.session.wants_upstream_output(&self.memory) {
                self.event(Event::UpstreamBytes(piece));
            }
            self.check(bytes.len());
        }
    }

    /// The server takes all that waits for it.
    fn server_takes(&mut self) {
        let count = self.session.to_upstream().len();
        if count > 0 {
            self.event(Event::UpstreamWritten(count));
        }
    }

    fn client_takes(&mut self) {
        let count = self.session.to_client().len();
        if count > 0 {
            self.event(Event::ClientWritten(count));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        println!(
            "at most {} KiB were held without a charge",
            self.most / 1024
        );
    }
}

/// A text of exactly its own size, so that the test knows what it holds.
fn exact(text: &str) -> String {
    let mut exact = text.to_owned();
    exact.shrink_to_fit();
    exact
}

fn long_id(number: usize) -> String {
    format!("\"{number:0>1000}\"")
}

fn batch(count: usize, part: impl Fn(usize) -> String) -> String {
    let parts: Vec<String> = (0..count).map(part).collect();
    exact(&format!("[{}]\n", parts.join(",")))
}

fn request(number: usize) -> String {
    format!(r#"{{"id":{},"method":"m"}}"#, long_id(number))
}

fn cancellation(number: usize) -> String {
    let id = long_id(number);
    format!(r#"{{"method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    let all: Vec<String> = (0..count).map(|number| line(number) + "\n").collect();
    exact(&all.concat())
}

#[test]
fn ids_of_requests_and_of_what_takes_them_back_are_charged() {
    if !is_alone("ids_of_requests_and_of_what_takes_them_back_are_charged") {
        return;
    }
    for takes in [false, true] {
        let mut world = World::new();
        let requests = lines(1000, request);
        world.client(&requests);
        drop(requests);
        for _ in 0..20 {
            let all = batch(900, cancellation);
            world.client(&all);
            drop(all);
            if takes {
                world.server_takes();
            }
        }
    }
}

#[test]
fn batches_are_charged() {
    if !is_alone("batches_are_charged") {
        return;
    }
    let parts: [fn(usize) -> String; 5] = [
        request,
        cancellation,
        |_| r#"{"method":"notifications/initialized"}"#.to_owned(),
        |number| format!(r#"{{"id":{number},"result":1}}"#),
        |_| "1".to_owned(),
    ];
    for part in parts {
        for count in [900, 5000, 50_000] {
            let mut world = World::new();
            let all = batch(count, part);
            for _ in 0..4 {
                world.client(&all);
                world.server(&all);
            }
        }
    }
}

#[test]
fn requests_of_the_server_are_charged() {
    if !is_alone("requests_of_the_server_are_charged") {
        return;
    }
    let mut world = World::new();
    for _ in 0..10 {
        let all = lines(500, request);
        world.server(&all);
        drop(all);
        world.client_takes();
    }
}

#[test]
fn short_lines_that_nobody_takes_are_bounded() {
    if !is_alone("short_lines_that_nobody_takes_are_bounded") {
        return;
    }
    let kinds: [fn(usize) -> String; 6] = [
        |number| format!(r#"{{"id":{number},"method":"m"}}"#),
        |number| format!(r#"{{"id":{number},"result":1}}"#),
        |_| r#"{"method":"notifications/initialized"}"#.to_owned(),
        |_| r#"{"type":"heartbeat"}"#.to_owned(),
        |number| format!(r#"{{"id":{number},"method":"initialize"}}"#),
        |_| "{".to_owned(),
    ];
    for kind in kinds {
        let mut world = World::new();
        let all = lines(20_000, kind);
        world.client(&all);
        world.server(&all);
    }
}

#[test]
fn long_lines_are_charged_whichever_way_they_go_and_whatever_becomes_of_them() {
    if !is_alone("long_lines_are_charged_whichever_way_they_go_and_whatever_becomes_of_them") {
        return;
    }
    let mut world = World::new();
    let line = exact(&format!("{{\"method\":\"{}\"}}\n", "x".repeat(3_000_000)));
    for _ in 0..3 {
        world.client(&line);
        world.server(&line);
    }
    world.client_takes();
    world.server_takes();
    world.check(line.len());
    world.client(&line);
    drop(line);
    let part = "x".repeat(2_000_000);
    world.server(&part);
    world.event(Event::UpstreamEof(None));
    world.check(part.len());
}

/// Nothing more can be had but this, until it is dropped.
struct Limited;

impl Limited {
    fn to(bytes: usize) -> Self {
        ALLOCATOR.set_limit(ALLOCATOR.allocated() + bytes).unwrap();
        Self
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        ALLOCATOR.set_limit(usize::MAX).unwrap();
    }
}

#[test]
fn lines_that_the_system_has_no_memory_to_keep_are_refused_one_by_one() {
    if !is_alone("lines_that_the_system_has_no_memory_to_keep_are_refused_one_by_one") {
        return;
    }
    let mut world = World::new();
    let all = lines(200, |number| {
        format!(
            r#"{{"id":{number},"method":"m","params":"{}"}}"#,
            "x".repeat(700)
        )
    });
    {
        // Enough for what the server is to get, and for the refusals, but not for the rest besides.
        let _limited = Limited::to(170_000);
        world.event(Event::ClientBytes(all.as_bytes()));
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let forwarded = text(world.session.to_upstream());
    let refused = text(world.session.to_client());
    assert!(refused.contains("no buffer memory left"), "{refused}");
    assert!(world.session.wants_upstream_output(&world.memory));
    for number in 0..200 {
        let is = |all: &str| all.contains(&format!("\"id\":{number},"));
        assert!(is(&forwarded) != is(&refused), "request {number}");
    }
}

#[test]
fn queues_are_put_together_without_memory_or_not_at_all() {
    if !is_alone("queues_are_put_together_without_memory_or_not_at_all") {
        return;
    }
    let mut memory = BufferBudget::new(0);
    let mut filled = || {
        let mut outbox = Outbox::default();
        for number in 0..1000 {
            outbox.push(&[b'x'; 999], Some(number), &mut memory);
        }
        outbox
    };
    let (mut front, mut back) = (filled(), filled());
    let limited = Limited::to(UNCHARGED_BYTES);
    back.retain_unstarted(|number| number % 2 == 0);
    drop(limited);
    let limited = Limited::to(UNCHARGED_BYTES);
    let left = front.append(back, &mut memory);
    drop(limited);
    let left = left.expect("there is no memory for both");
    assert_eq!((front.len(), left.len()), (1_000_000, 500_000));
    assert!(front.append(left, &mut memory).is_none());
    assert_eq!(front.len(), 1_500_000);
    assert_eq!(front.tags().count(), 1500);
}

/// What the handling of a line may take beside what depends on its length, which shows in batches of tiny messages: 4,096 of
/// them are looked at at once, and 2,048 refused one by one.
const LINE_CONSTANT_BYTES: usize = 1024 * 1024;

/// Lines of about this length, of every kind that costs something.
fn costly_lines(len: usize) -> Vec<String> {
    let repeated = |part: &str| {
        let count = len / (part.len() + 1);
        exact(&format!("[{}]\n", vec![part; count.max(1)].join(",")))
    };
    let within = |begin: &str, end: &str| {
        let fill = "x".repeat(len.saturating_sub(begin.len() + end.len()));
        exact(&format!("{begin}{fill}{end}\n"))
    };
    vec![
        repeated("1"),
        repeated("{}"),
        repeated(r#"{"id":1}"#),
        repeated(r#"{"id":1,"method":"m"}"#),
        repeated(r#"{"id":1,"result":1}"#),
        repeated(r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#),
        repeated(r#"{"method":"notifications/initialized"}"#),
        exact(&format!("{}\n", "[".repeat(len))),
        exact(&format!("{}{}\n", "[".repeat(len / 2), "]".repeat(len / 2))),
        within(r#"{"id":1,"method":"initialize","params":""#, r#""}"#),
        within(r#"{"id":1,"method":"m","params":""#, r#""}"#),
        within(r#"{"id":""#, r#"","method":"m"}"#),
        within(r#"{"id":1,"result":{"protocolVersion":""#, r#""}}"#),
        within(r#"{"id":1,"error":{"data":{"source":""#, r#""}}}"#),
        within(r#"{"method":""#, r#"","id":1}"#),
        within(
            r#"{"method":"notifications/cancelled","params":{"requestId":""#,
            r#""}}"#,
        ),
        within("no message ", ""),
    ]
}

#[test]
fn a_line_takes_three_times_its_length_at_most_while_it_is_handled() {
    if !is_alone("a_line_takes_three_times_its_length_at_most_while_it_is_handled") {
        return;
    }
    for len in [100, 10_000, 40_000, 100_000, 3_000_000] {
        for line in costly_lines(len) {
            for of_client in [true, false] {
                let mut world = World::new();
                // Cut as a loop would read it: more than that would abort.
                let _limited = Limited::to(3 * line.len() + LINE_CONSTANT_BYTES);
                for piece in line.as_bytes().chunks(64 * 1024) {
                    world.event(if of_client {
                        Event::ClientBytes(piece)
                    } else {
                        Event::UpstreamBytes(piece)
                    });
                }
                let text = [world.session.to_client(), world.session.to_upstream()].concat();
                let refused = memchr::memmem::find(&text, b"no buffer memory");
                assert!(refused.is_none(), "{}", &line[..line.len().min(60)]);
            }
        }
    }
}

#[test]
fn a_batch_of_which_a_part_is_taken_out_takes_no_more() {
    if !is_alone("a_batch_of_which_a_part_is_taken_out_takes_no_more") {
        return;
    }
    let item = ",1".repeat(500_000);
    for waiting in [
        exact(&format!(
            "[{{\"id\":1,\"method\":\"m\"}},{{\"id\":2,\"method\":\"m\"}}{}]\n",
            &item[..40_000]
        )),
        exact("{\"id\":1,\"method\":\"m\"}\n"),
    ] {
        let cancelled = r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#;
        let batch = exact(&format!("[{cancelled}{item}]\n"));
        let mut world = World::new();
        let _limited = Limited::to(3 * (waiting.len() + batch.len()) + LINE_CONSTANT_BYTES);
        for line in [&waiting, &batch] {
            for piece in line.as_bytes().chunks(64 * 1024) {
                world.event(Event::ClientBytes(piece));
            }
        }
        let left = world.session.to_upstream();
        assert!(memchr::memmem::find(left, b"\"requestId\"").is_none());
        assert!(memchr::memmem::find(left, b"\"id\":1").is_none());
    }
}
