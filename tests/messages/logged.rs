//! What the log says of trouble: refused messages, lost servers, and far too much of anything.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;

use serde_json::json;

use crate::common::{DEADLINE, Proxy, eventually, servers, skip_on_reference};

#[test]
fn each_kind_of_refusal_is_a_warning() {
    skip_on_reference!("refuses nothing");
    let options = ["--max-message-bytes", "1000"];
    let proxy = Proxy::start(&options, &servers::sh("cat >/dev/null"));
    let mut client = proxy.connect();
    client.send_line("secret junk");
    client.recv_line();
    client.send_line(&format!("[\"{}\"]", "secret".repeat(1000)));
    client.recv_line();
    for id in 0..=1024 {
        client.send_json(&json!({"jsonrpc": "2.0", "id": id, "method": "secret"}));
    }
    client.recv_line();
    for why in [
        "the line is not JSON",
        "the client's message is too long: 6,004 bytes, the limit is 1,000 (--max-message-bytes)",
        "1024 requests are waiting",
    ] {
        let line = proxy.wait_for_log(why);
        let is_told = line.contains("WARN") && line.contains("refused a message of the client: ");
        assert!(is_told && line.contains("session 1 "), "{line}");
    }
    let log = proxy.log();
    assert!(!log.iter().any(|line| line.contains("secret")), "{log:#?}");
}

#[test]
fn many_refusals_are_counted_at_the_end_and_a_few_are_logged() {
    const REFUSED: usize = 20_000;
    skip_on_reference!("refuses nothing");
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let mut writer = client.writer();
    let sender = thread::spawn(move || writer.write_all(&b"junk\n".repeat(REFUSED)).unwrap());
    for _ in 0..REFUSED {
        client.recv_line();
    }
    sender.join().unwrap();
    client.shutdown_write();
    client.read_to_end();
    let closed = proxy.wait_for_log("closed: ");
    let counted = format!("; {REFUSED} refused messages");
    assert!(closed.ends_with(&counted), "{closed}");
    let log = proxy.log();
    let logged = log.iter().filter(|line| line.contains("refused a message"));
    assert!((1..=REFUSED / 10).contains(&logged.count()), "{log:#?}");
}

#[test]
fn the_line_at_the_end_has_response_times_and_losses() {
    skip_on_reference!("has no such line");
    let script = "while read line; do case $line in *crash*) exit 3 ;; esac; \
                  echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":5,\"message\":\"no\"}}'; done";
    let proxy = Proxy::start(&[], &servers::sh(script));
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send_json(&json!({"jsonrpc": "2.0", "id": 1, "method": "m"}));
        assert_eq!(client.recv_json()["error"]["code"], 5);
    }
    client.send_json(&json!({"jsonrpc": "2.0", "id": 2, "method": "crash"}));
    assert_eq!(client.recv_json()["error"]["code"], 502);
    proxy.wait_for_log("goes on with a new server");
    client.shutdown_write();
    client.read_to_end();
    let closed = proxy.wait_for_log("closed: ");
    assert!(closed.contains("; responses took about "), "{closed}");
    let counts = "; 2 errors, 1 lost request (502), 1 restart";
    assert!(closed.ends_with(counts), "{closed}");
}

#[test]
fn a_crash_is_told_although_the_client_has_ended_its_side() {
    skip_on_reference!("drops what is in flight then");
    let proxy = Proxy::start(&[], &servers::sh("read line; exit 3"));
    let mut client = proxy.connect();
    // Without a line end, it is complete with the end of the client's side.
    client.send_raw(br#"{"jsonrpc":"2.0","id":1,"method":"m"}"#);
    client.shutdown_write();
    assert_eq!(client.recv_json()["error"]["code"], 502);
    client.read_to_end();
    let line = proxy.wait_for_log("the server ended (exit code 3)");
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn connections_without_a_message_do_not_flood_the_log() {
    const STRANGERS: usize = 1000;
    skip_on_reference!("logs each");
    let proxy = Proxy::start(&["--max-sessions", "1"], &servers::mirror());
    let mut client = proxy.connect();
    client.send_line("[]");
    client.recv_line();
    for _ in 0..STRANGERS {
        drop(TcpStream::connect(proxy.address()).unwrap());
    }
    let left_out = |line: &String| -> Option<usize> {
        let (_, count) = line.split_once("left out of the log: ")?;
        count.parse().ok()
    };
    let is_refusal = |line: &&String| line.contains("already, the limit");
    // Each is in the log, or is counted.
    eventually("all to be told of", DEADLINE, || {
        let log = proxy.log();
        let logged = log.iter().filter(is_refusal).count();
        logged + log.iter().filter_map(left_out).sum::<usize>() == STRANGERS
    });
    let log = proxy.log();
    assert!(log.iter().filter(is_refusal).count() < STRANGERS / 2);
    // A session with messages is told of all the same.
    client.shutdown_write();
    client.read_to_end();
    proxy.wait_for_log("the client closed the connection");
}

#[test]
fn a_server_that_logs_to_stdout_from_the_start_is_found_out() {
    let script = "read line; echo banner; echo more; echo '[1]'; exec cat";
    let proxy = Proxy::start(&[], &servers::sh(script));
    let mut client = proxy.connect();
    client.send_json(&json!({"jsonrpc": "2.0", "id": 1, "method": "m"}));
    assert_eq!(client.recv_line(), "[1]");
    let line = proxy.wait_for_log("the client may wait for ever");
    assert!(
        line.contains("WARN") && line.ends_with(": banner"),
        "{line}"
    );
    assert!(line.contains("stdout: the line is not JSON"), "{line}");
    let more = proxy.wait_for_log(": more");
    assert!(!more.contains("for ever"), "{more}");
}
