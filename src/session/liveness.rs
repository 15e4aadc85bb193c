//! Whether the proxy at the other end of a link is still alive, and the heartbeats that go there.

use std::time::Duration;

use log::warn;

use super::report::Exit;
use super::upstream::ToUpstream;
use super::{Context, Session};
use crate::protocol::own_messages;
use crate::util::time::Time;

/// A proxy that sends nothing for two and a half of its own heartbeat intervals is taken for dead: two may be late or
/// lost on the way, a third is not. In halves, to stay within integers.
const SILENT_HALF_INTERVALS: u32 = 5;

/// The longest of this many intervals counts, so that one short interval does not make the next one look late.
const REMEMBERED_INTERVALS: usize = 4;

/// Heartbeats that were held up on the way arrive in a bunch. Intervals of less than half the longest are therefore
/// left out; but after this many in a row it is the longest that was an exception. More than any bunch: a proxy keeps
/// at most one heartbeat waiting, so a bunch is what fits into the buffers between.
const MAX_BUNCH: usize = 20;

/// What is known of the proxy at the other end of one link.
#[derive(Debug)]
pub(super) struct Liveness {
    /// When the next heartbeat goes there.
    next_heartbeat: Time,
    last_received: Time,
    /// The same, also while the link was not read.
    last_heard: Time,
    last_heartbeat: Option<Time>,
    intervals: [Duration; REMEMBERED_INTERVALS],
    /// How many intervals were ever noted.
    noted: usize,
    /// How many intervals in a row were left out.
    left_out: usize,
}

impl Liveness {
    /// The link was made now.
    pub(super) fn new(now: Time, interval: Duration) -> Self {
        Self {
            next_heartbeat: now + interval,
            last_received: now,
            last_heard: now,
            last_heartbeat: None,
            intervals: [Duration::ZERO; REMEMBERED_INTERVALS],
            noted: 0,
            left_out: 0,
        }
    }

    /// If a heartbeat is due, sets the time of the next one. Returns whether it was.
    pub(super) fn take_due(&mut self, now: Time, interval: Duration) -> bool {
        let due = self.next_heartbeat <= now;
        if due {
            self.next_heartbeat = now + interval;
        }
        due
    }

    /// Any bytes arrived.
    pub(super) fn note_received(&mut self, now: Time) {
        self.last_received = now;
        self.last_heard = now;
    }

    /// A `heartbeat_response` arrived.
    pub(super) fn note_heartbeat(&mut self, now: Time) {
        let Some(last) = self.last_heartbeat.replace(now) else {
            return;
        };
        let interval = now.saturating_since(last);
        let is_bunched = self.longest().is_some_and(|longest| interval < longest / 2);
        if !is_bunched {
            self.intervals[self.noted % REMEMBERED_INTERVALS] = interval;
            self.noted += 1;
            self.left_out = 0;
        } else if self.left_out < MAX_BUNCH {
            self.left_out += 1;
        } else {
            self.intervals = [Duration::ZERO; REMEMBERED_INTERVALS];
            self.left_out = 0;
        }
    }

    fn longest(&self) -> Option<Duration> {
        self.intervals
            .iter()
            .copied()
            .max()
            .filter(|interval| !interval.is_zero())
    }

    /// The link was not read for a while, so nothing can be said about that time.
    pub(super) fn restart_clock(&mut self, now: Time) {
        self.last_received = now;
        self.last_heartbeat = None;
    }

    /// When the proxy is taken for dead if nothing arrives. `None` while its interval is unknown.
    pub(super) fn dead_at(&self) -> Option<Time> {
        let longest = self.longest()?;
        Some(self.last_received + longest * SILENT_HALF_INTERVALS / 2)
    }

    /// How long nothing has arrived.
    pub(super) fn silence(&self, now: Time) -> Duration {
        now.saturating_since(self.last_received)
    }

    /// How long nothing has arrived, whether the link was read or not.
    pub(super) fn time_unheard(&self, now: Time) -> Duration {
        now.saturating_since(self.last_heard)
    }

