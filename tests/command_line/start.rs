//! What keeps the proxy from serving, and on which addresses it serves.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;

use crate::common::{Client, Proxy, TempFolder, servers, write_program};
use crate::run;

/// Asserts that a command can't be served, that the one line about it names it, and returns the line.
#[track_caller]
pub(crate) fn assert_unusable(command: &str) -> String {
    let ended = run(&["--host=127.0.0.1", "--port=0", command]);
    let line = ended.one_line(1);
    assert!(line.contains(command), "{line}");
    line.to_owned()
}

#[test]
fn a_command_that_is_not_there() {
    assert_unusable("no-such-program-anywhere");
    assert_unusable("/no/such/program");
    assert_unusable("./no-such-program");
}

#[test]
fn a_command_that_may_not_be_run() {
    let folder = TempFolder::new();
    assert_unusable(&write_program(
        &folder.path().join("plain"),
        "#!/bin/sh\ncat\n",
        0o644,
    ));
}

#[test]
fn a_folder_is_no_command() {
    let folder = TempFolder::new();
    assert_unusable(folder.path().to_str().unwrap());
    assert_unusable("/");
}

#[test]
fn a_link_to_nowhere_is_no_command() {
    let folder = TempFolder::new();
    let link = folder.path().join("link");
    symlink("/no/such/program", &link).unwrap();
    assert_unusable(link.to_str().unwrap());
}

#[test]
fn a_script_without_its_interpreter_is_no_command() {
    let folder = TempFolder::new();
    let script = folder.path().join("script");
    let line = assert_unusable(&write_program(
        &script,
        "#!/no/such/interpreter -x\n",
        0o755,
    ));
    assert!(line.contains("/no/such/interpreter"), "{line}");
    let line = assert_unusable(&write_program(&script, "#! /no/such/interpreter\n", 0o755));
    assert!(line.contains("/no/such/interpreter"), "{line}");
    // An interpreter that is there, but can't be run.
    let plain = write_program(&folder.path().join("plain"), "cat\n", 0o644);
    for interpreter in [plain.as_str(), "/"] {
        let text = format!("#!{interpreter}\n");
        assert_unusable(&write_program(&script, &text, 0o755));
    }
}

#[test]
fn an_empty_word_is_no_command() {
    run(&["--host=127.0.0.1", "--port=0", ""]).one_line(1);
}

#[test]
fn a_bad_command_is_named_in_one_line_whatever_it_holds() {
    let ended = run(&["--port=0", "no\nsuch\x1b[2Jprogram", "with\nwords"]);
    let line = ended.one_line(1);
    assert!(line.contains("such") && line.contains("with"), "{line}");
}

#[test]
fn a_command_is_searched_for_in_path() {
    let folder = TempFolder::new();
    symlink("/bin/cat", folder.path().join("my-server")).unwrap();
    // A file of that name that can't be run does not hide it.
    let other = TempFolder::new();
    write_program(&other.path().join("my-server"), "", 0o644);
    let proxy = Proxy::start_configured(&[], &["my-server".to_owned()], |command| {
        let (first, second) = (other.path().display(), folder.path().display());
        command.env("PATH", format!("{first}:{second}"));
    });
    let mut client = proxy.connect();
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
}

#[test]
fn an_address_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(&["--host", "127.0.0.1", "--port", &port, "cat"]);
    let line = ended.one_line(1);
    assert!(line.contains("127.0.0.1") && line.contains(&port), "{line}");
    let ended = run(&["--host", "localhost", "--port", &port, "cat"]);
    let line = ended.one_line(1);
    assert!(line.contains("localhost") && line.contains(&port), "{line}");
}

#[test]
fn an_address_that_is_not_ours() {
    // Reserved for documentation (RFC 5737, RFC 3849).
    for host in ["192.0.2.1", "2001:db8::1"] {
        let ended = run(&["--host", host, "--port", "0", "cat"]);
        assert!(ended.one_line(1).contains(host), "{}", ended.stderr);
    }
}

