//! Sessions that wait for memory of others, and what is done when there is little left.

use super::{Entry, Scheduler, SessionKey};
use crate::reactor::timers::Timers;
use crate::session::Event;

impl<P> Scheduler<P> {
    /// A session was run, and there is not much memory left.
    #[inline(never)]
    pub(super) fn note_need_of_memory<D: Copy + From<SessionKey>>(
        &mut self,
        key: SessionKey,
        timers: &mut Timers<D>,
    ) {
        let memory = &self.shared.memory;
        if let Some(entry) = self.entries.get_mut(key.0)
            && !entry.waits_for_memory
            && entry.session.waits_for_memory(memory)
        {
            entry.waits_for_memory = true;
            self.waiting_for_memory.push(key);
        }
        if memory.is_short() {
            self.relieve_memory(key, timers);
        }
    }

    /// Memory is short, and a session was run: if it is in the middle of a long line, it may need more, and whoever holds
    /// most and has moved least makes room. That may be the session itself. Then nobody does: it has what is left.
    fn relieve_memory<D: Copy + From<SessionKey>>(
        &mut self,
        key: SessionKey,
        timers: &mut Timers<D>,
    ) {
        let now = timers.now();
        let is_growing = |entry: &Entry<P>| entry.session.unfinished_weight(now).is_some();
        while self.shared.memory.is_short() && self.entries.get(key.0).is_some_and(is_growing) {
            let weights = self.entries.iter().filter_map(|(key, entry)| {
                let weight = entry.session.unfinished_weight(now)?;
                Some((weight, SessionKey(key)))
            });
            match weights.max() {
                Some((_, heaviest)) if heaviest != key => {
                    self.handle(heaviest, Event::MemoryShort, timers);
                }
                _ => return,
            }
        }
    }

    /// Whether a session is told when others have given memory back.
    pub fn is_told_of_memory(&self, key: SessionKey) -> bool {
        let entry = self.entries.get(key.0);
        entry.is_some_and(|entry| entry.waits_for_memory || entry.queued)
    }

    /// Whether a session is to be told when others have given memory back.
    pub fn has_waiting_for_memory(&self) -> bool {
        !self.waiting_for_memory.is_empty()
    }

    /// No event tells a session that others have given memory back.
    pub fn wake_for_memory(&mut self) {
        if self.waiting_for_memory.is_empty() || !self.shared.memory.has_headroom() {
            return;
        }
        for key in std::mem::take(&mut self.waiting_for_memory) {
            if let Some(entry) = self.entries.get_mut(key.0) {
                entry.waits_for_memory = false;
            }
            self.enqueue(key);
        }
    }
}
