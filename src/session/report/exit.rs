//! How an upstream ended.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::protocol::own_messages::ErrorReason;
use crate::protocol::recogniser::Protocol;

/// How an upstream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// The process exited with this code.
    Code(i32),
    /// The process was killed by this signal.
    Signal(i32),
    /// It is gone; how it ended is not known.
    Unknown,
    /// It could not be ended, and is left alone.
    Unstoppable,
    /// The connection was closed by the other side, or broke.
    #[serde(skip)]
    Connection(Option<ErrorKind>),
    /// It goes on without the session, which shared it with others.
    Left,
    /// The proxy at the other end has no server to offer.
    Refused,
    /// The proxy at the other end is being stopped, and takes no new requests.
    BeingStopped,
    /// The proxy at the other end has as many sessions as it may have.
    Full,
    /// The proxy at the other end does not let us in.
    Denied(ErrorReason),
    /// The other side sent nothing for this long.
    Silent(Duration),
    /// The other side is not a proxy: it speaks this protocol.
    OtherProtocol(Protocol),
    /// The server at the other end did not respond to the replayed handshake in this time.
    NoReplay(Duration),
}

impl Exit {
    /// Whether a process ended by a signal that nobody sends to stop a server, and that is not SIGPIPE either, which it
    /// gets when it writes to nobody.
    pub fn is_crash(self) -> bool {
        const ASKED: [Signal; 5] = [
            Signal::SIGTERM,
            Signal::SIGKILL,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGPIPE,
        ];
        matches!(self, Self::Signal(number) if !ASKED.iter().any(|asked| *asked as i32 == number))
    }
}

/// Why a proxy does not let us in, and what to do about it.
pub(in crate::session) fn why_denied(reason: ErrorReason) -> &'static str {
    match reason {
        ErrorReason::TlsRequired => "that port wants --tls (tls_required)",
        ErrorReason::Unauthorized => {
            "the proxy does not let us in: it wants a token that it knows (unauthorized; --token-file, MCP_TCP_PROXY_TOKEN)"
        }
        ErrorReason::Forbidden => {
            "the proxy does not let us in: our token or certificate is not good for this server (forbidden)"
        }
        ErrorReason::UnknownServer => "the proxy has no server of this name (unknown_server)",
        ErrorReason::EntranceTimeout => {
            "the proxy had not got our first line in time (entrance_timeout)"
        }
        ErrorReason::TooManyConnections => {
            "the proxy has too many connections (too_many_connections)"
        }
        _ => "the proxy does not let us in",
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Unknown => f.write_str("unknown status"),
            Self::Unstoppable => f.write_str("no signal ends it"),
            Self::Left => f.write_str("the session left it"),
            Self::Connection(None) => f.write_str("closed by the other side"),
            Self::Connection(Some(kind)) => kind.fmt(f),
            Self::Full => {
                f.write_str("the proxy has as many sessions as it may have (session_limit)")
            }
            Self::Refused => f.write_str("the proxy has no server"),
            Self::BeingStopped => f.write_str("the proxy is being stopped"),
            Self::Denied(reason) => f.write_str(why_denied(reason)),
            Self::OtherProtocol(protocol) => write!(f, "that port speaks {protocol}"),
            Self::Silent(time) => write!(f, "no sign of life for {:.3} s", time.as_secs_f64()),
            Self::NoReplay(time) => {
                write!(f, "the replayed handshake was not answered within {time:?}")
            }
            Self::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "signal {number} ({signal})"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_read_as_in_the_wire_messages() {
        assert_eq!(Exit::Code(3).to_string(), "exit code 3");
        assert_eq!(Exit::Signal(9).to_string(), "signal 9 (SIGKILL)");
        assert_eq!(Exit::Signal(40).to_string(), "signal 40");
    }
}
