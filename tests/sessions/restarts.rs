//! When a server is started again, when no more, and what the client is told; and what becomes of sessions when the
//! proxy itself is stopped.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::client::{RESTART_NOTICE as NOTICE, assert_own_error, result_of};
use crate::common::{Client, DEADLINE, NoLine, Proxy, Scratch, eventually, processes, servers};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const HEARTBEAT: &str = r#"{"type":"heartbeat","timestamp":1}"#;

/// The time at which a line was logged, since 1970.
fn logged_at(line: &str) -> f64 {
    let time = OffsetDateTime::parse(line.split(' ').next().unwrap(), &Rfc3339).unwrap();
    (time - OffsetDateTime::UNIX_EPOCH).as_seconds_f64()
}

/// Now, by the same clock. How much later than this something comes can be told on a machine that stalls, too, where
/// lines of the log may themselves be late.
fn unix_time() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs_f64()
}

#[track_caller]
fn expect_end(client: &mut Client) {
    let end = NoLine::End { unfinished: vec![] };
    assert_eq!(client.try_recv(DEADLINE), Err(end));
}

/// Waits for the next heartbeat, and returns whether it calls the server alive.
#[track_caller]
fn next_heartbeat(client: &mut Client) -> bool {
    loop {
        let message = client.recv_json();
        if message["type"] == "heartbeat_response" {
            return message["mcp_alive"].as_bool().unwrap();
        }
        client.aside.push(message);
    }
}

// The notice.

#[test]
fn the_notice_has_its_shape_and_comes_half_a_second_after_the_start() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let began = unix_time();
    let mut client = proxy.connect();
    let killed = client.pid_of_server();
    processes::kill_and_wait(killed);
    let notice = client.recv_json();
    let timestamp = notice["params"]["timestamp"].as_f64().unwrap();
    let params = json!({"timestamp": timestamp, "reason": "process_terminated"});
    let expected = json!({"jsonrpc": "2.0", "method": NOTICE, "params": params});
    assert_eq!(notice, expected);

    // The new server was started a second after the first one at the earliest.
    let after = timestamp - began;
    assert!(after > 1.49, "{after} s after the first start");
    assert!((unix_time() - timestamp).abs() < DEADLINE.as_secs_f64());
    // Once is enough.
    client.send_line(HEARTBEAT);
    assert_ne!(client.pid_of_server(), killed);
    assert_eq!(client.aside, Vec::<Value>::new());
}

#[test]
fn a_server_that_does_not_last_is_not_announced() {
    const ATTEMPTS: usize = 5;
    // On a busy machine, a shell may take half a second to begin: then it does last, and is announced.
    let is_left_out = (0..ATTEMPTS).any(|_| is_first_notice_of_the_third_server());
    assert!(is_left_out, "not in {ATTEMPTS} attempts");
}

/// Whether a second server that ends at once is not announced, but the third is.
fn is_first_notice_of_the_third_server() -> bool {
    let scratch = Scratch::new();
    scratch.write("on-start", "if [ $(number) -eq 2 ]; then exit 1; fi");
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let began = unix_time();
    let mut client = proxy.connect();
    processes::kill_and_wait(client.pid_of_server());
    let notice = client.recv_json();
    assert_eq!(notice["method"], NOTICE);
    // The first restart comes a second after the first start, the next one five seconds after the second.
    let restarts = proxy.wait_for_logs("goes on with a new server", 2);
    let times: Vec<f64> = restarts
        .iter()
        .map(|line| logged_at(line) - began)
        .collect();
    assert!(times[0] > 0.99 && times[1] > 5.99, "{times:?}");

    let announced = notice["params"]["timestamp"].as_f64().unwrap() - began;
    if announced < 6.49 {
        return false;
    }
    client.pid_of_server();
    assert_eq!(client.aside, Vec::<Value>::new());
    assert_eq!(scratch.servers().len(), 3);
    true
}

