//! How a name becomes an address: in a process of its own, which nothing waits for.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use crate::common::connect::{IN_HASTE, in_shell, request};
use crate::common::processes::wait_until_dead;
use crate::common::{
    Connect, DEADLINE, FakeServer, TempFolder, eventually, eventually_some, processes,
};

/// Less than a look-up takes that comes to no end.
const PROMPTLY: Duration = Duration::from_secs(15);

/// A name that the resolver looks for in the file of aliases first (hostname(7)), as it has no dot.
const SLOW_NAME: &str = "mcp-tcp-proxy-slow-name:8080";

/// Words for a name that a look-up comes to no end with.
const OVERDUE: &str = "the name was not resolved within";

/// A resolver that hangs: the file of aliases is a FIFO into which nobody writes.
struct Hanging {
    fifo: PathBuf,
    _folder: TempFolder,
}

impl Hanging {
    fn new() -> Self {
        let folder = TempFolder::new();
        let fifo = folder.path().join("aliases");
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        Self {
            fifo,
            _folder: folder,
        }
    }

    /// Starts `connect` to a name with this resolver. `None`, with a note, if names are looked up otherwise here.
    fn connect(&self, options: &[&str]) -> Option<Stuck> {
        self.connect_configured(options, |_| {})
    }

    fn connect_configured(
        &self,
        options: &[&str],
        configure: impl FnOnce(&mut Command),
    ) -> Option<Stuck> {
        let connect = to_name(options, SLOW_NAME, |command| {
            configure(command);
            command.env("HOSTALIASES", &self.fifo);
        });
        let hangs = eventually_some("a look-up that hangs", DEADLINE, || {
            let failed = || connect.count_logs("no connection to") > 0;
            open_for_writing(&self.fifo)
                .map(Some)
                .or_else(|| failed().then_some(None))
        });
        let Some(writer) = hangs else {
            eprintln!("skipped: names are not looked up in the file that HOSTALIASES names here");
            return None;
        };
        let child = || {
            let children = processes::children(connect.pid());
            (children.len() == 1).then(|| children[0].pid)
        };
        let look_up = eventually_some("one look-up", DEADLINE, child);
        Some(Stuck {
            connect,
            look_up,
            _writer: writer,
        })
    }
}

/// Opens a FIFO once somebody wants to read it (fifo(7)).
fn open_for_writing(fifo: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(nix::libc::O_NONBLOCK);
    options.open(fifo).ok()
}

/// `connect` in the middle of a look-up.
struct Stuck {
    connect: Connect,
    look_up: i32,
    /// As long as it is open, the look-up waits for what is written to it. It is dropped after `connect`.
    _writer: File,
}

impl Stuck {
    /// It has to end soon, without an error, and to leave nothing behind.
    #[track_caller]
    fn assert_ends(&mut self, since: Instant) {
        self.connect.wait_exit(0);
        assert!(since.elapsed() < PROMPTLY);
        // It is given a second to be reaped in.
        wait_until_dead(self.look_up);
    }
}

fn to_name(options: &[&str], name: &str, configure: impl FnOnce(&mut Command)) -> Connect {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    Connect::start_configured(options, nowhere, |command| {
        *command = Command::new(env!("CARGO_BIN_EXE_mcp-tcp-proxy"));
        command.arg("connect").args(options).arg(name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        configure(command);
    })
}

fn resolve(words: &[&str]) -> (Option<i32>, String, String) {
    crate::outcome(
        Command::new(env!("CARGO_BIN_EXE_mcp-tcp-proxy"))
            .arg("resolve")
            .args(words),
    )
}

#[test]
fn a_signal_does_not_wait_for_a_slow_resolver() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let hanging = Hanging::new();
        let Some(mut stuck) = hanging.connect(&[]) else {
            return;
        };
        let start = Instant::now();
        stuck.connect.signal(signal);
        stuck.assert_ends(start);
    }
}

