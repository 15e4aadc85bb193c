//! A look at processes through `/proc`: what they left open, whom they started, what they use.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
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

/// The TCP ports that the process listens on, as `/proc` tells: for a proxy of which the log can't be read.
pub(crate) fn listening_ports(pid: i32) -> Vec<u16> {
    const LISTENS: &str = "0A";
    let Ok(descriptors) = fs::read_dir(entry(pid, "fd")) else {
        return Vec::new();
    };
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let targets: Vec<PathBuf> = targets.collect();
    let mut ports = Vec::new();
    for table in ["net/tcp", "net/tcp6"] {
        // Columns of proc_pid_net(5): number, local address, remote address, state, … and tenth the inode.
        let table = fs::read_to_string(entry(pid, table)).unwrap_or_default();
        for line in table.lines().skip(1) {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let socket = PathBuf::from(format!("socket:[{}]", columns[9]));
            if columns[3] == LISTENS && targets.contains(&socket) {
                let port = columns[1].rsplit(':').next().unwrap();
                ports.push(u16::from_str_radix(port, 16).unwrap());
            }
        }
    }
    ports
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

/// The most resident memory that the process ever had, in KiB.
pub(crate) fn peak_rss_kib(pid: i32) -> u64 {
    status_number(pid, "VmHWM")
}

/// How long the process has used a processor, to 10 ms: the kernel tells `/proc` in ticks of that length.
pub(crate) fn cpu_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(entry(pid, "stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    // utime and stime are fields 14 and 15 (proc_pid_stat(5)); the one behind the name is the third.
    let ticks = fields.split_ascii_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

/// Waits until these processes have nothing to do: for a while, each look finds all of them asleep, and none has woken
/// up in between. On a busy machine, one that is only kept from running does not count as asleep.
#[track_caller]
pub(crate) fn wait_until_quiet(pids: &[i32]) {
    const QUIET_LOOKS: u32 = 60;
    let look = |pid: &i32| {
        let process = Process::find(*pid)?;
        Some((
            process.state,
            try_status_number(*pid, "voluntary_ctxt_switches")?,
        ))
    };
    let (mut before, mut quiet_looks) = (Vec::new(), 0);
    // They may have tens of megabytes to pass on first.
    eventually("the processes to have nothing to do", 4 * DEADLINE, || {
        let now: Vec<_> = pids.iter().filter_map(look).collect();
        let quiet = now.iter().all(|(state, _)| *state == 'S') && now == before;
        quiet_looks = if quiet { quiet_looks + 1 } else { 0 };
        before = now;
        quiet_looks >= QUIET_LOOKS
    });
}

/// Raises this process's soft limit of descriptors to the hard one. Returns `wanted`, or as many sessions as a proxy
/// with the same hard limit has descriptors for, and says so if that is less.
pub(crate) fn sessions_that_fit(wanted: usize) -> usize {
    const PER_SESSION: u64 = 4;
    const SPARE: u64 = 256;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let possible = usize::try_from(hard.saturating_sub(SPARE) / PER_SESSION).unwrap();
    if possible < wanted {
        eprintln!(
            "scaled down: {possible} sessions instead of {wanted}, as RLIMIT_NOFILE is {hard}"
        );
    }
    wanted.min(possible)
}

/// Sends a signal; a process that has gone meanwhile is no error.
pub(crate) fn send_signal(pid: i32, signal: Signal) {
    match signal::kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("cannot send {signal} to process {pid}: {error}"),
    }
}

/// Stops a process while it waits for something to happen, and waits until it does nothing any more.
#[track_caller]
pub(crate) fn stop_asleep(pid: i32) {
    eventually("the process to sleep", DEADLINE, || {
        Process::find(pid).is_some_and(|process| process.state == 'S')
    });
    send_signal(pid, Signal::SIGSTOP);
    wait_until_stopped(pid);
}

/// Waits until a process that was sent SIGSTOP does nothing any more.
#[track_caller]
pub(crate) fn wait_until_stopped(pid: i32) {
    eventually("the process to stop", DEADLINE, || {
        Process::find(pid).is_some_and(|process| process.state == 'T')
    });
}

/// Waits until there is no such process, or only a zombie that whoever adopted it from the proxy is slow to reap.
#[track_caller]
pub(crate) fn wait_until_dead(pid: i32) {
    eventually(&format!("process {pid} to be dead"), DEADLINE, || {
        Process::find(pid).is_none_or(|process| process.is_zombie())
    });
}

/// A process that nobody but the test may end; it is killed when this is dropped.
pub(crate) struct Stray(pub(crate) i32);

impl Drop for Stray {
    fn drop(&mut self) {
        send_signal(self.0, Signal::SIGKILL);
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
    try_status_number(pid, name).unwrap_or_else(|| panic!("/proc/{pid}/status has no {name}"))
}

fn try_status_number(pid: i32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(entry(pid, "status")).ok()?;
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_ascii_whitespace().next()?.parse().ok()
}

/// Whether this process, and so what it starts, ignores a signal.
pub(crate) fn ignores(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    ignored >> (signal as i32 - 1) & 1 == 1
}
