//! What a server is told of the client that it is started for, in variables. Those of the connection have the names that
//! ucspi-tcp has given them (tcp-environ(5)), which many tools know.

use std::ffi::CString;
use std::net::SocketAddr;

use super::environment::{Environment, variable};
use crate::util::client_address::ClientAddress;

const PROTOCOL: &str = "PROTO";
const REMOTE_IP: &str = "TCPREMOTEIP";
const REMOTE_PORT: &str = "TCPREMOTEPORT";
const LOCAL_IP: &str = "TCPLOCALIP";
const LOCAL_PORT: &str = "TCPLOCALPORT";
const SESSION: &str = "MCP_SESSION";
const NAME: &str = "MCP_CLIENT";
const UID: &str = "MCP_CLIENT_UID";

/// All of these variables. What the proxy was told by its own is not true of its clients.
pub(super) const NAMES: [&str; 8] = [
    PROTOCOL,
    REMOTE_IP,
    REMOTE_PORT,
    LOCAL_IP,
    LOCAL_PORT,
    SESSION,
    NAME,
    UID,
];

/// What is known of a client.
#[derive(Debug, Clone, Copy)]
pub struct ClientFacts<'a> {
    /// The number of its session, as the log has it.
    pub session: u64,
    /// Where it comes from.
    pub address: ClientAddress,
    /// The address that it has connected to, of a TCP connection.
    pub local: Option<SocketAddr>,
    /// The name that it has shown to be its own.
    pub name: Option<&'a str>,
}

impl ClientFacts<'_> {
    /// As execve(2) takes them, without those that the user has decided about.
    pub(super) fn variables(&self, environment: &Environment) -> Vec<CString> {
        let mut all = Vec::with_capacity(NAMES.len());
        let mut push = |name: &str, value: String| {
            if !environment.decides(name) {
                all.extend(variable(name.as_bytes(), value.as_bytes()));
            }
        };
        let protocol = match self.address {
            ClientAddress::Unix { .. } => "UNIX",
            ClientAddress::Ip(_) | ClientAddress::Unknown => "TCP",
        };
        push(PROTOCOL, protocol.to_owned());
        match self.address {
            ClientAddress::Ip(address) => {
                push(REMOTE_IP, address.ip().to_string());
                push(REMOTE_PORT, address.port().to_string());
            }
            ClientAddress::Unix { uid, .. } => push(UID, uid.to_string()),
            ClientAddress::Unknown => {}
        }
        if let Some(local) = self.local {
            push(LOCAL_IP, local.ip().to_canonical().to_string());
            push(LOCAL_PORT, local.port().to_string());
        }
        push(SESSION, self.session.to_string());
        if let Some(name) = self.name {
            push(NAME, name.to_owned());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(facts: ClientFacts<'_>, environment: &Environment) -> Vec<String> {
        let all = facts.variables(environment).into_iter();
        all.map(|variable| variable.into_string().unwrap())
            .collect()
    }

    #[test]
    fn each_kind_of_client_is_told_by_what_is_known_of_it() {
        let local = Some("[::ffff:127.0.0.1]:8080".parse().unwrap());
        let tcp = ClientFacts {
            session: 7,
            address: ClientAddress::of_tcp("[2001:db8::1]:99".parse().unwrap()),
            local,
            name: Some("alice"),
        };
        let mut environment = Environment::default();
        let expected = [
            "PROTO=TCP",
            "TCPREMOTEIP=2001:db8::1",
            "TCPREMOTEPORT=99",
            "TCPLOCALIP=127.0.0.1",
            "TCPLOCALPORT=8080",
            "MCP_SESSION=7",
            "MCP_CLIENT=alice",
        ];
        assert_eq!(told(tcp, &environment), expected);
        let unix = ClientFacts {
            address: ClientAddress::Unix { uid: 1000, pid: 5 },
            local: None,
            name: None,
            ..tcp
        };
        assert_eq!(
            told(unix, &environment),
            ["PROTO=UNIX", "MCP_CLIENT_UID=1000", "MCP_SESSION=7"]
        );
        let unknown = ClientFacts {
            address: ClientAddress::Unknown,
            ..unix
        };
        assert_eq!(told(unknown, &environment), ["PROTO=TCP", "MCP_SESSION=7"]);
        environment.set("PROTO", "https");
        assert_eq!(
            told(unknown, &environment),
            ["MCP_SESSION=7"],
            "it is the user's"
        );
    }
}
