//! On which cores this process and everything that it starts from then on run.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Cores {
    /// Client, relay and server share one: what is measured is work, not the waking of other cores.
    One,
    /// All that the benchmark may use.
    All,
}

impl Cores {
    pub(crate) const BOTH: [Self; 2] = [Self::One, Self::All];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One => "one core",
            Self::All => "unpinned",
        }
    }
}

/// The cores that this process was started with.
pub(crate) struct Affinity {
    all: CpuSet,
    one: CpuSet,
}

impl Affinity {
    pub(crate) fn of_this_process() -> nix::Result<Self> {
        let all = sched_getaffinity(Pid::from_raw(0))?;
        let mut one = CpuSet::new();
        // The last one, as interrupts mostly go to the first.
        let last = (0..CpuSet::count()).rfind(|&core| all.is_set(core) == Ok(true));
        one.set(last.unwrap_or(0))?;
        Ok(Self { all, one })
    }

    /// How many cores there are.
    pub(crate) fn count(&self) -> usize {
        let set = |&core: &usize| self.all.is_set(core) == Ok(true);
        (0..CpuSet::count()).filter(set).count()
    }

    /// Moves the calling thread, and all threads and processes that it starts later.
    pub(crate) fn apply(&self, cores: Cores) -> nix::Result<()> {
        self.apply_to(0, cores)
    }

    /// Moves the main thread of another process.
    pub(crate) fn apply_to(&self, pid: i32, cores: Cores) -> nix::Result<()> {
        let set = match cores {
            Cores::One => &self.one,
            Cores::All => &self.all,
        };
        sched_setaffinity(Pid::from_raw(pid), set)
    }
}
