//! The command line and what surrounds a run: usage errors, start-up errors, the log, and what servers inherit.
//!
//! None of this is for the reference, which has another parser, another log and other servers' surroundings.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod generated;
mod inherited;
mod log_format;
mod log_lines;
mod packaged;
mod programs;
mod signals;
mod start;
mod stderr_kinds;
mod stderr_trouble;
mod surroundings;
mod usage;

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use common::eventually_some;
use common::proxy::command_under_test;

/// How long a command that only prints, or that can't start, may take on a busy machine.
const SHORT_RUN: Duration = Duration::from_secs(20);

/// How a run ended, and what it printed.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// A process that is killed and reaped with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the proxy with these arguments, as something that ends by itself.
#[track_caller]
fn run(arguments: &[&str]) -> Ended {
    run_configured(|command| {
        command.args(arguments);
    })
}

/// Runs the proxy as configured, as something that ends by itself and prints less than a pipe holds.
#[track_caller]
fn run_configured(configure: impl FnOnce(&mut Command)) -> Ended {
    let mut command = command_under_test();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    configure(&mut command);
    let mut running = Running(command.spawn().unwrap());
    let status = eventually_some(&format!("the end of {command:?}"), SHORT_RUN, || {
        running.0.try_wait().unwrap()
    });
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let child = &mut running.0;
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut stdout)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    Ended {
        status,
        stdout,
        stderr,
    }
}

impl Ended {
    /// Asserts that it failed with that exit code, having printed one line to stderr; returns the line.
    #[track_caller]
    fn one_line(&self, exit_code: i32) -> &str {
        assert_eq!(self.status.code(), Some(exit_code), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        let line = self.stderr.strip_suffix('\n');
        let line = line.unwrap_or_else(|| panic!("not a line: {:?}", self.stderr));
        assert!(!line.contains(char::is_control), "{line:?} is not one line");
        line
    }
}
