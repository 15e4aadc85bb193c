//! Text as it may stand in a line: it can't end the line, forge another one, or take over the terminal.

use std::fmt::{self, Write as _};

/// Stands for what was cut off.
const CUT: &str = "…";

/// The text without what is unsafe to show, in at most `max_bytes` bytes.
pub(super) fn escaped(text: fmt::Arguments<'_>, max_bytes: usize) -> String {
    cut(text, max_bytes, push_plain)
}

/// The text as it stands between the quotation marks of a JSON string, in at most `max_bytes` bytes. What is unsafe to show
/// is escaped here, too.
pub(super) fn json(text: fmt::Arguments<'_>, max_bytes: usize) -> String {
    cut(text, max_bytes, push_json)
}

fn cut(text: fmt::Arguments<'_>, max_bytes: usize, push: fn(&mut String, char)) -> String {
    let mut line = String::with_capacity(128);
    // An error is the text's own, or says that the line is full: in each case it goes out as far as it got.
    let _ = Escaped {
        line: &mut line,
        push,
        max_bytes,
        uncut: 0,
    }
    .write_fmt(text);
    line
}

fn push_plain(line: &mut String, c: char) {
    if is_unsafe_to_show(c) {
        line.extend(c.escape_default());
    } else {
        line.push(c);
    }
}

fn push_json(line: &mut String, c: char) {
    match c {
        '"' | '\\' => line.extend(['\\', c]),
        '\n' => line.push_str("\\n"),
        '\t' => line.push_str("\\t"),
        _ if is_unsafe_to_show(c) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(line, "\\u{unit:04x}");
            }
        }
        _ => line.push(c),
    }
}

struct Escaped<'a> {
    line: &'a mut String,
    push: fn(&mut String, char),
    max_bytes: usize,
    /// How much of the line can stay if it has to be cut.
    uncut: usize,
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            (self.push)(self.line, c);
            if self.line.len() > self.max_bytes {
                self.line.truncate(self.uncut);
                self.line.push_str(CUT);
                return Err(fmt::Error);
            }
            if self.line.len() + CUT.len() <= self.max_bytes {
                self.uncut = self.line.len();
            }
        }
        Ok(())
    }
}

/// Control characters, and those that break a line, change the direction in which it is displayed, or can't be seen at
/// all: a line must not look like another one, nor say anything that its reader does not see.
fn is_unsafe_to_show(c: char) -> bool {
    (c.is_control() && c != '\t') || breaks_line(c) || is_invisible(c)
}

fn breaks_line(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// What Unicode calls default-ignorable, the marks of direction among them, and the marks of annotations. The first 16
/// variation selectors are let through: they make emoji of signs, which many servers log.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BYTES: usize = 100;

    fn shown(text: &str) -> String {
        escaped(format_args!("{text}"), MAX_BYTES)
    }

    #[test]
    fn plain_text_stays_what_it_is() {
        assert_eq!(shown("a\tb é"), "a\tb é");
    }

    #[test]
    fn nothing_forges_a_line() {
        let line = shown("a\r\nb\x1b[2J\0\u{85}\u{2028}\u{202e}c");
        assert_eq!(line, r"a\r\nb\u{1b}[2J\u{0}\u{85}\u{2028}\u{202e}c");
    }

    #[test]
    fn nothing_is_hidden_or_reordered() {
        let hidden = [
            '\u{200b}'..='\u{200f}',
            '\u{202a}'..='\u{202e}',
            '\u{2066}'..='\u{2069}',
            '\u{61c}'..='\u{61c}',
            '\u{feff}'..='\u{feff}',
            '\u{e0000}'..='\u{e007f}',
            '\u{e0100}'..='\u{e01ef}',
        ];
        for c in hidden.into_iter().flatten() {
            assert_eq!(
                shown(&format!("a{c}b")),
                format!("a{}b", c.escape_unicode())
            );
        }
        let visible = "שלום עולם, مرحبا, 日本語, ⚠\u{fe0f} 🚀";
        assert_eq!(shown(visible), visible);
    }

    #[test]
    fn what_is_too_long_is_cut_between_two_characters() {
        for c in ["x", "é", "€", "😀", "\x1b"] {
            for length in [MAX_BYTES, 100 * MAX_BYTES] {
                let text = "-".repeat(length % 7) + &c.repeat(length + 1);
                let line = shown(&text);
                assert!(line.len() <= MAX_BYTES && line.len() > MAX_BYTES - 10);
                let whole = line.strip_suffix('…').unwrap();
                let whole = whole.trim_start_matches('-');
                assert_eq!(whole.replace(&shown(c), ""), "", "{line}");
            }
        }
    }

    #[test]
    fn what_just_fits_is_not_cut() {
        let text = "x".repeat(MAX_BYTES);
        assert_eq!(shown(&text), text);
        let pieces = ["x".repeat(MAX_BYTES - 1), "€".to_owned()];
        let line = escaped(format_args!("{}{}", pieces[0], pieces[1]), MAX_BYTES);
        assert_eq!(line, "x".repeat(MAX_BYTES - 3) + "…");
    }
}
