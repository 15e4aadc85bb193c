//! What the system knows of clients, when a session asks for it: which have vanished, by one look at all of them, and how
//! much one of them has not taken.

use std::time::Duration;

use super::system::System;
use super::{ClientSession, Proxy};
use crate::reactor::io::Io;
use crate::reactor::peers::vanished_error;
use crate::scheduler::SessionKey;
use crate::session::{Event, VANISH_TIME};
use crate::util::time::Time;

/// Sessions ask at their heartbeats, each at its own time. A look at 4,500 clients takes some 4 ms: often enough for
/// heartbeats at their default interval, and seldom enough not to be felt.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// When the next look may be taken.
#[derive(Debug)]
pub(super) struct Looks {
    next: Time,
}

impl Looks {
    pub(super) fn new(now: Time) -> Self {
        Self { next: now }
    }

    /// When the next one may be taken.
    pub(super) fn next(&self) -> Time {
        self.next
    }

    /// Whether a look may be taken, which it then is.
    fn take(&mut self, now: Time) -> bool {
        let is_due = self.next <= now;
        if is_due {
            self.next = now + LOOK_INTERVAL;
        }
        is_due
    }
}

impl<S: System> Proxy<S> {
    /// Ends the connections to all clients that have vanished, unless there was a look just before.
    pub(super) fn check_clients(&mut self) {
        let now = self.now();
        if !self.looks.take(now) {
            return;
        }
        let clients = self
            .scheduler
            .iter()
            .filter_map(|(key, _, place)| Some((key, place.client().map(Io::source)?)));
        let vanished: Vec<SessionKey> = self.system.vanished(clients, VANISH_TIME);
        for key in vanished {
            if self.vanished_for_now(key) {
                continue;
            }
            self.tell(key, Event::ClientFailed(&vanished_error()));
        }
    }

    /// Tells a session how much its client has not acknowledged.
    pub(super) fn measure_client(&mut self, key: SessionKey) {
        let place = self.scheduler.place(key);
        let client = place.and_then(|place| place.client());
        let unsent = client.and_then(|io| self.system.unsent(io.source()));
        let kept = place.map_or(0, ClientSession::unsent);
        let kept = u32::try_from(kept).unwrap_or(u32::MAX);
        let unsent = unsent.map(|unsent| unsent.saturating_add(kept));
        self.tell(key, Event::ClientQueue { unsent });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_not_more_frequent_than_they_may_be() {
        let begin = Time::from_nanos(1 << 40);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut looks = Looks::new(begin);
        let taken = [0, 1, 29, 30, 31, 90].map(|second| looks.take(at(second)));
        assert_eq!(taken, [true, false, false, true, false, true]);
    }
}
