//! What the log says at the start, about each session, and with `--debug`.

use std::process::Stdio;
use std::sync::Arc;

use serde_json::json;

use crate::Running;
use crate::common::proxy::{Log, command_under_test, in_shell};
use crate::common::{Client, DEADLINE, Proxy, eventually_some, processes, servers};
use crate::stderr_trouble::{assert_ends, pid_of};

/// The log's lines from the one that says `text` on, waiting for that.
fn position(log: &[String], text: &str) -> usize {
    log.iter()
        .position(|line| line.contains(text))
        .unwrap_or_else(|| panic!("no line says {text:?}: {log:#?}"))
}

#[test]
fn the_start_is_described() {
    let proxy = Proxy::start(
        &["--heartbeat-interval", "7.5", "--no-auto-restart"],
        &servers::sh("exec cat"),
    );
    proxy.wait_for_log(&format!("listening on {}", proxy.address()));
    let log = proxy.log();
    for text in [
        "MCP command: /bin/sh and 2 arguments",
        "Heartbeat interval: 7.5s",
        "Auto-restart: disabled",
    ] {
        // Before the address: who waits for that line has seen all.
        assert!(position(&log, text) < position(&log, "listening on "));
    }
    assert!(log.iter().all(|line| line.contains(" INFO ")), "{log:#?}");
}

/// They hold secrets: keys, addresses with passwords.
#[test]
fn arguments_of_the_server_are_for_debug_alone() {
    let server = servers::sh("exec cat # --token=$SECRET it's");
    let proxy = Proxy::start(&[], &server);
    proxy.wait_for_log("listening on ");
    assert!(!proxy.log().iter().any(|line| line.contains("SECRET")));
    let proxy = Proxy::start(&["--debug"], &server);
    let line = proxy.wait_for_log("SECRET");
    assert!(line.contains(" DEBUG "), "{line}");
    let shown = r"/bin/sh -c 'exec cat # --token=$SECRET it'\''s'";
    assert!(line.ends_with(shown), "{line}");
    for (words, shown) in [(1, "cat"), (2, "cat and 1 argument")] {
        let words: Vec<String> = ["cat", "-"].map(str::to_owned)[..words].to_vec();
        let line = Proxy::start(&[], &words).wait_for_log("MCP command: ");
        assert!(line.ends_with(&format!("MCP command: {shown}")), "{line}");
    }
}

#[test]
fn defaults_are_described_too() {
    let proxy = Proxy::start(&[], &servers::mirror());
    proxy.wait_for_log("Heartbeat interval: 30s");
    proxy.wait_for_log("Auto-restart: enabled");
}

#[test]
fn an_address_that_others_can_reach_is_warned_of() {
    let reachable = Proxy::start(&["--host", "0.0.0.0"], &servers::mirror());
    let line = reachable.wait_for_log("WARN");
    assert!(line.contains("anyone"), "{line}");
    let port = reachable.address().port();
    assert!(line.contains(&format!("0.0.0.0:{port}")), "{line}");
    for host in ["127.0.0.1", "127.1.2.3", "localhost"] {
        let proxy = Proxy::start(&["--host", host], &servers::mirror());
        // A session is the first thing that is logged after the start.
        let client = Client::connect((host, proxy.address().port()));
        proxy.wait_for_log("session 1 ");
        assert!(!proxy.log().iter().any(|line| line.contains("WARN")));
        client.close();
    }
}

#[test]
fn no_line_forges_another() {
    let proxy = Proxy::start(
        &["--debug"],
        &servers::sh("# a\n# 2026-01-01T00:00:00.000Z INFO  forged\x1b[2J\nexec cat"),
    );
    let line = proxy.wait_for_log("MCP command in full: ");
    assert!(
        line.contains(r"# a\n# 2026") && line.contains(r"\u{1b}[2J"),
        "{line}"
    );
}

