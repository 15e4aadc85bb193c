//! `NaN`, `Infinity` and `-Infinity`, which Python's `json` writes for numbers that JSON has no form for.

use super::envelope::BLANKS;

/// Copies `text` with `NaN`, `Infinity` and `-Infinity` as JSON strings of the same length. Returns whether there
/// were any.
///
/// A string fits where a number fits, and nowhere does it join with what stands beside it; only as a key would it be
/// welcome where a number is not, so there the constant is left alone.
pub(super) fn patch_python_constants(text: &str, patched: &mut String) -> bool {
    const CONSTANTS: [(&str, &str); 3] = [
        ("NaN", "\"N\""),
        ("-Infinity", "\"-Infini\""),
        ("Infinity", "\"Infini\""),
    ];
    patched.clear();
    patched.reserve_exact(text.len());
    let mut rest = text;
    let mut any = false;
    while let Some(at) = memchr::memchr3(b'"', b'N', b'I', rest.as_bytes()) {
        let at = if rest[..at].ends_with('-') && rest[at..].starts_with('I') {
            at - 1
        } else {
            at
        };
        patched.push_str(&rest[..at]);
        rest = &rest[at..];
        let constant = CONSTANTS
            .iter()
            .find(|(constant, _)| rest.starts_with(constant));
        let taken = match constant {
            Some((constant, replacement)) if !is_key(&rest[constant.len()..]) => {
                any = true;
                patched.push_str(replacement);
                constant.len()
            }
            _ => {
                let taken = if rest.starts_with('"') {
                    string_len(rest)
                } else {
                    1
                };
                patched.push_str(&rest[..taken]);
                taken
            }
        };
        rest = &rest[taken..];
    }
    patched.push_str(rest);
    debug_assert_eq!(patched.len(), text.len());
    any
}

fn is_key(following: &str) -> bool {
    following.trim_start_matches(BLANKS).starts_with(':')
}

/// The length of the JSON string that `text` opens with, both quotes included, or all of it if it never ends.
fn string_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        // The byte behind a backslash may open a longer character; stepping over its first byte is enough, as
        // neither a quote nor a backslash is ever a later part of one.
        at += 2;
    }
    bytes.len()
}
