//! Scripts: the interpreter that they name, and whether a file is text at all.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::HEAD_BYTES;

/// What a script names in its first line (execve(2), "Interpreter scripts").
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interpreter {
    pub(super) path: PathBuf,
    /// One word, with blanks or not.
    pub(super) argument: Option<OsString>,
}

/// Reads the first line of a file that begins with `#!`, as the kernel does. An error says what is wrong with it.
pub(super) fn interpreter(head: &[u8]) -> Result<Interpreter, String> {
    let text = &head[2..];
    let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\0'));
    let line = trim(&text[..end.unwrap_or(text.len())]);
    let name = line
        .split(|byte| is_blank(*byte))
        .next()
        .unwrap_or_default();
    if end.is_none() && head.len() == HEAD_BYTES && name.len() == line.len() {
        return Err(format!("its #! line is longer than {HEAD_BYTES} bytes"));
    }
    if name.is_empty() {
        return Err("its #! line names no interpreter".to_owned());
    }
    if line.ends_with(b"\r") {
        return Err(
            "its #! line ends in a carriage return, as on Windows (sed -i 's/\\r$//' removes them)"
                .to_owned(),
        );
    }
    let argument = trim(&line[name.len()..]);
    Ok(Interpreter {
        path: PathBuf::from(OsString::from_vec(name.to_vec())),
        argument: (!argument.is_empty()).then(|| OsString::from_vec(argument.to_vec())),
    })
}

/// The program that env(1) will look for in `PATH`, if it is the interpreter, as far as that is plain to see.
pub(super) fn run_by_env<'a>(interpreter: &Path, argument: &'a OsStr) -> Option<&'a OsStr> {
    if interpreter.file_name() != Some(OsStr::new("env")) {
        return None;
    }
    let argument = argument.as_bytes();
    let name = match argument.strip_prefix(b"-S") {
        Some(words) => words
            .split(|byte| is_blank(*byte))
            .find(|word| !word.is_empty())?,
        // Without -S it is one word, whatever blanks are in it.
        None => argument,
    };
    let is_plain = !name.starts_with(b"-") && !name.iter().any(|byte| b"=\"'\\$".contains(byte));
    is_plain.then(|| OsStr::from_bytes(name))
}

/// Checks that a shell would take the file for a script, which has no NUL in its first line. An error says what it is.
pub(super) fn check_text(head: &[u8]) -> Result<(), &'static str> {
    let first_line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match head {
        [b'M', b'Z', ..] => Err("it is a program for Windows"),
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] => Err("it is a program for macOS"),
        [0xca, 0xfe, 0xba, 0xbe, ..] => Err("it is a program for macOS, or a Java class"),
        _ if first_line.contains(&0) => Err("it is neither a program nor a script"),
        _ => Ok(()),
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_blank(*last)
    {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Option<(String, Option<String>)> {
        let Interpreter { path, argument } = interpreter(head.as_bytes()).ok()?;
        let text = |word: OsString| word.into_string().unwrap();
        Some((text(path.into()), argument.map(text)))
    }

    #[test]
    fn a_first_line_is_a_path_and_one_argument() {
        let named = |path: &str, argument: Option<&str>| {
            Some((path.to_owned(), argument.map(str::to_owned)))
        };
        assert_eq!(read("#!/bin/sh\nexit"), named("/bin/sh", None));
        assert_eq!(read("#! \t/bin/sh \n"), named("/bin/sh", None));
        assert_eq!(read("#!/bin/sh"), named("/bin/sh", None));
        assert_eq!(read("#!/bin/a -b  c \n"), named("/bin/a", Some("-b  c")));
        assert_eq!(read("#!\nx"), None);
        assert_eq!(read("#!/bin/sh\r\n"), None);
        let long = format!("#!/{}", "x".repeat(HEAD_BYTES));
        assert_eq!(read(&long[..HEAD_BYTES]), None);
        let with_argument = format!("#!/bin/sh {}", "x".repeat(HEAD_BYTES));
        assert_eq!(read(&with_argument[..HEAD_BYTES]).unwrap().0, "/bin/sh");
    }

    #[test]
    fn env_is_asked_for_a_program() {
        let asked = |argument| run_by_env(Path::new("/usr/bin/env"), OsStr::new(argument));
        assert_eq!(asked("python3"), Some(OsStr::new("python3")));
        assert_eq!(asked("python3 -u"), Some(OsStr::new("python3 -u")));
        assert_eq!(asked("-S python3 -u"), Some(OsStr::new("python3")));
        for unclear in ["-i python3", "-S -i python3", "-S A=1 python3", "A=1", "-S"] {
            assert_eq!(asked(unclear), None, "{unclear}");
        }
        assert_eq!(run_by_env(Path::new("/bin/sh"), OsStr::new("x")), None);
    }

    #[test]
    fn text_has_no_nul_in_its_first_line() {
        assert!(check_text(b"echo\n\0").is_ok());
        for head in [&b"a\0b\n"[..], b"MZ\x90", b"\xcf\xfa\xed\xfe"] {
            assert!(check_text(head).is_err());
        }
    }
}
