//! What a process holds when nothing happens, and whether that is all it holds later.

use std::thread;
use std::time::{Duration, Instant};

use super::eventually_some;
use super::processes::{descendants, fd_count, rss_kib};

/// Longer than the whole stop ladder takes on a busy machine; shorter than 30 s, after which the proxy gives up whatever
/// has not come to its end by itself.
const PATIENCE: Duration = Duration::from_secs(25);

/// The same where the proxy has much to read before it comes to the end.
const LONG_PATIENCE: Duration = Duration::from_mins(3);

/// Two looks of the proxy at what it needs no more, and some time to spare.
const LET_GO_TIME: Duration = Duration::from_secs(5);

/// What may be in memory later that was not there before: spare buffers (4 of 128 KiB), what long lines were read to
/// (512 KiB), tables that have grown with the number of sessions, and what the allocator keeps between the pieces in use,
/// which is up to 3 MiB after messages of 200 MB.
const SLACK_KIB: u64 = 5 * 1024;

/// What one process holds.
#[derive(Clone, Debug)]
pub(crate) struct Footprint {
    pid: i32,
    pub(crate) descriptors: usize,
    /// The processes below it, zombies too.
    pub(crate) processes: usize,
    pub(crate) rss_kib: u64,
}

impl Footprint {
    /// What the process holds now.
    pub(crate) fn of(pid: i32) -> Self {
        Self {
            pid,
            descriptors: fd_count(pid),
            processes: descendants(pid).len(),
            rss_kib: rss_kib(pid),
        }
    }

    /// Waits until the process has no more descriptors, processes and memory than here. Large buffers are
    /// let go when they were not needed for some seconds. Returns what it holds then.
    #[track_caller]
    pub(crate) fn wait_until_restored(&self) -> Self {
        self.restored_within(PATIENCE)
    }

    /// Like [`wait_until_restored`](Self::wait_until_restored), after a flood: the sockets hold many megabytes of it.
    #[track_caller]
    pub(crate) fn wait_until_restored_after_much(&self) -> Self {
        self.restored_within(LONG_PATIENCE)
    }

    #[track_caller]
    fn restored_within(&self, patience: Duration) -> Self {
        let alone = self.alone_within(patience);
        let what = format!("the memory of {self:?} to be given back by {alone:?}");
        eventually_some(&what, patience, || {
            let now = Self::of(self.pid);
            (now.rss_kib <= self.rss_kib + SLACK_KIB).then_some(now)
        })
    }

    /// The least memory that the process holds in the next seconds, in KiB: large buffers are let go when they were not
    /// needed for some time.
    pub(crate) fn settled_rss_kib(&self) -> u64 {
        let start = Instant::now();
        let mut least = u64::MAX;
        while start.elapsed() < LET_GO_TIME {
            least = least.min(rss_kib(self.pid));
            thread::sleep(LET_GO_TIME / 50);
        }
        least
    }

    /// Waits until the process has no more descriptors and processes than here. Returns what it holds then.
    #[track_caller]
    pub(crate) fn wait_until_alone(&self) -> Self {
        self.alone_within(PATIENCE)
    }

    #[track_caller]
    fn alone_within(&self, patience: Duration) -> Self {
        let what = format!("what is held to be no more than {self:?}");
        eventually_some(&what, patience, || {
            let now = Self::of(self.pid);
            // The first look may have found something that was about to go.
            let is_more = now.descriptors > self.descriptors || now.processes > self.processes;
            (!is_more).then_some(now)
        })
    }
}
