//! The lines that were sent and are not acknowledged: a buffer with two cursors, one before the first line that is kept and
//! one before the first byte that was not written to the present connection.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::buffers::budget::{BufferBudget, UNCHARGED_BYTES};
use crate::util::side_bytes;

/// Whole lines, in order. Costs next to nothing while nothing is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// How many lines were ever acknowledged.
    acked: u64,
    buffer: Option<Box<Buffer>>,
}

#[derive(Default, Serialize, Deserialize)]
struct Buffer {
    #[serde(with = "side_bytes")]
    bytes: Vec<u8>,
    /// What is before this is acknowledged.
    head: usize,
    /// What is before this was written.
    sent: usize,
    /// How many lines there are.
    lines: u64,
}

/// What is in the lines is nobody's business.
impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lines, bytes) = (self.lines, self.all().len());
        write!(
            f,
            "{lines} lines, {bytes} bytes, {} sent",
            self.sent - self.head
        )
    }
}

impl Buffer {
    fn all(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// Moving what is kept is cheaper than growing, and happens at most once for as many bytes as it moves.
    fn make_room(&mut self, more: usize) {
        let would_grow = self.bytes.len() + more > self.bytes.capacity();
        let is_worth_it = would_grow || self.head > UNCHARGED_BYTES;
        if self.head > 0 && is_worth_it && self.head >= self.all().len() {
            self.bytes.drain(..self.head);
            self.sent -= self.head;
            self.head = 0;
        }
    }
}

impl Kept {
    /// How many lines were ever kept.
    pub fn total(&self) -> u64 {
        self.acked + self.lines()
    }

    /// How many of them were acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// How many bytes are kept.
    pub fn len(&self) -> usize {
        self.all().len()
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    /// How many lines are kept.
    pub fn lines(&self) -> u64 {
        self.buffer.as_ref().map_or(0, |buffer| buffer.lines)
    }

    /// What is to be written.
    pub fn unsent(&self) -> &[u8] {
        let buffer = self.buffer.as_ref();
        buffer.map_or(&[], |buffer| &buffer.bytes[buffer.sent..])
    }

    /// Whether the last byte that was written was the end of a line.
    pub fn is_between_lines(&self) -> bool {
        self.buffer.as_ref().is_none_or(|buffer| {
            buffer.sent == buffer.head || buffer.bytes[buffer.sent - 1] == b'\n'
        })
    }

    /// The memory that is held, in bytes.
    pub fn capacity(&self) -> usize {
        self.buffer
            .as_ref()
            .map_or(0, |buffer| buffer.bytes.capacity())
    }

    /// Keeps these lines, whole ones, of which the first `written` bytes were written. If something was unsent before, none
    /// were.
    pub fn push(&mut self, lines: &[u8], written: usize, memory: &mut BufferBudget) {
        debug_assert_eq!(lines.last(), Some(&b'\n'));
        let buffer = self.buffer.get_or_insert_with(|| {
            Box::new(Buffer {
                bytes: memory.lend_for(lines.len()),
                ..Buffer::default()
            })
        });
        buffer.make_room(lines.len());
        let end = buffer.bytes.len();
        buffer.bytes.extend_from_slice(lines);
        buffer.lines += memchr::memchr_iter(b'\n', lines).count() as u64;
        if buffer.sent == end {
            buffer.sent += written;
        }
    }

    /// This many bytes of what was unsent were written.
    pub fn written(&mut self, count: usize) {
        debug_assert!(count <= self.unsent().len());
        if let Some(buffer) = &mut self.buffer {
            buffer.sent += count;
        }
    }

    /// The other end has taken `lines` lines in all. Returns whether that can be: it is told of no line that was not sent.
    pub fn acknowledge(&mut self, lines: u64, memory: &mut BufferBudget) -> bool {
        let news = lines.saturating_sub(self.acked);
        if news == 0 {
            return true;
        }
        let Some(buffer) = self.buffer.as_mut().filter(|it| news <= it.lines) else {
            return false;
        };
        let mut ends = memchr::memchr_iter(b'\n', buffer.all());
        let last = usize::try_from(news - 1).ok();
        let Some(end) = last.and_then(|last| ends.nth(last)) else {
            return false;
        };
        let head = buffer.head + end + 1;
        if head > buffer.sent {
            return false;
        }
        buffer.head = head;
        buffer.lines -= news;
        self.acked = lines;
        if buffer.all().is_empty() {
            memory.give_back(std::mem::take(&mut buffer.bytes));
            self.buffer = None;
        }
        true
    }

    /// There is no connection: nothing of this was written to the next one.
    pub fn rewind(&mut self) {
        if let Some(buffer) = &mut self.buffer {
            buffer.sent = buffer.head;
        }
    }

    /// All that is kept, in order.
    pub fn all(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| buffer.all())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn memory() -> BufferBudget {
        BufferBudget::new(0)
    }

    #[test]
    fn lines_are_kept_until_they_are_acknowledged_and_sent_again() {
        let (mut kept, mut memory) = (Kept::default(), memory());
        kept.push(b"ab\ncd\n", 4, &mut memory);
        assert_eq!(
            (kept.unsent(), kept.is_between_lines()),
            (&b"d\n"[..], false)
        );
        assert!(!kept.acknowledge(2, &mut memory), "it was not sent whole");
        kept.written(2);
        assert!(kept.acknowledge(1, &mut memory) && kept.acknowledge(0, &mut memory));
        kept.rewind();
        assert_eq!(
            (kept.unsent(), kept.is_between_lines()),
            (&b"cd\n"[..], true)
        );
        kept.written(3);
        assert!(!kept.acknowledge(3, &mut memory));
        assert!(kept.acknowledge(2, &mut memory));
        assert_eq!((kept.total(), kept.acked(), kept.capacity()), (2, 2, 0));
    }

    proptest! {
        #[test]
        fn equals_a_list_of_lines(steps in prop::collection::vec((0..4u8, 0..9usize), 0..80)) {
            let (mut kept, mut memory) = (Kept::default(), memory());
            // Lines that are kept, and how many bytes of all were written.
            let (mut lines, mut sent) = (Vec::<String>::new(), 0);
            let mut next = 0;
            for (step, by) in steps {
                match step {
                    0 => {
                        kept.written(kept.unsent().len());
                        let line = format!("{}{next}\n", "x".repeat(by));
                        next += 1;
                        let written = by.min(line.len());
                        kept.push(line.as_bytes(), written, &mut memory);
                        sent = lines.concat().len() + written;
                        lines.push(line);
                    }
                    1 => {
                        let count = by.min(kept.unsent().len());
                        kept.written(count);
                        sent += count;
                    }
                    2 => {
                        let news = by.min(lines.len() + 1);
                        let len = lines.iter().take(news).map(String::len).sum::<usize>();
                        let is_right = news <= lines.len() && len <= sent;
                        prop_assert_eq!(kept.acknowledge(kept.acked() + news as u64, &mut memory), is_right);
                        if is_right {
                            lines.drain(..news);
                            sent -= len;
                        }
                    }
                    _ => {
                        kept.rewind();
                        sent = 0;
                    }
                }
                let all = lines.concat();
                prop_assert_eq!(kept.all(), all.as_bytes());
                prop_assert_eq!(kept.unsent(), &all.as_bytes()[sent..]);
                prop_assert_eq!((kept.lines(), kept.len()), (lines.len() as u64, all.len()));
                prop_assert_eq!(kept.total(), next);
            }
        }
    }
}
