//! Signals, in whatever state the parent left them.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use crate::common::{Connect, DEADLINE, FakeServer, Proxy, Scratch, eventually_some, servers};

/// Perl daemons and `trap '' CHLD` start programs in this way. The kernel then reaps children itself, and their exit
/// status is lost.
#[test]
fn a_parent_that_ignores_sigchld_does_not_hide_ends_of_servers() {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start_under(
        &["bash", "-c", r#"trap '' CHLD; exec "$@""#, "bash"],
        &[],
        &servers::scripted(&scratch),
    );
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    let id = client.send_code("exit 3");
    let (found, data) = client.recv_error(502, "process_terminated");
    assert_eq!(found, id);
    assert_eq!(data["status"], "exit code 3");
    assert_ne!(client.pid_of_server(), server);
    client.close();
    proxy.wait_for_log("closed: ");
    proxy.wait_until_childless();
    let mut other = proxy.connect();
    other.pid_of_server();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

/// Does something with all signals blocked, as they are then for what it starts.
fn with_all_blocked<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let blocked = scope.spawn(|| {
            SigSet::all().thread_block().unwrap();
            action()
        });
        blocked.join().unwrap()
    })
}

fn blocked(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("SigBlk:"));
    line.unwrap().to_owned()
}

#[test]
fn signals_that_the_parent_blocks_are_not_blocked_in_the_proxy() {
    let server = servers::mirror();
    let plain = Proxy::start(&[], &server);
    let mut proxy = with_all_blocked(|| Proxy::start(&[], &server));
    // Both listen, and so both have taken the signals that they take.
    for proxy in [&plain, &proxy] {
        let mut client = proxy.connect();
        client.send_line("[1]");
        assert_eq!(client.recv_line(), "[1]");
    }
    assert_eq!(blocked(proxy.pid()), blocked(plain.pid()));
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn signals_that_the_parent_blocks_are_not_blocked_in_connect() {
    let server = FakeServer::start();
    let plain = Connect::start(&[], server.address());
    let _peer = server.greeted();
    let connect = with_all_blocked(|| Connect::start(&[], server.address()));
    let _other_peer = server.greeted();
    assert_eq!(blocked(connect.pid()), blocked(plain.pid()));
}

#[test]
fn signals_that_ask_for_something_else_are_logged_and_end_nothing() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let server = client.pid_of_server();
    proxy.signal(Signal::SIGUSR2);
    let line = proxy.wait_for_log("SIGUSR2: asking");
    assert!(line.contains(" INFO "), "{line}");
    assert_eq!(client.pid_of_server(), server);
}

/// Sends one stop signal after another, as a terminal and a wrapper do together. Returns the line that tells what was
/// made of the second one, unless that came too late to be an echo.
fn echo() -> Option<String> {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&["--debug"], &servers::scripted(&scratch));
    let mut client = proxy.connect();
    client.pid_of_server();
    let id = client
        .send_code(r#"echo > "$dir/busy"; until [ -e "$dir/go" ]; do sleep 0.01; done; answer"#);
    scratch.read("busy");
    let start = Instant::now();
    proxy.signal(Signal::SIGINT);
    let first = proxy.wait_for_log("SIGINT: stopping");
    assert!(
        first.contains("another signal (^C) forces the end"),
        "{first}"
    );
    proxy.signal(Signal::SIGTERM);
    let line = proxy.wait_for_log("SIGTERM");
    if start.elapsed() >= Duration::from_millis(500) {
        return None;
    }
    scratch.write("go", "");
    assert_eq!(client.answer_to(id)["id"], id);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    Some(line)
}

#[test]
fn the_echo_of_a_signal_forces_nothing() {
    // On a busy machine, it takes some attempts to be fast enough.
    let line = eventually_some("an echo in time", 6 * DEADLINE, echo);
    assert!(line.contains("right after"), "{line}");
}
