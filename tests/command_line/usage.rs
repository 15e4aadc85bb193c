//! Words that make sense, and words that don't.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::common::{Proxy, servers};
use crate::{run, run_configured};

const OPTIONS: [&str; 10] = [
    "--host",
    "--port",
    "--heartbeat-interval",
    "--auto-restart",
    "--no-auto-restart",
    "--debug",
    "--max-message-bytes",
    "--max-restarts",
    "--max-sessions",
    "--demo",
];

#[test]
fn help_is_on_stdout_and_names_everything() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["--bogus", "--help"],
        &["demo-server", "--help"],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}");
        assert_eq!(ended.stderr, "");
        for name in OPTIONS
            .into_iter()
            .chain(["--help", "--version", "demo-server"])
        {
            assert!(ended.stdout.contains(name), "{name}");
        }
        for default in ["0.0.0.0", "8080", "30", "10485760", "5"] {
            assert!(
                ended.stdout.contains(&format!("[default: {default}")),
                "{default}"
            );
        }
    }
}

#[test]
fn help_shows_every_subcommand_in_its_first_lines() {
    let help = run(&["--help"]).stdout;
    let first: Vec<&str> = help.lines().take(16).collect();
    for name in [
        "connect",
        "bench",
        "demo-server",
        "upgrade",
        "completions",
        "man-page",
    ] {
        let usage = format!("mcp-tcp-proxy {name}");
        assert!(first.iter().any(|line| line.contains(&usage)), "{first:#?}");
    }
}

