//! A line for whoever watches the run on a terminal, written anew each second. It never waits for the terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use super::load::Load;
use crate::reactor::stdio::{StandardStreams, Stdio};
use crate::status::human;
use crate::util::plural::Grouped;
use crate::util::time::Time;

/// Back to the beginning of the line, which is cleared (`console_codes(4)`).
const BEGINNING: &str = "\r\x1b[K";

/// The line, if there is anybody to see it.
pub(super) struct Progress {
    terminal: Option<Stdio>,
    what: String,
    is_begun: bool,
}

impl Progress {
    /// On stderr, if that is a terminal.
    pub(super) fn new() -> Self {
        let is_seen = io::stderr().is_terminal();
        Self {
            terminal: is_seen.then(|| StandardStreams::open().error),
            what: String::new(),
            is_begun: false,
        }
    }

    /// Says what is measured from now on.
    pub(super) fn begin(&mut self, what: String) {
        self.what = what;
    }

    pub(super) fn is_shown(&self) -> bool {
        self.terminal.is_some()
    }

    /// Shows how a load is getting on.
    pub(super) fn show(&mut self, load: &mut Load, now: Time) {
        let mut line = format!("{BEGINNING}{}: ", self.what);
        let ready = load.ready_while_opening();
        let from = load.measures_from();
        let tally = load.tally();
        let failures = tally.failures.total();
        match (ready, from) {
            (Some(ready), _) => {
                let _ = write!(line, "{} sessions are open", Grouped(ready as u64));
            }
            (None, Some(from)) if now >= from => {
                let seconds = now.saturating_since(from).as_secs();
                if let Some(recent) = &mut tally.recent {
                    let time = |share| {
                        let micros = recent.percentile(share, 1);
                        human::micros(micros)
                    };
                    let _ = write!(
                        line,
                        "{seconds} s, {} requests in the last one, p50 {}, p99 {}",
                        Grouped(recent.count()),
                        time(0.5),
                        time(0.99)
                    );
                    recent.clear();
                }
            }
            (None, _) => line.push_str("warming up"),
        }
        if failures > 0 {
            let _ = write!(line, ", {} errors", Grouped(failures));
        }
        self.is_begun = true;
        self.write(&line);
    }

    /// Clears the line: something else is printed.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_begun) {
            self.write(BEGINNING);
        }
    }

    fn write(&self, text: &str) {
        if let Some(terminal) = &self.terminal {
            // A terminal that is not read misses a line, or a part of it.
            let _ = terminal.write_some(text.as_bytes());
        }
    }
}
