//! What is open in a session: what somebody waits for, or what only the present server holds. As long as there is anything,
//! the server is not given back, and the session is not ended for being idle.
//!
//! | open | until | for `--idle-timeout` |
//! | --- | --- | --- |
//! | a request, either way | it is answered, or taken back | the same |
//! | `subscriptions/listen` | it is answered | only the messages that it carries count |
//! | `resources/subscribe` | `resources/unsubscribe`, or a refusal | only the messages that it carries count |
//! | a result that is `input_required` | a request brings its `requestState`, or 10 min | the same |
//! | a task | it is over, or its time to live is, or 10 min | the same |
//! | a line on its way | it was written | the same |
//!
//! The last two of what a server holds are in `server_memory`. They are looked for only where idle sessions are ended or
//! hibernate.

use super::replay::Greeting;
use super::upstream::Upstream;
use super::{Client, Session};
use crate::protocol::envelope::{Batch, Method};

impl Session {
    /// Whether nothing is on its way, and nobody waits for a response. A client that listens waits for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.goal.is_serve()
            && self.nothing_waits()
            && self.server_requests.none_open()
            && self.to_client.is_empty()
    }

    /// Whether nothing is open, but for what only the memory of the server holds.
    pub(super) fn nothing_open(&self) -> bool {
        self.is_idle()
            && matches!(self.client, Client::Open { hung_up: None, .. })
            && self.unanswered() == 0
            && self.upstream_backlog.is_none()
            && !self.from_upstream.is_within_line(0)
            && !self.rare.standing.has_subscriptions()
            && self.is_upstream_at_rest()
    }

    /// Whether the upstream is there, and the proxy itself has nothing to say to it, or to the client because of it.
    fn is_upstream_at_rest(&self) -> bool {
        let Upstream::Up(up) = &self.upstream else {
            return false;
        };
        let is_greeted = matches!(up.greeting, Greeting::Done | Greeting::Due);
        is_greeted && self.upstream.deadline().is_none()
    }

    /// Subscriptions of which it can't be told when they end count for as long as the session lasts: those in batches, as
    /// these, and those of clients that should have none.
    pub(super) fn note_subscriptions_in(&mut self, batch: &Batch<'_>) {
        let mut envelopes = batch.envelopes.iter();
        let subscribes = envelopes.any(|envelope| envelope.method == Some(Method::Subscribe));
        if subscribes {
            self.rare.change().standing.note_unfollowed();
        }
    }
}
