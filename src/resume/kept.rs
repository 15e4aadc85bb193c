//! The lines that were sent and are not acknowledged: a queue with two cursors, one before the first line that is kept and
//! one before the first byte that was not written to the present connection.
//!
//! It is in pieces, so that nothing that is kept is ever moved, and memory is used again soon.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::buffers::budget::{BufferBudget, UNCHARGED_BYTES};
use crate::util::side_bytes;

/// Whole lines, in order. Costs next to nothing while nothing is kept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// How many lines were ever acknowledged.
    acked: u64,
    queue: Option<Box<Queue>>,
}

/// Lines of which one is as long as this or longer are not looked through again for their ends, in bytes.
const LONG: usize = 256;

/// Unless more than this many shorter ones come first.
const SHORT_ONES: usize = 8;

/// Shorter lines are counted in blocks of this, in bytes.
const BLOCK_BYTES: usize = 1024;

/// There is at least one line.
#[derive(Default, Serialize, Deserialize)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// What is before this in the first piece is acknowledged. It is less than there is.
    head: usize,
    /// What is before this was written: so much of this piece. It is not the end of a piece that another follows.
    sent: (usize, usize),
    /// How many bytes there are.
    len: usize,
}

/// Whole lines.
#[derive(Serialize, Deserialize)]
struct Piece {
    #[serde(with = "side_bytes")]
    bytes: Vec<u8>,
    /// Where they end, if they are long.
    ends: Option<Vec<u32>>,
}

/// What is in the lines is nobody's business.
impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lines, bytes, unsent) = (self.lines(), self.len, self.unsent_len());
        write!(f, "{lines} lines, {bytes} bytes, {unsent} unsent")
    }
}

impl Piece {
    fn of(bytes: Vec<u8>) -> Self {
        let ends = u32::try_from(bytes.capacity()).is_ok().then(Vec::new);
        Self { bytes, ends }
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn has_room_for(&self, more: usize) -> bool {
        self.len() + more <= self.bytes.capacity().max(UNCHARGED_BYTES)
    }

    fn push(&mut self, lines: &[u8]) {
        let begin = self.len();
        self.bytes.extend_from_slice(lines);
        let Some(ends) = &mut self.ends else {
            return;
        };
        let before = ends.len();
        for end in memchr::memchr_iter(b'\n', lines) {
            let is_short = ends.len() - before > SHORT_ONES + end / LONG;
            let end = u32::try_from(begin + end + 1).ok().filter(|_| !is_short);
            let Some(end) = end else {
                break;
            };
            ends.push(end);
        }
        if ends
            .last()
            .is_none_or(|end| *end as usize != self.bytes.len())
        {
            self.ends = None;
        }
    }

    /// How many lines end in this part of it.
    fn lines(&self, part: Range<usize>) -> u64 {
        match &self.ends {
            Some(ends) => (ends_to(ends, part.end) - ends_to(ends, part.start)) as u64,
            None => memchr::memchr_iter(b'\n', &self.bytes[part]).count() as u64,
        }
    }

    /// Where the last of the first `lines` lines that end in this part of it does; if there are fewer, how many are missing.
    fn end_of(&self, mut lines: u64, part: Range<usize>) -> Result<usize, u64> {
        if let Some(ends) = &self.ends {
            let ends = &ends[ends_to(ends, part.start)..ends_to(ends, part.end)];
            let last = usize::try_from(lines - 1).ok();
            let end = last.and_then(|last| ends.get(last));
            return end
                .map(|end| *end as usize)
                .ok_or_else(|| lines - ends.len() as u64);
        }
        let mut begin = part.start;
        for block in self.bytes[part].chunks(BLOCK_BYTES) {
            let mut ends = memchr::memchr_iter(b'\n', block);
            let there_are = ends.clone().count() as u64;
            if there_are >= lines {
                let last = usize::try_from(lines - 1).ok();
                let end = last.and_then(|last| ends.nth(last));
                return end.map(|end| begin + end + 1).ok_or(lines);
            }
            lines -= there_are;
            begin += block.len();
        }
        Err(lines)
    }
}

/// A buffer for so many bytes. What is kept is charged for its whole buffer, so one for long lines is to be no larger than
/// it need be.
fn lend(count: usize, memory: &mut BufferBudget) -> Vec<u8> {
    let spare = memory.lend_for(count);
    if count <= UNCHARGED_BYTES || (count..=2 * count).contains(&spare.capacity()) {
        return spare;
    }
    memory.give_back(spare);
    Vec::with_capacity(count)
}

/// How many of these are not after `to`.
fn ends_to(ends: &[u32], to: usize) -> usize {
    ends.partition_point(|end| *end as usize <= to)
}

impl Queue {
    fn lines(&self) -> u64 {
        let of = |(at, piece): (usize, &Piece)| piece.lines(self.head_of(at)..piece.len());
        self.pieces.iter().enumerate().map(of).sum()
    }

