//! Where connections come in: the sockets that the options ask for, and what the log says of them.

use log::{info, warn};

use super::setup::{SetupError, failed_to};
use crate::options::ServeOptions;
use crate::transport::address::Address;
use crate::transport::listener::Listener;
use crate::transport::tcp_listener;

/// Opens all that the options ask for.
pub(super) fn open(options: &ServeOptions) -> Result<Vec<Listener>, SetupError> {
    let mut listeners = Vec::new();
    for address in options.addresses() {
        let Address::Tcp { host, port } = &address else {
            continue;
        };
        let bound = tcp_listener::bind(host, *port).map_err(failed_to(format!(
            "cannot listen on {address} (--host, --port)"
        )))?;
        listeners.extend(bound.into_iter().map(Listener::Tcp));
    }
    Ok(listeners)
}

/// All addresses, as they were given.
pub(super) fn summary(options: &ServeOptions) -> String {
    let addresses: Vec<String> = options.addresses().iter().map(Address::to_string).collect();
    addresses.join(", ")
}

/// Says where a socket listens.
pub(super) fn log(socket: &Listener, options: &ServeOptions) {
    let Some(address) = socket.tcp_address() else {
        return;
    };
    info!("TCP proxy listening on {address}");
    if !address.ip().is_loopback() && !is_guarded(options) {
        warn!(
            "{address} is not a loopback address: anyone who can reach it can use the MCP server; there is neither \
             encryption nor authentication"
        );
    }
}

/// Whether not everyone who can connect can use the server: clients need a token, a certificate, or an address of a network
/// that is allowed.
pub(super) fn is_guarded(_: &ServeOptions) -> bool {
    false
}
