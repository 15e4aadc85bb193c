//! What every proxy of this kind does: lines go both ways, heartbeats stay between client and proxy, and whoever leaves
//! takes a server along. These tests pass on the Python script as well, so answers are compared as JSON, not as bytes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::connect::Connect;
use common::processes::{self, Process};
use common::{Client, DEADLINE, Proxy, eventually, is_reference, servers};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const HEARTBEAT: &str = r#"{"type":"heartbeat","timestamp":1}"#;
const HANDSHAKE: &str = r#"{"type":"handshake","client":"tests"}"#;
const FAST_HEARTBEATS: [&str; 2] = ["--heartbeat-interval", "0.2"];

/// The process id that a server of [`servers::echo`] answers with.
#[track_caller]
fn ask_for_pid(client: &mut Client) -> i32 {
    let answer = client.request("whoami", &json!({}));
    answer["result"]["pid"]
        .as_i64()
        .unwrap()
        .try_into()
        .unwrap()
}

#[track_caller]
fn wait_until_gone(pid: i32) {
    eventually("the server to be gone", DEADLINE, || {
        !processes::process_exists(pid)
    });
}

fn is_heartbeat(message: &Value) -> bool {
    message["type"] == "heartbeat_response"
}

// Messages.

#[test]
fn a_request_is_answered() {
    let proxy = Proxy::start(&[], &servers::echo());
    let mut client = proxy.connect();
    let request = json!({"jsonrpc": "2.0", "id": "first", "method": "tools/list", "params": {"cursor": "ünïcode \u{1f980}"}});
    client.send_json(&request);
    let answer = client.recv_json();
    assert_eq!(answer["id"], "first");
    assert_eq!(answer["result"]["echo"], request);
}

#[test]
fn messages_keep_their_order() {
    const MESSAGES: u64 = 5_000;
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let mut writer = client.writer();
    let sender = thread::spawn(move || {
        for number in 0..MESSAGES {
            writeln!(
                writer,
                r#"{{"jsonrpc":"2.0","method":"count","params":{number}}}"#
            )
            .unwrap();
        }
    });
    for number in 0..MESSAGES {
        assert_eq!(client.recv_json()["params"], number);
    }
    sender.join().unwrap();
}

#[test]
fn requests_sent_in_one_piece_are_all_answered_in_order() {
    let proxy = Proxy::start(&[], &servers::echo());
    let mut client = proxy.connect();
    let requests = (0..200)
        .map(|id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m","params":[]}}"#) + "\n");
    client.send_raw(requests.collect::<String>().as_bytes());
    for id in 0..200 {
        assert_eq!(client.recv_json()["id"], id);
    }
}

#[test]
fn a_request_sent_byte_by_byte_is_answered() {
    let proxy = Proxy::start(&[], &servers::echo());
    let mut client = proxy.connect();
    for byte in "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"é\",\"params\":{}}\n".bytes() {
        client.send_raw(&[byte]);
    }
    assert_eq!(client.recv_json()["result"]["echo"]["method"], "é");
}

#[test]
fn a_carriage_return_before_the_newline_does_no_harm() {
    let proxy = Proxy::start(&[], &servers::echo());
    let mut client = proxy.connect();
    client.send_raw(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":{}}\r\n");
    assert_eq!(client.recv_json()["id"], 1);
}

#[test]
fn notifications_go_both_ways() {
    let greeting = r#"printf '{"jsonrpc":"2.0","method":"hello","params":{}}\n'"#;
    let proxy = Proxy::start(&[], &servers::echo_after(greeting));
    let mut client = proxy.connect();
    assert_eq!(client.recv_json()["method"], "hello");
    let notification =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}});
    client.send_json(&notification);
    assert_eq!(
        client.recv_json(),
        json!({"jsonrpc": "2.0", "method": "saw", "params": notification})
    );
}

#[test]
fn a_message_of_a_megabyte_arrives_both_ways() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let message = json!({"jsonrpc": "2.0", "method": "large", "params": {"text": "0123456789abcdef".repeat(65_536)}});
    let mut writer = client.writer();
    let line = format!("{message}\n");
    let sender = thread::spawn(move || writer.write_all(line.as_bytes()).unwrap());
    assert_eq!(client.recv_json(), message);
    sender.join().unwrap();
}

#[test]
fn many_large_messages_pass_while_both_sides_write() {
    const MESSAGES: u64 = 20;
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let mut writer = client.writer();
    let text = "x".repeat(300_000);
    let sent = text.clone();
    let sender = thread::spawn(move || {
        for number in 0..MESSAGES {
            let message = json!({"jsonrpc": "2.0", "method": "large", "params": {"number": number, "text": sent}});
            writeln!(writer, "{message}").unwrap();
        }
    });
    for number in 0..MESSAGES {
        let params = client.recv_json()["params"].take();
        assert_eq!(params["number"], number);
        assert_eq!(params["text"], text);
    }
    sender.join().unwrap();
}