    /// What is before this in a piece is acknowledged.
    fn head_of(&self, at: usize) -> usize {
        if at == 0 { self.head } else { 0 }
    }

    fn unsent_len(&self) -> usize {
        let (at, sent) = self.sent;
        let unsent = self.pieces.range(at..).map(Piece::len);
        unsent.sum::<usize>() - sent
    }

    fn push(&mut self, mut lines: &[u8], memory: &mut BufferBudget) {
        self.len += lines.len();
        while !lines.is_empty() {
            let last = self.pieces.back_mut();
            if let Some(last) = last.filter(|last| last.has_room_for(lines.len())) {
                return last.push(lines);
            }
            let count = whole_lines(lines, UNCHARGED_BYTES, true);
            let mut piece = Piece::of(lend(count, memory));
            piece.push(&lines[..count]);
            self.pieces.push_back(piece);
            lines = &lines[count..];
        }
    }

    fn written(&mut self, mut count: usize) {
        let (at, sent) = &mut self.sent;
        loop {
            let left = self.pieces[*at].len() - *sent;
            if count < left || *at + 1 == self.pieces.len() {
                *sent += count;
                return;
            }
            count -= left;
            (*at, *sent) = (*at + 1, 0);
        }
    }

    /// Where the first `lines` lines end, if they were written: so much of this piece.
    fn end_of(&self, mut lines: u64) -> Option<(usize, usize)> {
        let (sent_at, sent) = self.sent;
        for (at, piece) in self.pieces.iter().enumerate().take(sent_at + 1) {
            let written = if at == sent_at { sent } else { piece.len() };
            match piece.end_of(lines, self.head_of(at)..written) {
                Ok(end) => return Some((at, end)),
                Err(missing) => lines = missing,
            }
        }
        None
    }

    /// Lets go of what is before this.
    fn let_go(&mut self, (at, head): (usize, usize), memory: &mut BufferBudget) {
        let before = self.pieces.range(..at).map(Piece::len);
        self.len -= before.sum::<usize>() + head - self.head;
        let is_whole = head == self.pieces[at].len();
        let gone = at + usize::from(is_whole);
        for piece in self.pieces.drain(..gone) {
            memory.give_back(piece.bytes);
        }
        self.head = if is_whole { 0 } else { head };
        self.sent = match self.sent.0.checked_sub(gone) {
            Some(left) => (left, self.sent.1),
            None => (0, 0),
        };
    }
}

/// How many of these bytes are whole lines that fit into `room`; at least one line if `or_one`.
pub(super) fn whole_lines(lines: &[u8], room: usize, or_one: bool) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    match memchr::memrchr(b'\n', &lines[..room]) {
        Some(end) => end + 1,
        None if or_one => memchr::memchr(b'\n', lines).map_or(lines.len(), |end| end + 1),
        None => 0,
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
        self.queue.as_ref().map_or(0, |queue| queue.len)
    }

