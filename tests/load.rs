//! Many sessions, many messages, large messages: nothing is lost, nothing is left behind, memory stays bounded, and
//! nobody waits because of somebody else. Measured numbers are printed (`--nocapture`).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::processes::{self, fd_count, peak_rss_kib, rss_kib, wait_until_quiet};
use common::{Client, Finally, Proxy, eventually, servers, skip_on_reference};
use mcp_tcp_proxy::util::plural::Grouped;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

/// For what many sessions do together, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

/// What all sessions together may hold in buffers, beyond 64 KiB for each.
const BUDGET_BYTES: u64 = 256 * 1024 * 1024;

/// What else may come and go in the proxy's memory meanwhile, as the design allows.
const SLACK_KIB: u64 = 4 * 1024;

/// A line by which the server of [`servers::mirror_unless`] is told what it is to be.
fn go(word: &str) -> String {
    json!({"jsonrpc": "2.0", "method": word}).to_string()
}

/// A numbered notification of which the bytes are known, so that comparing takes no parsing.
fn numbered(number: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"count","params":{number}}}"#)
}

/// The client of a session whose server sends everything back.
fn mirrored(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    client.send_line(&go("mirror"));
    client
}

/// Sends a line and waits for it to come back; returns how long that took.
#[track_caller]
fn round_trip(client: &mut Client) -> Duration {
    let start = Instant::now();
    let line = numbered(start.elapsed().subsec_nanos().into());
    client.send_line(&line);
    assert_eq!(client.recv_line(), line);
    start.elapsed()
}

/// That many round trips; returns the longest.
#[track_caller]
fn round_trips(client: &mut Client, count: u32) -> Duration {
    (0..count).map(|_| round_trip(client)).max().unwrap()
}

/// The proxy and all that it has started.
fn family(proxy: &Proxy) -> Vec<i32> {
    let below = proxy.descendants().into_iter().map(|process| process.pid);
    std::iter::once(proxy.pid()).chain(below).collect()
}

/// What the demo server's `echo` says.
fn echo(text: &str) -> Value {
    json!({"name": "echo", "arguments": {"text": text}})
}

#[track_caller]
fn assert_echoed(answer: &Value, text: &str) {
    assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}");
}

/// Whether a request was lost with the server that it had been sent to.
fn was_lost(answer: &Value) -> bool {
    answer["error"]["data"]["reason"] == "process_terminated"
}

/// All clients ask at once, each for a text of its own.
fn all_echo(clients: &mut [Client], round: usize) {
    let text = |number: usize| format!("{round} of {number}");
    let ids: Vec<u64> = clients
        .iter_mut()
        .enumerate()
        .map(|(number, client)| client.send_request("tools/call", &echo(&text(number))))
        .collect();
    for (number, (client, id)) in clients.iter_mut().zip(ids).enumerate() {
        assert_echoed(&client.answer_to(id), &text(number));
    }
}

/// Clients close, reset, half-close after a last request, or lose their servers. Returns those that half-closed, with
/// their last requests, and those that have only lost their servers.
fn end_in_every_way(proxy: &Proxy, clients: Vec<Client>) -> (Vec<(Client, u64)>, Vec<Client>) {
    // The first session was another's.
    proxy.wait_for_logs("] opened", 1 + clients.len());
    let servers = proxy.servers_by_client();
    let mut half_closed = Vec::new();
    let mut survivors = Vec::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        let server = servers[&client.local_address()];
        match number % 5 {
            0 => client.close(),
            1 => client.reset(),
            2 => {
                let id = client.send_request("tools/call", &echo("last"));
                client.shutdown_write();
                half_closed.push((client, id));
            }
            3 => {
                processes::send_signal(server, Signal::SIGKILL);
                survivors.push(client);
            }
            _ => {
                processes::send_signal(server, Signal::SIGKILL);
                client.close();
            }
        }
    }
    (half_closed, survivors)
}