#[test]
fn a_client_with_little_room_gets_everything_in_order() {
    const MESSAGES: u64 = 20_000;
    let flood = format!(
        r#"awk 'BEGIN {{ for (i = 0; i < {MESSAGES}; i++) printf "{{\"method\":\"count\",\"params\":%d}}\n", i }}'"#
    );
    let proxy = Proxy::start(&[], &servers::echo_after(&flood));
    let mut client = Client::connect_with_receive_buffer(proxy.address(), 4096);
    let id = client.send_request("after", &json!({}));
    for number in 0..MESSAGES {
        assert_eq!(client.recv_json()["params"], number);
    }
    assert_eq!(client.recv_json()["id"], id);
}

#[test]
fn blank_lines_are_ignored() {
    let proxy = Proxy::start(&[], &servers::echo());
    let mut client = proxy.connect();
    client.send_raw(b"\n\n\r\n   \n");
    let id = client.send_request("after", &json!({}));
    assert_eq!(client.recv_json()["id"], id);
}

#[test]
fn what_is_no_message_does_not_end_the_session() {
    let proxy = Proxy::start(&[], &servers::echo());
    let mut client = proxy.connect();
    client.send_raw(b"no JSON\n{\"cut\": \n\xff\xfe\n42\nnull\n\"text\"\n");
    let answer = client.request("after", &json!({}));
    assert_eq!(answer["result"]["echo"]["method"], "after");
    // What the proxy itself said to these lines may stand before the answer, but the server got none of them.
    assert!(
        client
            .aside
            .iter()
            .all(|message| message["method"] != "saw"),
        "{:?}",
        client.aside
    );
}

// Heartbeats.

#[test]
fn a_heartbeat_enables_heartbeats_of_the_exact_shape() {
    let proxy = Proxy::start(&FAST_HEARTBEATS, &servers::echo());
    let mut client = proxy.connect();
    client.send_line(HEARTBEAT);
    let mut earlier = 0.0;
    for _ in 0..3 {
        let heartbeat = client.recv_json();
        let timestamp = heartbeat["timestamp"].as_f64().unwrap();
        let expected =
            json!({"type": "heartbeat_response", "timestamp": timestamp, "mcp_alive": true});
        assert_eq!(heartbeat, expected);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        assert!(
            (now - timestamp).abs() < DEADLINE.as_secs_f64(),
            "{timestamp} is not about {now}"
        );
        assert!(timestamp > earlier, "{timestamp} is not after {earlier}");
        earlier = timestamp;
    }
}

#[test]
fn a_handshake_enables_heartbeats() {
    let proxy = Proxy::start(&FAST_HEARTBEATS, &servers::echo());
    let mut client = proxy.connect();
    client.send_line(HANDSHAKE);
    assert!(is_heartbeat(&client.recv_json()));
}

#[test]
fn a_client_that_announced_nothing_gets_no_heartbeats() {
    let proxy = Proxy::start(&FAST_HEARTBEATS, &servers::echo());
    let mut quiet = proxy.connect();
    ask_for_pid(&mut quiet);
    // The other session began later: when it has had three heartbeats, this one would have had two at least.
    let mut capable = proxy.connect();
    capable.send_line(HANDSHAKE);
    for _ in 0..3 {
        assert!(is_heartbeat(&capable.recv_json()));
    }
    ask_for_pid(&mut quiet);
    assert_eq!(quiet.aside, Vec::<Value>::new());
}

#[test]
fn control_lines_do_not_reach_the_server() {
    let proxy = Proxy::start(&[], &servers::echo());
    let mut client = proxy.connect();
    client.send_line(HEARTBEAT);
    client.send_line(HANDSHAKE);
    let own_type = json!({"jsonrpc": "2.0", "method": "m", "params": {"type": "heartbeat"}});
    client.send_json(&own_type);
    client.send_line(HEARTBEAT);
    client.request("after", &json!({}));
    assert_eq!(
        client.aside,
        [json!({"jsonrpc": "2.0", "method": "saw", "params": own_type})]
    );
}

#[test]
fn heartbeats_say_when_the_server_is_down() {
    let proxy = Proxy::start(&["--heartbeat-interval", "0.05"], &servers::echo());
    let mut client = proxy.connect();
    client.send_line(HANDSHAKE);
    // A first restart can be too quick to be seen between two heartbeats; the cooldown of the next one cannot.
    while client.recv_json()["mcp_alive"] != json!(false) {
        for server in proxy.servers() {
            processes::send_signal(server, Signal::SIGKILL);
        }
    }
}

// The server's stderr.

