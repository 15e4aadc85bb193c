//! What has to hold after every turn, for all sessions together and for one that has run.

use std::time::Duration;

use mcp_tcp_proxy::pump::{READ_BYTES, SCRATCH_BYTES, Transport};
use mcp_tcp_proxy::session::Context;

use crate::world::World;

/// What may wait in one direction before its source is not read any more.
const OUTBOX_BYTES: usize = 64 * 1024;

/// The same of the proxy's own lines.
const OWN_LINES_BYTES: usize = 64 * 1024;

/// No line of the proxy's own is longer, but for an id.
const OWN_LINE_BYTES: usize = 500;

/// The wheel counts in these, and is never early.
const TICK: Duration = Duration::from_millis(1);

impl World {
    /// Everything that waits for a session is within its limits.
    pub fn check_buffers(&self, slot: usize) {
        let place = &self.places[slot];
        let line = self.proxy.max_message_bytes + "\r\n".len();
        let to_client = place.session.to_client().len();
        let own_lines = OWN_LINES_BYTES + place.journal.unanswered() * OWN_LINE_BYTES;
        // With both sides at a standstill the server is read as long as there is memory.
        let is_stuck = !place.session.wants_client_input();
        let limit = OUTBOX_BYTES + self.read_bytes() + line + own_lines;
        let most = if is_stuck {
            limit + self.memory.limit() / 2
        } else {
            limit
        };
        assert!(
            to_client <= most,
            "{to_client} bytes wait for the client of session {}",
            place.number
        );
        let to_upstream = place.session.to_upstream().len();
        let most = OUTBOX_BYTES + 2 * line + OWN_LINE_BYTES;
        assert!(
            to_upstream <= most,
            "{to_upstream} bytes wait for the server of session {}",
            place.number
        );
    }

    /// The shared memory is within its budget, and all timers are someone's.
    pub fn check_totals(&self) {
        let per_session = 4 * (OUTBOX_BYTES + self.read_bytes() + self.proxy.max_message_bytes);
        let most = self.memory.limit() + self.places.len() * per_session;
        assert!(
            self.memory.used() <= most,
            "{} bytes of memory are held",
            self.memory.used()
        );
        let of_sessions = self
            .places
            .iter()
            .filter(|(_, place)| place.deadline.at().is_some())
            .count();
        let of_servers = self
            .servers
            .iter()
            .filter(|(_, server)| server.timer.is_some())
            .count();
        let all = of_sessions + of_servers + usize::from(self.paused.at().is_some());
        assert_eq!(self.timers.len(), all, "timers are left that are nobody's");
    }

    /// What may be read at once: more, if there are lines that one read does not hold.
    fn read_bytes(&self) -> usize {
        if self.proxy.max_message_bytes > READ_BYTES / 2 {
            SCRATCH_BYTES
        } else {
            READ_BYTES
        }
    }

    /// Nothing can go on before time passes: no deadline has come, and nothing waits that could be moved.
    pub fn check_rest(&mut self) {
        for (slot, place) in &mut self.places {
            let settings = place.kind.choose(&self.proxy, &self.connector);
            let deadline = place.session.next_deadline(settings);
            if let Some(at) = deadline {
                assert!(
                    at + TICK > self.now,
                    "session {} waits for a time that has come",
                    place.number
                );
            }
            assert_eq!(
                place.deadline.at(),
                deadline,
                "the timer of session {} is not that of its deadline",
                place.number
            );
            let cx = Context {
                now: self.now,
                settings: place.kind.choose(&self.proxy, &self.connector),
                memory: &mut self.memory,
                actions: &mut self.actions,
            };
            let server = place.server.and_then(|key| self.servers.get_mut(key));
            assert!(
                !place.is_ready(server, &cx),
                "session {} could go on, and is not run",
                place.number
            );
            // If there is nothing to be read, an event will tell when there is.
            let has_input = place
                .server
                .is_some_and(|key| self.servers[key].pipes.is_readable());
            let waits = has_input && place.session.waits_for_memory(&self.memory);
            assert!(
                !waits || self.waiting_for_memory.contains(&slot),
                "nobody tells session {} of memory",
                place.number
            );
        }
        for (_, place) in &self.places {
            self.check_use(place);
        }
    }

    /// At the end nothing is left.
    pub fn check_all_gone(&self) {
        assert_eq!(self.memory.used(), 0, "memory was not given back");
        let accept = usize::from(self.paused.at().is_some());
        assert_eq!(self.timers.len(), accept, "timers are left");
        assert!(self.places.is_empty() && self.servers.is_empty() && self.exited.is_empty());
        assert!(self.pending_actions.is_empty());
    }
}
