//! `mcp-tcp-proxy check`: what is wrong with a file, a line each, and whether its servers could be started.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use serde_json::json;

use crate::common::DEADLINE;
use crate::common::proxy::command_under_test;
use crate::{Config, anywhere};

/// What it says on stdout and stderr, and whether all is fine.
fn checked(config: &Config) -> (String, Vec<String>, Option<i32>) {
    let output = config.check();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let stderr = stderr.replace(&config.path(), "FILE");
    let lines = stderr.lines().map(str::to_owned);
    (stdout, lines.collect(), output.status.code())
}

#[test]
fn a_file_that_can_be_served_is_fine() {
    let servers = json!({"cat": {"command": "cat"}, "demo": {"demo": true}});
    let (stdout, stderr, code) = checked(&Config::of(&anywhere(), &servers));
    assert!(stdout.ends_with(": fine (cat, demo)\n"), "{stdout}");
    assert_eq!((stderr, code), (vec![], Some(0)));
}

#[test]
fn every_mistake_has_its_line() {
    let text = r#"{
  "listen": "127.0.0.1:0", "idel_timeout": 3,
  "mcpServers": {
    "a": {"command": "cat", "args": ["x", 1], "spawn": "warm"},
    "a": {"comand": "cat"},
    "b": {"command": "cat", "env": {"X": "${input:key}"}}
  }
}"#;
    let (stdout, stderr, code) = checked(&Config::new(text));
    assert_eq!((stdout.as_str(), code), ("", Some(1)));
    for (place, words) in [
        ("$.idel_timeout", "did you mean \"idleTimeout\"?"),
        ("$.mcpServers.a", "it stands there twice"),
        ("$.mcpServers.a.args[1]", "has to be a string (\"1\")"),
        (
            "$.mcpServers.a.spawn",
            "'warm' is not a start mode (eager or lazy)",
        ),
        ("$.mcpServers.a.comand", "did you mean \"command\"?"),
        ("$.mcpServers.b.env.X", "asks the user"),
    ] {
        let start = format!("mcp-tcp-proxy: FILE: {place}: ");
        let is_told = |line: &String| line.starts_with(&start) && line.contains(words);
        assert!(stderr.iter().any(is_told), "{place}: {stderr:?}");
    }
}

#[test]
fn syntax_errors_have_line_and_column() {
    for (text, place, way_out) in [
        (
            "{\n  // the time\n}",
            "line 2, column 3",
            "JSON has no comments",
        ),
        (
            "{\"mcpServers\": {},\n}",
            "line 2, column 1",
            "leave the comma out",
        ),
        ("{\"mcpServers\": {", "line 1, column 16", "not closed"),
        ("", "it is empty", "mcpServers"),
    ] {
        let (_, stderr, code) = checked(&Config::new(text));
        assert_eq!((stderr.len(), code), (1, Some(1)), "{stderr:?}");
        let start = format!("mcp-tcp-proxy: FILE: {place}");
        assert!(stderr[0].starts_with(&start), "{stderr:?}");
        assert!(stderr[0].contains(way_out), "{stderr:?}");
    }
}

