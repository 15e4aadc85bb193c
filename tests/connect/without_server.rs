//! The stdio side at its ends: what it tells the program that started it when there is no server to be had.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::client::assert_own_error;
use crate::common::{DEADLINE, eventually_some};

#[test]
fn requests_are_answered_although_stdin_has_ended_and_there_is_no_server() {
    // A port on which nobody listens.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mcp-tcp-proxy"))
        .args(["connect", "--max-reconnect-attempts", "2"])
        .args(["--reconnect-delay", "0.05", &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
    let lines = format!("{}\n{}\n", request(1), request(2));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    let status = eventually_some("its end", DEADLINE, || child.try_wait().unwrap());
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 2, "{text}");
    for (answer, id) in answers.iter().zip(1..) {
        assert_eq!(answer["id"], id);
        assert_own_error(answer, 503, "reconnect_limit");
    }
    assert_eq!(status.code(), Some(1));
}