    /// When something is to be done next. A proxy that is not read can't be silent.
    pub(super) fn deadline(&self, is_read: bool) -> Time {
        match self.dead_at() {
            Some(dead_at) if is_read => dead_at.min(self.next_heartbeat),
            _ => self.next_heartbeat,
        }
    }
}

impl Session {
    /// Queues a line for the proxy at the other end. It is not kept for another link.
    pub(super) fn link_line(&mut self, line: &str, cx: &mut Context<'_>) {
        self.to_upstream
            .push(line.as_bytes(), Some(ToUpstream::Link), cx.memory);
    }

    pub(super) fn liveness_deadline(&self) -> Option<Time> {
        self.backend.liveness_deadline(self.upstream_was_read)
    }

    pub(super) fn liveness_timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        let Some(liveness) = self.backend.liveness() else {
            return;
        };
        if self.upstream_was_read && liveness.dead_at().is_some_and(|at| at <= cx.now) {
            let silence = liveness.silence(cx.now);
            warn!(
                "{}: no sign of life for {:.3} s; taken for dead",
                self.label,
                silence.as_secs_f64()
            );
            self.upstream_tail(cx);
            self.link_ended(Exit::Silent(silence), cx);
        } else if liveness.take_due(cx.now, cx.settings.heartbeat_interval) && self.upstream.is_up()
        {
            Self::check_upstream(liveness.time_unheard(cx.now), cx);
            if !self.has_unsent_link_line() {
                self.link_line(&own_messages::heartbeat(unix_time), cx);
            }
        }
    }

    fn has_unsent_link_line(&self) -> bool {
        self.to_upstream
            .tags()
            .any(|line| matches!(line, ToUpstream::Link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxys_own_interval_counts() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(begin, Duration::from_secs(30));
        liveness.note_heartbeat(at(7));
        assert_eq!(liveness.dead_at(), None, "one heartbeat makes no interval");
        liveness.note_received(at(17));
        liveness.note_heartbeat(at(17));
        assert_eq!(liveness.dead_at(), Some(at(17 + 25)));
        liveness.note_received(at(20));
        assert_eq!(liveness.dead_at(), Some(at(20 + 25)));
    }

    #[test]
    fn a_bunch_of_heartbeats_is_not_a_shorter_interval() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(begin, Duration::from_secs(30));
        for second in [10, 20, 20, 20] {
            liveness.note_received(at(second));
            liveness.note_heartbeat(at(second));
        }
        assert_eq!(liveness.dead_at(), Some(at(45)));
    }

    #[test]
    fn a_long_bunch_in_pieces_is_not_a_shorter_interval_either() {
        let begin = Time::from_nanos(1 << 40);
        let at = |millis: u64| begin + Duration::from_millis(millis);
        let mut liveness = Liveness::new(begin, Duration::from_secs(30));
        let beats = [
            10_000, 20_000, 70_000, 70_050, 70_051, 70_052, 70_053, 70_054, 70_055,
        ];
        for millis in beats {
            liveness.note_received(at(millis));
            liveness.note_heartbeat(at(millis));
        }
        assert!(
            liveness.dead_at() >= Some(at(70_055 + 25_000)),
            "{liveness:?}"
        );
    }

    #[test]
    fn one_long_interval_is_not_remembered_for_ever() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(begin, Duration::from_secs(30));
        for second in [0, 10, 10_000]
            .into_iter()
            .chain((1..40).map(|beat| 10_000 + 10 * beat))
        {
            liveness.note_received(at(second));
            liveness.note_heartbeat(at(second));
        }
        assert_eq!(liveness.dead_at(), Some(at(10_390 + 25)));
    }

    #[test]
    fn the_clock_stands_while_nothing_is_read() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(begin, Duration::from_secs(1000));
        liveness.note_heartbeat(at(0));
        liveness.note_heartbeat(at(10));
        assert_eq!(liveness.deadline(false), at(1000));
        liveness.restart_clock(at(500));
        assert_eq!(liveness.deadline(true), at(525));
        liveness.note_heartbeat(at(510));
        assert_eq!(
            liveness.dead_at(),
            Some(at(525)),
            "what was held up is not a measure"
        );
    }
}
