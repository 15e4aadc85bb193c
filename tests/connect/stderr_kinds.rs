//! What stderr can be: `connect` goes on, and its stdout carries messages and nothing else.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use nix::sys::termios::{FlowArg, tcflow};
use serde_json::json;

use crate::common::connect::{Reserved, in_shell};
use crate::common::log_stream::{
    LogStream, assert_whole_lines, lost_lines, set_nonblocking, terminal,
};
use crate::common::{Client, Connect, FakeServer, TempFolder};

/// What it says when it tells of lost lines.
const LOST: &str = "log lines lost, as stderr did not take them: ";

/// Each is logged twice, in about 250 bytes: more than fits into a pipe, a socket or a terminal.
const ROUND_TRIPS: u64 = 1500;

/// It logs all that passes, and says nothing by itself while a test lasts, however slow the machine is.
const OPTIONS: [&str; 3] = ["--debug", "--heartbeat-interval", "3600"];

/// Starts it with this stderr.
fn start(server: &FakeServer, stderr: impl Into<Stdio>) -> (Connect, Client) {
    let connect = Connect::start_with_stderr(&OPTIONS, server.address(), stderr.into());
    (connect, server.greeted())
}

/// Starts it in a shell that redirects as in `script`, where `"$@"` is the program and `$0` the path.
fn start_in_shell(server: &FakeServer, script: &str, path: &str) -> (Connect, Client) {
    let connect = Connect::start_configured(&OPTIONS, server.address(), |command| {
        in_shell(script, path, command);
    });
    (connect, server.greeted())
}

/// Passes requests and their answers, one at a time.
#[track_caller]
fn pass(connect: &mut Connect, peer: &mut Client) {
    let params = json!("x".repeat(100));
    for id in 0..ROUND_TRIPS {
        connect.send_request(id, "m", &params);
        assert_eq!(peer.recv_json()["id"], id);
        peer.send_json(&json!({"id": id, "result": params}));
        assert_eq!(connect.recv_json()["id"], id);
    }
}

#[track_caller]
fn end(mut connect: Connect, mut peer: Client) {
    connect.end_input();
    peer.read_to_end();
    peer.close();
    connect.wait_exit(0);
}

/// Serves with this stderr, of which nothing is taken or known.
#[track_caller]
fn assert_goes_on(stderr: impl Into<Stdio>) {
    let server = FakeServer::start();
    let (mut connect, mut peer) = start(&server, stderr);
    pass(&mut connect, &mut peer);
    end(connect, peer);
}

/// Nobody reads the log at first. Once it is read, the next line is preceded by the number of those that were lost.
#[track_caller]
fn assert_catches_up(stderr: OwnedFd, mut log: LogStream) {
    let server = FakeServer::start();
    let (mut connect, mut peer) = start(&server, stderr);
    pass(&mut connect, &mut peer);
    log.read();
    connect.send_line(r#"{"method":"after that"}"#);
    peer.recv_line();
    let text = log.read_until("after that");
    assert!(lost_lines(&text) > 0 && text.contains(LOST), "{text}");
    assert_whole_lines(&text);
    end(connect, peer);
}

#[test]
fn a_pipe() {
    let (reader, writer) = std::io::pipe().unwrap();
    assert_catches_up(writer.into(), LogStream::new(reader));
    let (reader, writer) = std::io::pipe().unwrap();
    set_nonblocking(&writer);
    assert_catches_up(writer.into(), LogStream::new(reader));
}

#[test]
fn a_pipe_without_a_reader() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_goes_on(writer);
}

#[test]
fn a_socket() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_catches_up(theirs.into(), LogStream::new(ours));
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    assert_goes_on(OwnedFd::from(theirs));
}

#[test]
fn a_terminal() {
    let (log, stderr) = terminal();
    assert_catches_up(stderr, log);
}

