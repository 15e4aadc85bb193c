//! A connection that is lost loses nothing: lines are counted, kept until they are acknowledged, and sent again over the next
//! connection. Between `connect`, or any client that asks for it, and the proxy; the model is XEP-0198.
//!
//! Nothing in here knows a descriptor, a process or a clock. The session machine knows next to nothing of it either: what it
//! writes and reads is one stream of lines each way, and a connection that is lost and replaced is not an event for it but a
//! pause.
//!
//! # Words
//!
//! - **control line**: one about the connection itself ([`wire`]). It is not counted, not kept, and never sent again.
//! - **counted line**: any other, blank and over-long ones too.
//! - **taken**: read whole, and now the business of whoever read it. `N` lines were taken of the client, `M` of the proxy.
//! - **kept**: sent in part or in whole, and not acknowledged.
//! - **detached**: a session without a connection, which may come back.
//!
//! # What is where
//!
//! ```text
//!   session ──to_client──► Channel::send ──► Kept ──► the connection        (the proxy's end; the client's is its mirror)
//!   session ◄─ClientBytes─ Channel::next ◄── Intake ◄── the connection
//!                           │ control lines: acknowledgements, `bye`
//! ```
//!
//! - [`Channel`] is one end of one session: [`kept`] lines, the [`intake`] that counts and takes control lines out,
//!   [`acks`] that says when an acknowledgement is due, and the control lines that wait, which go between lines. Both
//!   programs have the same.
//! - [`Server`] is what the proxy has besides: the attempts that it has seen, takeovers, how long the client may be silent.
//! - [`Client`] is what `connect` has besides: the ids, and whether it was granted what it asked for.
//! - [`Registry`] finds sessions by the SHA-256 of their ids, and remembers for a while which have ended.
//!
//! # Who drives it
//!
//! Whoever owns the connection, `serve::resuming` and `connect::resuming`:
//!
//! - Reads the connection whenever it can be read, whether the session wants it or not, hands what came to
//!   [`Channel::next`], passes counted lines on to the session at once, and acts on control lines. Back-pressure is the
//!   acknowledgement: while more than [`ACK_BYTES`] wait for the other side of the session, there is none for what came last, as
//!   many bytes as wait. So acknowledgements always get through, and the two bounds never wait for each other.
//! - Writes what the session has with [`Channel::send`], which takes whole lines, as far as the window allows; and what the
//!   channel itself has with [`Channel::flush`].
//! - When the connection is lost: [`Channel::detach`]. What has come of an unfinished line is forgotten, here and by the
//!   session. When there is another: [`Channel::attach`], with the number of lines that the other end has taken.
//! - Asks again at [`Channel::deadline`].

pub mod acks;
mod channel;
mod client;
mod control;
pub mod first_look;
pub mod intake;
pub mod kept;
mod registry;
mod server;
#[cfg(test)]
mod tests;
pub mod totals;
pub mod wire;

use std::time::Duration;

pub use self::channel::{Channel, Lie, Piece};
pub use self::client::{Client, GivenUp};
pub use self::registry::{Ended, Fingerprint, Found, Registry};
pub use self::server::{Server, Takeover};

/// How much may be sent without an acknowledgement, in bytes: more than most paths hold at a time, and little enough for
/// every session to keep.
pub const WINDOW_BYTES: usize = 1024 * 1024;

/// While more than this waits for the other side of a session, in bytes, as much of what has come last is not acknowledged. As
/// much as waits in one direction of any session.
pub const ACK_BYTES: usize = 64 * 1024;

/// What a session may keep when the memory for kept lines is used up, in bytes, unless it is one line: as much as any buffer
/// may hold without asking.
pub const LEAST_WINDOW_BYTES: usize = 64 * 1024;

/// A window that has been full for this long is one that nobody empties.
pub const NO_ACK_TIME: Duration = Duration::from_secs(30);

/// How long a detached session is kept, if nothing else is wanted: longer than it takes to change trains, or networks.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_mins(2);
