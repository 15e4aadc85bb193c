//! What the log says about a session at its end.

use std::fmt;

use log::Level;

use super::report::{EndReason, Traffic};
use super::tally::Tally;
use super::{Context, Session};
use crate::util::about::about;
use crate::util::time::Time;

/// What the log says about a session at its end.
#[derive(Debug)]
pub struct Summary<'a> {
    /// `None` while the session goes on.
    reason: Option<&'a EndReason>,
    opened: Time,
    now: Time,
    to_upstream: Traffic,
    to_client: Traffic,
    tally: &'a Tally,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.now.saturating_since(self.opened).as_secs_f64();
        match self.reason {
            Some(reason) => write!(f, "closed: {reason}")?,
            None => f.write_str("goes on")?,
        }
        write!(
            f,
            "; {seconds:.3} s, {} to the server, {} to the client{}",
            self.to_upstream, self.to_client, self.tally
        )
    }
}

impl Session {
    /// What the log says at the end.
    pub fn summary(&self, now: Time) -> Summary<'_> {
        Summary {
            reason: self.goal.reason(),
            opened: self.opened,
            now,
            to_upstream: self.sent_to_upstream,
            to_client: self.sent_to_client.without(self.rare.undelivered),
            tally: &self.tally,
        }
    }

    /// Logs the end. Sessions without a message are subject to a limit: there may be too many of them for the log.
    pub fn log_end(&self, cx: &mut Context<'_>) {
        if self.sent_to_upstream.is_none() {
            let unasked = &mut cx.logs.unasked;
            if self.owes_opened {
                unasked.leave_out();
            }
            if !unasked.admit(cx.now) {
                return;
            }
        }
        let level = if self.was_refused() || self.other_protocol().is_some() {
            Level::Warn
        } else {
            Level::Info
        };
        let reason = self.goal.reason().map(EndReason::name);
        about!(at level, self.label, reason = reason; "{}", self.summary(cx.now));
    }

    /// Why it ends, or ended.
    pub fn end_reason(&self) -> Option<&EndReason> {
        self.goal.reason()
    }

    /// What made the session end before its client wanted that, if anything did.
    pub fn failure(&self) -> Option<&EndReason> {
        self.goal.reason().filter(|reason| reason.is_failure())
    }

    /// Whether the session was refused, and never counted.
    pub fn was_refused(&self) -> bool {
        matches!(self.goal.reason(), Some(EndReason::SessionLimit(_)))
    }
}
