//! Where clients come in after a reload: what is listened on already stays, and what is missing is bound.

use std::net::SocketAddr;

use super::change::{WantedDoor, WantedSocket};
use super::listen::{self, Origin};
use super::source::{Bound, owner};
use crate::options::{ServeOptions, Served};
use crate::transport::address::Address;
use crate::transport::listener::Listener;
use crate::util::service_key::ServiceKey;

/// All of them, for the loop and for the system.
#[derive(Default)]
pub(super) struct Doors {
    pub(super) wanted: Vec<WantedDoor<Listener>>,
    /// What was bound for each origin, with the number of its sockets.
    pub(super) bound: Vec<(Bound, usize)>,
}

impl Doors {
    /// Those that are wanted from now on, if these are there.
    pub(super) fn find(
        there: &[Bound],
        options: &ServeOptions,
        servers: &[Served],
    ) -> Result<Self, String> {
        let is_passed = |bound: &Bound| matches!(bound.origin, Origin::Passed(_));
        let mut doors = Self::default();
        if there.iter().any(is_passed) {
            if listen::names_addresses(options, servers) {
                return Err(
                    "systemd has passed sockets, which take the place of \"listen\"".to_owned(),
                );
            }
            doors.keep_passed(there, servers);
            return Ok(doors);
        }
        let missing = doors.keep_wanted(there, listen::addresses(options, servers), servers);
        if doors.wanted.is_empty() && missing.is_empty() {
            return Err("there is no address to listen on (\"listen\")".to_owned());
        }
        doors.bind(&missing, options, servers)?;
        Ok(doors)
    }

    fn keep(&mut self, kept: &Bound, door: Option<ServiceKey>, servers: &[Served]) {
        let wanted = kept.keys.iter().map(|key| WantedDoor {
            socket: WantedSocket::Kept(*key),
            of: index(door),
        });
        self.wanted.extend(wanted);
        let bound = Bound {
            owner: owner(servers, door),
            ..kept.clone()
        };
        self.bound.push((bound, kept.keys.len()));
    }

    /// Keeps the sockets of systemd, whatever is served there.
    fn keep_passed(&mut self, there: &[Bound], servers: &[Served]) {
        for kept in there {
            if let Origin::Passed(name) = &kept.origin {
                let name = name.as_deref();
                let door = name.and_then(|name| listen::key_of(servers, name));
                self.keep(kept, door, servers);
            }
        }
    }

    /// Keeps those for which there is a socket. Returns those for which there is none. Of several that the system has
    /// chosen, each stays whose it is.
    fn keep_wanted(
        &mut self,
        there: &[Bound],
        mut wanted: Vec<(Address, Option<ServiceKey>)>,
        servers: &[Served],
    ) -> Vec<(Address, Option<ServiceKey>)> {
        let mut old: Vec<&Bound> = there.iter().collect();
        for is_other_welcome in [false, true] {
            wanted.retain(|(address, door)| {
                let origin = Origin::Of(address.clone());
                let owner = owner(servers, *door);
                let found = old
                    .iter()
                    .position(|it| it.origin == origin && (is_other_welcome || it.owner == owner));
                if let Some(at) = found {
                    self.keep(old.remove(at), *door, servers);
                }
                found.is_none()
            });
        }
        wanted
    }

    fn bind(
        &mut self,
        missing: &[(Address, Option<ServiceKey>)],
        options: &ServeOptions,
        servers: &[Served],
    ) -> Result<(), String> {
        let kept = self.bound.iter();
        let beside: Vec<SocketAddr> = kept.flat_map(|(it, _)| it.addresses.clone()).collect();
        let groups = listen::bind(options, servers, missing, &beside);
        for group in groups.map_err(|error| error.to_string())? {
            let bound = Bound::of(&group, servers, Vec::new());
            self.bound.push((bound, group.sockets.len()));
            self.wanted
                .extend(group.sockets.into_iter().map(|socket| WantedDoor {
                    socket: WantedSocket::New(socket),
                    of: index(group.door),
                }));
        }
        Ok(())
    }
}

/// The place of a server in the configuration.
fn index(door: Option<ServiceKey>) -> Option<usize> {
    door.map(|key| key.0)
}
