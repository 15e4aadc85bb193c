//! Where to listen, or what to connect to, as the user wrote it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What stands before the path of a unix socket.
pub const UNIX_PREFIX: &str = "unix:";

/// An address that was not resolved yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// `HOST:PORT`
    Tcp {
        /// A host name or an IP address, without brackets.
        host: String,
        /// To listen, 0 stands for any port that is free.
        port: u16,
    },
    /// `unix:PATH`
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => f.write_str(&address_text(host, *port)),
            Self::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// An IPv6 address stands in brackets, or its last part would read as a port.
pub fn address_text(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        let tcp = |host: &str| Address::Tcp {
            host: host.to_owned(),
            port: 80,
        };
        assert_eq!(tcp("localhost").to_string(), "localhost:80");
        assert_eq!(tcp("::1").to_string(), "[::1]:80");
        let unix = Address::Unix("/run/mcp.sock".into());
        assert_eq!(unix.to_string(), "unix:/run/mcp.sock");
    }
}