#[test]
fn a_session_has_one_line_when_it_opens_and_one_when_it_closes() {
    let proxy = Proxy::start(&[], &servers::mirror());
    for session in 1..=3 {
        let mut client = proxy.connect();
        let peer = client.local_address();
        // 14 bytes, 5 bytes: 21 with their line ends. Control lines, blank lines and refused ones are no messages.
        client.send_raw(b"{\"method\":\"m\"}\r\n[1,2]\n{\"type\":\"heartbeat\"}\n\nx\n");
        for _ in 0..3 {
            client.recv_line();
        }
        client.shutdown_write();
        client.read_to_end();
        let closed = proxy.wait_for_logs("closed: ", session).pop().unwrap();
        let tag = format!("[session {session} {peer} ");
        assert!(
            closed.contains(" INFO ") && closed.contains(&tag),
            "{closed}"
        );
        assert!(
            closed.contains("the client closed the connection"),
            "{closed}"
        );
        let traffic = "2 messages (21 bytes) to the server, 2 messages (21 bytes) to the client";
        assert!(closed.contains(traffic), "{closed}");
        let seconds = closed.split(' ').zip(closed.split(' ').skip(1));
        let seconds = seconds
            .filter(|(_, unit)| *unit == "s,")
            .map(|(number, _)| number);
        let seconds: Vec<f64> = seconds.map(|number| number.parse().unwrap()).collect();
        assert!(seconds.len() == 1 && seconds[0] < 60.0, "{closed}");
        let log = proxy.log();
        for text in ["opened", "closed: "] {
            let lines = log
                .iter()
                .filter(|line| line.contains(&tag) && line.contains(text));
            assert_eq!(lines.count(), 1, "{log:#?}");
        }
    }
}

#[test]
fn session_lines_have_number_peer_and_pid() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let server = proxy.only_server();
    let tag = format!("[session 1 {} pid {server}]", client.local_address());
    proxy.wait_for_log(&tag);
    client.shutdown_write();
    client.read_to_end();
    proxy.wait_for_log("closed: ");
    for line in proxy.log() {
        let is_ours = line.contains(&format!("[session 1 {} ", client.local_address()));
        assert!(is_ours || !line.contains("session "), "{line}");
    }
}

#[test]
fn reasons_for_the_end_are_told_apart() {
    let close = |how: fn(Client)| {
        let proxy = Proxy::start(&[], &servers::mirror());
        let client = proxy.connect();
        proxy.only_server();
        how(client);
        proxy.wait_for_log("closed: ")
    };
    let line = close(Client::close);
    assert!(line.contains("the client closed the connection"), "{line}");
    let line = close(Client::reset);
    assert!(line.contains("broke"), "{line}");
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh("exit 7"));
    proxy.connect().read_to_end();
    let line = proxy.wait_for_log("closed: ");
    assert!(line.contains("exit code 7"), "{line}");
    let mut proxy = Proxy::start(&[], &servers::mirror());
    let client = proxy.connect();
    proxy.only_server();
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(crate::SHORT_RUN).code(), Some(0));
    let line = proxy.wait_for_log("closed: ");
    assert!(line.contains("shutting down"), "{line}");
    client.close();
}

#[test]
fn debug_shows_each_message_with_its_direction() {
    let proxy = Proxy::start(&["--debug"], &servers::echo());
    let mut client = proxy.connect();
    client.send_json(&json!({"method": "there"}));
    assert_eq!(client.recv_json()["method"], "saw");
    client.send_line("junk");
    client.recv_line();
    let peer = client.local_address();
    for text in [
        r#"client → server: {"method":"there"}"#,
        r#"server → client: {"jsonrpc":"2.0","method":"saw","params":{"method":"there"}}"#,
        r#"proxy → client: {"jsonrpc":"2.0","id":null,"error":{"code":-32700,"#,
    ] {
        let line = proxy.wait_for_log(text);
        assert!(line.contains(" DEBUG "), "{line}");
        // The first line may come before there is a server.
        assert!(line.contains(&format!("[session 1 {peer}")), "{line}");
    }
}

#[test]
fn debug_tells_what_goes_no_further() {
    let proxy = Proxy::start(&["--debug"], &servers::sh("echo banner; exec cat"));
    let mut client = proxy.connect();
    client.send_raw(b"junk\n{\"type\":\"heartbeat\"}\n[1]\n");
    client.recv_line();
    client.recv_line();
    for text in [
        "client → proxy: junk",
        r#"client → proxy: {"type":"heartbeat"}"#,
        "client → server: [1]",
        "server → client: [1]",
        "stdout: the line is not JSON: banner",
    ] {
        proxy.wait_for_log(text);
    }
    let log = proxy.log();
    let is_wrong = |line: &String| {
        let dropped = ["junk", "heartbeat\"", "banner"];
        line.contains(" → server: ") && dropped.iter().any(|text| line.ends_with(text))
            || line.ends_with("client: banner")
    };
    assert!(!log.iter().any(is_wrong), "{log:#?}");
}

#[test]
fn how_long_the_first_server_took_is_told_once() {
    let script = "while read line && [ \"$line\" = '[1]' ]; do echo \"$line\"; done; exit 1";
    let proxy = Proxy::start(&[], &servers::sh(script));
    let mut client = proxy.connect();
    for restarts in 0..2 {
        client.send_line("[1]");
        while client.recv_line() != "[1]" {}
        client.send_line("[2]");
        proxy.wait_for_logs("the server ended", restarts + 1);
    }
    let line = proxy.wait_for_log("first output of the server");
    assert!(
        line.contains(" INFO ") && line.contains("[session 1 "),
        "{line}"
    );
    assert!(line.ends_with(" s after its first input"), "{line}");
    proxy.wait_for_log("goes on with a new server");
    assert_eq!(
        proxy.wait_for_logs("first output of the server", 1).len(),
        1
    );
}

