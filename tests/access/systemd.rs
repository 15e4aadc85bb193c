//! Sockets that systemd has opened. A shell plays its part: what it was given as stdin and stdout is passed as descriptors
//! 3 and 4.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::common::proxy::command_under_test;
use crate::common::{Client, DEADLINE, Proxy, TempFolder, servers};
use crate::refused_by;

/// Passes one socket.
const ONE: &str = "exec 3<&0 </dev/null >/dev/null; export LISTEN_FDS=1 LISTEN_PID=$$";

/// Passes two.
const TWO: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$";

/// Has a shell pass these descriptors to what `command` was.
fn pass(preamble: &str, first: impl Into<OwnedFd>, second: Stdio, command: &mut Command) {
    let mut shell = Command::new("/bin/sh");
    let script = format!("{preamble}; exec \"$0\" \"$@\"");
    shell.args(["-c", &script]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(first.into()).stdout(second);
    shell.stderr(Stdio::piped());
    *command = shell;
}

fn start(
    preamble: &str,
    options: &[&str],
    server: &[String],
    first: impl Into<OwnedFd>,
    second: Stdio,
) -> Proxy {
    Proxy::start_listening(options, server, |command| {
        pass(preamble, first, second, command);
    })
}

#[track_caller]
fn refused(preamble: &str, options: &[&str], first: impl Into<OwnedFd>) -> String {
    let mut command = command_under_test();
    command.args(options).arg("cat");
    pass(preamble, first, Stdio::null(), &mut command);
    refused_by(&mut command, 1)
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[track_caller]
fn assert_served(mut client: Client) {
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
}

#[test]
fn sockets_of_both_kinds_are_served_and_their_files_left_alone() {
    let folder = TempFolder::for_sockets();
    let path = folder.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let (tcp, address) = listener();
    let second = Stdio::from(OwnedFd::from(unix));
    let mut proxy = start(TWO, &[], &servers::mirror(), tcp, second);
    let unix = format!("unix:{}", path.display());
    proxy.wait_for_log(&format!("Starting TCP proxy on {address}, {unix}"));
    proxy.wait_for_log(&format!("TCP proxy listening on {address}"));
    proxy.wait_for_log(&format!("proxy listening on {unix}"));
    // A socket that blocks would keep the loop waiting for the next connection.
    for _ in 0..2 {
        assert_served(Client::connect(address));
        assert_served(Client::connect_unix(&path));
    }
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait_exit(DEADLINE).success());
    assert!(path.exists(), "it is systemd's");
}

#[test]
fn servers_do_not_get_them() {
    let (tcp, address) = listener();
    let server = servers::sh(
        r"for fd in 3 4 5 6 7; do [ -e /proc/self/fd/$fd ] && readlink /proc/self/fd/$fd; done | grep -c '^socket:' | sed 's/.*/[&]/'; exec cat",
    );
    let _proxy = start(ONE, &[], &server, tcp, Stdio::null());
    assert_eq!(Client::connect(address).recv_line(), "[0]");
}

#[test]
fn names_mean_nothing_and_are_no_trouble() {
    let (tcp, address) = listener();
    let preamble = format!("{ONE} LISTEN_FDNAMES=status");
    let options = ["--debug"];
    let proxy = start(&preamble, &options, &servers::mirror(), tcp, Stdio::null());
    assert_served(Client::connect(address));
    let line = proxy.wait_for_log("the names of systemd's sockets");
    assert!(line.contains("status") && line.contains("DEBUG"), "{line}");
}

#[test]
fn sockets_of_another_process_are_left_alone() {
    let (tcp, address) = listener();
    let preamble = format!("{ONE} LISTEN_PID=1");
    let options = ["--host=127.0.0.1", "--port=0"];
    let proxy = start(&preamble, &options, &servers::mirror(), tcp, Stdio::null());
    assert_ne!(proxy.address(), address);
    assert_served(proxy.connect());
}

#[test]
fn what_can_not_be_listened_on_is_refused() {
    let (tcp, address) = listener();
    let client = TcpStream::connect(address).unwrap();
    let line = refused(ONE, &[], tcp.accept().unwrap().0);
    assert!(
        line.contains("Accept=yes") && line.contains("descriptor 3"),
        "{line}"
    );
    drop(client);
    let line = refused(ONE, &[], UdpSocket::bind("127.0.0.1:0").unwrap());
    assert!(line.contains("is not a stream socket"), "{line}");
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(refused(ONE, &[], file).contains("is not a stream socket"));
    // One of two is not there.
    let line = refused(&format!("{ONE} LISTEN_FDS=2"), &[], listener().0);
    assert!(line.contains("descriptor 4"), "{line}");
    let line = refused(&format!("{ONE} LISTEN_FDS=many"), &[], listener().0);
    assert!(line.contains("LISTEN_FDS is not a number"), "{line}");
}

#[test]
fn other_addresses_beside_them_are_an_error() {
    for options in [
        &["--listen=127.0.0.1:0"][..],
        &["--port=0"],
        &["--host=127.0.0.1"],
    ] {
        let line = refused(ONE, options, listener().0);
        assert!(line.contains("systemd has passed sockets"), "{line}");
    }
}