#[test]
fn a_name_that_stands_for_nothing() {
    // Never resolves (RFC 6761), and is refused without asking anyone by most resolvers.
    let ended = run(&["--host", "no-such-host.invalid", "--port", "0", "cat"]);
    assert!(ended.one_line(1).contains("no-such-host.invalid"));
}

#[test]
fn two_proxies_do_not_share_a_port() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let port = proxy.address().port().to_string();
    run(&["--host=127.0.0.1", "--port", &port, "cat"]).one_line(1);
}

#[test]
fn a_port_is_free_again_at_once() {
    let first = Proxy::start(&[], &servers::mirror());
    let port = first.address().port().to_string();
    // Connections that the proxy closes first linger in the kernel.
    let refused = Proxy::start(&["--no-auto-restart"], &servers::sh("exit 0"));
    let refused_port = refused.address().port().to_string();
    refused.connect().read_to_end();
    drop((first, refused));
    for port in [port, refused_port] {
        let proxy = Proxy::start(&["--port", &port], &servers::mirror());
        assert_eq!(proxy.address().port().to_string(), port);
    }
}

/// The addresses in the log lines that name them.
fn logged_addresses(proxy: &Proxy) -> Vec<SocketAddr> {
    proxy
        .log()
        .iter()
        .filter_map(|line| line.split_once("listening on ")?.1.parse().ok())
        .collect()
}

#[track_caller]
fn assert_serves(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn the_port_that_was_picked_is_logged() {
    let proxy = Proxy::start(&["--port", "0"], &servers::mirror());
    let addresses = logged_addresses(&proxy);
    assert_eq!(addresses.len(), 1);
    assert_ne!(addresses[0].port(), 0);
    assert_serves(addresses[0]);
}

#[test]
fn localhost_is_one_port_on_all_its_addresses() {
    use std::net::ToSocketAddrs;
    let proxy = Proxy::start(&["--host", "localhost"], &servers::mirror());
    let mut expected: Vec<IpAddr> = ("localhost", 0)
        .to_socket_addrs()
        .unwrap()
        .map(|address| address.ip())
        .filter(|address| address.is_ipv4() || has_ipv6())
        .collect();
    expected.sort_unstable();
    expected.dedup();
    // The first line was there when the start was over; others follow.
    proxy.wait_for_logs("listening on ", expected.len());
    let addresses = logged_addresses(&proxy);
    let found: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    assert_eq!(found, expected);
    for address in addresses {
        assert_eq!(address.port(), proxy.address().port());
        assert_serves(address);
    }
}

#[test]
fn ipv6_addresses_are_served_where_there_are_any() {
    if !has_ipv6() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    for host in ["::1", "[::1]", "::"] {
        let proxy = Proxy::start(&["--host", host], &servers::mirror());
        let port = proxy.address().port();
        assert_serves(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        // As a URL writes it.
        let line = proxy.wait_for_log("Starting TCP proxy on ");
        let expected = format!("[{}]:0", host.trim_matches(['[', ']']));
        assert!(line.ends_with(&expected), "{line}");
    }
}

#[test]
fn all_of_ipv6_is_all_of_ipv4_too() {
    let off =
        fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "1");
    if !has_ipv6() || off {
        eprintln!("skipped: this machine has no IPv6, or keeps it apart");
        return;
    }
    let proxy = Proxy::start(&["--host", "::"], &servers::mirror());
    assert_serves(SocketAddr::from((
        Ipv4Addr::LOCALHOST,
        proxy.address().port(),
    )));
}

#[test]
fn all_addresses_are_served_by_default() {
    let proxy = Proxy::start(&["--host", "0.0.0.0"], &servers::mirror());
    assert_serves(proxy.address());
    let line = proxy.wait_for_log("anyone who reaches 0.0.0.0:");
    assert!(line.contains("WARN"), "{line}");
    // The default is the same; the port may be taken on this machine, so only the error tells.
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(
        run(&["--port", &port, "cat"])
            .one_line(1)
            .contains(&format!("0.0.0.0:{port}"))
    );
    assert!(TcpStream::connect(("127.0.0.1", taken.local_addr().unwrap().port())).is_ok());
}
