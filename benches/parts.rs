//! What a message costs in the parts that every message passes: splitter and envelope.
//!
//! `cargo bench --bench parts`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mcp_tcp_proxy::protocol::envelope::Message;
use mcp_tcp_proxy::protocol::lines::{LineLimits, Splitter};

/// What the proxy reads at once.
const CHUNK_BYTES: usize = 64 * 1024;

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

criterion_group!(parts, envelope, splitter);
criterion_main!(parts);
