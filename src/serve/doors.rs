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

#[cfg(test)]
mod tests {
    use super::super::accept::ListenerKey;
    use super::*;
    use crate::entrance::Name;
    use crate::options::ServerOptions;

    /// What a configuration with these addresses of its own asks for, and with a server that has others.
    fn wanted(common: &[u16], own: &[u16]) -> (ServeOptions, [Served; 1]) {
        let all = |ports: &[u16]| {
            let ports = ports.iter();
            ports.map(|port| address(*port)).collect::<Vec<_>>()
        };
        let options = ServeOptions {
            listen: all(common),
            config: Some("config".into()),
            ..ServeOptions::default()
        };
        let mut served = Served::only(ServerOptions {
            listen: all(own),
            ..ServerOptions::default()
        });
        served.name = Name::new("files");
        (options, [served])
    }

    fn address(port: u16) -> Address {
        Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        }
    }

    /// What is there: an address, whose it is, and its key.
    fn there(origin: Origin, owner: Option<&str>, key: usize) -> Bound {
        Bound {
            origin,
            owner: owner.and_then(Name::new),
            keys: vec![ListenerKey(key)],
            addresses: Vec::new(),
        }
    }

    /// The keys of those that stay, and whose each of all is.
    fn outcome(doors: &Doors) -> (Vec<usize>, Vec<Option<usize>>) {
        let kept = doors.wanted.iter().filter_map(|it| match it.socket {
            WantedSocket::Kept(key) => Some(key.0),
            WantedSocket::New(_) => None,
        });
        (
            kept.collect(),
            doors.wanted.iter().map(|it| it.of).collect(),
        )
    }

    #[test]
    fn what_is_there_stays_and_what_is_missing_is_bound() {
        let (options, servers) = wanted(&[0], &[]);
        let doors = Doors::find(&[], &options, &servers).unwrap();
        assert_eq!(outcome(&doors), (vec![], vec![None]));
        assert_eq!((doors.bound[0].1, doors.bound[0].0.addresses.len()), (1, 1));
        let old = [
            there(Origin::Of(address(1)), None, 7),
            there(Origin::Of(address(2)), None, 8),
        ];
        let (options, servers) = wanted(&[2, 0], &[]);
        let doors = Doors::find(&old, &options, &servers).unwrap();
        assert_eq!(outcome(&doors), (vec![8], vec![None, None]));
        assert_eq!(doors.bound.len(), 2);
    }

    #[test]
    fn of_several_that_the_system_has_chosen_each_stays_whose_it_is() {
        let any = || Origin::Of(address(0));
        let old = [there(any(), Some("files"), 7), there(any(), None, 8)];
        let (options, servers) = wanted(&[0], &[0]);
        let doors = Doors::find(&old, &options, &servers).unwrap();
        assert_eq!(outcome(&doors), (vec![8, 7], vec![None, Some(0)]));
        let (options, servers) = wanted(&[], &[0]);
        let doors = Doors::find(&old[1..], &options, &servers).unwrap();
        assert_eq!(
            outcome(&doors),
            (vec![8], vec![Some(0)]),
            "it changes hands"
        );
        assert_eq!(doors.bound[0].0.owner, Name::new("files"));
    }

    #[test]
    fn there_has_to_be_one() {
        let (options, servers) = wanted(&[], &[]);
        let error = Doors::find(&[], &options, &servers).err().unwrap();
        assert!(error.contains("no address to listen on"), "{error}");
    }

    #[test]
    fn sockets_of_systemd_stay_and_take_the_place_of_all_others() {
        let passed = |name: Option<&str>| Origin::Passed(name.map(str::to_owned));
        let old = [
            there(passed(Some("files")), None, 0),
            there(passed(Some("web")), None, 1),
            there(passed(None), None, 2),
        ];
        let (options, servers) = wanted(&[], &[]);
        let doors = Doors::find(&old, &options, &servers).unwrap();
        assert_eq!(outcome(&doors), (vec![0, 1, 2], vec![Some(0), None, None]));
        let (options, servers) = wanted(&[1], &[]);
        let error = Doors::find(&old, &options, &servers).err().unwrap();
        assert!(error.contains("systemd has passed sockets"), "{error}");
    }
}
