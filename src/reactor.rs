//! What the loops are made of: descriptors with their readiness, and how an event finds the one it is about.

use std::io;
use std::time::Duration;

use mio::{Events, Poll};

pub mod endpoint;
pub mod listener;
pub mod signals;
pub mod stdio;
pub mod tcp;
pub mod timers;
pub mod token;

/// Waits for events. A signal that is not taken as an event, as SIGCONT is, cuts the wait short; what has happened
/// meanwhile is looked at all the same, before the clock says that it came too late.
pub fn wait(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
    let mut timeout = timeout;
    while let Err(error) = poll.poll(events, timeout) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        timeout = Some(Duration::ZERO);
    }
    Ok(())
}
