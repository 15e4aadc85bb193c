//! What the proxy does when there is no more of something: places for sessions, descriptors, processes. And how little
//! it needs when nothing happens. Measured numbers are printed (`--nocapture`).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::processes::{
    cpu_time, fd_count, rss_kib, send_signal, sessions_that_fit, voluntary_switches,
    wait_until_quiet,
};
use common::proxy::{as_another_user, can_run_as_another_user};
use common::{Client, DEADLINE, NoLine, Proxy, eventually, servers, skip_on_reference};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The tick of the proxy that no event causes.
const MONITOR_INTERVAL: Duration = Duration::from_secs(2);

/// How long the proxy is watched when it is to do nothing.
const WATCH_TIME: Duration = Duration::from_secs(2);

#[track_caller]
fn ping(client: &mut Client) {
    let answer = client.request("ping", &json!({}));
    assert_eq!(answer["result"], json!({}), "{answer}");
}

/// A client that has been served.
#[track_caller]
fn served(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    ping(&mut client);
    client
}

/// The one line that a client gets for which there is no place; returns the limit that it names.
#[track_caller]
fn refusal(client: &mut Client) -> Value {
    let lines = client.read_to_end();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let answer: Value = serde_json::from_str(&lines[0]).unwrap();
    let message = answer["error"]["message"].as_str().unwrap();
    let expected = json!({
        "jsonrpc": "2.0",
        "id": null,
        "error": {
            "code": 503,
            "message": message,
            "data": {"source": "mcp-tcp-proxy", "reason": "session_limit", "delivered": false},
        },
    });
    assert_eq!(answer, expected);
    let number = message
        .split(|c: char| !c.is_ascii_digit())
        .find(|word| !word.is_empty());
    json!(number.unwrap().parse::<u64>().unwrap())
}

/// Watches for a while that the proxy sleeps, and that these clients get nothing.
#[track_caller]
fn assert_waiting(proxy: &Proxy, clients: &mut [Client]) {
    let (start, before) = (Instant::now(), cpu_time(proxy.pid()));
    eventually("that time to pass", DEADLINE, || {
        start.elapsed() >= WATCH_TIME
    });
    let used = cpu_time(proxy.pid()).saturating_sub(before);
    eprintln!("while clients wait: {used:?} of processor time in {WATCH_TIME:?}");
    assert!(used <= WATCH_TIME / 10, "the proxy used {used:?}");
    for client in clients {
        let nothing = client.try_recv(Duration::from_millis(1));
        assert_eq!(nothing, Err(NoLine::Deadline));
    }
}

/// The log has one line that says why clients wait, and not many others.
#[track_caller]
fn assert_logged_once(proxy: &Proxy, clients: usize) {
    let log = proxy.log();
    let complaints: Vec<&String> = log.iter().filter(|line| is_exhaustion(line)).collect();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(log.len() < 20 + 10 * clients, "{log:#?}");
}

/// Whether a log line says that new connections have to wait.
fn is_exhaustion(line: &str) -> bool {
    line.contains("new connections have to wait: ")
}

// The limit of sessions.

#[test]
fn one_session_over_the_limit_is_told_so() {
    skip_on_reference!("has no limit of sessions");
    let proxy = Proxy::start(&["--max-sessions", "3"], &servers::demo());
    let mut clients: Vec<Client> = (0..3).map(|_| served(&proxy)).collect();
    for _ in 0..2 {
        assert_eq!(refusal(&mut proxy.connect()), 3);
    }
    // What a refused client has to say changes nothing: neither does it get a reset, nor an answer.
    let mut talkative = proxy.connect();
    talkative.send_request("ping", &json!({}));
    assert_eq!(refusal(&mut talkative), 3);

    clients.pop().unwrap().close();
    eventually("the server to be gone", DEADLINE, || {
        proxy.servers().len() == 2
    });
    clients.push(served(&proxy));
    assert_eq!(refusal(&mut proxy.connect()), 3);
    clients.iter_mut().for_each(ping);
}

