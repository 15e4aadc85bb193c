//! How sessions end that have no server.

use nix::sys::signal::Signal;

use crate::common::{DEADLINE, Proxy, Scratch, servers, skip_on_reference};
use crate::{OPTIONS, modern_pid, stubborn, wait_until_asleep};

#[test]
fn a_stop_ends_them_and_starts_nothing() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&OPTIONS, &servers::scripted(&scratch));
    let mut clients: Vec<_> = (0..5).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        modern_pid(client);
    }
    wait_until_asleep(&proxy, 5);
    let so_far = scratch.servers().len();
    proxy.signal(Signal::SIGTERM);
    for client in &mut clients {
        assert!(client.read_to_end().is_empty());
    }
    drop(clients);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(scratch.servers().len(), so_far);
    proxy.wait_for_logs("closed: the proxy is shutting down", 5);
}

#[test]
fn a_stop_on_the_way_out_waits_for_no_more_than_that() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&OPTIONS, &stubborn(&scratch));
    let mut client = proxy.connect();
    modern_pid(&mut client);
    proxy.wait_for_log("] hibernates, ");
    proxy.signal(Signal::SIGTERM);
    assert!(client.read_to_end().is_empty());
    drop(client);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(scratch.servers().len(), 1);
}

#[test]
fn a_client_that_leaves_wakes_nothing() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    modern_pid(&mut client);
    wait_until_asleep(&proxy, 1);
    let so_far = scratch.servers().len();
    client.shutdown_write();
    assert!(client.read_to_end().is_empty());
    proxy.wait_for_log("closed: the client closed the connection");
    assert_eq!(scratch.servers().len(), so_far);
}

#[test]
fn an_idle_session_ends_although_it_hibernates() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let options = [&OPTIONS[..], &["--idle-timeout", "8"]].concat();
    let proxy = Proxy::start(&options, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    modern_pid(&mut client);
    assert!(client.read_to_end().is_empty());
    proxy.wait_for_log("closed: idle_timeout: ");
    let log = proxy.log();
    assert!(log.iter().any(|line| line.contains("] hibernates, ")));
    proxy.wait_until_childless();
}
