//! Long lines whose end has not arrived: how long they are kept, and which of them is dropped when memory is short.
//!
//! A long line that does not continue holds memory that others need. Such a line has [`STALL_TIME`] since its last
//! byte. When the shared memory is short before that, the scheduler has the heaviest one dropped, by
//! [`Session::unfinished_weight`] and [`super::Event::MemoryShort`]. What is dropped is read on to its end, without
//! being kept, and then refused like a line that is too long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Context, Session, earliest};
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::protocol::lines::{Splitter, TooLong};
use crate::util::about::about;
use crate::util::time::Time;

/// The next byte of a long line has to come within this time after the last one. That is far longer than a network
/// takes to recover a lost packet, and as long as a peer that is gone for good may hold memory.
pub(super) const STALL_TIME: Duration = Duration::from_mins(1);

/// The long lines that are under way, of either side.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Unfinished {
    of_client: Option<Progress>,
    of_upstream: Option<Progress>,
}

/// The progress of a line.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Progress {
    len: usize,
    /// When its last byte came, or could come.
    last_byte: Time,
    /// When it was last found to have grown by [`UNCHARGED_BYTES`]: single bytes don't count as movement.
    moved: Time,
    len_then: usize,
}

impl Progress {
    /// The new progress of a line of which this many bytes have arrived; none for a short line, which takes no shared
    /// memory.
    fn of(before: Option<Self>, len: usize, now: Time) -> Option<Self> {
        if len <= UNCHARGED_BYTES {
            return None;
        }
        let new = Self {
            len,
            last_byte: now,
            moved: now,
            len_then: len,
        };
        Some(match before {
            Some(before) if before.len == len => before,
            Some(before) if (before.len..before.len_then + UNCHARGED_BYTES).contains(&len) => {
                Self {
                    len,
                    last_byte: now,
                    ..before
                }
            }
            _ => new,
        })
    }

    /// The memory a line holds times how long it has not moved.
    fn weight(self, held: usize, now: Time) -> u64 {
        let millis = now.saturating_since(self.moved).as_millis() as u64;
        (held as u64).saturating_mul(millis + 1)
    }
}

impl Unfinished {
    /// There are none.
    pub(super) const NONE: Self = Self {
        of_client: None,
        of_upstream: None,
    };
}

impl Session {
    #[inline]
    fn has_unfinished(&self) -> bool {
        let unfinished = &self.rare.unfinished;
        unfinished.of_client.is_some() | unfinished.of_upstream.is_some()
    }

    /// Notes the progress of unfinished lines.
    pub(super) fn note_unfinished(&mut self, now: Time) {
        let lens = (self.from_client.buffered(), self.from_upstream.buffered());
        if !self.has_unfinished() && lens.0.max(lens.1) <= UNCHARGED_BYTES {
            return;
        }
        let unfinished = &mut self.rare.change().unfinished;
        unfinished.of_client = Progress::of(unfinished.of_client, lens.0, now);
        unfinished.of_upstream = Progress::of(unfinished.of_upstream, lens.1, now);
    }

    /// A side that is not read can't make progress.
    pub(super) fn restart_unfinished(&mut self, now: Time) {
        let was_read = self.was_read;
        let Some(unfinished) = self.rare.changed().map(|it| &mut it.unfinished) else {
            return;
        };
        let sides = [
            (&mut unfinished.of_client, was_read.client),
            (&mut unfinished.of_upstream, was_read.upstream),
        ];
        for (progress, was_read) in sides {
            if let Some(progress) = progress.as_mut().filter(|_| !was_read) {
                progress.last_byte = now;
                progress.moved = now;
            }
        }
    }

    /// When the lines of the two sides will have stalled, as far as these are read.
    fn stalls(&self) -> (Option<Time>, Option<Time>) {
        let unfinished = &self.rare.unfinished;
        let at = |progress: Option<Progress>| Some(progress?.last_byte + STALL_TIME);
        (
            at(unfinished.of_client).filter(|_| self.was_read.client),
            at(unfinished.of_upstream).filter(|_| self.was_read.upstream),
        )
    }

    #[inline]
    pub(super) fn unfinished_deadline(&self) -> Option<Time> {
        self.has_unfinished().then(|| self.earliest_stall())?
    }

    #[inline(never)]
    fn earliest_stall(&self) -> Option<Time> {
        let (of_client, of_upstream) = self.stalls();
        earliest(of_client, of_upstream)
    }

    /// Drops the lines that have stalled.
    pub(super) fn unfinished_timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let (of_client, of_upstream) = self.stalls();
        if is_due(of_client) {
            self.drop_unfinished(true, TooLong::Stalled, cx);
        }
        if is_due(of_upstream) {
            self.drop_unfinished(false, TooLong::Stalled, cx);
        }
    }

    /// How much others would gain if a long line were dropped: the more, the more memory it holds and the longer it has
    /// not moved. `None` if there is no such line.
    pub fn unfinished_weight(&self, now: Time) -> Option<u64> {
        let (of_client, of_upstream) = self.weights(now);
        of_client.max(of_upstream)
    }

    fn weights(&self, now: Time) -> (Option<u64>, Option<u64>) {
        let unfinished = &self.rare.unfinished;
        let of = |progress: Option<Progress>, splitter: &Splitter| {
            Some(progress?.weight(splitter.capacity(), now))
        };
        (
            of(unfinished.of_client, &self.from_client),
            of(unfinished.of_upstream, &self.from_upstream),
        )
    }

    /// The shared memory is short, and a line of this session is the heaviest of all.
    pub(super) fn memory_short(&mut self, cx: &mut Context<'_>) {
        let (of_client, of_upstream) = self.weights(cx.now);
        if of_client.max(of_upstream).is_some() {
            self.drop_unfinished(of_client >= of_upstream, TooLong::MemoryShort, cx);
        }
    }

    fn drop_unfinished(&mut self, is_of_client: bool, why: TooLong, cx: &mut Context<'_>) {
        let (splitter, whose) = if is_of_client {
            (&mut self.from_client, "client")
        } else {
            (&mut self.from_upstream, "server")
        };
        let held = splitter.buffered();
        splitter.give_up(why);
        // Anyone can cause it who can connect, so all sessions share a limit.
        if cx.logs.unasked.admit(cx.now) {
            let text = super::own_messages::too_long_message("it", held as u64, why, cx);
            about!(
                warn,
                self.label,
                "an unfinished line of the {whose} was dropped: {text}"
            );
        }
    }
}
