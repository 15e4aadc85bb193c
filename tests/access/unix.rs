//! Unix sockets: who may connect, what happens to their files, and that all that TCP's connections can, theirs can.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use serde_json::json;

use crate::common::connect::{IN_HASTE, initialize_line};
use crate::common::proxy::in_shell;
use crate::common::{Client, Connect, DEADLINE, Proxy, TempFolder, eventually, servers};
use crate::refused;

/// A folder with the path of a socket in it.
struct Place {
    folder: TempFolder,
    path: PathBuf,
    /// `unix:PATH`
    address: String,
}

impl Place {
    fn new() -> Self {
        let folder = TempFolder::for_sockets();
        let path = folder.path().join("mcp.sock");
        let address = format!("unix:{}", path.display());
        Self {
            folder,
            path,
            address,
        }
    }

    fn start(&self, server: &[String]) -> Proxy {
        self.start_with(&[], server)
    }

    fn start_with(&self, options: &[&str], server: &[String]) -> Proxy {
        let options = [&["--listen", &self.address], options].concat();
        Proxy::start_listening(&options, server, |_| {})
    }

    fn connect(&self) -> Client {
        Client::connect_unix(&self.path)
    }

    #[track_caller]
    fn assert_served(&self) {
        let mut client = self.connect();
        client.send_line("[1]");
        assert_eq!(client.recv_line(), "[1]");
    }

    #[track_caller]
    fn refused(&self) -> String {
        refused(&["--listen", &self.address], 1)
    }

    fn mode(&self) -> u32 {
        fs::metadata(&self.path).unwrap().permissions().mode() & 0o7777
    }
}

/// Whose process this is.
fn uid() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

#[track_caller]
fn stop(mut proxy: Proxy) {
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait_exit(DEADLINE).success());
}

#[test]
fn a_socket_is_for_its_user_unless_more_is_wanted_whatever_the_umask() {
    for (umask, options, mode) in [
        ("000", &[][..], 0o600),
        ("077", &[], 0o600),
        ("077", &["--unix-mode=0660"], 0o660),
        ("022", &["--unix-mode", "666"], 0o666),
    ] {
        let place = Place::new();
        let options = [&["--listen", &place.address], options].concat();
        let umask = format!("umask {umask}");
        let proxy = Proxy::start_listening(&options, &servers::mirror(), |command| {
            in_shell(&umask, command);
        });
        assert_eq!(place.mode(), mode);
        place.assert_served();
        drop(proxy);
    }
}

