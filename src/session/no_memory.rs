//! Lines that wait, and that the system has no memory for when they are put together anew: they are refused, like a line
//! for which there is no buffer memory when it arrives.

use super::refusals::Refusal;
use super::upstream::ToUpstream;
use super::{Context, Session, own_messages};
use crate::buffers::outbox::Outbox;
use crate::protocol::lines::TooLong;
use crate::protocol::own_messages::ErrorReason;

impl Session {
    /// What is held waits behind this.
    pub(super) fn hold_behind(&mut self, mut first: Outbox<ToUpstream>, cx: &mut Context<'_>) {
        let held = self.take_held();
        let left = first.append(held, cx.memory);
        self.hold(first);
        if let Some(left) = left {
            self.refuse_all_in(&left, cx);
        }
    }

    /// Queues a line that waits no longer where it did, and that may be as long as any.
    pub(super) fn push_or_refuse(
        &mut self,
        outbox: &mut Outbox<ToUpstream>,
        line: &[u8],
        tag: Option<ToUpstream>,
        cx: &mut Context<'_>,
    ) {
        if outbox.try_reserve(line.len(), cx.memory) {
            outbox.push(line, tag, cx.memory);
        } else {
            self.refuse_waiting_line(line.len(), tag.as_ref(), cx);
        }
    }

    /// None of these lines will be sent.
    pub(super) fn refuse_all_in(&mut self, lines: &Outbox<ToUpstream>, cx: &mut Context<'_>) {
        for tag in lines.tags() {
            self.refuse_waiting_line(lines.len(), Some(tag), cx);
        }
    }

    fn refuse_waiting_line(&mut self, len: usize, tag: Option<&ToUpstream>, cx: &mut Context<'_>) {
        let why = TooLong::BufferBudget;
        let text = own_messages::too_long_message("what waits", len as u64, why, cx);
        self.note_refusal(Refusal::NoMemory, &text, cx);
        if let Some(tag) = tag {
            self.forget_queued(tag);
            for request in tag.requests() {
                let (id, was_sent) = (request.id.clone(), request.was_sent());
                self.reply_unserved(&id, was_sent, ErrorReason::TooLarge, &text, cx);
            }
        }
    }

    /// A line is no longer among those that wait.
    fn forget_queued(&mut self, line: &ToUpstream) {
        match line {
            ToUpstream::Request(request) => self.queued.remove(request),
            ToUpstream::Cancelled(id) => self.queued.remove_cancellation(id),
            ToUpstream::Batch(parts) => {
                for part in parts {
                    self.forget_queued(part);
                }
            }
            _ => {}
        }
    }
}

/// A copy, or nothing if the system has no memory for it.
pub(super) fn copy_of(parts: [&[u8]; 2]) -> Vec<u8> {
    let mut copy = Vec::new();
    if copy
        .try_reserve_exact(parts[0].len() + parts[1].len())
        .is_ok()
    {
        for part in parts {
            copy.extend_from_slice(part);
        }
    }
    copy
}
