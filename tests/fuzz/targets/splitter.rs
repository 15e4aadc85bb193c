//! The splitter against a plain split: a stream cut anywhere gives the lines that it gives in one piece.

use mcp_tcp_proxy::buffers::budget::UNCHARGED_BYTES;
use mcp_tcp_proxy::protocol::lines::{Line, LineLimits, Splitter, TooLong};
use mcp_tcp_proxy::protocol::skip::{SkipScanner, Skipped};

use crate::program::Program;

/// Up to this length, a stream is cut in two at every point.
const MAX_CUT_BYTES: usize = 120;

/// What is left after this many cuts comes in one piece.
const MAX_CUTS: usize = 1_000;

/// A byte that stands for [`BLOCK`] in an input, so that a small one reaches the limits of memory.
const BLOCK_SIGN: u8 = 0x01;

const BLOCK: [u8; 8192] = [b'x'; 8192];

/// It is dropped at the beginning of a stream.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is the same for all ways to cut a stream.
#[derive(Clone, Copy)]
struct Case<'a> {
    stream: &'a [u8],
    max_bytes: usize,
    /// What the buffer may hold beyond what is free.
    budget: usize,
    keeps_cr: bool,
}

/// The input is the longest line, the memory, options and the sizes of the pieces, and then the stream.
pub(crate) fn splitter(input: &[u8]) {
    let mut program = Program(input);
    let (max_bytes, budget) = (program.number(20) as usize, program.number(18) as usize);
    let options = program.byte();
    let sizes = program.bytes();
    let stream = if options & 2 == 0 {
        program.0.to_vec()
    } else {
        expanded(program.0)
    };
    let case = Case {
        stream: &stream,
        max_bytes,
        budget,
        keeps_cr: options & 1 == 1,
    };
    case.check(&[]);
    case.check(&cuts(sizes, stream.len()));
    if stream.len() <= MAX_CUT_BYTES {
        (0..=stream.len()).for_each(|cut| case.check(&[cut]));
        case.check(&(0..=stream.len()).collect::<Vec<_>>());
    }
}

fn expanded(bytes: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for byte in bytes {
        match *byte {
            BLOCK_SIGN => stream.extend_from_slice(&BLOCK),
            other => stream.push(other),
        }
    }
    stream
}

/// Where pieces of such sizes end, over and over. A large byte is a size that is not a power of two.
fn cuts(sizes: &[u8], len: usize) -> Vec<usize> {
    let size = |byte: u8| match byte {
        0..200 => usize::from(byte),
        _ => usize::from(byte - 199) * 1021,
    };
    let mut cuts = Vec::new();
    let mut at = 0;
    for byte in sizes.iter().cycle().take(MAX_CUTS) {
        at += size(*byte);
        if at >= len {
            break;
        }
        cuts.push(at);
    }
    cuts
}

impl Case<'_> {
    fn check(&self, cuts: &[usize]) {
        let mut splitter = if self.keeps_cr {
            Splitter::verbatim()
        } else {
            Splitter::default()
        };
        let mut starts = cuts.to_vec();
        starts.insert(0, 0);
        let mut got = Vec::new();
        for (nth, start) in starts.iter().enumerate() {
            let end = starts.get(nth + 1).copied().unwrap_or(self.stream.len());
            let mut piece = &self.stream[*start..end];
            while let Some(line) = splitter.next(&mut piece, self.limits(&splitter)) {
                got.push(Got::of(line));
            }
            assert!(piece.is_empty());
            let held = splitter.capacity();
            assert!(held <= UNCHARGED_BYTES + self.budget, "{held} bytes");
            assert!(
                held <= UNCHARGED_BYTES.max(self.max_bytes + 2),
                "{held} bytes"
            );
        }
        got.extend(splitter.end(self.limits(&splitter)).map(Got::of));
        assert_eq!(splitter.capacity(), 0);

        let expected = self.expected(cuts);
        assert_eq!(got.len(), expected.len(), "lines, cut at {cuts:?}");
        for (got, expected) in got.iter().zip(expected) {
            expected.check(got);
        }
    }

    fn limits(&self, splitter: &Splitter) -> LineLimits {
        let used = splitter.capacity().saturating_sub(UNCHARGED_BYTES);
        LineLimits {
            max_bytes: self.max_bytes,
            room: self.budget - used,
        }
    }

    fn expected(&self, cuts: &[usize]) -> Vec<Expected<'_>> {
        let mut lines = Vec::new();
        let mut start = if self.stream.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        while start < self.stream.len() {
            let end = self.stream[start..].iter().position(|byte| *byte == b'\n');
            let end = end.map_or(self.stream.len(), |len| start + len);
            let first_cut = cuts.get(cuts.partition_point(|cut| *cut <= start));
            let is_cut = end == self.stream.len() || first_cut.is_some_and(|cut| *cut <= end);
            lines.push(self.line(&self.stream[start..end], is_cut));
            start = end + 1;
        }
        lines
    }

    fn line<'a>(&self, raw: &'a [u8], is_cut: bool) -> Expected<'a> {
        let stripped = raw.strip_suffix(b"\r").unwrap_or(raw);
        let over_limit = stripped.len() > self.max_bytes;
        let over_memory = (is_cut || over_limit) && raw.len() + 1 > UNCHARGED_BYTES + self.budget;
        Expected {
            raw,
            line: if self.keeps_cr { raw } else { stripped },
            over_limit,
            over_memory,
        }
    }
}

struct Expected<'a> {
    raw: &'a [u8],
    line: &'a [u8],
    over_limit: bool,
    over_memory: bool,
}

impl Expected<'_> {
    fn check(&self, got: &Got) {
        match got {
            Got::Line(line) => {
                assert!(
                    !self.over_limit && !self.over_memory,
                    "{} bytes",
                    line.len()
                );
                assert!(*line == self.line, "a line of {} bytes", self.line.len());
            }
            Got::Skipped(skipped, TooLong::Limit) => {
                assert!(self.over_limit);
                assert_eq!(*skipped, scanned(self.raw));
            }
            Got::Skipped(_, TooLong::MemoryShort | TooLong::Stalled) => {
                panic!("no line was given up");
            }
            Got::Skipped(skipped, TooLong::BufferBudget) => {
                assert!(self.over_memory);
                assert_eq!(*skipped, scanned(self.raw));
            }
        }
    }
}

fn scanned(line: &[u8]) -> Skipped {
    let mut scanner = SkipScanner::default();
    scanner.feed(line);
    scanner.finish()
}

enum Got {
    Line(Vec<u8>),
    Skipped(Skipped, TooLong),
}

impl Got {
    fn of(line: Line<'_>) -> Self {
        match line {
            Line::Borrowed(bytes) => Self::Line(bytes.to_vec()),
            Line::Buffered { mut bytes, len } => {
                assert_eq!(bytes[len..], *b"\n");
                bytes.truncate(len);
                Self::Line(bytes)
            }
            Line::Skipped(skipped, why) => Self::Skipped(skipped, why),
        }
    }
}
