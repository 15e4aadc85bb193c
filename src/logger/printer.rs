//! Has `simple_logger` make a line of a record: it prints the line, and the pipe where stdout was brings it back.

use std::fmt;
use std::io;

use log::{Level, Log, Record};
use simple_logger::SimpleLogger;

use super::escape::{self, escaped};
use super::stdout_pipe::{PIPE_BUF, StdoutPipe};
use super::{Format, journal, json};

/// All of a line, its newline included: printed in two writes, it fits into the empty pipe. That also bounds what is kept
/// of a line of which stderr took the half.
const MAX_LINE_BYTES: usize = PIPE_BUF;

/// What of a line is neither target nor message.
const FRAME_BYTES: usize = "2026-11-22T14:25:18.123Z WARN  [] \n".len();

/// The longest target, in bytes. They say what a line is about. The rest is the message's: 3,900 bytes at least.
const MAX_TARGET_BYTES: usize = 128;

/// Makes lines. There can be only one.
pub(super) struct Printer {
    format: Format,
    /// Whether the journal of systemd reads them.
    is_journal: bool,
    logger: SimpleLogger,
    pipe: StdoutPipe,
    /// Whether the original stdout is where the pipe should be.
    suspended: bool,
}

/// A record whose texts can't break its line, and that is not too long.
pub(super) struct SafeRecord {
    level: Level,
    /// In JSON it has none.
    target: String,
    message: String,
    /// In JSON, what is known beside the message: see [`json::fields`].
    fields: String,
}

impl SafeRecord {
    pub(super) fn text(level: Level, target: &str, message: fmt::Arguments<'_>) -> Self {
        let target = escaped(format_args!("{target}"), MAX_TARGET_BYTES);
        let message = escaped(message, MAX_LINE_BYTES - FRAME_BYTES - target.len());
        Self {
            level,
            target,
            message,
            fields: String::new(),
        }
    }

    pub(super) fn json(level: Level, fields: String, message: fmt::Arguments<'_>) -> Self {
        let room = MAX_LINE_BYTES - FRAME_BYTES - json::FRAME_BYTES - fields.len();
        Self {
            level,
            target: String::new(),
            message: escape::json(message, room),
            fields,
        }
    }
}

impl Printer {
    pub(super) fn install(format: Format, is_journal: bool) -> io::Result<Self> {
        let logger = SimpleLogger::new();
        Ok(Self {
            format,
            is_journal,
            logger: if is_journal {
                logger.without_timestamps()
            } else {
                logger
            },
            pipe: StdoutPipe::install()?,
            suspended: false,
        })
    }

    /// The record as a line with its newline; nothing while the original stdout is back.
    pub(super) fn line(&self, record: &SafeRecord) -> Vec<u8> {
        if self.suspended {
            return Vec::new();
        }
        let prefix = if self.is_journal {
            journal::prefix(record.level)
        } else {
            ""
        };
        let line = match self.format {
            Format::Text => self.text(record),
            Format::Json => json::line(record.level, &record.message, &record.fields),
        };
        [prefix.as_bytes(), &line].concat()
    }

    /// Has `simple_logger` print it.
    fn text(&self, record: &SafeRecord) -> Vec<u8> {
        let message = format_args!("{}", record.message);
        let mut plain = Record::builder();
        let plain = plain.level(record.level).target(&record.target);
        self.logger.log(&plain.args(message).build());
        self.pipe.take_some().unwrap_or_default()
    }

    /// A line that is no record and is safe already.
    pub(super) fn plain_line(&self, line: &str, name: &str) -> Vec<u8> {
        match self.format {
            Format::Json => self.line(&self.record(Level::Error, name, format_args!("{line}"))),
            Format::Text if self.is_journal => {
                format!("{}{line}\n", journal::prefix(Level::Error)).into_bytes()
            }
            Format::Text => format!("{line}\n").into_bytes(),
        }
    }

    /// A record of the logger's own.
    pub(super) fn record(
        &self,
        level: Level,
        target: &str,
        message: fmt::Arguments<'_>,
    ) -> SafeRecord {
        match self.format {
            Format::Text => SafeRecord::text(level, target, message),
            Format::Json => SafeRecord::json(level, String::new(), message),
        }
    }

    /// What others have printed, as records: a line left behind in the code, or in a crate, is not to be lost.
    pub(super) fn take_printed(&self) -> Vec<SafeRecord> {
        if self.suspended {
            return Vec::new();
        }
        let printed = self.pipe.take();
        let text = String::from_utf8_lossy(&printed);
        let lines = text.lines();
        lines
            .map(|line| self.record(Level::Warn, "stdout", format_args!("{line}")))
            .collect()
    }

    /// Puts the original stdout back, until [`resume`](Self::resume).
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        if !self.suspended {
            self.pipe.swap()?;
            self.suspended = true;
        }
        Ok(())
    }

    /// Goes on after [`suspend`](Self::suspend).
    pub(super) fn resume(&mut self) -> io::Result<()> {
        if self.suspended {
            self.pipe.swap()?;
            self.suspended = false;
        }
        Ok(())
    }
}
