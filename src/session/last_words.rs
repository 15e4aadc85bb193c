//! What a server said last, as far as the log has not shown it: if it crashes, this is likely to say why.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Lines that are kept: more than a traceback has, as a rule.
const MAX_LINES: usize = 50;

/// What they may hold together, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// What a line holds besides its text, in bytes.
const LINE_BYTES: usize = size_of::<Box<str>>();

/// The last lines of one process that were left out of the log. Holds nothing while none are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LastWords {
    lines: VecDeque<Box<str>>,
    bytes: usize,
}

impl LastWords {
    /// Keeps a line, in place of the oldest if there are too many.
    pub fn keep(&mut self, line: String) {
        self.bytes += line.len() + LINE_BYTES;
        self.lines.push_back(line.into_boxed_str());
        while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.len() + LINE_BYTES;
        }
    }

    /// Hands out all lines, the oldest first, and keeps none.
    pub fn take(&mut self) -> VecDeque<Box<str>> {
        std::mem::take(self).lines
    }

    /// Forgets all lines.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// What the lines hold, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_handed_out_once() {
        let mut words = LastWords::default();
        for number in 0..3 * MAX_LINES {
            words.keep(number.to_string());
        }
        let lines = words.take();
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!((&*lines[0], &*lines[MAX_LINES - 1]), ("100", "149"));
        assert!(words.take().is_empty());
        assert_eq!((words.bytes(), words.lines.capacity()), (0, 0));
    }

    #[test]
    fn long_lines_are_fewer() {
        let mut words = LastWords::default();
        for _ in 0..MAX_LINES {
            words.keep("x".repeat(3900));
            assert!(words.bytes() <= MAX_BYTES);
        }
        assert_eq!(words.take().len(), 4);
        words.keep("x".repeat(2 * MAX_BYTES));
        assert_eq!((words.bytes(), words.take().len()), (0, 0));
    }
}