#[test]
fn a_stopped_terminal() {
    let (mut log, stderr) = terminal();
    let ours = stderr.try_clone().unwrap();
    tcflow(&ours, FlowArg::TCOOFF).unwrap();
    let server = FakeServer::start();
    let (mut connect, mut peer) = start(&server, stderr);
    pass(&mut connect, &mut peer);
    assert_eq!(log.read(), "");
    tcflow(&ours, FlowArg::TCOON).unwrap();
    connect.send_line(r#"{"method":"after that"}"#);
    peer.recv_line();
    assert!(lost_lines(&log.read_until("after that")) > 0);
    end(connect, peer);
}

#[test]
fn a_full_device_and_what_can_only_be_read() {
    let folder = TempFolder::new();
    assert_goes_on(File::create("/dev/full").unwrap());
    assert_goes_on(File::open("/dev/null").unwrap());
    assert_goes_on(File::open(folder.path()).unwrap());
}

#[test]
fn a_closed_descriptor() {
    let server = FakeServer::start();
    let (mut connect, mut peer) = start_in_shell(&server, r#"exec "$@" 2>&-"#, "sh");
    pass(&mut connect, &mut peer);
    end(connect, peer);
}

#[test]
fn a_file_at_its_size_limit() {
    let folder = TempFolder::new();
    let path = folder.path().join("log");
    let server = FakeServer::start();
    let script = r#"ulimit -f 32; exec "$@" 2>>"$0""#;
    let (mut connect, mut peer) = start_in_shell(&server, script, path.to_str().unwrap());
    pass(&mut connect, &mut peer);
    let full = fs::metadata(&path).unwrap().len();
    assert!(full > 0 && full.is_multiple_of(512), "{full} bytes");
    File::create(&path).unwrap();
    connect.send_line(r#"{"method":"after that"}"#);
    peer.recv_line();
    crate::common::eventually("the log to go on", crate::common::DEADLINE, || {
        let log = fs::read_to_string(&path).unwrap();
        log.contains("after that") && lost_lines(&log) > 0
    });
    end(connect, peer);
}

/// The messages can't be written any more: that is the end, with a reason, and no signal.
#[test]
fn a_file_at_its_size_limit_as_stdout() {
    let folder = TempFolder::new();
    let path = folder.path().join("out");
    let server = FakeServer::start();
    let script = r#"ulimit -f 1; exec "$@" >"$0""#;
    let (mut connect, mut peer) = start_in_shell(&server, script, path.to_str().unwrap());
    peer.send_json(&json!({"id": 1, "result": "x".repeat(10_000)}));
    peer.read_to_end();
    drop(peer);
    let log = connect.wait_exit(1);
    assert!(
        log.iter().any(|line| line.contains("File too large")),
        "{log:?}"
    );
}

/// Log lines stand between the messages then, but never inside one.
#[test]
fn the_pipe_that_is_stdout_too() {
    let server = FakeServer::start();
    let (mut connect, mut peer) = start_in_shell(&server, r#"exec "$@" 2>&1"#, "sh");
    let mut log = String::new();
    for id in 0..ROUND_TRIPS {
        connect.send_request(id, "m", &json!({}));
        assert_eq!(peer.recv_json()["id"], id);
        peer.send_json(&json!({"id": id, "result": {}}));
        loop {
            let line = connect.recv_line();
            if line.starts_with('{') {
                assert_eq!(line, format!(r#"{{"id":{id},"result":{{}}}}"#));
                break;
            }
            log += &(line + "\n");
        }
    }
    assert_whole_lines(&log);
    connect.end_input();
    peer.read_to_end();
    peer.close();
    connect.read_to_end();
    connect.wait_exit(0);
}

/// The reason why it ends may not be told, but it ends.
#[test]
fn a_full_pipe_is_no_reason_to_stay() {
    let (unread, writer) = std::io::pipe().unwrap();
    set_nonblocking(&writer);
    while std::io::Write::write(&mut &writer, b"full\n").is_ok() {}
    let nobody = Reserved::new();
    let mut connect =
        Connect::start_with_stderr(&["--no-reconnect"], nobody.address(), writer.into());
    connect.wait_exit(1);
    drop(unread);
}
