//! What a message costs in the parts that every message goes through: splitter, envelope, requests in flight, outbox and timer
//! wheel; and what an over-long line costs.
//!
//! `cargo bench --bench parts`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mcp_tcp_proxy::buffers::budget::BufferBudget;
use mcp_tcp_proxy::buffers::outbox::Outbox;
use mcp_tcp_proxy::protocol::envelope::Message;
use mcp_tcp_proxy::protocol::id::RequestId;
use mcp_tcp_proxy::protocol::lines::{LineLimits, Splitter};
use mcp_tcp_proxy::protocol::skip::SkipScanner;
use mcp_tcp_proxy::session::in_flight::{InFlight, Kind, MAX_IN_FLIGHT, Request};
use mcp_tcp_proxy::util::time::Time;
use mcp_tcp_proxy::util::timer_wheel::{TimerId, TimerWheel};

/// What the proxy reads at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// What waits for a consumer that takes nothing, before its producer is stopped.
const STUCK_BYTES: usize = 64 * 1024;

/// About as many sessions as fit into a hard limit of 20,000 descriptors.
const SESSIONS: u64 = 4_500;

/// The time between two heartbeats of a session, in ticks of 1 ms.
const HEARTBEAT_TICKS: u64 = 30_000;

/// A `tools/call` of this many bytes.
fn call(bytes: usize) -> String {
    let head = r#"{"jsonrpc":"2.0","id":12345,"method":"tools/call","params":{"name":"echo","arguments":{"text":""#;
    let tail = r#""}}}"#;
    let text = "lorem ipsum ".repeat(bytes / 12 + 1);
    format!("{head}{}{tail}", &text[..bytes - head.len() - tail.len()])
}

fn envelope(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("envelope");
    for (name, bytes) in [("200 B", 200), ("10 KB", 10_000), ("1 MB", 1_000_000)] {
        let line = call(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| Message::read(black_box(line.as_bytes())).is_ok());
        });
    }
    group.finish();
}

/// Lines of a megabyte that are made of one piece over and over, each in a way that is slow in some reader.
fn long_lines() -> impl Iterator<Item = (&'static str, String)> {
    const BYTES: usize = 1_000_000;
    let lines = [
        ("text", r#"{"params":""#, "lorem ipsum ", r#"","id":5}"#),
        ("escapes", r#"{"params":""#, r"\n", r#"","id":5}"#),
        ("numbers", r#"{"params":["#, "1,", r#"1],"id":5}"#),
        ("brackets", r#"{"params":["#, "[],", r#"1],"id":5}"#),
        (
            "objects",
            r#"{"params":["#,
            r#"{"a":1,"b":[true]},"#,
            r#"1],"id":5}"#,
        ),
        ("members", "{", r#""a":1,"#, r#""id":5}"#),
        ("escaped keys", "{", r#""\u0061":1,"#, r#""id":5}"#),
    ];
    lines.into_iter().map(|(name, head, piece, tail)| {
        let line = [head, &piece.repeat(BYTES / piece.len()), tail].concat();
        (name, line)
    })
}

/// What it takes to skip a line must be less than what it takes to read it.
fn skipping(criterion: &mut Criterion) {
    for (name, line) in long_lines() {
        let mut group = criterion.benchmark_group(format!("1 MB of {name}"));
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function("read", |bencher| {
            bencher.iter(|| Message::read(black_box(line.as_bytes())).is_ok());
        });
        group.bench_function("skipped", |bencher| {
            bencher.iter(|| {
                let mut scanner = SkipScanner::default();
                for piece in black_box(line.as_bytes()).chunks(CHUNK_BYTES) {
                    scanner.feed(piece);
                }
                scanner.finish()
            });
        });
        group.finish();
    }
}

/// Cancellations that name nothing, and a request at a time that gets its response, while requests with long ids wait
/// that differ in their last bytes only.
fn in_flight(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("in flight");
    let id = |number: usize| RequestId::new(format!("\"{}{number:04}\"", "x".repeat(900)));
    let request = |id: RequestId| Request::new(id, Kind::Plain, Time::default());
    for others in [0, MAX_IN_FLIGHT - 1] {
        let mut in_flight = InFlight::default();
        (0..others).for_each(|number| in_flight.begin(request(id(number))));
        let short = RequestId::new("7");
        group.bench_function(BenchmarkId::new("a request beside", others), |bencher| {
            bencher.iter(|| {
                in_flight.begin(request(black_box(&short).clone()));
                in_flight.end(&short).is_some()
            });
        });
        let none = id(others);
        group.bench_function(BenchmarkId::new("no request beside", others), |bencher| {
            bencher.iter(|| in_flight.cancel(black_box(&none)).is_some());
        });
    }
    group.finish();
}

fn splitter(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("splitter");
    let limits = LineLimits {
        max_bytes: 10 << 20,
        room: 256 << 20,
    };
    group.throughput(Throughput::Bytes(CHUNK_BYTES as u64));
    for (name, bytes) in [
        ("200 B lines", 200),
        ("10 KB lines", 10_000),
        ("1 MB lines", 1_000_000),
    ] {
        let stream = (call(bytes) + "\n").repeat(CHUNK_BYTES * 16 / bytes + 2);
        let mut chunks = stream.as_bytes().chunks_exact(CHUNK_BYTES).cycle();
        let mut splitter = Splitter::default();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut input = chunks.next().unwrap_or_default();
                let mut lines = 0;
                while splitter.next(&mut input, limits).is_some() {
                    lines += 1;
                }
                lines
            });
        });
    }
    group.finish();
}

/// Consumes the first `count` bytes, and collects the tags of lines that started by that.
fn take(outbox: &mut Outbox<u64>, count: usize, memory: &mut BufferBudget) -> usize {
    outbox.consume(count, memory);
    std::iter::from_fn(|| outbox.next_started()).count()
}

fn outbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox");
    let mut memory = BufferBudget::new(256 << 20);
    let line = call(200);
    let line = line.as_bytes();
    for (name, tag) in [
        ("200 B through", None),
        ("200 B with a tag through", Some(1)),
    ] {
        let mut outbox = Outbox::default();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                outbox.push(black_box(line), tag, &mut memory);
                take(&mut outbox, line.len() + 1, &mut memory)
            });
        });
    }
    group.bench_function("200 B after a stuck consumer's 64 KiB", |bencher| {
        let mut outbox = Outbox::default();
        fill(&mut outbox, line, &mut memory);
        bencher.iter(|| {
            outbox.push(black_box(line), Some(1), &mut memory);
            take(&mut outbox, line.len() + 1, &mut memory)
        });
    });
    group.bench_function("64 KiB held up, then taken at once", |bencher| {
        let mut outbox = Outbox::default();
        bencher.iter(|| {
            fill(&mut outbox, black_box(line), &mut memory);
            let len = outbox.len();
            take(&mut outbox, len, &mut memory)
        });
    });
    group.bench_function("64 KiB taken back and appended", |bencher| {
        let mut outbox = Outbox::default();
        fill(&mut outbox, line, &mut memory);
        bencher.iter(|| {
            let mut others = std::mem::take(&mut outbox);
            others.retain_unstarted(|tag| black_box(*tag) == 1);
            assert!(outbox.append(others, &mut memory).is_none());
            outbox.len()
        });
    });
    group.finish();
}

