//! What bytes travel over: connections and listening sockets of TCP and of unix(7), TLS on top of them, and the words
//! for where they are.
//!
//! `serve` and `connect` use all of it without knowing which of the two they have before them.

pub mod address;
pub mod connection;
pub mod inherited;
pub mod listener;
pub mod socket;
pub mod tcp;
pub mod tcp_listener;
pub mod tls;
pub mod unix_listener;

/// Has the poller look at what a value is made of.
macro_rules! forward_source {
    ($type:ty) => {
        impl mio::event::Source for $type {
            fn register(
                &mut self,
                registry: &mio::Registry,
                token: mio::Token,
                interest: mio::Interest,
            ) -> std::io::Result<()> {
                self.source().register(registry, token, interest)
            }

            fn reregister(
                &mut self,
                registry: &mio::Registry,
                token: mio::Token,
                interest: mio::Interest,
            ) -> std::io::Result<()> {
                self.source().reregister(registry, token, interest)
            }

            fn deregister(&mut self, registry: &mio::Registry) -> std::io::Result<()> {
                self.source().deregister(registry)
            }
        }
    };
}
use forward_source;
