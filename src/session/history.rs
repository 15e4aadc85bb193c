//! What an upstream has done so far. It is kept while the upstream serves, and handed over when it starts to leave.

use serde::{Deserialize, Serialize};

use super::Session;
use super::upstream::Upstream;

use crate::util::defaults::is_default;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct History {
    /// How many messages the client had been sent by upstreams before this one.
    #[serde(default, skip_serializing_if = "is_default")]
    messages_before: u64,
    /// Whether it has written a line that was not for the client.
    #[serde(default, skip_serializing_if = "is_default")]
    has_spoken: bool,
    /// Whether it was sent, or has answered, anything that can't be sent again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) used: bool,
    /// Whether it has answered anything.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) has_responded: bool,
}

impl History {
    /// The history of an upstream that was just started. Those before it have sent this many messages.
    pub(super) fn after(messages_before: u64) -> Self {
        Self {
            messages_before,
            has_spoken: false,
            used: false,
            has_responded: false,
        }
    }
}

impl Session {
    /// The upstream has written a line that does not reach the client.
    pub(super) fn note_spoken(&mut self) {
        match &mut self.upstream {
            Upstream::Up(up) => up.history.has_spoken = true,
            Upstream::Leaving(leaving) => leaving.history.has_spoken = true,
            _ => {}
        }
    }

    /// Whether the present upstream has written a line.
    pub(super) fn has_upstream_spoken(&self) -> bool {
        let history = match &self.upstream {
            Upstream::Up(up) => &up.history,
            Upstream::Leaving(leaving) => &leaving.history,
            _ => return false,
        };
        history.has_spoken || self.sent_to_client.messages() > history.messages_before
    }
}