#[test]
fn heartbeats_say_that_the_server_is_down_until_it_is_up() {
    let scratch = Scratch::new();
    let options = ["--heartbeat-interval", "0.05"];
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    client.send_line(HEARTBEAT);
    assert!(next_heartbeat(&mut client));
    client.pid_of_server();
    // It is down until a second after its start, the next one until five seconds after: a machine may stall for longer
    // than the first one lasts.
    let mut killed = Vec::new();
    while next_heartbeat(&mut client) {
        if let Some(server) = scratch.servers().get(killed.len()) {
            processes::kill_and_wait(*server);
            killed.push(*server);
        }
    }
    while !next_heartbeat(&mut client) {}
    assert!(!killed.contains(&client.pid_of_server()));
}

// The limit.

#[test]
fn a_session_is_closed_when_no_restart_is_left() {
    let attempt = |max_restarts: usize| {
        let scratch = Scratch::new();
        let options = ["--max-restarts", &max_restarts.to_string()];
        let proxy = Proxy::start(&options, &servers::scripted(&scratch));
        let mut client = proxy.connect();
        for _ in 0..max_restarts {
            client.pid_of_server();
            client.send_code("exit 3");
            client.recv_error_but_notice(502, "process_terminated");
        }
        client.pid_of_server();
        let last = [
            client.send_request("unanswered", &json!({})),
            client.send_code("note last; exit 3"),
        ];
        assert_eq!(client.recv_but_notice()["method"], "last");
        for id in last {
            let failed = client.recv_error_but_notice(502, "process_terminated");
            assert_eq!(failed.0, id);
        }
        expect_end(&mut client);
        assert_eq!(scratch.servers().len(), max_restarts + 1);
        proxy.wait_for_log(&format!(
            "closed: the server ended (exit code 3) after {max_restarts} restart{}, the limit (--max-restarts)",
            if max_restarts == 1 { "" } else { "s" }
        ));
        proxy.wait_until_childless();
    };
    thread::scope(|scope| {
        for max_restarts in [0, 1, 2] {
            scope.spawn(move || attempt(max_restarts));
        }
    });
}

/// Sends that many requests of half a kilobyte.
fn send_many(client: &mut Client, count: usize) -> Vec<u64> {
    let padding = json!({"padding": "x".repeat(450)});
    (0..count)
        .map(|_| client.send_request("pid", &padding))
        .collect()
}

/// What had been written to the server is failed, what had not is refused; nothing twice, nothing not at all.
#[track_caller]
fn expect_failed_then_refused(client: &mut Client, ids: &[u64], reason: &str) {
    let mut refused = 0;
    for id in ids {
        // On a busy machine, a server may take so long to fail that the client is told of it first.
        let answer = client.recv_but_notice();
        assert_eq!(answer["id"], *id);
        if refused == 0 && answer["error"]["code"] == 502 {
            assert_own_error(&answer, 502, "process_terminated");
        } else {
            assert_own_error(&answer, 503, reason);
            refused += 1;
        }
    }
    assert!(refused > 0);
    expect_end(client);
}

/// More than a pipe holds, and less than pipe and outbox do.
const SOME_IN_OUTBOX: usize = 140;

/// More than pipe, outbox and the proxy's hands hold: the rest is in the socket.
const SOME_IN_SOCKET: usize = 450;

/// More than the socket holds at the proxy's end.
const SOME_NOT_RECEIVED: usize = 1000;

