//! Finds out which pipes have too little room.

use serde::{Deserialize, Serialize};

use super::system::Pipe;

use crate::util::defaults::is_default;

/// What a pipe holds by default, in bytes (pipe(7)).
const PIPE_BYTES: usize = 64 * 1024;

/// This many pipes full of one line, and the call to widen the pipe is cheaper than the changes of processes that it
/// saves.
const MANY_PIPES: u8 = 4;

/// Finds out whether a pipe has too little room, and gives it more, so that a long line does not take a change of
/// processes for every 64 KiB. Once is enough: the system may refuse it to users other than root, as what all their pipes
/// hold is limited, and then the pipe has to do as it is.
#[derive(Debug, PartialEq, Eq, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct PipeWidener {
    #[serde(default, skip_serializing_if = "is_default")]
    full_reads: u8,
    #[serde(default, skip_serializing_if = "is_default")]
    is_wide: bool,
}

impl PipeWidener {
    /// This many bytes were read at once, of as many as `wanted`.
    pub(super) fn was_read(&mut self, count: usize, wanted: usize, pipe: &impl Pipe) {
        let is_full = count >= PIPE_BYTES && wanted > PIPE_BYTES;
        self.full_reads = if is_full {
            self.full_reads.saturating_add(1)
        } else {
            0
        };
        if self.full_reads >= MANY_PIPES {
            self.widen(pipe);
        }
    }

    /// This many bytes had no room.
    pub(super) fn was_left(&mut self, count: usize, pipe: &impl Pipe) {
        if count >= usize::from(MANY_PIPES) * PIPE_BYTES {
            self.widen(pipe);
        }
    }

    #[cold]
    fn widen(&mut self, pipe: &impl Pipe) {
        if !self.is_wide {
            self.is_wide = true;
            pipe.widen();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Default)]
    struct Counter(Cell<u32>);

    impl Pipe for Counter {
        fn widen(&self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn a_pipe_that_is_full_again_and_again_is_widened_once() {
        let (mut widener, pipe) = (PipeWidener::default(), Counter::default());
        let wanted = 2 * PIPE_BYTES;
        for (count, wanted) in [
            (PIPE_BYTES, wanted),
            (PIPE_BYTES, wanted),
            (PIPE_BYTES, wanted),
            (PIPE_BYTES - 1, wanted),
            (PIPE_BYTES, wanted),
            (PIPE_BYTES, wanted),
            (PIPE_BYTES, wanted),
            (PIPE_BYTES, PIPE_BYTES),
            (PIPE_BYTES, wanted),
            (PIPE_BYTES, wanted),
            (PIPE_BYTES, wanted),
        ] {
            widener.was_read(count, wanted, &pipe);
            assert_eq!(pipe.0.get(), 0, "not four in a row");
        }
        for _ in 0..3 {
            widener.was_read(PIPE_BYTES, wanted, &pipe);
            assert_eq!(pipe.0.get(), 1);
        }
    }

    #[test]
    fn a_pipe_that_leaves_much_behind_is_widened_once() {
        let (mut widener, pipe) = (PipeWidener::default(), Counter::default());
        widener.was_left(4 * PIPE_BYTES - 1, &pipe);
        assert_eq!(pipe.0.get(), 0);
        for _ in 0..2 {
            widener.was_left(4 * PIPE_BYTES, &pipe);
            assert_eq!(pipe.0.get(), 1);
        }
    }
}
