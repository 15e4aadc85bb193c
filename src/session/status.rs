//! What there is to be seen of a session from outside.

use std::time::Duration;

use super::Session;
use super::goal::Goal;
use super::report::{Label, Traffic};
use super::upstream::Upstream;
use crate::util::client_address::ClientAddress;
use crate::util::time::Time;

/// A session as it is now.
#[derive(Debug, Clone, Copy)]
pub struct SessionStatus {
    /// Counts the sessions since the start of the proxy, from 1.
    pub number: u64,
    /// Where the client comes from.
    pub client: ClientAddress,
    /// The server process, or the last one.
    pub pid: Option<u32>,
    /// Since it was opened.
    pub age: Duration,
    /// Since a message passed.
    pub idle: Duration,
    /// Messages for the server.
    pub to_server: Traffic,
    /// Messages of the server.
    pub to_client: Traffic,
    /// Requests that wait for their responses.
    pub in_flight: usize,
    /// Servers after the first.
    pub restarts: u16,
    /// What it does.
    pub state: &'static str,
}

impl Session {
    /// The session as it is now; `None` if it is that of `connect`.
    pub fn status(&self, now: Time) -> Option<SessionStatus> {
        let Label::Session {
            number,
            client,
            pid,
            ..
        } = self.label
        else {
            return None;
        };
        Some(SessionStatus {
            number,
            client,
            pid,
            age: now.saturating_since(self.opened),
            idle: now.saturating_since(self.last_line),
            to_server: self.sent_to_upstream,
            to_client: self.sent_to_client.without(self.rare.undelivered),
            in_flight: self.requests_in_flight(),
            restarts: self.tally.restarts,
            state: self.state(),
        })
    }

    /// Requests that wait for their responses.
    pub fn requests_in_flight(&self) -> usize {
        self.in_flight.load().requests()
    }

    fn state(&self) -> &'static str {
        match (&self.goal, &self.upstream) {
            (Goal::Serve | Goal::Finish(_), _) if self.is_detached() => "detached",
            (Goal::End { .. }, _) => "ending",
            (Goal::Finish(_), _) => "finishing",
            (Goal::Serve, _) if self.is_swapping() => "swapping",
            (Goal::Serve, Upstream::Up(_)) => "serving",
            (Goal::Serve, _) if self.is_hibernating() => "hibernating",
            (Goal::Serve, Upstream::OnDemand) => "unused",
            (Goal::Serve, Upstream::Starting) if !self.had_upstream() => "starting",
            (Goal::Serve, _) => "restarting",
        }
    }
}