#[test]
fn a_signal_has_what_waits_answered_although_the_resolver_is_slow() {
    let hanging = Hanging::new();
    let Some(mut stuck) = hanging.connect(&[]) else {
        return;
    };
    stuck.connect.send_request(1, "tools/call", &json!({}));
    let start = Instant::now();
    stuck.connect.signal(Signal::SIGTERM);
    assert_eq!(stuck.connect.recv_error(503, "shutdown").0, 1);
    stuck.assert_ends(start);
}

#[test]
fn the_end_of_stdin_does_not_wait_for_a_slow_resolver() {
    let hanging = Hanging::new();
    let Some(mut stuck) = hanging.connect(&[]) else {
        return;
    };
    let start = Instant::now();
    stuck.connect.end_input();
    stuck.assert_ends(start);
}

#[test]
fn a_closed_stdout_does_not_wait_for_a_slow_resolver() {
    let hanging = Hanging::new();
    let Some(mut stuck) = hanging.connect(&[]) else {
        return;
    };
    let start = Instant::now();
    stuck.connect.close_output();
    stuck.assert_ends(start);
}

/// More is taken from stdin than its pipe holds.
#[test]
fn stdin_is_read_while_the_resolver_is_slow() {
    let hanging = Hanging::new();
    let Some(mut stuck) = hanging.connect(&[]) else {
        return;
    };
    stuck
        .connect
        .send_line(&request(1, "m", &json!("x".repeat(1 << 20))));
    let start = Instant::now();
    stuck.connect.signal(Signal::SIGTERM);
    assert_eq!(stuck.connect.recv_error(503, "shutdown").0, 1);
    stuck.assert_ends(start);
}

#[test]
fn a_look_up_that_takes_too_long_is_a_failed_attempt_and_is_gone() {
    let hanging = Hanging::new();
    let options = [&IN_HASTE[..], &["--connect-timeout", "0.3"]].concat();
    let Some(mut stuck) = hanging.connect(&options) else {
        return;
    };
    // It is made again, and again.
    let logs = stuck.connect.wait_for_logs(OVERDUE, 3);
    assert!(logs[0].contains("0.3 s (--connect-timeout)"), "{logs:?}");
    let (first, connect) = (stuck.look_up, stuck.connect.pid());
    eventually("the first look-up to be gone", DEADLINE, || {
        !processes::process_exists(first)
    });
    eventually("one look-up at most", DEADLINE, || {
        processes::children(connect).len() <= 1
    });
    stuck.connect.end_input();
    stuck.connect.wait_exit(0);
}

/// Nobody else is left who could end it.
#[test]
fn a_look_up_does_not_outlive_a_killed_connect() {
    let hanging = Hanging::new();
    let Some(stuck) = hanging.connect(&[]) else {
        return;
    };
    stuck.connect.signal(Signal::SIGKILL);
    eventually("the end of the look-up", DEADLINE, || {
        let process = processes::Process::find(stuck.look_up);
        process.is_none_or(|process| process.is_zombie())
    });
}

/// Programs may be started with SIGCHLD ignored, and then nothing tells of the end of a child.
#[test]
fn look_ups_come_to_their_ends_where_sigchld_is_ignored() {
    let server = FakeServer::start();
    let name = format!("localhost:{}", server.address().port());
    let ignore = |command: &mut Command| in_shell("trap '' CHLD; exec \"$@\"", "sh", command);
    let mut connect = to_name(&IN_HASTE, &name, ignore);
    server.greeted().close();
    let _peer = server.greeted();
    connect.signal(Signal::SIGTERM);
    connect.wait_exit(0);
    let hanging = Hanging::new();
    let Some(mut stuck) = hanging.connect_configured(&[], ignore) else {
        return;
    };
    let start = Instant::now();
    stuck.connect.signal(Signal::SIGTERM);
    stuck.assert_ends(start);
}