#[test]
fn each_mistake_is_one_line_with_its_place_and_a_way_out_also_at_the_start() {
    let with = |keys: &str| format!(r#"{{"listen": "127.0.0.1:0", "mcpServers": {{{keys}}}}}"#);
    for (text, place, way_out) in [
        (
            with("/* none */"),
            "line 1, column 42",
            "JSON has no comments",
        ),
        (
            with(r#""a": {"command": "cat",}"#),
            "line 1, column 65",
            "leave the comma out",
        ),
        (
            with(r#""a": {"command": "cat"}, "a": {"command": "cat"}"#),
            "$.mcpServers.a",
            "leave out one",
        ),
        (
            with(r#""a": {"command": "cat", "maxSessions": "5"}"#),
            "$.mcpServers.a.maxSessions",
            "without quotes",
        ),
        (
            with(r#""a": {"command": "cat", "maxSession": 5}"#),
            "$.mcpServers.a.maxSession",
            "did you mean \"maxSessions\"?",
        ),
        (
            with(&" ".repeat(10 << 20)),
            "it has more than 1048576 bytes",
            "is it the right file?",
        ),
    ] {
        let config = Config::new(&text);
        let (_, checked, code) = checked(&config);
        assert_eq!((checked.len(), code), (1, Some(1)), "{checked:?}");
        assert!(
            checked[0].contains(&format!("FILE: {place}")),
            "{checked:?}"
        );
        assert!(checked[0].contains(way_out), "{checked:?}");
        let mut command = command_under_test();
        let started = command.args(["--config", &config.path()]).output().unwrap();
        let told = String::from_utf8(started.stderr).unwrap();
        assert_eq!(told.replace(&config.path(), "FILE").trim_end(), checked[0]);
        assert_eq!(started.status.code(), Some(1));
    }
}

#[test]
fn what_keeps_a_server_from_being_started_is_told() {
    let servers = json!({
        "fine": {"command": "cat"},
        "missing": {"command": "no-such-program", "args": ["a-secret"]},
        "nowhere": {"command": "cat", "cwd": "none"},
        "variable": {"command": "cat", "args": ["${NO_SUCH_VARIABLE}"]},
        "file": {"command": "cat", "envFile": "none.env"},
        "disabled": {"command": "no-such-program", "disabled": true},
    });
    let (_, stderr, code) = checked(&Config::of(&anywhere(), &servers));
    assert_eq!((stderr.len(), code), (4, Some(1)), "{stderr:?}");
    let told = stderr.join("\n");
    for words in [
        "missing: cannot run no-such-program: there is no such program in PATH",
        "nowhere: --cwd: ",
        "variable: $.mcpServers.variable.args[0]: the proxy has no variable NO_SUCH_VARIABLE",
        "file: cannot read ",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("a-secret"), "{told}");
}

#[test]
fn files_of_the_proxy_are_read_and_what_is_likely_wrong_is_a_warning() {
    let top = json!({"listen": "127.0.0.1:0", "tokenFile": "tokens"});
    let servers = json!({"a": {"command": "cat", "env": {"X": "y"}, "timeout": 3}, "web": {"url": "https://example.org"}});
    let config = Config::of(&top, &servers);
    let (_, stderr, code) = checked(&config);
    assert_eq!(code, Some(1));
    assert!(
        stderr.last().unwrap().contains("--token-file: cannot read"),
        "{stderr:?}"
    );
    fs::write(config.file("tokens"), "ann mtp_0123456789abcdef\n").unwrap();
    fs::set_permissions(config.file("tokens"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(config.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let (_, stderr, code) = checked(&config);
    assert_eq!((stderr.len(), code), (3, Some(0)), "{stderr:?}");
    let told = stderr.join("\n");
    for words in [
        "$.mcpServers.web: it is skipped",
        "mean nothing here: \"timeout\"",
        "others can read or change it",
    ] {
        assert!(told.contains(words), "{told}");
    }
    fs::set_permissions(config.path(), fs::Permissions::from_mode(0o640)).unwrap();
    let (_, stderr, _) = checked(&config);
    assert_eq!(stderr.len(), 2, "{stderr:?}");
}

#[test]
fn a_huge_file_is_refused_at_once() {
    let config = Config::new(&format!(
        "{{\"mcpServers\": {{\"a\": {{\"command\": \"{}\"}}}}}}",
        "x".repeat(10 << 20)
    ));
    let began = Instant::now();
    let (_, stderr, code) = checked(&config);
    assert!(began.elapsed() < DEADLINE);
    assert_eq!((stderr.len(), code), (1, Some(1)));
    assert!(
        stderr[0].contains("it has more than 1048576 bytes"),
        "{stderr:?}"
    );
}

#[test]
fn what_is_no_file_is_refused() {
    let mut command = command_under_test();
    let output = command.args(["check", "/dev/null"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("cannot read /dev/null: it is not a regular file"),
        "{told}"
    );
    assert_eq!(output.status.code(), Some(1));
    for (words, expected) in [
        (&["check"][..], "the file is missing"),
        (&["check", "a", "b"], "no more than a file"),
        (
            &["--config", "x", "cat"],
            "--config: takes the place of a command, and 'cat' starts a command",
        ),
        (
            &["--config", "x", "--demo"],
            "--config: takes the place of a command, and --demo is one",
        ),
    ] {
        let output = command_under_test().args(words).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(expected), "{told}");
        assert_eq!(output.status.code(), Some(2));
    }
}
