//! A queue of lines on their way out: what was consumed, which lines have not started, and what each one means.
//!
//! Lines may carry a tag. It is handed out when the first byte of its line is consumed, because from then on the line
//! can't be taken back.

mod state;

use serde::{Deserialize, Serialize};

use crate::buffers::budget::{BufferBudget, UNCHARGED_BYTES};
use crate::util::small_queue::SmallQueue;

/// Up to this size a buffer doubles when it is full, in bytes. A larger one grows by [`GROWTH_SHARE`]: unused capacity
/// is charged to all sessions, too.
const DOUBLING_BYTES: usize = 4 * 1024 * 1024;

/// A large buffer grows by its size divided by this.
const GROWTH_SHARE: usize = 8;

/// Lines that wait to be written, some of them with tags of type `M`.
#[derive(Debug)]
pub struct Outbox<M> {
    bytes: Vec<u8>,
    /// How much of `bytes` was consumed. The last of that stays as long as it was inside a line.
    head: usize,
    /// How many bytes were ever consumed.
    position: u64,
    tags: SmallQueue<Tagged<M>>,
}

/// What becomes of a line, and its tag.
#[derive(Debug)]
pub enum Edit<M> {
    /// It stays as it is.
    Keep(M),
    /// It becomes this one, which has its line end.
    Replace(Vec<u8>, M),
    /// It is dropped.
    Drop,
}

#[derive(Debug, Serialize, Deserialize)]
struct Tagged<M> {
    /// Counted from the first byte that was ever queued.
    start: u64,
    /// No line is nearly as long as this can tell.
    len: u32,
    tag: M,
}

impl<M> Tagged<M> {
    fn len(&self) -> usize {
        self.len as usize
    }
}

