//! A file of variables: `NAME=VALUE` on each line.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use log::warn;

use crate::options::{Value, Variable};

/// Readable or writable by everybody, or writable by the group.
const OPEN_TO_OTHERS: u32 = 0o026;

/// Why a file can't be used. What its lines say is a secret.
#[derive(Debug)]
pub enum FileError {
    /// It can't be read.
    Io(io::Error),
    /// The line of this number is not a variable.
    Line(usize),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Line(number) => write!(
                f,
                "line {number} is neither NAME=VALUE nor NAME, nor a comment (#)"
            ),
        }
    }
}

/// Reads the variables of a file. Warns if others can read them, too.
pub fn read_file(path: &Path) -> Result<Vec<Variable>, FileError> {
    let mut file = File::open(path).map_err(FileError::Io)?;
    let mode = file.metadata().map_err(FileError::Io)?.mode();
    if mode & OPEN_TO_OTHERS != 0 {
        let path = path.display();
        warn!("--env-file: others can read or write {path} (chmod 640 {path})");
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(FileError::Io)?;
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Vec<Variable>, FileError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    let lines = lines.map(|(at, line)| (at + 1, line.trim_ascii()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
        .map(|(number, line)| variable(line).ok_or(FileError::Line(number)))
        .collect()
}

fn variable(line: &[u8]) -> Option<Variable> {
    let mut parts = line.splitn(2, |byte| *byte == b'=');
    let name = parts.next()?;
    let value = parts.next().map(without_quotes);
    let is_name = !name.is_empty()
        && !name
            .iter()
            .any(|byte| byte.is_ascii_whitespace() || *byte == 0);
    let is_value = value.is_none_or(|value| !value.contains(&0));
    (is_name && is_value).then(|| Variable {
        name: OsString::from_vec(name.to_vec()),
        value: value.map_or(Value::Inherited, |value| {
            Value::Given(OsString::from_vec(value.to_vec()))
        }),
    })
}

/// Most programs that read such files take quotes around a value for the shell's.
fn without_quotes(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let all = parse(text).unwrap().into_iter();
        all.map(|variable| {
            let value = match variable.value {
                Value::Given(value) => Some(value.into_vec()),
                Value::Inherited | Value::Removed => None,
            };
            (variable.name.into_vec(), value)
        })
        .collect()
    }

    #[test]
    fn a_line_is_a_variable_and_what_follows_the_first_equals_sign_is_its_value() {
        let text = b"\xef\xbb\xbf# comment\n\nA=1\n B= x y \r\nC=\nD==#=\nE\nF=\"q 'x'\"\nG='a\"\nH=\"\nI=\xff";
        let with = |name: &[u8], value: &[u8]| (name.to_vec(), Some(value.to_vec()));
        let expected = vec![
            with(b"A", b"1"),
            with(b"B", b" x y"),
            with(b"C", b""),
            with(b"D", b"=#="),
            (b"E".to_vec(), None),
            with(b"F", b"q 'x'"),
            with(b"G", b"'a\""),
            with(b"H", b"\""),
            with(b"I", b"\xff"),
        ];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line_and_never_quoted() {
        for (text, line) in [
            ("=secret", 1),
            ("A =secret", 1),
            ("A=1\nexport B=secret", 2),
            ("\nA=sec\0ret", 2),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(&format!("line {line} ")) && !error.contains("sec"),
                "{error}"
            );
        }
        assert!(matches!(
            read_file(Path::new("/no/such/file")),
            Err(FileError::Io(_))
        ));
    }
}
