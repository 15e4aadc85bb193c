//! Where a target is, ready to be connected to or started: names are resolved, files are read.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::connect::{Tls, TokenSource};
use crate::entrance::Name;
use crate::options::{BenchOptions, ConnectOptions, Target};
use crate::process::{DescriptorLimit, Spawner, Surroundings};
use crate::protocol::own_messages;
use crate::transport::address::Address;
use crate::util::secret::Secret;

/// A target.
pub(super) struct Place {
    pub(super) way: Way,
    /// What a proxy is told before everything else.
    pub(super) first_line: Option<String>,
}

/// How a session gets there.
pub(super) enum Way {
    Tcp {
        /// At least one; they are tried in this order.
        addresses: Vec<SocketAddr>,
        tls: Option<Tls>,
    },
    Unix(PathBuf),
    Process(Box<Spawner>),
}

impl Place {
    /// Finds a target. The error is one line.
    pub(super) fn find(
        target: &Target,
        options: &BenchOptions,
        descriptors: DescriptorLimit,
    ) -> Result<Self, String> {
        match target {
            Target::Address(address) => Self::of_address(address, &options.access),
            Target::Command(words) => Ok(Self {
                way: Way::Process(Box::new(spawner(words, descriptors)?)),
                first_line: None,
            }),
        }
    }

    fn of_address(address: &Address, access: &ConnectOptions) -> Result<Self, String> {
        let access = ConnectOptions {
            address: address.clone(),
            ..access.clone()
        };
        let tls = Tls::load(&access).map_err(|error| error.to_string())?;
        let (source, token) = TokenSource::new(&access)?;
        let way = match address {
            Address::Unix(path) => Way::Unix(path.clone()),
            Address::Tcp { host, port } => {
                let addresses = resolve(host, *port)
                    .map_err(|error| format!("{address} can't be resolved: {error}"))?;
                let is_open = |address: &SocketAddr| !source.may_go_to(*address);
                if tls.is_none() && addresses.iter().any(is_open) {
                    return Err(format!(
                        "the token would pass to {address} in plain text, where others can read it (--tls keeps it \
                         secret; --insecure-token sends it all the same)"
                    ));
                }
                Way::Tcp { addresses, tls }
            }
        };
        let token = token.as_ref().map(Secret::reveal);
        let server = access.server.as_ref().map(Name::as_str);
        let wants_line = token.is_some() || server.is_some();
        Ok(Self {
            way,
            first_line: wants_line.then(|| own_messages::handshake(token, server, None)),
        })
    }

    /// How many descriptors a session takes.
    pub(super) fn descriptors_per_session(&self) -> u64 {
        match self.way {
            Way::Tcp { .. } | Way::Unix(_) => 1,
            Way::Process(_) => 3,
        }
    }
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    if addresses.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(addresses)
}

fn spawner(words: &[OsString], descriptors: DescriptorLimit) -> Result<Spawner, String> {
    let surroundings = Surroundings::inherited();
    Spawner::new(words, surroundings, descriptors)
        .map_err(|error| format!("{} can't be run: {error}", words[0].display()))
}
