//! What strangers and servers may put into the log, all sessions together. One session's own limits do not help against
//! many sessions.

use std::time::Duration;

use log::warn;
use serde::{Deserialize, Serialize};

use crate::util::log_rate_limit::{LogRate, LogRateLimit};

/// Lines about connections that bring no message, and about messages that are refused: at the end of a burst a few
/// kilobytes a second, however many there are.
static UNASKED: LogRate = LogRate {
    burst: 200,
    interval: Duration::from_millis(50),
};

/// Lines that servers write: ten times what one session's server may have logged.
static OUTPUT: LogRate = LogRate {
    burst: 5000,
    interval: Duration::from_millis(5),
};

/// The limits that all sessions share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogLimits {
    /// For lines that anyone can cause who can connect.
    pub unasked: LogRateLimit,
    /// For lines of servers. What it leaves out, the session counts.
    pub output: LogRateLimit,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            unasked: LogRateLimit::new(&UNASKED),
            output: LogRateLimit::new(&OUTPUT),
        }
    }
}

impl LogLimits {
    /// Logs how many lines were left out, if any were. Call it now and then.
    pub fn report(&mut self) {
        match self.unasked.take_left_out() {
            0 => {}
            count => {
                warn!(
                    "lines about connections without a message and about refusals that were left out of the log: {count}"
                );
            }
        }
    }
}