impl<M> Default for Outbox<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> Outbox<M> {
    /// An empty queue, which holds no memory.
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            head: 0,
            position: 0,
            tags: SmallQueue::new(),
        }
    }

    /// Queues a line that has no line end yet.
    #[inline]
    pub fn push(&mut self, line: &[u8], tag: Option<M>, memory: &mut BufferBudget) {
        self.tag(line.len() + 1, tag);
        self.push_bytes(line, memory);
    }

    #[inline(never)]
    fn push_bytes(&mut self, line: &[u8], memory: &mut BufferBudget) {
        self.make_room(line.len() + 1, memory);
        self.bytes.extend_from_slice(line);
        self.bytes.push(b'\n');
    }

    /// Makes room for a line of this many bytes. Returns whether there is as much memory.
    pub fn try_reserve(&mut self, line: usize, memory: &mut BufferBudget) -> bool {
        self.make_room(line + "\n".len(), memory)
    }

    /// Queues a line that has its line end, in a buffer that may be kept instead of copied.
    pub fn push_buffer(&mut self, line: Vec<u8>, tag: Option<M>, memory: &mut BufferBudget) {
        debug_assert_eq!(line.last(), Some(&b'\n'));
        self.tag(line.len(), tag);
        if self.is_empty() {
            memory.give_back(std::mem::replace(&mut self.bytes, line));
            self.head = 0;
        } else {
            self.make_room(line.len(), memory);
            self.bytes.extend_from_slice(&line);
            memory.give_back(line);
        }
    }

    /// What waits to be written.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes wait in tagged lines that have not started. They are counted each time.
    pub fn tagged_bytes(&self) -> usize {
        self.tags.iter().map(Tagged::len).sum()
    }

    /// The memory that the queue holds, in bytes.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Notes that the first `count` waiting bytes were written. The tags of lines that started by that are to be
    /// collected with [`Self::next_started`].
    pub fn consume(&mut self, count: usize, memory: &mut BufferBudget) {
        debug_assert!(count <= self.len());
        if count == 0 {
            return;
        }
        self.head += count;
        self.position += count as u64;
        if self.is_empty() {
            self.head = 0;
            memory.give_back(std::mem::take(&mut self.bytes));
        }
    }

    /// The tag of the next line that has started.
    pub fn next_started(&mut self) -> Option<M> {
        if self.tags.front()?.start >= self.position {
            return None;
        }
        Some(self.tags.pop_front()?.tag)
    }

    /// The tags of lines that have not started, in order.
    pub fn tags(&self) -> impl Iterator<Item = &M> {
        self.tags.iter().map(|tagged| &tagged.tag)
    }

    /// The tag of the first waiting line, if it has one and has not started.
    pub fn first_tag(&self) -> Option<&M> {
        let first = self.tags.front()?;
        (first.start == self.position).then_some(&first.tag)
    }

    /// What waits of a line that has started, with its line end.
    pub fn rest_of_started(&self) -> &[u8] {
        let end = self
            .is_within_line()
            .then(|| memchr::memchr(b'\n', self.waiting()));
        end.flatten().map_or(&[], |end| &self.waiting()[..=end])
    }

    /// Drops the rest of a line that has started, and the lines whose tag `keep` refuses. Takes no memory for that.
    pub fn retain_unstarted(&mut self, mut keep: impl FnMut(&M) -> bool) {
        let started = self.rest_of_started().len();
        let mut all = std::mem::take(self);
        let tags = all.tags.drain();
        let bytes = &mut all.bytes;
        let index = |at: u64| all.head + (at - all.position) as usize;
        let (mut from, mut len) = (all.head + started, 0);
        let keep_bytes = |bytes: &mut [u8], from: usize, to: usize, len: &mut usize| {
            bytes.copy_within(from..to, *len);
            *len += to - from;
        };
        for tagged in tags {
            debug_assert!(
                tagged.start >= all.position,
                "the tags of started lines were collected"
            );
            let start = index(tagged.start);
            keep_bytes(bytes, from, start, &mut len);
            from = start + tagged.len();
            if keep(&tagged.tag) {
                let kept_at = len as u64;
                keep_bytes(bytes, start, from, &mut len);
                self.tags.push_back(Tagged {
                    start: kept_at,
                    ..tagged
                });
            }
        }
        let end = bytes.len();
        keep_bytes(bytes, from, end, &mut len);
        bytes.truncate(len);
        // What is not needed of the free part is nobody's loss.
        bytes.shrink_to(2 * len);
        self.bytes = all.bytes;
    }

    /// Takes the lines apart that have not started and have tags, each with its line end.
    pub fn into_unstarted(mut self) -> Vec<(M, Vec<u8>)> {
        let tags = std::mem::take(&mut self.tags).drain();
        let unstarted = tags.filter(|tagged| tagged.start >= self.position);
        let lines = unstarted.map(|tagged| {
            let at = (tagged.start - self.position) as usize;
            let line = self.waiting()[at..at + tagged.len()].to_vec();
            (tagged.tag, line)
        });
        lines.collect()
    }

    /// Has `edit` look at the tagged lines that have not started, in order, and say what is to become of each. Lines have
    /// their line ends. Takes no memory for that, unless a line becomes longer.
    pub fn edit_unstarted(
        &mut self,
        mut edit: impl FnMut(&[u8], M) -> Edit<M>,
        memory: &mut BufferBudget,
    ) {
        let (head, position) = (self.head, self.position);
        let bytes = &mut self.bytes;
        // Up to the first all is edited; up to the second all was looked at.
        let (mut done, mut seen) = (head, head);
        let mut grown = 0;
        for tagged in std::mem::take(&mut self.tags).drain() {
            let start = head + (tagged.start - position) as usize + grown;
            bytes.copy_within(seen..start, done);
            done += start - seen;
            seen = start + tagged.len();
            let (len, tag) = match edit(&bytes[start..seen], tagged.tag) {
                Edit::Drop => continue,
                Edit::Keep(tag) => {
                    bytes.copy_within(start..seen, done);
                    (seen - start, tag)
                }
                Edit::Replace(line, tag) => {
                    let more = line.len().saturating_sub(seen - done);
                    let end = done + line.len();
                    bytes.splice(done..end - more, line);
                    seen += more;
                    grown += more;
                    (end - done, tag)
                }
            };
            self.tags.push_back(Tagged {
                start: position + (done - head) as u64,
                len: len as u32,
                tag,
            });
            done += len;
        }
        let end = bytes.len();
        bytes.copy_within(seen..end, done);
        bytes.truncate(done + end - seen);
        if self.is_empty() {
            self.head = 0;
            memory.give_back(std::mem::take(&mut self.bytes));
        }
    }

    /// Moves all lines of `other`, none of which has started, after those of this queue. Returns them if there is no memory
    /// for that.
    #[must_use]
    pub fn append(&mut self, mut other: Self, memory: &mut BufferBudget) -> Option<Self> {
        debug_assert!(!other.is_within_line());
        if !self.is_empty() && !self.make_room(other.len(), memory) {
            return Some(other);
        }
        let end = self.end();
        for tagged in other.tags.drain() {
            self.tags.push_back(Tagged {
                start: tagged.start - other.position + end,
                ..tagged
            });
        }
        if self.is_empty() {
            memory.give_back(std::mem::replace(&mut self.bytes, other.bytes));
            self.head = other.head;
        } else {
            self.bytes.extend_from_slice(&other.bytes[other.head..]);
            memory.give_back(other.bytes);
        }
        None
    }

    /// Drops everything, and gives the memory back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the last byte that was consumed was inside a line.
    fn is_within_line(&self) -> bool {
        self.head > 0 && self.bytes[self.head - 1] != b'\n'
    }

    fn end(&self) -> u64 {
        self.position + self.len() as u64
    }

    #[inline]
    fn tag(&mut self, len: usize, tag: Option<M>) {
        if let Some(tag) = tag {
            self.tags.push_back(Tagged {
                start: self.end(),
                len: len as u32,
                tag,
            });
        }
    }

    /// Returns whether there is as much memory. If not, whoever goes on aborts.
    #[inline]
    fn make_room(&mut self, more: usize, memory: &mut BufferBudget) -> bool {
        if self.bytes.capacity() == 0 {
            self.bytes = memory.lend_for(more);
        }
        // A buffer that was lent is large enough for most lines.
        if self.head == 0 && self.bytes.capacity() - self.bytes.len() >= more {
            return true;
        }
        self.make_more_room(more)
    }

    #[inline(never)]
    fn make_more_room(&mut self, more: usize) -> bool {
        let would_grow = self.bytes.len() + more > self.bytes.capacity();
        // Moving what waits is cheaper than growing, and happens at most once for as many bytes as it moves.
        if self.head > 0 && (would_grow || self.head > UNCHARGED_BYTES) && self.head >= self.len() {
            let kept = usize::from(self.is_within_line());
            self.bytes.drain(..self.head - kept);
            self.head = kept;
        }
        let spare = self.bytes.capacity() - self.bytes.len();
        if self.bytes.capacity() <= DOUBLING_BYTES {
            // Twice as much may be more than there is.
            self.bytes.try_reserve(more).is_ok() || self.bytes.try_reserve_exact(more).is_ok()
        } else if spare < more {
            let growth = more.max(self.bytes.capacity() / GROWTH_SHARE);
            self.bytes.try_reserve_exact(growth).is_ok()
                || self.bytes.try_reserve_exact(more).is_ok()
        } else {
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn memory() -> BufferBudget {
        BufferBudget::new(0)
    }

    fn take_all<M>(outbox: &mut Outbox<M>) -> String {
        let text = String::from_utf8(outbox.waiting().to_vec()).unwrap();
        outbox.consume(text.len(), &mut memory());
        text
    }

    #[test]
    fn a_tag_is_handed_out_with_the_first_byte() {
        let mut outbox = Outbox::default();
        outbox.push(b"ab", None, &mut memory());
        outbox.push(b"cd", Some(1), &mut memory());
        outbox.consume(3, &mut memory());
        assert_eq!(
            (outbox.next_started(), outbox.first_tag()),
            (None, Some(&1))
        );
        outbox.consume(1, &mut memory());
        assert_eq!(
            (
                outbox.next_started(),
                outbox.next_started(),
                outbox.first_tag()
            ),
            (Some(1), None, None)
        );
        assert_eq!(outbox.waiting(), b"d\n");
    }

    #[test]
    fn lines_taken_back_have_not_started() {
        let mut outbox = Outbox::default();
        for (line, tag) in [
            ("one", Some(1)),
            ("two", None),
            ("three", Some(3)),
            ("four", Some(4)),
            ("five", None),
        ] {
            outbox.push(line.as_bytes(), tag, &mut memory());
        }
        outbox.consume(1, &mut memory());
        assert_eq!(outbox.next_started(), Some(1));
        assert_eq!(outbox.rest_of_started(), b"ne\n");
        outbox.retain_unstarted(|tag| *tag != 3);
        assert_eq!(outbox.tagged_bytes(), "four\n".len());
        assert_eq!(outbox.tags().collect::<Vec<_>>(), [&4]);
        assert_eq!(outbox.rest_of_started(), b"");
        assert_eq!(take_all(&mut outbox), "two\nfour\nfive\n");
        assert_eq!(outbox.next_started(), Some(4));
    }

    #[test]
    fn an_empty_outbox_holds_no_buffer() {
        let mut memory = memory();
        let mut outbox = Outbox::<()>::default();
        outbox.push(b"x", None, &mut memory);
        outbox.consume(2, &mut memory);
        assert_eq!(outbox.capacity(), 0);
        let spare = memory.lend();
        assert!(
            spare.is_empty() && spare.capacity() > 0,
            "the buffer is there for the next"
        );
    }

    #[test]
    fn a_long_line_waits_in_a_large_spare_buffer() {
        let mut memory = memory();
        memory.give_back(Vec::with_capacity(1_000_000));
        let mut outbox = Outbox::<()>::default();
        outbox.push(&vec![b'x'; 100_000], None, &mut memory);
        assert!(outbox.capacity() >= 1_000_000);
        outbox.consume(100_001, &mut memory);
        outbox.push(b"x", None, &mut memory);
        assert!(outbox.capacity() < 1_000, "it is not for a short one");
    }

    #[test]
    fn a_large_buffer_is_not_much_larger_than_what_it_holds() {
        let mut memory = memory();
        let mut outbox = Outbox::<()>::default();
        let line = vec![b'x'; 1_000_000];
        for _ in 0..40 {
            outbox.push(&line, None, &mut memory);
            let allowed = (2 * DOUBLING_BYTES).max(outbox.len() * 5 / 4);
            assert!(outbox.capacity() <= allowed, "{}", outbox.capacity());
        }
    }

    /// What can happen to an outbox.
    #[derive(Debug, Clone)]
    enum Step {
        /// The first line whose tag is divisible by this becomes another one, or none.
        Edit(usize, Option<String>),
        Push(String, bool),
        PushBuffer(String, bool),
        Append(Vec<(String, bool)>),
        Consume(usize),
        Retain(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        let line = || ("[a-z]{0,5}", any::<bool>());
        prop_oneof![
            4 => line().prop_map(|(text, tagged)| Step::Push(text, tagged)),
            2 => line().prop_map(|(text, tagged)| Step::PushBuffer(text, tagged)),
            1 => prop::collection::vec(line(), 0..4).prop_map(Step::Append),
            4 => (0usize..12).prop_map(Step::Consume),
            1 => any::<bool>().prop_map(Step::Retain),
            2 => (1usize..4, prop::option::of("[a-z]{0,5}")).prop_map(|(by, text)| Step::Edit(by, text)),
        ]
    }

    /// A plain list of lines, each with its tag and how much of it was consumed.
    #[derive(Default)]
    struct Model {
        lines: VecDeque<(String, Option<usize>, usize)>,
        started: Vec<usize>,
    }

    impl Model {
        fn consume(&mut self, mut count: usize) {
            while count > 0 {
                let (text, tag, taken) = self.lines.front_mut().unwrap();
                self.started.extend(tag.take());
                let step = count.min(text.len() - *taken);
                *taken += step;
                count -= step;
                if *taken == text.len() {
                    self.lines.pop_front();
                }
            }
        }

        fn retain_unstarted(&mut self, keep_odd: bool) {
            self.lines.retain(|(_, tag, taken)| {
                *taken == 0 && tag.is_none_or(|tag| (tag % 2 == 1) == keep_odd)
            });
        }

        fn edit(&mut self, by: usize, text: Option<String>) {
            let is_meant = |tag: Option<usize>| tag.is_some_and(|tag| tag.is_multiple_of(by));
            match text {
                None => self.lines.retain(|(_, tag, _)| !is_meant(*tag)),
                Some(text) => {
                    let meant = self.lines.iter_mut().filter(|(_, tag, _)| is_meant(*tag));
                    meant.for_each(|line| line.0 = format!("{text}\n"));
                }
            }
        }

        fn text(&self) -> String {
            self.lines
                .iter()
                .map(|(text, _, taken)| &text[*taken..])
                .collect()
        }
    }

    proptest! {
        #[test]
        fn equals_a_list_of_lines(steps in prop::collection::vec(step(), 0..60)) {
            let mut memory = BufferBudget::new(0);
            let mut outbox = Outbox::default();
            let mut model = Model::default();
            let mut next_tag = 0;
            let mut tag = |tagged: bool| {
                next_tag += 1;
                tagged.then_some(next_tag)
            };
            for step in steps {
                match step {
                    Step::Push(text, tagged) => {
                        let tag = tag(tagged);
                        outbox.push(text.as_bytes(), tag, &mut memory);
                        model.lines.push_back((text + "\n", tag, 0));
                    }
                    Step::PushBuffer(text, tagged) => {
                        let (text, tag) = (text + "\n", tag(tagged));
                        outbox.push_buffer(text.clone().into_bytes(), tag, &mut memory);
                        model.lines.push_back((text, tag, 0));
                    }
                    Step::Append(lines) => {
                        let mut other = Outbox::default();
                        for (text, tagged) in lines {
                            let tag = tag(tagged);
                            other.push(text.as_bytes(), tag, &mut memory);
                            model.lines.push_back((text + "\n", tag, 0));
                        }
                        prop_assert!(outbox.append(other, &mut memory).is_none());
                    }
                    Step::Consume(count) => {
                        let count = count.min(outbox.len());
                        outbox.consume(count, &mut memory);
                        model.consume(count);
                        let started: Vec<usize> = std::iter::from_fn(|| outbox.next_started()).collect();
                        prop_assert_eq!(started, std::mem::take(&mut model.started));
                    }
                    Step::Edit(by, text) => {
                        let line = text.clone().map(|text| (text + "\n").into_bytes());
                        let edit = |_: &[u8], tag: usize| match &line {
                            _ if !tag.is_multiple_of(by) => Edit::Keep(tag),
                            Some(line) => Edit::Replace(line.clone(), tag),
                            None => Edit::Drop,
                        };
                        outbox.edit_unstarted(edit, &mut memory);
                        model.edit(by, text);
                    }
                    Step::Retain(keep_odd) => {
                        outbox.retain_unstarted(|tag| (tag % 2 == 1) == keep_odd);
                        model.retain_unstarted(keep_odd);
                    }
                }
                prop_assert_eq!(std::str::from_utf8(outbox.waiting()).unwrap(), model.text());
                let tags: Vec<usize> = model.lines.iter().filter_map(|(_, tag, _)| *tag).collect();
                prop_assert_eq!(outbox.tags().copied().collect::<Vec<_>>(), tags);
            }
        }
    }
}
