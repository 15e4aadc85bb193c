//! How many sessions an address or a client has, where there is a limit for that.

use std::hash::Hash;

use crate::entrance::{Identity, Name};
use crate::session::report::SessionLimit;
use crate::util::client_address::{ClientAddress, Origin};
use crate::util::counts::Counts;

/// How many sessions of one there may be; `None` if it does not matter.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SessionsOfOne {
    /// Of one address.
    pub address: Option<usize>,
    /// Of one client, by its name.
    pub client: Option<usize>,
}

/// Sessions by whose they are. What has no limit is not counted, and costs nothing.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    addresses: Quota<Origin>,
    clients: Quota<Name>,
}

#[derive(Debug)]
struct Quota<K> {
    limit: Option<usize>,
    counts: Counts<K>,
}

impl<K> Default for Quota<K> {
    fn default() -> Self {
        Self {
            limit: None,
            counts: Counts::default(),
        }
    }
}

impl<K: Eq + Hash + Clone> Quota<K> {
    /// The limit, if it is reached.
    fn exceeded(&self, key: &K) -> Option<usize> {
        let limit = self.limit?;
        (self.counts.of(key) >= limit).then_some(limit)
    }

    fn add(&mut self, key: &K) {
        if self.limit.is_some() {
            self.counts.add(key.clone());
        }
    }

    fn remove(&mut self, key: &K) {
        if self.limit.is_some() {
            self.counts.remove(key);
        }
    }
}

impl Quotas {
    pub(super) fn new(limits: SessionsOfOne) -> Self {
        let mut quotas = Self::default();
        quotas.addresses.limit = limits.address;
        quotas.clients.limit = limits.client;
        quotas
    }

    /// The limit that one more session would be over.
    pub(super) fn exceeded(
        &self,
        client: ClientAddress,
        identity: Option<&Identity>,
    ) -> Option<SessionLimit> {
        let of_address = self.addresses.exceeded(&client.origin());
        let name = identity.and_then(Identity::client);
        let of_client = name.and_then(|name| self.clients.exceeded(name));
        of_address
            .map(SessionLimit::OfAddress)
            .or(of_client.map(SessionLimit::OfClient))
    }

    /// A session begins.
    pub(super) fn open(&mut self, client: ClientAddress, identity: Option<&Identity>) {
        self.addresses.add(&client.origin());
        if let Some(name) = identity.and_then(Identity::client) {
            self.clients.add(name);
        }
    }

    /// A session is gone that had begun.
    pub(super) fn free(&mut self, client: ClientAddress, identity: Option<&Identity>) {
        self.addresses.remove(&client.origin());
        if let Some(name) = identity.and_then(Identity::client) {
            self.clients.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> ClientAddress {
        ClientAddress::of_tcp(text.parse().unwrap())
    }

    fn ann() -> Identity {
        Identity {
            token: Name::new("ann"),
            certificate: None,
        }
    }

    #[test]
    fn sessions_are_counted_by_address_and_by_name() {
        let mut quotas = Quotas::new(SessionsOfOne {
            address: Some(2),
            client: Some(3),
        });
        let (here, there) = (address("192.0.2.1:1"), address("192.0.2.2:1"));
        for _ in 0..2 {
            assert_eq!(quotas.exceeded(here, Some(&ann())), None);
            quotas.open(here, Some(&ann()));
        }
        let of_address = Some(SessionLimit::OfAddress(2));
        assert_eq!(quotas.exceeded(address("192.0.2.1:9"), None), of_address);
        assert_eq!(quotas.exceeded(there, Some(&ann())), None);
        quotas.open(there, Some(&ann()));
        let of_client = Some(SessionLimit::OfClient(3));
        assert_eq!(quotas.exceeded(there, Some(&ann())), of_client);
        assert_eq!(quotas.exceeded(there, None), None);
        for from in [here, here, there] {
            quotas.free(from, Some(&ann()));
        }
        assert_eq!(quotas.exceeded(here, Some(&ann())), None);
        assert!(quotas.addresses.counts.is_empty() && quotas.clients.counts.is_empty());
    }

    #[test]
    fn what_has_no_limit_is_not_counted() {
        let mut quotas = Quotas::new(SessionsOfOne::default());
        quotas.open(address("192.0.2.1:1"), Some(&ann()));
        assert!(quotas.addresses.counts.is_empty() && quotas.clients.counts.is_empty());
        quotas.free(address("192.0.2.1:1"), Some(&ann()));
    }
}
