//! What all sessions together may hold in buffers, and the spare buffers that they share.
//!
//! A session between messages holds nothing. The first [`UNCHARGED_BYTES`] of each of its buffers are its own; what is
//! beyond draws on one budget, so that many long lines at once are refused before they exhaust the machine.

use log::info;

use crate::process::memory_limit::MemoryLimit;

/// What each buffer of a session may hold without asking, in bytes.
pub const UNCHARGED_BYTES: usize = 64 * 1024;

/// What all sessions together may hold beyond that, in bytes.
pub const DEFAULT_BUDGET_BYTES: usize = 256 * 1024 * 1024;

/// Spare buffers that are kept; more would only help if that many sessions were written to at once.
const MAX_SPARES: usize = 4;

/// Large spare buffers that are kept while long lines pass. Freeing one and allocating the next costs more than copying
/// what is in it.
const MAX_LARGE_SPARES: usize = 4;

/// The largest spare buffer, in bytes.
const MAX_SPARE_BYTES: usize = 4 * 1024 * 1024;

/// The buffer memory of all sessions.
#[derive(Debug)]
pub struct BufferBudget {
    limit: usize,
    used: usize,
    spares: Vec<Vec<u8>>,
    large_spares: Vec<Vec<u8>>,
    /// Whether one of the large ones was needed since the last [`Self::trim`].
    large_lent: bool,
}

/// Of what the process can have at most, buffers get no more than its size divided by this: there are the free parts of
/// buffers, messages while they are copied, and others.
const SHARE: u64 = 4;

/// How large a budget is, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetSize {
    /// In bytes.
    pub bytes: usize,
    /// What sets it, if it is not the default.
    why: Option<Why>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Wanted,
    Limit(MemoryLimit),
}

impl BudgetSize {
    /// What the user wants, or as much as is advisable under this limit.
    pub fn new(wanted: Option<usize>, limit: Option<MemoryLimit>) -> Self {
        if let Some(bytes) = wanted {
            let why = Some(Why::Wanted);
            return Self { bytes, why };
        }
        let share = |limit: MemoryLimit| usize::try_from(limit.bytes / SHARE).ok();
        match limit.and_then(|limit| Some((share(limit)?, limit))) {
            Some((bytes, limit)) if bytes < DEFAULT_BUDGET_BYTES => Self {
                bytes,
                why: Some(Why::Limit(limit)),
            },
            _ => Self {
                bytes: DEFAULT_BUDGET_BYTES,
                why: None,
            },
        }
    }

    /// Logs it, unless it is the default.
    pub fn log(&self) {
        let bytes = self.bytes;
        match self.why {
            None => {}
            Some(Why::Wanted) => info!("Buffer memory: {bytes} bytes (--max-buffer-bytes)"),
            Some(Why::Limit(limit)) => info!(
                "Buffer memory: {bytes} bytes, a quarter of {} ({} bytes)",
                limit.name, limit.bytes
            ),
        }
    }
}

impl BufferBudget {
    /// Sessions may hold `limit` bytes together, beyond what each may hold without asking.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            used: 0,
            spares: Vec::new(),
            large_spares: Vec::new(),
            large_lent: false,
        }
    }

    /// What is left, in bytes.
    pub fn available(&self) -> usize {
        self.limit.saturating_sub(self.used)
    }

    /// Changes the limit. What is held beyond a lower one stays.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is held beyond the free part of each buffer, in bytes.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether enough is left for a session to draw on it to get out of a standstill, and not just for a line that could
    /// not be read otherwise.
    pub fn has_headroom(&self) -> bool {
        self.used < self.limit / 2
    }

    /// Whether so little is left that whoever comes with a long line might find nothing: what is left then is for them.
    pub fn is_short(&self) -> bool {
        self.available() < self.limit / 4
    }

    /// Notes that a holder of `before` bytes beyond its free part now holds `after`.
    pub fn recharge(&mut self, before: usize, after: usize) {
        debug_assert!(before <= self.used);
        self.used = self.used - before + after;
    }

    /// An empty buffer.
    pub fn lend(&mut self) -> Vec<u8> {
        self.spares.pop().unwrap_or_default()
    }

    /// An empty buffer for a long line.
    pub fn lend_large(&mut self) -> Vec<u8> {
        self.large_lent = true;
        self.large_spares.pop().unwrap_or_default()
    }

    /// An empty buffer that is going to hold this much.
    pub fn lend_for(&mut self, bytes: usize) -> Vec<u8> {
        if bytes > UNCHARGED_BYTES {
            self.lend_large()
        } else {
            self.lend()
        }
    }

    /// Takes back a buffer that is no longer needed.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        let (spares, most) = if capacity > 2 * UNCHARGED_BYTES {
            (&mut self.large_spares, MAX_LARGE_SPARES)
        } else {
            (&mut self.spares, MAX_SPARES)
        };
        if spares.len() < most && (1..=MAX_SPARE_BYTES).contains(&capacity) {
            buffer.clear();
            spares.push(buffer);
        }
    }

    /// Frees the large buffers, unless one was needed since the last call. To be called periodically.
    pub fn trim(&mut self) {
        if !std::mem::take(&mut self.large_lent) {
            self.large_spares = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_what_is_wanted_or_a_quarter_of_the_limit_but_not_more_than_the_default() {
        let of = |bytes| Some(MemoryLimit { bytes, name: "it" });
        let size = |wanted, limit| BudgetSize::new(wanted, limit).bytes;
        assert_eq!(size(Some(7), of(4)), 7);
        assert_eq!(size(None, of(200 << 20)), 50 << 20);
        assert_eq!(size(None, of(1 << 40)), DEFAULT_BUDGET_BYTES);
        assert_eq!(size(None, None), DEFAULT_BUDGET_BYTES);
    }

    #[test]
    fn large_buffers_are_kept_while_they_are_needed() {
        let mut memory = BufferBudget::new(0);
        let lend = |memory: &mut BufferBudget| memory.lend_large().capacity();
        memory.give_back(Vec::with_capacity(1_000_000));
        assert_eq!(memory.lend().capacity(), 0, "that would be a waste");
        memory.trim();
        memory.give_back(Vec::with_capacity(1_000_000));
        assert!(lend(&mut memory) >= 1_000_000);
        memory.give_back(Vec::with_capacity(1_000_000));
        memory.trim();
        assert!(lend(&mut memory) >= 1_000_000, "one was needed since");
        memory.give_back(Vec::with_capacity(1_000_000));
        memory.trim();
        memory.trim();
        assert_eq!(lend(&mut memory), 0);
    }

    #[test]
    fn few_spare_buffers_are_kept_and_none_that_is_huge() {
        let mut memory = BufferBudget::new(0);
        memory.give_back(Vec::with_capacity(MAX_SPARE_BYTES + 1));
        assert_eq!(memory.lend_large().capacity(), 0);
        for _ in 0..2 * MAX_LARGE_SPARES {
            memory.give_back(Vec::with_capacity(MAX_SPARE_BYTES));
            memory.give_back(Vec::with_capacity(100));
        }
        assert_eq!(memory.large_spares.len(), MAX_LARGE_SPARES);
        assert_eq!(memory.spares.len(), MAX_SPARES);
    }
}
