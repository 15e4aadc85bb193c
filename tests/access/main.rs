//! Who may come in and where, what servers know of their clients, and what they can get at.
//!
//! None of this is for the reference, which knows of none of it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod browser;
mod connect_tokens;
mod entrance;
mod environment;
mod fail2ban;
mod haproxy;
mod hidden;
mod listen;
mod proxy_protocol;
mod surroundings;
mod systemd;
mod tls;
mod tls_clients;
mod tls_connect;
mod tls_tools;
mod tokens;
mod unix;
mod user;

use std::io::Read;
use std::process::{Command, Output, Stdio};

use common::proxy::command_under_test;
use common::{DEADLINE, eventually_some, servers};
use nix::unistd::geteuid;

/// A server that tells what these variables are, as an array of strings, and then sends back what it gets.
fn telling(names: &[&str]) -> Vec<String> {
    servers::sh(&format!("{}; exec cat", tell(names)))
}

/// Shell commands that tell what these variables are.
fn tell(names: &[&str]) -> String {
    let format = vec![r#""%s""#; names.len()].join(",");
    let values: Vec<String> = names
        .iter()
        .map(|name| format!(r#""${{{name}-unset}}""#))
        .collect();
    format!("printf '[{format}]\\n' {}", values.join(" "))
}

/// Runs a proxy that can't start with these arguments, although it may log something before, and returns its last line.
#[track_caller]
fn fails(arguments: &[&str]) -> String {
    fails_configured(|command| {
        command.args(arguments);
    })
}

/// The same, as configured.
#[track_caller]
fn fails_configured(configure: impl FnOnce(&mut Command)) -> String {
    let mut command = command_under_test();
    command.args(["--host", "127.0.0.1", "--port", "0"]);
    configure(&mut command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = eventually_some("the end of a proxy that can't start", DEADLINE, || {
        child.try_wait().unwrap()
    });
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    log.lines().last().unwrap().to_owned()
}

/// Whether the tests run as root; says so if not.
fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can become another user");
    }
    is_root
}

/// Runs the proxy as something that fails at its start, and returns the one line that it prints.
#[track_caller]
fn refused(options: &[&str], exit_code: i32) -> String {
    let mut command = command_under_test();
    command.args(options).arg("cat");
    refused_by(&mut command, exit_code)
}

#[track_caller]
fn refused_by(command: &mut Command, exit_code: i32) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(exit_code), "{text}");
    let line = text.trim_end_matches('\n');
    assert!(!line.contains('\n'), "more than a line: {text}");
    line.to_owned()
}