#[test]
fn a_thousand_sessions_end_in_every_way_and_leave_nothing_behind() {
    const ROUNDS: usize = 20;
    skip_on_reference!("does not restart a server");
    let sessions = processes::sessions_that_fit(1_000);
    let proxy = Proxy::start(&[], &servers::demo());
    proxy.connect().initialize();
    proxy.wait_until_childless();
    let (descriptors, memory) = (fd_count(proxy.pid()), rss_kib(proxy.pid()));

    let mut clients: Vec<Client> = (0..sessions).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.initialize();
    }
    for round in 0..ROUNDS {
        all_echo(&mut clients, round);
    }
    assert_eq!(proxy.servers().len(), sessions);
    let grown = rss_kib(proxy.pid()).saturating_sub(memory);
    eprintln!("{sessions} sessions: {grown} KiB more than with none");

    let (half_closed, mut survivors) = end_in_every_way(&proxy, clients);
    for (mut client, id) in half_closed {
        assert_echoed(&client.answer_to_within(id, PATIENCE), "last");
        assert_eq!(client.read_to_end(), Vec::<String>::new());
    }
    for client in &mut survivors {
        let ask = |client: &mut Client| client.request_within("tools/call", &echo("on"), PATIENCE);
        let mut answer = ask(client);
        while was_lost(&answer) {
            answer = ask(client);
        }
        assert_echoed(&answer, "on");
    }
    drop(survivors);

    eventually("no process to be left", PATIENCE, || {
        proxy.descendants().is_empty()
    });
    eventually("the descriptors to be closed", PATIENCE, || {
        fd_count(proxy.pid()) <= descriptors
    });
    let mut late = proxy.connect();
    late.initialize();
    assert_echoed(&late.request("tools/call", &echo("after")), "after");
}

#[test]
fn what_a_client_does_not_read_waits_at_the_server() {
    const MESSAGES: u64 = 600_000;
    skip_on_reference!("holds what a client does not read in memory");
    let flood = format!(
        r#"seq -f '{{"jsonrpc":"2.0","method":"count","params":%.0f}}' 0 {}"#,
        MESSAGES - 1
    );
    let proxy = Proxy::start(&[], &servers::mirror_unless("flood", &flood));
    let mut other = mirrored(&proxy);
    let mut client = Client::connect_with_receive_buffer(proxy.address(), 4096);
    // Something has passed in both sessions: what that costs is not the flood's.
    round_trip(&mut other);
    let before = rss_kib(proxy.pid());

    client.send_line(&go("flood"));
    assert_eq!(client.recv_line(), numbered(0));
    wait_until_quiet(&family(&proxy));
    assert!(
        proxy
            .descendants()
            .iter()
            .any(|process| process.name == "seq"),
        "the flood should be held back, and is over"
    );
    let longest = round_trips(&mut other, 200);
    let grown = peak_rss_kib(proxy.pid()).saturating_sub(before);
    eprintln!("a client that does not read: {grown} KiB; others wait {longest:?} at most");
    assert!(grown <= SLACK_KIB, "the proxy's memory grew by {grown} KiB");

    for number in 1..MESSAGES {
        assert_eq!(client.recv_line(), numbered(number));
    }
    round_trip(&mut client);
    let grown = peak_rss_kib(proxy.pid()).saturating_sub(before);
    assert!(grown <= SLACK_KIB, "the proxy's memory grew by {grown} KiB");
}

/// A pipe with a name, to tell a server by that it may go on.
struct Gate(PathBuf);

impl Gate {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", process::id()));
        let _ = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        Self(path)
    }

    /// Shell commands that wait for [`open`](Self::open).
    fn wait(&self) -> String {
        format!(": < '{}'", self.0.display())
    }

    fn open(&self) {
        OpenOptions::new()
            .write(true)
            .open(&self.0)
            .map(|_: File| ())
            .unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // A server that still waits, as the test has failed, would outlive the proxy. This open waits for nobody.
        let _ = OpenOptions::new().read(true).write(true).open(&self.0);
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn what_a_server_does_not_read_waits_at_the_client() {
    const MESSAGES: u64 = 400_000;
    skip_on_reference!("waits for a server that does not read with all its sessions");
    let gate = Gate::new("slow-server");
    let proxy = Proxy::start(&[], &servers::mirror_unless("wait", &gate.wait()));
    let mut other = mirrored(&proxy);
    let mut client = proxy.connect();
    client.send_line(&go("wait"));
    round_trip(&mut other);
    let before = rss_kib(proxy.pid());

    let sent = AtomicU64::new(0);
    let mut writer = client.writer();
    writer.set_write_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for first in (0..MESSAGES).step_by(1000) {
                let lines: String = (first..first + 1000).map(|n| numbered(n) + "\n").collect();
                writer.write_all(lines.as_bytes()).unwrap();
                sent.store(first + 1000, Ordering::Relaxed);
            }
        });
        eventually("the flood to begin", PATIENCE, || {
            sent.load(Ordering::Relaxed) > 0
        });
        wait_until_quiet(&family(&proxy));
        let taken = sent.load(Ordering::Relaxed);
        assert!(
            taken < MESSAGES,
            "the flood should be held back, and is over"
        );
        let longest = round_trips(&mut other, 200);
        let grown = peak_rss_kib(proxy.pid()).saturating_sub(before);
        eprintln!("a server that does not read: {grown} KiB; others wait {longest:?} at most");
        assert!(grown <= SLACK_KIB, "the proxy's memory grew by {grown} KiB");

        gate.open();
        for number in 0..MESSAGES {
            assert_eq!(client.recv_line(), numbered(number));
        }
    });
    let grown = peak_rss_kib(proxy.pid()).saturating_sub(before);
    assert!(grown <= SLACK_KIB, "the proxy's memory grew by {grown} KiB");
}

