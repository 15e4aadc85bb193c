//! How much a session buffers: its limits, the long lines it reads, and its share of the memory of all sessions.

use super::backlog::Backlog;
use super::{Context, Session};
use crate::buffers::budget::{BufferBudget, UNCHARGED_BYTES};
use crate::protocol::lines::{Line, LineLimits, Splitter};

/// Once this many bytes wait in one direction, their source is no longer read. This is what a pipe holds by default
/// (pipe(7)), and the size of a usual read.
pub(super) const OUTBOX_BYTES: usize = 64 * 1024;

/// Once more than this many bytes of a line have arrived, it is read in larger pieces. It is half the size of a usual
/// read, so the next piece of the line is likely to fill a whole one.
pub(super) const LARGE_LINE_BYTES: usize = 32 * 1024;

impl Session {
    /// The size of all buffers together in bytes, except those for held and unread lines.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "after each event")]
    pub(super) fn buffered(&self) -> usize {
        self.from_client.capacity()
            + self.from_upstream.capacity()
            + self.to_client.capacity()
            + self.to_upstream.capacity()
            + self.in_flight.load().id_bytes()
            + self.queued.id_bytes()
            + self.server_requests.id_bytes()
    }

    /// The limits for a line that is being read. Whatever is left of the shared memory may be used by lines that need
    /// it.
    pub(super) fn line_limits(cx: &Context<'_>) -> LineLimits {
        LineLimits {
            max_bytes: cx.settings.max_message_bytes,
            room: cx.memory.available(),
        }
    }

    /// Takes the next line from the front of `input`. The rest of a long input is likely to be the beginning of a long
    /// line, so a large buffer is kept ready for it.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "a call costs half as much as to cut off a line"
    )]
    pub(super) fn next_line<'a>(
        splitter: &mut Splitter,
        input: &mut &'a [u8],
        cx: &mut Context<'_>,
    ) -> Option<Line<'a>> {
        if input.len() < UNCHARGED_BYTES && !splitter.is_within_line(LARGE_LINE_BYTES) {
            return splitter.next(input, Self::line_limits(cx));
        }
        Self::next_long_line(splitter, input, cx)
    }

    #[inline(never)]
    fn next_long_line<'a>(
        splitter: &mut Splitter,
        input: &mut &'a [u8],
        cx: &mut Context<'_>,
    ) -> Option<Line<'a>> {
        let limits = Self::line_limits(cx);
        if splitter.is_within_line(LARGE_LINE_BYTES) && splitter.would_grow(input.len()) {
            let spare = cx.memory.lend_large();
            cx.memory.give_back(splitter.move_into(spare));
        }
        if input.len() < UNCHARGED_BYTES || !splitter.is_between_lines() {
            return splitter.next(input, limits);
        }
        splitter.lend(cx.memory.lend_large());
        let line = splitter.next(input, limits);
        cx.memory.give_back(splitter.take_back());
        line
    }

    pub(super) fn recharge_budget(&mut self, memory: &mut BufferBudget) {
        let beyond = |bytes: usize| bytes.saturating_sub(UNCHARGED_BYTES);
        let charge = beyond(self.from_client.capacity())
            + beyond(self.from_upstream.capacity())
            + beyond(self.to_client.capacity())
            + beyond(self.to_upstream.capacity())
            + beyond(self.held().capacity())
            + beyond(self.client.unread_capacity())
            + beyond(
                self.upstream_backlog
                    .as_deref()
                    .map_or(0, Backlog::capacity),
            )
            + beyond(self.upstream.capacity())
            + beyond(self.swap_capacity())
            + beyond(self.in_flight.load().id_bytes() + self.queued.id_bytes())
            + beyond(self.server_requests.id_bytes())
            + self.server_log.kept_bytes();
        if charge != self.charged {
            memory.recharge(self.charged, charge);
            self.charged = charge;
        }
    }

    /// Gives back the session's share of the shared memory. Call it before the session is dropped.
    pub fn release_memory(&mut self, memory: &mut BufferBudget) {
        memory.recharge(self.charged, 0);
        self.charged = 0;
    }
}
