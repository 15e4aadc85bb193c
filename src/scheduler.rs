//! The sessions of a loop: which of them may have something to do, what they want done, when each is due, and which wait
//! for memory.
//!
//! Whoever drives sessions, whether by epoll, by a script or by a fuzzer, does it through this. What stands around one
//! session (descriptors, a server) is the loop's business: the scheduler keeps it beside the session as a "place", and
//! hands both to a [`Driver`] when the session is run.
//!
//! Nothing is freed while events are looked at: [`Scheduler::free_if_finished`] is called when actions were carried out,
//! and keys of sessions that are gone do no harm anywhere.

mod memory;
mod shared;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use slab::Slab;

use self::shared::Shared;
pub use self::state::SchedulerState;
use crate::buffers::budget::BufferBudget;
use crate::pump::SCRATCH_BYTES;
use crate::reactor::timers::{Deadline, Timers};
use crate::session::report::{Label, SessionLimit};
use crate::session::{Action, Context, Event, Session, Settings};
use crate::util::large_slab;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// Names a session. It is used again after the session was freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey(pub usize);

/// What is around the sessions of a loop.
pub trait Driver {
    /// What is kept beside each session.
    type Place;

    /// Lets a session do what it can do now, within a budget: tells it what has happened around it, and pumps. Returns
    /// whether there is more to be done although no event will tell.
    fn run(
        &mut self,
        key: SessionKey,
        session: &mut Session,
        place: &mut Self::Place,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool;
}

/// Sessions, each with its place.
#[derive(Debug)]
pub struct Scheduler<P> {
    shared: Shared,
    entries: Slab<Entry<P>>,
    /// Sessions that may have something to do, each at most once.
    run_queue: VecDeque<SessionKey>,
    /// Sessions that wait for memory of others to become free, each at most once.
    waiting_for_memory: Vec<SessionKey>,
    scratch: Box<[u8]>,
}

#[derive(Debug)]
struct Entry<P> {
    session: Session,
    place: P,
    /// Whose settings hold for it.
    service: ServiceKey,
    deadline: Deadline,
    /// Whether the session is in the run queue.
    queued: bool,
    waits_for_memory: bool,
}

impl<P> Entry<P> {
    /// What follows from events, once for all of a run: takes what the session wants done, and sets its deadline.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "after each run of a session, and mostly nothing follows"
    )]
    fn settle<D: Copy + From<SessionKey>>(
        &mut self,
        key: SessionKey,
        shared: &mut Shared,
        timers: &mut Timers<D>,
    ) {
        if !shared.actions.is_empty() {
            shared.take_actions(key);
        }
        let settings = &shared.settings[self.service.0];
        let at = self.session.next_deadline(settings);
        self.deadline.set(at, D::from(key), timers);
    }
}