#[test]
fn stderr_of_the_server_is_logged() {
    // The command is logged too: what is waited for must not stand in it.
    let proxy = Proxy::start(&[], &servers::echo_after("echo low on $((40 + 2)) >&2"));
    let mut client = proxy.connect();
    ask_for_pid(&mut client);
    let line = proxy.wait_for_log("low on 42");
    // The script warns of each line, although nearly all that servers write there is ordinary.
    let level = if is_reference() { "WARN" } else { "INFO" };
    assert!(line.contains(level), "{line}");
}

#[test]
fn a_flood_on_stderr_does_not_block_the_server() {
    // 1.3 MB, many times what a pipe holds.
    let flood =
        r#"awk 'BEGIN { for (i = 0; i < 20000; i++) printf "%s %059d\n", "noise", i }' >&2"#;
    let proxy = Proxy::start(&[], &servers::echo_after(flood));
    let mut client = proxy.connect();
    ask_for_pid(&mut client);
    proxy.wait_for_log("noise 000");
}

// Sessions.

#[test]
fn every_client_has_a_server_of_its_own() {
    let proxy = Proxy::start(&[], &servers::echo());
    let mut clients: Vec<Client> = (0..10).map(|_| proxy.connect()).collect();
    let mut pids: Vec<i32> = clients.iter_mut().map(ask_for_pid).collect();
    let mut again: Vec<i32> = clients.iter_mut().map(ask_for_pid).collect();
    assert_eq!(pids, again);
    again.dedup();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), clients.len());
    assert_eq!(proxy.servers(), pids);
}

#[test]
fn a_client_that_closes_takes_only_its_own_server_along() {
    let proxy = Proxy::start(&[], &servers::echo());
    let (mut leaving, mut staying) = (proxy.connect(), proxy.connect());
    let (gone, kept) = (ask_for_pid(&mut leaving), ask_for_pid(&mut staying));
    leaving.close();
    wait_until_gone(gone);
    assert_eq!(ask_for_pid(&mut staying), kept);
}

#[test]
fn a_client_that_resets_takes_its_server_along() {
    let proxy = Proxy::start(&[], &servers::echo());
    let mut client = proxy.connect();
    let pid = ask_for_pid(&mut client);
    client.reset();
    wait_until_gone(pid);
    ask_for_pid(&mut proxy.connect());
}

#[test]
fn a_client_that_ends_its_side_gets_the_end_of_the_session() {
    let proxy = Proxy::start(&[], &servers::echo());
    let mut client = proxy.connect();
    let pid = ask_for_pid(&mut client);
    client.shutdown_write();
    assert_eq!(client.read_to_end(), Vec::<String>::new());
    wait_until_gone(pid);
}

#[test]
fn sessions_leave_nothing_behind() {
    let proxy = Proxy::start(&[], &servers::echo());
    // What a proxy opens once, with the first session, is not a leak.
    ask_for_pid(&mut proxy.connect());
    proxy.wait_until_childless();
    let settled = processes::fd_count(proxy.pid());
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        ask_for_pid(client);
    }
    for (number, mut client) in clients.into_iter().enumerate() {
        match number % 3 {
            0 => client.close(),
            1 => client.reset(),
            _ => {
                client.shutdown_write();
                client.read_to_end();
            }
        }
    }
    proxy.wait_until_childless();
    eventually("the descriptors to be closed", DEADLINE, || {
        processes::fd_count(proxy.pid()) <= settled
    });
    ask_for_pid(&mut proxy.connect());
}

#[test]
fn the_servers_end_with_the_proxy() {
    let mut proxy = Proxy::start(&[], &servers::echo());
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.connect()).collect();
    let pids: Vec<i32> = clients.iter_mut().map(ask_for_pid).collect();
    proxy.signal(Signal::SIGTERM);
    let status = proxy.wait_exit(DEADLINE);
    assert!(is_reference() || status.code() == Some(0), "{status}");
    eventually("the servers to be gone", DEADLINE, || {
        // Those that outlived the proxy are no longer its children: whoever adopted them may be slow to reap.
        pids.iter()
            .filter_map(|pid| Process::find(*pid))
            .all(|process| process.is_zombie())
    });
}

// The stdio side.

#[test]
fn connect_works_with_it() {
    let proxy = Proxy::start(&FAST_HEARTBEATS, &servers::echo());
    let mut connect = Connect::start(&FAST_HEARTBEATS, proxy.address());
    let pid = connect.request(1, "whoami", &json!({}))["result"]["pid"].take();
    assert_eq!(pid, proxy.only_server());
    // Heartbeats go both ways meanwhile, and show up nowhere.
    let begin = Instant::now();
    for id in 2.. {
        let answer = connect.request(id, "whoami", &json!({}));
        assert_eq!(answer["result"]["pid"], pid);
        if begin.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
    connect.end_input();
    connect.wait_exit(0);
}
