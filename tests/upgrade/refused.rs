//! Upgrades that do not come about: nothing has changed then, and the log has the reason.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::proxy::command_under_test;
use crate::common::{Client, DEADLINE, Proxy, Scratch, servers, write_program};
use crate::{generation, upgrade, upgrade_by_command};

pub(crate) const REFUSED: &str = "no upgrade to ";

/// A proxy that is to be followed by this program, and a client of it.
fn start(next: &str) -> (Proxy, Client) {
    let proxy = Proxy::start(&["--upgrade-from", next], &servers::mirror());
    let client = proxy.connect();
    (proxy, client)
}

#[track_caller]
pub(crate) fn assert_serves(client: &mut Client) {
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
}

/// A program in a file.
fn program(scratch: &Scratch, name: &str, text: &str) -> String {
    write_program(&scratch.file(name), format!("#!/bin/sh\n{text}\n"), 0o755)
}

/// The program under test.
fn own() -> String {
    command_under_test()
        .get_program()
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_program_that_says_that_it_can_not_go_on_does_not() {
    let scratch = Scratch::new();
    for (name, text, why) in [
        ("missing", None, "there is no such file"),
        ("false", Some("exit 1"), "it has ended without an answer"),
        (
            "killed",
            Some("kill -9 $$"),
            "it has ended without an answer",
        ),
        ("garbage", Some("exec cat"), "mcp-tcp-proxy state "),
        ("words", Some("echo no; echo able"), "no"),
        ("stderr", Some("echo 'too old' >&2; exit 3"), "too old"),
        ("able, not", Some("echo able; echo able"), "able"),
    ] {
        let path = scratch.file(name).to_str().unwrap().to_owned();
        if let Some(text) = text {
            program(&scratch, name, text);
        }
        let (proxy, mut client) = start(&path);
        assert_serves(&mut client);
        for round in 1..=2 {
            proxy.signal(Signal::SIGUSR2);
            let lines = proxy.wait_for_logs(REFUSED, round);
            let line = lines.last().unwrap();
            assert!(
                line.contains(why) && line.contains("nothing has changed"),
                "{name}: {line}"
            );
            assert_serves(&mut client);
            assert_eq!(generation(&proxy), 0);
        }
    }
}

#[test]
fn a_program_that_does_not_answer_is_killed() {
    let scratch = Scratch::new();
    let (mut proxy, mut client) = start(&program(&scratch, "hangs", "while :; do sleep 1; done"));
    proxy.signal(Signal::SIGUSR2);
    proxy.wait_for_log("asking ");
    assert_serves(&mut client);
    proxy.signal(Signal::SIGUSR2);
    proxy.wait_for_log("SIGUSR2 is ignored");
    let line = proxy.wait_for_log(REFUSED);
    assert!(line.contains("within 10 s"), "{line}");
    assert_serves(&mut client);
    client.close();
    proxy.wait_until_childless();
    // A stop wins.
    proxy.signal(Signal::SIGUSR2);
    proxy.wait_for_logs("asking ", 2);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn a_program_that_can_not_be_started_after_all_changes_nothing() {
    let scratch = Scratch::new();
    let next = program(&scratch, "gone", r#"cat > /dev/null; rm "$0"; echo able"#);
    let (proxy, mut client) = start(&next);
    proxy.signal(Signal::SIGUSR2);
    let line = proxy.wait_for_log(REFUSED);
    assert!(line.contains("can't be started"), "{line}");
    assert_serves(&mut client);
    assert_eq!(generation(&proxy), 0);
    // Its stdin, and what it needs for another attempt, are as they were.
    let next = scratch.file("gone");
    std::os::unix::fs::symlink(own(), &next).unwrap();
    upgrade(&proxy);
    assert_serves(&mut client);
}

#[test]
fn a_program_that_can_not_go_on_after_all_makes_way_for_the_one_before() {
    let scratch = Scratch::new();
    let text = format!(
        r#"case $1 in
rehearse-upgrade) cat > /dev/null; echo able ;;
*) shift 2; exec {} --generation 1 --no-such-option "$@" ;;
esac"#,
        own()
    );
    let (proxy, mut client) = start(&program(&scratch, "other", &text));
    assert_serves(&mut client);
    for round in 1..=2 {
        proxy.signal(Signal::SIGUSR2);
        proxy.wait_for_logs(crate::GOES_ON, round);
        assert_serves(&mut client);
        assert_eq!(generation(&proxy), 0);
        let mut new = proxy.connect();
        assert_serves(&mut new);
    }
    let log = proxy.log().join("\n");
    assert!(log.contains("--no-such-option"), "{log}");
}

#[test]
fn the_command_refuses_what_is_no_proxy() {
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = other.id().to_string();
    let output = upgrade_by_command(&[&pid]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("it was left alone"), "{said}");
    assert!(other.try_wait().unwrap().is_none(), "it lives");
    other.kill().unwrap();
    other.wait().unwrap();
    for words in [&[][..], &["x"], &["0"], &["-1"], &["1", "2"]] {
        assert_eq!(
            upgrade_by_command(words).status.code(),
            Some(2),
            "{words:?}"
        );
    }
}

#[test]
fn nobody_goes_on_where_nobody_was() {
    let output = command_under_test()
        .args(["--generation", "1", "cat"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--generation is for upgrades"), "{said}");
}

#[test]
fn where_the_next_program_lies_can_be_said_beside_a_configuration() {
    let scratch = Scratch::new();
    let next = scratch.file("current");
    std::os::unix::fs::symlink(own(), &next).unwrap();
    let next = next.to_str().unwrap();
    let text = r#"{"listen": "127.0.0.1:0", "mcpServers": {"one": {"command": "cat"}}}"#;
    scratch.write("servers.json", text);
    let config = scratch.file("servers.json");
    let options = ["--config", config.to_str().unwrap(), "--upgrade-from", next];
    let proxy = Proxy::start_with_config(&options, |_| {});
    let mut client = proxy.connect();
    assert_serves(&mut client);
    upgrade(&proxy);
    assert_serves(&mut client);
    // It is still asked for there.
    std::fs::remove_file(next).unwrap();
    program(&scratch, "current", "echo 'not yet'; exit 1");
    proxy.signal(Signal::SIGUSR2);
    let refused = proxy.wait_for_log(REFUSED);
    assert!(refused.contains(next), "{refused}");
    assert!(refused.ends_with("not yet"), "{refused}");
    assert_serves(&mut client);
}