/// The start of a request that becomes one with [`PADDED_END`], whatever stands between.
const PADDED_START: &str = r#"{"jsonrpc":"2.0","id":7,"method":"ping","params":{"padding":""#;
const PADDED_END: &str = "\"}}\n";

/// Sends the start of a request to each client, and then in turns `bytes` of padding, without a line end.
fn send_unfinished(clients: &mut [Client], bytes: usize, mut between: impl FnMut()) {
    const STEP: usize = 250_000;
    let padding = vec![b'x'; STEP];
    for client in &mut *clients {
        client.send_raw(PADDED_START.as_bytes());
    }
    for _ in 0..bytes / STEP {
        for client in &mut *clients {
            client.send_raw(&padding);
        }
        between();
    }
}

/// Ends the long line of a client. Returns whether it was served; if not, the shared memory was short.
fn line_passes(client: &mut Client) -> bool {
    client.send_raw(PADDED_END.as_bytes());
    let answer = client.answer_to(7);
    if answer["result"] == json!({}) {
        return true;
    }
    let error = &answer["error"];
    assert_eq!(error["code"], -32600, "{answer}");
    assert_eq!(error["data"]["reason"], "too_large", "{answer}");
    let message = error["message"].as_str().unwrap();
    let names_the_limit = message.contains(&Grouped(BUDGET_BYTES).to_string());
    assert!(names_the_limit, "{answer}");
    false
}

#[test]
fn unfinished_lines_share_a_bounded_memory() {
    const CLIENTS: usize = 200;
    const BYTES: usize = 10_000_000;
    skip_on_reference!("has no limit for lines of clients");
    let clients_that_fit = processes::sessions_that_fit(CLIENTS);
    let proxy = Proxy::start(&[], &servers::demo());
    let ping = |client: &mut Client| client.request("ping", &json!({}));
    let mut other = proxy.connect();
    let mut clients: Vec<Client> = (0..clients_that_fit).map(|_| proxy.connect()).collect();
    for client in clients.iter_mut().chain([&mut other]) {
        ping(client);
    }
    let before = rss_kib(proxy.pid());

    let mut longest = Duration::ZERO;
    send_unfinished(&mut clients, BYTES, || {
        let start = Instant::now();
        assert_eq!(ping(&mut other)["result"], json!({}));
        longest = longest.max(start.elapsed());
    });
    let refused = clients
        .iter_mut()
        .map(|client| usize::from(!line_passes(client)))
        .sum::<usize>();
    let grown = peak_rss_kib(proxy.pid()).saturating_sub(before);
    eprintln!(
        "{clients_that_fit} unfinished lines: {grown} KiB, {refused} refused; others wait {longest:?} at most"
    );
    let allowed = BUDGET_BYTES / 1024 + 64 * clients_that_fit as u64 + SLACK_KIB;
    assert!(grown <= allowed, "the proxy's memory grew by {grown} KiB");
    assert!(
        refused > 0,
        "all these lines together should be over the limit"
    );
    assert!(
        refused < clients_that_fit,
        "some of these lines should pass"
    );

    // A session whose line was refused goes on; and once unfinished lines are gone, others have their room.
    for client in &mut clients {
        let answer = ping(client);
        assert_eq!(answer["result"], json!({}), "{answer}");
    }
    send_unfinished(&mut clients, BYTES / 8, || {});
    drop(clients);
    eventually("the clients to be gone", PATIENCE, || {
        proxy.servers().len() == 1
    });
    // A quarter of the memory is left to others, and buffers are larger than what is in them.
    let room = BUDGET_BYTES / 2 / BYTES as u64;
    let mut clients: Vec<Client> = (0..room).map(|_| proxy.connect()).collect();
    send_unfinished(&mut clients, BYTES, || {});
    for client in &mut clients {
        client.send_raw(PADDED_END.as_bytes());
        assert_eq!(client.answer_to(7)["result"], json!({}));
    }
    ping(&mut other);
}