#[test]
fn refused_clients_that_stay_exhaust_nothing() {
    const REFUSED: usize = 100;
    skip_on_reference!("has no limit of sessions");
    let proxy = Proxy::start(&["--max-sessions", "3"], &servers::demo());
    let mut clients: Vec<Client> = (0..3).map(|_| served(&proxy)).collect();
    let descriptors = fd_count(proxy.pid());
    let mut refused: Vec<TcpStream> = (0..REFUSED)
        .map(|_| TcpStream::connect(proxy.address()).unwrap())
        .collect();
    clients.iter_mut().for_each(ping);

    // Each is let go of, although none reads its line and none closes.
    let is_refusal = |line: &String| line.contains("closed: ") && line.contains("limit");
    eventually("all to be refused", DEADLINE, || {
        assert!(fd_count(proxy.pid()) <= descriptors + REFUSED);
        proxy.log().iter().filter(|line| is_refusal(line)).count() == REFUSED
    });
    eventually("the last descriptors to be closed", DEADLINE, || {
        fd_count(proxy.pid()) == descriptors
    });
    clients.iter_mut().for_each(ping);
    clients.pop().unwrap().close();
    eventually("the server to be gone", DEADLINE, || {
        proxy.servers().len() == 2
    });
    ping(&mut served(&proxy));

    // The line waits for whoever reads it late.
    assert_eq!(refusal(&mut Client::over(refused.pop().unwrap())), 3);
}

#[test]
fn as_many_sessions_as_there_are_descriptors_for_by_default() {
    skip_on_reference!("has no limit of sessions");
    let limit = |descriptors: u64| {
        let limit_descriptors = format!("ulimit -n {descriptors}");
        let proxy = Proxy::start_after(&limit_descriptors, &[], &servers::demo());
        let mut clients = Vec::new();
        loop {
            let mut client = proxy.connect();
            client.send_request("ping", &json!({}));
            let answer = client.recv_json();
            if answer["result"] == json!({}) {
                clients.push(client);
                continue;
            }
            let limit = clients.len() as u64;
            assert_eq!(refusal(&mut proxy.connect()), limit, "{answer}");
            assert!(fd_count(proxy.pid()) as u64 <= descriptors);
            return limit;
        }
    };
    let (few, more) = (limit(256), limit(400));
    eprintln!("256 descriptors: {few} sessions; 400 descriptors: {more}");
    assert!(few > 16 && few < 256 / 4, "{few} sessions");
    assert_eq!(
        (more - few) * 4,
        400 - 256,
        "a session has four descriptors"
    );
}

// Descriptors and processes.

#[test]
fn without_descriptors_clients_wait() {
    const CLIENTS: usize = 30;
    skip_on_reference!("leaves connections open that it can't serve");
    let options = ["--max-sessions", "1000"];
    let proxy = Proxy::start_after("ulimit -n 64", &options, &servers::demo());
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send_request("ping", &json!({}));
    }
    eventually("the descriptors to run out", DEADLINE, || {
        proxy.log().iter().any(|line| is_exhaustion(line))
    });
    // One after the other was served, as long as there were descriptors.
    let served = proxy.servers().len();
    eprintln!("64 descriptors: {served} sessions");
    assert!((8..=16).contains(&served), "{served} clients are served");
    let mut waiting = clients.split_off(served);
    for client in &mut clients {
        assert_eq!(client.recv_json()["result"], json!({}));
    }
    assert_waiting(&proxy, &mut waiting);
    clients.iter_mut().for_each(ping);

    // As clients leave, those that wait are served, to the last.
    for client in &mut waiting {
        if let Some(leaving) = clients.pop() {
            leaving.close();
        }
        assert_eq!(client.recv_json()["result"], json!({}));
        client.shutdown_write();
    }
    assert_logged_once(&proxy, CLIENTS);
    drop((clients, waiting));
    proxy.wait_until_childless();
    ping(&mut proxy.connect());
}

#[test]
fn refused_clients_share_what_descriptors_are_left() {
    const REFUSED: usize = 40;
    skip_on_reference!("has no limit of sessions");
    let options = ["--max-sessions", "2"];
    let proxy = Proxy::start_after("ulimit -n 24", &options, &servers::demo());
    let mut clients: Vec<Client> = (0..2).map(|_| served(&proxy)).collect();
    // None of them closes, so that each costs a descriptor until the proxy lets go of it.
    let refused: Vec<TcpStream> = (0..REFUSED)
        .map(|_| TcpStream::connect(proxy.address()).unwrap())
        .collect();
    eventually("the descriptors to run out", DEADLINE, || {
        proxy.log().iter().any(|line| is_exhaustion(line))
    });
    assert_waiting(&proxy, &mut []);
    clients.iter_mut().for_each(ping);
    for stream in refused {
        assert_eq!(refusal(&mut Client::over(stream)), 2);
    }
    clients.iter_mut().for_each(ping);
    assert_logged_once(&proxy, REFUSED);
}

