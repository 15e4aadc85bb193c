//! The proxy at the other end of a connection, as its client sees it: the heartbeats that go there, and whether it is
//! still alive.

use std::time::Duration;

use log::warn;

use super::report::Exit;
use super::{Context, Session, ToUpstream};
use crate::protocol::own_messages;
use crate::util::time::Time;

/// A peer that sends nothing for two and a half of its own heartbeat intervals is taken for dead, in halves.
const SILENT_HALF_INTERVALS: u32 = 5;

/// Of the peer's last intervals the longest counts.
const REMEMBERED_INTERVALS: usize = 4;

/// Heartbeats that were held up somewhere come in a bunch. Intervals of less than half the longest are therefore left
/// out, unless so many follow each other that it is the longest that was none.
const MAX_BUNCH: usize = 20;

/// What is known of a peer on one connection.
#[derive(Debug)]
pub struct Liveness {
    /// When the next heartbeat goes there.
    next_beat: Time,
    last_sign: Time,
    last_response: Option<Time>,
    intervals: [Duration; REMEMBERED_INTERVALS],
    responses: usize,
    left_out: usize,
}

impl Liveness {
    /// The connection was made now.
    pub fn new(now: Time, interval: Duration) -> Self {
        Self {
            next_beat: now + interval,
            last_sign: now,
            last_response: None,
            intervals: [Duration::ZERO; REMEMBERED_INTERVALS],
            responses: 0,
            left_out: 0,
        }
    }

    /// Whether a heartbeat is due. If so, the next one is set.
    pub fn beat(&mut self, now: Time, interval: Duration) -> bool {
        let due = self.next_beat <= now;
        if due {
            self.next_beat = now + interval;
        }
        due
    }

    /// The peer sent something.
    pub fn sign(&mut self, now: Time) {
        self.last_sign = now;
    }

    /// The peer sent a `heartbeat_response`.
    pub fn response(&mut self, now: Time) {
        let Some(last) = self.last_response.replace(now) else {
            return;
        };
        let interval = now.saturating_since(last);
        let is_bunched = self.longest().is_some_and(|longest| interval < longest / 2);
        if !is_bunched {
            self.intervals[self.responses % REMEMBERED_INTERVALS] = interval;
            self.responses += 1;
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

    /// What the peer sends was not read for a while: nothing can be said about that time.
    pub fn skip(&mut self, now: Time) {
        self.last_sign = now;
        self.last_response = None;
    }

    /// When the peer counts as dead, if nothing is heard of it. `None` while its interval is unknown.
    pub fn dead_at(&self) -> Option<Time> {
        let longest = self.longest()?;
        Some(self.last_sign + longest * SILENT_HALF_INTERVALS / 2)
    }

    /// How long nothing was heard of the peer.
    pub fn silence(&self, now: Time) -> Duration {
        now.saturating_since(self.last_sign)
    }

    /// When something is next to be done.
    pub fn deadline(&self, reads: bool) -> Time {
        match self.dead_at() {
            Some(dead_at) if reads => dead_at.min(self.next_beat),
            _ => self.next_beat,
        }
    }
}

impl Session {
    /// A connection is gone both ways at once.
    pub(super) fn connection_ended(&mut self, exit: Exit, cx: &mut Context<'_>) {
        self.upstream_tail(cx);
        if exit == Exit::Connection(None) && self.nothing_waits() {
            self.policy.ended_idle(cx.now);
        }
        self.peer = None;
        self.begin_leaving(cx, |leaving, _| {
            leaving.exit.get_or_insert(exit);
            leaving.output_ended = true;
        });
    }

    /// A line that only concerns the connection. It is not kept for another one.
    pub(super) fn control_line_to_peer(&mut self, line: &str, cx: &mut Context<'_>) {
        self.to_upstream
            .push(line.as_bytes(), Some(ToUpstream::Control), cx.memory);
    }

    pub(super) fn peer_timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        let Some(peer) = &mut self.peer else { return };
        if self.upstream_was_read && peer.dead_at().is_some_and(|at| at <= cx.now) {
            let silence = peer.silence(cx.now);
            warn!(
                "{}: no sign of life for {:.3} s; taken for dead",
                self.tag,
                silence.as_secs_f64()
            );
            self.connection_ended(Exit::Silent(silence), cx);
        } else if peer.beat(cx.now, cx.settings.heartbeat_interval)
            && self.upstream.takes_input()
            && !self
                .to_upstream
                .tags()
                .any(|line| matches!(line, ToUpstream::Control))
        {
            self.control_line_to_peer(&own_messages::heartbeat(unix_time), cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_own_interval_counts() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut peer = Liveness::new(begin, Duration::from_secs(30));
        peer.response(at(7));
        assert_eq!(peer.dead_at(), None, "one response is no interval");
        peer.sign(at(17));
        peer.response(at(17));
        assert_eq!(peer.dead_at(), Some(at(17 + 25)));
        peer.sign(at(20));
        assert_eq!(peer.dead_at(), Some(at(20 + 25)));
    }

    #[test]
    fn a_bunch_of_responses_is_no_shorter_interval() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut peer = Liveness::new(begin, Duration::from_secs(30));
        for second in [10, 20, 20, 20] {
            peer.sign(at(second));
            peer.response(at(second));
        }
        assert_eq!(peer.dead_at(), Some(at(45)));
    }

    #[test]
    fn a_long_bunch_in_pieces_is_no_shorter_interval_either() {
        let begin = Time::from_nanos(1 << 40);
        let at = |millis: u64| begin + Duration::from_millis(millis);
        let mut peer = Liveness::new(begin, Duration::from_secs(30));
        let beats = [
            10_000, 20_000, 70_000, 70_050, 70_051, 70_052, 70_053, 70_054, 70_055,
        ];
        for millis in beats {
            peer.sign(at(millis));
            peer.response(at(millis));
        }
        assert!(peer.dead_at() >= Some(at(70_055 + 25_000)), "{peer:?}");
    }

    #[test]
    fn one_long_interval_is_not_remembered_for_ever() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut peer = Liveness::new(begin, Duration::from_secs(30));
        for second in [0, 10, 10_000]
            .into_iter()
            .chain((1..40).map(|beat| 10_000 + 10 * beat))
        {
            peer.sign(at(second));
            peer.response(at(second));
        }
        assert_eq!(peer.dead_at(), Some(at(10_390 + 25)));
    }

    #[test]
    fn the_clock_stands_while_nothing_is_read() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut peer = Liveness::new(begin, Duration::from_secs(1000));
        peer.response(at(0));
        peer.response(at(10));
        assert_eq!(peer.deadline(false), at(1000));
        peer.skip(at(500));
        assert_eq!(peer.deadline(true), at(525));
        peer.response(at(510));
        assert_eq!(
            peer.dead_at(),
            Some(at(525)),
            "what was held up is no measure"
        );
    }
}
