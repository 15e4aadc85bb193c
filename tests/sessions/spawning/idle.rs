//! `--first-message-timeout` and `--idle-timeout`: sessions that are not used are closed.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{HEARTBEAT, expect_end};
use crate::common::DEADLINE;
use crate::common::connect::IN_HASTE;
use crate::common::{
    Client, Connect, NoLine, Proxy, Scratch, eventually, servers, skip_on_reference,
};

/// A timeout that is long enough for a machine that stalls, and short for a test's deadline.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The client gets nothing for this much longer than the timeout.
#[track_caller]
fn assert_kept(client: &mut Client) {
    assert_eq!(client.try_recv(3 * TIMEOUT / 2), Err(NoLine::Deadline));
}

/// The session ends now, with nothing said but in the log, and not before the timeout has passed since then.
#[track_caller]
fn assert_closed(proxy: &Proxy, client: &mut Client, since: Instant, reason: &str) {
    expect_end(client);
    assert!(since.elapsed() >= TIMEOUT, "after {:?}", since.elapsed());
    let address = client.local_address().to_string();
    eventually("the reason in the log", DEADLINE, || {
        proxy
            .log()
            .iter()
            .any(|line| line.contains(&address) && line.contains(&format!(" closed: {reason}: ")))
    });
}

#[test]
fn who_does_not_speak_in_time_is_shown_out() {
    skip_on_reference!("keeps silent clients");
    let attempt = |spawn| {
        let scratch = Scratch::new();
        let options = ["--spawn", spawn, "--first-message-timeout", "4"];
        let proxy = Proxy::start(&options, &servers::scripted(&scratch));
        let begin = Instant::now();
        let mut speaks = proxy.connect();
        speaks.pid_of_server();
        let (mut silent, mut beats) = (proxy.connect(), proxy.connect());
        beats.send_line(HEARTBEAT);
        for client in [&mut silent, &mut beats] {
            assert_closed(&proxy, client, begin, "first_message_timeout");
        }
        // Whoever has spoken may be silent, and the places of the others are free.
        assert_kept(&mut speaks);
        speaks.pid_of_server();
        drop((speaks, silent, beats));
        proxy.wait_until_childless();
        let servers = if spawn == "lazy" { 1 } else { 3 };
        assert_eq!(scratch.servers().len(), servers);
    };
    thread::scope(|scope| {
        for spawn in ["eager", "lazy"] {
            scope.spawn(move || attempt(spawn));
        }
    });
}

#[test]
fn a_session_without_traffic_is_closed_and_its_server_stopped() {
    skip_on_reference!("keeps idle sessions");
    let scratch = Scratch::new();
    let options = ["--idle-timeout", "4", "--heartbeat-interval", "0.1"];
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let since = Instant::now();
    client.pid_of_server();
    // Heartbeats both ways, up to the end, which may have come before the last one.
    let mut beats = 0;
    let mut writer = client.writer();
    loop {
        let _ = writeln!(writer, "{HEARTBEAT}");
        match client.try_recv(DEADLINE) {
            Ok(line) => assert!(line.starts_with(br#"{"type":"heartbeat_response""#)),
            Err(end) => break assert_eq!(end, NoLine::End { unfinished: vec![] }),
        }
        beats += 1;
        assert!(since.elapsed() < DEADLINE, "heartbeats keep the session");
    }
    assert!(beats >= 2, "{beats} heartbeats");
    assert_closed(&proxy, &mut client, since, "idle_timeout");
    proxy.wait_until_childless();
}

#[test]
fn a_server_that_does_not_go_is_made_to_and_its_client_need_not_wait() {
    skip_on_reference!("keeps idle sessions");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--idle-timeout", "4"], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let since = Instant::now();
    client.notify("sh", &json!({"code": "while :; do sleep 1; done"}));
    expect_end(&mut client);
    assert!(since.elapsed() >= TIMEOUT);
    let lives = proxy.servers().len() == 1;
    // The server has two seconds to go by itself.
    assert!(lives || since.elapsed() >= TIMEOUT + Duration::from_secs(2));
    proxy.wait_for_log("did not go by itself: SIGTERM");
    proxy.wait_until_childless();
    assert_closed(&proxy, &mut client, since, "idle_timeout");
}

#[test]
fn a_session_that_waits_for_an_answer_is_kept() {
    skip_on_reference!("keeps idle sessions");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--idle-timeout", "4"], &servers::scripted(&scratch));
    // The client waits for the server's, or the server for the client's.
    let (mut waits, mut asked) = (proxy.connect(), proxy.connect());
    let id = waits.send_code("while ! [ -e \"$dir/go\" ]; do sleep 0.02; done; answer");
    asked.notify("sh", &json!({"code": "ask 7"}));
    assert_eq!(asked.recv_json()["id"], 7);
    assert_kept(&mut asked);
    let since = Instant::now();
    scratch.write("go", "");
    waits.answer_to(id);
    asked.send_json(&json!({"jsonrpc": "2.0", "id": 7, "result": {}}));
    for client in [&mut waits, &mut asked] {
        assert_closed(&proxy, client, since, "idle_timeout");
    }
}

#[test]
fn without_the_options_nobody_is_shown_out() {
    let proxy = Proxy::start(&[], &servers::demo());
    let mut silent = proxy.connect();
    assert_kept(&mut silent);
    assert_eq!(silent.request("ping", &json!({}))["result"], json!({}));
}

/// The stdio side connects again, which costs no server until the host has something to say.
#[test]
fn behind_connect_an_idle_session_costs_no_server() {
    skip_on_reference!("keeps idle sessions");
    let scratch = Scratch::new();
    let options = ["--spawn", "lazy", "--idle-timeout", "3"];
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    // That the proxy ends what is idle is no failed attempt, however often it does.
    let few_attempts = [&IN_HASTE[..], &["--max-reconnect-attempts", "1"]].concat();
    let mut connect = Connect::start(&few_attempts, proxy.address());
    connect.initialize();
    let first = connect.request(1, "pid", &json!({}))["result"]["pid"].clone();
    let ends = "closed: idle_timeout: ";
    proxy.wait_for_logs(ends, 2);
    proxy.wait_until_childless();
    assert_eq!(scratch.servers().len(), 1);
    // The host notices nothing of it: the handshake is replayed. It speaks when the next end is not near.
    let so_far = proxy.wait_for_logs(ends, 2).len();
    proxy.wait_for_logs(ends, so_far + 1);
    let second = connect.request(2, "pid", &json!({}))["result"]["pid"].clone();
    assert_ne!(first, second);
    let servers = scratch.servers();
    assert_eq!(json!(servers), json!([first, second]));
    let greeted = ["initialize", "notifications/initialized", "pid"];
    assert_eq!(scratch.methods(servers[1]), greeted);
    connect.signal(Signal::SIGTERM);
    connect.wait_exit(0);
}

/// Nobody waits five minutes for a test: that the default is what it is, is tested on the options.
#[test]
fn a_client_with_heartbeats_is_closed_if_the_limit_is_given() {
    skip_on_reference!("has no such limit");
    let proxy = Proxy::start(&["--first-message-timeout", "0.2"], &servers::mirror());
    let mut client = proxy.connect();
    client.send_line(r#"{"type":"heartbeat"}"#);
    client.read_to_end();
    proxy.wait_for_log("closed: first_message_timeout: ");
}
