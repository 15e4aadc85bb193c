//! Reads lines so that nobody can read them otherwise: a line that is shared out by its members must not mean one thing to
//! the proxy and another to the server.
//!
//! JSON readers disagree about two members of one name, about names that differ in case (Go's reader takes `"ID"` for
//! `id`), about lone surrogates, about Python's constants and about how deep they go. All that is refused here.

use std::ops::Range;

use super::json::Reader;
use super::json::text::Text;

/// The deepest nesting. Readers give up at some depth, each at its own; of the usual ones none before this.
pub const MAX_DEPTH: usize = 64;

/// Why a line can't be read in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loose {
    /// It has one of the constants `NaN`, `Infinity` and `-Infinity`.
    Constant,
    /// A string has an escape for a half of a character.
    Surrogate,
    /// It is nested deeper than [`MAX_DEPTH`].
    Depth,
}

impl Loose {
    /// What is wrong, in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Constant => "NaN and Infinity are not JSON",
            Self::Surrogate => "a string has a lone surrogate",
            Self::Depth => "the line is nested too deep: the limit is 64 levels",
        }
    }
}

/// Two members of an object have one name, or names that some readers take for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubled;

/// A member of an object in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where the quotation mark before its name is.
    pub start: usize,
    /// Where its value is.
    pub value: Range<usize>,
}

/// Makes sure that a line, which is valid for `json`, has nothing in it about which readers disagree.
pub fn check(line: &[u8]) -> Result<(), Loose> {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = line.get(at) {
        at += 1;
        match byte {
            b'"' => at = after_string(line, at)?,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Loose::Depth);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'N' | b'I' => return Err(Loose::Constant),
            _ => {}
        }
    }
    Ok(())
}

/// What follows a string whose opening quotation mark is before `at`.
fn after_string(line: &[u8], mut at: usize) -> Result<usize, Loose> {
    loop {
        let rest = line.get(at..).unwrap_or_default();
        let Some(found) = memchr::memchr2(b'"', b'\\', rest) else {
            return Ok(line.len());
        };
        at += found + 1;
        if rest[found] == b'"' {
            return Ok(at);
        }
        at += match unit(line, at) {
            None => 1,
            Some(0xd800..=0xdbff) => {
                let follows = line.get(at + 5) == Some(&b'\\');
                if !follows || !matches!(unit(line, at + 6), Some(0xdc00..=0xdfff)) {
                    return Err(Loose::Surrogate);
                }
                11
            }
            Some(0xdc00..=0xdfff) => return Err(Loose::Surrogate),
            Some(_) => 5,
        };
    }
}

