//! What is fuzzed: functions that take any bytes, and panic if the program does not do what its model does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a target fails"
)]

mod configuration;
mod entrance;
mod envelope;
mod http;
mod id;
mod outbox;
mod session;
mod splitter;
mod wheel;

pub(crate) use configuration::configuration;
pub(crate) use entrance::entrance;
pub(crate) use envelope::envelope;
pub(crate) use http::http;
pub(crate) use id::id;
pub(crate) use outbox::outbox;
pub(crate) use session::session;
pub(crate) use splitter::splitter;
pub(crate) use wheel::wheel;
