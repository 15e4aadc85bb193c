//! What holds at any time: how much waits, and how long anything is waited for.

use std::time::Duration;

use mcp_tcp_proxy::pump::SCRATCH_BYTES;
use mcp_tcp_proxy::resume::{ACK_BYTES, WINDOW_BYTES};

use super::World;
use super::network::Side;

/// The wheel counts in these, and is never early.
const TICK: Duration = Duration::from_millis(1);

/// A client of whom nothing comes for so long is taken for lost: two and a half of its heartbeat intervals.
const SILENCE: Duration = Duration::from_secs(75);

/// What is read at once behind the end of a long line, and what the programs themselves have to say, in bytes.
const SLACK: usize = SCRATCH_BYTES + 64 * 1024;

impl World {
    /// Notes who is without a connection since now. Keys are used again, so this is done after each iteration.
    pub fn note_away(&mut self) {
        let now = self.below.borrow().now;
        let sessions = self.proxy.sessions().iter();
        let away =
            sessions.filter(|(_, session, _)| session.is_detached() && !session.client_has_left());
        let away = away.map(|(key, ..)| (key, *self.away.get(&key).unwrap_or(&now)));
        self.away = away.collect();
    }

    /// Nobody acknowledges what is not taken from there: so it is never more than the window, and what was acknowledged
    /// before. But whoever goes on over another connection says what was taken, whether it waits or not.
    pub fn check_what_waits(&self) {
        if self.weather.is_rough {
            // What a server leaves behind waits once more.
            return;
        }
        let times = 1 + self.below.borrow().connections_so_far;
        let most = ACK_BYTES + times * WINDOW_BYTES.max(self.longest) + SLACK;
        let sessions = self.proxy.sessions().iter();
        let sessions = sessions.map(|(key, session, _)| ("session", key.0, session));
        let links = self.connectors.scheduler.iter();
        let links = links.map(|(_, session, place)| ("host", place.host, session));
        let all: Vec<_> = sessions.chain(links).collect();
        for (what, number, session) in all {
            let waiting = session.waiting_for_other_side();
            assert!(
                waiting <= most,
                "{what} {number}: {waiting} bytes wait, and not {most}"
            );
        }
    }

    /// Nothing is acknowledged that waits for the other side, if that is much.
    pub fn check_acknowledged(&mut self) {
        let below = &mut *self.below.borrow_mut();
        for (_, connection) in &mut below.connections {
            let here = connection.take_acknowledged(Side::Connector);
            let there = connection.take_acknowledged(Side::Proxy);
            let session = connection.session.zip(there);
            let session =
                session.and_then(|(key, read)| Some((self.proxy.sessions().session(key)?, read)));
            let mut links = self.connectors.scheduler.iter();
            let link = links.find(|(_, _, place)| place.host == connection.host);
            let link = link
                .zip(here)
                .map(|((_, session, _), read)| (session, read));
            for (session, read) in session.into_iter().chain(link) {
                let waiting = session.waiting_for_other_side();
                assert!(
                    waiting <= ACK_BYTES || read >= waiting as u64,
                    "connection {}: of {waiting} bytes that wait all but the last {read} are acknowledged",
                    connection.number
                );
            }
        }
    }

    /// All is done that is due by now.
    pub fn check_times(&mut self) {
        let now = self.below.borrow().now;
        let timeout = self.limits.resume_timeout.unwrap_or_default() + TICK;
        for (key, since) in &self.away {
            assert!(
                now < *since + timeout,
                "session {key:?} is kept although nobody came back"
            );
        }
        for (_, connection) in &self.below.borrow().connections {
            connection.check_heard(now, SILENCE + TICK);
        }
    }
}
