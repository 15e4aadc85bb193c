//! The client takes back what no server was sent: it is taken out of what waits, and the cancellation with it.
//!
//! Otherwise the next server would carry out a request that its client has given up, and has perhaps made once more. An
//! `initialize` is never taken out: by the specification it can't be cancelled.

use log::debug;

use super::in_flight::Request;
use super::upstream::ToUpstream;
use super::{Context, Session};
use crate::buffers::outbox::Outbox;
use crate::protocol::envelope::{Batch, Envelope};
use crate::protocol::id::RequestId;
use crate::protocol::splice::{self, Spliced};

impl Session {
    /// Takes the request of this id out of what waits. Returns whether it was there, and no server has another one of that
    /// id, which could be meant.
    pub(super) fn take_out(&mut self, id: &RequestId, cx: &mut Context<'_>) -> bool {
        if self.queued.requests == 0 || self.in_flight.contains(id) {
            return false;
        }
        let held = self.held.as_deref_mut();
        let request =
            take_out_of(&mut self.to_upstream, id, cx).or_else(|| take_out_of(held?, id, cx));
        let Some(request) = request else {
            return false;
        };
        debug!("{}: {id} was taken back before it was sent", self.label);
        self.queued.remove(&request);
        if self.held().is_empty() {
            self.held = None;
        }
        self.line_passed(cx);
        true
    }

    /// Carries out the cancellations in a batch of which the requests wait. Returns which of them those are.
    pub(super) fn take_out_all(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) -> Vec<bool> {
        let ids = batch.envelopes.iter().filter_map(Envelope::cancelled_id);
        ids.map(|id| self.take_out(&RequestId::new(id), cx))
            .collect()
    }
}

/// A batch without the cancellations that were carried out.
pub(super) fn without_carried_out(line: &[u8], carried_out: &[bool]) -> Spliced {
    if !carried_out.contains(&true) {
        return Spliced::Unchanged;
    }
    let mut carried_out = carried_out.iter();
    splice::retain(line, |envelope| {
        envelope.cancelled_id().is_none() || carried_out.next() != Some(&true)
    })
}

fn take_out_of(
    outbox: &mut Outbox<ToUpstream>,
    id: &RequestId,
    cx: &mut Context<'_>,
) -> Option<Request> {
    let is_meant = |request: &Request| request.id == *id && !request.is_initialize();
    let wanted = |tag: &ToUpstream| tag.requests().any(is_meant);
    if !outbox.tags().any(wanted) {
        return None;
    }
    let mut taken = None;
    let edit = |line: Vec<u8>, tag| match tag {
        ToUpstream::Batch(parts) => {
            let mut parts = parts.into_vec();
            let at = parts.iter().position(wanted)?;
            if let ToUpstream::Request(request) = parts.remove(at) {
                taken = Some(request);
            }
            let line = batch_without(line, id)?;
            Some((line, ToUpstream::Batch(parts.into())))
        }
        ToUpstream::Request(request) => {
            taken = Some(request);
            None
        }
        other => Some((line, other)),
    };
    outbox.edit_first(wanted, edit, cx.memory);
    taken
}

/// A batch, with its line end, without the first request of this id; `None` if there is nothing else in it.
fn batch_without(line: Vec<u8>, id: &RequestId) -> Option<Vec<u8>> {
    let batch = line.strip_suffix(b"\n").unwrap_or(&line);
    let mut is_found = false;
    let left = splice::retain(batch, |envelope| {
        let is_meant = !is_found
            && envelope
                .request_id()
                .is_some_and(|other| RequestId::new(other) == *id);
        is_found |= is_meant;
        !is_meant
    });
    match left {
        Spliced::Unchanged => Some(line),
        Spliced::Line(mut line) => {
            line.push(b'\n');
            Some(line)
        }
        Spliced::Nothing => None,
    }
}
