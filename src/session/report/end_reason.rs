//! Why a session ended.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SessionLimit;
use crate::protocol::own_messages::ErrorReason;
use crate::protocol::recogniser::Protocol;
use crate::util::plural::Counted;

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The client ended its side, and got all its responses.
    ClientEnded,
    /// The connection broke.
    ClientGone(String),
    /// Our own stdin or stdout failed.
    StdioFailed(String),
    /// For this long nothing could be written to the client; or the client had hung up, and nothing could be written to
    /// the server.
    Stalled(Duration),
    /// The server ended like this, and is not to be restarted.
    ServerEnded(String),
    /// The server was lost more often than is allowed.
    RestartLimit {
        /// How many restarts there had been.
        restarts: u32,
        /// How it ended the last time.
        last: String,
    },
    /// The server could not be started, for this reason, and is not to be tried again.
    SpawnFailed(String),
    /// The connection to the proxy was lost like this, and is not to be made again.
    ConnectionLost(String),
    /// The connection was lost more often than is allowed.
    ReconnectLimit {
        /// How many attempts there had been in a row.
        attempts: u32,
        /// How the last one ended.
        last: String,
    },
    /// The restarted server responded to the handshake differently from the one before it.
    ServerChanged,
    /// The restarted server did not respond to the handshake in this time.
    ReplayTimeout(Duration),
    /// There were as many sessions as there may be.
    SessionLimit(SessionLimit),
    /// The client may not use the server any more.
    Unauthorized,
    /// The proxy does not let us in, or must not be talked to, for this reason.
    AccessDenied(String),
    /// The client sent no message in this time.
    FirstMessageTimeout(Duration),
    /// For this long no message passed either way, and no response was awaited.
    IdleTimeout(Duration),
    /// What the client had sent could not be served within this time after its end.
    Overdue(Duration),
    /// The peer that was connected to speaks this protocol.
    PeerProtocol(Protocol),
    /// The peer does not let us in, or is not one that may be spoken to.
    Refused {
        /// What requests are told.
        reason: ErrorReason,
        /// What is wrong.
        words: String,
    },
    /// The client speaks this protocol.
    OtherProtocol(Protocol),
    /// The proxy is being stopped.
    Shutdown,
}

impl EndReason {
    /// The reason in the errors for requests that can't be served any more.
    pub fn error_reason(&self) -> ErrorReason {
        match self {
            Self::ClientEnded
            | Self::ClientGone(_)
            | Self::StdioFailed(_)
            | Self::Stalled(_)
            | Self::ServerEnded(_)
            | Self::RestartLimit { .. } => ErrorReason::RestartLimit,
            Self::SpawnFailed(_) => ErrorReason::SpawnFailed,
            Self::ConnectionLost(_) | Self::ReconnectLimit { .. } => ErrorReason::ReconnectLimit,
            Self::ServerChanged => ErrorReason::ServerChanged,
            Self::ReplayTimeout(_) => ErrorReason::ReplayTimeout,
            Self::SessionLimit(_) => ErrorReason::SessionLimit,
            Self::Unauthorized => ErrorReason::Unauthorized,
            Self::AccessDenied(_) => ErrorReason::AccessDenied,
            Self::OtherProtocol(_) => ErrorReason::ParseError,
            Self::PeerProtocol(_) => ErrorReason::Unreachable,
            Self::Refused { reason, .. } => *reason,
            Self::FirstMessageTimeout(_)
            | Self::IdleTimeout(_)
            | Self::Overdue(_)
            | Self::Shutdown => ErrorReason::Shutdown,
        }
    }
}

impl EndReason {
    /// Whether the session was not used.
    pub(in crate::session) fn is_unused(&self) -> bool {
        matches!(self, Self::FirstMessageTimeout(_) | Self::IdleTimeout(_))
    }

    /// Whether this is an end that neither the client nor whoever stopped the program wanted.
    pub(in crate::session) fn is_failure(&self) -> bool {
        !matches!(
            self,
            Self::ClientEnded | Self::ClientGone(_) | Self::Shutdown
        )
    }

