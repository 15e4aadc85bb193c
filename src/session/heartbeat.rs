//! When a heartbeat is due, and whether the client has gone silent.

use std::time::Duration;

use crate::util::time::Time;

/// A client that sends nothing for this many intervals is reported, once per silence.
const SILENT_INTERVALS: u32 = 2;

/// The heartbeat of one session. Clients that never announce themselves get none.
#[derive(Debug)]
pub struct Heartbeat {
    /// When the next one is due; `None` for a client that has not announced itself.
    next: Option<Time>,
    last_life: Time,
    silence_reported: bool,
}

impl Heartbeat {
    /// The client was heard of just now.
    pub fn new(now: Time) -> Self {
        Self {
            next: None,
            last_life: now,
            silence_reported: false,
        }
    }

    /// The client takes heartbeats. They come at whole intervals since the session began, at `began`.
    pub fn announce(&mut self, began: Time, now: Time, interval: Duration) {
        if self.next.is_none() {
            self.next = Some(next_after(now, began, interval));
        }
    }

    /// The client sent something, or could not have.
    pub fn note_activity(&mut self, now: Time) {
        self.last_life = now;
        self.silence_reported = false;
    }

    /// When the next heartbeat is due.
    pub fn next(&self) -> Option<Time> {
        self.next
    }

    /// Whether a heartbeat is due. If so, the next one is set.
    pub fn beat(&mut self, began: Time, now: Time, interval: Duration) -> bool {
        let due = self.next.is_some_and(|next| next <= now);
        if due {
            self.next = Some(next_after(now, began, interval));
        }
        due
    }

    /// How long the client has been silent, if that is to be reported now.
    pub fn take_silence_report(&mut self, now: Time, interval: Duration) -> Option<Duration> {
        let silence = now.saturating_since(self.last_life);
        let report = silence >= interval * SILENT_INTERVALS && !self.silence_reported;
        self.silence_reported |= report;
        report.then_some(silence)
    }
}

fn next_after(now: Time, began: Time, interval: Duration) -> Time {
    let past = now.saturating_since(began).as_nanos();
    let interval = interval.as_nanos().max(1);
    now + Duration::from_nanos((interval - past % interval) as u64)
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
        assert!(heartbeat.next().is_none() && !heartbeat.beat(begin, at(100), INTERVAL));
        heartbeat.announce(begin, at(13), INTERVAL);
        assert_eq!(heartbeat.next(), Some(at(20)));
        assert!(!heartbeat.beat(begin, at(19), INTERVAL));
        assert!(
            heartbeat.beat(begin, at(47), INTERVAL),
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
