//! Another program goes on in this process, with all that this one has: its state ([`text`]) and its descriptors
//! ([`parcel`]) outlive execve(2) ([`program`]).
//!
//! What the state consists of is not known here; `serve` writes it down and takes it up. Nothing here ends, opens or
//! changes anything of what is passed on, so that whatever fails before execve(2) has changed nothing.

pub mod ask;
pub mod parcel;
pub mod program;
pub mod text;
