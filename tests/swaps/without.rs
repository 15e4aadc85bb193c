//! Whoever has no server of his own gets a new one when he needs it.

use super::*;

#[test]
fn a_lazy_session_gets_the_new_one_when_it_speaks() {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &["--spawn", "lazy"]);
    let mut client = proxy.connect();
    proxy.signal(Signal::SIGUSR1);
    proxy.wait_for_log("0 sessions with a server of its own to be moved");
    client.initialize();
    assert_eq!(scratch.servers(), [client.pid_of_server()]);
}

#[test]
fn a_session_that_hibernates_gets_the_new_one_when_it_wakes() {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &["--hibernate-after", "0.5"]);
    let mut client = opened(&proxy);
    let first = client.pid_of_server();
    proxy.wait_for_log("] hibernates, ");
    proxy.signal(Signal::SIGUSR1);
    proxy.wait_for_log("0 sessions with a server of its own to be moved");
    assert_ne!(client.pid_of_server(), first);
    assert_eq!(scratch.servers().len(), 2);
}

#[test]
fn spares_are_replaced() {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &["--prespawn", "2"]);
    scratch.wait_for_server(2);
    let old = scratch.servers();
    proxy.signal(Signal::SIGUSR1);
    scratch.wait_for_server(4);
    let mut client = opened(&proxy);
    assert!(!old.contains(&client.pid_of_server()));
    eventually("the old ones to be gone", DEADLINE, || {
        !proxy.servers().iter().any(|pid| old.contains(pid))
    });
    let log = proxy.log();
    let is_lost = |line: &String| line.contains("a waiting server was lost");
    assert!(!log.iter().any(is_lost), "{log:?}");
}

#[test]
fn shared_processes_are_replaced_and_their_sessions_stay() {
    let scratch = Scratch::new();
    let options = ["--share", "1", "--share-legacy"];
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut legacy = opened(&proxy);
    let first = legacy.pid_of_server();
    proxy.signal(Signal::SIGUSR1);
    eventually("another process", DEADLINE, || {
        legacy.pid_of_server() != first
    });
    eventually("the old one to be gone", DEADLINE, || {
        !proxy.servers().contains(&first)
    });
    assert!(legacy.aside.is_empty(), "{:?}", legacy.aside);
}

#[test]
fn the_stdio_side_has_no_servers_to_be_replaced() {
    let (_peer, mut connect, _client) = common::connect::connected(&["--log-level", "info"]);
    connect.signal(Signal::SIGUSR1);
    connect.wait_for_log("SIGUSR1 is ignored");
    connect.assert_runs();
}