#[test]
fn without_processes_clients_wait() {
    const PROCESSES: usize = 6;
    // The proxy is one of them.
    const SERVERS: usize = PROCESSES - 1;
    const CLIENTS: usize = 12;
    skip_on_reference!("closes connections that it can't serve");
    if !can_run_as_another_user() {
        return;
    }
    let proxy = Proxy::start_configured(&[], &servers::demo(), |command| {
        as_another_user(command, PROCESSES);
    });
    let mut clients: Vec<Client> = (0..SERVERS).map(|_| served(&proxy)).collect();
    let mut waiting: Vec<Client> = (SERVERS..CLIENTS).map(|_| proxy.connect()).collect();
    for client in &mut waiting {
        client.send_request("ping", &json!({}));
    }
    eventually("the processes to run out", DEADLINE, || {
        proxy.log().iter().any(|line| is_exhaustion(line))
    });
    assert_waiting(&proxy, &mut waiting);
    clients.iter_mut().for_each(ping);
    assert_logged_once(&proxy, CLIENTS);

    // A server that dies may lose its place to a client that waits, but its session goes on when there is one again.
    send_signal(
        proxy.servers_by_client()[&clients[0].local_address()],
        Signal::SIGKILL,
    );
    for client in &mut waiting {
        if clients.len() > 1 {
            clients.pop().unwrap().close();
        }
        assert_eq!(client.recv_json()["result"], json!({}));
        client.shutdown_write();
    }
    let mut answer = clients[0].request("ping", &json!({}));
    while answer["error"]["data"]["reason"] == "process_terminated" {
        answer = clients[0].request("ping", &json!({}));
    }
    assert_eq!(answer["result"], json!({}), "{answer}");
    drop((clients, waiting));
    proxy.wait_until_childless();
    ping(&mut proxy.connect());
}

// What it needs when nothing happens.

#[test]
fn an_idle_proxy_sleeps() {
    const SESSIONS: usize = 100;
    const TICKS: u32 = 3;
    skip_on_reference!("looks at every session every two seconds");
    let proxy = Proxy::start(&[], &servers::demo());
    let mut clients: Vec<Client> = (0..SESSIONS).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.initialize();
        ping(client);
    }
    wait_until_quiet(&[proxy.pid()]);
    let (start, before) = (Instant::now(), voluntary_switches(proxy.pid()));
    let used_before = cpu_time(proxy.pid());
    eventually("some ticks to pass", DEADLINE, || {
        start.elapsed() >= TICKS * MONITOR_INTERVAL
    });
    let wakeups = voluntary_switches(proxy.pid()) - before;
    let (time, used) = (
        start.elapsed(),
        cpu_time(proxy.pid()).saturating_sub(used_before),
    );
    eprintln!(
        "{SESSIONS} idle sessions: {wakeups} wake-ups and {used:?} of processor time in {time:?}"
    );
    let ticks = u64::try_from(time.as_nanos() / MONITOR_INTERVAL.as_nanos()).unwrap();
    assert!(wakeups >= 1, "nobody looks what no event tells");
    assert!(wakeups <= ticks + 2, "{wakeups} wake-ups in {time:?}");
    assert!(used <= Duration::from_millis(20), "the proxy used {used:?}");
    clients.iter_mut().for_each(ping);
}

#[test]
fn an_idle_session_holds_no_buffers() {
    const LIMIT_KIB: u64 = 8;
    skip_on_reference!("has more to keep for a session");
    let sessions = sessions_that_fit(500);
    let proxy = Proxy::start(&[], &servers::demo());
    let open = |count: usize| -> Vec<Client> {
        let mut clients: Vec<Client> = (0..count).map(|_| proxy.connect()).collect();
        for client in &mut clients {
            client.initialize();
            ping(client);
        }
        clients
    };
    let first = open(1);
    let before = rss_kib(proxy.pid());
    let rest = open(sessions);
    let grown = rss_kib(proxy.pid()).saturating_sub(before);
    let state = size_of::<mcp_tcp_proxy::session::Session>();
    eprintln!("{sessions} idle sessions: {grown} KiB, the state of each being {state} bytes");
    assert!(
        grown < LIMIT_KIB * sessions as u64,
        "{grown} KiB for {sessions} sessions"
    );
    drop((first, rest));
}