    /// Whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    /// How many lines are kept. They are counted for that.
    pub fn lines(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| queue.lines())
    }

    /// What is to be written next: all, or a part that ends with a line.
    pub fn unsent(&self) -> &[u8] {
        let queue = self.queue.as_ref();
        queue.map_or(&[], |queue| {
            &queue.pieces[queue.sent.0].bytes[queue.sent.1..]
        })
    }

    /// How many bytes are to be written.
    pub fn unsent_len(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.unsent_len())
    }

    /// Whether the last byte that was written was the end of a line.
    pub fn is_between_lines(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| {
            let (at, sent) = queue.sent;
            sent == 0 || queue.pieces[at].bytes[sent - 1] == b'\n'
        })
    }

    /// The memory that is held, in bytes.
    pub fn capacity(&self) -> usize {
        let queue = self.queue.as_ref();
        let held = |piece: &Piece| piece.bytes.capacity();
        queue.map_or(0, |queue| queue.pieces.iter().map(held).sum())
    }

    /// Keeps these lines, whole ones, of which the first `written` bytes were written. If something was unsent before, none
    /// were.
    pub fn push(&mut self, lines: &[u8], written: usize, memory: &mut BufferBudget) {
        debug_assert_eq!(lines.last(), Some(&b'\n'));
        let is_sent = self.unsent().is_empty();
        debug_assert!(is_sent || written == 0);
        let queue = self.queue.get_or_insert_default();
        queue.push(lines, memory);
        if is_sent {
            queue.written(written);
        }
    }

    /// This many bytes of what was unsent were written.
    pub fn written(&mut self, count: usize) {
        debug_assert!(count <= self.unsent().len());
        if let Some(queue) = &mut self.queue {
            queue.written(count);
        }
    }

    /// The other end has taken `lines` lines in all. Returns whether that can be: it is told of no line that was not sent.
    pub fn acknowledge(&mut self, lines: u64, memory: &mut BufferBudget) -> bool {
        let news = lines.saturating_sub(self.acked);
        if news == 0 {
            return true;
        }
        let Some(queue) = &mut self.queue else {
            return false;
        };
        let Some(end) = queue.end_of(news) else {
            return false;
        };
        self.acked = lines;
        queue.let_go(end, memory);
        if queue.pieces.is_empty() {
            self.queue = None;
        }
        true
    }

    /// There is no connection: nothing of this was written to the next one.
    pub fn rewind(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.sent = (0, queue.head);
        }
    }

    /// All that is kept, in order.
    pub fn all(&self) -> Vec<u8> {
        let queue = self.queue.as_ref();
        let of = |queue: &Queue| {
            let pieces = queue.pieces.iter().enumerate();
            let kept = pieces.map(|(at, piece)| &piece.bytes[queue.head_of(at)..]);
            kept.collect::<Vec<_>>().concat()
        };
        queue.map_or_else(Vec::new, |queue| of(queue))
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
        fn equals_a_list_of_lines(
            steps in prop::collection::vec((0..4u8, 0..9usize), 0..80),
            // Of some pieces and some lines, the ends are known.
            lengths in prop::sample::select(vec![1, 50, 300, 20_000]),
        ) {
            let (mut kept, mut memory) = (Kept::default(), memory());
            // Lines that are kept, and how many bytes of all were written.
            let (mut lines, mut sent) = (Vec::<String>::new(), 0);
            let mut next = 0;
            for (step, by) in steps {
                match step {
                    0 => {
                        while !kept.unsent().is_empty() {
                            kept.written(kept.unsent().len());
                        }
                        let line = format!("{}{next}\n", "x".repeat(by * lengths));
                        next += 1;
                        let written = (by * lengths).min(line.len());
                        kept.push(line.as_bytes(), written, &mut memory);
                        sent = lines.concat().len() + written;
                        lines.push(line);
                    }
                    1 => {
                        let count = (by * lengths).min(kept.unsent().len());
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
                let unsent = &all.as_bytes()[sent..];
                prop_assert!(unsent.starts_with(kept.unsent()));
                prop_assert_eq!(kept.unsent().is_empty(), unsent.is_empty());
                prop_assert_eq!(kept.unsent_len(), unsent.len());
                prop_assert_eq!((kept.lines(), kept.len()), (lines.len() as u64, all.len()));
                prop_assert_eq!(kept.total(), next);
            }
        }
    }
}