impl<P> Scheduler<P> {
    /// No sessions. They will share `memory`. The settings are those of [`ServiceKey::ONLY`].
    pub fn new(settings: Settings, memory: BufferBudget) -> Self {
        Self {
            shared: Shared::new(settings, memory),
            entries: large_slab::new(),
            run_queue: VecDeque::new(),
            waiting_for_memory: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a session may have something to do.
    pub fn is_busy(&self) -> bool {
        !self.run_queue.is_empty() || !self.shared.pending_actions.is_empty()
    }

    /// Whether there is something that sessions want done.
    pub fn has_actions(&self) -> bool {
        !self.shared.pending_actions.is_empty()
    }

    /// No key is as large as this.
    pub fn end_of_keys(&self) -> usize {
        self.entries.capacity()
    }

    /// Logs the end of a session that was freed.
    pub fn log_end(&mut self, session: &Session, now: Time) {
        // What is logged then is the same whatever the settings are.
        session.log_end(&mut self.shared.context(ServiceKey::ONLY, now));
    }

    /// The key of the next session.
    pub fn next_key(&self) -> SessionKey {
        SessionKey(self.entries.vacant_key())
    }

    /// Begins a session of the only service.
    pub fn open<D: Copy + From<SessionKey>>(
        &mut self,
        label: Label,
        place: P,
        timers: &mut Timers<D>,
    ) -> SessionKey {
        self.open_for(ServiceKey::ONLY, label, place, timers)
    }

    /// Begins a session.
    pub fn open_for<D: Copy + From<SessionKey>>(
        &mut self,
        service: ServiceKey,
        label: Label,
        place: P,
        timers: &mut Timers<D>,
    ) -> SessionKey {
        let mut cx = self.shared.context(service, timers.now());
        let session = Session::open(label, &mut cx);
        self.insert(service, session, place, timers)
    }

    /// Begins a session for which there is no room: it says so to its client, and ends.
    pub fn refuse<D: Copy + From<SessionKey>>(
        &mut self,
        label: Label,
        limit: SessionLimit,
        place: P,
        timers: &mut Timers<D>,
    ) -> SessionKey {
        let mut cx = self.shared.context(ServiceKey::ONLY, timers.now());
        let session = Session::refuse(label, limit, &mut cx);
        self.insert(ServiceKey::ONLY, session, place, timers)
    }

    fn insert<D: Copy + From<SessionKey>>(
        &mut self,
        service: ServiceKey,
        session: Session,
        place: P,
        timers: &mut Timers<D>,
    ) -> SessionKey {
        let key = SessionKey(self.entries.insert(Entry {
            session,
            place,
            service,
            deadline: Deadline::default(),
            queued: true,
            waits_for_memory: false,
        }));
        self.entries[key.0].settle(key, &mut self.shared, timers);
        self.run_queue.push_back(key);
        key
    }

    /// A session, if it is there.
    pub fn session(&self, key: SessionKey) -> Option<&Session> {
        self.entries.get(key.0).map(|entry| &entry.session)
    }

    /// The same, to be asked for what it has; events are for [`Self::handle`].
    pub fn session_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.entries.get_mut(key.0).map(|entry| &mut entry.session)
    }

    /// What is kept beside a session.
    pub fn place(&self, key: SessionKey) -> Option<&P> {
        self.entries.get(key.0).map(|entry| &entry.place)
    }

    /// The same, to be changed.
    pub fn place_mut(&mut self, key: SessionKey) -> Option<&mut P> {
        self.entries.get_mut(key.0).map(|entry| &mut entry.place)
    }

    /// All sessions with their places.
    pub fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session, &P)> {
        let entries = self.entries.iter();
        entries.map(|(key, entry)| (SessionKey(key), &entry.session, &entry.place))
    }

    /// Has a session run.
    pub fn enqueue(&mut self, key: SessionKey) {
        if let Some(entry) = self.entries.get_mut(key.0)
            && !entry.queued
        {
            entry.queued = true;
            self.run_queue.push_back(key);
        }
    }

    /// Notes what has happened to the place of a session: has the session run if `note` says so. The place is looked up
    /// once.
    pub fn note(&mut self, key: SessionKey, note: impl FnOnce(&mut P) -> bool) {
        if let Some(entry) = self.entries.get_mut(key.0)
            && note(&mut entry.place)
            && !entry.queued
        {
            entry.queued = true;
            self.run_queue.push_back(key);
        }
    }

    /// Hands an event to a session, and has it run for what follows from that. Returns the session, if it is there.
    pub fn handle<D: Copy + From<SessionKey>>(
        &mut self,
        key: SessionKey,
        event: Event<'_>,
        timers: &mut Timers<D>,
    ) -> Option<&Session> {
        let entry = self.entries.get_mut(key.0)?;
        if let Event::Deadline { .. } | Event::UpstreamReadsLate = event {
            entry.deadline.fired();
        }
        let mut cx = self.shared.context(entry.service, timers.now());
        entry.session.handle(event, &mut cx);
        entry.settle(key, &mut self.shared, timers);
        if !entry.queued {
            entry.queued = true;
            self.run_queue.push_back(key);
        }
        Some(&entry.session)
    }

