//! What a server's output puts into the log: its stderr, and what of its stdout is no message. Both at a limited rate.

use log::warn;

use super::report::Label;
use super::stderr::StderrLines;
use crate::util::log_rate_limit::LogRateLimit;
use crate::util::time::Time;

/// Costs next to nothing for a server that gives no cause for a log line.
#[derive(Debug, Default)]
pub(super) struct ServerLog(Option<Box<Begun>>);

#[derive(Debug)]
struct Begun {
    stderr: StderrLines,
    limit: LogRateLimit,
}

impl ServerLog {
    /// The server wrote these bytes to its stderr.
    pub(super) fn stderr(&mut self, bytes: &[u8], tag: &Label, now: Time) {
        let Begun { stderr, limit } = self.begin(now);
        stderr.push(bytes, |line| log_stderr(line, limit, tag, now));
    }

    /// Logs what the server wrote to its stderr and never ended by a line end, and what was left out of the log.
    pub(super) fn server_ended(&mut self, tag: &Label, now: Time) {
        let Some(Begun { stderr, limit }) = self.0.as_deref_mut() else {
            return;
        };
        stderr.end(|line| log_stderr(line, limit, tag, now));
        log_left_out(limit, tag);
    }

    /// Logs one line about the server's output, if there were not too many.
    pub(super) fn limited(&mut self, tag: &Label, now: Time, log: impl FnOnce()) {
        limited(&mut self.begin(now).limit, tag, now, log);
    }

    fn begin(&mut self, now: Time) -> &mut Begun {
        self.0.get_or_insert_with(|| {
            Box::new(Begun {
                stderr: StderrLines::default(),
                limit: LogRateLimit::new(now),
            })
        })
    }
}

fn log_stderr(line: &str, limit: &mut LogRateLimit, tag: &Label, now: Time) {
    limited(limit, tag, now, || warn!("{tag} stderr: {line}"));
}

fn limited(limit: &mut LogRateLimit, tag: &Label, now: Time, log: impl FnOnce()) {
    if limit.admit(now) {
        log_left_out(limit, tag);
        log();
    }
}

fn log_left_out(limit: &mut LogRateLimit, tag: &Label) {
    let left_out = limit.take_left_out();
    if left_out > 0 {
        warn!("{tag}: {left_out} lines of the server's output were left out of the log");
    }
}
