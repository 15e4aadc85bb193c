//! The life of a session and of its servers: when they are started, what comes of one that ends, and how all of it ends.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod crashes;
mod ends;
mod handshake;
mod in_flight;
mod restarts;
mod slow_clients;
mod spawning;
mod teardown;
mod unasked_replay;
