//! The settings that all sessions share.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Backend;
use super::idle::IdleLimits;
use super::stderr::ServerLogging;

/// What all sessions have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// What the upstreams are.
    pub role: Backend,
    /// The time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Whether a lost upstream is replaced.
    pub restarts_upstream: bool,
    /// The longest line either way, in bytes, without its line end.
    pub max_message_bytes: usize,
    /// Whether the handshake, and what follows from it, is replayed to a new upstream.
    pub replays: bool,
    /// How long a new upstream may take to answer the replayed handshake.
    pub replay_timeout: Duration,
    /// After a stop was requested, requests in flight have this long to be answered.
    pub stop_timeout: Duration,
    /// When the first upstream is started.
    pub spawn: Spawn,
    /// When an unused session is ended.
    pub idle_limits: IdleLimits,
    /// How much of the servers' stderr is logged.
    pub server_log: ServerLogging,
}

/// When a session's first upstream is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spawn {
    /// At once.
    Eager,
    /// When the client has sent something for it.
    Lazy,
}
