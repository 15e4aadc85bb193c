//! The way of an event through a session: what is brought up to date before it, who handles it, and what follows from any.

use serde::{Deserialize, Serialize};

use super::buffering::OUTBOX_BYTES;
use super::report::EndReason;
use super::{Context, Event, Session, in_flight};
use crate::buffers::budget::UNCHARGED_BYTES;

/// Which sides were read since the last event. A side that was not read had no chance to be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WasRead {
    pub(super) client: bool,
    pub(super) upstream: bool,
}

impl WasRead {
    pub(super) const BOTH: Self = Self {
        client: true,
        upstream: true,
    };
}

impl Session {
    /// Handles one event. This is the only way in: no event is handled within another, so what follows from any event
    /// follows once, after it.
    ///
    /// The four events that make a round trip are functions of their own, for whoever knows that it is one of them.
    #[inline(never)]
    pub fn handle(&mut self, event: Event<'_>, cx: &mut Context<'_>) {
        self.begin_event(cx);
        match event {
            Event::ClientBytes(bytes) => return self.handle_client_bytes(bytes, cx),
            Event::ClientWritten(count) => return self.handle_client_written(count, cx),
            Event::UpstreamBytes(bytes) => return self.handle_upstream_bytes(bytes, cx),
            Event::UpstreamWritten(count) => return self.handle_upstream_written(count, cx),
            Event::ClientEof => self.client_eof(cx),
            Event::ClientHup => self.client_hup(cx),
            Event::ClientFailed(error) => self.client_failed(error, cx),
            Event::ClientQueue { unsent } => self.client_queue(unsent, cx),
            Event::UpstreamStarted { pid } => self.upstream_started(pid, cx),
            Event::Seated { serves_legacy } => self.seated(serves_legacy, cx),
            Event::ServerChanged => self.server_changed(cx),
            Event::UpstreamFailed(error) => self.upstream_failed(error, cx),
            Event::UpstreamMissing(error) => self.upstream_missing(error, cx),
            Event::UpstreamRefused { reason, words } => self.upstream_refused(reason, words, cx),
            Event::UpstreamDenied(why) => {
                self.end_now(&EndReason::AccessDenied(why.to_owned()), cx);
            }
            Event::UpstreamEof(error) => self.upstream_eof(error, cx),
            Event::UpstreamInputBroke => self.upstream_input_broke(cx),
            Event::UpstreamLeftUnread(unread) => self.upstream_left_unread(unread, cx),
            Event::UpstreamReadsLate => self.upstream_reads_late(cx),
            Event::UpstreamStderr(bytes) => self.server_log.stderr(bytes, &self.label, cx),
            Event::UpstreamExited(exit) => self.upstream_exited(exit, cx),
            Event::Deadline { unix_time } => self.timeout(unix_time, cx),
            // What is left of what was read is handled after any event.
            Event::RunBegan => {}
            Event::SwapWanted => self.swap_wanted(cx),
            Event::SuccessorStarted { pid } => self.successor_started(pid, cx),
            Event::SuccessorFailed(words) => self.fail_swap(words, cx),
            Event::SwapInPlace => self.swap_in_place(),
            Event::SuccessorBytes(bytes) => self.successor_bytes(bytes, cx),
            Event::SuccessorWritten(count) => self.successor_written(count),
            Event::SuccessorStderr(bytes) => self.successor_stderr(bytes, cx),
            Event::SuccessorEnded(exit) => self.successor_ended(exit, cx),
            Event::UpstreamMoved => self.upstream_moved(cx),
            Event::SwapOver => self.swap_over(cx),
            Event::MemoryShort => self.memory_short(cx),
            Event::Kept => self.keep_connection(),
            Event::NotKept => self.keep_no_connection(),
            Event::Detached => self.detached(cx),
            Event::Attached => self.attached(cx),
            Event::NotResumed { untaken } => self.not_resumed(untaken, cx),
            Event::LinkSaid(line) => self.link_said(line, cx),
            Event::Revoked => self.revoke(cx),
            Event::ShutDown => self.shut_down(cx),
        }
        self.finish_event(cx);
    }

