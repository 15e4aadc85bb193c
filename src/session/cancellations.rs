//! The client takes back what no server was sent: it is taken out of what waits, and the cancellation with it.
//!
//! Otherwise the next server would carry out a request that its client has given up, and has perhaps made once more. An
//! `initialize` is never taken out: by the specification it can't be cancelled.
//!
//! What waits is gone through once for all cancellations of a batch, however many there are on either side.

use super::in_flight::Request;
use super::upstream::ToUpstream;
use super::{Context, Session};
use crate::buffers::outbox::{Edit, Outbox};
use crate::protocol::envelope::{Batch, Envelope};
use crate::protocol::id::RequestId;
use crate::protocol::splice::{self, Spliced};
use crate::util::about::about;
use crate::util::keyed_queue::{Keyed, KeyedQueue};

/// Cancellations, and which of them were carried out. Each takes out one request.
struct Cancellations {
    open: KeyedQueue<Cancellation>,
    carried_out: Vec<bool>,
}

struct Cancellation {
    id: RequestId,
    /// Its place among all.
    place: usize,
}

impl Keyed for Cancellation {
    type Key = RequestId;

    fn key(&self) -> &RequestId {
        &self.id
    }
}

impl Cancellations {
    /// Whether one of them means this request, and so is carried out.
    fn take(&mut self, request: &Request) -> bool {
        if request.is_initialize() {
            return false;
        }
        let found = self.open.remove_first(&request.id);
        if let Some(Cancellation { place, .. }) = &found {
            self.carried_out[*place] = true;
        }
        found.is_some()
    }

    /// Whether one of them means a request of this line.
    fn mean(&mut self, line: &ToUpstream) -> bool {
        let mut requests = line.requests().filter(|request| !request.is_initialize());
        requests.any(|request| self.open.contains(&request.id))
    }

    /// Takes out of these lines what they mean. Returns it.
    fn take_out_of(
        &mut self,
        outbox: &mut Outbox<ToUpstream>,
        cx: &mut Context<'_>,
    ) -> Vec<Request> {
        let mut taken = Vec::new();
        if outbox.tags().any(|tag| self.mean(tag)) {
            let edit = |line: &[u8], tag| self.edit(line, tag, &mut taken);
            outbox.edit_unstarted(edit, cx.memory);
        }
        taken
    }

    fn edit(&mut self, line: &[u8], tag: ToUpstream, taken: &mut Vec<Request>) -> Edit<ToUpstream> {
        match tag {
            ToUpstream::Request(request) if self.take(&request) => {
                taken.push(request);
                Edit::Drop
            }
            ToUpstream::Batch(parts) => {
                let (mut left, mut is_taken) = (Vec::new(), Vec::new());
                for part in parts {
                    match part {
                        ToUpstream::Request(request) => {
                            is_taken.push(self.take(&request));
                            if is_taken.last() == Some(&true) {
                                taken.push(request);
                            } else {
                                left.push(ToUpstream::Request(request));
                            }
                        }
                        other => left.push(other),
                    }
                }
                let tag = ToUpstream::Batch(left.into());
                match batch_without(line, &is_taken) {
                    Spliced::Unchanged => Edit::Keep(tag),
                    Spliced::Line(line) => Edit::Replace(line, tag),
                    Spliced::Nothing => Edit::Drop,
                }
            }
            other => Edit::Keep(other),
        }
    }
}

impl Session {
    /// Takes the request of this id out of what waits. Returns whether it was there, and no server has another one of that
    /// id, which could be meant.
    pub(super) fn take_out(&mut self, id: &RequestId, cx: &mut Context<'_>) -> bool {
        self.take_out_each([id.clone()].into_iter(), cx) == [true]
    }

    /// Carries out the cancellations in a batch of which the requests wait. Returns which of them those are.
    pub(super) fn take_out_all(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) -> Vec<bool> {
        let ids = batch.envelopes.iter().filter_map(Envelope::cancelled_id);
        self.take_out_each(ids.map(RequestId::new), cx)
    }

    fn take_out_each(
        &mut self,
        ids: impl Iterator<Item = RequestId>,
        cx: &mut Context<'_>,
    ) -> Vec<bool> {
        if self.queued.requests() == 0 {
            return Vec::new();
        }
        let mut cancellations = Cancellations {
            open: KeyedQueue::new(),
            carried_out: Vec::new(),
        };
        for id in ids {
            let place = cancellations.carried_out.len();
            cancellations.carried_out.push(false);
            if !self.in_flight.contains(&id) {
                cancellations.open.push_back(Cancellation { id, place });
            }
        }
        if cancellations.open.is_empty() {
            return cancellations.carried_out;
        }
        let mut taken = cancellations.take_out_of(&mut self.to_upstream, cx);
        if let Some(held) = self.held.as_deref_mut() {
            taken.extend(cancellations.take_out_of(held, cx));
        }
        for request in &taken {
            let id = &request.id;
            about!(debug, self.label, "{id} was taken back before it was sent");
            self.queued.remove(request);
            if let Some(standing) = self.any_standing() {
                standing.answered(id, false);
            }
            self.line_passed(cx);
        }
        if self.held().is_empty() {
            self.held = None;
        }
        cancellations.carried_out
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

/// A batch, with its line end, without those of its requests that are taken, in order.
fn batch_without(line: &[u8], is_taken: &[bool]) -> Spliced {
    let batch = line.strip_suffix(b"\n").unwrap_or(line);
    let mut is_taken = is_taken.iter();
    let left = splice::retain(batch, |envelope| {
        envelope.request_id().is_none() || is_taken.next() != Some(&true)
    });
    match left {
        Spliced::Line(mut line) => {
            line.push(b'\n');
            Spliced::Line(line)
        }
        other => other,
    }
}
