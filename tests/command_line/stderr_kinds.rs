//! Everything that stderr can be: the proxy serves on, and tells how many lines of its log were lost as soon as stderr
//! takes lines again.

use std::fs::{self, File};
use std::io::{PipeReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use nix::pty::openpty;
use nix::sys::termios::{FlowArg, tcflow};

use crate::Running;
use crate::common::log_stream::{
    LogStream, assert_whole_lines, is_nonblocking, lost_lines, set_nonblocking, terminal,
};
use crate::common::processes::{self, Stray};
use crate::common::proxy::{as_another_user, can_run_as_another_user, command_under_test};
use crate::common::{DEADLINE, TempFolder, eventually, eventually_some};
use crate::stderr_trouble::{
    assert_ends, assert_serves, assert_serves_and_ends, pid_of, start, start_configured,
};

/// What the proxy says when it tells of lost lines.
const LOST: &str = "log lines lost, as stderr did not take them: ";

/// Nobody reads the log while sessions are served, but after that. It then has to tell of lost lines, to be made of whole
/// ones, and to go on to its end.
#[track_caller]
fn assert_catches_up(proxy: Running, mut log: LogStream) {
    assert_serves(pid_of(&proxy.0));
    let text = log.read_until(LOST);
    assert!(lost_lines(&text) > 0, "{text}");
    assert_ends(proxy);
    let text = log.read();
    assert_whole_lines(&text);
    assert!(text.trim_end().ends_with("] stopped"), "{text}");
}

// Pipes.

fn pipe() -> (LogStream, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (LogStream::new(reader), writer.into())
}

#[test]
fn a_pipe_that_is_read_again() {
    let (log, stderr) = pipe();
    let ours = stderr.try_clone().unwrap();
    assert_catches_up(start(&[], stderr.into()), log);
    assert!(!is_nonblocking(&ours));
}

#[test]
fn a_nonblocking_pipe() {
    let (log, stderr) = pipe();
    set_nonblocking(&stderr);
    let ours = stderr.try_clone().unwrap();
    assert_catches_up(start(&[], stderr.into()), log);
    assert!(is_nonblocking(&ours));
}

/// It can't be opened anew, so it is polled before each write.
#[test]
fn a_pipe_of_another_user() {
    if can_run_as_another_user() {
        let (log, stderr) = pipe();
        assert_catches_up(start_as_another_user(stderr), log);
    }
}

fn start_as_another_user(stderr: OwnedFd) -> Running {
    start_configured(&[], |command| {
        as_another_user(command, 100);
        command.stderr(stderr);
    })
}

/// A pipe that is full of lines, and blocks whoever writes more.
fn full_pipe() -> (LogStream, OwnedFd) {
    let (log, writer) = pipe();
    let filler = File::options()
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(format!("/proc/self/fd/{}", writer.as_raw_fd()))
        .unwrap();
    while (&filler).write(b"full\n").is_ok() {}
    (log, writer)
}

#[test]
fn an_error_at_the_start_does_not_wait_for_a_reader() {
    let (mut log, stderr) = full_pipe();
    let mut command = command_under_test();
    command
        .args(["--port=0", "/no/such/program"])
        .stderr(stderr);
    let mut running = Running(command.spawn().unwrap());
    let status = eventually_some("the end", DEADLINE, || running.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(!log.read().contains("/no/such"));
}

#[test]
fn a_pipe_that_is_full_from_the_start() {
    let (mut log, stderr) = full_pipe();
    let proxy = start(&[], stderr.into());
    assert_serves(pid_of(&proxy.0));
    let text = log.read_until(LOST);
    assert!(text.lines().take_while(|line| *line == "full").count() > 500);
    assert_ends(proxy);
}

/// The end for reading, as it is left by `2<`: it is not written to, although it could be opened anew for that.
#[test]
fn the_wrong_end_of_a_pipe() {
    let (reader, writer): (PipeReader, _) = std::io::pipe().unwrap();
    let mut ours = LogStream::new(reader.try_clone().unwrap());
    let proxy = start(&[], reader.into());
    assert_serves(pid_of(&proxy.0));
    assert_eq!(ours.read(), "");
    assert_ends(proxy);
    drop(writer);
}

#[test]
fn the_pipe_that_is_stdout_too() {
    let (log, stderr) = pipe();
    let stdout = stderr.try_clone().unwrap();
    let proxy = start_configured(&[], |command| {
        command.stdout(stdout).stderr(stderr);
    });
    assert_catches_up(proxy, log);
}

// Sockets.

#[test]
fn a_socket_that_is_read_again() {
    let (ours, stderr) = UnixStream::pair().unwrap();
    let log = LogStream::new(ours);
    assert_catches_up(start(&[], OwnedFd::from(stderr).into()), log);
}

#[test]
fn a_datagram_socket_that_is_read_again() {
    let (ours, stderr) = UnixDatagram::pair().unwrap();
    let log = LogStream::new(OwnedFd::from(ours));
    assert_catches_up(start(&[], OwnedFd::from(stderr).into()), log);
}

#[test]
fn a_datagram_socket_without_a_peer() {
    let (ours, stderr) = UnixDatagram::pair().unwrap();
    drop(ours);
    assert_serves_and_ends(start(&[], OwnedFd::from(stderr).into()));
}

// Terminals.

#[test]
fn a_terminal_that_nobody_reads() {
    let (log, stderr) = terminal();
    let ours = stderr.try_clone().unwrap();
    assert_catches_up(start(&[], stderr.into()), log);
    assert!(!is_nonblocking(&ours));
}

#[test]
fn a_nonblocking_terminal() {
    let (log, stderr) = terminal();
    set_nonblocking(&stderr);
    assert_catches_up(start(&[], stderr.into()), log);
}

#[test]
fn a_terminal_of_another_user() {
    if can_run_as_another_user() {
        let (log, stderr) = terminal();
        assert_catches_up(start_as_another_user(stderr), log);
    }
}

/// As with the control key and S, until the control key and Q.
#[test]
fn a_stopped_terminal() {
    let (mut log, stderr) = terminal();
    let ours = stderr.try_clone().unwrap();
    tcflow(&ours, FlowArg::TCOOFF).unwrap();
    let proxy = start(&[], stderr.into());
    assert_serves(pid_of(&proxy.0));
    assert_eq!(log.read(), "");
    tcflow(&ours, FlowArg::TCOON).unwrap();
    assert_catches_up(proxy, log);
}

#[test]
fn a_terminal_that_is_gone() {
    let pty = openpty(None, None).unwrap();
    drop(pty.master);
    assert_serves_and_ends(start(&[], pty.slave.into()));
}

#[test]
fn a_terminal_for_everything() {
    let (log, terminal) = terminal();
    let clone = || terminal.try_clone().unwrap();
    let proxy = start_configured(&[], |command| {
        command.stdin(clone()).stdout(clone()).stderr(clone());
    });
    assert_catches_up(proxy, log);
}

/// A terminal that stops background jobs which write to it (`stty tostop`) does not stop the proxy.
#[test]
fn a_terminal_that_wants_no_output_of_background_jobs() {
    let can = Command::new("setsid").arg("--version").output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no setsid(1) here");
        return;
    }
    let (mut log, terminal) = terminal();
    let clone = || terminal.try_clone().unwrap();
    // A shell that leads a session on that terminal, and the proxy as its background job.
    let script = r#"stty tostop; set -m; "$@" 2>&0 & wait"#;
    let wrapper = ["setsid", "--ctty", "/bin/sh", "-c", script, "sh"];
    let shell = start_configured(&wrapper, |command| {
        command.stdin(clone()).stderr(Stdio::null());
    });
    let proxy = eventually_some("the proxy to listen", DEADLINE, || {
        let jobs = processes::children(pid_of(&shell.0));
        let mut pids = jobs.iter().map(|job| job.pid);
        pids.find(|pid| !processes::listening_ports(*pid).is_empty())
    });
    let _stray = Stray(proxy);
    log.read_until("listening on ");
    assert_serves(proxy);
    let text = log.read_until(LOST);
    assert_whole_lines(&text);
    processes::send_signal(proxy, nix::sys::signal::Signal::SIGTERM);
    processes::wait_until_dead(proxy);
}

// Files and devices.

/// Has a shell append the log to a file.
const APPEND: &str = r#"exec "$@" 2>>"$0""#;

#[test]
fn a_file_gets_every_line() {
    let folder = TempFolder::new();
    let path = folder.path().join("log");
    assert_serves_and_ends(start(&[], File::create(&path).unwrap().into()));
    assert_complete(&path);
}

#[test]
fn a_file_that_is_appended_to_gets_every_line() {
    let folder = TempFolder::new();
    let path = folder.path().join("log");
    let wrapper = ["/bin/sh", "-c", APPEND, path.to_str().unwrap()];
    assert_serves_and_ends(start(&wrapper, Stdio::null()));
    assert_complete(&path);
}

#[track_caller]
fn assert_complete(path: &Path) {
    let log = fs::read_to_string(path).unwrap();
    assert_whole_lines(&log);
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    // What clients sent, and a start and an end of the program.
    assert_eq!(count("client → server: ["), 5 * 200);
    assert_eq!((count("listening on "), count("stopped")), (1, 1));
    assert_eq!(lost_lines(&log), 0);
}

#[test]
fn the_null_device() {
    let null = File::options().write(true).open("/dev/null").unwrap();
    assert_serves_and_ends(start(&[], null.into()));
}

#[test]
fn what_can_only_be_read() {
    let folder = TempFolder::new();
    let path = folder.path().join("file");
    fs::write(&path, "untouched").unwrap();
    for path in [&path, Path::new("/dev/null"), folder.path()] {
        assert_serves_and_ends(start(&[], File::open(path).unwrap().into()));
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "untouched");
}

/// The limit is that of the shell's `ulimit -f`. The log begins anew when somebody empties the file.
#[test]
fn a_file_at_its_size_limit() {
    let folder = TempFolder::new();
    let path = folder.path().join("log");
    let script = format!("ulimit -f 32; {APPEND}");
    let wrapper = ["/bin/sh", "-c", &script, path.to_str().unwrap()];
    let proxy = start(&wrapper, Stdio::null());
    assert_serves(pid_of(&proxy.0));
    let full = fs::metadata(&path).unwrap().len();
    assert!(full > 0 && full.is_multiple_of(512), "{full} bytes");
    assert_begins_anew(proxy, &path);
}

/// Before anything is registered, the log is written to already.
#[test]
fn a_file_that_is_at_its_size_limit_from_the_start() {
    let folder = TempFolder::new();
    let path = folder.path().join("log");
    fs::write(&path, "x".repeat(10_000)).unwrap();
    let script = format!("ulimit -f 1; {APPEND}");
    let wrapper = ["/bin/sh", "-c", &script, path.to_str().unwrap()];
    let proxy = start(&wrapper, Stdio::null());
    assert_serves(pid_of(&proxy.0));
    assert_eq!(fs::metadata(&path).unwrap().len(), 10_000);
    assert_ends(proxy);
}

/// A file system of its own, which is as small as can be.
#[test]
fn a_full_disk_of_a_few_pages() {
    let can = Command::new("unshare")
        .args([
            "--mount",
            "/bin/sh",
            "-c",
            "mount -t tmpfs -o size=16k tmpfs /mnt",
        ])
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let folder = TempFolder::new();
    let path = folder.path().join("log");
    let script = format!(r#"mount -t tmpfs -o size=16k tmpfs "${{0%/log}}" && {APPEND}"#);
    let mut wrapper = vec!["unshare", "--mount", "/bin/sh", "-c", &script];
    wrapper.push(path.to_str().unwrap());
    let proxy = start(&wrapper, Stdio::null());
    assert_serves(pid_of(&proxy.0));
    // The file as the proxy sees it.
    let root = format!("/proc/{}/root", pid_of(&proxy.0));
    let path = Path::new(&root).join(path.strip_prefix("/").unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), 16 * 1024);
    assert_begins_anew(proxy, &path);
}

/// Once the file is emptied, the log tells of the lines that were lost before.
#[track_caller]
fn assert_begins_anew(proxy: Running, path: &Path) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(0)
        .unwrap();
    // The rest of a line that was cut may begin within a character.
    let read = || String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    eventually("the log to tell of lost lines", DEADLINE, || {
        lost_lines(&read()) > 0
    });
    let log = read();
    // What was left of the line that was being written.
    let (_, whole) = log.split_once('\n').unwrap();
    assert_whole_lines(if lost_lines(whole) > 0 { whole } else { &log });
    assert_ends(proxy);
}

// Descriptors that are not open.

#[test]
fn each_closed_descriptor_and_all_pairs() {
    for close in ["<&-", ">&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-"] {
        let script = format!(r#"exec "$@" {close}"#);
        let proxy = start(&["/bin/sh", "-c", &script, "sh"], Stdio::null());
        assert_serves_and_ends(proxy);
    }
}
