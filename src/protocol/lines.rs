//! Cuts a stream of bytes into lines, with a bound on what an unfinished line may cost.
//!
//! A line that is whole in the input is handed out in place. Only one that began in an earlier input is put together in a
//! buffer, and one that is over its bound is skipped to its end without being kept. A byte order mark at the beginning of
//! the stream is dropped: it belongs to no line.

use serde::{Deserialize, Serialize};

use super::skip::{SkipScanner, Skipped};
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::util::defaults::is_default;
use crate::util::side_bytes;

/// U+FEFF in UTF-8, which some programs write before everything else.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What one line may cost.
#[derive(Debug, Clone, Copy)]
pub struct LineLimits {
    /// The longest line, in bytes, without its line end, to which a carriage return belongs.
    pub max_bytes: usize,
    /// How much the buffer may grow beyond [`UNCHARGED_BYTES`], in bytes.
    pub room: usize,
}

/// A line, without its line end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// It is a part of the input.
    Borrowed(&'a [u8]),
    /// It was put together from several inputs. A line feed follows it in the buffer: `bytes[..len]` is the line.
    Buffered {
        /// The line and a line feed.
        bytes: Vec<u8>,
        /// The length of the line.
        len: usize,
    },
    /// It was too long.
    Skipped(Skipped, TooLong),
}

/// Which bound a line was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TooLong {
    /// The longest line.
    Limit,
    /// The memory for unfinished lines.
    BufferBudget,
    /// The same, which others needed.
    MemoryShort,
    /// The time for the next byte.
    Stalled,
}

/// Cuts one stream of bytes. Costs no memory between lines.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Splitter {
    /// Whether a carriage return before the line feed is a part of the line.
    #[serde(default, skip_serializing_if = "is_default")]
    keeps_cr: bool,
    start: Start,
    /// What has come of a line that is not whole, or a buffer that was lent for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    begun: Option<Box<Begun>>,
}

/// A line of which more is to come.
#[derive(Debug, Serialize, Deserialize)]
enum Begun {
    /// It is kept.
    Kept(#[serde(with = "side_bytes")] Vec<u8>),
    /// It is too long.
    Skipped(SkipScanner, TooLong),
}

/// Whether a byte order mark may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Start {
    /// Nothing has come but its first bytes, this many, and perhaps none.
    Undecided(u8),
    /// It has come, or something else.
    Passed,
}

impl Default for Start {
    fn default() -> Self {
        Self::Undecided(0)
    }
}

impl Splitter {
    /// The default drops a carriage return before the line feed; this one keeps it.
    pub fn verbatim() -> Self {
        Self {
            keeps_cr: true,
            ..Self::default()
        }
    }

