//! What is counted of connections and servers, besides what sessions count themselves.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::session::Session;
use crate::session::report::{EndReason, Exit, SessionLimit};
use crate::util::histogram::Histogram;
use crate::util::time::Time;

/// For so long a server that could not be started is taken to be one that can't be. Then the next session is to try.
const FAILURE_TIME: Duration = Duration::from_secs(10);

/// What may become of an upgrade.
pub(super) const UPGRADES: [&str; 2] = ["done", "failed"];

/// What is counted of the whole program since its start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ProxyCounts {
    /// Connections that were refused because of a limit on sessions: of all, of an address, of a client, of a server.
    pub(super) refused: [u64; 4],
    /// Whether files were read again with success the last time, and when they last were, since 1970. `None` if there are none.
    pub(super) reload: Option<(bool, Duration)>,
    /// How often another program was to go on, as [`UPGRADES`] names what became of that.
    #[serde(default)]
    pub(super) upgrades: [u64; UPGRADES.len()],
}

/// What is counted of a service.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ServiceCounts {
    /// Sessions that were not refused.
    pub(super) opened: u64,
    /// Those of them that are gone, by the numbers of the reasons.
    pub(super) closed: [u64; EndReason::NAMES.len()],
    /// Servers that were started.
    pub(super) starts: u64,
    /// Servers that could not be.
    pub(super) failed_starts: u64,
    /// From the start of a server to its first output.
    pub(super) start_times: Histogram,
    /// Sessions that went on with new servers because the user wanted that.
    pub(super) swapped: u64,
    /// How often that came to an end because a new server was not fit.
    pub(super) failed_swaps: u64,
    /// Why it did the last time, unless it went well since.
    pub(super) swap_failure: Option<String>,
    /// The last start, if it has failed: when, and why.
    last_failure: Option<(Time, String)>,
}

impl ProxyCounts {
    /// A connection was refused.
    pub(super) fn refused(&mut self, limit: SessionLimit) {
        let place = match limit {
            SessionLimit::All(_) => 0,
            SessionLimit::OfAddress(_) => 1,
            SessionLimit::OfClient(_) => 2,
            SessionLimit::OfServer(_) => 3,
        };
        self.refused[place] += 1;
    }
}

impl ProxyCounts {
    /// Another program was to go on, and does, or does not.
    pub(super) fn note_upgrade(&mut self, is_done: bool) {
        self.upgrades[usize::from(!is_done)] += 1;
    }
}

impl ServiceCounts {
    /// A session is gone that was not refused.
    pub(super) fn closed(&mut self, session: &Session) {
        if let Some(reason) = session.end_reason() {
            self.closed[reason.number()] += 1;
        }
    }

    /// A server was started.
    pub(super) fn started(&mut self) {
        self.starts += 1;
        self.last_failure = None;
    }

    /// A server could not be started.
    pub(super) fn start_failed(&mut self, error: &str, now: Time) {
        self.failed_starts += 1;
        self.last_failure = Some((now, error.to_owned()));
    }

    /// Why no server can be started, as far as is known.
    pub(super) fn why_none_starts(&self, now: Time) -> Option<&str> {
        let (at, error) = self.last_failure.as_ref()?;
        (now < *at + FAILURE_TIME).then_some(error.as_str())
    }
}

/// The processes of a service.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ProcessCounts {
    /// Those that run.
    pub(super) running: usize,
    /// How the others have ended.
    pub(super) exits: ExitCounts,
}

/// How servers have ended.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ExitCounts {
    /// With exit code 0.
    pub(super) well: u64,
    /// With another, or it is not known how.
    pub(super) other: u64,
    /// By a signal.
    pub(super) signal: u64,
}

impl ExitCounts {
    /// One has ended.
    pub(super) fn note(&mut self, exit: Exit) {
        match exit {
            Exit::Code(0) => self.well += 1,
            Exit::Signal(_) => self.signal += 1,
            _ => self.other += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_start_is_held_against_the_server_for_a_while_or_until_one_succeeds() {
        let now = Time::from_nanos(1 << 40);
        let mut counts = ServiceCounts::default();
        assert_eq!(counts.why_none_starts(now), None);
        counts.start_failed("no such file", now);
        assert_eq!(counts.why_none_starts(now), Some("no such file"));
        let later = now + FAILURE_TIME;
        assert_eq!(counts.why_none_starts(later), None);
        counts.start_failed("again", later);
        assert_eq!(counts.why_none_starts(later), Some("again"));
        counts.started();
        assert_eq!(counts.why_none_starts(later), None);
        assert_eq!((counts.starts, counts.failed_starts), (1, 2));
    }

    #[test]
    fn exits_are_told_apart() {
        let mut exits = ExitCounts::default();
        for exit in [Exit::Code(0), Exit::Code(1), Exit::Unknown, Exit::Signal(9)] {
            exits.note(exit);
        }
        assert_eq!((exits.well, exits.other, exits.signal), (1, 2, 1));
    }
}
