//! What one end of a session has to say of the connection itself, and what else is seldom there.

use serde::{Deserialize, Serialize};

use crate::util::side_bytes;
use crate::util::time::Time;

/// What is to be written besides lines, and what is seldom there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Control {
    /// A control line that is being written. Once begun, it goes on before all else.
    #[serde(with = "side_bytes")]
    pub(super) out: Vec<u8>,
    pub(super) out_sent: usize,
    /// A heartbeat that waits. At most one does.
    pub(super) heartbeat: Option<Box<str>>,
    /// The last line of this end, once nothing else is to come.
    pub(super) bye: Option<Box<str>>,
    pub(super) is_bye_sent: bool,
    /// Since when nothing more can be sent until there is an acknowledgement.
    pub(super) full_since: Option<Time>,
}

impl Control {
    pub(super) fn has_begun(&self) -> bool {
        self.out_sent < self.out.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        let waits = self.has_begun() || self.heartbeat.is_some();
        !waits && self.bye.is_none() && self.full_since.is_none()
    }

    pub(super) fn begin(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.push(b'\n');
    }

    pub(super) fn written(&mut self, count: usize) {
        self.out_sent += count;
        if self.out_sent == self.out.len() {
            (self.out, self.out_sent) = (Vec::new(), 0);
        }
    }
}
