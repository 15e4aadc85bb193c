//! When a client gets its next heartbeat, and whether it has gone silent itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client_side::OwnLine;
use super::{Context, Session};
use crate::protocol::own_messages;
use crate::util::about::about;
use crate::util::time::Time;

/// A client that sends nothing for this many intervals is reported, once per silence: one heartbeat may be late.
const SILENT_INTERVALS: u32 = 2;

/// The heartbeat of one session. Clients that never announce themselves get none.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Heartbeat {
    /// When the next one is due; `None` for a client that has not announced itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Time>,
    /// Since when the client has been silent, until that is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    silent_since: Option<Time>,
    /// When the client last sent something.
    last_heard: Time,
}

impl Heartbeat {
    /// The client was active just now.
    pub(super) fn new(now: Time) -> Self {
        Self {
            next: None,
            silent_since: Some(now),
            last_heard: now,
        }
    }

    /// The client takes heartbeats. They come at whole intervals since the session began, at `began`.
    pub(super) fn announce(&mut self, began: Time, now: Time, interval: Duration) {
        if self.next.is_none() {
            self.next = Some(next_after(now, began, interval));
        }
    }

    /// Whether the client takes heartbeats.
    pub(super) fn is_announced(&self) -> bool {
        self.next.is_some()
    }

    /// The client sent something, or had no chance to.
    pub(super) fn note_activity(&mut self, now: Time) {
        self.silent_since = Some(now);
    }

    /// The client sent something.
    pub(super) fn note_heard(&mut self, now: Time) {
        self.note_activity(now);
        self.last_heard = now;
    }

    /// How long nothing was heard of the client, whether it was read or not.
    pub(super) fn silence(&self, now: Time) -> Duration {
        now.saturating_since(self.last_heard)
    }

    /// When the next heartbeat is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.next
    }

    /// If a heartbeat is due, sets the time of the next one. Returns whether it was.
    pub(super) fn take_due(&mut self, began: Time, now: Time, interval: Duration) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.next = Some(next_after(now, began, interval));
        }
        due
    }

    /// How long the client has been silent, if that is to be reported now.
    pub(super) fn take_silence_report(
        &mut self,
        now: Time,
        interval: Duration,
    ) -> Option<Duration> {
        let silence = now.saturating_since(self.silent_since?);
        let is_due = silence >= interval * SILENT_INTERVALS;
        if is_due {
            self.silent_since = None;
        }
        is_due.then_some(silence)
    }
}

fn next_after(now: Time, began: Time, interval: Duration) -> Time {
    let past = now.saturating_since(began).as_nanos();
    let interval = interval.as_nanos().max(1);
    now + Duration::from_nanos((interval - past % interval) as u64)
}

impl Session {
    pub(super) fn heartbeat_deadline(&self) -> Option<Time> {
        let next = self.heartbeat.next()?;
        (self.delivers_to_client() && !self.is_detached()).then_some(next)
    }

    /// At most one waits to be written.
    fn has_heartbeat_waiting(&self) -> bool {
        let mut lines = self.to_client.tags();
        lines.any(|line| *line == OwnLine::Heartbeat)
    }

    pub(super) fn heartbeat_timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        let interval = cx.settings.heartbeat_interval;
        if !self.delivers_to_client()
            || self.is_detached()
            || !self.heartbeat.take_due(self.opened, cx.now, interval)
        {
            return;
        }
        // Whoever has given back a server would be served.
        let is_alive = self.upstream.is_up() || self.hibernates;
        let line = || own_messages::heartbeat_response(unix_time, is_alive);
        if !self.beat_beside(line) && !self.has_heartbeat_waiting() {
            self.own_line(&line(), OwnLine::Heartbeat, cx);
        }
        self.check_client(cx);
        if !self.wants_client_input() {
            return;
        }
        if let Some(silence) = self.heartbeat.take_silence_report(cx.now, interval) {
            about!(
                warn,
                self.label,
                "has been silent for {:.3} s",
                silence.as_secs_f64()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn beats_come_at_whole_intervals_since_the_beginning() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut heartbeat = Heartbeat::new(begin);
        assert!(heartbeat.next().is_none() && !heartbeat.take_due(begin, at(100), INTERVAL));
        heartbeat.announce(begin, at(13), INTERVAL);
        assert_eq!(heartbeat.next(), Some(at(20)));
        assert!(!heartbeat.take_due(begin, at(19), INTERVAL));
        assert!(
            heartbeat.take_due(begin, at(47), INTERVAL),
            "late, but not three times"
        );
        assert_eq!(heartbeat.next(), Some(at(50)));
        heartbeat.announce(begin, at(48), INTERVAL);
        assert_eq!(heartbeat.next(), Some(at(50)));
    }

    #[test]
    fn one_report_per_silence() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut heartbeat = Heartbeat::new(begin);
        assert_eq!(heartbeat.take_silence_report(at(19), INTERVAL), None);
        assert_eq!(
            heartbeat.take_silence_report(at(20), INTERVAL),
            Some(2 * INTERVAL)
        );
        assert_eq!(heartbeat.take_silence_report(at(30), INTERVAL), None);
        heartbeat.note_activity(at(31));
        assert_eq!(heartbeat.take_silence_report(at(40), INTERVAL), None);
        assert!(heartbeat.take_silence_report(at(60), INTERVAL).is_some());
    }
}
