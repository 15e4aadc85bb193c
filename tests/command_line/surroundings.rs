//! A machine, or a corner of one, that lacks what others have; and a program file that is not there any more.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::connect::in_shell;
use crate::common::{Connect, FakeServer, Proxy, Scratch, TempFolder, servers};

/// What a shell has to do, where nothing else sees it, for nothing to be in that folder; `None`, with a note, if this
/// can't be done here.
fn emptying(folder: &str) -> Option<String> {
    let mount = format!("mount -t tmpfs tmpfs {folder}");
    let can = Command::new("unshare")
        .args(["--mount", "/bin/sh", "-c", &mount])
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return None;
    }
    Some(mount)
}

/// Starts the proxy where nothing is in that folder, if this can be done here.
fn start_without(folder: &str, options: &[&str], server: &[String]) -> Option<Proxy> {
    let script = format!(r#"{} && exec "$@""#, emptying(folder)?);
    let wrapper = ["unshare", "--mount", "/bin/sh", "-c", &script, "sh"];
    Some(Proxy::start_under(&wrapper, options, server))
}

#[track_caller]
fn assert_demo_answers(proxy: &Proxy) {
    let answer = proxy.connect().request("ping", &json!({}));
    assert_eq!(answer["result"], Value::Object(serde_json::Map::new()));
}

#[track_caller]
fn assert_survives_a_crash(proxy: &Proxy) {
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    client.send_code("exit 3");
    client.recv_error(502, "process_terminated");
    assert_ne!(client.pid_of_server(), server);
}

#[test]
fn without_proc_sessions_are_served_and_the_log_tells_what_is_lacking() {
    let scratch = Scratch::new();
    let Some(proxy) = start_without("/proc", &[], &servers::scripted(&scratch)) else {
        return;
    };
    assert_survives_a_crash(&proxy);
    let line = proxy.wait_for_log("/proc/self/status");
    assert!(line.contains("WARN") && line.contains("nohup"), "{line}");
}

#[test]
fn without_devices_sessions_are_served() {
    let scratch = Scratch::new();
    // /dev/null is for the shell that is the server; the proxy needs none.
    if let Some(proxy) = start_without("/dev", &[], &servers::scripted(&scratch)) {
        assert_survives_a_crash(&proxy);
    }
}

#[test]
fn without_proc_the_demo_server_is_found_by_the_name_of_the_program() {
    if let Some(proxy) = start_without("/proc", &["--demo"], &[]) {
        assert_demo_answers(&proxy);
    }
}

#[test]
fn without_proc_and_devices_connect_relays() {
    for folder in ["/proc", "/dev"] {
        let Some(mount) = emptying(folder) else {
            return;
        };
        let script = format!(r#"exec unshare --mount /bin/sh -c '{mount} && exec "$@"' sh "$@""#);
        let server = FakeServer::start();
        let mut connect = Connect::start_configured(&[], server.address(), |command| {
            in_shell(&script, "sh", command);
        });
        let mut peer = server.greeted();
        connect.send_line("[1]");
        assert_eq!(peer.recv_line(), "[1]");
        peer.send_line("[2]");
        assert_eq!(connect.recv_line(), "[2]");
        connect.signal(Signal::SIGTERM);
        connect.wait_exit(0);
    }
}

/// As an upgrade does it: a new file is moved to where the old one was.
#[test]
fn the_demo_server_is_the_running_version_although_its_file_is_replaced() {
    let folder = TempFolder::new();
    let path = folder.path().join("proxy");
    fs::hard_link(env!("CARGO_BIN_EXE_mcp-tcp-proxy"), &path).unwrap();
    let proxy = Proxy::start_configured(&["--demo"], &[], |command| {
        let mut other = Command::new(&path);
        other.args(command.get_args());
        *command = other;
    });
    assert_demo_answers(&proxy);
    fs::remove_file(&path).unwrap();
    assert_demo_answers(&proxy);
    fs::write(&path, "not a program").unwrap();
    assert_demo_answers(&proxy);
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let mut client = proxy.connect();
    client.request("ping", &json!({}));
    assert!(
        proxy
            .servers()
            .iter()
            .any(|pid| name(pid) == "mcp-tcp-proxy\n")
    );
}
