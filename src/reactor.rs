//! What the loops are made of: descriptors with their readiness, and how an event finds the one it is about.

pub mod io;
pub mod listener;
pub mod poller;
pub mod signals;
pub mod stdio;
pub mod tcp;
pub mod timers;
pub mod token;