fn fill(outbox: &mut Outbox<u64>, line: &[u8], memory: &mut BufferBudget) {
    while outbox.len() < STUCK_BYTES {
        outbox.push(line, Some(1), memory);
    }
}

/// A wheel in which each session has a deadline within the next 30 s.
fn heartbeats() -> (TimerWheel<u64>, Vec<TimerId>) {
    let mut wheel = TimerWheel::new(0);
    let times = (0..SESSIONS).map(|session| 1 + session * HEARTBEAT_TICKS / SESSIONS);
    let ids = times
        .enumerate()
        .map(|(session, at)| wheel.set(at, session as u64))
        .collect();
    (wheel, ids)
}

fn timer_wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer wheel");
    for others in [0, SESSIONS] {
        let mut wheel = TimerWheel::new(0);
        for nth in 0..others {
            wheel.set(1 + nth * 7, nth);
        }
        group.bench_function(
            BenchmarkId::new("set and cancel beside", others),
            |bencher| {
                bencher.iter(|| {
                    let id = wheel.set(black_box(HEARTBEAT_TICKS), 1);
                    wheel.cancel(id)
                });
            },
        );
    }
    group.bench_function("reset of a deadline at an event", |bencher| {
        let (mut wheel, mut ids) = heartbeats();
        let mut event = 0;
        bencher.iter(|| {
            event += 1;
            let session = event * 7919 % ids.len();
            wheel.cancel(ids[session]);
            ids[session] = wheel.set(HEARTBEAT_TICKS + event as u64 % 1000, 1);
        });
    });
    group.throughput(Throughput::Elements(SESSIONS));
    group.bench_function("30 s of heartbeats of 4500 sessions", |bencher| {
        let (mut wheel, _) = heartbeats();
        bencher.iter(|| {
            let mut wakes = 0;
            for _ in 0..SESSIONS {
                let now = wheel.next_deadline().unwrap_or_default();
                while let Some(session) = wheel.pop_expired(now) {
                    wheel.set(now + HEARTBEAT_TICKS, session);
                    wakes += 1;
                }
            }
            wakes
        });
    });
    group.finish();
}

criterion_group!(
    parts,
    envelope,
    skipping,
    splitter,
    in_flight,
    outbox,
    timer_wheel
);
criterion_main!(parts);
