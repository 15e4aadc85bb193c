//! Ends that are chosen, by a client or by whoever stops the proxy: what is no work is not waited for, what is work has
//! its time, and nobody is left without an answer.

use std::time::{Duration, Instant};

use crate::common::client::{RESTART_NOTICE, assert_own_error};
use crate::common::processes::wait_until_dead;
use crate::common::{Client, Connect, DEADLINE, Proxy, Scratch, servers};
use nix::sys::signal::Signal;
use serde_json::json;

/// Less than the half minute that work would have.
const PROMPTLY: Duration = Duration::from_secs(25);

const LISTEN: &str = r#"{"jsonrpc":"2.0","id":"s-1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}}}"#;
const CLOSED: &str = r#"{"jsonrpc":"2.0","id":"s-1","result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":"s-1"}}}"#;

// Subscriptions.

#[test]
fn a_half_close_ends_subscriptions_at_once() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    client.send_line(LISTEN);
    let began = Instant::now();
    client.shutdown_write();
    assert_eq!(client.read_to_end(), [CLOSED]);
    wait_until_dead(server);
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
    let got = scratch.read(&format!("got.{server}"));
    let cancelled = r#""method":"notifications/cancelled","params":{"requestId":"s-1""#;
    assert!(got.contains(cancelled), "{got}");
}

#[test]
fn a_stop_ends_subscriptions_at_once() {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    client.send_line(LISTEN);
    scratch.wait_for_lines(server, 2);
    let began = Instant::now();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(client.recv_line(), CLOSED);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
}

#[test]
fn a_subscription_alone_does_not_keep_a_session() {
    let scratch = Scratch::new();
    // Long enough for what the client has to say, on a machine that stalls.
    let proxy = Proxy::start(&["--idle-timeout", "5"], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    client.pid_of_server();
    client.send_line(LISTEN);
    assert_eq!(client.read_to_end(), [CLOSED]);
    proxy.wait_for_log("idle_timeout");
}

#[test]
fn the_end_of_stdin_ends_subscriptions_at_both_ends() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut connect = Connect::start(&[], proxy.address());
    let server = scratch.wait_for_server(1);
    connect.send_line(LISTEN);
    scratch.wait_for_lines(server, 1);
    let began = Instant::now();
    connect.end_input();
    assert_eq!(connect.read_to_end(), [CLOSED]);
    connect.wait_exit(0);
    wait_until_dead(server);
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
}

// The time that a stop may take.

#[test]
fn a_stop_takes_no_longer_than_it_may() {
    let scratch = Scratch::new();
    // Long enough for what comes before it is over, on a machine that stalls.
    let timeout = Duration::from_secs(8);
    let mut proxy = Proxy::start(&["--stop-timeout", "8"], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let mut unread = Client::connect_with_receive_buffer(proxy.address(), 4096);
    let pids = [client.pid_of_server(), unread.pid_of_server()];
    // One never answers and minds nothing, the other has far more to say than anyone reads.
    let slow = client.send_code("trap '' TERM; while :; do sleep 1; done");
    let flood = "while :; do note flood; done";
    unread.send_code(flood);
    scratch.wait_for_lines(pids[0], 2);
    scratch.wait_for_lines(pids[1], 2);
    let began = Instant::now();
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_log("shutting down; 2 sessions");
    // A new request is refused at once.
    let new = client.send_request("pid", &json!({}));
    let refusal = client.answer_to(new);
    assert_own_error(&refusal, 503, "shutdown");
    assert_eq!(refusal["error"]["data"]["delivered"], false);
    assert!(client.aside.is_empty(), "it came when all was over");
    let told = client.answer_to(slow);
    assert_own_error(&told, 503, "shutdown");
    assert_ne!(told["error"]["data"]["delivered"], false);
    assert!(began.elapsed() >= timeout, "{:?}", began.elapsed());
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    for pid in pids {
        wait_until_dead(pid);
    }
    proxy.wait_for_log("(--stop-timeout): ending 2 sessions, killing 2 servers");
    proxy.wait_for_log("for the clients of 1 session could not be delivered");
}

#[test]
fn it_is_said_what_a_stop_waits_for() {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    client.send_code("while ! [ -e \"$dir/go\" ]; do sleep 0.02; done; answer");
    scratch.wait_for_lines(server, 2);
    proxy.signal(Signal::SIGTERM);
    proxy.wait_for_logs("waiting for 1 session and 1 server", 2);
    scratch.write("go", "");
    assert_eq!(client.recv_json()["result"]["pid"], server);
    client.close();
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

// What a server has asked.

#[test]
fn what_a_server_has_asked_is_taken_back_when_it_dies() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let mut connect = Connect::start(&[], proxy.address());
    client.send_code("ask 41; exit 3");
    connect.send_request(1, "sh", &json!({"code": "ask 41; exit 3"}));
    let taken_back = json!({
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": 41, "reason": "the MCP server that asked is gone"},
    });
    assert_eq!(client.recv_json()["method"], "roots/list");
    client.recv_error(502, "process_terminated");
    assert_eq!(client.recv_json(), taken_back);
    assert_eq!(connect.recv_json()["method"], "roots/list");
    connect.recv_error(502, "process_terminated");
    assert_eq!(connect.recv_json(), taken_back);
}

// What a client is told of a new server.

const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"sh","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"code":"exit 3"}}"#;

#[test]
fn a_modern_client_that_did_not_announce_itself_is_not_told_of_a_restart() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let [mut silent, mut announced] = [(); 2].map(|()| proxy.connect());
    announced.send_line(r#"{"type":"handshake"}"#);
    for client in [&mut silent, &mut announced] {
        client.send_line(MODERN);
        client.recv_error(502, "process_terminated");
    }
    assert_eq!(announced.recv_json()["method"], RESTART_NOTICE);
    // The other one's server was started as early.
    scratch.wait_for_server(4);
    silent.shutdown_write();
    assert_eq!(silent.read_to_end(), [""; 0]);
}

#[test]
fn a_legacy_client_is_told_to_fetch_the_declared_lists_anew() {
    let scratch = Scratch::new();
    scratch.write(
        "on-initialize",
        r#"printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"x","version":"1"}}}\n' "$id""#,
    );
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut connect = Connect::start(&[], proxy.address());
    connect.initialize();
    connect.send_request(1, "sh", &json!({"code": "exit 3"}));
    connect.recv_error(502, "process_terminated");
    connect.send_request(2, "pid", &json!({}));
    assert_eq!(
        connect.recv_json()["method"],
        "notifications/tools/list_changed"
    );
    assert_eq!(connect.recv_json()["id"], 2);
}

// What a server has to remember.

#[test]
fn a_session_whose_server_waits_for_its_user_is_not_idle() {
    let scratch = Scratch::new();
    // Long enough for one request, on a machine that stalls.
    let proxy = Proxy::start(&["--idle-timeout", "4"], &servers::scripted(&scratch));
    let mut asked = proxy.connect();
    asked.send_code(
        r#"printf '{"jsonrpc":"2.0","id":%s,"result":{"resultType":"input_required","requestState":"s"}}\n' "$id""#,
    );
    assert_eq!(asked.recv_json()["result"]["requestState"], "s");
    // A session that is idle from now on ends, and the first one, which has been idle for longer, does not.
    assert_eq!(proxy.connect().read_to_end(), [""; 0]);
    let retry = asked.send_request("pid", &json!({"requestState": "s"}));
    let server = scratch.servers()[0];
    assert_eq!(asked.answer_to(retry)["result"]["pid"], server);
    assert_eq!(asked.read_to_end(), [""; 0]);
}
