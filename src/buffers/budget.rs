//! What all sessions together may hold in buffers, and the spare buffers that they share.
//!
//! A session between messages holds nothing. The first [`UNCHARGED_BYTES`] of each of its buffers are its own; what is
//! beyond draws on one budget, so that many long lines at once are refused before they exhaust the machine.

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
