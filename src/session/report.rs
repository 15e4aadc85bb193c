//! What is reported about a session: its label, how its upstream ended, why the session ended, what passed through it.

mod fields;

use std::fmt;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::entrance::Name;
use crate::protocol::own_messages::ErrorReason;
use crate::protocol::recogniser::Protocol;
use crate::util::client_address::ClientAddress;
use crate::util::plural::{Counted, are};

/// Whom a log line is about.
#[derive(Debug, Clone)]
pub enum Label {
    /// A session of the proxy.
    Session {
        /// Counts the sessions since the start of the proxy, from 1.
        number: u64,
        /// What it is a session of, if that has a name.
        server: Option<Rc<Name>>,
        /// Where the client comes from.
        client: ClientAddress,
        /// The server process, or the last one if it is gone; `None` before the first one.
        pid: Option<u32>,
    },
    /// The one session of `connect`, by the address of its proxy as the user wrote it.
    Connection(Box<str>),
}

impl Label {
    /// Where the client comes from, as far as there is one: the host of `connect` is at stdin.
    pub fn client(&self) -> ClientAddress {
        match self {
            Self::Session { client, .. } => *client,
            Self::Connection(_) => ClientAddress::Unknown,
        }
    }

    /// Notes the process of the upstream that was started. Returns whether it is the session's first one.
    pub(super) fn started(&mut self, new: Option<u32>) -> bool {
        match self {
            Self::Session { pid, .. } => std::mem::replace(pid, new).is_none(),
            Self::Connection(_) => false,
        }
    }
}

impl Label {
    /// Who is at the other end of the connection.
    pub fn peer(&self) -> &dyn fmt::Display {
        match self {
            Self::Session { client, .. } => client,
            Self::Connection(address) => address,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session {
                number,
                server,
                client,
                pid,
            } => {
                write!(f, "session {number} ")?;
                if let Some(server) = server {
                    write!(f, "{server} ")?;
                }
                client.fmt(f)?;
                match pid {
                    Some(pid) => write!(f, " pid {pid}"),
                    None => Ok(()),
                }
            }
            Self::Connection(_) => f.write_str("connect"),
        }
    }
}

/// How an upstream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
pub(super) fn why_denied(reason: ErrorReason) -> &'static str {
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

/// Which limit on sessions was reached, and how many they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionLimit {
    /// Of all sessions.
    All(usize),
    /// Of those of one address.
    OfAddress(usize),
    /// Of those of one name.
    OfClient(usize),
    /// Of those of this server.
    OfServer(usize),
}

impl fmt::Display for SessionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (limit, whose, option) = match *self {
            Self::All(limit) => (limit, "", "--max-sessions"),
            Self::OfAddress(limit) => (limit, " of this address", "--max-sessions-per-address"),
            Self::OfClient(limit) => (limit, " of this client", "--max-sessions-per-client"),
            Self::OfServer(limit) => (limit, " of this server", "its maxSessions"),
        };
        let sessions = Counted(limit, "session");
        write!(
            f,
            "there {} {sessions}{whose} already, the limit ({option})",
            are(limit)
        )
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub(super) fn is_unused(&self) -> bool {
        matches!(self, Self::FirstMessageTimeout(_) | Self::IdleTimeout(_))
    }

    /// Whether this is an end that neither the client nor whoever stopped the program wanted.
    pub(super) fn is_failure(&self) -> bool {
        !matches!(
            self,
            Self::ClientEnded | Self::ClientGone(_) | Self::Shutdown
        )
    }

    /// The reason of an upstream's loss, after `restarts` attempts to replace it.
    pub(super) fn after_retries(&self, restarts: u32) -> Self {
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

/// Messages and their bytes, line ends included.
#[derive(Debug, Default, Clone, Copy)]
pub struct Traffic {
    messages: u64,
    bytes: u64,
}

impl Traffic {
    /// Counts a line of `len` bytes, not counting its line end.
    pub fn count(&mut self, len: usize) {
        self.messages += 1;
        self.bytes += len as u64 + 1;
    }

    /// How many messages were counted.
    pub fn messages(self) -> u64 {
        self.messages
    }

    /// Their bytes, line ends included.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// The same without this many bytes.
    pub(super) fn without(self, bytes: u64) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(bytes),
            ..self
        }
    }

    /// Whether nothing was counted.
    pub fn is_none(self) -> bool {
        self.messages == 0
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages = Counted(self.messages, "message");
        write!(f, "{messages} ({})", Counted(self.bytes, "byte"))
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
