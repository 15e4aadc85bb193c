//! A seat at shared servers as the upstream of a session.

use std::io;

use super::sharing::Sharing;
use crate::buffers::budget::BufferBudget;
use crate::pump::{READ_BYTES, Transport};
use crate::reactor::io::Input;
use crate::share::{Context, STALL_BYTES, SeatKey};
use crate::util::time::Time;

/// A seat as the upstream of a session: what is written is kept for [`SeatSide::finish`], and what is read was not taken
/// before it.
pub(super) struct SeatSide<'a> {
    sharing: &'a mut Sharing,
    seat: SeatKey,
    /// How much was read.
    taken: usize,
}

impl<'a> SeatSide<'a> {
    pub(super) fn new(sharing: &'a mut Sharing, seat: SeatKey) -> Self {
        sharing.outgoing.clear();
        Self {
            sharing,
            seat,
            taken: 0,
        }
    }

    /// Whether as much waits for the client as others can be made to wait for.
    pub(super) fn is_stalled(&self) -> bool {
        self.sharing.share.to_client(self.seat).len() >= self.taken + STALL_BYTES
    }

    /// Passes on what was written and read.
    pub(super) fn finish(self, now: Time, memory: &mut BufferBudget) {
        let mut cx = Context { now, memory };
        let Self {
            sharing,
            seat,
            taken,
        } = self;
        sharing.share.client_took(seat, taken, &mut cx);
        if !sharing.outgoing.is_empty() {
            let lines = std::mem::take(&mut sharing.outgoing);
            sharing.share.client_lines(seat, &lines, &mut cx);
            if lines.capacity() <= READ_BYTES {
                sharing.outgoing = lines;
            }
        }
    }
}

impl Transport for SeatSide<'_> {
    fn is_readable(&self) -> bool {
        self.sharing.share.to_client(self.seat).len() > self.taken
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        let waiting = self.sharing.share.to_client(self.seat);
        let waiting = waiting.get(self.taken..).unwrap_or_default();
        let count = waiting.len().min(buffer.len());
        if count == 0 {
            return Input::Blocked;
        }
        buffer[..count].copy_from_slice(&waiting[..count]);
        self.taken += count;
        Input::Bytes(count)
    }

    /// A client that does not take its answers is not read for ever. What waits for it is bounded by that, and by what it
    /// may have asked.
    fn is_writable(&self) -> bool {
        let waiting = self.sharing.share.to_client(self.seat).len();
        waiting.saturating_sub(self.taken) < STALL_BYTES
    }

    /// What is read has to be read strictly, and others wait for the same process: a pipe's content at a time.
    fn run_bytes(&self) -> usize {
        READ_BYTES
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sharing.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }
}
