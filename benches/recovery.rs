//! How long a client waits after its server was killed: from kill -9 to the response to the next request, which takes a
//! restart and a replayed handshake. For comparison, the time that the demo server takes to start and respond without
//! any proxy: the floor.
//!
//! `cargo bench --bench recovery`

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot measure has to end"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Client, Proxy, processes, servers};
use serde_json::{Value, json};

/// How many sessions are opened. The server of each is killed once: a second restart would wait for its cooldown.
const ROUNDS: usize = 50;

/// A server that has been up for longer is restarted at once.
const COOLDOWN: Duration = Duration::from_millis(1100);

fn main() {
    let proxy = Proxy::start(&[], &servers::demo());
    let mut sessions: Vec<(Client, i32)> = (0..ROUNDS).map(|_| open(&proxy)).collect();
    // Not a wait for an event: what is measured is servers that have been up for a while.
    std::thread::sleep(COOLDOWN);
    let mut recoveries = Vec::new();
    let mut starts = Vec::new();
    for (client, server) in &mut sessions {
        recoveries.push(recovery(client, *server));
        starts.push(bare_start());
    }
    report("kill -9 to next response", recoveries);
    report("the server's own start", starts);
}

/// Opens a session; returns it after its handshake, with the pid of its server.
fn open(proxy: &Proxy) -> (Client, i32) {
    let before = proxy.servers();
    let mut client = proxy.connect();
    client.initialize();
    let server = proxy
        .servers()
        .into_iter()
        .find(|pid| !before.contains(pid));
    (client, server.expect("a session has a server"))
}

/// The time from the kill to the first result. A request written before the death was noticed gets an error; then the
/// next one counts.
fn recovery(client: &mut Client, server: i32) -> Duration {
    let call = json!({"name": "add", "arguments": {"a": 2, "b": 3}});
    let begin = Instant::now();
    processes::send_signal(server, nix::sys::signal::Signal::SIGKILL);
    loop {
        let answer = client.request("tools/call", &call);
        if answer.get("result").is_some() {
            return begin.elapsed();
        }
    }
}

/// From the start of the demo server to its responses to `initialize` and to a call.
fn bare_start() -> Duration {
    let begin = Instant::now();
    let command = servers::demo();
    let mut server = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the demo server starts");
    let mut stdin = server.stdin.take().expect("it is a pipe");
    let mut stdout = BufReader::new(server.stdout.take().expect("it is a pipe"));
    let mut ask = |request: Value| {
        writeln!(stdin, "{request}").expect("the server reads");
        let mut answer = String::new();
        stdout.read_line(&mut answer).expect("the server responds");
    };
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "b", "version": "1"}});
    ask(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}));
    ask(
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 2, "b": 3}}}),
    );
    let time = begin.elapsed();
    drop(stdin);
    let _ = server.wait();
    time
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{what}: median {:.2} ms, worst {:.2} ms ({} rounds)",
        ms(median),
        ms(worst),
        times.len()
    );
}