    /// Runs the sessions that are queued now, each once. One that has more to do is queued again, for the next iteration
    /// of the loop.
    pub fn run_ready<D: Copy + From<SessionKey>>(
        &mut self,
        driver: &mut impl Driver<Place = P>,
        timers: &mut Timers<D>,
    ) {
        for _ in 0..self.run_queue.len() {
            let Some(key) = self.run_queue.pop_front() else {
                break;
            };
            // The session that was queued may be gone, and its key another's.
            let entry = self.entries.get_mut(key.0);
            let Some(entry) = entry.filter(|entry| entry.queued) else {
                continue;
            };
            let Entry {
                session,
                place,
                service,
                ..
            } = entry;
            let mut cx = self.shared.context(*service, timers.now());
            let has_more = driver.run(key, session, place, &mut self.scratch, &mut cx);
            entry.settle(key, &mut self.shared, timers);
            entry.queued = has_more;
            if has_more {
                self.run_queue.push_back(key);
            }
            // Whoever has headroom waits for nothing.
            if !self.shared.memory.has_headroom() {
                self.note_need_of_memory(key, timers);
            }
        }
    }

    /// How many deadlines are set.
    pub fn deadlines(&self) -> usize {
        let entries = self.entries.iter();
        entries
            .filter(|(_, entry)| entry.deadline.at().is_some())
            .count()
    }

    /// What holds between two iterations of a loop.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn check(&self) {
        for (key, entry) in &self.entries {
            let key = SessionKey(key);
            let settings = self.settings_of(entry.service);
            let at = entry.session.next_deadline(settings);
            assert_eq!(entry.deadline.at(), at, "the deadline of {key:?}");
            let is_queued = self.run_queue.contains(&key);
            assert!(!entry.queued || is_queued, "{key:?} is not queued");
            let waits = self.waiting_for_memory.contains(&key);
            assert_eq!(waits, entry.waits_for_memory, "{key:?} and memory");
            let session = &entry.session;
            // When others take memory, a session that has nothing to read does not notice, and need not.
            let is_alone = self.entries.len() == 1;
            let is_lost = is_alone && session.waits_for_memory(&self.shared.memory) && !waits;
            assert!(!is_lost || entry.queued, "nobody tells {key:?} of memory");
        }
        assert!(self.shared.actions.is_empty());
        assert!(self.shared.pending_actions.is_empty());
    }

    /// Takes the next thing that a session wants done. Call [`Self::free_if_finished`] once it is.
    pub fn next_action(&mut self) -> Option<(SessionKey, Action)> {
        self.shared.pending_actions.pop_front()
    }

    /// Frees a session that has come to its end, once all that it wants done is done. Returns it with its place.
    pub fn free_if_finished<D: Copy>(
        &mut self,
        key: SessionKey,
        timers: &mut Timers<D>,
    ) -> Option<(Session, P)> {
        let entry = self.entries.get(key.0)?;
        if !entry.session.is_finished() {
            return None;
        }
        self.free(key, timers)
    }

    /// Frees a session at whatever point it is, unless something that it wants done is not done yet.
    pub fn free<D: Copy>(
        &mut self,
        key: SessionKey,
        timers: &mut Timers<D>,
    ) -> Option<(Session, P)> {
        if self
            .shared
            .pending_actions
            .iter()
            .any(|(other, _)| *other == key)
        {
            return None;
        }
        let mut entry = self.entries.try_remove(key.0)?;
        if entry.waits_for_memory {
            self.waiting_for_memory.retain(|other| *other != key);
        }
        entry.deadline.clear(timers);
        entry.session.release_memory(&mut self.shared.memory);
        Some((entry.session, entry.place))
    }
}