    /// Takes the next line from the front of `input`, or all of it if no line ends in it.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a call costs half as much as to cut off a line"
    )]
    pub fn next<'a>(&mut self, input: &mut &'a [u8], limits: LineLimits) -> Option<Line<'a>> {
        if self.start != Start::Passed {
            self.drop_byte_order_mark(input, limits);
        }
        let Some(end) = memchr::memchr(b'\n', input) else {
            self.keep_all(input, limits);
            return None;
        };
        let (piece, rest) = (&input[..end], &input[end + 1..]);
        *input = rest;
        // With a carriage return, it may be a byte longer than its content.
        if self.is_between_lines() && piece.len() <= limits.max_bytes {
            return Some(Line::Borrowed(self.content(piece)));
        }
        Some(self.finish_with(piece, limits))
    }

    #[inline(never)]
    fn keep_all(&mut self, input: &mut &[u8], limits: LineLimits) {
        if !input.is_empty() {
            self.keep(std::mem::take(input), limits);
        }
    }

    /// Ends the stream: what has no line end is a line too, if there is anything.
    pub fn end(&mut self, limits: LineLimits) -> Option<Line<'static>> {
        self.keep_undecided(limits);
        if self.is_between_lines() {
            None
        } else {
            Some(self.finish(limits))
        }
    }

    /// Forgets an unfinished line. What comes next is the beginning of another stream.
    pub fn clear(&mut self) {
        *self = Self {
            keeps_cr: self.keeps_cr,
            ..Self::default()
        };
    }

    /// Takes what has come of an unfinished line that is not skipped.
    pub fn take_begun(&mut self) -> Vec<u8> {
        self.take_buffer()
    }

    /// Gives a buffer for the next line that has to be put together. No line has begun.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        debug_assert!(self.is_between_lines());
        self.begun = (buffer.capacity() > 0).then(|| Box::new(Begun::Kept(buffer)));
    }

    /// Whether no line has begun.
    pub fn is_between_lines(&self) -> bool {
        match self.begun {
            None => !self.is_undecided(),
            Some(_) => self.has_nothing(),
        }
    }

    fn is_undecided(&self) -> bool {
        !matches!(self.start, Start::Passed | Start::Undecided(0))
    }

    /// The same where there is a buffer, which is empty before a line begins.
    #[inline(never)]
    fn has_nothing(&self) -> bool {
        !self.is_skipping() && self.buffer().is_empty() && !self.is_undecided()
    }

    fn is_skipping(&self) -> bool {
        matches!(self.begun.as_deref(), Some(Begun::Skipped(..)))
    }

    /// What is kept of the line that has begun.
    fn buffer(&self) -> &[u8] {
        match self.begun.as_deref() {
            Some(Begun::Kept(buffer)) => buffer,
            Some(Begun::Skipped(..)) | None => &[],
        }
    }

    /// Takes it. A line that is skipped goes on to be.
    fn take_buffer(&mut self) -> Vec<u8> {
        let is_kept = |begun: &mut Box<Begun>| matches!(**begun, Begun::Kept(_));
        match self.begun.take_if(is_kept).map(|begun| *begun) {
            Some(Begun::Kept(buffer)) => buffer,
            Some(Begun::Skipped(..)) | None => Vec::new(),
        }
    }

    /// Takes back a buffer that was lent and is not needed.
    pub fn take_back(&mut self) -> Vec<u8> {
        if self.buffer().is_empty() {
            self.take_buffer()
        } else {
            Vec::new()
        }
    }

    /// Whether an unfinished line needs a larger buffer for this many bytes more.
    pub fn would_grow(&self, more: usize) -> bool {
        !self.is_skipping() && self.buffered() + more >= self.capacity()
    }

    /// Goes on in this buffer if it is larger than the one that an unfinished line is in. Returns the other one.
    pub fn move_into(&mut self, mut buffer: Vec<u8>) -> Vec<u8> {
        match self.begun.as_deref_mut() {
            Some(Begun::Kept(begun)) if begun.capacity() < buffer.capacity() => {
                buffer.extend_from_slice(begun);
                std::mem::replace(begun, buffer)
            }
            _ => buffer,
        }
    }

    /// Whether more than this many bytes of an unfinished line have come.
    pub fn is_within_line(&self, bytes: usize) -> bool {
        self.begun.is_some() && (self.is_skipping() || self.buffered() > bytes)
    }

    /// How many bytes of an unfinished line are kept.
    pub fn buffered(&self) -> usize {
        self.buffer().len()
    }

    /// Lets go of what is kept of an unfinished line. The rest of it is skipped.
    pub fn give_up(&mut self, why: TooLong) {
        if !self.buffer().is_empty() {
            self.skip(why);
        }
    }

    /// Skips the line that is under way, or is next, to its end.
    pub fn skip_line(&mut self, why: TooLong) {
        if !self.is_skipping() {
            self.skip(why);
        }
    }

    /// The memory that an unfinished line holds, in bytes.
    pub fn capacity(&self) -> usize {
        match self.begun.as_deref() {
            Some(Begun::Kept(buffer)) => buffer.capacity(),
            Some(Begun::Skipped(..)) | None => 0,
        }
    }

    /// Takes a byte order mark, or what may be the beginning of one, from the front of `input`.
    #[cold]
    fn drop_byte_order_mark(&mut self, input: &mut &[u8], limits: LineLimits) {
        let Start::Undecided(begun) = self.start else {
            return;
        };
        let expected = &BYTE_ORDER_MARK[usize::from(begun)..];
        if let Some(rest) = input.strip_prefix(expected) {
            *input = rest;
            self.start = Start::Passed;
        } else if expected.starts_with(input) {
            self.start = Start::Undecided(begun + input.len() as u8);
            *input = &[];
        } else {
            self.keep_undecided(limits);
        }
    }

    /// What looked like the beginning of a byte order mark is the beginning of a line.
    fn keep_undecided(&mut self, limits: LineLimits) {
        if let Start::Undecided(begun) = std::mem::replace(&mut self.start, Start::Passed)
            && begun > 0
        {
            self.keep(&BYTE_ORDER_MARK[..usize::from(begun)], limits);
        }
    }

    #[inline(never)]
    fn finish_with<'a>(&mut self, piece: &'a [u8], limits: LineLimits) -> Line<'a> {
        if self.is_between_lines() && without_cr(piece).len() <= limits.max_bytes {
            return Line::Borrowed(self.content(piece));
        }
        self.keep(piece, limits);
        self.finish(limits)
    }

    fn finish(&mut self, limits: LineLimits) -> Line<'static> {
        let len = self.content(self.buffer()).len();
        if without_cr(self.buffer()).len() > limits.max_bytes {
            self.skip(TooLong::Limit);
        }
        let mut bytes = match self.begun.take().map(|begun| *begun) {
            Some(Begun::Skipped(scanner, why)) => return Line::Skipped(scanner.finish(), why),
            Some(Begun::Kept(bytes)) => bytes,
            None => Vec::new(),
        };
        bytes.truncate(len);
        bytes.push(b'\n');
        Line::Buffered { bytes, len }
    }

    fn content<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        if self.keeps_cr {
            line
        } else {
            without_cr(line)
        }
    }

    fn keep(&mut self, piece: &[u8], limits: LineLimits) {
        let new = || Box::new(Begun::Kept(Vec::new()));
        let why = match &mut **self.begun.get_or_insert_with(new) {
            Begun::Skipped(scanner, _) => return scanner.feed(piece),
            Begun::Kept(buffer) => match reserve(buffer, piece.len(), limits) {
                Ok(()) => return buffer.extend_from_slice(piece),
                Err(why) => why,
            },
        };
        self.skip(why);
        self.keep(piece, limits);
    }

    fn skip(&mut self, why: TooLong) {
        let mut scanner = SkipScanner::default();
        scanner.feed(&self.take_buffer());
        self.begun = Some(Box::new(Begun::Skipped(scanner, why)));
    }
}

