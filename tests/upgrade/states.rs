//! States that were written down before: each version understands those of the versions before it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::proxy::command_under_test;
use crate::common::{Client, Proxy, Scratch, servers, write_program};

/// Arguments with which any of them can be gone on with.
const WORDS: [&str; 4] = ["--generation", "1", "--config", "servers.json"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/states")
}

/// What the program under test says to a state.
fn rehearse(state: &[u8]) -> String {
    let mut command = command_under_test();
    let mut child = command
        .arg("rehearse-upgrade")
        .args(WORDS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(state).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn states_of_all_versions_are_understood() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let state = std::fs::read(&path).unwrap();
        assert_eq!(rehearse(&state), "able\n", "{}", path.display());
        let less = &state[..state.len() - 2];
        assert_ne!(rehearse(less), "able\n", "{}", path.display());
        count += 1;
    }
    assert!(count > 0);
}

/// A client whose session is kept, after this first line.
fn kept(proxy: &Proxy, digit: &str) -> Client {
    let mut client = proxy.connect();
    let resume = json!({"version": 1, "session": digit.repeat(32), "heartbeat": 30});
    let token = "a-long-enough-secret";
    let first = json!({"type": "handshake", "token": token, "server": "one", "resume": resume});
    client.send_json(&first);
    assert_eq!(client.recv_json()["type"], "resumable");
    client
}

#[test]
#[ignore = "it writes the state of this version into tests/states, once before a release"]
fn the_state_of_this_version_is_written() {
    let scratch = Scratch::new();
    let file = |name: &str| scratch.file(name).to_str().unwrap().to_owned();
    std::fs::write(file("words.env"), "WORD=first\n").unwrap();
    let token = write_program(&scratch.file("tokens"), "ann a-long-enough-secret\n", 0o600);
    let script = "while read -r line; do case $line in *wait*) ;; *) echo \"$line\";; esac; done";
    let command = servers::sh(script);
    let one =
        json!({"command": command[0], "args": command[1..], "envFile": "words.env", "prespawn": 1});
    let two = json!({"command": "cat", "maxSessions": 3, "hibernateAfter": 5});
    let servers = json!({"one": one, "two": two});
    let config = json!({"listen": "127.0.0.1:0", "tokenFile": token, "mcpServers": servers});
    std::fs::write(file("servers.json"), config.to_string()).unwrap();
    let taken = file("state");
    let text = format!("#!/bin/sh\ncat > {taken}.new; mv {taken}.new {taken}; exit 1\n");
    let next = write_program(&scratch.file("next"), text, 0o755);
    let options = ["--config", &file("servers.json"), "--upgrade-from", &next];
    let options = [&options[..], &["--status", "127.0.0.1:0"]].concat();
    let proxy = Proxy::start_with_config(&options, |_| {});
    let request = |id: u64, method: &str| json!({"jsonrpc": "2.0", "id": id, "method": method});
    let mut sessions = ["1", "2", "3"].map(|digit| kept(&proxy, digit));
    for client in &mut sessions {
        client.send_json(&request(1, "m"));
        client.recv_json();
        client.send_json(&request(2, "wait"));
    }
    let [_live, lost, mut gone] = sessions;
    drop(lost);
    gone.send_line(r#"{"type":"heartbeat","bye":true}"#);
    proxy.wait_for_log("lost its connection");
    let mut half = kept(&proxy, "4");
    half.send_raw(b"{\"jsonrpc\":\"2.0\",");
    proxy.signal(Signal::SIGUSR2);
    proxy.wait_for_log("no upgrade to ");
    let state = std::fs::read(&taken).unwrap();
    assert_eq!(rehearse(&state), "able\n");
    std::fs::create_dir_all(folder()).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    std::fs::write(folder().join(format!("{version}.state")), state).unwrap();
}