#[test]
fn servers_inherit_the_umask_as_it_was() {
    let place = Place::new();
    let server = servers::sh(r#"printf '["%s"]\n' "$(umask)"; exec cat"#);
    let options = ["--listen", &place.address];
    let _proxy = Proxy::start_listening(&options, &server, |command| {
        in_shell("umask 027", command);
    });
    assert_eq!(place.connect().recv_json(), json!(["0027"]));
}

#[test]
fn the_log_says_who_connects() {
    let place = Place::new();
    let proxy = place.start(&servers::mirror());
    let _client = place.connect();
    let label = format!(
        "session 1 unix:uid={},pid={} pid ",
        uid(),
        std::process::id()
    );
    proxy.wait_for_log(&label);
}

#[test]
fn requests_pass_in_all_sizes_and_a_half_close_gets_its_answers() {
    let place = Place::new();
    let proxy = place.start(&servers::demo());
    let mut client = place.connect();
    client.initialize();
    for size in [0, 1000, 100_000, 3_000_000] {
        let text = "x".repeat(size);
        let result = client.call_tool("echo", &json!({"text": text}));
        assert_eq!(result["content"][0]["text"], text);
    }
    let id = client.send_request("ping", &json!({}));
    client.shutdown_write();
    assert_eq!(client.answer_to(id)["id"], id);
    assert_eq!(client.read_to_end(), Vec::<String>::new());
    proxy.wait_for_log("the client closed the connection");
    proxy.wait_until_childless();
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting_and_gets_everything() {
    const LINES: usize = 400;
    let place = Place::new();
    let script = format!(
        "text=$(printf '%010000d' 0); i=0; while [ $i -lt {LINES} ]; do echo \"[$i,\\\"$text\\\"]\"; i=$((i+1)); done; exec cat"
    );
    let _proxy = place.start(&servers::sh(&script));
    let mut slow = place.connect();
    let mut other = place.connect();
    other.send_line(r#"["other"]"#);
    for at in 0..LINES {
        assert_eq!(other.recv_json()[0], at);
    }
    assert_eq!(other.recv_json(), json!(["other"]));
    for at in 0..LINES {
        assert_eq!(slow.recv_json()[0], at);
    }
}

#[test]
fn a_client_that_is_gone_takes_its_server_along() {
    let place = Place::new();
    let proxy = place.start(&servers::mirror());
    let mut client = UnixStream::connect(&place.path).unwrap();
    client.write_all(b"[1]\n").unwrap();
    client.read_exact(&mut [0]).unwrap();
    // With something unread, the end is a reset.
    drop(client);
    proxy.wait_for_log(" closed: ");
    proxy.wait_until_childless();
}

#[test]
fn one_session_too_many_is_refused() {
    let place = Place::new();
    let proxy = place.start_with(&["--max-sessions=1"], &servers::mirror());
    let _first = place.connect();
    proxy.wait_for_log("] opened");
    let mut second = place.connect();
    second.recv_error(503, "session_limit");
    second.read_to_end();
}

#[test]
fn http_gets_its_400() {
    let place = Place::new();
    let proxy = place.start(&servers::mirror());
    let mut stream = UnixStream::connect(&place.path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    proxy.wait_for_log("the client speaks HTTP");
    let curl = Command::new("curl")
        .args([
            "-sS",
            "-w",
            "%{http_code}",
            "-o",
            "/dev/null",
            "--unix-socket",
        ])
        .arg(&place.path)
        .arg("http://localhost/")
        .output();
    match curl {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "400", "{output:?}"),
        Err(_) => eprintln!("skipped: there is no curl"),
    }
}

// The file.

#[test]
fn a_path_has_one_proxy_at_a_time() {
    let place = Place::new();
    let proxy = place.start(&servers::mirror());
    let line = place.refused();
    assert!(
        line.contains("another mcp-tcp-proxy listens there"),
        "{line}"
    );
    // Not even its file has to be there.
    fs::remove_file(&place.path).unwrap();
    place.refused();
    drop(proxy);
    let _next = place.start(&servers::mirror());
    place.assert_served();
}

#[test]
fn a_socket_of_a_proxy_that_was_killed_is_replaced() {
    let place = Place::new();
    let mut proxy = place.start(&servers::mirror());
    proxy.signal(Signal::SIGKILL);
    proxy.wait_exit(DEADLINE);
    let refused = UnixStream::connect(&place.path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let _next = place.start(&servers::mirror());
    place.assert_served();
}

#[test]
fn the_file_is_removed_at_the_end_and_the_path_is_free_as_soon_as_nobody_is_let_in() {
    let place = Place::new();
    let go = place.folder.path().join("go");
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let server = servers::sh(&format!(
        "read -r line; echo '[0]'; until [ -e {} ]; do sleep 0.02; done; echo '{answer}'; exec cat",
        go.display()
    ));
    let mut first = place.start(&server);
    let mut client = place.connect();
    client.send_request("ping", &json!({}));
    assert_eq!(client.recv_line(), "[0]");
    first.signal(Signal::SIGTERM);
    eventually("the end of the file", DEADLINE, || !place.path.exists());
    let second = place.start(&servers::mirror());
    place.assert_served();
    fs::write(&go, "").unwrap();
    assert_eq!(client.recv_line(), answer);
    drop(client);
    assert!(first.wait_exit(DEADLINE).success());
    assert!(place.path.exists(), "it is the other's");
    stop(second);
    assert!(!place.path.exists());
    assert!(place.folder.path().join("mcp.sock.lock").exists());
}

#[test]
fn a_file_that_has_taken_the_place_is_not_removed() {
    let place = Place::new();
    let proxy = place.start(&servers::mirror());
    fs::remove_file(&place.path).unwrap();
    fs::write(&place.path, "mine").unwrap();
    stop(proxy);
    assert_eq!(fs::read(&place.path).unwrap(), b"mine");
    // Nor is another's socket.
    let place = Place::new();
    let proxy = place.start(&servers::mirror());
    fs::remove_file(&place.path).unwrap();
    let _other = UnixListener::bind(&place.path).unwrap();
    stop(proxy);
    assert!(UnixStream::connect(&place.path).is_ok());
}

#[test]
fn what_is_not_a_socket_is_not_replaced() {
    let place = Place::new();
    fs::write(&place.path, "mine").unwrap();
    let line = place.refused();
    assert!(
        line.contains(&place.address) && line.contains("not a socket"),
        "{line}"
    );
    assert_eq!(fs::read(&place.path).unwrap(), b"mine");
    fs::remove_file(&place.path).unwrap();
    fs::create_dir(&place.path).unwrap();
    assert!(place.refused().contains("not a socket"));
    fs::remove_dir(&place.path).unwrap();
    // Not even a link to a socket that nobody uses.
    let target = place.folder.path().join("target");
    drop(UnixListener::bind(&target).unwrap());
    std::os::unix::fs::symlink(&target, &place.path).unwrap();
    assert!(place.refused().contains("not a socket"));
    assert!(fs::metadata(&target).unwrap().file_type().is_socket());
}

#[test]
fn a_socket_of_another_program_is_not_replaced_even_if_it_is_busy() {
    let place = Place::new();
    let flags = SockFlag::SOCK_CLOEXEC;
    let busy = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    socket::bind(busy.as_raw_fd(), &UnixAddr::new(&place.path).unwrap()).unwrap();
    socket::listen(&busy, Backlog::new(0).unwrap()).unwrap();
    let line = place.refused();
    assert!(line.contains("another program listens there"), "{line}");
    // Now as many wait as may.
    let mut waiting = Vec::new();
    loop {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let next = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        match socket::connect(next.as_raw_fd(), &UnixAddr::new(&place.path).unwrap()) {
            Ok(()) => waiting.push(next),
            Err(error) => break assert_eq!(error, nix::errno::Errno::EAGAIN),
        }
    }
    assert!(place.refused().contains("another program listens there"));
    assert!(place.path.exists());
    fs::remove_file(&place.path).unwrap();
    let _datagrams = UnixDatagram::bind(&place.path).unwrap();
    assert!(place.refused().contains("another program listens there"));
}

#[test]
fn a_lock_that_can_not_be_had_is_named() {
    let place = Place::new();
    let lock = place.folder.path().join("mcp.sock.lock");
    std::os::unix::fs::symlink("/dev/null", &lock).unwrap();
    let line = place.refused();
    assert!(
        line.contains("mcp.sock.lock") && !place.path.exists(),
        "{line}"
    );
    fs::remove_file(&lock).unwrap();
    // Whoever holds it has it.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&lock)
        .unwrap();
    file.lock().unwrap();
    assert!(place.refused().contains("has locked"));
    // Not by closing it: another test may have a child that has not begun its program yet.
    file.unlock().unwrap();
    let _proxy = place.start(&servers::mirror());
    place.assert_served();
}

// connect

#[test]
fn connect_goes_through_a_unix_socket_and_comes_back_after_the_proxy_does() {
    let place = Place::new();
    let proxy = place.start(&servers::echo());
    let mut connect = Connect::start_to(&IN_HASTE, &place.address);
    connect.send_line(&initialize_line(0));
    assert_eq!(connect.recv_json()["id"], 0);
    let first = connect.request(1, "ping", &json!({}))["result"]["pid"].clone();
    stop(proxy);
    connect.wait_for_log("no proxy listens there, or it listens elsewhere");
    let _proxy = place.start(&servers::echo());
    let second = connect.request(2, "ping", &json!({}))["result"]["pid"].clone();
    assert_ne!(first, second);
    connect.end_input();
    connect.wait_exit(0);
}

#[test]
fn connect_says_why_nobody_is_there() {
    let place = Place::new();
    let ends = |expected: &str| {
        let options = ["--no-reconnect"];
        let mut connect = Connect::start_to(&options, &place.address);
        let log = connect.wait_exit(1).join("\n");
        assert!(
            log.contains(expected) && log.contains(&place.address),
            "{log}"
        );
    };
    ends("no proxy listens there");
    drop(UnixListener::bind(&place.path).unwrap());
    ends("nobody listens there any more");
    if uid() == 0 {
        return eprintln!("skipped: root may connect to anything");
    }
    let _proxy = place.start(&servers::mirror());
    fs::set_permissions(&place.path, Permissions::from_mode(0o400)).unwrap();
    ends("--unix-mode says who may connect");
}
