//! What few sessions ever have anything of.

use serde::{Deserialize, Serialize};

use super::Session;
use super::refusals::Refusals;
use super::send_queue::SendQueue;
use super::server_memory::ServerMemory;
use super::standing::Standing;
use super::subscriptions::Subscriptions;
use super::tidy::Tidy;
use super::unfinished::Unfinished;
use crate::util::seldom::Begins;
use crate::util::time::Time;

/// All of that, so that it takes no room in the others.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Rare {
    /// While the program is being stopped: when the session stops waiting for anything.
    pub(super) stop_deadline: Option<Time>,
    /// What is known of the send queue of a client that does not take everything at once.
    pub(super) send_queue: SendQueue,
    /// Bytes that were meant for the client and never delivered.
    pub(super) undelivered: u64,
    /// Requests that were answered with an error because there was no connection.
    pub(super) unserved: u32,
    pub(super) refusals: Refusals,
    pub(super) subscriptions: Subscriptions,
    pub(super) server_memory: ServerMemory,
    /// What the client has set up at the server.
    pub(super) standing: Standing,
    /// The long lines that have not arrived in full, if there are any.
    pub(super) unfinished: Unfinished,
    /// Present if messages that the host did not ask for are filtered out.
    pub(super) tidy: Option<Tidy>,
}

impl Begins for Rare {
    const BEGINNING: &'static Self = &Self {
        stop_deadline: None,
        send_queue: SendQueue::NEW,
        undelivered: 0,
        unserved: 0,
        refusals: Refusals::NONE,
        subscriptions: Subscriptions::NONE,
        server_memory: ServerMemory::EMPTY,
        standing: Standing::NOTHING,
        unfinished: Unfinished::NONE,
        tidy: None,
    };
}

impl Session {
    /// What is known of a server that was left concerns no other one.
    pub(super) fn forget_what_server_knew(&mut self) {
        if let Some(rare) = self.rare.changed() {
            rare.subscriptions = Subscriptions::NONE;
            rare.server_memory = ServerMemory::EMPTY;
        }
    }
}