    /// Handles [`Event::ClientBytes`].
    #[inline(never)]
    pub fn handle_client_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        self.begin_event(cx);
        self.client_bytes(bytes, cx);
        self.finish_event(cx);
    }

    /// Handles [`Event::ClientWritten`].
    #[inline(never)]
    pub fn handle_client_written(&mut self, count: usize, cx: &mut Context<'_>) {
        self.begin_event(cx);
        self.client_written(count, cx);
        self.finish_write(cx);
    }

    /// Handles [`Event::UpstreamBytes`].
    #[inline(never)]
    pub fn handle_upstream_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        self.begin_event(cx);
        self.upstream_bytes(bytes, cx);
        self.finish_event(cx);
    }

    /// Handles [`Event::UpstreamWritten`].
    #[inline(never)]
    pub fn handle_upstream_written(&mut self, count: usize, cx: &mut Context<'_>) {
        self.begin_event(cx);
        self.upstream_written(count, cx);
        self.finish_write(cx);
    }

    /// No clock that measures silence runs while the silent side was not read.
    #[inline]
    fn begin_event(&mut self, cx: &Context<'_>) {
        if self.was_read != WasRead::BOTH {
            self.restart_clocks(cx);
        }
    }

    #[inline(never)]
    fn restart_clocks(&mut self, cx: &Context<'_>) {
        self.restart_unfinished(cx.now);
        if !self.was_read.client {
            self.heartbeat.note_activity(cx.now);
            self.goal.repeat_last_call(cx.now);
        }
        if !self.was_read.upstream
            && let Some(liveness) = self.backend.liveness()
        {
            liveness.restart_clock(cx.now);
        }
    }

    /// What follows from any event.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "mostly nothing follows")]
    pub(super) fn finish_event(&mut self, cx: &mut Context<'_>) {
        self.was_calm = self.is_calm();
        if self.was_calm {
            debug_assert!(self.wants_client_input() && self.wants_upstream_output(cx.memory));
            self.was_read = WasRead::BOTH;
        } else {
            self.follow_up(cx);
        }
        self.note_unwritten(cx);
    }

    /// The same after something was written: that makes no calm session busy.
    #[inline]
    fn finish_write(&mut self, cx: &mut Context<'_>) {
        if !self.was_calm {
            return self.finish_busy_write(cx);
        }
        debug_assert!(self.is_calm());
        self.was_read = WasRead::BOTH;
        self.note_unwritten(cx);
    }

    #[inline(never)]
    fn finish_busy_write(&mut self, cx: &mut Context<'_>) {
        self.finish_event(cx);
    }

    #[inline]
    fn note_unwritten(&mut self, cx: &Context<'_>) {
        if self.to_client.is_empty() {
            self.unwritten_since = None;
        } else {
            self.unwritten_since.get_or_insert(cx.now);
        }
        debug_assert!(self.unanswered() <= in_flight::MAX_IN_FLIGHT);
        debug_assert!(!self.is_finished() || self.in_flight.is_empty());
    }

    /// Whether both sides are served and read, and buffer no more than is free of charge. That is so after nearly every
    /// event, and then [`Self::follow_up`] would change nothing.
    #[inline]
    fn is_calm(&self) -> bool {
        self.goal.is_serve()
            && self.upstream.is_up()
            && self.client.has_all_handled()
            && self.upstream_backlog.is_none()
            && self.held.is_none()
            && !self.is_paused()
            && self.charged == 0
            && self.swap.is_none()
            && self.server_log.kept_bytes() == 0
            && self.buffered() < OUTBOX_BYTES.min(UNCHARGED_BYTES)
    }

    /// Advances the session as far as possible, and notes the outcome. This is rarely called; inlined, it would make
    /// every event more expensive.
    #[inline(never)]
    fn follow_up(&mut self, cx: &mut Context<'_>) {
        self.advance_all(cx);
        self.note_unfinished(cx.now);
        self.was_read = WasRead {
            client: self.wants_client_input(),
            upstream: self.wants_upstream_output(cx.memory),
        };
        self.recharge_budget(cx.memory);
    }

    fn advance_all(&mut self, cx: &mut Context<'_>) {
        loop {
            self.handle_unread(cx);
            self.handle_upstream_backlog(cx);
            self.advance(cx);
            if !self.client.has_unread() || !self.may_handle_client_line() {
                break;
            }
        }
    }
}