    /// The reason of an upstream's loss, after `restarts` attempts to replace it.
    pub(in crate::session) fn after_retries(&self, restarts: u32) -> Self {
        match self {
            Self::SpawnFailed(_) | Self::ReplayTimeout(_) => self.clone(),
            Self::ConnectionLost(last) => Self::ReconnectLimit {
                attempts: restarts,
                last: last.clone(),
            },
            Self::ServerEnded(last) => Self::RestartLimit {
                restarts,
                last: last.clone(),
            },
            other => Self::RestartLimit {
                restarts,
                last: other.to_string(),
            },
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientEnded => f.write_str("the client closed the connection"),
            Self::ClientGone(why) => write!(f, "the connection to the client broke ({why})"),
            Self::StdioFailed(why) => write!(f, "stdin or stdout failed: {why}"),
            Self::Stalled(time) => write!(f, "nothing could be delivered for {} s", time.as_secs()),
            Self::ServerEnded(status) => {
                write!(f, "the server ended ({status}) and auto-restart is off")
            }
            Self::RestartLimit { restarts, last } => {
                let count = Counted(restarts, "restart");
                fmt_limit(f, "the server ended", last, count, "--max-restarts")
            }
            Self::SpawnFailed(error) => write!(f, "the server could not be started: {error}"),
            Self::ConnectionLost(why) => {
                write!(f, "the connection was lost ({why}) and is not made again")
            }
            Self::ReconnectLimit { attempts, last } => {
                let count = Counted(attempts, "attempt");
                let option = "--max-reconnect-attempts";
                fmt_limit(f, "the connection was lost", last, count, option)
            }
            Self::ServerChanged => f.write_str(
                "the restarted server refused the replayed handshake or answered it differently",
            ),
            Self::ReplayTimeout(time) => write!(
                f,
                "the restarted server did not answer the replayed handshake within {time:?} (--replay-timeout)"
            ),
            Self::SessionLimit(limit) => limit.fmt(f),
            Self::AccessDenied(why) => f.write_str(why),
            Self::Unauthorized => {
                f.write_str("the client's token or certificate is not good any more")
            }
            Self::FirstMessageTimeout(time) => write!(
                f,
                "first_message_timeout: the client sent nothing for the server within {time:?} (--first-message-timeout)"
            ),
            Self::IdleTimeout(time) => write!(
                f,
                "idle_timeout: no message either way for {time:?}, and none expected (--idle-timeout)"
            ),
            Self::Overdue(time) => write!(
                f,
                "the client ended its side, and not everything it had sent could be served within {} s",
                time.as_secs()
            ),
            Self::PeerProtocol(Protocol::Tls) => f.write_str("that port wants --tls"),
            Self::Refused { words, .. } => f.write_str(words),
            Self::PeerProtocol(protocol) => write!(
                f,
                "that port speaks {protocol}, and is not one of mcp-tcp-proxy"
            ),
            Self::OtherProtocol(protocol) => {
                write!(f, "the client speaks {protocol}: {}", remedy(*protocol))
            }
            Self::Shutdown => f.write_str("the proxy is shutting down"),
        }
    }
}

/// Writes what was lost, how the last time, and after how many attempts to replace it.
fn fmt_limit(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    last: &str,
    count: impl fmt::Display,
    option: &str,
) -> fmt::Result {
    write!(f, "{what} ({last}) after {count}, the limit ({option})")
}

/// What to do about a client that speaks another protocol.
pub(crate) fn remedy(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => {
            "nothing of its request was served; this port takes MCP over plain TCP, which applications reach through \
             `mcp-tcp-proxy connect`; if nobody you know did this, a web page may have"
        }
        Protocol::Tls => {
            "this port takes plain TCP; let the client connect without TLS, or end TLS before this port"
        }
        Protocol::Proxy => {
            "name the load balancer's address (--proxy-protocol), or turn the PROXY protocol off there (HAProxy: no `send-proxy`)"
        }
        Protocol::Ssh => "this is not the port of an ssh server",
    }
}