/// Makes room for more of the line, and for the line feed that ends it.
fn reserve(buffer: &mut Vec<u8>, more: usize, limits: LineLimits) -> Result<(), TooLong> {
    let longest = limits.max_bytes + "\r\n".len();
    let needed = buffer.len() + more + "\n".len();
    if needed > longest {
        return Err(TooLong::Limit);
    }
    let capacity = buffer.capacity();
    if needed <= capacity {
        return Ok(());
    }
    let allowed = capacity.max(UNCHARGED_BYTES) + limits.room;
    if needed > allowed {
        return Err(TooLong::BufferBudget);
    }
    // Doubling saves copies, but no line is refused for it.
    let wanted = needed.max((capacity * 2).min(longest).min(allowed));
    let reserved = buffer.try_reserve_exact(wanted - buffer.len());
    // The system may have less than the budget allows.
    reserved.map_err(|_| TooLong::BufferBudget)
}

fn without_cr(line: &[u8]) -> &[u8] {
    match line {
        [content @ .., b'\r'] => content,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOMY: LineLimits = LineLimits {
        max_bytes: 1 << 20,
        room: 1 << 20,
    };

    /// What came out: the line, or the text of the id of a skipped one.
    #[derive(Debug, PartialEq, Eq)]
    enum Out {
        Line(Vec<u8>),
        Skipped(Option<String>, TooLong),
    }

    fn out(line: Line<'_>) -> Out {
        match line {
            Line::Borrowed(bytes) => Out::Line(bytes.to_vec()),
            Line::Buffered { bytes, len } => {
                assert_eq!(bytes[len..], *b"\n");
                Out::Line(bytes[..len].to_vec())
            }
            Line::Skipped(skipped, why) => Out::Skipped(skipped.id.map(|id| id.to_string()), why),
        }
    }

    fn split(pieces: &[&[u8]], limits: LineLimits) -> Vec<Out> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for mut piece in pieces.iter().copied() {
            while let Some(line) = splitter.next(&mut piece, limits) {
                lines.push(out(line));
            }
            assert!(piece.is_empty());
            assert!(splitter.buffered() <= limits.max_bytes + 2);
        }
        lines.extend(splitter.end(limits).map(out));
        assert_eq!(splitter.capacity(), 0);
        lines
    }

    fn line(text: &str) -> Out {
        Out::Line(text.as_bytes().to_vec())
    }

    #[test]
    fn an_unfinished_line_can_go_on_in_a_larger_buffer() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.next(&mut &b"abc"[..], ROOMY), None);
        assert!(splitter.would_grow(1000) && !splitter.would_grow(0));
        let small = splitter.move_into(Vec::new());
        assert_eq!(small.capacity(), 0, "that one is not larger");
        splitter.move_into(Vec::with_capacity(2000));
        assert!(!splitter.would_grow(1000) && splitter.capacity() >= 2000);
        let line = splitter.next(&mut &b"d\n"[..], ROOMY);
        let bytes = b"abcd\n".to_vec();
        assert_eq!(line, Some(Line::Buffered { bytes, len: 4 }));
    }

    #[test]
    fn line_ends() {
        assert_eq!(
            split(&[b"a\r\nb\r\r\n\n\r\nc"], ROOMY),
            [line("a"), line("b\r"), line(""), line(""), line("c")]
        );
        assert_eq!(
            split(&[b"a\r", b"\nb", b"\r", b"c\n"], ROOMY),
            [line("a"), line("b\rc")]
        );
    }

    #[test]
    fn a_byte_order_mark_at_the_beginning_is_dropped_wherever_it_is_cut() {
        const MARK: &str = "\u{feff}";
        for (stream, expected) in [
            (format!("{MARK}a\nb\n"), vec![line("a"), line("b")]),
            (format!("{MARK}\na\n"), vec![line(""), line("a")]),
            (format!("{MARK}{MARK}a\n"), vec![line(&format!("{MARK}a"))]),
            (
                format!("a\n{MARK}b\n"),
                vec![line("a"), line(&format!("{MARK}b"))],
            ),
            (format!("a{MARK}\n"), vec![line(&format!("a{MARK}"))]),
            (MARK.to_owned(), vec![]),
            ("\u{fefe}\n".to_owned(), vec![line("\u{fefe}")]),
            (format!("{MARK}1234"), vec![line("1234")]),
        ] {
            let limits = LineLimits {
                max_bytes: 4,
                room: 0,
            };
            let bytes = stream.as_bytes();
            for a in 0..=bytes.len() {
                for b in a..=bytes.len() {
                    let pieces = [&bytes[..a], &bytes[a..b], &bytes[b..]];
                    assert_eq!(split(&pieces, limits), expected, "{stream:?} {a} {b}");
                }
            }
        }
    }

    #[test]
    fn a_part_of_a_byte_order_mark_is_a_line_like_any_other() {
        for stream in [
            &b"\xef"[..],
            b"\xef\xbb",
            b"\xef\xbbx",
            b"\xefx",
            b"\xef\xef\xbb\xbf",
        ] {
            for cut in 0..=stream.len() {
                let pieces = [&stream[..cut], &stream[cut..]];
                assert_eq!(split(&pieces, ROOMY), [Out::Line(stream.to_vec())]);
            }
        }
        let mut splitter = Splitter::default();
        assert!(splitter.next(&mut &b"\xef\xbb"[..], ROOMY).is_none());
        assert!(!splitter.is_between_lines());
        splitter.clear();
        let mut input: &[u8] = b"\xef\xbb\xbfa\n";
        assert_eq!(splitter.next(&mut input, ROOMY).map(out), Some(line("a")));
    }

    #[test]
    fn verbatim_lines_keep_their_carriage_returns() {
        let mut splitter = Splitter::verbatim();
        let mut input: &[u8] = b"a\r\nb\r";
        assert_eq!(splitter.next(&mut input, ROOMY).map(out), Some(line("a\r")));
        assert_eq!(splitter.next(&mut input, ROOMY).map(out), None);
        assert_eq!(
            splitter.next(&mut &b"\n"[..], ROOMY).map(out),
            Some(line("b\r"))
        );
    }

    #[test]
    fn the_limit_counts_the_line_alone() {
        let limits = LineLimits {
            max_bytes: 4,
            room: 0,
        };
        for pieces in [
            &[&b"1234\n"[..]][..],
            &[b"1234\r\n"],
            &[b"1234", b"\n"],
            &[b"12", b"34\r", b"\n"],
        ] {
            assert_eq!(split(pieces, limits), [line("1234")], "{pieces:?}");
        }
        for pieces in [
            &[&b"12345\nok\n"[..]][..],
            &[b"12345\r\nok\n"],
            &[b"1234", b"5\nok\n"],
            &[b"1234\r", b"5\nok\n"],
        ] {
            assert_eq!(
                split(pieces, limits),
                [Out::Skipped(None, TooLong::Limit), line("ok")],
                "{pieces:?}"
            );
        }
    }

    #[test]
    fn a_skipped_line_still_tells_its_id() {
        let limits = LineLimits {
            max_bytes: 10,
            room: 0,
        };
        let whole = br#"{"method":"m","id":77}"#;
        for cut in 0..=whole.len() {
            let (a, b) = whole.split_at(cut);
            let expected = [Out::Skipped(Some("77".into()), TooLong::Limit), line("x")];
            assert_eq!(split(&[a, b, b"\nx\n"], limits), expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_that_was_given_up_is_skipped_and_tells_its_id() {
        let mut splitter = Splitter::default();
        splitter.give_up(TooLong::Stalled);
        assert!(splitter.is_between_lines());
        let mut input: &[u8] = b"{\"id\":7,\"meth";
        assert!(splitter.next(&mut input, ROOMY).is_none());
        assert_eq!(splitter.buffered(), 13);
        splitter.give_up(TooLong::Stalled);
        splitter.give_up(TooLong::MemoryShort);
        assert_eq!((splitter.buffered(), splitter.capacity()), (0, 0));
        let mut input: &[u8] = b"od\":\"m\"}\nx\n";
        let skipped = Out::Skipped(Some("7".into()), TooLong::Stalled);
        assert_eq!(splitter.next(&mut input, ROOMY).map(out), Some(skipped));
        assert_eq!(splitter.next(&mut input, ROOMY).map(out), Some(line("x")));
    }

    #[test]
    fn without_memory_a_long_line_is_skipped() {
        let long = vec![b'x'; UNCHARGED_BYTES + 1];
        let poor = LineLimits {
            max_bytes: 1 << 20,
            room: 0,
        };
        assert_eq!(
            split(&[&long, b"\n"], poor),
            [Out::Skipped(None, TooLong::BufferBudget)]
        );
        assert_eq!(split(&[&long, b"\n"], ROOMY), [Out::Line(long)]);
    }

    #[test]
    fn a_line_that_fits_is_not_refused_for_the_room_to_grow() {
        let poor = LineLimits {
            max_bytes: 1 << 20,
            room: 10,
        };
        let longest = UNCHARGED_BYTES + poor.room - "\n".len();
        let long = vec![b'x'; longest + 1];
        for first in [1, 40_000, UNCHARGED_BYTES - 1] {
            for (len, fits) in [(longest, true), (longest + 1, false)] {
                let (a, b) = long[..len].split_at(first);
                let lines = split(&[a, b, b"\n"], poor);
                let refused = [Out::Skipped(None, TooLong::BufferBudget)];
                assert_eq!(lines != refused, fits, "{len} bytes, cut at {first}");
            }
        }
    }

    proptest! {
        #[test]
        fn equals_a_plain_split_at_every_cut(
            text in "[ab\r\n]{0,60}",
            cuts in prop::collection::vec(0usize..60, 0..8),
            max_bytes in 0usize..12,
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let mut expected: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            if expected.last().is_some_and(|last| last.is_empty()) {
                expected.pop();
            }
            let expected: Vec<Out> = expected
                .into_iter()
                .map(|line| {
                    let line = without_cr(line);
                    if line.len() > max_bytes { Out::Skipped(None, TooLong::Limit) } else { Out::Line(line.to_vec()) }
                })
                .collect();
            prop_assert_eq!(split(&pieces, LineLimits { max_bytes, room: 0 }), expected);
        }
    }
}
