//! What holds for sessions that give their servers back while nothing passes.

use std::time::Duration;

use mcp_tcp_proxy::session::Session;
use mcp_tcp_proxy::util::time::Time;

use crate::below::Below;
use crate::place::Place;
use crate::server::Server;
use crate::stats::Fault;

/// The wheel counts in these, and is never early.
const TICK: Duration = Duration::from_millis(1);

/// What was given back gets SIGTERM after this time, and SIGKILL after as much again.
const STEP: Duration = Duration::from_secs(1);

/// A server that has yet to read something is looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// After the start of a server the proxy may have something to say about it for so long.
const NOTICE_TIME: Duration = Duration::from_secs(3);

impl Below {
    /// A session gives its server back: nothing has passed, and nothing is open.
    pub fn hibernates(&mut self, slot: usize, session: &Session) {
        let now = self.now;
        let limit = self.proxy.idle_limits.hibernate;
        let (place, server) = self.sides(slot);
        let number = place.number;
        let is_late = limit.is_some_and(|limit| place.activity.message() + limit <= now);
        assert!(is_late, "session {number} hibernates too early");
        let is_up = server.as_ref().is_some_and(|server| server.is_running());
        let open = place.journal.surely_open(place.heard, is_up);
        assert_eq!(open, None, "session {number} gives its server back");
        assert!(
            session.to_client().is_empty() && session.to_upstream().is_empty(),
            "session {number} hibernates although lines wait"
        );
        assert!(session.is_hibernating());
        let unread = server
            .as_ref()
            .map_or(0, |server| server.pipes.borrow().output.unconsumed());
        assert_eq!(unread, 0, "session {number}: its server has yet to read");
        place.journal.hibernates();
        place.may_start_at_once = true;
        if let Some(server) = server {
            server.given_back = Some(now);
        }
        self.stats.fault(Fault::Hibernates);
    }

    /// Nothing goes on before time passes: what was given back is gone, by force if need be.
    pub fn check_given_back(&self) {
        let is_over = |at: Option<Time>| at.is_some_and(|at| at + STEP + 2 * TICK <= self.now);
        for (_, server) in &self.servers {
            let is_kept = is_over(server.asked_to_go)
                || (is_over(server.given_back) && server.asked_to_go.is_none());
            assert!(
                !is_kept || !server.is_running() || server.is_untouchable(),
                "pid {} is kept long after it was given back",
                server.pid
            );
        }
    }

    /// A session in which nothing passes gives its server back in time.
    pub fn check_hibernates(&self, place: &Place, session: &Session) {
        let Some(limit) = self.proxy.idle_limits.hibernate else {
            return;
        };
        let is_due = place.activity.anything() + limit + LOOK_INTERVAL + TICK <= self.now;
        let server = place.server.and_then(|key| self.servers.get(key));
        // One that has waited may have been started long before.
        let is_over = |started: Time| started + NOTICE_TIME <= self.now;
        let is_settled = server.is_some_and(|server: &Server| {
            server.is_running()
                && is_over(server.started)
                && place.started.is_none_or(is_over)
                && !server.is_mid_line()
                && server.pipes.borrow().writes
                && server.pipes.borrow().output.unconsumed() == 0
                && server.read_at + LOOK_INTERVAL + TICK <= self.now
        });
        let nothing_waits = session.to_client().is_empty() && session.to_upstream().is_empty();
        assert!(
            !is_due
                || !is_settled
                || !nothing_waits
                || session.is_hibernating()
                || session.is_swapping()
                || !place.journal.can_surely_hibernate(place.heard),
            "session {} keeps its server although nothing passes",
            place.number
        );
    }
}
