//! Whether the proxy at the other end of a link is still alive, and the heartbeats that go there.

use std::time::Duration;

use super::report::Exit;
use super::upstream::ToUpstream;
use super::{Action, Context, Session};
use crate::protocol::own_messages;
use crate::util::about::about;
use crate::util::time::Time;

/// A proxy that sends nothing for two and a half of its own heartbeat intervals is taken for dead: two may be late or
/// lost on the way, a third is not. In halves, to stay within integers.
const SILENT_HALF_INTERVALS: u32 = 5;

/// However short its intervals are, a proxy is not taken for dead as if they were shorter than this: processes and
/// networks stand still for longer than some intervals.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// The interval is known from this many on: one alone may be an accident.
const LEAST_NOTED: usize = 2;

/// The longest of this many intervals counts, so that one short interval does not make the next one look late.
const REMEMBERED_INTERVALS: usize = 4;

/// Heartbeats that were held up on the way arrive in a bunch. Intervals of less than half the longest are therefore
/// left out; but after this many in a row it is the longest that was an exception. More than any bunch: a proxy keeps
/// at most one heartbeat waiting, so a bunch is what fits into the buffers between.
const MAX_BUNCH: usize = 20;

/// What is known of the proxy at the other end of one link.
#[derive(Debug)]
pub(super) struct Liveness {
    /// When the link was made.
    made: Time,
    /// When the next heartbeat goes there.
    next_heartbeat: Time,
    last_received: Time,
    /// The same, also while the link was not read.
    last_heard: Time,
    last_heartbeat: Option<Time>,
    /// By the proxy's clock, the time since 1970 at which it sent that one.
    last_timestamp: Option<Duration>,
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
            made: now,
            next_heartbeat: now + interval,
            last_received: now,
            last_heard: now,
            last_heartbeat: None,
            last_timestamp: None,
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

    /// A `heartbeat_response` arrived, which says that it was sent at this time since 1970.
    pub(super) fn note_heartbeat(&mut self, timestamp: Option<Duration>, now: Time) {
        let arrived = self.last_heartbeat.replace(now);
        let sent = std::mem::replace(&mut self.last_timestamp, timestamp);
        // How far apart they were sent, because a stall on the way brings them closer, or further apart. Without that, or if
        // that clock was set back, it is how far apart they arrived.
        let between_sent = timestamp
            .zip(sent)
            .and_then(|(new, old)| new.checked_sub(old));
        // All came over this link: what is longer than it has lasted was measured by a clock that was set.
        let lasted = now.saturating_since(self.made);
        let between_sent =
            between_sent.filter(|distance| !distance.is_zero() && *distance <= lasted);
        let between_arrived = || Some(now.saturating_since(arrived?));
        let Some(interval) = between_sent.or_else(between_arrived) else {
            return;
        };
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
        let longest = self.longest().filter(|_| self.noted >= LEAST_NOTED)?;
        let longest = longest.max(LEAST_INTERVAL);
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
        let at = self.backend.liveness_deadline(self.was_read.upstream);
        at.filter(|_| !self.is_detached())
    }

