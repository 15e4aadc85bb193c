//! Shared servers that are replaced in good order, and clients that go back to those that they know.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::common::{Client, DEADLINE, Proxy, Scratch, eventually, servers, skip_on_reference};

fn opened(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    client.initialize();
    client
}

#[test]
fn a_server_is_replaced_after_so_many_requests() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let options = [
        "--share",
        "1",
        "--share-legacy",
        "--share-max-requests",
        "2",
    ];
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut client = opened(&proxy);
    let pids: Vec<i32> = (0..6).map(|_| client.pid_of_server()).collect();
    let started = scratch.servers();
    assert_eq!(pids, [0, 0, 1, 1, 2, 2].map(|at| started[at]));
    eventually("the others to end", DEADLINE, || proxy.servers().len() <= 1);
    let log = proxy.log();
    let is_loss = |line: &String| line.contains("ended (");
    assert!(!log.iter().any(is_loss), "that was no loss: {log:?}");
    assert!(client.aside.is_empty());
}

#[test]
fn an_old_server_answers_what_it_has_and_a_new_one_what_follows() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let options = [
        "--share",
        "1",
        "--share-legacy",
        "--share-max-requests",
        "1",
    ];
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut client = opened(&proxy);
    let released = scratch.file("released");
    let released = released.display();
    let held = client.send_code(&format!(
        "until [ -e '{released}' ]; do sleep 0.01; done; answer"
    ));
    let second = client.pid_of_server();
    let first = scratch.servers()[0];
    assert_ne!(first, second);
    scratch.write("released", "");
    assert_eq!(client.answer_to(held)["result"]["pid"], first);
    eventually("the old one to end", DEADLINE, || {
        !proxy.servers().contains(&first)
    });
}

#[test]
fn a_server_is_replaced_when_it_is_old() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let options = ["--share", "1", "--share-legacy", "--share-max-age", "0.2"];
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut client = opened(&proxy);
    let first = client.pid_of_server();
    eventually("another server", DEADLINE, || {
        client.pid_of_server() != first
    });
}

/// A client that shows a token.
fn named(proxy: &Proxy, token: &str) -> Client {
    let mut client = proxy.connect();
    client.send_line(&format!(r#"{{"type":"handshake","token":"{token}"}}"#));
    client.initialize();
    client
}

#[test]
fn whoever_has_a_name_goes_back_to_the_server_that_it_used_last() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let (ann, bob) = ("mtp_of_ann_0123456789", "mtp_of_bob_0123456789");
    let tokens = scratch.file("tokens");
    fs::write(&tokens, format!("ann {ann}\nbob {bob}\n")).unwrap();
    fs::set_permissions(&tokens, Permissions::from_mode(0o640)).unwrap();
    let tokens = tokens.to_str().unwrap();
    let options = ["--share", "2", "--share-legacy", "--token-file", tokens];
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut crowd = vec![named(&proxy, bob)];
    let other = crowd[0].pid_of_server();
    let mut hers = named(&proxy, ann);
    let used = hers.pid_of_server();
    assert_ne!(used, other, "it had no session");
    leave(hers);
    // Now both have two sessions, and whoever has no name gets the first.
    for expected in [used, other, used] {
        let mut client = named(&proxy, bob);
        assert_eq!(client.pid_of_server(), expected);
        crowd.push(client);
    }
    for _ in 0..3 {
        hers = named(&proxy, ann);
        assert_eq!(hers.pid_of_server(), used);
        leave(hers);
    }
}

/// Ends a session in good order. Then it is over.
fn leave(mut client: Client) {
    client.shutdown_write();
    client.read_to_end();
}
