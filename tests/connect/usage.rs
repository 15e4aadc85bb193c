//! The command line of `connect`.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::common::{Connect, FakeServer};

/// Runs `connect` with these words, as something that ends by itself; returns exit code, stdout and stderr.
fn run(words: &[&str]) -> (Option<i32>, String, String) {
    crate::outcome(
        Command::new(env!("CARGO_BIN_EXE_mcp-tcp-proxy"))
            .arg("connect")
            .args(words)
            .stdin(Stdio::null()),
    )
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_two() {
    for (words, complaint) in [
        (&[][..], "the address is missing"),
        (&["localhost:99999"], "99999"),
        (&["localhost:0"], "'0'"),
        (&["localhost", "http"], "'http'"),
        (&["localhost", "80", "--debug", "x"], "'x'"),
        (&["localhost:80", "--bogus"], "--bogus"),
        (&["99999"], "'99999'"),
        (&["http://localhost:80/mcp"], "localhost:80"),
        (&[":9000"], "localhost:9000"),
        (&["[::1"], "[::1]:8080"),
        (&["--port", "9000"], "mcp-tcp-proxy connect localhost:9000"),
        (&["--host", "x"], "mcp-tcp-proxy connect x:8080"),
        (&["--reconect-delay", "1", "localhost"], "--reconnect-delay"),
        (&["--no-such-option", "localhost"], "--no-such-option"),
        (&["--port", "80", "localhost"], "--port"),
        (
            &["--heartbeat-interval", "0", "localhost"],
            "--heartbeat-interval",
        ),
        (
            &["--heartbeat-interval", "nan", "localhost"],
            "--heartbeat-interval",
        ),
        (
            &["--reconnect-delay", "-1", "localhost"],
            "--reconnect-delay",
        ),
        (
            &["--max-reconnect-attempts", "1.5", "localhost"],
            "--max-reconnect-attempts",
        ),
        (
            &["--connect-timeout", "x", "localhost"],
            "--connect-timeout",
        ),
        (
            &["--max-message-bytes", "0", "localhost"],
            "--max-message-bytes",
        ),
        (&["--no-reconnect=yes", "localhost"], "--no-reconnect"),
        (&["--connect-timeout"], "--connect-timeout"),
    ] {
        let (code, stdout, stderr) = run(words);
        assert_eq!(code, Some(2), "{words:?}: {stderr}");
        assert_eq!(stdout, "", "{words:?}");
        assert!(stderr.contains(complaint), "{words:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{words:?}: {stderr}");
    }
}

#[test]
fn help_names_every_option() {
    let (code, stdout, stderr) = run(&["--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for option in [
        "--heartbeat-interval",
        "--reconnect-delay",
        "--max-reconnect-attempts",
        "--no-reconnect",
        "--connect-timeout",
        "--max-message-bytes",
        "--debug",
        "--help",
    ] {
        assert!(stdout.contains(option), "{option} is missing:\n{stdout}");
    }
}

#[test]
fn an_address_can_be_written_in_several_ways() {
    let server = FakeServer::start();
    let port = server.address().port().to_string();
    let address = server.address();
    for words in [
        vec!["localhost".to_owned(), port.clone()],
        vec![format!("localhost:{port}")],
        vec!["127.0.0.1".to_owned(), port.clone()],
        vec![port.clone()],
        vec![
            format!("127.0.0.1:{port}"),
            "--debug".to_owned(),
            "--connect-timeout".to_owned(),
            "5".to_owned(),
        ],
    ] {
        let connect = Connect::start_configured(&[], address, |command| {
            *command = Command::new(env!("CARGO_BIN_EXE_mcp-tcp-proxy"));
            command.arg("connect").args(&words);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        });
        server.greeted();
        connect.signal(Signal::SIGTERM);
    }
}

#[test]
fn an_ipv6_address_stands_in_brackets() {
    let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else {
        eprintln!("skipped: there is no IPv6 here");
        return;
    };
    drop(listener);
    let server = FakeServer::on("[::1]:0".parse().unwrap());
    let _connect = Connect::start(&[], server.address());
    server.greeted();
}

#[test]
fn a_name_that_is_none_is_a_failure_without_further_attempts() {
    let nowhere = ([127, 0, 0, 1], 1).into();
    let mut connect = Connect::start_configured(&[], nowhere, |command| {
        *command = Command::new(env!("CARGO_BIN_EXE_mcp-tcp-proxy"));
        command.args(["connect", "--no-reconnect", "no-such-host.invalid:1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
    });
    let log = connect.wait_exit(1);
    let reason = "failed to lookup address information";
    for line in &log {
        assert!(
            line.contains("no-such-host.invalid") && line.contains(reason),
            "{log:?}"
        );
    }
    assert!(!log.is_empty());
}
