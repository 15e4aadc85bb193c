//! What is on its way to the upstream: what each line means, where it waits, and what follows once it is written.

use serde::{Deserialize, Serialize};

use super::Upstream;
use crate::buffers::outbox::Outbox;
use crate::protocol::id::RequestId;
use crate::session::in_flight::{Kind, Request};
use crate::session::{Context, Session};

/// What a line on its way to the upstream means.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::session) enum ToUpstream {
    Request(Request),
    /// The tags of the messages in a batch, in order. Batches are not nested.
    Batch(Box<[ToUpstream]>),
    /// A response to a request of the present server; no other server may get it.
    Response,
    /// `notifications/initialized` of the client.
    Initialized,
    /// The client takes a request back.
    Cancelled(RequestId),
    /// A subscription is taken back by the proxy.
    Closed,
    /// What a legacy client had set up, restored by the proxy.
    Restored,
    /// The handshake, sent by the proxy.
    Replay,
    /// `notifications/initialized`, sent by the proxy.
    ReplayedInitialized,
    /// A line about the link, for the proxy at its other end.
    Link,
}

impl ToUpstream {
    /// What the messages in the line mean.
    pub(in crate::session) fn parts(&self) -> &[Self] {
        match self {
            Self::Batch(parts) => parts,
            single => std::slice::from_ref(single),
        }
    }

    /// The requests that come with the line.
    pub(in crate::session) fn requests(&self) -> impl Iterator<Item = &Request> {
        self.parts().iter().filter_map(|part| match part {
            Self::Request(request) => Some(request),
            _ => None,
        })
    }

    /// Whether any upstream may get the line in place of this one.
    pub(in crate::session) fn is_for_any(&self) -> bool {
        match self {
            Self::Request(_) | Self::Batch(_) | Self::Initialized | Self::Cancelled(_) => true,
            Self::Response
            | Self::Closed
            | Self::Restored
            | Self::Replay
            | Self::ReplayedInitialized
            | Self::Link => false,
        }
    }

    /// Whether an upstream that got it can be replaced without losing anything.
    fn leaves_unused(&self) -> bool {
        // What nearly all lines are.
        if let Self::Request(request) = self
            && matches!(request.kind, Kind::Plain)
        {
            return false;
        }
        match self {
            Self::Closed
            | Self::Restored
            | Self::Replay
            | Self::ReplayedInitialized
            | Self::Link => true,
            Self::Request(request) => request.is_probe() || request.resendable().is_some(),
            Self::Batch(_) | Self::Response | Self::Initialized | Self::Cancelled(_) => false,
        }
    }
}

impl Session {
    /// What waits for an upstream that is not there, or that does not know the client yet.
    pub(in crate::session) fn held(&self) -> &Outbox<ToUpstream> {
        static NOTHING: Outbox<ToUpstream> = Outbox::new();
        self.held.as_deref().unwrap_or(&NOTHING)
    }

    /// How many bytes that are.
    pub(in crate::session) fn held_bytes(&self) -> usize {
        self.held.as_deref().map_or(0, Outbox::len)
    }

    pub(in crate::session) fn take_held(&mut self) -> Outbox<ToUpstream> {
        self.held.take().map_or_else(Outbox::new, |held| *held)
    }

    pub(in crate::session) fn hold(&mut self, waiting: Outbox<ToUpstream>) {
        self.held = (!waiting.is_empty()).then(|| Box::new(waiting));
    }

    /// Lines that are good for any upstream wait for the next one; those meant for this one are dropped.
    pub(in crate::session) fn take_back_unsent(&mut self, cx: &mut Context<'_>) {
        self.to_upstream.retain_unstarted(ToUpstream::is_for_any);
        let waiting = std::mem::take(&mut self.to_upstream);
        self.hold_behind(waiting, cx);
    }

    /// The first `count` bytes for the upstream were written.
    pub(in crate::session) fn upstream_written(&mut self, count: usize, cx: &mut Context<'_>) {
        self.last_written = cx.now;
        self.line_passed(cx);
        if let Upstream::Up(up) = &mut self.upstream
            && let Some(early) = &mut up.early
            && let Some(unheard) = &mut early.unheard
        {
            unheard.first_input.get_or_insert(cx.now);
        }
        self.to_upstream.consume(count, cx.memory);
        while let Some(line) = self.to_upstream.next_started() {
            self.on_line_started(line, cx);
        }
    }

    /// The first byte of a line was written.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a call would move the request once more"
    )]
    fn on_line_started(&mut self, line: ToUpstream, cx: &Context<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        up.history.used |= !line.leaves_unused();
        match line {
            ToUpstream::Request(mut request) => {
                self.queued.remove(&request);
                request.sent = cx.now;
                self.in_flight.begin(request);
            }
            other => self.on_other_line_started(other, cx),
        }
    }

    /// The same for what is no request, or several.
    #[inline(never)]
    fn on_other_line_started(&mut self, line: ToUpstream, cx: &Context<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        match line {
            ToUpstream::Batch(parts) => {
                for part in parts {
                    self.on_line_started(part, cx);
                }
            }
            ToUpstream::Initialized => self.handshake.complete(),
            ToUpstream::Cancelled(id) => {
                self.queued.remove_cancellation(&id);
                self.in_flight.cancel(&id);
            }
            ToUpstream::Replay => {
                let time = self.handshake.replay_time(cx.settings.replay_timeout);
                let deadline = cx.now + time;
                up.greeting.replay_started(deadline);
            }
            ToUpstream::Request(_)
            | ToUpstream::Response
            | ToUpstream::Closed
            | ToUpstream::Restored
            | ToUpstream::ReplayedInitialized
            | ToUpstream::Link => {}
        }
    }
}
