//! Words of a command as a shell would read them: what is one word is seen to be one.

use std::ffi::{OsStr, OsString};

/// The words with spaces between them, each in quotes if it needs any.
pub fn join(words: &[OsString]) -> String {
    words
        .iter()
        .map(|word| quoted(word))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word, in quotes if it needs any.
pub fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    if !text.is_empty() && text.chars().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Whether a character means itself to every shell, wherever it stands.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "_@%+=:,./-".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart() {
        let words = [
            "python3",
            "-u",
            "my server.py",
            "",
            "it's",
            "$HOME",
            "a=/é.x",
            "~",
        ];
        assert_eq!(
            join(&words.map(OsString::from)),
            r"python3 -u 'my server.py' '' 'it'\''s' '$HOME' a=/é.x '~'"
        );
    }
}
