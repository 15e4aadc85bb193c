//! Changes to a line: values are replaced and members taken out where they are. All else stays as it was, byte by byte.

use std::ops::Range;

use crate::protocol::strict::Member;

/// Changes to one line, in any order, none of which overlaps another.
#[derive(Debug, Default)]
pub(super) struct Edits<'a> {
    splices: Vec<(Range<usize>, &'a [u8])>,
}

impl<'a> Edits<'a> {
    /// Puts this in the place of a value.
    pub(super) fn replace(&mut self, value: Range<usize>, by: &'a [u8]) {
        self.splices.push((value, by));
    }

    /// Takes a member out, and a comma with it.
    pub(super) fn remove(&mut self, line: &[u8], member: &Member) {
        self.splices.push((with_comma(line, member), b""));
    }

    /// The line with the changes made, and a line end.
    pub(super) fn apply(mut self, line: &[u8]) -> Vec<u8> {
        self.splices.sort_by_key(|(range, _)| range.start);
        let more: usize = self.splices.iter().map(|(_, by)| by.len()).sum();
        let mut edited = Vec::with_capacity(line.len() + more + 1);
        let mut at = 0;
        for (range, by) in self.splices {
            debug_assert!(at <= range.start && range.end <= line.len());
            edited.extend_from_slice(&line[at..range.start]);
            edited.extend_from_slice(by);
            at = range.end;
        }
        edited.extend_from_slice(&line[at..]);
        edited.push(b'\n');
        edited
    }
}

/// A member with the comma after it, or with the one before it if it is the last.
fn with_comma(line: &[u8], member: &Member) -> Range<usize> {
    let after = &line[member.value.end..];
    let blanks = after.len() - after.trim_ascii_start().len();
    if after.get(blanks) == Some(&b',') {
        return member.start..member.value.end + blanks + 1;
    }
    let before = line[..member.start].trim_ascii_end();
    let start = match before.strip_suffix(b",") {
        Some(rest) => rest.len(),
        None => member.start,
    };
    start..member.value.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::strict;

    fn without_x(line: &str) -> String {
        let [x] = strict::members(line.as_bytes(), 0..line.len(), ["x"]).unwrap();
        let mut edits = Edits::default();
        edits.remove(line.as_bytes(), &x.unwrap());
        String::from_utf8(edits.apply(line.as_bytes())).unwrap()
    }

    #[test]
    fn a_member_goes_with_one_comma() {
        for (line, left) in [
            (r#"{"x":1}"#, "{}\n"),
            (r#"{ "x" : [1,2] }"#, "{  }\n"),
            (r#"{"x":1,"a":2}"#, "{\"a\":2}\n"),
            (r#"{ "x": 1 , "a":2}"#, "{  \"a\":2}\n"),
            (r#"{"a":2,"x":1}"#, "{\"a\":2}\n"),
            (r#"{"a":2 , "x":"," }"#, "{\"a\":2  }\n"),
            (r#"{"a":2,"x":1,"b":3}"#, "{\"a\":2,\"b\":3}\n"),
        ] {
            assert_eq!(without_x(line), left, "{line}");
        }
    }
}