    pub(super) fn liveness_timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        let (is_kept, is_detached) = (self.resume.is_some(), self.is_detached());
        let Some(liveness) = self.backend.liveness().filter(|_| !is_detached) else {
            return;
        };
        if self.was_read.upstream && liveness.dead_at().is_some_and(|at| at <= cx.now) {
            let silence = liveness.silence(cx.now);
            about!(
                warn,
                self.label,
                "no sign of life of {} for {:.3} s; taken for dead",
                self.label.peer(),
                silence.as_secs_f64()
            );
            if is_kept {
                liveness.restart_clock(cx.now);
                cx.actions.push(Action::LinkSilent);
                return;
            }
            self.upstream_tail(cx);
            self.link_ended(Exit::Silent(silence), cx);
        } else if liveness.take_due(cx.now, cx.settings.heartbeat_interval) && self.upstream.is_up()
        {
            Self::check_upstream(liveness.time_unheard(cx.now), cx);
            if !self.beat_beside(|| own_messages::heartbeat(unix_time))
                && !self.has_unsent_link_line()
            {
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

    /// Each with its time of arrival and the time in it, in milliseconds.
    fn after(beats: &[(u64, Option<u64>)]) -> Liveness {
        let mut liveness = Liveness::new(BEGIN, Duration::from_secs(30));
        for (arrived, sent) in beats {
            let now = BEGIN + Duration::from_millis(*arrived);
            liveness.note_received(now);
            let sent = sent.map(|millis| Duration::from_millis(1_700_000_000_000 + millis));
            liveness.note_heartbeat(sent, now);
        }
        liveness
    }

    const BEGIN: Time = Time::from_nanos(1 << 40);

    /// How long after the last heartbeat the proxy is taken for dead, in milliseconds.
    fn patience(beats: &[(u64, Option<u64>)]) -> Option<u128> {
        let dead_at = after(beats).dead_at()?;
        let last = BEGIN + Duration::from_millis(beats.last()?.0);
        Some((dead_at - last).as_millis())
    }

    #[test]
    fn a_stall_over_the_first_heartbeats_does_not_shorten_the_interval() {
        let mut beats = vec![(60_000, Some(30_000)), (60_004, Some(60_000))];
        assert_eq!(patience(&beats), None, "one distance is not enough");
        beats.push((90_000, Some(90_000)));
        assert_eq!(patience(&beats), Some(75_000));
        // All three at once.
        let beats = [30, 60, 90].map(|sent| (90_000, Some(1000 * sent)));
        assert_eq!(patience(&beats), Some(75_000));
    }

    #[test]
    fn no_interval_is_shorter_than_a_second() {
        let beats = [0, 4, 8].map(|millis| (millis, Some(millis)));
        assert_eq!(patience(&beats), Some(2500));
        let beats = [0, 4, 8].map(|millis| (millis, None));
        assert_eq!(patience(&beats), Some(2500));
    }

    #[test]
    fn a_clock_that_is_set_back_is_not_a_measure() {
        let beats = [(0, 9_000_000), (10_000, 1_000_000), (20_000, 1_010_000)];
        let beats = beats.map(|(arrived, sent)| (arrived, Some(sent)));
        assert_eq!(patience(&beats), Some(25_000));
    }

    #[test]
    fn the_proxys_own_interval_counts() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(begin, Duration::from_secs(30));
        liveness.note_heartbeat(None, at(7));
        assert_eq!(liveness.dead_at(), None, "one heartbeat makes no interval");
        liveness.note_heartbeat(None, at(17));
        assert_eq!(liveness.dead_at(), None, "one interval may be an accident");
        liveness.note_received(at(27));
        liveness.note_heartbeat(None, at(27));
        assert_eq!(liveness.dead_at(), Some(at(27 + 25)));
        liveness.note_received(at(30));
        assert_eq!(liveness.dead_at(), Some(at(30 + 25)));
    }

    #[test]
    fn a_bunch_of_heartbeats_is_not_a_shorter_interval() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(begin, Duration::from_secs(30));
        for second in [10, 20, 30, 30, 30] {
            liveness.note_received(at(second));
            liveness.note_heartbeat(None, at(second));
        }
        assert_eq!(liveness.dead_at(), Some(at(55)));
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
            liveness.note_heartbeat(None, at(millis));
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
            liveness.note_heartbeat(None, at(second));
        }
        assert_eq!(liveness.dead_at(), Some(at(10_390 + 25)));
    }

    #[test]
    fn the_clock_stands_while_nothing_is_read() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(begin, Duration::from_secs(1000));
        liveness.note_heartbeat(None, at(0));
        liveness.note_heartbeat(None, at(10));
        liveness.note_heartbeat(None, at(20));
        assert_eq!(liveness.deadline(false), at(1000));
        liveness.restart_clock(at(500));
        assert_eq!(liveness.deadline(true), at(525));
        liveness.note_heartbeat(None, at(510));
        assert_eq!(
            liveness.dead_at(),
            Some(at(525)),
            "what was held up is not a measure"
        );
    }
}