#[test]
fn sessions_that_come_and_go_leave_no_memory_behind() {
    const WAVES: usize = 20;
    const SESSIONS: usize = 100;
    const SLACK_KIB: u64 = 256;
    skip_on_reference!("is not measured");
    let proxy = Proxy::start(&["--heartbeat-interval", "0.05"], &servers::mirror());
    let wave = || {
        let mut clients: Vec<Client> = (0..SESSIONS).map(|_| proxy.connect()).collect();
        for client in &mut clients {
            client.send_line(r#"{"type":"heartbeat"}"#);
            client.send_line(r#"{"jsonrpc":"2.0","method":"m"}"#);
        }
        for client in &mut clients {
            client.message_of("m");
        }
        drop(clients);
        proxy.wait_until_childless();
        rss_kib(proxy.pid())
    };
    let first = wave();
    let last = (1..WAVES).fold(first, |_, _| wave());
    eprintln!(
        "{SESSIONS} sessions that came and went: {first} KiB; {WAVES} times as many: {last} KiB"
    );
    assert!(
        last <= first + SLACK_KIB,
        "memory grew from {first} to {last} KiB"
    );
}

/// Under a limit on address space that many long lines would exceed, the budget is a part of it: what does not fit is
/// refused, and nobody else is affected.
#[test]
fn long_lines_under_a_limit_on_memory_are_refused_and_the_proxy_survives() {
    const CLIENTS: usize = 60;
    const PART_BYTES: usize = 3_000_000;
    skip_on_reference!("has no limit on memory");
    let proxy = Proxy::start_after("ulimit -v 204800", &[], &servers::mirror());
    let limit =
        "Buffer memory: 52428800 bytes, a quarter of the limit on address space (209715200 bytes)";
    proxy.wait_for_log(limit);
    let mut bystander = proxy.connect();
    let mut round = |line: &str| {
        bystander.send_line(line);
        assert_eq!(bystander.recv_line(), line);
    };
    let part = "x".repeat(PART_BYTES);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = proxy.connect();
            client.send_raw(format!(r#"{{"id":7,"method":"m","params":["{part}"#).as_bytes());
            round(r#"{"method":"between"}"#);
            client
        })
        .collect();
    let mut refused = 0;
    for client in &mut clients {
        client.send_line("\"]}");
        let answer = client.recv_json();
        assert_eq!(answer["id"], 7);
        if answer["error"]["code"] == -32600 {
            refused += 1;
        }
    }
    println!("{refused} of {CLIENTS} long lines were refused");
    assert!(refused >= CLIENTS / 2, "{refused}");
    round(r#"{"method":"after"}"#);
}

/// Connections that begin long lines and do not go on do not take the memory from those that come later.
#[test]
fn idle_connections_with_unfinished_lines_make_room_for_a_newcomer() {
    const PART_BYTES: usize = 900_000;
    skip_on_reference!("has no limit on memory");
    let proxy = Proxy::start(&["--max-buffer-bytes", "20000000"], &servers::mirror());
    let part = "x".repeat(PART_BYTES);
    let idle: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = proxy.connect();
            client.send_raw(part.as_bytes());
            client
        })
        .collect();
    proxy.wait_for_log("an unfinished line of the client was dropped");
    let mut newcomer = proxy.connect();
    let line = format!(r#"{{"method":"m","params":["{part}"]}}"#);
    // As long as the others' lines have moved as lately as the newcomer's, it may be the one that loses.
    let deadline = Instant::now() + DEADLINE;
    let mut in_a_row = 0;
    while in_a_row < 3 {
        assert!(Instant::now() < deadline, "it was refused again and again");
        newcomer.send_line(&line);
        in_a_row = if newcomer.recv_line() == line {
            in_a_row + 1
        } else {
            0
        };
    }
    drop(idle);
}
