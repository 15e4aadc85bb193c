//! What is known of a session as fields: of log lines, and of metrics.

use super::{EndReason, Label, SessionLimit};
use crate::util::about::Subject;
use crate::util::client_address::ClientAddress;

impl Subject for Label {
    fn session(&self) -> Option<u64> {
        match self {
            Self::Session { number, .. } => Some(*number),
            Self::Connection(_) => None,
        }
    }

    fn server(&self) -> Option<&str> {
        match self {
            Self::Session { server, .. } => server.as_ref().map(|name| name.as_str()),
            Self::Connection(_) => None,
        }
    }

    fn client(&self) -> Option<ClientAddress> {
        match self {
            Self::Session { client, .. } => Some(*client),
            Self::Connection(_) => None,
        }
    }

    fn pid(&self) -> Option<u32> {
        match self {
            Self::Session { pid, .. } => *pid,
            Self::Connection(_) => None,
        }
    }
}

impl EndReason {
    /// All names.
    pub const NAMES: [&'static str; 24] = [
        "client_ended",
        "client_gone",
        "stdio_failed",
        "stalled",
        "server_ended",
        "restart_limit",
        "spawn_failed",
        "connection_lost",
        "reconnect_limit",
        "server_changed",
        "replay_timeout",
        "session_limit",
        "address_limit",
        "client_limit",
        "server_limit",
        "unauthorized",
        "access_denied",
        "first_message_timeout",
        "idle_timeout",
        "overdue",
        "peer_protocol",
        "refused",
        "other_protocol",
        "shutdown",
    ];

    /// The place of the name in [`Self::NAMES`].
    pub fn number(&self) -> usize {
        match self {
            Self::ClientEnded => 0,
            Self::ClientGone(_) => 1,
            Self::StdioFailed(_) => 2,
            Self::Stalled(_) => 3,
            Self::ServerEnded(_) => 4,
            Self::RestartLimit { .. } => 5,
            Self::SpawnFailed(_) => 6,
            Self::ConnectionLost(_) => 7,
            Self::ReconnectLimit { .. } => 8,
            Self::ServerChanged => 9,
            Self::ReplayTimeout(_) => 10,
            Self::SessionLimit(SessionLimit::All(_)) => 11,
            Self::SessionLimit(SessionLimit::OfAddress(_)) => 12,
            Self::SessionLimit(SessionLimit::OfClient(_)) => 13,
            Self::SessionLimit(SessionLimit::OfServer(_)) => 14,
            Self::Unauthorized => 15,
            Self::AccessDenied(_) => 16,
            Self::FirstMessageTimeout(_) => 17,
            Self::IdleTimeout(_) => 18,
            Self::Overdue(_) => 19,
            Self::PeerProtocol(_) => 20,
            Self::Refused { .. } => 21,
            Self::OtherProtocol(_) => 22,
            Self::Shutdown => 23,
        }
    }

    /// Whether sessions of the proxy that were not refused can end for the reason of this number.
    pub fn is_of_proxy(number: usize) -> bool {
        const OTHERS: [&str; 10] = [
            "stdio_failed",
            "connection_lost",
            "reconnect_limit",
            "session_limit",
            "address_limit",
            "client_limit",
            "server_limit",
            "access_denied",
            "peer_protocol",
            "refused",
        ];
        !OTHERS.contains(&Self::NAMES[number])
    }

    /// The reason in one word.
    pub fn name(&self) -> &'static str {
        Self::NAMES[self.number()]
    }
}