/// A file that the resolver reads first is a FIFO, in a file system namespace of its own.
#[test]
fn what_is_sent_while_a_name_is_looked_up_is_delivered() {
    let folder = TempFolder::new();
    let fifo = folder.path().join("host.conf");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mount = "mount --bind \"$0\" /etc/host.conf && exec \"$@\"";
    let shell = |namespaces: &str, words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args([namespaces, "/bin/sh", "-c", mount]);
        command.arg(&fifo).args(words);
        command
    };
    // With a namespace of users, too, if that is needed.
    let can = |namespaces: &&str| {
        let output = shell(namespaces, &["true"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(namespaces) = ["-m", "-rm"].into_iter().find(can) else {
        eprintln!("skipped: /etc/host.conf can't be replaced in a namespace here");
        return;
    };
    let server = FakeServer::start();
    let name = format!("localhost:{}", server.address().port());
    let mut connect = to_name(&[], &name, |command| {
        let program = env!("CARGO_BIN_EXE_mcp-tcp-proxy");
        *command = shell(namespaces, &[program, "connect", &name]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    });
    let call = request(1, "tools/call", &json!({}));
    connect.send_line(&call);
    let writer = eventually_some("a look-up that waits", DEADLINE, || open_for_writing(&fifo));
    assert!(server.try_accept().is_none());
    drop(writer);
    let mut peer = server.greeted();
    assert_eq!(peer.recv_line(), call);
    peer.send_line(r#"{"id":1,"result":{}}"#);
    assert_eq!(connect.recv_line(), r#"{"id":1,"result":{}}"#);
    assert_eq!(connect.count_logs("no connection to"), 0);
}

#[test]
fn a_name_is_looked_up_for_each_connection_and_leaves_no_process() {
    let server = FakeServer::start();
    let name = format!("localhost:{}", server.address().port());
    let mut connect = to_name(&IN_HASTE, &name, |_| {});
    for _ in 0..3 {
        let peer = server.greeted();
        eventually("no look-up", DEADLINE, || {
            processes::children(connect.pid()).is_empty()
        });
        peer.close();
    }
    let _peer = server.greeted();
    connect.signal(Signal::SIGTERM);
    connect.wait_exit(0);
}

/// Programs are replaced while they run, and those that run go on.
#[test]
fn names_are_looked_up_although_the_file_of_the_program_is_gone() {
    // A link, as a copy can't be run while another test's process happens to have it open for writing.
    let name = format!("program-{}", std::process::id());
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_file(&program);
    fs::hard_link(env!("CARGO_BIN_EXE_mcp-tcp-proxy"), &program).unwrap();
    let server = FakeServer::start();
    let name = format!("localhost:{}", server.address().port());
    let mut connect = to_name(&IN_HASTE, &name, |command| {
        *command = Command::new(&program);
        command.arg("connect").args(IN_HASTE).arg(&name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    });
    let peer = server.greeted();
    fs::remove_file(&program).unwrap();
    peer.close();
    let mut peer = server.greeted();
    connect.send_line(r#"{"method":"m"}"#);
    assert_eq!(peer.recv_line(), r#"{"method":"m"}"#);
}

#[test]
fn a_name_that_there_is_not_is_said_and_tried_again_as_it_may_become_one() {
    let mut connect = to_name(&IN_HASTE, "no-such-host.invalid:1", |_| {});
    for line in connect.wait_for_logs("no connection to", 2) {
        let (_, reason) = line.split_once("no-such-host.invalid:1: ").unwrap();
        assert!(
            reason.starts_with("failed to lookup address information: "),
            "{line}"
        );
    }
    connect.end_input();
    connect.wait_exit(0);
}

#[test]
fn resolve_prints_an_address_a_line_or_why_there_is_none() {
    assert_eq!(
        resolve(&["127.0.0.1", "80"]),
        (Some(0), "127.0.0.1:80\n".to_owned(), String::new())
    );
    let (code, stdout, stderr) = resolve(&["localhost", "8080"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let addresses: Vec<SocketAddr> = stdout.lines().map(|line| line.parse().unwrap()).collect();
    assert!(!addresses.is_empty());
    for address in addresses {
        assert!(address.ip().is_loopback() && address.port() == 8080);
    }
    let (code, stdout, stderr) = resolve(&["no-such-host.invalid", "1"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("failed to lookup address information: "));
}
