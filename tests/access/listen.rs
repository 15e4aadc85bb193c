//! Several addresses at once, and what they are called.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use nix::sys::signal::Signal;

use crate::common::connect::Reserved;
use crate::common::{Client, DEADLINE, Proxy, TempFolder, eventually, servers};
use crate::refused;

fn has_ipv6() -> bool {
    let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        eprintln!("skipped: this machine has no IPv6");
    }
    has
}

#[track_caller]
fn assert_served(mut client: Client) {
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
}

/// Where it says that it listens, once there are that many.
#[track_caller]
fn addresses(proxy: &Proxy, count: usize) -> Vec<String> {
    let lines = proxy.wait_for_logs("proxy listening on ", count);
    let address = |line: &String| line.split_once("listening on ").unwrap().1.to_owned();
    lines.iter().map(address).collect()
}

fn start(options: &[&str]) -> Proxy {
    Proxy::start_listening(options, &servers::mirror(), |_| {})
}

#[test]
fn every_address_is_served_and_all_are_closed_at_the_end() {
    let folder = TempFolder::for_sockets();
    let unix = format!("unix:{}", folder.path().join("socket").display());
    let mut proxy = start(&[
        "--listen=127.0.0.1:0",
        "--listen",
        &unix,
        "--listen=127.0.0.2:0",
    ]);
    proxy.wait_for_log(&format!(
        "Starting TCP proxy on 127.0.0.1:0, {unix}, 127.0.0.2:0"
    ));
    let addresses = addresses(&proxy, 3);
    let tcp: Vec<SocketAddr> = [0, 2].map(|at| addresses[at].parse().unwrap()).into();
    assert_eq!(addresses[1], unix);
    assert_eq!(
        tcp.iter().map(SocketAddr::ip).collect::<Vec<_>>(),
        [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)]
    );
    for _ in 0..2 {
        assert_served(Client::connect(tcp[0]));
        assert_served(Client::connect_unix(&folder.path().join("socket")));
        assert_served(Client::connect(tcp[1]));
    }
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait_exit(DEADLINE).success());
    assert!(
        tcp.iter()
            .all(|address| std::net::TcpStream::connect(address).is_err())
    );
    assert!(!folder.path().join("socket").exists());
}

#[test]
fn host_and_port_count_beside_others_only_if_they_are_given() {
    let alone = start(&["--listen=127.0.0.2:0"]);
    assert_served(Client::connect(
        addresses(&alone, 1)[0].parse::<SocketAddr>().unwrap(),
    ));
    // All that is said at the start has been.
    assert_eq!(addresses(&alone, 1).len(), 1);
    let both = start(&["--listen=127.0.0.2:0", "--host=127.0.0.1", "--port=0"]);
    let addresses = addresses(&both, 2);
    assert!(addresses[0].starts_with("127.0.0.1:"), "{addresses:?}");
    assert!(addresses[1].starts_with("127.0.0.2:"), "{addresses:?}");
}

#[test]
fn all_of_both_protocols_can_be_listened_on_with_one_port() {
    if !has_ipv6() {
        return;
    }
    for order in [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"]] {
        let reserved = Reserved::on_all_addresses();
        let port = reserved.address().port();
        let words = order.map(|host| format!("--listen={host}:{port}"));
        let proxy = start(&[&words[0], &words[1]]);
        addresses(&proxy, 2);
        assert_served(Client::connect((Ipv4Addr::LOCALHOST, port)));
        assert_served(Client::connect((Ipv6Addr::LOCALHOST, port)));
        drop(proxy);
    }
}

#[test]
fn a_mapped_address_is_the_ipv4_address() {
    if !has_ipv6() {
        return;
    }
    let proxy = start(&["--listen=[::ffff:127.0.0.1]:0"]);
    assert!(addresses(&proxy, 1)[0].starts_with("127.0.0.1:"));
    let off = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only");
    if off.is_ok_and(|text| text.trim() == "1") {
        return eprintln!("skipped: this machine keeps IPv4 and IPv6 apart");
    }
    let proxy = start(&["--listen=[::]:0"]);
    let client = Client::connect((Ipv4Addr::LOCALHOST, proxy.address().port()));
    proxy.wait_for_log(&format!("session 1 {} pid", client.local_address()));
}

#[test]
fn whoever_listens_beyond_loopback_is_warned() {
    let folder = TempFolder::for_sockets();
    let unix = format!("--listen=unix:{}", folder.path().join("socket").display());
    let proxy = start(&["--listen=127.0.0.1:0", &unix, "--listen=0.0.0.0:0"]);
    let address = addresses(&proxy, 3).remove(2);
    let line = proxy.wait_for_log("anyone who reaches ");
    let expected = format!(
        "anyone who reaches {address} can run this server; --host 127.0.0.1, --token-file or --allow"
    );
    assert!(line.contains("WARN") && line.contains(&expected), "{line}");
    drop(proxy);
    let proxy = start(&["--listen=127.0.0.1:0", &unix]);
    assert_served(Client::connect(proxy.address()));
    assert!(!proxy.log().iter().any(|line| line.contains("WARN")));
}

#[test]
fn an_address_that_can_not_be_listened_on_is_named() {
    for (address, exit_code) in [
        ("9000", 2),
        ("unix:@name", 2),
        ("192.0.2.1:0", 1),
        ("no-such-host.invalid:1", 1),
        ("unix:/no/such/folder/socket", 1),
    ] {
        let line = refused(&["--listen=127.0.0.1:0", "--listen", address], exit_code);
        assert!(
            line.contains(address) && line.contains("--listen"),
            "{line}"
        );
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = refused(&["--listen", &address], 1);
    assert!(line.contains(&format!("{address} (--listen)")), "{line}");
}

/// A start that fails leaves no socket behind.
#[test]
fn nothing_is_left_of_a_start_that_failed() {
    let folder = TempFolder::for_sockets();
    let path = folder.path().join("socket");
    let unix = format!("--listen=unix:{}", path.display());
    refused(&[&unix, "--listen=192.0.2.1:0"], 1);
    eventually("no socket", DEADLINE, || !path.exists());
}
