//! Everything that stdin and stdout can be, and that it is left as it was found.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::termios::{LocalFlags, OutputFlags, SetArg, tcgetattr, tcsetattr};
use serde_json::json;

use crate::common::connect::{BYE, Output, request};
use crate::common::{Connect, DEADLINE, FakeServer, TempFolder};

#[track_caller]
fn assert_blocks(descriptor: &impl AsFd) {
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL).unwrap());
    assert!(!flags.contains(OFlag::O_NONBLOCK), "O_NONBLOCK was left on");
}

#[test]
fn pipes() {
    let server = FakeServer::start();
    let (stdin, mut input): (PipeReader, PipeWriter) = std::io::pipe().unwrap();
    let (output, stdout) = std::io::pipe().unwrap();
    let ours = (stdin.try_clone().unwrap(), stdout.try_clone().unwrap());
    let mut connect = Connect::start_configured(&[], server.address(), |command| {
        command.stdin(stdin).stdout(stdout);
    });
    let mut peer = server.greeted();
    input.write_all(b"{\"method\":\"in\"}\n").unwrap();
    assert_eq!(peer.recv_line(), r#"{"method":"in"}"#);
    peer.send_line(r#"{"method":"out"}"#);
    let mut output = Output::new(output);
    assert_eq!(output.next_line(DEADLINE).unwrap(), r#"{"method":"out"}"#);
    assert_blocks(&ours.0);
    assert_blocks(&ours.1);
    drop(input);
    peer.close();
    connect.wait_exit(0);
    assert_blocks(&ours.0);
    assert_blocks(&ours.1);
}

#[test]
fn sockets() {
    let server = FakeServer::start();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let also = theirs.try_clone().unwrap();
    let watched = theirs.try_clone().unwrap();
    let mut connect = Connect::start_configured(&[], server.address(), |command| {
        command
            .stdin(OwnedFd::from(theirs))
            .stdout(OwnedFd::from(also));
    });
    let mut peer = server.greeted();
    ours.write_all(b"{\"method\":\"in\"}\n").unwrap();
    assert_eq!(peer.recv_line(), r#"{"method":"in"}"#);
    peer.send_line(r#"{"method":"out"}"#);
    let mut output = Output::new(ours.try_clone().unwrap());
    assert_eq!(output.next_line(DEADLINE).unwrap(), r#"{"method":"out"}"#);
    assert_blocks(&watched);
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    peer.read_to_end();
    peer.send_line(r#"{"method":"later"}"#);
    assert_eq!(output.next_line(DEADLINE).unwrap(), r#"{"method":"later"}"#);
    peer.close();
    connect.wait_exit(0);
    assert_blocks(&watched);
}

/// Lines that are there before the program is, each in a message of its own: one event tells of all of them.
const MESSAGES: [&str; 3] = [
    r#"{"method":"one"}"#,
    r#"{"method":"two"}"#,
    r#"{"method":"three"}"#,
];

/// Starts `connect` with these, after all of [`MESSAGES`] were written to the first one, and has them arrive. Then it writes
/// a long line, and ends.
fn talk_in_messages(
    (stdin, mut input): (OwnedFd, impl Write),
    (output, stdout): (impl Read + AsFd, OwnedFd),
) {
    for line in MESSAGES {
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
    let server = FakeServer::start();
    let watched = (stdin.try_clone().unwrap(), stdout.try_clone().unwrap());
    let mut connect = Connect::start_configured(&[], server.address(), |command| {
        command.stdin(stdin).stdout(stdout);
    });
    let mut peer = server.greeted();
    for line in MESSAGES {
        assert_eq!(peer.recv_line(), line);
    }
    // More than fits a message, with more to follow.
    let long = format!(r#"{{"method":"{}"}}"#, "x".repeat(1 << 20));
    let next = r#"{"method":"next"}"#;
    peer.send_line(&long);
    peer.send_line(next);
    let mut output = Output::new(output);
    for line in [&long, next] {
        assert_eq!(output.next_line(DEADLINE).unwrap(), line);
    }
    assert_blocks(&watched.0);
    assert_blocks(&watched.1);
    // Several at once, while it waits for more.
    for line in MESSAGES {
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
    for line in MESSAGES {
        assert_eq!(peer.recv_line(), line);
    }
    connect.signal(Signal::SIGTERM);
    connect.wait_exit(0);
}

#[test]
fn pipes_of_packets() {
    let packets = || nix::unistd::pipe2(OFlag::O_DIRECT | OFlag::O_CLOEXEC).unwrap();
    let ((stdin, input), (output, stdout)) = (packets(), packets());
    talk_in_messages((stdin, File::from(input)), (File::from(output), stdout));
}

#[test]
fn sockets_of_messages() {
    for kind in [SockType::SeqPacket, SockType::Datagram] {
        let pair = || {
            let flags = SockFlag::SOCK_CLOEXEC;
            socketpair(AddressFamily::Unix, kind, None, flags).unwrap()
        };
        let ((stdin, input), (output, stdout)) = (pair(), pair());
        talk_in_messages((stdin, File::from(input)), (File::from(output), stdout));
    }
}

#[test]
fn a_message_that_is_longer_than_a_read_arrives_whole() {
    let server = FakeServer::start();
    let flags = SockFlag::SOCK_CLOEXEC;
    let (stdin, input) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    setsockopt(&input, sockopt::SndBuf, &(1 << 19)).unwrap();
    let long = format!(r#"{{"method":"{}"}}"#, "x".repeat(100 * 1024));
    File::from(input.try_clone().unwrap())
        .write_all(format!("{long}\n").as_bytes())
        .unwrap();
    let mut connect = Connect::start_configured(&[], server.address(), |command| {
        command.stdin(stdin);
    });
    let mut peer = server.greeted();
    assert_eq!(peer.recv_line(), long);
    // The end of a socket of messages with connections is an end, too.
    drop(input);
    peer.read_to_end();
    peer.close();
    connect.wait_exit(0);
}

#[test]
fn a_socket_of_messages_that_nobody_reads_any_more_is_an_end() {
    for kind in [SockType::SeqPacket, SockType::Datagram] {
        let server = FakeServer::start();
        let flags = SockFlag::SOCK_CLOEXEC;
        let (output, stdout) = socketpair(AddressFamily::Unix, kind, None, flags).unwrap();
        let mut connect = Connect::start_configured(&[], server.address(), |command| {
            command.stdout(stdout);
        });
        let peer = server.greeted();
        drop(output);
        // With datagrams, only a write tells; with others, it may be over before.
        let _ = peer.writer().write_all(b"{\"method\":\"m\"}\n");
        connect.wait_exit(0);
    }
}

/// Nothing is ever written: that nobody would read it is told by an event.
#[test]
fn a_socket_as_stdout_that_is_closed_is_an_end() {
    let server = FakeServer::start();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut connect = Connect::start_configured(&[], server.address(), |command| {
        command.stdout(OwnedFd::from(theirs));
    });
    let mut peer = server.greeted();
    drop(ours);
    assert_eq!(peer.read_to_end(), [BYE]);
    peer.close();
    assert_eq!(connect.wait_exit(0), [""; 0]);
}

/// Nobody can say anything by it: it is a mistake in how the program was started.
#[test]
fn a_folder_as_stdin_is_a_failure() {
    let server = FakeServer::start();
    let folder = TempFolder::new();
    let mut connect = Connect::start_configured(&[], server.address(), |command| {
        command.stdin(File::open(folder.path()).unwrap());
    });
    let log = connect.wait_exit(1);
    let last = log.last().unwrap();
    assert!(last.contains("Is a directory"), "{log:?}");
}

#[test]
fn files() {
    let server = FakeServer::start();
    let folder = TempFolder::new();
    let (from, to) = (folder.path().join("in"), folder.path().join("out"));
    // More than is read at once.
    let lines: Vec<String> = (1..=500)
        .map(|id| request(id, "m", &json!("x".repeat(1000))))
        .collect();
    std::fs::write(&from, lines.join("\n") + "\n").unwrap();
    let out = File::create(&to).unwrap();
    let mut connect = Connect::start_configured(&[], server.address(), |command| {
        command.stdin(File::open(&from).unwrap()).stdout(out);
    });
    let mut peer = server.greeted();
    let mut answers = String::new();
    for (id, line) in (1..).zip(&lines) {
        assert_eq!(&peer.recv_line(), line);
        let answer = format!(r#"{{"id":{id},"result":{{}}}}"#);
        peer.send_line(&answer);
        answers += &(answer + "\n");
    }
    assert_eq!(peer.read_to_end(), [""; 0]);
    peer.close();
    connect.wait_exit(0);
    assert_eq!(std::fs::read_to_string(&to).unwrap(), answers);
}

#[test]
fn the_null_device() {
    let server = FakeServer::start();
    let mut connect = Connect::start_configured(&[], server.address(), |command| {
        command
            .stdin(File::open("/dev/null").unwrap())
            .stdout(File::create("/dev/null").unwrap());
    });
    let mut peer = server.accept();
    peer.read_to_end();
    peer.send_line(r#"{"method":"into the void"}"#);
    peer.close();
    assert_eq!(connect.wait_exit(0), [""; 0]);
}

#[test]
fn a_full_disk_is_an_end_and_no_loop() {
    let server = FakeServer::start();
    let Ok(full) = File::create("/dev/full") else {
        eprintln!("skipped: there is no /dev/full here");
        return;
    };
    let mut connect = Connect::start_configured(&[], server.address(), |command| {
        command.stdout(full);
    });
    let mut peer = server.greeted();
    peer.send_line(r#"{"method":"m"}"#);
    peer.read_to_end();
    drop(peer);
    connect.wait_exit(1);
    connect.wait_for_log("No space left");
}

#[test]
fn a_terminal() {
    let server = FakeServer::start();
    let pty = openpty(None, None).unwrap();
    let mut settings = tcgetattr(&pty.slave).unwrap();
    // Lines as they are: neither repeated, nor with a carriage return.
    settings.local_flags.remove(LocalFlags::ECHO);
    settings.output_flags.remove(OutputFlags::OPOST);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &settings).unwrap();
    let before = tcgetattr(&pty.slave).unwrap();
    let (stdin, stdout) = (
        pty.slave.try_clone().unwrap(),
        pty.slave.try_clone().unwrap(),
    );
    let mut connect = Connect::start_configured(&[], server.address(), |command| {
        command.stdin(stdin).stdout(stdout);
    });
    let mut peer = server.greeted();
    let mut terminal = File::from(pty.master.try_clone().unwrap());
    // Several lines are read one by one.
    terminal
        .write_all(b"{\"method\":\"one\"}\n{\"method\":\"two\"}\n")
        .unwrap();
    assert_eq!(peer.recv_line(), r#"{"method":"one"}"#);
    assert_eq!(peer.recv_line(), r#"{"method":"two"}"#);
    // More than a terminal takes at once.
    let long = format!(r#"{{"method":"{}"}}"#, "x".repeat(100_000));
    peer.send_line(&long);
    let mut output = Output::new(File::from(pty.master));
    assert_eq!(output.next_line(DEADLINE).unwrap(), long);
    assert_blocks(&pty.slave);
    // The end of the input, as typed with the control key and D.
    terminal.write_all(&[4]).unwrap();
    assert_eq!(peer.read_to_end(), [""; 0]);
    peer.close();
    connect.wait_exit(0);
    assert_blocks(&pty.slave);
    assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
}

#[test]
fn closed_descriptors_are_an_end() {
    let server = FakeServer::start();
    let connect = env!("CARGO_BIN_EXE_mcp-tcp-proxy");
    let address = server.address().to_string();
    for redirection in ["<&-", ">&-", "<&- >&-"] {
        let mut connect = Connect::start_configured(&[], server.address(), |command| {
            *command = std::process::Command::new("/bin/sh");
            let script = format!("exec \"$0\" connect \"$1\" {redirection}");
            command.args(["-c", &script, connect, &address]);
        });
        // It may have ended before it was connected.
        crate::common::eventually("the end", DEADLINE, || {
            drop(server.try_accept());
            connect.has_ended()
        });
    }
}
