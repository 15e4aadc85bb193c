//! What a client notices of it: nothing.

use serde_json::{Value, json};

use crate::common::connect::IN_HASTE;
use crate::common::processes::{send_signal, wait_until_dead};
use crate::common::{Connect, DEADLINE, Proxy, Scratch, eventually, servers, skip_on_reference};
use crate::{OPTIONS, modern_pid, stubborn, wait_until_asleep};
use nix::sys::signal::Signal;

const HEARTBEAT: &str = r#"{"type":"heartbeat","timestamp":1}"#;

/// Nothing of a restart is in the log.
#[track_caller]
fn assert_no_restart(proxy: &Proxy) {
    let log = proxy.log();
    for text in ["restart", "goes on with a new server", "the server ended"] {
        let line = log
            .iter()
            .find(|line| line.contains(text) && !line.contains("Auto-restart"));
        assert_eq!(line, None);
    }
}

#[test]
fn the_next_request_is_answered_by_another_server_that_knows_the_client() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    let mut pids = vec![client.pid_of_server()];
    for _ in 0..3 {
        wait_until_asleep(&proxy, 1);
        pids.push(client.pid_of_server());
    }
    for pair in pids.windows(2) {
        assert_ne!(pair[0], pair[1]);
    }
    let greeted = ["initialize", "notifications/initialized", "pid"];
    assert_eq!(scratch.methods(pids[3])[..3], greeted);
    assert_eq!(client.aside, Vec::<Value>::new());
    client.close();
    let closed = proxy.wait_for_log(" closed: ");
    assert!(!closed.contains("restart"), "{closed}");
    assert_no_restart(&proxy);
}

#[test]
fn a_modern_client_is_not_introduced() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let first = modern_pid(&mut client);
    wait_until_asleep(&proxy, 1);
    let second = modern_pid(&mut client);
    assert_ne!(first, second);
    assert_eq!(scratch.methods(second)[0], "pid");
    assert_eq!(client.aside, Vec::<Value>::new());
    assert_no_restart(&proxy);
}

#[test]
fn a_spare_that_waits_is_the_next_server() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let options = ["--hibernate-after", "0.5", "--prespawn", "1"];
    let proxy = Proxy::start(&options, &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    let mut last = client.pid_of_server();
    for _ in 0..3 {
        // Its server is gone, and nobody is there but the spare.
        let mut spare = Vec::new();
        eventually("the spare to be alone", DEADLINE, || {
            spare = proxy.servers();
            spare.len() == 1 && spare != [last]
        });
        last = client.pid_of_server();
        assert_eq!(spare, [last]);
    }
    assert_no_restart(&proxy);
}

#[test]
fn one_that_does_not_go_by_itself_keeps_nobody_waiting() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &stubborn(&scratch));
    let mut client = proxy.connect();
    let first = modern_pid(&mut client);
    proxy.wait_for_log("] hibernates, ");
    assert_ne!(modern_pid(&mut client), first);
    for step in ["SIGTERM", "SIGKILL"] {
        proxy.wait_for_log(&format!("server pid {first} did not go by itself: {step}"));
    }
    wait_until_dead(first);
    assert_no_restart(&proxy);
}

#[test]
fn a_ping_wakes_nobody_and_heartbeats_go_on() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let options = [&OPTIONS[..], &["--heartbeat-interval", "0.1"]].concat();
    let proxy = Proxy::start(&options, &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    client.pid_of_server();
    wait_until_asleep(&proxy, 1);
    let so_far = scratch.servers().len();
    for _ in 0..3 {
        assert_eq!(client.request("ping", &json!({}))["result"], json!({}));
    }
    client.send_line(HEARTBEAT);
    for _ in 0..3 {
        let beat = client.recv_json();
        assert_eq!(beat["type"], "heartbeat_response");
        assert_eq!(beat["mcp_alive"], true);
    }
    assert_eq!(proxy.servers(), Vec::<i32>::new());
    assert_eq!(scratch.servers().len(), so_far);
    client.pid_of_server();
}

#[test]
fn a_server_that_is_killed_on_its_way_out_costs_nothing() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let options = [&OPTIONS[..], &["--max-restarts", "0"]].concat();
    let proxy = Proxy::start(&options, &stubborn(&scratch));
    let mut client = proxy.connect();
    modern_pid(&mut client);
    proxy.wait_for_log("] hibernates, ");
    for pid in scratch.servers() {
        send_signal(pid, Signal::SIGSEGV);
    }
    wait_until_asleep(&proxy, 1);
    modern_pid(&mut client);
    client.close();
    let closed = proxy.wait_for_log(" closed: ");
    assert!(!closed.contains("restart"), "{closed}");
}

#[test]
fn another_handshake_ends_the_session() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    client.pid_of_server();
    wait_until_asleep(&proxy, 1);
    let other = r#"printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}\n' "$id""#;
    scratch.write("on-initialize", other);
    let id = client.send_request("pid", &json!({}));
    let (of, _) = client.recv_error(503, "server_changed");
    assert_eq!(of, id);
    assert!(client.read_to_end().is_empty());
}

#[test]
fn behind_connect_nobody_notices_either() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::legacy(&scratch));
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    connect.initialize();
    let mut pids = Vec::new();
    for id in 10..13 {
        pids.push(connect.request(id, "pid", &json!({}))["result"]["pid"].clone());
        wait_until_asleep(&proxy, 1);
    }
    assert!(pids[0] != pids[1] && pids[1] != pids[2], "{pids:?}");
    assert_no_restart(&proxy);
    connect.signal(Signal::SIGTERM);
    connect.wait_exit(0);
}

#[test]
fn without_restarts_it_goes_on_all_the_same() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let options = [&OPTIONS[..], &["--no-auto-restart"]].concat();
    let proxy = Proxy::start(&options, &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    let first = client.pid_of_server();
    wait_until_asleep(&proxy, 1);
    assert_ne!(client.pid_of_server(), first);
}
