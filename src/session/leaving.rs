//! The stages of an upstream on its way out, and the signs that lead from one to the next.
//!
//! ```text
//!   stage        ends with                              and is followed by
//!   ClosedPipe   the exit                               Draining; Drained if the output has ended
//!                EXIT_GRACE: it is told to stop         Stopping; Drained if the output has ended
//!   Stopping     the exit                               Draining; Drained if the output has ended
//!                EXIT_GRACE after the output's end      Drained
//!   Draining     the output's end, or DRAIN_GRACE       Drained
//!   Drained      its requests are answered              Gone; Settled if the exit is not known
//!   Settled      the exit                               Gone
//!   Gone         it is released                         another upstream, or none
//! ```
//!
//! The first sign decides where it begins: an exit in `Draining`, the end of its output or a broken input in
//! `ClosedPipe`, our own request in `Stopping`. A link has one sign only, its end, and begins in `Drained`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::History;
use super::report::Exit;
use crate::protocol::id::RequestId;
use crate::util::side_bytes;
use crate::util::time::Time;

/// After it closed a pipe, a process has this long to exit before it is stopped, so that its exit status can be
/// reported: a process that exits closes its pipes first, and is reaped within a few milliseconds.
const EXIT_GRACE: Duration = Duration::from_millis(50);

/// After the exit of a process, others may hold its output open, and may still be writing. Their output is read for
/// this long: a child that has something to say does so at once, and a daemon may never close its copy.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// An upstream on its way out.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Leaving {
    pub(super) stage: Stage,
    pub(super) history: History,
    /// How long it had lived at the first sign.
    pub(super) lived: Duration,
    /// Whether the client's probe (`server/discover`) made it exit. That does not count as a crash.
    pub(super) died_of_probe: bool,
    /// Whether it was told to stop before there was any other sign.
    pub(super) was_asked: bool,
    /// Whether it is left for another that is there at once: a seat for a server of the session's own, or a session of a proxy
    /// that is gone for a new one over the same link.
    pub(super) is_left: bool,
    /// Set if it is told to stop because it has not responded to the replay within this time.
    pub(super) replay_overdue: Option<Duration>,
    /// The replay that is still unanswered. The response may be among the upstream's last words.
    pub(super) replay: Option<RequestId>,
    /// The unwritten rest of the last line, if that was written in part.
    #[serde(with = "side_bytes")]
    pub(super) rest: Vec<u8>,
}

/// How far its departure has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// It closed a pipe; its exit is awaited.
    ClosedPipe { output_ended: bool, until: Time },
    /// It was told to stop. Once its output has ended, its status is awaited up to this time.
    Stopping { status_until: Option<Time> },
    /// It exited; its output is read to the end.
    Draining {
        exit: Exit,
        until: Time,
        /// Since when `until` is suspended because the client is too slow for the output to be read.
        paused: Option<Time>,
    },
    /// No more output will come; its requests are still to be answered. The exit may be unknown.
    Drained { exit: Option<Exit> },
    /// Its requests were answered; its exit is awaited.
    Settled,
    /// It exited, and its requests were answered.
    Gone { exit: Exit },
}

/// A sign that an upstream is leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Exited(Exit),
    OutputEnded,
    InputBroke,
    /// We told it to stop.
    ToldToStop,
    /// The link is gone.
    LinkEnded(Exit),
}

impl Stage {
    /// The stage that begins with the first sign.
    pub(super) fn first(sign: Sign, now: Time) -> Self {
        let until = now + EXIT_GRACE;
        match sign {
            Sign::Exited(exit) => Self::draining(exit, now),
            Sign::OutputEnded => Self::ClosedPipe {
                output_ended: true,
                until,
            },
            Sign::InputBroke => Self::ClosedPipe {
                output_ended: false,
                until,
            },
            Sign::ToldToStop => Self::Stopping { status_until: None },
            Sign::LinkEnded(exit) => Self::Drained { exit: Some(exit) },
        }
    }

    /// The stage after one more sign.
    pub(super) fn after(self, sign: Sign, now: Time) -> Self {
        match (self, sign) {
            (Self::Settled, Sign::Exited(exit)) => Self::Gone { exit },
            (stage, Sign::Exited(exit)) if stage.has_output() => Self::draining(exit, now),
            (Self::ClosedPipe { .. } | Self::Stopping { .. }, Sign::Exited(exit))
            | (Self::Draining { exit, .. }, Sign::OutputEnded)
            | (Self::Stopping { .. }, Sign::LinkEnded(exit)) => Self::Drained { exit: Some(exit) },
            (Self::ClosedPipe { .. }, Sign::OutputEnded) => Self::ClosedPipe {
                output_ended: true,
                until: now + EXIT_GRACE,
            },
            (Self::Stopping { .. }, Sign::OutputEnded) => Self::Stopping {
                status_until: Some(now + EXIT_GRACE),
            },
            (
                Self::ClosedPipe {
                    output_ended,
                    until,
                },
                Sign::ToldToStop,
            ) => Self::Stopping {
                status_until: output_ended.then_some(until),
            },
            (stage, _) => stage,
        }
    }

    fn draining(exit: Exit, now: Time) -> Self {
        Self::Draining {
            exit,
            until: now + DRAIN_GRACE,
            paused: None,
        }
    }

    fn has_output(self) -> bool {
        match self {
            Self::ClosedPipe { output_ended, .. } => !output_ended,
            Self::Stopping { status_until } => status_until.is_none(),
            Self::Draining { .. } => true,
            Self::Drained { .. } | Self::Settled | Self::Gone { .. } => false,
        }
    }

    fn deadline(self) -> Option<Time> {
        match self {
            Self::ClosedPipe { until, .. } => Some(until),
            Self::Stopping { status_until } => status_until,
            Self::Draining { until, paused, .. } => paused.is_none().then_some(until),
            Self::Drained { .. } | Self::Settled | Self::Gone { .. } => None,
        }
    }
}

impl Leaving {
    pub(super) fn has_output(&self) -> bool {
        self.stage.has_output()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.stage.deadline()
    }

    /// Whether its requests were answered.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.stage, Stage::Settled | Stage::Gone { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);

    fn stage_after(signs: &[Sign]) -> Stage {
        let first = Stage::first(signs[0], NOW);
        signs[1..]
            .iter()
            .fold(first, |stage, sign| stage.after(*sign, NOW))
    }

    #[test]
    fn the_order_of_the_signs_does_not_matter_once_the_exit_and_the_end_of_the_output_are_known() {
        let signs = [
            Sign::Exited(Exit::Code(3)),
            Sign::OutputEnded,
            Sign::InputBroke,
            Sign::ToldToStop,
        ];
        let drained = Stage::Drained {
            exit: Some(Exit::Code(3)),
        };
        for code in 0..256 {
            let order = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6 & 3];
            if (0..4).all(|sign| order.contains(&sign)) {
                assert_eq!(
                    stage_after(&order.map(|sign| signs[sign])),
                    drained,
                    "{order:?}"
                );
            }
        }
    }

    #[test]
    fn an_end_of_the_output_does_not_prolong_the_wait_of_one_that_was_told_to_stop_later() {
        let until = Some(NOW + EXIT_GRACE);
        let stopping = stage_after(&[Sign::OutputEnded, Sign::ToldToStop]);
        assert_eq!(stopping.deadline(), until);
        let waiting = stage_after(&[Sign::InputBroke, Sign::ToldToStop]);
        assert_eq!((waiting.deadline(), waiting.has_output()), (None, true));
    }
}
