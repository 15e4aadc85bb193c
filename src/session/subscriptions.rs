//! `subscriptions/listen`: a request that is answered only when the subscription ends, and is no work that anyone waits
//! for.
//!
//! When the session comes to an end that was chosen (the client ended its side, the program is being stopped, nothing
//! passed for long), subscriptions are closed: taken back at the server, and answered by the result with which a server
//! closes one. When the server is lost, they are answered like any other request.

use serde::{Deserialize, Serialize};

use super::client_side::OwnLine;
use super::in_flight::Request;
use super::upstream::{ToUpstream, Upstream};
use super::{Context, Session};
use crate::protocol::envelope::Envelope;
use crate::protocol::id::{MAX_ID_BYTES, RequestId};
use crate::protocol::{own_messages, strict};

/// What the server is told.
const CLOSED: &str = "the session ends";

/// Subscriptions that were closed, and may still be answered by the present server. Few sessions have any.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Subscriptions {
    closed: Vec<RequestId>,
}

impl Subscriptions {
    /// There are none.
    pub(super) const NONE: Self = Self { closed: Vec::new() };
}

impl Session {
    /// Closes all subscriptions, those that wait for a server included. Those of an upstream on its way out are left to its
    /// loss. Returns whether there were any.
    pub(super) fn close_subscriptions(&mut self, cx: &mut Context<'_>) -> bool {
        let waited = self.queued.listens();
        if waited > 0 {
            self.close_held(cx);
        }
        let has_closed = self.queued.listens() < waited;
        self.close_open_subscriptions(cx) || has_closed
    }

    /// Those that the present server has.
    pub(super) fn close_open_subscriptions(&mut self, cx: &mut Context<'_>) -> bool {
        if self.in_flight.load().listens() == 0 || !matches!(self.upstream, Upstream::Up(_)) {
            return false;
        }
        for listen in self.in_flight.take_listens() {
            let line = own_messages::cancelled(&listen.id, CLOSED);
            self.to_upstream
                .push(line.as_bytes(), Some(ToUpstream::Closed), cx.memory);
            self.answer_closed(&listen.id, cx);
            self.rare.change().subscriptions.closed.push(listen.id);
        }
        true
    }

    /// Those that wait for an upstream. Lines on their way to one stay on it.
    fn close_held(&mut self, cx: &mut Context<'_>) {
        let mut held = self.take_held();
        let mut closed = Vec::new();
        held.retain_unstarted(|line| match line {
            ToUpstream::Request(request) if request.is_listen() => {
                self.queued.remove(request);
                closed.push(request.id.clone());
                false
            }
            _ => true,
        });
        self.hold(held);
        for id in &closed {
            self.answer_closed(id, cx);
        }
    }

    /// The server has taken back what is none of its own requests. Modern servers have none, and may end a subscription so.
    pub(super) fn end_subscription(&mut self, id: &RequestId) {
        let meant = self.era.is_modern().then(|| self.in_flight.meant_by(id));
        if meant.flatten().is_some_and(Request::is_listen) {
            self.in_flight.end(id);
        }
    }

    fn answer_closed(&mut self, id: &RequestId, cx: &mut Context<'_>) {
        let line = own_messages::subscription_closed(id);
        self.own_line(&line, OwnLine::Other, cx);
    }

    #[inline]
    fn has_closed_subscriptions(&mut self) -> bool {
        let rare = self.rare.changed();
        rare.is_some_and(|rare| !rare.subscriptions.closed.is_empty())
    }

    /// Whether a line is the server's own answer to a subscription that was closed, which is therefore answered already.
    #[inline]
    pub(super) fn answers_closed_subscription(&mut self, envelope: &Envelope<'_>) -> bool {
        self.has_closed_subscriptions() && self.answers_a_closed_one(envelope)
    }

    /// Whether a line belongs to a subscription that was closed. Its client has been told that nothing more comes.
    #[inline]
    pub(super) fn is_of_closed_subscription(
        &mut self,
        envelope: &Envelope<'_>,
        line: &[u8],
    ) -> bool {
        self.has_closed_subscriptions() && self.is_of_a_closed_one(envelope, line)
    }

    #[inline(never)]
    fn is_of_a_closed_one(&mut self, envelope: &Envelope<'_>, line: &[u8]) -> bool {
        let is_notification = envelope.id.is_none() && envelope.method.is_some();
        let id = is_notification.then(|| subscription_of(line)).flatten();
        let id = id.filter(|id| id.len() <= MAX_ID_BYTES);
        id.map(RequestId::new).is_some_and(|id| {
            self.rare.subscriptions.closed.contains(&id) && !self.in_flight.contains(&id)
        })
    }

    #[inline(never)]
    fn answers_a_closed_one(&mut self, envelope: &Envelope<'_>) -> bool {
        let id = envelope.response_id().filter(|id| id.len() <= MAX_ID_BYTES);
        let Some(id) = id.map(RequestId::of) else {
            return false;
        };
        // A client that goes on after all may use the id again.
        if self.in_flight.contains(&id) {
            return false;
        }
        let closed = &mut self.rare.change().subscriptions.closed;
        let at = closed.iter().position(|listen| *listen == id);
        at.map(|at| closed.swap_remove(at)).is_some()
    }
}

/// The id of the subscription that a notification belongs to.
fn subscription_of(line: &[u8]) -> Option<&[u8]> {
    let [params] = strict::members(line, 0..line.len(), ["params"]).ok()?;
    let [meta] = strict::members(line, params?.value, ["_meta"]).ok()?;
    let [id] = strict::members(line, meta?.value, [own_messages::SUBSCRIPTION_ID]).ok()?;
    line.get(id?.value)
}
