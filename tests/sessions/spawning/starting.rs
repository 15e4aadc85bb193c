//! Which sessions get their servers first, and how many servers start up at a time (`--max-starting`).

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::{logged_at, unix_time};
use crate::common::{Client, Proxy, Scratch, processes, servers, skip_on_reference};

/// How long a server that writes nothing counts as starting up.
const START_UP_TIME: Duration = Duration::from_secs(1);

/// A server that writes nothing before it is spoken to.
fn silent() -> Vec<String> {
    servers::echo()
}

/// When the servers of that many sessions were started, in seconds.
#[track_caller]
fn starts(proxy: &Proxy, count: usize) -> Vec<f64> {
    let lines = proxy.wait_for_logs("] opened", count);
    lines.iter().map(|line| logged_at(line)).collect()
}

/// Connects that many clients, which say nothing.
fn connect_silent(proxy: &Proxy, count: usize) -> Vec<Client> {
    (0..count).map(|_| proxy.connect()).collect()
}

#[test]
fn servers_that_write_nothing_start_few_at_a_time() {
    skip_on_reference!("starts servers as they come");
    let proxy = Proxy::start(&["--max-starting", "2"], &silent());
    let began = unix_time();
    let clients = connect_silent(&proxy, 6);
    let starts = starts(&proxy, 6);
    for (number, start) in starts.iter().enumerate() {
        let least = START_UP_TIME.as_secs_f64() * (number / 2) as f64 - 0.01;
        let after = start - began;
        assert!(
            after >= least,
            "number {number} after {after} s: {starts:?}"
        );
    }
    drop(clients);
}

#[test]
fn a_server_that_shows_itself_makes_room_for_the_next() {
    const CLIENTS: usize = 12;
    skip_on_reference!("starts servers as they come");
    let ways = [
        "echo here >&2; exec cat",
        r#"echo '{"jsonrpc":"2.0","method":"here"}'; exec cat"#,
        "exit 1",
    ];
    for way in ways {
        let options = ["--max-starting", "1", "--no-auto-restart"];
        let proxy = Proxy::start(&options, &servers::sh(way));
        let clients = connect_silent(&proxy, CLIENTS);
        let starts = starts(&proxy, CLIENTS);
        // Not all of them, on a busy machine.
        let is_quick = |pair: &&[f64]| pair[1] - pair[0] < START_UP_TIME.as_secs_f64() / 2.0;
        let quick = starts.windows(2).filter(is_quick).count();
        assert!(quick >= CLIENTS / 3, "{way}: {starts:?}");
        drop(clients);
    }
}

#[test]
fn silent_connections_do_not_delay_those_that_speak() {
    // On a busy machine, some of them come first.
    const SILENT: usize = 30;
    skip_on_reference!("starts servers as they come");
    let proxy = Proxy::start(&["--max-starting", "1"], &silent());
    let mut open = proxy.connect();
    open.request("m", &json!({}));
    let server = proxy.only_server();
    let silent = connect_silent(&proxy, SILENT);
    // A new one, one that first waits in silence, and one that has lost its server.
    let (mut new, mut waiting) = (proxy.connect(), proxy.connect());
    new.request("m", &json!({}));
    waiting.request("m", &json!({}));
    processes::kill_and_wait(server);
    open.send_request("m", &json!({}));
    open.message_of("$/mcp/serverRestarted");
    let started = proxy
        .log()
        .iter()
        .filter(|line| line.ends_with("] opened"))
        .count();
    // The three of them had to wait for a second each at most, in which one silent server was started.
    assert!(started < SILENT, "{started} servers were started");
    drop(silent);
}

/// The server of [`silent`], which never writes anything if it is started once there is a file `slow`.
fn slow_later(scratch: &Scratch) -> Vec<String> {
    let slow = scratch.file("slow");
    let condition = format!("[ -e '{}' ]", slow.display());
    servers::echo_after(&format!(
        "if {condition}; then while read -r line; do :; done; exit; fi"
    ))
}

/// Clients that have connected and asked something.
fn strangers(proxy: &Proxy, count: usize) -> Vec<Client> {
    (0..count)
        .map(|_| {
            let mut client = proxy.connect();
            client.send_request("m", &json!({}));
            client
        })
        .collect()
}

/// How many of the sessions that the log names as opened have this in their names.
fn opened(proxy: &Proxy, name: &str) -> usize {
    let log = proxy.log();
    let lines = log.iter().filter(|line| line.ends_with("] opened"));
    lines.filter(|line| line.contains(name)).count()
}

#[test]
fn a_client_does_not_wait_for_all_those_of_another_address() {
    const STRANGERS: usize = 30;
    skip_on_reference!("starts servers as they come");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--max-starting", "1"], &slow_later(&scratch));
    scratch.write("slow", "");
    let strangers = strangers(&proxy, STRANGERS);
    let mut other = Client::connect_from([127, 0, 0, 2].into(), proxy.address());
    other.send_request("m", &json!({}));
    proxy.wait_for_log(" 127.0.0.2:");
    let before = opened(&proxy, " 127.0.0.1:");
    assert!(before < STRANGERS, "{before} strangers came first");
    assert_eq!(opened(&proxy, " 127.0.0.2:"), 1);
    drop(strangers);
}

#[test]
fn a_session_that_has_lost_its_server_does_not_wait_for_strangers() {
    const STRANGERS: usize = 30;
    skip_on_reference!("starts servers as they come");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--max-starting", "1"], &slow_later(&scratch));
    let mut open = proxy.connect();
    open.request("m", &json!({}));
    let server = proxy.only_server();
    scratch.write("slow", "");
    let strangers = strangers(&proxy, STRANGERS);
    processes::kill_and_wait(server);
    proxy.wait_for_log("goes on with a new server");
    let before = opened(&proxy, "") - 1;
    assert!(before < STRANGERS, "{before} strangers came first");
    drop(strangers);
}

#[test]
fn a_rush_of_clients_is_served() {
    const CLIENTS: usize = 80;
    skip_on_reference!("starts servers as they come");
    let proxy = Proxy::start(&["--max-starting", "4"], &silent());
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = proxy.connect();
            client.send_request("m", &json!({}));
            client
        })
        .collect();
    // All are there before the last is served, and each is.
    thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| assert_eq!(client.recv_json()["id"], 1));
        }
    });
    assert_eq!(proxy.servers().len(), CLIENTS);
}