#[test]
fn whoever_waits_is_told_when_no_restart_is_left() {
    let scratch = Scratch::new();
    // The second one ends once all that waits is on its way.
    scratch.write(
        "on-start",
        "if [ $(number) -eq 2 ]; then while ! [ -e \"$dir/go\" ]; do sleep 0.02; done; exit 7; fi",
    );
    let proxy = Proxy::start(&["--max-restarts", "1"], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    processes::kill_and_wait(client.pid_of_server());
    let waiting = send_many(&mut client, SOME_IN_SOCKET);
    scratch.write("go", "");
    expect_failed_then_refused(&mut client, &waiting, "restart_limit");
    client.close();
    proxy.wait_for_log("closed: the server ended (exit code 7) after 1 restart,");
}

fn die_without_auto_restart(requests: usize) {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    let first = client.send_code("exec sleep 60");
    let waiting = send_many(&mut client, requests);
    eventually("the server to read no more", DEADLINE, || {
        processes::Process::find(server).is_some_and(|process| process.name == "sleep")
    });
    processes::send_signal(server, Signal::SIGKILL);
    assert_eq!(client.recv_error(502, "process_terminated").0, first);
    expect_failed_then_refused(&mut client, &waiting, "restart_limit");
    client.close();
    proxy.wait_for_log("closed: the server ended (signal 9 (SIGKILL)) and auto-restart is off");
    assert_eq!(scratch.servers().len(), 1);
}

#[test]
fn without_auto_restart_the_first_death_is_the_end() {
    die_without_auto_restart(SOME_IN_SOCKET);
}

#[test]
fn requests_on_their_way_are_refused_too() {
    die_without_auto_restart(SOME_NOT_RECEIVED);
}

#[test]
fn a_server_that_cannot_be_started_is_given_up_like_one_that_dies() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--max-restarts", "1"], &servers::removable(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    // It has to be there before the next start fails, which is the end of the session.
    let first = client.send_code("exec sleep 60");
    let id = client.send_request("pid", &json!({}));
    client.wait_until_read();
    eventually("the server to read no more", DEADLINE, || {
        processes::Process::find(server).is_some_and(|process| process.name == "sleep")
    });
    scratch.remove("server");
    processes::kill_and_wait(server);
    assert_eq!(client.recv_error(502, "process_terminated").0, first);
    assert_eq!(client.recv_error(503, "spawn_failed").0, id);
    expect_end(&mut client);
    proxy.wait_for_log("closed: the server could not be started");
}

#[test]
fn a_server_that_can_be_started_again_later_goes_on() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::removable(&scratch));
    let began = unix_time();
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    fs::rename(scratch.file("server"), scratch.file("away")).unwrap();
    processes::kill_and_wait(server);
    let id = client.send_request("pid", &json!({}));
    proxy.wait_for_log("the server could not be started");
    fs::rename(scratch.file("away"), scratch.file("server")).unwrap();
    result_of(client.answer_to(id));
    // It counts as a restart: the next one had to wait for longer, and it a second from the first start on.
    let started = proxy.wait_for_log("goes on with a new server");
    let wait = logged_at(&started) - began;
    assert!(wait > 5.99, "{wait} s");
}

// The proxy is stopped.

#[test]
fn what_is_in_flight_is_answered_when_the_proxy_is_stopped() {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    let slow = client.send_code("while ! [ -e \"$dir/go\" ]; do sleep 0.02; done; answer");
    let queued = client.send_request("pid", &json!({}));
    client.wait_until_read();
    scratch.wait_for_lines(server, 2);
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_log("shutting down");
    eventually("new clients to be refused", DEADLINE, || {
        TcpStream::connect(proxy.address()).is_err()
    });
    scratch.write("go", "");
    for id in [slow, queued] {
        assert_eq!(result_of(client.answer_to(id))["pid"], server);
    }
    expect_end(&mut client);
    client.close();
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    assert!(!processes::process_exists(server));
}

#[test]
fn what_waits_for_a_server_is_refused_when_the_proxy_is_stopped() {
    let scratch = Scratch::new();
    // It is down for five seconds at a time, which is long enough to be sent something.
    scratch.write("on-start", "if [ $(number) -ge 2 ]; then exit 1; fi");
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    processes::kill_and_wait(client.pid_of_server());
    proxy.wait_for_logs("the server ended", 2);
    let ids = [(); 3].map(|()| client.send_request("pid", &json!({})));
    client.wait_until_read();
    proxy.signal(Signal::SIGTERM);
    for id in ids {
        assert_own_error(&client.answer_to(id), 503, "shutdown");
    }
    expect_end(&mut client);
    client.close();
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    proxy.wait_for_log("stopped");
    let log = proxy.log();
    let mut after_signal = log
        .iter()
        .skip_while(|line| !line.contains("shutting down"));
    assert!(
        !after_signal.any(|line| line.contains("a new server")),
        "{log:#?}"
    );
}

