//! How TCP connections are set up, whichever side made them.

use std::io;

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};

/// A connection on which nothing was heard for this long is probed, in seconds: before routers and load balancers on the
/// way forget an idle one, which most do after some minutes.
const KEEPALIVE_IDLE_S: u32 = 60;

/// The time between two probes, in seconds: with their number, a peer that vanished is noticed within two minutes.
const KEEPALIVE_INTERVAL_S: u32 = 10;

/// After this many probes without an answer the connection counts as lost; a few may get lost on the way.
const KEEPALIVE_PROBES: u32 = 6;

/// Small messages are sent at once, and a peer that vanished is noticed. There is no time-out for unacknowledged data:
/// it would end connections of live peers that just do not read.
pub fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_S)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_S)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
    Ok(())
}
