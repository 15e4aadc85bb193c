//! What a process has used so far, all its threads together.

use std::fs;
use std::time::Duration;

use crate::common::end_to_end::processes;

/// Processor time and wake-ups, since the process began or between two points in time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) wake_ups: u64,
}

impl Usage {
    pub(crate) fn of(pid: i32) -> Self {
        let mut usage = Self::default();
        for thread in threads(pid) {
            usage.cpu += cpu_time(thread);
            // A thread that slept was woken. Whether it slept idle or in the middle of something cannot be told.
            usage.wake_ups += processes::voluntary_switches(thread);
        }
        usage
    }

    /// What was used since `earlier`. A thread that ended meanwhile is left out.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            wake_ups: self.wake_ups.saturating_sub(earlier.wake_ups),
        }
    }

    /// Processor time as % of one core.
    pub(crate) fn percent_of(self, window: Duration) -> f64 {
        100.0 * self.cpu.as_secs_f64() / window.as_secs_f64()
    }
}

fn threads(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.expect("the process is alive").flatten();
    tasks
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

/// To the nanosecond if the kernel has that, otherwise to 10 ms.
fn cpu_time(thread: i32) -> Duration {
    let statistics = fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    let nanoseconds = statistics
        .split(' ')
        .next()
        .and_then(|first| first.parse().ok());
    match nanoseconds {
        Some(0) | None => processes::cpu_time(thread),
        Some(nanoseconds) => Duration::from_nanos(nanoseconds),
    }
}