#[test]
fn nine_megabytes_arrive_byte_for_byte_while_others_talk() {
    const OTHERS: usize = 50;
    const TIMES: usize = 3;
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut others: Vec<Client> = (0..OTHERS).map(|_| proxy.connect()).collect();
    for client in &mut others {
        round_trip(client);
    }
    // No two places look the same, so that nothing can be swapped or doubled unnoticed.
    let numbers: Vec<u32> = (0..1_000_000).map(|number| 10_000_000 + number).collect();
    let line = json!({"jsonrpc": "2.0", "method": "large", "params": numbers}).to_string();
    let mut large = proxy.connect();
    let mut writer = large.writer();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                longest = others
                    .iter_mut()
                    .map(round_trip)
                    .max()
                    .unwrap()
                    .max(longest);
            }
            longest
        });
        let finally = Finally(&done);
        scope.spawn(|| {
            for _ in 0..TIMES {
                writer.write_all(format!("{line}\n").as_bytes()).unwrap();
            }
        });
        for _ in 0..TIMES {
            let came = large.recv_line();
            assert!(
                came == line,
                "{} bytes of {} came, or others",
                came.len(),
                line.len()
            );
        }
        drop(finally);
        eprintln!(
            "beside {} bytes, others wait {:?} at most",
            line.len(),
            talk.join().unwrap()
        );
    });
}

#[test]
fn many_large_requests_written_before_anything_is_read_are_all_answered() {
    const REQUESTS: u64 = 100;
    skip_on_reference!("deadlocks");
    let proxy = Proxy::start(&[], &servers::demo());
    let mut client = proxy.connect();
    client.initialize();
    let before = rss_kib(proxy.pid());
    let text = "x".repeat(1_000_000);
    let ids: Vec<u64> = (0..REQUESTS)
        .map(|number| client.send_request("tools/call", &echo(&format!("{number} {text}"))))
        .collect();
    for (number, id) in ids.into_iter().enumerate() {
        let answer = client.recv_json_within(PATIENCE);
        assert_eq!(answer["id"], id);
        assert_echoed(&answer, &format!("{number} {text}"));
    }
    let grown = peak_rss_kib(proxy.pid()).saturating_sub(before);
    eprintln!("{REQUESTS} answers that wait: {grown} KiB");
    assert!(
        grown <= BUDGET_BYTES / 1024 + SLACK_KIB,
        "the proxy's memory grew by {grown} KiB"
    );
}

#[test]
fn a_batch_of_too_many_requests_is_not_answered_by_more_than_was_sent() {
    const REQUESTS: usize = 400_000;
    skip_on_reference!("has no limit of requests in flight");
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    round_trip(&mut client);
    let before = rss_kib(proxy.pid());
    let request = r#"{"id":1,"method":"m"},"#;
    client.send_line(&format!("[{}{{}}]", request.repeat(REQUESTS)));
    let answer = client.recv_json();
    assert_eq!(answer["id"], Value::Null, "{answer}");
    assert_eq!(
        answer["error"]["data"]["reason"], "in_flight_limit",
        "{answer}"
    );
    round_trip(&mut client);
    let grown = peak_rss_kib(proxy.pid()).saturating_sub(before);
    eprintln!("a batch of {REQUESTS} requests: {grown} KiB");
    assert!(grown <= 64 * 1024, "the proxy's memory grew by {grown} KiB");
}

