//! `--prespawn`: servers that wait for sessions.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{HEARTBEAT, expect_end, logged_at, unix_time};
use crate::common::client::RESTART_NOTICE;
use crate::common::processes::{self, wait_until_quiet};
use crate::common::{
    Client, DEADLINE, Proxy, Scratch, eventually, servers, skip_on_reference, write_program,
};

const LOST: &str = "pool: a waiting server was lost";

/// The line about the pool at the end of the log, after a SIGTERM.
#[track_caller]
fn stop(proxy: &mut Proxy) -> String {
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    let line = proxy.wait_for_log("pool: size ");
    line.split_once("pool: ").unwrap().1.to_owned()
}

#[track_caller]
fn wait_until_gone(pid: i32) {
    eventually(&format!("process {pid} to be gone"), DEADLINE, || {
        !processes::process_exists(pid)
    });
}

// Taking.

#[test]
fn a_connection_takes_the_server_that_has_waited_longest() {
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&["--prespawn", "2"], &servers::scripted(&scratch));
    scratch.wait_for_server(2);
    let first = proxy.servers()[0];
    let mut client = proxy.connect();
    assert_eq!(client.pid_of_server(), first);
    proxy.wait_for_log(&format!("{} pid {first}] opened", client.local_address()));
    // The next one is started in the background.
    scratch.wait_for_server(3);
    client.initialize();
    client.close();
    wait_until_gone(first);
    assert_eq!(stop(&mut proxy), "size 2, 1 hit, 0 misses");
    for server in scratch.servers() {
        assert!(!processes::process_exists(server));
    }
}

#[test]
fn every_start_is_a_hit_or_a_miss() {
    const CLIENTS: usize = 20;
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&["--prespawn", "2"], &servers::scripted(&scratch));
    scratch.wait_for_server(2);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.connect()).collect();
    let mut pids: Vec<i32> = clients.iter_mut().map(Client::pid_of_server).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), CLIENTS, "each has its own");
    drop(clients);
    let counts = stop(&mut proxy);
    let numbers: Vec<usize> = counts
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect();
    assert_eq!((numbers[0], numbers[1] + numbers[2]), (2, CLIENTS));
    assert!(numbers[1] >= 2, "{counts}");
}

#[test]
fn what_a_waiting_server_says_is_for_whoever_takes_it() {
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    scratch.write(
        "on-start",
        r#"note banner; echo waits >&2; echo > "$dir/up.$$""#,
    );
    let proxy = Proxy::start(&["--prespawn", "1"], &servers::scripted(&scratch));
    let server = scratch.wait_for_server(1);
    scratch.read(&format!("up.{server}"));
    proxy.wait_for_log(&format!("[spare pid {server}] stderr: waits"));
    let mut client = proxy.connect();
    assert_eq!(client.recv_json()["method"], "banner");
    client.send_code("echo serves >&2; answer");
    client.recv_json();
    proxy.wait_for_log(&format!(" pid {server}] stderr: serves"));
}

#[test]
fn the_last_words_of_one_that_crashes_while_it_waits_are_logged() {
    skip_on_reference!("has no pool");
    let script = r#"awk 'BEGIN { for (i = 0; i < 150; i++) print "debug", i + 1000 }' >&2
echo "RuntimeError: $((40 + 2)) is the wrong password" >&2; exit 3"#;
    let proxy = Proxy::start(&["--prespawn", "1"], &servers::sh(script));
    proxy.wait_for_log(LOST);
    let line = proxy.wait_for_log("RuntimeError: 42");
    assert!(
        line.contains("WARN") && line.contains("[spare pid "),
        "{line}"
    );
}

#[test]
fn a_lazy_session_takes_one_when_it_has_something_to_say() {
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    let options = ["--prespawn", "1", "--spawn", "lazy"];
    let mut proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let server = scratch.wait_for_server(1);
    let mut silent = proxy.connect();
    silent.send_line(HEARTBEAT);
    silent.shutdown_write();
    expect_end(&mut silent);
    let mut client = proxy.connect();
    assert_eq!(client.pid_of_server(), server);
    drop(client);
    assert_eq!(stop(&mut proxy), "size 1, 1 hit, 0 misses");
}

#[test]
fn a_session_that_loses_its_server_takes_one_that_waits() {
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--prespawn", "1"], &servers::legacy(&scratch));
    let first = scratch.wait_for_server(1);
    let mut client = proxy.connect();
    client.initialize();
    assert_eq!(client.pid_of_server(), first);
    let second = scratch.wait_for_server(2);
    processes::kill_and_wait(first);
    assert_eq!(client.pid_of_server(), second);
    let greeted = ["initialize", "notifications/initialized", "pid"];
    assert_eq!(scratch.methods(second), greeted);
}

