//! A look at processes through `/proc`: what they left open, whom they started, what they use.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::{DEADLINE, eventually};

/// One process, as `/proc/PID/stat` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// The kernel's letter: `R` runs, `S` sleeps, `Z` is a zombie…
    pub(crate) state: char,
    /// The name of the program, cut at 15 bytes by the kernel.
    pub(crate) name: String,
}

impl Process {
    /// The process of that id, if there is one.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(entry(pid, "stat")).ok()?;
        // The name stands in parentheses and may hold anything, parentheses and blanks too.
        let (head, fields) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let mut fields = fields.split_ascii_whitespace();
        Some(Self {
            pid,
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
            name,
        })
    }

    pub(crate) fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }
}

/// All processes below that one, nearest first; zombies are among them.
pub(crate) fn descendants(pid: i32) -> Vec<Process> {
    let all = all();
    let mut found = children_among(&all, pid);
    let mut next = 0;
    while next < found.len() {
        let below = children_among(&all, found[next].pid);
        found.extend(below);
        next += 1;
    }
    found
}

/// The processes that this one started itself or adopted; zombies are among them.
pub(crate) fn children(pid: i32) -> Vec<Process> {
    children_among(&all(), pid)
}

/// Whether there is such a process; a zombie counts.
pub(crate) fn process_exists(pid: i32) -> bool {
    Process::find(pid).is_some()
}

/// How many file descriptors the process has open.
pub(crate) fn fd_count(pid: i32) -> usize {
    fs::read_dir(entry(pid, "fd")).unwrap().count()
}

/// How many bytes the process has written so far, to files and pipes.
pub(crate) fn bytes_written(pid: i32) -> u64 {
    let counts = fs::read_to_string(entry(pid, "io")).unwrap();
    let count = counts.lines().find_map(|line| line.strip_prefix("wchar: "));
    count.unwrap().parse().unwrap()
}

/// The process's resident memory in KiB.
pub(crate) fn rss_kib(pid: i32) -> u64 {
    status_number(pid, "VmRSS")
}

/// How often the process has gone to sleep of its own accord: an idle process's count of wake-ups.
pub(crate) fn voluntary_switches(pid: i32) -> u64 {
    status_number(pid, "voluntary_ctxt_switches")
}

/// Sends a signal; a process that has gone meanwhile is no error.
pub(crate) fn send_signal(pid: i32, signal: Signal) {
    match signal::kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("cannot send {signal} to process {pid}: {error}"),
    }
}

/// Kills a process with SIGKILL and waits until its parent has reaped it.
#[track_caller]
pub(crate) fn kill_and_wait(pid: i32) {
    send_signal(pid, Signal::SIGKILL);
    eventually("the killed process to be reaped", DEADLINE, || {
        !process_exists(pid)
    });
}

fn entry(pid: i32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Process::find)
        .collect()
}

fn children_among(processes: &[Process], parent: i32) -> Vec<Process> {
    let own = processes.iter().filter(|process| process.parent == parent);
    own.cloned().collect()
}

/// The first number after `name:` in `/proc/PID/status`.
fn status_number(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(entry(pid, "status")).unwrap();
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.unwrap_or_else(|| panic!("/proc/{pid}/status has no {name}"));
    value
        .split_ascii_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}
