//! A [`log::Log`] around `simple_logger` that never blocks, panics or ends the program.
//!
//! `simple_logger` makes a line and prints it with `println!`. That blocks when stdout is a full pipe or a terminal that
//! nobody reads, and panics when it is closed or on a full disk; one slow reader of the log would hold up every session.
//! So a pipe of our own stands where stdout was, and takes the line. From there it goes to stderr, as far as stderr takes
//! it at once. A line that it does not take is lost, and counted.
//!
//! Nothing else that is printed gets out by stdout either: a forgotten `println!` ends up in the log, and not between the
//! messages of `connect`.
//!
//! This module must not know what is logged.

mod escape;
mod journal;
mod json;
mod line_writer;
mod printer;
mod stdout_pipe;

use std::fmt::Display;
use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

use self::line_writer::LineWriter;
use self::printer::{Printer, SafeRecord};
use crate::reactor::signals;
use crate::reactor::stdio::Stdio;

/// The longest line of [`one_line`], in bytes.
const MAX_ONE_LINE_BYTES: usize = 3900;

/// What lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As `simple_logger` makes them.
    Text,
    /// A JSON object each, with what is known of what they are about.
    Json,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Logs to `stderr` from now on, what is at `max_level` or more severe; of other crates (`mio` traces a lot) only what is
/// at `Info` or more severe. Stdout is a pipe of the logger's own from now on: whoever needs it opens it before.
///
/// A line that stderr took only a part of is finished, and lost ones are reported, when the next line is logged or
/// `log::logger().flush()` is called. Neither blocks.
///
/// A record of this crate that does not say what it is about gets `name` as its target, and not that of a module.
///
/// Errors are those of pipe(2) and dup(2), and it is one to call this twice.
pub fn install(
    max_level: LevelFilter,
    format: Format,
    stderr: Stdio,
    name: &'static str,
) -> io::Result<()> {
    if LOGGER.get().is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    signals::block_write_signals()?;
    let output = Output {
        printer: Printer::install(format, journal::is_journal(io::stderr()))?,
        stderr: LineWriter::new(stderr),
        name,
    };
    let output = Mutex::new(output);
    let logger = LOGGER.get_or_init(|| Logger {
        output,
        format,
        name,
    });
    log::set_logger(logger).map_err(io::Error::other)?;
    log::set_max_level(max_level);
    Ok(())
}

/// Writes a line that is no record to where the log goes, under the same terms; as JSON it is an error like others. False if
/// there is no logger.
pub fn write_line(line: &str) -> bool {
    let Some(logger) = LOGGER.get() else {
        return false;
    };
    logger.output().write_plain(line);
    true
}

/// How many lines were lost so far.
pub fn lines_lost() -> u64 {
    LOGGER
        .get()
        .map_or(0, |logger| logger.output().stderr.lost_ever())
}

/// What is left of a line that stderr took only a part of.
pub fn rest() -> Vec<u8> {
    LOGGER
        .get()
        .map_or_else(Vec::new, |logger| logger.output().stderr.tail().to_vec())
}

/// Has the log begin with what is left of a line. Call it before anything is logged.
pub fn go_on_with(rest: Vec<u8>) {
    if let Some(logger) = LOGGER.get() {
        logger.output().stderr.set_tail(rest);
    }
}

/// Does something with stdout as this program was given it, as execve(2) should have it. What is logged meanwhile is
/// lost, and counted.
///
/// Errors are those of dup(2).
pub fn with_original_stdout<T>(action: impl FnOnce() -> T) -> io::Result<T> {
    let Some(logger) = LOGGER.get() else {
        return Ok(action());
    };
    logger.output().printer.suspend()?;
    let result = action();
    logger.output().printer.resume()?;
    Ok(result)
}

/// What a message looks like in the log: one line that can't take over the terminal, and is not too long.
pub fn one_line(message: &dyn Display) -> String {
    escape::escaped(format_args!("{message}"), MAX_ONE_LINE_BYTES)
}

struct Logger {
    output: Mutex<Output>,
    format: Format,
    name: &'static str,
}

impl Logger {
    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn safe(&self, record: &Record<'_>) -> SafeRecord {
        let target = if is_ours(record.target()) {
            self.name
        } else {
            record.target()
        };
        let (level, message) = (record.level(), *record.args());
        match self.format {
            Format::Text => SafeRecord::text(level, target, message),
            Format::Json => {
                SafeRecord::json(level, json::fields(record, target, self.name), message)
            }
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if is_enabled(record) {
            // Before the lock is taken: what is formatted may log in turn.
            let record = self.safe(record);
            self.output().log(&record);
        }
    }

    fn flush(&self) {
        self.output().catch_up();
    }
}

fn is_enabled(record: &Record<'_>) -> bool {
    let limit = if is_ours(record.module_path().unwrap_or_default()) {
        LevelFilter::Trace
    } else {
        LevelFilter::Info
    };
    record.level() <= limit.min(log::max_level())
}

/// Whether a module is of this crate.
fn is_ours(module: &str) -> bool {
    let rest = module.strip_prefix(env!("CARGO_CRATE_NAME"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Where records become lines, and where these go.
struct Output {
    printer: Printer,
    stderr: LineWriter<Stdio>,
    name: &'static str,
}

impl Output {
    fn log(&mut self, record: &SafeRecord) {
        self.log_printed();
        let line = self.printer.line(record);
        self.write_line(&line);
    }

    /// Logs what was printed past the logger. The pipe is empty then.
    fn log_printed(&mut self) {
        for record in self.printer.take_printed() {
            let line = self.printer.line(&record);
            self.write_line(&line);
        }
    }

    fn write_line(&mut self, line: &[u8]) {
        let Self {
            printer,
            stderr,
            name,
        } = self;
        stderr.write_line(line, |lost| lost_line(printer, name, lost));
    }

    fn write_plain(&mut self, line: &str) {
        let line = self.printer.plain_line(line, self.name);
        self.write_line(&line);
    }

    fn catch_up(&mut self) {
        self.log_printed();
        let Self {
            printer,
            stderr,
            name,
        } = self;
        stderr.catch_up(|lost| lost_line(printer, name, lost));
    }
}

fn lost_line(printer: &Printer, name: &str, lost: u64) -> Vec<u8> {
    let message = format_args!("log lines lost, as stderr did not take them: {lost}");
    printer.line(&printer.record(Level::Warn, name, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_crates_are_heard_from_info_up() {
        log::set_max_level(LevelFilter::Trace);
        let enabled = |module, level| {
            let mut record = Record::builder();
            let record = record.module_path(Some(module)).target("session 1");
            is_enabled(&record.level(level).build())
        };
        assert!(enabled("mcp_tcp_proxy", Level::Trace));
        assert!(enabled("mcp_tcp_proxy::session", Level::Debug));
        assert!(!enabled("mcp_tcp_proxy_other", Level::Debug));
        assert!(!enabled("mio::poll", Level::Trace));
        assert!(enabled("mio::poll", Level::Info));
    }
}
