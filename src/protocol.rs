//! The wire: how bytes become lines, what the proxy must know of a line, and the lines it writes itself.
//!
//! Nothing in here knows a socket, a process or a clock.

pub mod envelope;
pub mod id;
pub(crate) mod json;
pub mod lines;
pub mod own_messages;
pub mod recogniser;
pub mod skip;
pub mod splice;
pub mod strict;