/// A server is as old as its time with the session, or a session of which every server dies would use the pool up.
#[test]
fn cooldowns_count_from_when_a_server_was_taken() {
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--prespawn", "3"], &servers::scripted(&scratch));
    scratch.wait_for_server(3);
    let began = unix_time();
    let mut client = proxy.connect();
    for restarts in 1..=2 {
        client.send_code("exit 3");
        proxy.wait_for_logs("goes on with a new server", restarts);
    }
    // A second after the first one was taken, and five seconds after the second.
    let taken = proxy.wait_for_logs("goes on with a new server", 2);
    let times: Vec<f64> = taken.iter().map(|line| logged_at(line) - began).collect();
    assert!(times[0] > 0.99 && times[1] > 5.99, "{times:?}");
}

// Losses.

#[test]
fn a_waiting_server_that_dies_is_replaced() {
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&["--prespawn", "1"], &servers::scripted(&scratch));
    let killed = scratch.wait_for_server(1);
    processes::kill_and_wait(killed);
    let line = proxy.wait_for_log(LOST);
    assert!(line.contains("(signal 9 (SIGKILL))"), "{line}");
    let second = scratch.wait_for_server(2);
    assert_eq!(proxy.connect().pid_of_server(), second);
    assert_eq!(stop(&mut proxy), "size 1, 1 hit, 0 misses");
}

#[test]
fn one_that_can_not_be_served_is_replaced() {
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    // It lives on, but does not listen, or does not speak.
    scratch.write(
        "on-start",
        "case $(number) in
1) exec >&-; while :; do sleep 1; done ;;
2) exec <&-; while :; do sleep 1; done ;;
esac",
    );
    let proxy = Proxy::start(&["--prespawn", "1"], &servers::scripted(&scratch));
    let third = scratch.wait_for_server(3);
    assert_eq!(proxy.wait_for_logs(LOST, 2).len(), 2);
    assert_eq!(proxy.connect().pid_of_server(), third);
    for server in &scratch.servers()[..2] {
        wait_until_gone(*server);
    }
}

#[test]
fn a_server_that_dies_at_start_up_is_not_started_over_and_over() {
    const SIZE: usize = 8;
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    scratch.write("on-start", "echo broken >&2; exit 1");
    let size = SIZE.to_string();
    // A session that was over before its client has said something would have nobody to tell.
    let lazily = ["--spawn", "lazy"];
    let options = [&lazily[..], &["--prespawn", &size, "--max-restarts", "1"]].concat();
    let mut proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let spent = proxy.wait_for_log(
        "the limit (--max-restarts); for 60 s sessions start their servers themselves",
    );
    assert!(spent.contains(LOST), "{spent}");
    eventually("all that were started to be gone", DEADLINE, || {
        proxy.descendants().is_empty()
    });
    // All of the first servers may have been started before the first of them was gone; then there was one attempt.
    let starts = scratch.servers().len();
    assert!((2..=SIZE + 1).contains(&starts), "{starts} starts");
    wait_until_quiet(&[proxy.pid()]);
    assert_eq!(scratch.servers().len(), starts);
    let losses = proxy.wait_for_logs(LOST, 2);
    assert_eq!(losses.len(), 2, "{losses:?}");

    // A connection gets the error that it would get without a pool.
    let mut client = proxy.connect();
    let id = client.send_request("pid", &json!({}));
    let mut lines = client.read_to_end();
    // Its second server may live for so long that it is told.
    lines.retain(|line| !line.contains(RESTART_NOTICE));
    assert_eq!(lines.len(), 1, "{lines:?}");
    let answer: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(answer["id"], id);
    // Its first server may have been sent the request, or not.
    let reason = answer["error"]["data"]["reason"].as_str();
    let reasons = ["process_terminated", "restart_limit"].map(Some);
    assert!(reasons.contains(&reason), "{answer}");
    assert_eq!(scratch.servers().len(), starts + 2);
    assert_eq!(stop(&mut proxy), format!("size {SIZE}, 0 hits, 2 misses"));
}