/// The unit of UTF-16 that an escape stands for of which the backslash is before `at`; `None` if it is another escape.
fn unit(line: &[u8], at: usize) -> Option<u16> {
    let [b'u', digits @ ..] = line.get(at..at + 5)? else {
        return None;
    };
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Where the members of these names are in the object at `object`, each of them at most once in it. Nothing is found in what
/// is not an object. The line is valid.
pub fn members<const N: usize>(
    line: &[u8],
    object: Range<usize>,
    names: [&str; N],
) -> Result<[Option<Member>; N], Doubled> {
    let mut found = [const { None }; N];
    let mut is_doubled = false;
    let start = object.start;
    let text = line.get(object).unwrap_or_default();
    let _ = Reader::new(text).object(|key, value| {
        let Some(at) = names.iter().position(|name| is_like(key, name)) else {
            return;
        };
        let is_exact = key.inner == names[at].as_bytes() || decoded(key) == names[at];
        is_doubled |= !is_exact || found[at].is_some();
        found[at] = Some(Member {
            start: start + name_start(text, key.inner.len(), value.start),
            value: start + value.start..start + value.end,
        });
    });
    if is_doubled { Err(Doubled) } else { Ok(found) }
}

/// Where a name of this length is, with its quotation marks, whose value begins at `value`.
fn name_start(text: &[u8], len: usize, value: usize) -> usize {
    let before_value = text.get(..value).unwrap_or_default().trim_ascii_end();
    let before_colon = before_value.strip_suffix(b":").unwrap_or(before_value);
    let end = before_colon.trim_ascii_end().len();
    end.saturating_sub(len + 2)
}

/// Whether some reader may take a name for this one, which is ASCII.
fn is_like(key: Text<'_>, name: &str) -> bool {
    if !key.has_escapes && key.inner.is_ascii() {
        return key.inner.eq_ignore_ascii_case(name.as_bytes());
    }
    let key = decoded(key);
    let mut folded = key.chars().map(fold);
    name.chars()
        .all(|char| folded.next() == Some(char.to_ascii_lowercase()))
        && folded.next().is_none()
}

/// Case does not count, and two characters that are not ASCII are other cases of such that are.
fn fold(char: char) -> char {
    match char {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

/// What a name stands for; nothing, if it can't be told.
fn decoded(key: Text<'_>) -> String {
    let quoted = [b"\"", key.inner, b"\""].concat();
    serde_json::from_slice(&quoted).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_readers_disagree_about_is_refused() {
        for (line, why) in [
            (r#"{"a":NaN}"#, Loose::Constant),
            (r#"{"a":[-Infinity]}"#, Loose::Constant),
            (r#"{"a":"\ud800"}"#, Loose::Surrogate),
            (r#"{"a":"\ud800\n"}"#, Loose::Surrogate),
            (r#"{"a":"\ud800\ud800"}"#, Loose::Surrogate),
            (r#"{"a":"x\udc00"}"#, Loose::Surrogate),
            (r#"{"a\udc00":1}"#, Loose::Surrogate),
        ] {
            assert_eq!(check(line.as_bytes()), Err(why), "{line}");
        }
        for line in [
            r#"{"NaN":"Infinity \"NaN","b":[true,null,-1.5e3]}"#,
            r#"{"a":"\ud83d\ude00\\ud800 \\\" é"}"#,
            r#"{"a":"\u0041"}"#,
        ] {
            assert_eq!(check(line.as_bytes()), Ok(()), "{line}");
        }
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(nested(64).as_bytes()), Ok(()));
        assert_eq!(check(nested(65).as_bytes()), Err(Loose::Depth));
    }

    fn find(line: &str) -> Result<[Option<Member>; 2], Doubled> {
        members(line.as_bytes(), 0..line.len(), ["id", "task"])
    }

    #[test]
    fn a_name_that_comes_twice_is_refused_however_it_is_written() {
        for line in [
            r#"{"id":1,"id":1}"#,
            r#"{"id":1,"x":2,"i\u0064":1}"#,
            r#"{"ID":1}"#,
            r#"{"id":1,"Id":1}"#,
            r#"{"taſk":1}"#,
            "{\"tas\u{212a}\":1}",
            r#"{"ta\u017fk":1}"#,
        ] {
            assert_eq!(find(line), Err(Doubled), "{line}");
        }
        for line in [r#"{"id":{"id":1}}"#, r#"{"idé":1,"é":2}"#, "[1]", "3", "{}"] {
            assert!(find(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn members_are_found_where_they_are() {
        let line = r#" x{ "a" : 1 , "t\u0061sk"  :  [1] ,"id":"é"}"#;
        let [id, task] = members(line.as_bytes(), 2..line.len(), ["id", "task"]).unwrap();
        let (id, task) = (id.unwrap(), task.unwrap());
        assert_eq!(&line[id.start..id.value.end], r#""id":"é""#);
        assert_eq!(&line[task.start..task.value.end], r#""t\u0061sk"  :  [1]"#);
        assert_eq!(&line[task.value], "[1]");
    }

    proptest! {
        /// What is accepted, all readers read alike: `serde_json` reads it, too.
        #[test]
        fn serde_json_reads_what_is_not_refused(text in r#"[\[\]{},:"\\ud8c0NI1 na]{0,16}"#) {
            let line = format!("[{text}]");
            let mut reader = Reader::new(line.as_bytes());
            let is_valid = reader.value().and_then(|_| reader.end()).is_ok();
            if is_valid && check(line.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{}", line);
            }
        }
    }
}
