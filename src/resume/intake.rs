//! What comes over a connection, cut into what is for the session and what is about the connection itself. Lines for the
//! session are counted, and passed on where they lie.

use std::ops::Range;

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

/// Cuts and counts. Between lines, it costs next to nothing.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Intake {
    /// How many counted lines were read whole.
    taken: u64,
    begun: Option<Box<Begun>>,
}

/// What has come of a line.
#[derive(Debug, Serialize, Deserialize)]
enum Begun {
    /// This, and it may be a control line.
    Held(#[serde(with = "side_bytes")] Vec<u8>),
    /// The session has been handed it.
    PassedOn,
}

impl Intake {
    /// How many counted lines were read whole.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes the next part from the front of `input`, which is from there; `None` when all is taken.
    pub fn next<'a>(&mut self, input: &mut &'a [u8], from: Side) -> Option<Piece<'a>> {
        if input.is_empty() {
            return None;
        }
        if let Some(Begun::Held(line)) = self.begun.as_deref_mut() {
            let line = std::mem::take(line);
            self.begun = None;
            return self.go_on_with(line, input, from);
        }
        let all = *input;
        let begin = if self.begun.is_some() {
            memchr::memchr(b'\n', all).map_or(all.len(), |end| end + 1)
        } else {
            0
        };
        let found = find_control(all, begin, from);
        // The end of the line that had begun is one of them.
        self.count(found.lines + u64::from(all[..begin].ends_with(b"\n")));
        if let Some((control, end)) = found.control {
            if found.at > 0 {
                *input = &all[found.at..];
                return Some(Piece::Lines(&all[..found.at]));
            }
            *input = &all[end + 1..];
            return Some(Piece::Control(control, all[..end].to_vec()));
        }
        *input = &[];
        let (at, rest) = (found.at, &all[found.at..]);
        if rest.is_empty() || self.begun.is_some() {
            return Some(Piece::Lines(all));
        }
        if rest.len() > MAX_CONTROL_BYTES {
            self.begun = Some(Box::new(Begun::PassedOn));
            return Some(Piece::Lines(all));
        }
        self.begun = Some(Box::new(Begun::Held(rest.to_vec())));
        (at > 0).then_some(Piece::Lines(&all[..at]))
    }

    /// This many lines for the session have come to their ends.
    fn count(&mut self, lines: u64) {
        if lines > 0 {
            self.begun = None;
            self.taken += lines;
        }
    }

    fn go_on_with<'a>(
        &mut self,
        mut line: Vec<u8>,
        input: &mut &'a [u8],
        from: Side,
    ) -> Option<Piece<'a>> {
        let end = memchr::memchr(b'\n', input);
        let (piece, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
        *input = rest;
        line.extend_from_slice(piece);
        if end.is_none() {
            if line.len() <= MAX_CONTROL_BYTES {
                self.begun = Some(Box::new(Begun::Held(line)));
                return None;
            }
            self.begun = Some(Box::new(Begun::PassedOn));
            return Some(Piece::Joined(line));
        }
        if let Some(control) = control(&line[..line.len() - 1], from) {
            line.pop();
            return Some(Piece::Control(control, line));
        }
        self.taken += 1;
        Some(Piece::Joined(line))
    }

    /// Whether a line is under way.
    pub fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Takes what has come of an unfinished line and was not passed on.
    pub fn take_begun(&mut self) -> Vec<u8> {
        let begun = self.begun.as_deref_mut();
        let line = begun.map(|begun| std::mem::replace(begun, Begun::PassedOn));
        match line {
            Some(Begun::Held(line)) => line,
            Some(Begun::PassedOn) | None => Vec::new(),
        }
    }

    /// The connection is gone: an unfinished line is no line.
    pub fn reset(&mut self) {
        self.begun = None;
    }
}

/// What was found in a part of what came.
struct Found {
    /// How many other lines there are before it.
    lines: u64,
    /// Where these end.
    at: usize,
    /// The first control line, which begins there, and where it ends.
    control: Option<(Control, usize)>,
}

/// Looks for a control line after `begin`, which is not within a line. Each part is looked through while it is at hand.
fn find_control(all: &[u8], begin: usize, from: Side) -> Found {
    let (mut lines, mut at) = (0, begin);
    let mut control = None;
    loop {
        let near = at + (all.len() - at).min(MAX_CONTROL_BYTES + 1);
        if let Some(last) = memchr::memrchr(b'\n', &all[at..near]) {
            let mut short = &all[at..=at + last];
            if let Some((found, line)) = find_among_short(short, from) {
                control = Some((found, at + line.end));
                short = &short[..line.start];
            }
            lines += memchr::memchr_iter(b'\n', short).count() as u64;
            at += short.len();
            if control.is_some() {
                break;
            }
        } else if let Some(end) = memchr::memchr(b'\n', &all[near..]) {
            // A line that is as long as that is none.
            lines += 1;
            at = near + end + 1;
        } else {
            break;
        }
    }
    Found { lines, at, control }
}

/// The first control line among these lines, none of which is very long, and where it is.
fn find_among_short(text: &[u8], from: Side) -> Option<(Control, Range<usize>)> {
    let mut suspects = wire::Suspects::new(text);
    let mut at = 0;
    while let Some(suspect) = suspects.next_from(at) {
        let start = memchr::memrchr(b'\n', &text[at..suspect]).map_or(at, |end| at + end + 1);
        let end = suspect + memchr::memchr(b'\n', &text[suspect..])?;
        if let Some(control) = control(&text[start..end], from) {
            return Some((control, start..end));
        }
        at = end + 1;
    }
    None
}

fn control(line: &[u8], from: Side) -> Option<Control> {
    let may_be_one = line.len() <= MAX_CONTROL_BYTES;
    may_be_one.then(|| wire::control(line, from)).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is for the session, how many control lines came, and how many lines were counted.
    fn taken(pieces: &[&[u8]]) -> (Vec<u8>, usize, u64) {
        let mut intake = Intake::default();
        let (mut lines, mut controls) = (Vec::new(), 0);
        for piece in pieces {
            let mut input = *piece;
            while !input.is_empty() {
                match intake.next(&mut input, Side::Client) {
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
        let mut intake = Intake::default();
        let mut input = &b"{\"a\":1}\n{\"b\""[..];
        assert_eq!(
            intake.next(&mut input, Side::Client),
            Some(Piece::Lines(b"{\"a\":1}\n"))
        );
        assert_eq!(
            (intake.next(&mut input, Side::Client), intake.taken()),
            (None, 1)
        );
        intake.reset();
        let mut input = &b":2}\n"[..];
        assert_eq!(
            intake.next(&mut input, Side::Client),
            Some(Piece::Lines(b":2}\n"))
        );
        let long = vec![b'x'; MAX_CONTROL_BYTES + 1];
        let mut input = &long[..];
        assert_eq!(
            intake.next(&mut input, Side::Client),
            Some(Piece::Lines(&long))
        );
        intake.reset();
        let mut input = &b"{\"type\":\"heartbeat\"}\n"[..];
        let control = intake.next(&mut input, Side::Client);
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
