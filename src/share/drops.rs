//! What reached nobody, counted.

use std::fmt;

use super::client_line::Dropped;
use super::server_line::Unattributed;
use serde::{Deserialize, Serialize};

/// Lines that reached nobody.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Drops {
    /// Responses of clients.
    pub client_responses: u64,
    /// Notifications of clients that can't be told one client's.
    pub client_notifications: u64,
    /// Cancellations of what was not open.
    pub unknown_cancellations: u64,
    /// Responses that nobody waited for any more.
    pub late: u64,
    /// Responses of servers to nothing that they were asked.
    pub unknown_responses: u64,
    /// Notifications of servers that nobody asked for.
    pub server_notifications: u64,
    /// Messages of servers for the log.
    pub server_logs: u64,
    /// Lines of servers that can be read in two ways, batches, and notifications that are too long.
    pub unreadable: u64,
}

impl Drops {
    /// Whether there are any.
    pub fn is_any(&self) -> bool {
        self.all().iter().any(|(count, _)| *count > 0)
    }

    /// Each kind with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.all().into_iter().map(|(count, name)| (name, count))
    }

    fn all(&self) -> [(u64, &'static str); 8] {
        [
            (self.client_responses, "client_response"),
            (self.client_notifications, "client_notification"),
            (self.unknown_cancellations, "client_cancellation"),
            (self.late, "server_late"),
            (self.unknown_responses, "server_response"),
            (self.server_notifications, "server_notification"),
            (self.server_logs, "server_log"),
            (self.unreadable, "server_unreadable"),
        ]
    }

    pub(super) fn client(&mut self, what: Dropped) {
        match what {
            Dropped::Response => self.client_responses += 1,
            Dropped::Notification => self.client_notifications += 1,
        }
    }

    pub(super) fn server(&mut self, what: Unattributed) {
        match what {
            Unattributed::Response => self.unknown_responses += 1,
            Unattributed::Notification => self.server_notifications += 1,
            Unattributed::Log => self.server_logs += 1,
            Unattributed::Doubled | Unattributed::Batch | Unattributed::TooLong => {
                self.unreadable += 1;
            }
        }
    }
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all();
        let mut some = all.iter().filter(|(count, _)| *count > 0);
        some.try_for_each(|(count, name)| write!(f, " {name}={count}"))
    }
}
