//! What is asked of whom.

use std::time::Duration;

use super::directory::Directory;
use super::networks::Network;
use super::refusal::Refusal;
use super::tokens::Tokens;
use crate::util::client_address::ClientAddress;
use crate::util::service_key::ServiceKey;

/// What a connection has to pass, each part only if it is configured.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// What can be asked for.
    pub servers: Directory,
    /// Only clients from these may come in; anybody, if there are none. Unix sockets are not concerned.
    pub allow: Vec<Network>,
    /// Connections from these begin with a header that says whose they are.
    pub balancers: Balancers,
    /// Connections over TCP are TLS.
    pub tls: bool,
    /// Clients need a token, or there are lines about their certificates.
    pub tokens: Option<Tokens>,
    /// Clients of unix sockets need no token.
    pub exempts_unix: bool,
    /// There is a limit for each address, so it has to be known.
    pub counts_addresses: bool,
    /// The time for all of it.
    pub timeout: Duration,
}

/// Whose connections begin with a header that says whose they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balancers {
    /// Those from these networks.
    pub networks: Vec<Network>,
    /// Those over unix sockets.
    pub unix: bool,
}

/// What becomes of a connection at its accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is a session at once.
    Free,
    /// Something is asked of it first.
    Asked,
    /// It is closed.
    Refused(Refusal),
}

impl Rules {
    /// Whether anything is asked of anybody.
    pub fn ask_anything(&self) -> bool {
        !self.allow.is_empty() || self.need_places()
    }

    /// Whether anything is asked of anybody for which a place is needed.
    pub fn need_places(&self) -> bool {
        let is_guarded = self.tls || self.tokens.is_some();
        is_guarded || self.balancers != Balancers::default() || self.servers.is_choice()
    }

    /// What becomes of a connection from here, that came in by this door.
    pub fn judge(&self, door: Option<ServiceKey>, peer: ClientAddress) -> Arrival {
        if self.is_balancer(peer) {
            return Arrival::Asked;
        }
        if let Err(refusal) = self.admit(peer) {
            return Arrival::Refused(refusal);
        }
        if self.takes_tls(peer) || self.wants_token(peer, false) || self.leave_choice(door) {
            Arrival::Asked
        } else {
            Arrival::Free
        }
    }

    /// Whether whoever came in by this door may say which server is wanted.
    pub(super) fn leave_choice(&self, door: Option<ServiceKey>) -> bool {
        door.is_none() && self.servers.is_choice()
    }

    /// Whether connections from here begin with a header.
    pub(super) fn is_balancer(&self, peer: ClientAddress) -> bool {
        match peer {
            ClientAddress::Ip(address) => is_in(&self.balancers.networks, address.ip()),
            ClientAddress::Unix { .. } => self.balancers.unix,
            ClientAddress::Unknown => false,
        }
    }

    /// Whether a client may come in, as far as its address goes.
    pub(super) fn admit(&self, client: ClientAddress) -> Result<(), Refusal> {
        match client {
            ClientAddress::Ip(address) => {
                let may_come = self.allow.is_empty() || is_in(&self.allow, address.ip());
                may_come.then_some(()).ok_or(Refusal::NotAllowed)
            }
            ClientAddress::Unix { .. } => Ok(()),
            ClientAddress::Unknown if self.allow.is_empty() && !self.counts_addresses => Ok(()),
            ClientAddress::Unknown => Err(Refusal::UnknownClient),
        }
    }

    /// Whether a connection from here is TLS: those over TCP, whoever brought them.
    pub(super) fn takes_tls(&self, peer: ClientAddress) -> bool {
        self.tls && matches!(peer, ClientAddress::Ip(_))
    }

    /// Whether this client needs a token. Whoever comes through a balancer's unix socket is not a user of this machine.
    pub(super) fn wants_token(&self, client: ClientAddress, has_certificate: bool) -> bool {
        let is_exempt = self.exempts_unix && matches!(client, ClientAddress::Unix { .. });
        let tokens = self.tokens.as_ref().filter(|_| !is_exempt);
        tokens.is_some_and(|tokens| !has_certificate || tokens.are_asked_for())
    }
}

fn is_in(networks: &[Network], address: std::net::IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> ClientAddress {
        ClientAddress::of_tcp(text.parse().unwrap())
    }

    fn networks(texts: &[&str]) -> Vec<Network> {
        let networks = texts.iter().map(|text| Network::parse(text).unwrap());
        networks.collect()
    }

    const UNIX: ClientAddress = ClientAddress::Unix { uid: 7, pid: 8 };

    #[test]
    fn nothing_is_asked_if_nothing_is_configured() {
        let rules = Rules::default();
        assert!(!rules.ask_anything());
        for peer in [tcp("192.0.2.1:1"), UNIX, ClientAddress::Unknown] {
            assert_eq!(rules.judge(None, peer), Arrival::Free);
        }
    }

    #[test]
    fn an_allow_list_is_about_addresses_and_not_about_balancers() {
        let rules = Rules {
            allow: networks(&["192.0.2.0/24", "2001:db8::/32"]),
            balancers: Balancers {
                networks: networks(&["10.0.0.0/8"]),
                unix: false,
            },
            ..Rules::default()
        };
        assert_eq!(rules.judge(None, tcp("192.0.2.1:1")), Arrival::Free);
        assert_eq!(
            rules.judge(None, tcp("[::ffff:192.0.2.1]:1")),
            Arrival::Free
        );
        let refused = Arrival::Refused(Refusal::NotAllowed);
        assert_eq!(rules.judge(None, tcp("192.0.3.1:1")), refused);
        assert_eq!(rules.judge(None, tcp("10.1.2.3:1")), Arrival::Asked);
        assert_eq!(rules.judge(None, UNIX), Arrival::Free);
        let unknown = rules.admit(ClientAddress::Unknown);
        assert_eq!(unknown, Err(Refusal::UnknownClient));
    }

    #[test]
    fn users_of_this_machine_may_be_exempt_and_those_of_its_balancer_are_not() {
        let mut rules = Rules {
            tokens: Some(Tokens::default()),
            ..Rules::default()
        };
        assert_eq!(rules.judge(None, UNIX), Arrival::Asked);
        rules.exempts_unix = true;
        assert_eq!(rules.judge(None, UNIX), Arrival::Free);
        assert!(rules.wants_token(ClientAddress::Unknown, false));
        assert!(rules.wants_token(tcp("192.0.2.1:1"), true));
    }

    #[test]
    fn tls_is_for_tcp() {
        let rules = Rules {
            tls: true,
            ..Rules::default()
        };
        assert_eq!(rules.judge(None, tcp("192.0.2.1:1")), Arrival::Asked);
        assert_eq!(rules.judge(None, UNIX), Arrival::Free);
    }

    #[test]
    fn a_file_that_is_only_about_certificates_asks_for_no_token() {
        let tokens = Tokens::parse("laptop certificate default").unwrap();
        let rules = Rules {
            tokens: Some(tokens),
            ..Rules::default()
        };
        assert!(!rules.wants_token(tcp("192.0.2.1:1"), true));
        assert!(rules.wants_token(UNIX, false), "who has neither");
    }
}
