//! A stderr that is closed, full, broken or not read harms nothing.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::Running;
use crate::common::proxy::command_under_test;
use crate::common::{Client, Footprint, eventually, eventually_some, processes};

/// Makes a session that logs plenty.
const NOISY_SERVER: &str = r#"awk 'BEGIN { for (i = 0; i < 3000; i++) print "noise", i }' >&2
awk 'BEGIN { for (i = 0; i < 3000; i++) print "noise", i }'
exec cat"#;

const DEADLINE: Duration = Duration::from_secs(20);

/// Starts the proxy on a free port, under `wrapper`, with this stderr. Its log can't be relied on.
pub(crate) fn start(wrapper: &[&str], stderr: Stdio) -> Running {
    start_configured(wrapper, |command| {
        command.stderr(stderr);
    })
}

/// Like [`start`]; `configure` has the last word.
pub(crate) fn start_configured(wrapper: &[&str], configure: impl FnOnce(&mut Command)) -> Running {
    let proxy = command_under_test();
    let mut words = wrapper.iter().map(std::ffi::OsStr::new);
    let mut command = match words.next() {
        Some(first) => {
            let mut command = Command::new(first);
            command
                .args(words)
                .arg(proxy.get_program())
                .args(proxy.get_args());
            command
        }
        None => proxy,
    };
    command
        .args([
            "--host=127.0.0.1",
            "--port=0",
            "--debug",
            "--traceable",
            "--",
            "/bin/sh",
            "-c",
        ])
        .arg(NOISY_SERVER)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    configure(&mut command);
    Running(command.spawn().unwrap())
}

pub(crate) fn pid_of(child: &Child) -> i32 {
    child.id().try_into().unwrap()
}

/// Serves some sessions, each of which is logged and has a server that makes noise, keeps nothing of them, and ends in
/// good order.
#[track_caller]
pub(crate) fn assert_serves_and_ends(proxy: Running) {
    assert_serves(pid_of(&proxy.0));
    assert_ends(proxy);
}

/// Serves some sessions, each of which is logged and has a server that makes noise, and keeps nothing of them.
#[track_caller]
pub(crate) fn assert_serves(pid: i32) {
    let port = eventually_some("the proxy to listen", DEADLINE, || {
        processes::listening_ports(pid).first().copied()
    });
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    // It listens before it has opened all that it needs.
    let mut first = Client::connect(address);
    first.wait_until_read();
    first.close();
    eventually("the first server to be gone", DEADLINE, || {
        processes::descendants(pid).is_empty()
    });
    let before = Footprint::of(pid);
    for _ in 0..5 {
        let mut client = Client::connect(address);
        for number in 0..200 {
            client.send_line(&format!("[{number}]"));
            assert_eq!(client.recv_line(), format!("[{number}]"));
        }
        client.close();
    }
    before.wait_until_restored();
}

/// Ends in good order.
#[track_caller]
pub(crate) fn assert_ends(mut proxy: Running) {
    processes::send_signal(pid_of(&proxy.0), Signal::SIGTERM);
    let status = eventually_some("the proxy's exit", DEADLINE, || proxy.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0), "{status}");
}

/// Reads the log until the proxy listens.
fn read_until_listening(stderr: ChildStderr) -> BufReader<ChildStderr> {
    let mut reader = BufReader::new(stderr);
    let mut line = String::new();
    while !line.contains("listening on ") {
        line.clear();
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the log ended");
    }
    reader
}

#[test]
fn a_closed_stderr() {
    assert_serves_and_ends(start(
        &["/bin/sh", "-c", r#"exec "$@" 2>&-"#, "sh"],
        Stdio::null(),
    ));
}

#[test]
fn everything_closed() {
    let close = r#"exec "$@" <&- >&- 2>&-"#;
    assert_serves_and_ends(start(&["/bin/sh", "-c", close, "sh"], Stdio::null()));
}

#[test]
fn a_full_disk() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_serves_and_ends(start(&[], full.into()));
}

#[test]
fn a_pipe_that_nobody_reads() {
    let mut proxy = start(&[], Stdio::piped());
    let unread = read_until_listening(proxy.0.stderr.take().unwrap());
    assert_serves_and_ends(proxy);
    drop(unread);
}

#[test]
fn a_pipe_without_a_reader() {
    let mut proxy = start(&[], Stdio::piped());
    drop(read_until_listening(proxy.0.stderr.take().unwrap()));
    assert_serves_and_ends(proxy);
}

#[test]
fn a_pipe_that_never_had_a_reader() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_serves_and_ends(start(&[], writer.into()));
}

#[test]
fn a_socket_that_nobody_reads() {
    let (unread, stderr) = UnixStream::pair().unwrap();
    assert_serves_and_ends(start(&[], Stdio::from(std::os::fd::OwnedFd::from(stderr))));
    drop(unread);
}

#[test]
fn a_socket_without_a_peer() {
    let (peer, stderr) = UnixStream::pair().unwrap();
    drop(peer);
    assert_serves_and_ends(start(&[], Stdio::from(std::os::fd::OwnedFd::from(stderr))));
}

#[test]
fn errors_are_told_by_the_exit_code_at_least() {
    for (words, code) in [
        (&["--bogus"][..], 2),
        (&["--port=0", "/no/such/program"], 1),
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = command_under_test();
        let mut running = Running(command.args(words).stderr(full).spawn().unwrap());
        let status = eventually_some("the end", DEADLINE, || running.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(code));
    }
}

#[test]
fn help_that_nobody_takes_is_an_error() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut running = Running(
        command_under_test()
            .arg("--help")
            .stdout(full)
            .spawn()
            .unwrap(),
    );
    let status = eventually_some("the end", DEADLINE, || running.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
}

#[test]
fn the_flags_of_a_shared_stderr_are_left_alone() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (reader, writer) = std::io::pipe().unwrap();
    let ours = writer.try_clone().unwrap();
    let proxy = start(&[], writer.into());
    let pid = pid_of(&proxy.0);
    eventually_some("the proxy to listen", DEADLINE, || {
        processes::listening_ports(pid).first().copied()
    });
    let flags = OFlag::from_bits_retain(fcntl(&ours, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK));
    drop(reader);
}
