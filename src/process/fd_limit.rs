//! The limit of open descriptors: raised for this process, as it was for its servers.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many descriptors this process may have open.
#[derive(Debug, Clone, Copy)]
pub struct DescriptorLimit {
    original: u64,
    raised: u64,
}

impl DescriptorLimit {
    /// Raises the soft limit to the hard one.
    pub fn raise() -> io::Result<Self> {
        let (original, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(Self {
            original,
            raised: hard,
        })
    }

    /// The same where another program has raised it from `original`.
    pub fn raised_before(original: u64) -> io::Result<Self> {
        let raised = Self::raise()?;
        Ok(Self { original, ..raised })
    }

    /// What it was.
    pub fn original(&self) -> u64 {
        self.original
    }

    /// A limit as it might be.
    #[cfg(test)]
    pub(crate) fn of(limit: u64) -> Self {
        Self {
            original: limit,
            raised: limit,
        }
    }

    /// The limit of this process.
    pub fn get(&self) -> u64 {
        self.raised
    }

    /// Does something under the limit that this process was started with. Descriptors that are open stay open.
    pub(super) fn with_original<T>(&self, action: impl FnOnce() -> T) -> io::Result<T> {
        setrlimit(Resource::RLIMIT_NOFILE, self.original, self.raised)?;
        let result = action();
        setrlimit(Resource::RLIMIT_NOFILE, self.raised, self.raised)?;
        Ok(result)
    }
}
