//! All processes below this one: what measurements have started, and what has become of it.
//!
//! Orphans of the contenders are adopted, so that none is lost, whatever a contender does.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::end_to_end::processes::{self, Process};

/// How often [`settle`] checks.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Has this process inherit the children that others leave behind.
pub(crate) fn adopt_orphans() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Kills everything below this process except for these and what is below them.
pub(crate) fn kill_all_but(spared: &[i32]) {
    let own = std::process::id().cast_signed();
    let all = processes::descendants(own);
    let mut kept = spared.to_vec();
    for process in &all {
        // Parents come before their children.
        if kept.contains(&process.parent) {
            kept.push(process.pid);
        }
    }
    for process in all.iter().filter(|process| !kept.contains(&process.pid)) {
        processes::send_signal(process.pid, Signal::SIGKILL);
    }
}

/// Waits until nothing is left below this process but these services, without children. What is left at the time limit
/// is killed; returns how many processes that were.
///
/// Nothing else may wait for processes meanwhile, because this reaps adopted zombies.
pub(crate) fn settle(services: &[i32], limit: Duration) -> usize {
    let start = Instant::now();
    let mut left_at_limit = None;
    loop {
        let left = strangers(services);
        if left.is_empty() {
            return left_at_limit.unwrap_or(0);
        }
        if start.elapsed() >= limit {
            left_at_limit.get_or_insert(left.len());
            for process in left {
                processes::send_signal(process.pid, Signal::SIGKILL);
            }
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// All processes below this one except for these services. Zombies that are ours are reaped.
fn strangers(services: &[i32]) -> Vec<Process> {
    let own = std::process::id().cast_signed();
    let mut all = processes::descendants(own);
    all.retain(|process| {
        let adopted = process.parent == own && !services.contains(&process.pid);
        if adopted && process.is_zombie() {
            // Fails only if it is gone already.
            let _ = waitpid(Pid::from_raw(process.pid), Some(WaitPidFlag::WNOHANG));
            return false;
        }
        !services.contains(&process.pid)
    });
    all
}