#[test]
fn a_program_that_is_gone_leaves_the_pool_empty() {
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    let program = scratch.file("server");
    let script = format!("#!/bin/sh\necho > '{}/up'\nexec cat\n", scratch.path());
    let command = [write_program(&program, script, 0o755)];
    // A session that was over before its client has said something would have nobody to tell.
    let lazily = ["--spawn", "lazy"];
    let options = [&lazily[..], &["--prespawn", "1", "--max-restarts", "0"]].concat();
    let mut proxy = Proxy::start(&options, &command);
    scratch.read("up");
    fs::remove_file(&program).unwrap();
    let mut first = proxy.connect();
    first.send_line(r#"{"id":1}"#);
    assert_eq!(first.recv_json(), json!({"id": 1}));
    let line = proxy.wait_for_log(LOST);
    assert!(line.contains("No such file"), "{line}");
    let mut second = proxy.connect();
    let id = second.send_request("m", &json!({}));
    assert_eq!(second.recv_error(503, "spawn_failed").0, json!(id));
    expect_end(&mut second);
    drop(first);
    assert_eq!(stop(&mut proxy), "size 1, 1 hit, 1 miss");
}

// Limits.

#[test]
fn the_pool_fills_up_under_the_limit_of_servers_that_start_up() {
    skip_on_reference!("has no pool");
    let options = ["--prespawn", "3", "--max-starting", "1", "--debug"];
    let began = unix_time();
    let proxy = Proxy::start(&options, &servers::mirror());
    let starts = proxy.wait_for_logs("was started", 3);
    for (number, start) in starts.iter().enumerate() {
        let after = logged_at(start) - began;
        assert!(
            after > number as f64 - 0.01,
            "number {number} after {after} s"
        );
    }
    wait_until_quiet(&[proxy.pid()]);
    assert_eq!(proxy.servers().len(), 3);
}

#[test]
fn a_waiting_server_has_three_descriptors() {
    skip_on_reference!("has no pool");
    let limit = |pool: &str| -> u64 {
        let options = ["--prespawn", pool];
        let proxy = Proxy::start_after("ulimit -n 300", &options, &servers::demo());
        let mut clients = Vec::new();
        loop {
            let mut client = proxy.connect();
            client.send_request("ping", &json!({}));
            let answer = client.recv_json();
            if answer["result"] != json!({}) {
                assert_eq!(answer["error"]["data"]["reason"], "session_limit");
                return clients.len() as u64;
            }
            clients.push(client);
        }
    };
    assert_eq!((limit("0") - limit("16")) * 4, 16 * 3);
}

/// Or they would keep every connection waiting.
#[test]
fn waiting_servers_leave_descriptors_for_sessions() {
    skip_on_reference!("has no pool");
    let options = ["--prespawn", "1000", "--max-sessions", "1"];
    let proxy = Proxy::start_after("ulimit -n 140", &options, &servers::demo());
    let warning = proxy.wait_for_log("--prespawn: 1000 waiting servers");
    assert!(warning.ends_with("there will be 2"), "{warning}");
    eventually("the pool to be full", DEADLINE, || {
        proxy.servers().len() == 2
    });
    let mut client = proxy.connect();
    client.request("ping", &json!({}));
    let mut other = proxy.connect();
    assert_eq!(
        other.recv_json()["error"]["data"]["reason"],
        "session_limit"
    );
}

// The end.

#[test]
fn waiting_servers_go_with_the_proxy() {
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    scratch.write("on-start", r#"trap 'echo told > "$dir/told.$$"; exit' TERM; echo > "$dir/up.$$"; while :; do sleep 1; done"#);
    let mut proxy = Proxy::start(&["--prespawn", "3"], &servers::scripted(&scratch));
    scratch.wait_for_server(3);
    for server in scratch.servers() {
        scratch.read(&format!("up.{server}"));
    }
    // They take no notice of the end of their input.
    assert_eq!(stop(&mut proxy), "size 3, 0 hits, 0 misses");
    for server in scratch.servers() {
        scratch.read(&format!("told.{server}"));
        assert!(!processes::process_exists(server));
    }
}

#[test]
fn a_second_signal_kills_waiting_servers() {
    skip_on_reference!("has no pool");
    let scratch = Scratch::new();
    scratch.write(
        "on-start",
        r#"trap '' TERM; echo > "$dir/up.$$"; while :; do sleep 1; done"#,
    );
    let mut proxy = Proxy::start(&["--prespawn", "3"], &servers::scripted(&scratch));
    scratch.wait_for_server(3);
    for server in scratch.servers() {
        scratch.read(&format!("up.{server}"));
    }
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_log("shutting down");
    let status = proxy.signal_until_exit(Signal::SIGTERM, DEADLINE);
    assert_eq!(status.code(), Some(0));
    proxy.wait_for_log("pool: size 3, 0 hits, 0 misses");
    proxy.wait_for_log("second signal: killing 3 servers");
    for server in scratch.servers() {
        processes::wait_until_dead(server);
    }
}

#[test]
fn without_the_option_nothing_waits_and_nothing_is_said_of_it() {
    let mut proxy = Proxy::start(&[], &servers::demo());
    let mut client = proxy.connect();
    assert_eq!(
        client.request("ping", &json!({}))["result"],
        Value::Object(serde_json::Map::new())
    );
    assert_eq!(proxy.servers().len(), 1);
    drop(client);
    proxy.signal(Signal::SIGTERM);
    proxy.wait_exit(DEADLINE);
    assert!(
        !proxy
            .log()
            .iter()
            .any(|line| line.to_lowercase().contains(" pool"))
    );
}
