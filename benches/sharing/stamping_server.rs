//! A modern MCP server that tells of each request when it has read it, by the clock that all processes of a machine have.
//! It serves one request after the other, and takes as long for each as it is told. It is the benchmark's own program,
//! started with a word that nobody would type.

use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use memchr::{memchr, memmem};
use nix::time::{ClockId, clock_gettime};

/// The argument that makes the benchmark this server.
const WORD: &str = "benchmark-stamping-server";

/// What is read at once; grows with the longest line.
const BUFFER_BYTES: usize = 1024 * 1024;

/// The command that starts this server, which takes this long for each request.
pub(crate) fn command(service_time: Duration) -> Vec<String> {
    let program = std::env::current_exe().expect("this program has a path");
    let program = program.to_str().expect("this program's path is UTF-8");
    let micros = service_time.as_micros().to_string();
    vec![program.to_owned(), WORD.to_owned(), micros]
}

/// Becomes this server if the first argument says so, until stdin ends; returns whether it did.
pub(crate) fn run_if_asked() -> bool {
    let mut words = std::env::args().skip(1);
    let is_asked = words.next().is_some_and(|word| word == WORD);
    if is_asked {
        let micros = words.next().and_then(|word| word.parse().ok());
        let service_time = Duration::from_micros(micros.unwrap_or(0));
        // The reader may go away at any time.
        let _ = run(service_time);
    }
    is_asked
}

/// The clock, in ns.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is a clock");
    Duration::from(now)
        .as_nanos()
        .try_into()
        .expect("the machine has not run for centuries")
}

/// When the server had read the request that this answers.
pub(crate) fn read_at(response: &[u8]) -> Option<u64> {
    integer_after(response, b"\"readAt\":")
}

fn integer_after(line: &[u8], name: &[u8]) -> Option<u64> {
    let text = &line[memmem::find(line, name)? + name.len()..];
    let end = text.iter().position(|byte| !byte.is_ascii_digit());
    str::from_utf8(&text[..end.unwrap_or(text.len())])
        .ok()?
        .parse()
        .ok()
}

fn run(service_time: Duration) -> io::Result<()> {
    let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    let mut answers = Vec::new();
    loop {
        if filled == buffer.len() {
            buffer.resize(2 * filled, 0);
        }
        let count = stdin.read(&mut buffer[filled..])?;
        if count == 0 {
            return Ok(());
        }
        let read_at = now();
        filled += count;
        let mut start = 0;
        while let Some(length) = memchr(b'\n', &buffer[start..filled]) {
            let line = &buffer[start..start + length];
            start += length + 1;
            let Some(id) = integer_after(line, b"\"id\":") else {
                continue;
            };
            if !service_time.is_zero() {
                thread::sleep(service_time);
            }
            writeln!(
                answers,
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\",\"readAt\":{read_at},\
                 \"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{{\"tools\":{{}}}},\"tools\":[]}}}}"
            )?;
            if !service_time.is_zero() {
                stdout.write_all(&std::mem::take(&mut answers))?;
                stdout.flush()?;
            }
        }
        stdout.write_all(&answers)?;
        stdout.flush()?;
        answers.clear();
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}
