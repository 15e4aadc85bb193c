//! Asks a running proxy to be replaced by the program that lies at its path now, and waits until it is.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::{self, is_subcommand};
use crate::util::proc_text;

/// A rehearsal has ten seconds, clients have some of their own, and after that it is done or will not be.
const TIME: Duration = Duration::from_secs(15);

const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The new program is believed to go on once it is there for so many looks.
const LOOKS: u32 = 10;

/// Why a proxy was not replaced.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// There is no such process, or it can't be seen.
    Unseen(Pid, String),
    /// It is no proxy that serves, or one that is too old to know what it is asked.
    Refused(Pid),
    /// It may not be asked.
    Denied(Pid, String),
    /// It goes on as it was.
    NotDone(Pid),
    /// It has ended.
    Gone(Pid),
}

impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unseen(pid, why) => write!(f, "process {pid} can't be looked at: {why}"),
            Self::Refused(pid) => write!(
                f,
                "process {pid} is not an mcp-tcp-proxy that serves and can be upgraded; it was left alone"
            ),
            Self::Denied(pid, why) => write!(f, "process {pid} can't be asked: {why}"),
            Self::NotDone(pid) => write!(
                f,
                "process {pid} goes on with the program that it had; its log has the reason"
            ),
            Self::Gone(pid) => write!(f, "process {pid} has ended"),
        }
    }
}

/// Has a process upgraded. Returns how often that has happened.
///
/// # Errors
/// It was not.
pub fn upgrade(pid: Pid) -> Result<u64, Failed> {
    let unseen = |error: std::io::Error| Failed::Unseen(pid, error.to_string());
    let before = words(pid).map_err(unseen)?;
    let status = proc_text::read(format!("/proc/{pid}/status")).map_err(unseen)?;
    if !serves(&before) || !blocks(&status, Signal::SIGUSR2) {
        return Err(Failed::Refused(pid));
    }
    let before = generation(&before);
    kill(pid, Signal::SIGUSR2).map_err(|errno| Failed::Denied(pid, errno.desc().to_owned()))?;
    let until = Instant::now() + TIME;
    let mut grown = 0;
    while Instant::now() < until {
        if has_ended(pid) {
            return Err(Failed::Gone(pid));
        }
        // For a moment there are none.
        let now = words(pid).map_or(before, |words| generation(&words));
        // One that can't go on after all makes way for the one before.
        grown = if now > before { grown + 1 } else { 0 };
        if grown > LOOKS {
            return Ok(now);
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Err(Failed::NotDone(pid))
}

/// Whether a process is gone, or was not reaped yet.
fn has_ended(pid: Pid) -> bool {
    let status = proc_text::read(format!("/proc/{pid}/status"));
    status.map_or(true, |status| {
        let state = status.lines().find_map(|line| line.strip_prefix("State:"));
        state.is_some_and(|state| state.trim_start().starts_with('Z'))
    })
}

/// The arguments of a process; none of one that has ended and was not reaped.
fn words(pid: Pid) -> std::io::Result<Vec<OsString>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline"))?;
    let words = bytes.split(|byte| *byte == 0);
    let mut words: Vec<OsString> = words
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    // What follows the last one.
    words.pop();
    Ok(words)
}

/// Whether these are the arguments of a proxy that serves. Other commands have their names first.
fn serves(words: &[OsString]) -> bool {
    let own = std::env::args_os().next();
    let name = |word: &OsString| Path::new(word).file_name().map(ToOwned::to_owned);
    let is_own = words.first().map(name) == own.as_ref().map(name);
    let begins = words.get(1).and_then(|word| word.to_str());
    is_own && !begins.is_some_and(is_subcommand)
}

/// What its arguments say of that; none at the start.
fn generation(words: &[OsString]) -> u64 {
    words.get(1..).and_then(cli::generation).unwrap_or(0)
}

/// Whether a process blocks a signal, as `proc_pid_status(5)` tells. One that does not may die of it.
fn blocks(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0) >> (signal as u32 - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_generation_is_read_where_it_is_written() {
        assert_eq!(generation(&all(&["p", "--generation", "7", "cat"])), 7);
        for none in [&["p"][..], &["p", "cat", "--generation", "7"]] {
            assert_eq!(generation(&all(none)), 0);
        }
    }

    #[test]
    fn blocked_signals_are_read_from_the_status() {
        let status = "SigPnd:\t0000000000000000\nSigBlk:\t0000000000000800\n";
        assert!(blocks(status, Signal::SIGUSR2));
        assert!(!blocks(status, Signal::SIGUSR1));
        assert!(!blocks("", Signal::SIGUSR2));
    }

    #[test]
    fn only_a_proxy_that_serves_is_asked() {
        let own = std::env::args_os().next().unwrap();
        let of = |words: &[&str]| {
            let mut all = all(words);
            all.insert(0, own.clone());
            serves(&all)
        };
        assert!(of(&["cat"]) && of(&["--demo"]) && of(&[]));
        assert!(!of(&["connect", "localhost:1"]) && !of(&["demo-server"]) && !of(&["resolve"]));
        assert!(!serves(&all(&["cat"])) && !serves(&[]));
    }

    #[test]
    fn other_programs_are_left_alone() {
        let own = Pid::this();
        assert_eq!(upgrade(own), Err(Failed::Refused(own)));
    }
}
