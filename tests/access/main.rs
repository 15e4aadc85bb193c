//! Who may come in, and where: listening sockets of all kinds.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod listen;
mod systemd;
mod unix;

use std::process::{Command, Output};

use common::proxy::command_under_test;

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
