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
