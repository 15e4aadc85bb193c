//! What was read of either side and is not handled yet, and how many lines are handled in one run.
//!
//! Each line takes time, however short it is, so bytes alone do not bound how long others wait: a session stops after
//! [`LINES_PER_RUN`] lines of a side, keeps the rest, and does not read that side before it is handled. Lines of the client
//! may also wait here for room.

use serde::{Deserialize, Serialize};

use super::{Context, Event, Session};
use crate::buffers::budget::BufferBudget;
use crate::protocol::lines::{Line, Splitter, TooLong};
use crate::util::defaults::is_default;
use crate::util::side_bytes;

/// Lines of each side that are handled in one run: more than most clients ever have in flight, and little time.
pub const LINES_PER_RUN: usize = 256;

/// Bytes that were read and not handled. There is at least one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Backlog {
    #[serde(with = "side_bytes")]
    bytes: Vec<u8>,
    handled: usize,
}

/// How many lines were handled since the run began.
#[derive(Debug, PartialEq, Eq, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct LinesOfRun {
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) of_client: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) of_upstream: u32,
}

impl Backlog {
    /// Keeps these bytes, too. Returns whether there is as much memory.
    pub(super) fn keep(
        backlog: &mut Option<Box<Self>>,
        more: &[u8],
        memory: &mut BufferBudget,
    ) -> bool {
        if more.is_empty() {
            return true;
        }
        if let Some(backlog) = backlog {
            // Where it never becomes empty, what was handled is not kept.
            if backlog.handled >= backlog.bytes.len() / 2 {
                backlog.bytes.drain(..backlog.handled);
                backlog.handled = 0;
            }
            let is_reserved = backlog.bytes.try_reserve(more.len()).is_ok();
            if is_reserved {
                backlog.bytes.extend_from_slice(more);
            }
            return is_reserved;
        }
        let mut bytes = memory.lend_for(more.len());
        if bytes.try_reserve(more.len()).is_err() {
            return false;
        }
        bytes.extend_from_slice(more);
        *backlog = Some(Box::new(Self { bytes, handled: 0 }));
        true
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.handled..]
    }

    /// All but this many bytes were handled. Gives the memory back if that is all.
    pub(super) fn handled_but(
        mut self: Box<Self>,
        left: usize,
        memory: &mut BufferBudget,
    ) -> Option<Box<Self>> {
        if left == 0 {
            memory.give_back(self.bytes);
            return None;
        }
        self.handled = self.bytes.len() - left;
        Some(self)
    }

    /// Forgets the line that is not finished, if there is one. It begins in what the splitter has if no line ends here.
    pub(super) fn forget_half_line(backlog: &mut Option<Box<Self>>, splitter: &mut Splitter) {
        let rest = backlog.as_deref().map_or(&[][..], Self::rest);
        let end = memchr::memrchr(b'\n', rest);
        if let (Some(backlog), Some(end)) = (&mut *backlog, end) {
            backlog.bytes.truncate(backlog.handled + end + 1);
        } else {
            *backlog = None;
            splitter.clear();
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Session {
    /// A run begins: as many lines may be handled as in any other. Those that were left by the last one go first.
    #[inline]
    pub fn begin_run(&mut self, cx: &mut Context<'_>) {
        self.lines_of_run = LinesOfRun::default();
        if self.has_more_lines() {
            self.handle(Event::RunBegan, cx);
        }
    }

    /// Whether lines that were read can be handled in the next run.
    pub fn has_more_lines(&self) -> bool {
        self.has_more_lines_of_upstream() || self.has_more_lines_of_client()
    }

    /// The same of those of the upstream.
    pub fn has_more_lines_of_upstream(&self) -> bool {
        self.upstream_backlog.is_some()
    }

    /// The same of those of the client.
    pub fn has_more_lines_of_client(&self) -> bool {
        self.client.has_unread() && self.has_room_for_client_lines()
    }

    /// How many lines of the client, and of the upstream, were handled since the run began.
    pub fn lines_of_run(&self) -> (usize, usize) {
        let LinesOfRun {
            of_client,
            of_upstream,
        } = self.lines_of_run;
        (of_client as usize, of_upstream as usize)
    }

    /// Whether a line of the client can be handled in this run.
    pub(super) fn may_handle_client_line(&self) -> bool {
        (self.lines_of_run.of_client as usize) < LINES_PER_RUN && self.has_room_for_client_lines()
    }

    /// Handles output of the upstream as far as the run allows, and keeps the rest. What nobody hears is dropped.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "of two callers, one is for every read"
    )]
    pub(super) fn take_output(&mut self, mut input: &[u8], cx: &mut Context<'_>) {
        if self.upstream_backlog.is_none() {
            self.handle_output(&mut input, cx);
        }
        if !input.is_empty() {
            self.keep_output(input, cx);
        }
    }

    #[inline(never)]
    fn keep_output(&mut self, input: &[u8], cx: &mut Context<'_>) {
        if !self.hears_upstream() {
            return;
        }
        if !Backlog::keep(&mut self.upstream_backlog, input, cx.memory) {
            self.lose_output(input, cx);
        }
    }

    /// Goes on with what was left of the upstream's output.
    pub(super) fn handle_upstream_backlog(&mut self, cx: &mut Context<'_>) {
        let Some(backlog) = self.upstream_backlog.take() else {
            return;
        };
        let mut input = backlog.rest();
        self.handle_output(&mut input, cx);
        let left = if self.hears_upstream() {
            input.len()
        } else {
            0
        };
        self.upstream_backlog = backlog.handled_but(left, cx.memory);
    }

    /// Handles what was left of the upstream's output to its end: nothing follows.
    pub(super) fn finish_upstream_backlog(&mut self, cx: &mut Context<'_>) {
        while self.upstream_backlog.is_some() {
            self.lines_of_run.of_upstream = 0;
            self.handle_upstream_backlog(cx);
        }
    }

    /// Any line may be the last one that counts.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "of two callers, one is for every line"
    )]
    fn handle_output(&mut self, input: &mut &[u8], cx: &mut Context<'_>) {
        while !input.is_empty()
            && (self.lines_of_run.of_upstream as usize) < LINES_PER_RUN
            && self.hears_upstream()
        {
            if let Some(line) = Self::next_line(&mut self.from_upstream, input, cx) {
                self.lines_of_run.of_upstream += 1;
                match line {
                    // What nearly all lines are.
                    Line::Borrowed(text) => self.upstream_text(text, cx),
                    line => self.upstream_line(line, cx),
                }
            }
        }
    }

    /// The system has no memory to keep this until it can be handled: its lines are refused like one for which there is
    /// no buffer memory.
    #[cold]
    pub(super) fn refuse_input(&mut self, mut input: &[u8], cx: &mut Context<'_>) {
        while !input.is_empty() && self.client.is_open() {
            self.from_client.skip_line(TooLong::BufferBudget);
            let line = self.from_client.next(&mut input, Self::line_limits(cx));
            if let Some(line) = line.filter(|line| !is_empty(line)) {
                self.client_line(line, cx);
            }
        }
    }

    #[cold]
    fn lose_output(&mut self, mut input: &[u8], cx: &mut Context<'_>) {
        while !input.is_empty() && self.hears_upstream() {
            self.from_upstream.skip_line(TooLong::BufferBudget);
            let line = self.from_upstream.next(&mut input, Self::line_limits(cx));
            if let Some(line) = line.filter(|line| !is_empty(line)) {
                self.upstream_line(line, cx);
            }
        }
    }
}

fn is_empty(line: &Line<'_>) -> bool {
    matches!(line, Line::Skipped(skipped, _) if skipped.len == 0)
}
