//! What is counted of all sessions together: plain numbers, each added to where the thing happens.

use serde::{Deserialize, Serialize};

use super::report::Traffic;
use crate::protocol::own_messages::ErrorReason;
use crate::util::histogram::Histogram;

/// The codes of the proxy's own errors.
pub const ERROR_CODES: [i32; 13] = [
    -32700, -32602, -32601, -32600, -32022, 400, 401, 403, 404, 408, 429, 502, 503,
];

/// Totals since the start of the program.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Counts {
    /// Messages for servers.
    pub to_upstream: Traffic,
    /// Messages of servers for clients.
    pub to_client: Traffic,
    /// Requests, from the first byte that was written to a server to the response.
    pub responses: Histogram,
    /// Servers after the first, of all sessions.
    pub restarts: u64,
    errors: ErrorCounts,
}

/// Errors of the proxy's own, by their codes.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct ErrorCounts([u64; ERROR_CODES.len()]);

impl ErrorCounts {
    /// One more.
    pub fn note(&mut self, reason: ErrorReason) {
        let place = ERROR_CODES.iter().position(|code| *code == reason.code());
        debug_assert!(place.is_some());
        if let Some(place) = place {
            self.0[place] += 1;
        }
    }

    /// Each code with its number.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u64)> {
        ERROR_CODES.into_iter().zip(self.0)
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
        self
    }
}

impl Counts {
    /// One more error of the proxy's own.
    pub fn error(&mut self, reason: ErrorReason) {
        self.errors.note(reason);
    }

    /// Errors of sessions.
    pub fn errors(&self) -> ErrorCounts {
        self.errors
    }
}
