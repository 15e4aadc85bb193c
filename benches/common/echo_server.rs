//! The server that every contender starts: an MCP server that answers each request with the request's own `params` as the
//! result, as cheaply as that can be done. It is the benchmark's own program, started with a word that nobody would type.
//!
//! Responses have the length of their requests, so they are made in place: one write answers all complete lines that one
//! read brought.

use std::io;

use memchr::{memchr, memmem, memrchr};
use nix::errno::Errno;
use nix::unistd;

/// The argument that makes a benchmark this server.
pub(crate) const WORD: &str = "benchmark-echo-server";

/// The part in which the requests that are measured differ from their responses.
const CALL: &[u8] = br#""method":"tools/call","params""#;

/// What it becomes in the response.
const ANSWERED_CALL: &[u8] = br#""served":"tools/call","result""#;

/// How far into a request its members are searched for: ours stand before `params`, and are short.
const HEAD_BYTES: usize = 256;

/// The same for [`CALL`], which only the version and the id stand before.
const CALL_HEAD_BYTES: usize = 96;

/// What is read at once; grows with the longest line. Pages that are never touched cost nothing.
const BUFFER_BYTES: usize = 256 * 1024;

/// The command that starts this server.
pub(crate) fn command() -> Vec<String> {
    let program = std::env::current_exe().expect("this program has a path");
    let program = program.to_str().expect("this program's path is UTF-8");
    vec![program.to_owned(), WORD.to_owned()]
}

/// Becomes this server if the first argument says so, until stdin ends; returns whether it did.
pub(crate) fn run_if_asked() -> bool {
    let asked = std::env::args_os().nth(1).is_some_and(|word| word == WORD);
    if asked && let Err(error) = run() {
        // The reader may go away at any time: that is how a contender that hangs is ended.
        eprintln!("echo server: {error}");
    }
    asked
}

fn run() -> io::Result<()> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(2 * filled, 0);
        }
        let count = match unistd::read(&stdin, &mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let newest = filled..filled + count;
        filled = newest.end;
        if let Some(last) = memrchr(b'\n', &buffer[newest.clone()]) {
            let end = newest.start + last + 1;
            answer_all(&mut buffer[..end], |bytes| write_all(&stdout, bytes))?;
            buffer.copy_within(end..filled, 0);
            filled -= end;
        }
    }
}

/// Turns lines into responses and hands these to `write`, all at once but for the lines that need none.
fn answer_all(lines: &mut [u8], mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let (mut unwritten, mut start) = (0, 0);
    while let Some(length) = memchr(b'\n', &lines[start..]) {
        let end = start + length + 1;
        if !answer(&mut lines[start..end]) {
            write(&lines[unwritten..start])?;
            unwritten = end;
        }
        start = end;
    }
    write(&lines[unwritten..])
}

/// Turns a request into a response; returns whether the line was one. Names of members are replaced by others of the
/// same length: blanks would not survive a script that parses what it forwards and writes it anew.
fn answer(line: &mut [u8]) -> bool {
    let head = &line[..line.len().min(CALL_HEAD_BYTES)];
    if let Some(at) = memmem::find(head, CALL) {
        line[at..at + CALL.len()].copy_from_slice(ANSWERED_CALL);
        return true;
    }
    let head = &line[..line.len().min(HEAD_BYTES)];
    let find = |name: &str| memmem::find(head, name.as_bytes());
    let (Some(_), Some(method), Some(params)) =
        (find("\"id\""), find("\"method\""), find("\"params\""))
    else {
        return false;
    };
    // What the client says about itself goes back as what the server says about itself.
    let client_info = find("\"clientInfo\"").filter(|_| find("\"initialize\"").is_some());
    let renamed = [
        (Some(method), "\"served\""),
        (Some(params), "\"result\""),
        (client_info, "\"server"),
    ];
    for (at, name) in renamed {
        if let Some(at) = at {
            line[at..at + name.len()].copy_from_slice(name.as_bytes());
        }
    }
    true
}

fn write_all(stdout: &io::Stdout, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match unistd::write(stdout, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