#[test]
fn the_version_is_on_stdout() {
    for arguments in [&["--version"], &["-V"]] {
        let ended = run(arguments);
        assert_eq!(ended.status.code(), Some(0));
        assert_eq!(ended.stderr, "");
        assert_eq!(
            ended.stdout,
            concat!("mcp-tcp-proxy ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
}

/// Command lines, and what their error names.
const WRONG: &[(&[&str], &[&str])] = &[
    (&["--port", "99999", "cat"], &["--port", "99999", "65535"]),
    (&["--port", "-1", "cat"], &["--port", "-1"]),
    (&["--port", "http", "cat"], &["--port", "http"]),
    (&["--port=", "cat"], &["--port"]),
    (&["--port"], &["--port", "missing"]),
    (&["--port", "--debug", "cat"], &["--port", "missing"]),
    (&["--port", "--", "cat"], &["--port", "missing"]),
    (&["--host"], &["--host", "missing"]),
    (&["--host=", "cat"], &["--host"]),
    (&["--host", "a b", "cat"], &["--host", "a b"]),
    (
        &["--heartbeat-interval", "0", "cat"],
        &["--heartbeat-interval", "0.01", "86400"],
    ),
    (
        &["--heartbeat-interval", "0.009", "cat"],
        &["--heartbeat-interval", "0.009"],
    ),
    (
        &["--heartbeat-interval", "86401", "cat"],
        &["--heartbeat-interval", "86401"],
    ),
    (
        &["--heartbeat-interval", "NaN", "cat"],
        &["--heartbeat-interval", "NaN"],
    ),
    (
        &["--heartbeat-interval", "soon", "cat"],
        &["--heartbeat-interval", "soon"],
    ),
    (
        &["--max-message-bytes", "0", "cat"],
        &["--max-message-bytes", "0"],
    ),
    (
        &["--max-message-bytes", "1e6", "cat"],
        &["--max-message-bytes", "1e6"],
    ),
    (&["--max-restarts", "-1", "cat"], &["--max-restarts", "-1"]),
    (&["--max-sessions", "0", "cat"], &["--max-sessions", "0"]),
    (&["--bogus", "cat"], &["--bogus"]),
    (&["--bogus=1", "cat"], &["--bogus"]),
    (&["-x", "cat"], &["-x"]),
    // No abbreviations.
    (&["--heartbeat", "1", "cat"], &["--heartbeat"]),
    (&["--debug=1", "cat"], &["--debug", "1"]),
    (&[], &["no command"]),
    (&["--debug"], &["no command"]),
    (&["--port", "0", "--"], &["no command"]),
    (&["--demo", "cat"], &["--demo", "cat"]),
    (&["--demo", "--", "cat"], &["--demo", "cat"]),
    (&["demo-server", "extra"], &["demo-server", "extra"]),
    (&["completions"], &["completions", "bash, zsh or fish"]),
    (&["completions", "tcsh"], &["tcsh", "bash, zsh or fish"]),
    (&["man-page", "extra"], &["man-page", "extra"]),
    (&["help"], &["help", "--help", "-- help"]),
    (&["serve", "cat"], &["serve", "--help", "-- serve cat"]),
    (
        &["--debug", "connect", "x:1"],
        &["first", "mcp-tcp-proxy connect --debug x:1"],
    ),
    (&["--prot", "80", "cat"], &["--prot", "--port"]),
    (&["--bad\n\x1b[2Joption"], &["--bad"]),
    (&["--port", "1\n2", "cat"], &["--port"]),
];

#[test]
fn what_is_wrong_is_said_in_one_line() {
    for (arguments, said) in WRONG {
        let ended = run(arguments);
        let line = ended.one_line(2);
        for word in *said {
            assert!(line.contains(word), "{arguments:?}: {line}");
        }
    }
}

#[test]
fn an_option_that_is_not_utf8_is_an_error() {
    let ended = run_configured(|command| {
        command
            .arg("--host")
            .arg(OsStr::from_bytes(b"\xff"))
            .arg("cat");
    });
    assert!(ended.one_line(2).contains("--host"));
}

#[test]
fn values_may_be_words_of_their_own_or_attached() {
    for options in [
        &[
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--heartbeat-interval",
            "2.5",
            "--max-message-bytes",
            "77",
        ][..],
        &[
            "--host=127.0.0.1",
            "--port=0",
            "--heartbeat-interval=2.5",
            "--max-message-bytes=77",
        ],
    ] {
        let proxy = Proxy::start(options, &servers::mirror());
        proxy.wait_for_log("Heartbeat interval: 2.5s");
        let mut client = proxy.connect();
        client.send_line(&format!("[\"{}\"]", "x".repeat(100)));
        assert!(
            client
                .recv_line()
                .contains("the limit is 77 (--max-message-bytes)")
        );
    }
}

/// A server that tells its arguments, as the shell sees them.
const TELL_ARGUMENTS: &str =
    r#"for word; do list="$list[\"$word\"],"; done; printf '[%s[]]\n' "$list"; exec cat"#;

#[track_caller]
fn told_by(options: &[&str], server: &[String]) -> String {
    Proxy::start(options, server).connect().recv_line()
}

#[test]
fn what_is_behind_the_command_is_the_server_s() {
    let mut server = servers::sh(TELL_ARGUMENTS);
    let words = [
        "sh",
        "--debug",
        "--port",
        "x",
        "--help",
        "--",
        "--demo",
        "--host=::",
        "",
        "-V",
        "two words",
        "*",
    ];
    server.extend(words.map(str::to_owned));
    let expected = words[1..].iter().map(|word| format!("[\"{word}\"],"));
    let expected = format!("[{}[]]", expected.collect::<String>());
    // The harness puts `--` before the command; so it is untouched with it…
    assert_eq!(told_by(&[], &server), expected);
    // …and without it: the first `--` ends the options, and another would be the command.
    let proxy = Proxy::start_with_words(&["--debug", "--port=0", "--no-auto-restart"], &server);
    assert_eq!(proxy.connect().recv_line(), expected);
    proxy.wait_for_log("Auto-restart: disabled");
}

#[test]
fn the_server_s_debug_is_not_the_proxy_s() {
    let mut server = servers::sh(TELL_ARGUMENTS);
    server.extend(["sh", "--debug"].map(str::to_owned));
    let proxy = Proxy::start_with_words(&[], &server);
    assert_eq!(proxy.connect().recv_line(), r#"[["--debug"],[]]"#);
    assert!(!proxy.log().iter().any(|line| line.contains("DEBUG")));
}

/// Lines of the log that say whose an option after the command is.
fn hints(proxy: &Proxy) -> Vec<String> {
    let mut lines = proxy.log();
    lines.retain(|line| line.contains("options of the proxy go before the command"));
    lines
}

#[test]
fn options_of_the_proxy_after_the_command_are_hinted_at_in_the_log() {
    let mut server = servers::echo();
    server.extend(["--max-sessions", "3", "--spawn=lazy"].map(str::to_owned));
    let proxy = Proxy::start(&[], &server);
    let hints_of_both = hints(&proxy);
    assert_eq!(hints_of_both.len(), 1, "{:#?}", proxy.log());
    let hint = &hints_of_both[0];
    assert!(
        hint.contains("WARN") && hint.contains("--max-sessions after "),
        "{hint}"
    );
    // One that the proxy was given as well is the server's own beyond doubt.
    let proxy = Proxy::start(&["--max-sessions", "4", "--spawn", "eager"], &server);
    assert_eq!(hints(&proxy), [""; 0]);
    let proxy = Proxy::start(&[], &servers::echo());
    assert_eq!(hints(&proxy), [""; 0]);
}

#[test]
fn a_command_may_look_like_an_option_or_a_subcommand_behind_two_dashes() {
    let folder = crate::common::TempFolder::new();
    for name in ["--odd", "connect", "demo-server", "help", "serve"] {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink("/bin/cat", &path).unwrap();
        let proxy = Proxy::start_configured(&[], &[name.to_owned()], |command| {
            command.env("PATH", folder.path());
        });
        let mut client = proxy.connect();
        client.send_line(r#"{"method":"m"}"#);
        assert_eq!(client.recv_line(), r#"{"method":"m"}"#);
    }
}

#[test]
fn the_last_of_an_option_counts() {
    let proxy = Proxy::start(
        &[
            "--max-message-bytes=5",
            "--max-message-bytes",
            "1000",
            "--no-auto-restart",
            "--auto-restart",
        ],
        &servers::mirror(),
    );
    proxy.wait_for_log("Auto-restart: enabled");
    let mut client = proxy.connect();
    client.send_line(r#"{"method":"m"}"#);
    assert_eq!(client.recv_line(), r#"{"method":"m"}"#);
}

#[test]
fn the_demo_is_served() {
    let proxy = Proxy::start_with_words(&["--demo"], &[]);
    let mut client = proxy.connect();
    assert!(client.initialize()["serverInfo"]["name"].is_string());
    let sum = client.call_tool("add", &serde_json::json!({"a": 2, "b": 40}));
    assert_eq!(sum["content"][0]["text"], "42");
}

#[test]
fn restarts_are_as_many_as_wanted() {
    let proxy = Proxy::start(&["--max-restarts", "0"], &servers::sh("exit 3"));
    proxy.connect().read_to_end();
    let line = proxy.wait_for_log("closed: ");
    assert!(
        line.contains("--max-restarts") && line.contains("exit code 3"),
        "{line}"
    );
    let proxy = Proxy::start(&["--no-auto-restart"], &servers::sh("exit 4"));
    proxy.connect().read_to_end();
    let line = proxy.wait_for_log("closed: ");
    assert!(
        line.contains("auto-restart") && line.contains("exit code 4"),
        "{line}"
    );
}

#[test]
fn sessions_are_as_many_as_wanted() {
    let proxy = Proxy::start(&["--max-sessions", "1"], &servers::mirror());
    let first = proxy.connect();
    proxy.only_server();
    let lines = proxy.connect().read_to_end();
    assert_eq!(lines.len(), 1);
    let error: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(error["id"], serde_json::Value::Null);
    assert_eq!(error["error"]["code"], 503);
    assert_eq!(error["error"]["data"]["reason"], "session_limit");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("1 session ")
    );
    first.close();
}