#[test]
fn the_limit_of_sessions_is_told_with_its_reason() {
    let proxy = Proxy::start(&["--max-sessions", "1"], &servers::mirror());
    proxy.wait_for_log("[proxy] Limit: 1 session (--max-sessions)");
    let proxy = Proxy::start_after("ulimit -n 328", &[], &servers::mirror());
    proxy.wait_for_log("[proxy] Limit: 50 sessions, as 328 descriptors are allowed (ulimit -Hn)");
}

#[test]
fn it_is_an_error_if_there_are_too_few_descriptors_for_one_session() {
    let ended = crate::run_configured(|command| {
        command.args(["--host=127.0.0.1", "--port=0", "--", "cat"]);
        in_shell("ulimit -n 15", command);
        command.stdout(Stdio::piped());
    });
    assert_eq!(ended.status.code(), Some(1));
    let line = ended.one_line(1);
    assert!(line.contains("cannot serve a single session"), "{line}");
}

#[test]
fn debug_cuts_messages_at_1_kib() {
    let proxy = Proxy::start(&["--debug"], &servers::mirror());
    let mut client = proxy.connect();
    let line = |letter: &str, bytes: usize| format!("[\"{}\"]", letter.repeat(bytes - 4));
    for (letter, bytes) in [("Q", 1024), ("J", 1025), ("X", 2_000_000)] {
        let mut writer = client.writer();
        let sent = line(letter, bytes) + "\n";
        let sender = std::thread::spawn(move || {
            std::io::Write::write_all(&mut writer, sent.as_bytes()).unwrap();
        });
        assert!(client.recv_line() == line(letter, bytes));
        sender.join().unwrap();
        for logged in proxy.wait_for_logs(&letter.repeat(20), 2) {
            let shown = logged.matches(letter).count();
            // Two bytes stand before the letters, and two behind, of which the cut may take some.
            let expected = (bytes - 4).min(1022);
            assert_eq!(shown, expected, "{logged}");
        }
    }
}

#[test]
fn messages_are_not_logged_without_debug() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    client.send_line(r#"{"method":"secret"}"#);
    client.recv_line();
    client.shutdown_write();
    client.read_to_end();
    proxy.wait_for_log("closed: ");
    assert!(!proxy.log().iter().any(|line| line.contains("secret")));
}

#[test]
fn each_line_says_what_it_is_about() {
    let proxy = Proxy::start(&["--debug", "--prespawn", "1"], &servers::mirror());
    let mut client = proxy.connect();
    client.send_line("[]");
    client.recv_line();
    let peer = client.local_address();
    client.shutdown_write();
    client.read_to_end();
    proxy.wait_for_log("closed: ");
    for line in proxy.log() {
        let (_, label) = line.split_once(" [").unwrap();
        let (label, text) = label.split_once("] ").unwrap();
        let is_about_session = label.starts_with(&format!("session 1 {peer}"));
        assert!(is_about_session || label == "proxy", "{line}");
        assert!(!text.contains("session 1"), "{line}");
    }
}

#[test]
fn at_the_level_of_warnings_a_crash_is_explained_and_nothing_else_is_said() {
    let server = servers::sh("echo \"reason $((40 + 2))\" >&2; read line; exit 3");
    let mut command = command_under_test();
    command.args(["--host=127.0.0.1", "--port=0", "--no-auto-restart"]);
    command
        .args(["--log-level", "warn", "--traceable", "--"])
        .args(server);
    let mut running = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let log = Arc::new(Log::default());
    Log::collect(&log, running.0.stderr.take().unwrap());
    let port = eventually_some("the proxy to listen", DEADLINE, || {
        processes::listening_ports(pid_of(&running.0))
            .first()
            .copied()
    });
    let mut client = Client::connect(("127.0.0.1", port));
    client.send_line("[]");
    client.read_to_end();
    assert_ends(running);
    let lines = log.to_end(DEADLINE);
    assert!(
        lines.iter().all(|line| line.contains(" WARN ")),
        "{lines:#?}"
    );
    let texts: Vec<&str> = lines
        .iter()
        .map(|line| line.split_once("] ").unwrap().1)
        .collect();
    let expected = [
        "the last of the output that was left out of the log, 1 line:",
        "stderr: reason 42",
        "the server ended (exit code 3)",
    ];
    assert_eq!(texts, expected);
}
