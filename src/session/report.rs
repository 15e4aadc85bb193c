//! What is reported about a session: its label, how its upstream ended, why the session ended, what passed through it.

mod end_reason;
mod exit;
mod fields;

use std::fmt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

pub use self::end_reason::EndReason;
pub(crate) use self::end_reason::remedy;
pub use self::exit::Exit;
pub(super) use self::exit::why_denied;
use crate::entrance::Name;
use crate::util::client_address::ClientAddress;
use crate::util::defaults::is_default;
use crate::util::plural::{Counted, are};

/// Whom a log line is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Label {
    /// A session of the proxy.
    Session {
        /// Counts the sessions since the start of the proxy, from 1.
        number: u64,
        /// What it is a session of, if that has a name.
        #[serde(skip_serializing_if = "Option::is_none")]
        server: Option<Rc<Name>>,
        /// Where the client comes from.
        client: ClientAddress,
        /// The server process, or the last one if it is gone; `None` before the first one.
        #[serde(skip_serializing_if = "Option::is_none")]
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

/// Which limit on sessions was reached, and how many they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// Messages and their bytes, line ends included.
#[derive(Debug, PartialEq, Eq, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Traffic {
    #[serde(default, skip_serializing_if = "is_default")]
    messages: u64,
    #[serde(default, skip_serializing_if = "is_default")]
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
