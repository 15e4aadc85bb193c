//! What comes over a connection, cut into what is for the session and what is about the connection itself. Lines for the
//! session are counted, and passed on where they lie.

use serde::{Deserialize, Serialize};

use super::wire::{self, Side};
use crate::protocol::envelope::Control;
use crate::util::side_bytes;

/// A longer line is no control line, in bytes: real ones have some hundred. So what has come of a line that is not finished
/// need not be kept for long.
pub const MAX_CONTROL_BYTES: usize = 8 * 1024;

/// A part of what came.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Lines for the session; the last may not be finished.
    Lines(&'a [u8]),
    /// The same, put together.
    Joined(Vec<u8>),
    /// A control line, without its line end.
    Control(Control, Vec<u8>),
}

/// Cuts and counts.
#[derive(Debug, Serialize, Deserialize)]
pub struct Intake {
    /// Who sends.
    from: Side,
    /// How many counted lines were read whole.
    taken: u64,
    /// What has come of a line that may be a control line.
    #[allow(
        clippy::box_collection,
        reason = "an idle session is to cost a pointer"
    )]
    #[serde(with = "side_bytes::boxed")]
    begun: Option<Box<Vec<u8>>>,
    /// Whether the session has been handed the beginning of a line.
    is_within_line: bool,
}

impl Intake {
    /// Lines come from there.
    pub fn new(from: Side) -> Self {
        Self {
            from,
            taken: 0,
            begun: None,
            is_within_line: false,
        }
    }

    /// How many counted lines were read whole.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes the next part from the front of `input`; `None` when all is taken.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        if input.is_empty() {
            return None;
        }
        if let Some(begun) = self.begun.take() {
            return self.go_on_with(*begun, input);
        }
        let all = *input;
        let mut at = 0;
        for end in memchr::memchr_iter(b'\n', all) {
            if std::mem::take(&mut self.is_within_line) {
                self.taken += 1;
            } else if let Some(control) = self.control(&all[at..end]) {
                if at > 0 {
                    *input = &all[at..];
                    return Some(Piece::Lines(&all[..at]));
                }
                *input = &all[end + 1..];
                return Some(Piece::Control(control, all[..end].to_vec()));
            } else {
                self.taken += 1;
            }
            at = end + 1;
        }
        *input = &[];
        let rest = &all[at..];
        if rest.is_empty() || self.is_within_line {
            return Some(Piece::Lines(all));
        }
        if rest.len() > MAX_CONTROL_BYTES {
            self.is_within_line = true;
            return Some(Piece::Lines(all));
        }
        self.begun = Some(Box::new(rest.to_vec()));
        (at > 0).then_some(Piece::Lines(&all[..at]))
    }

    fn go_on_with<'a>(&mut self, mut line: Vec<u8>, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        let end = memchr::memchr(b'\n', input);
        let (piece, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
        *input = rest;
        line.extend_from_slice(piece);
        if end.is_none() {
            if line.len() <= MAX_CONTROL_BYTES {
                self.begun = Some(Box::new(line));
                return None;
            }
            self.is_within_line = true;
            return Some(Piece::Joined(line));
        }
        if let Some(control) = self.control(&line[..line.len() - 1]) {
            line.pop();
            return Some(Piece::Control(control, line));
        }
        self.taken += 1;
        Some(Piece::Joined(line))
    }

    fn control(&self, line: &[u8]) -> Option<Control> {
        if line.len() > MAX_CONTROL_BYTES {
            return None;
        }
        wire::control(line, self.from)
    }

    /// Whether a line is under way.
    pub fn has_begun(&self) -> bool {
        self.begun.is_some() || self.is_within_line
    }

    /// Takes what has come of an unfinished line and was not passed on.
    pub fn take_begun(&mut self) -> Vec<u8> {
        self.begun.take().map_or_else(Vec::new, |begun| *begun)
    }

    /// The connection is gone: an unfinished line is no line.
    pub fn reset(&mut self) {
        self.begun = None;
        self.is_within_line = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is for the session, how many control lines came, and how many lines were counted.
    fn taken(pieces: &[&[u8]]) -> (Vec<u8>, usize, u64) {
        let mut intake = Intake::new(Side::Client);
        let (mut lines, mut controls) = (Vec::new(), 0);
        for piece in pieces {
            let mut input = *piece;
            while !input.is_empty() {
                match intake.next(&mut input) {
                    Some(Piece::Lines(bytes)) => lines.extend_from_slice(bytes),
                    Some(Piece::Joined(bytes)) => lines.extend_from_slice(&bytes),
                    Some(Piece::Control(Control::Heartbeat, line)) => {
                        assert!(!line.contains(&b'\n'));
                        controls += 1;
                    }
                    Some(Piece::Control(other, _)) => panic!("{other:?}"),
                    None => {}
                }
            }
        }
        (lines, controls, intake.taken())
    }

    #[test]
    fn control_lines_are_taken_out_and_all_others_are_counted_wherever_they_are_cut() {
        let long = format!("{{\"x\":\"{}\"}}\n", "y".repeat(9000));
        let text = format!(
            "{{\"id\":1}}\n{{\"type\":\"heartbeat\"}}\n\n{{\"type\":\"heartbeat\",\"lines\":3}}\r\n{long}nonsense\n"
        );
        let bytes = text.as_bytes();
        let expected = format!("{{\"id\":1}}\n\n{long}nonsense\n").into_bytes();
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(taken(&[a, b]), (expected.clone(), 2, 4), "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(taken(&single), (expected, 2, 4));
    }

    #[test]
    fn an_unfinished_line_is_not_counted_and_is_forgotten_with_the_connection() {
        let mut intake = Intake::new(Side::Client);
        let mut input = &b"{\"a\":1}\n{\"b\""[..];
        assert_eq!(intake.next(&mut input), Some(Piece::Lines(b"{\"a\":1}\n")));
        assert_eq!((intake.next(&mut input), intake.taken()), (None, 1));
        intake.reset();
        let mut input = &b":2}\n"[..];
        assert_eq!(intake.next(&mut input), Some(Piece::Lines(b":2}\n")));
        let long = vec![b'x'; MAX_CONTROL_BYTES + 1];
        let mut input = &long[..];
        assert_eq!(intake.next(&mut input), Some(Piece::Lines(&long)));
        intake.reset();
        let mut input = &b"{\"type\":\"heartbeat\"}\n"[..];
        let control = intake.next(&mut input);
        assert!(matches!(control, Some(Piece::Control(..))) && intake.taken() == 2);
    }

    proptest! {
        #[test]
        fn equals_a_plain_split(
            lines in prop::collection::vec(prop_oneof![
                Just(r#"{"type":"heartbeat","lines":1}"#.to_owned()),
                Just(String::new()),
                "[a-z]{0,12}",
                Just("z".repeat(MAX_CONTROL_BYTES + 3)),
            ], 0..12),
            cuts in prop::collection::vec(0usize..20_000, 0..10),
        ) {
            let joined = |lines: &[&String]| lines.iter().fold(String::new(), |all, line| all + line + "\n");
            let text = joined(&lines.iter().collect::<Vec<_>>());
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let counted: Vec<&String> = lines.iter().filter(|line| !line.starts_with('{')).collect();
            let expected = joined(&counted);
            let (found, controls, count) = taken(&pieces);
            prop_assert_eq!(found, expected.into_bytes());
            prop_assert_eq!((controls, count), (lines.len() - counted.len(), counted.len() as u64));
        }
    }
}