/// The server dies while the proxy is being stopped, with that many requests sent to it that it does not read.
fn die_during_shutdown(requests: usize) {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    let first = client.send_code("echo > \"$dir/busy\"; exec sleep 60");
    let waiting = send_many(&mut client, requests);
    scratch.read("busy");
    // Nothing tells when the proxy has read them, but that it answers another client: it reads all in turn.
    proxy.connect().pid_of_server();
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_log("shutting down");
    processes::send_signal(server, Signal::SIGKILL);
    // What is still in the socket is refused as soon as it is read, which may be before the death is known.
    let mut failed = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..=requests {
        let answer = client.recv_json();
        let id = answer["id"].as_u64().unwrap();
        if answer["error"]["code"] == 502 {
            assert_own_error(&answer, 502, "process_terminated");
            failed.push(id);
        } else {
            assert_own_error(&answer, 503, "shutdown");
            refused.push(id);
        }
    }
    expect_end(&mut client);
    assert_eq!(failed[0], first);
    assert!(failed.is_sorted() && !refused.is_empty());
    let answered: BTreeSet<u64> = failed.into_iter().chain(refused).collect();
    assert_eq!(answered, std::iter::once(first).chain(waiting).collect());
    client.close();
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    // The other one was the other client's.
    assert_eq!(scratch.servers().len(), 2);
}

#[test]
fn what_waits_is_answered_when_the_server_dies_while_the_proxy_is_being_stopped() {
    die_during_shutdown(SOME_IN_OUTBOX);
}

#[test]
fn what_is_in_the_socket_is_answered_too_when_the_proxy_is_being_stopped() {
    die_during_shutdown(SOME_IN_SOCKET);
}

#[test]
fn what_is_in_the_socket_is_answered_when_the_proxy_is_being_stopped() {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    let first = client.send_code("while ! [ -e \"$dir/go\" ]; do sleep 0.02; done; answer");
    let waiting = send_many(&mut client, SOME_NOT_RECEIVED);
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_log("shutting down");
    scratch.write("go", "");
    // What was read before the signal is served, and the rest is refused at once, as no server has seen it.
    let mut left: BTreeSet<u64> = std::iter::once(first).chain(waiting).collect();
    let mut refused = 0;
    while !left.is_empty() {
        let answer = client.recv_json();
        assert!(left.remove(&answer["id"].as_u64().unwrap()), "{answer}");
        if answer["error"].is_null() {
            assert_eq!(answer["result"]["pid"], server, "{answer}");
        } else {
            assert_own_error(&answer, 503, "shutdown");
            assert_eq!(answer["error"]["data"]["delivered"], false);
            refused += 1;
        }
    }
    assert!(refused > 0);
    expect_end(&mut client);
    client.close();
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn no_server_is_started_after_a_second_signal() {
    let scratch = Scratch::new();
    scratch.write("on-initialize", "trap '' TERM; exec sleep 60");
    let options = ["--heartbeat-interval", "0.2"];
    let mut proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    client.send_line(HEARTBEAT);
    client.send_request("initialize", &json!({}));
    let server = scratch.wait_for_server(1);
    scratch.wait_for_lines(server, 1);
    // Until the cooldown is over, so that nothing else would delay the next server.
    for _ in 0..7 {
        next_heartbeat(&mut client);
    }
    client.shutdown_write();
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_log("shutting down");
    let status = proxy.signal_until_exit(Signal::SIGTERM, DEADLINE);
    assert_eq!(status.code(), Some(0));
    proxy.wait_for_log("second signal");
    proxy.wait_for_log("stopped");
    let started = proxy
        .log()
        .iter()
        .filter(|line| line.contains("a new server"))
        .count();
    assert_eq!((started, scratch.servers().len()), (0, 1));
    processes::wait_until_dead(server);
}

#[test]
fn a_second_signal_kills_at_once() {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    // In flight, it would be waited for for half a minute; then it would take the whole ladder to end it.
    client.send_code("trap '' TERM; echo deaf > \"$dir/deaf\"; while :; do sleep 1; done");
    scratch.read("deaf");
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_log("shutting down");
    let status = proxy.signal_until_exit(Signal::SIGINT, DEADLINE);
    assert_eq!(status.code(), Some(0));
    // It is given a second to be reaped in.
    processes::wait_until_dead(server);
}
