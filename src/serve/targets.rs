//! What events and deadlines of the loop are about.

use super::newcomers::NewcomerKey;
use super::servers::ServerKey;
use crate::entrance::VisitorKey;
use crate::reactor::token;
use crate::scheduler::SessionKey;
use crate::util::service_key::ServiceKey;

/// The descriptors that this loop watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The signals.
    Signals,
    /// A listening socket.
    Listener,
    /// The connection to the client of a session.
    Client,
    /// A connection in the entrance.
    Visitor,
    /// A connection of which the first line has not come.
    Newcomer,
    /// A socket on which is listened for those who ask how things are.
    StatusListener,
    /// A connection of one of them.
    StatusClient,
    /// A pipe of a server.
    Stdin,
    /// The same.
    Stdout,
    /// The same.
    Stderr,
    /// A pipe of a program that is asked whether it could go on here.
    Rehearsal,
}

impl token::Channel for Channel {
    const ALL: &'static [Self] = &[
        Self::Signals,
        Self::Listener,
        Self::Client,
        Self::Visitor,
        Self::Newcomer,
        Self::StatusListener,
        Self::StatusClient,
        Self::Stdin,
        Self::Stdout,
        Self::Stderr,
        Self::Rehearsal,
    ];

    fn number(self) -> usize {
        self as usize
    }
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A session.
    Session(SessionKey),
    /// A connection in the entrance.
    Visitor(VisitorKey),
    /// A connection of which the first line has not come.
    Newcomer(NewcomerKey),
    /// Force against a server that is to go.
    Server(ServerKey),
    /// The next attempt after something had run out.
    Accept,
    /// More servers may be started.
    Starting,
    /// More servers may be started that wait.
    Spares(ServiceKey),
    /// The processes of a service that are shared.
    Share(ServiceKey),
    /// The look at files that may have changed.
    Files,
    /// The look at what no event may tell.
    Monitor,
    /// Those who ask how things are.
    Status,
    /// The time to go on serving after the signal to stop is over.
    DrainDelay,
    /// The service manager wants to hear that the program lives.
    Watchdog,
    /// A stop has taken long enough.
    StopTimeout,
    /// It is to be said what a stop waits for.
    StopReport,
    /// Nothing is waited for any more.
    GiveUp,
    /// An upgrade.
    Upgrade,
}

impl From<SessionKey> for Due {
    fn from(key: SessionKey) -> Self {
        Self::Session(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::token::Channel as _;

    #[test]
    fn channels_are_listed_in_the_order_of_their_numbers() {
        for (number, channel) in Channel::ALL.iter().enumerate() {
            assert_eq!(channel.number(), number);
        }
    }
}
