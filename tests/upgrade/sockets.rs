//! Where connections come in, before and after.

use std::thread;

use nix::sys::signal::Signal;

use crate::common::processes::fd_count;
use crate::common::{Client, DEADLINE, Proxy, Scratch, servers};
use crate::refused::assert_serves;
use crate::{generation, upgrade, upgrade_by_command};

#[test]
fn a_unix_socket_stays_and_goes_with_the_last_program() {
    let scratch = Scratch::new();
    let path = scratch.file("socket");
    let listen = format!("unix:{}", path.display());
    let mut proxy = Proxy::start_listening(&["--listen", &listen], &servers::mirror(), |_| {});
    let mut client = Client::connect_unix(&path);
    for _ in 0..2 {
        upgrade(&proxy);
        client.send_line("[1]");
        assert_eq!(client.recv_line(), "[1]");
        let mut new = Client::connect_unix(&path);
        new.send_line("[2]");
        assert_eq!(new.recv_line(), "[2]");
    }
    // Nobody else gets the path.
    let mut other = crate::common::proxy::command_under_test();
    let other = other.args(["--listen", &listen, "cat"]).output().unwrap();
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(
        said.contains("another mcp-tcp-proxy listens there"),
        "{said}"
    );
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn no_descriptor_is_left_behind() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let mut counts = Vec::new();
    for _ in 0..3 {
        client.send_line("[1]");
        assert_eq!(client.recv_line(), "[1]");
        counts.push(fd_count(proxy.pid()));
        upgrade(&proxy);
    }
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

#[test]
fn two_proxies_can_be_upgraded_at_once() {
    let proxies = [(), ()].map(|()| Proxy::start(&[], &servers::mirror()));
    let mut clients: Vec<Client> = proxies.iter().map(Proxy::connect).collect();
    for round in 1..=3 {
        for proxy in &proxies {
            proxy.signal(Signal::SIGUSR2);
        }
        for (proxy, client) in proxies.iter().zip(&mut clients) {
            proxy.wait_for_logs(crate::GOES_ON, round);
            client.send_line("[1]");
            assert_eq!(client.recv_line(), "[1]");
        }
    }
}

#[test]
fn each_command_upgrades_its_own_proxy_alone() {
    let proxies = [(), (), ()].map(|()| Proxy::start(&[], &servers::mirror()));
    let mut clients: Vec<Client> = proxies.iter().map(Proxy::connect).collect();
    thread::scope(|scope| {
        for proxy in &proxies[..2] {
            scope.spawn(|| {
                let output = upgrade_by_command(&[&proxy.pid().to_string()]);
                assert!(output.status.success(), "{output:?}");
            });
        }
    });
    assert_eq!(proxies.each_ref().map(generation), [1, 1, 0]);
    for client in &mut clients {
        assert_serves(client);
    }
}