#[test]
fn a_batch_of_very_many_messages_costs_little_more_than_its_bytes() {
    const BYTES: usize = 10_000_000;
    skip_on_reference!("parses what it forwards");
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    round_trip(&mut client);
    let before = rss_kib(proxy.pid());
    let mut writer = client.writer();
    for message in ["{}", r#"{"method":"x"}"#] {
        let rest = format!(",{message}").repeat(BYTES / (message.len() + 1) - 1);
        let line = format!("[{message}{rest}]");
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(format!("{line}\n").as_bytes()).unwrap());
            assert!(client.recv_line_within(PATIENCE) == line, "not verbatim");
        });
    }
    let grown = peak_rss_kib(proxy.pid()).saturating_sub(before);
    eprintln!("batches of {BYTES} bytes: {grown} KiB");
    assert!(grown <= 64 * 1024, "the proxy's memory grew by {grown} KiB");
}

/// Neither client reads, and the first one holds all the memory that there is for such clients.
#[test]
fn a_session_that_waits_for_memory_goes_on_when_another_gives_it_back() {
    const LINES: usize = 60;
    skip_on_reference!("holds all that there is in memory");
    let proxy = Proxy::start(&[], &servers::mirror());
    let line = format!(r#"{{"method":"m","params":"{}"}}"#, "x".repeat(1_000_000)) + "\n";
    let greedy = proxy.connect();
    let modest = proxy.connect();
    let sent = AtomicU64::new(0);
    let write = |mut writer: TcpStream, lines: usize| {
        writer.set_write_timeout(Some(PATIENCE)).unwrap();
        (0..lines).all(|_| {
            sent.fetch_add(1, Ordering::Relaxed);
            writer.write_all(line.as_bytes()).is_ok()
        })
    };
    thread::scope(|scope| {
        let (first, second) = (greedy.writer(), modest.writer());
        // More than there is memory for.
        let first = scope.spawn(|| write(first, 1000));
        eventually("much to be sent", PATIENCE, || {
            sent.load(Ordering::Relaxed) > 50
        });
        wait_until_quiet(&family(&proxy));
        let second = scope.spawn(|| write(second, LINES));
        wait_until_quiet(&family(&proxy));
        assert!(!first.is_finished() && !second.is_finished());
        // The socket is closed, and the proxy told, when the thread has let go of its own handle too.
        greedy.writer().shutdown(Shutdown::Both).unwrap();
        assert!(!first.join().unwrap());
        greedy.reset();
        eventually("the other one to go on", PATIENCE, || second.is_finished());
        assert!(second.join().unwrap());
    });
}

#[test]
fn a_session_that_floods_both_ways_does_not_delay_others() {
    const ROUND_TRIPS: u32 = 300;
    // The flood goes on until the client is gone: only another session's turn can end this test.
    let flood = format!("yes '{}' & exec cat >/dev/null", numbered(0));
    let proxy = Proxy::start(&[], &servers::mirror_unless("flood", &flood));
    let mut flooded = proxy.connect();
    flooded.send_line(&go("flood"));
    assert_eq!(flooded.recv_line(), numbered(0));
    let mut slow = mirrored(&proxy);
    let mut other = mirrored(&proxy);
    let done = AtomicBool::new(false);
    let received = AtomicU64::new(0);
    let (mut reader, mut writer) = (flooded.writer(), flooded.writer());
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        let finally = Finally(&done);
        // Bytes, not lines: it must be the proxy that can't keep up, or else it rests.
        scope.spawn(|| {
            let mut buffer = vec![0; 256 * 1024];
            while !done.load(Ordering::Relaxed) {
                let count = reader.read(&mut buffer).unwrap() as u64;
                received.fetch_add(count, Ordering::Relaxed);
            }
            reader.shutdown(Shutdown::Both).unwrap();
        });
        scope.spawn(|| flood_until_gone(&mut writer, &done));
        eventually("the flood", PATIENCE, || {
            received.load(Ordering::Relaxed) > 1_000_000
        });

        let longest = round_trips(&mut other, ROUND_TRIPS);
        eprintln!("beside a flood, others wait {longest:?} at most");

        // And one that takes its time over every line.
        let line = numbered(1) + "\n";
        for byte in line.bytes() {
            slow.send_raw(&[byte]);
            round_trip(&mut other);
        }
        assert_eq!(slow.recv_line(), numbered(1));
        drop(finally);
    });
}

fn flood_until_gone(writer: &mut TcpStream, done: &AtomicBool) {
    let lines: String = (0..1000).map(|number| numbered(number) + "\n").collect();
    while !done.load(Ordering::Relaxed) {
        // Once the reading side has closed, this may fail.
        if writer.write_all(lines.as_bytes()).is_err() {
            return;
        }
    }
}
