//! What a server gets from the proxy, and what it does not.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::processes::Process;
use crate::common::{Proxy, TempFolder, servers};

/// What a server says first.
#[track_caller]
fn told(proxy: &Proxy) -> Value {
    proxy.connect().recv_json()
}

#[test]
fn the_environment_is_inherited() {
    let script = r#"printf '["%s","%s","%s"]\n' "$MCP_TEST_WORD" "${MCP_TEST_EMPTY-unset}" "${MCP_TEST_UNSET-unset}"; exec cat"#;
    let proxy = Proxy::start_configured(&[], &servers::sh(script), |command| {
        command
            .env("MCP_TEST_WORD", "a=b c é")
            .env("MCP_TEST_EMPTY", "")
            .env_remove("MCP_TEST_UNSET");
    });
    assert_eq!(told(&proxy), serde_json::json!(["a=b c é", "", "unset"]));
}

#[test]
fn the_working_directory_is_inherited() {
    let folder = TempFolder::new();
    let proxy = Proxy::start_configured(
        &[],
        &servers::sh(r#"printf '["%s"]\n' "$(pwd -P)"; exec cat"#),
        |command| {
            command.current_dir(folder.path());
        },
    );
    let told = told(&proxy);
    let expected = folder.path().canonicalize().unwrap();
    assert_eq!(Path::new(told[0].as_str().unwrap()), expected);
}

#[test]
fn a_command_is_found_from_the_working_directory() {
    let folder = TempFolder::new();
    std::os::unix::fs::symlink("/bin/cat", folder.path().join("server")).unwrap();
    let proxy = Proxy::start_configured(&[], &["./server".to_owned()], |command| {
        command.current_dir(folder.path());
    });
    let mut client = proxy.connect();
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
}

#[test]
fn a_server_leads_a_process_group_of_its_own() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let clients = [proxy.connect(), proxy.connect()];
    proxy.wait_for_logs("] opened", clients.len());
    let own = Process::find(proxy.pid()).unwrap();
    let servers = proxy.servers();
    assert_eq!(servers.len(), clients.len());
    for server in servers {
        let process = Process::find(server).unwrap();
        assert_eq!(process.group, server);
        assert_ne!(process.group, own.group);
    }
}

/// Tells the signal masks and the limits on open files of the server. Builtins of the shell only: every program in
/// between might change what it passes on.
const TELL_STATE: &str = r#"while read -r name value; do
    case $name in SigBlk: | SigIgn:) printf '{"%s":"%s"}\n' "$name" "$value" ;; esac
done </proc/$$/status
printf '{"soft":"%s","hard":"%s"}\n' "$(ulimit -S -n)" "$(ulimit -H -n)"
exec cat"#;

fn state(proxy: &Proxy) -> (u64, u64, Value) {
    let mut client = proxy.connect();
    let mask =
        |line: &Value, name: &str| u64::from_str_radix(line[name].as_str().unwrap(), 16).unwrap();
    let blocked = mask(&client.recv_json(), "SigBlk:");
    let ignored = mask(&client.recv_json(), "SigIgn:");
    (blocked, ignored, client.recv_json())
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as u32 - 1)
}

#[test]
fn no_signal_is_blocked_and_sigpipe_is_not_ignored() {
    let proxy = Proxy::start(&[], &servers::sh(TELL_STATE));
    let (blocked, ignored, _) = state(&proxy);
    assert_eq!(blocked, 0);
    assert_eq!(ignored & bit(Signal::SIGPIPE), 0);
}

/// What nohup(1) and the shell's `&` have a command ignore is meant for all that belongs to it. All else, a server would
/// not expect: one that ignores SIGCHLD can't wait for its children, one that ignores SIGTERM has to be killed.
#[test]
fn ignored_signals_are_those_that_were_meant_for_servers_too() {
    let server = servers::sh(TELL_STATE);
    let (_, plain, _) = state(&Proxy::start_under(
        &["/bin/sh", "-c", r#"exec "$@""#, "sh"],
        &[],
        &server,
    ));
    // Not every other shell has SIGCHLD ignored.
    let trap = r#"trap '' HUP INT QUIT ABRT ALRM CHLD CONT IO PIPE PROF PWR TERM TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ 35 64; exec "$@""#;
    let (blocked, ignored, _) = state(&Proxy::start_under(
        &["bash", "-c", trap, "bash"],
        &[],
        &server,
    ));
    let kept = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT].map(bit);
    assert_eq!(ignored, plain | kept[0] | kept[1] | kept[2]);
    assert_eq!(blocked, 0);
}

#[test]
fn the_limit_on_open_files_is_the_one_that_the_proxy_was_started_with() {
    let lower = r#"ulimit -S -n 200; exec "$@""#;
    let proxy = Proxy::start_under(
        &["/bin/sh", "-c", lower, "sh"],
        &[],
        &servers::sh(TELL_STATE),
    );
    let hard = Command::new("/bin/sh")
        .args(["-c", "ulimit -H -n"])
        .output()
        .unwrap();
    let hard = String::from_utf8(hard.stdout).unwrap();
    let (_, _, limits) = state(&proxy);
    assert_eq!(
        limits,
        serde_json::json!({"soft": "200", "hard": hard.trim()})
    );
    // The proxy itself goes up to the hard limit.
    let own = std::fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).unwrap();
    let line = own
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let mut words = line.split_ascii_whitespace().skip(3);
    let (soft, hard) = (words.next(), words.next());
    assert_eq!(soft, hard, "{line}");
}

#[test]
fn a_server_gets_no_descriptor_of_the_proxy_s() {
    let script = r#"for fd in /proc/$$/fd/*; do list="$list\"${fd##*/}\","; done; printf '[%s"end"]\n' "$list"; exec cat"#;
    // What this test was started with is open in its children, and in the proxy's.
    let plain = Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let plain: Value = serde_json::from_slice(&plain.stdout).unwrap();
    let proxy = Proxy::start(&[], &servers::sh(script));
    let others = [proxy.connect(), proxy.connect()];
    proxy.wait_for_logs("] opened", others.len());
    assert_eq!(told(&proxy), plain);
}
