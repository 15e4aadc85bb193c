//! Requests that the proxy at the other end of a link refuses because it is being stopped: no server has seen them, so they
//! wait for the next link, and their client notices nothing.
//!
//! What is in flight still gets its responses, and so the link is kept until nothing is.

use super::in_flight::{Ended, KeptLine, MAX_RESEND_BYTES, Request};
use super::replay::Greeting;
use super::report::Exit;
use super::upstream::{ToUpstream, Upstream};
use super::{Context, Session};
use crate::protocol::envelope::Envelope;
use crate::protocol::id::{MAX_ID_BYTES, RequestId};
use crate::util::about::about;

impl Session {
    /// A copy of a request that may be refused unseen, unless such lines hold too much already.
    pub(super) fn keep_for_refusal(&self, line: &[u8]) -> Option<Box<KeptLine>> {
        let kept = self.in_flight.load().line_bytes() + self.queued.line_bytes();
        let is_kept = self.backend.may_refuse_unseen() && kept + line.len() <= MAX_RESEND_BYTES;
        is_kept.then(|| Box::new(KeptLine(line.into())))
    }

    /// Takes the refusal of a request that can be sent again. Returns whether this was one, which the client then does
    /// not get.
    #[inline]
    pub(super) fn take_back_refused(
        &mut self,
        response: &Envelope<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        self.backend.may_refuse_unseen() && self.take_back_if_refused(response, cx)
    }

    #[inline(never)]
    fn take_back_if_refused(&mut self, response: &Envelope<'_>, cx: &mut Context<'_>) -> bool {
        let may_go_on = cx.settings.restarts_upstream && !self.is_stopping() && !self.goal.is_end();
        if !may_go_on || !response.is_refusal_by_stop() {
            return false;
        }
        let id = response.response_id().filter(|id| id.len() <= MAX_ID_BYTES);
        let Some(id) = id.map(RequestId::of) else {
            return false;
        };
        // One that can't be sent again gets the refusal as its response.
        let meant = self.in_flight.meant_by(&id);
        let Some(line) = meant.and_then(Request::line).map(<[u8]>::to_vec) else {
            return false;
        };
        let Some(Ended { request, .. }) = self.in_flight.end(&id) else {
            return false;
        };
        if let Upstream::Up(up) = &mut self.upstream
            && !matches!(up.greeting, Greeting::Refusing)
        {
            up.greeting = Greeting::Refusing;
            about!(
                info,
                self.label,
                "the proxy is being stopped; requests wait"
            );
        }
        self.queued.add(&request);
        let held = self.held.get_or_insert_default();
        held.push(&line, Some(ToUpstream::Request(request)), cx.memory);
        true
    }

    /// Leaves a link once nothing is in flight on it that would still be answered.
    pub(super) fn leave_refusing_upstream(&mut self, cx: &mut Context<'_>) {
        let Upstream::Up(up) = &self.upstream else {
            return;
        };
        let is_done = self.in_flight.is_empty() && self.to_upstream.is_empty();
        if is_done && matches!(up.greeting, Greeting::Refusing) {
            self.link_ended(Exit::BeingStopped, cx);
        }
    }
}
