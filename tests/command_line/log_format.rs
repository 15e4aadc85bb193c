//! What lines of the log look like beside text: JSON, and what the journal of systemd reads.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::Stdio;

use nix::sys::stat::fstat;
use nix::unistd::pipe;
use serde_json::Value;

use crate::common::proxy::command_under_test;
use crate::common::{Proxy, servers};
use crate::{Running, run};

fn read(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn as_json_each_line_is_an_object_with_what_is_known_of_its_session() {
    let options = ["--log-format", "json", "--debug"];
    let script = r#"printf 'said "so"\n\033\n' >&2; exec cat"#;
    let proxy = Proxy::start(&options, &servers::sh(script));
    let mut client = proxy.connect();
    let server = proxy.only_server();
    proxy.wait_for_log("stderr: ");
    client.send_line(r#"{"method":"m"}"#);
    client.recv_line();
    let peer = client.local_address().to_string();
    client.shutdown_write();
    client.read_to_end();
    proxy.wait_for_log("closed: ");
    let lines: Vec<Value> = proxy.log().iter().map(|line| read(line)).collect();
    for line in &lines {
        let time = line["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{line}");
        let levels = ["info", "warn", "debug"];
        assert!(levels.contains(&line["level"].as_str().unwrap()), "{line}");
    }
    let find = |text: &str| {
        let has_it = |line: &&Value| line["message"].as_str().unwrap().contains(text);
        let line = lines.iter().find(has_it);
        line.unwrap_or_else(|| panic!("no line says {text:?}"))
    };
    let started = find("Starting TCP proxy");
    assert!(started.get("session").is_none() && started.get("target").is_none());
    for text in [
        "opened",
        r#"stderr: said "so""#,
        "client → server: ",
        "closed: ",
    ] {
        let line = find(text);
        assert_eq!(line["session"], 1, "{line}");
        assert_eq!(line["client"], peer.as_str(), "{line}");
        assert_eq!(line["pid"], server, "{line}");
    }
    assert_eq!(find("closed: ")["reason"], "client_ended");
    assert_eq!(find("\u{1b}")["message"], "stderr: \u{1b}");
    assert!(find("opened").get("reason").is_none());
}

#[test]
fn as_json_an_error_at_the_start_is_an_object_too() {
    let ended = run(&["--log-format=json", "--", "/no/such/server"]);
    let line = read(ended.one_line(1));
    assert_eq!(line["level"], "error");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("/no/such/server"), "{message}");
    let ended = run(&["--log-format=xml", "--", "cat"]);
    assert!(ended.one_line(2).contains("--log-format: 'xml' is not"));
}

/// Starts the proxy with a stderr that the journal reads if `is_journal`, and returns its first line.
fn first_line(options: &[&str], is_journal: bool) -> String {
    let (reader, writer) = pipe().unwrap();
    let stat = fstat(writer.as_fd()).unwrap();
    let inode = stat.st_ino + u64::from(!is_journal);
    let mut command = command_under_test();
    command
        .env("JOURNAL_STREAM", format!("{}:{inode}", stat.st_dev))
        .args(["--host=127.0.0.1", "--port=0", "--traceable"])
        .args(options)
        .args(["--", "cat"])
        .stderr(Stdio::from(writer));
    let running = Running(command.spawn().unwrap());
    drop(command);
    let mut line = String::new();
    BufReader::new(File::from(reader))
        .read_line(&mut line)
        .unwrap();
    drop(running);
    line
}

#[test]
fn in_the_journal_a_line_begins_with_its_level_and_has_no_time() {
    let line = first_line(&[], true);
    assert!(line.starts_with("<6>INFO  [proxy] "), "{line}");
    let line = first_line(&["--log-format=json"], true);
    let object = line.strip_prefix("<6>").unwrap_or_else(|| panic!("{line}"));
    assert_eq!(read(object)["level"], "info");
}

#[test]
fn whoever_inherits_the_name_of_the_journals_stream_and_has_another_is_not_read_by_it() {
    let line = first_line(&[], false);
    assert!(
        line.starts_with("20") && line.contains(" INFO  [proxy] "),
        "{line}"
    );
}
