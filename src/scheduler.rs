//! The sessions of a loop: which of them may have something to do, what they want done, when each is due, and which wait
//! for memory.
//!
//! Whoever drives sessions, whether by epoll, by a script or by a fuzzer, does it through this. What stands around one
//! session (descriptors, a server) is the loop's business: the scheduler keeps it beside the session as a "place", and
//! hands both to a [`Driver`] when the session is run.
//!
//! Nothing is freed while events are looked at: [`Scheduler::free_if_finished`] is called when actions were carried out,
//! and keys of sessions that are gone do no harm anywhere.

use std::collections::VecDeque;

use slab::Slab;

use crate::buffers::budget::BufferBudget;
use crate::pump::SCRATCH_BYTES;
use crate::reactor::timers::{Deadline, Timers};
use crate::session::counts::Counts;
use crate::session::log_limits::LogLimits;
use crate::session::report::{Label, SessionLimit};
use crate::session::{Action, Context, Event, Session, Settings};
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// Names a session. It is used again after the session was freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    /// Those of each service.
    settings: Vec<Settings>,
    memory: BufferBudget,
    logs: LogLimits,
    /// Those of each service.
    counts: Vec<Counts>,
    /// Where sessions put what they want done, and where it waits until it is.
    actions: Vec<Action>,
    pending_actions: VecDeque<(SessionKey, Action)>,
}

impl Shared {
    /// What a session wants done waits until it is.
    #[inline(never)]
    fn take_actions(&mut self, key: SessionKey) {
        let actions = self.actions.drain(..).map(|action| (key, action));
        self.pending_actions.extend(actions);
    }

    /// The one place where a context is made.
    fn context(&mut self, service: ServiceKey, now: Time) -> Context<'_> {
        Context {
            now,
            settings: &self.settings[service.0],
            memory: &mut self.memory,
            logs: &mut self.logs,
            counts: &mut self.counts[service.0],
            actions: &mut self.actions,
        }
    }
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
            shared: Shared {
                settings: vec![settings],
                memory,
                logs: LogLimits::default(),
                counts: vec![Counts::default()],
                actions: Vec::new(),
                pending_actions: VecDeque::new(),
            },
            entries: Slab::new(),
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

    /// What holds for all sessions, if there is one service.
    pub fn settings(&self) -> &Settings {
        self.settings_of(ServiceKey::ONLY)
    }

    /// The same, to be changed: for what happens from now on.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.shared.settings[ServiceKey::ONLY.0]
    }

    /// What holds for the sessions of a service.
    pub fn settings_of(&self, service: ServiceKey) -> &Settings {
        &self.shared.settings[service.0]
    }

    /// Changes what holds for the sessions of a service: for what happens from now on.
    pub fn set_settings<D: Copy + From<SessionKey>>(
        &mut self,
        service: ServiceKey,
        settings: Settings,
        timers: &mut Timers<D>,
    ) {
        self.shared.settings[service.0] = settings;
        for (key, entry) in &mut self.entries {
            if entry.service == service {
                let settings = &self.shared.settings[service.0];
                entry.session.settings_changed(settings);
                entry.settle(SessionKey(key), &mut self.shared, timers);
            }
        }
    }

    /// The same for another service, which takes the place of one without sessions.
    pub fn replace_service(&mut self, service: ServiceKey, settings: Settings) {
        self.shared.settings[service.0] = settings;
        self.shared.counts[service.0] = Counts::default();
    }

    /// Adds a service with these settings.
    pub fn add_service(&mut self, settings: Settings) -> ServiceKey {
        self.shared.settings.push(settings);
        self.shared.counts.push(Counts::default());
        ServiceKey(self.shared.settings.len() - 1)
    }

    /// The memory that they share.
    pub fn memory(&self) -> &BufferBudget {
        &self.shared.memory
    }

    /// The same, to be changed.
    pub fn memory_mut(&mut self) -> &mut BufferBudget {
        &mut self.shared.memory
    }

    /// What was counted of the sessions of a service so far.
    pub fn counts_of(&self, service: ServiceKey) -> &Counts {
        &self.shared.counts[service.0]
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

    /// Logs how much was left out of the log. Call it now and then.
    pub fn report_left_out(&mut self) {
        self.shared.logs.report();
    }

    /// Lets go of memory that is not needed now. Call it now and then.
    pub fn trim_memory(&mut self) {
        self.shared.memory.trim();
    }

    /// Where bytes are read to, between two runs.
    pub fn scratch(&mut self) -> &mut [u8] {
        &mut self.scratch
    }

    /// The same, and the memory that sessions share.
    pub fn scratch_and_memory(&mut self) -> (&mut [u8], &mut BufferBudget) {
        (&mut self.scratch, &mut self.shared.memory)
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
        if let Event::Deadline { .. } = event {
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
            // Whoever has headroom waits for nothing.
            if !cx.memory.has_headroom()
                && session.waits_for_memory(cx.memory)
                && !entry.waits_for_memory
            {
                entry.waits_for_memory = true;
                self.waiting_for_memory.push(key);
            }
            entry.settle(key, &mut self.shared, timers);
            entry.queued = has_more;
            if has_more {
                self.run_queue.push_back(key);
            }
            if self.shared.memory.is_short() {
                self.relieve_memory(key, timers);
            }
        }
    }

    /// Memory is short, and a session was run: if it is in the middle of a long line, it may need more, and whoever holds
    /// most and has moved least makes room. That may be the session itself. Then nobody does: it has what is left.
    #[inline(never)]
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

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::session::idle::IdleLimits;
    use crate::session::report::Exit;
    use crate::session::stderr::ServerLogging;
    use crate::session::{Backend, Spawn};

    const HOUR: Duration = Duration::from_hours(1);

    impl From<SessionKey> for usize {
        fn from(key: SessionKey) -> Self {
            key.0
        }
    }

    /// Notes which sessions are run, with their places, and says of those in `busy` that they have more to do.
    #[derive(Default)]
    struct Notes {
        runs: Vec<(usize, char)>,
        busy: Vec<usize>,
    }

    impl Driver for Notes {
        type Place = char;

        fn run(
            &mut self,
            key: SessionKey,
            _: &mut Session,
            place: &mut char,
            scratch: &mut [u8],
            _: &mut Context<'_>,
        ) -> bool {
            assert_eq!(scratch.len(), SCRATCH_BYTES);
            self.runs.push((key.0, *place));
            self.busy.contains(&key.0)
        }
    }

    struct Loop {
        scheduler: Scheduler<char>,
        timers: Timers<usize>,
        notes: Notes,
    }

    impl Loop {
        fn new() -> Self {
            let settings = Settings {
                role: Backend::Process { max_restarts: 5 },
                heartbeat_interval: HOUR,
                restarts_upstream: true,
                max_message_bytes: 1_000_000,
                replays: true,
                replay_timeout: HOUR,
                stop_timeout: Duration::from_secs(30),
                spawn: Spawn::Eager,
                idle_limits: IdleLimits {
                    exempts_heartbeats: false,
                    first_message: Some(HOUR),
                    idle: None,
                    hibernate: None,
                },
                server_log: ServerLogging::Limited,
            };
            Self {
                scheduler: Scheduler::new(settings, BufferBudget::new(1_000_000)),
                timers: Timers::new(Time::from_nanos(1 << 40)),
                notes: Notes::default(),
            }
        }

        fn label() -> Label {
            Label::Session {
                number: 1,
                server: None,
                client: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
                pid: None,
            }
        }

        fn open(&mut self, place: char) -> SessionKey {
            self.scheduler.open(Self::label(), place, &mut self.timers)
        }

        fn tell(&mut self, key: SessionKey, event: Event<'_>) -> bool {
            let told = self.scheduler.handle(key, event, &mut self.timers);
            told.is_some()
        }

        fn run(&mut self) -> Vec<(usize, char)> {
            self.scheduler.run_ready(&mut self.notes, &mut self.timers);
            std::mem::take(&mut self.notes.runs)
        }

        fn actions(&mut self) -> Vec<(usize, Action)> {
            let next = || self.scheduler.next_action();
            std::iter::from_fn(next)
                .map(|(key, action)| (key.0, action))
                .collect()
        }

        fn free(&mut self, key: SessionKey) -> Option<char> {
            let freed = self.scheduler.free_if_finished(key, &mut self.timers);
            freed.map(|(_, place)| place)
        }

        fn break_client(&mut self, key: SessionKey) {
            let error = Error::from(ErrorKind::ConnectionReset);
            self.tell(key, Event::ClientFailed(&error));
        }
    }

    #[test]
    fn a_session_runs_once_for_any_number_of_reasons() {
        let mut all = Loop::new();
        let (a, b) = (all.open('a'), all.open('b'));
        all.scheduler.enqueue(b);
        assert!(all.scheduler.is_busy());
        assert_eq!(all.run(), [(a.0, 'a'), (b.0, 'b')]);
        assert_eq!(all.actions().len(), 2);
        assert!(!all.scheduler.is_busy());
        assert_eq!(all.run(), []);
        all.scheduler.enqueue(b);
        all.scheduler.note(b, |_| true);
        all.tell(b, Event::ClientHup);
        assert_eq!(all.run(), [(b.0, 'b')]);
    }

    #[test]
    fn what_has_more_to_do_is_run_again_behind_the_others_and_not_in_the_same_iteration() {
        let mut all = Loop::new();
        let (a, b) = (all.open('a'), all.open('b'));
        all.notes.busy = vec![a.0];
        assert_eq!(all.run(), [(a.0, 'a'), (b.0, 'b')]);
        all.actions();
        assert!(all.scheduler.is_busy());
        all.scheduler.enqueue(b);
        assert_eq!(all.run(), [(a.0, 'a'), (b.0, 'b')]);
        all.notes.busy.clear();
        assert_eq!(all.run(), [(a.0, 'a')]);
        assert!(!all.scheduler.is_busy());
    }

    #[test]
    fn a_note_changes_the_place_and_has_the_session_run_if_it_says_so() {
        let mut all = Loop::new();
        let key = all.open('a');
        all.run();
        all.actions();
        all.scheduler.note(key, |place| {
            *place = 'b';
            false
        });
        assert!(!all.scheduler.is_busy());
        all.scheduler.note(key, |_| true);
        assert_eq!(all.run(), [(key.0, 'b')]);
        all.scheduler
            .note(SessionKey(77), |_| panic!("it is not there"));
        all.scheduler.enqueue(SessionKey(77));
        assert!(!all.tell(SessionKey(77), Event::ClientHup) && !all.scheduler.is_busy());
    }

    #[test]
    fn actions_name_their_sessions_and_stay_in_order() {
        let mut all = Loop::new();
        let (a, b) = (all.open('a'), all.open('b'));
        assert!(all.scheduler.is_busy());
        all.break_client(a);
        let start = |key: SessionKey| (key.0, Action::StartUpstream);
        let close = (a.0, Action::CloseClient);
        assert_eq!(all.actions(), [start(a), start(b), close]);
    }

    #[test]
    fn a_session_is_freed_when_it_is_finished_and_all_is_done_that_it_wants_done() {
        let mut all = Loop::new();
        let key = all.open('a');
        assert_eq!(all.actions(), [(key.0, Action::StartUpstream)]);
        all.tell(key, Event::UpstreamStarted { pid: Some(1) });
        assert_eq!(all.timers.len(), 1, "it waits for a first message");
        assert_eq!(all.free(key), None);
        all.tell(key, Event::UpstreamExited(Exit::Code(0)));
        all.break_client(key);
        let session = all.scheduler.session(key).unwrap();
        assert!(session.is_finished());
        assert_eq!(all.free(key), None, "its actions were not carried out");
        assert!(!all.actions().is_empty());
        assert_eq!(all.free(key), Some('a'));
        assert_eq!((all.free(key), all.scheduler.len()), (None, 0));
        assert!(all.timers.is_empty() && all.scheduler.is_empty());
        assert_eq!(all.scheduler.memory().used(), 0);
        assert_eq!(all.run(), [], "it was queued");
    }

    #[test]
    fn a_key_that_is_used_again_is_that_of_the_new_session_alone() {
        let mut all = Loop::new();
        let old = all.open('a');
        all.break_client(old);
        all.actions();
        assert_eq!(all.free(old), Some('a'));
        assert_eq!(all.scheduler.next_key(), old);
        let new = all.open('b');
        assert_eq!((new, all.scheduler.place(new)), (old, Some(&'b')));
        assert_eq!(all.run(), [(new.0, 'b')], "the old one was queued, too");
        *all.scheduler.place_mut(new).unwrap() = 'c';
        let places = all.scheduler.iter().map(|(key, _, place)| (key, *place));
        assert_eq!(places.collect::<Vec<_>>(), [(new, 'c')]);
    }

    #[test]
    fn a_session_has_the_deadline_that_it_last_wanted() {
        let mut all = Loop::new();
        let key = all.open('a');
        let begin = all.timers.now();
        assert_eq!(all.timers.next(), Some(begin + HOUR));
        all.timers.advance(begin + HOUR);
        assert_eq!(all.timers.pop(), Some(key.0));
        let unix_time = Duration::ZERO;
        all.tell(key, Event::Deadline { unix_time });
        let session = all.scheduler.session(key).unwrap();
        let wanted = session.next_deadline(all.scheduler.settings());
        assert!(wanted.is_some_and(|at| at < begin + 2 * HOUR), "{wanted:?}");
        assert_eq!(all.timers.len(), 1);
        assert!(all.timers.next() >= wanted);
    }

    #[test]
    fn a_session_that_was_turned_away_says_so_and_asks_for_nothing() {
        let mut all = Loop::new();
        let limit = SessionLimit::All(7);
        let key = all
            .scheduler
            .refuse(Loop::label(), limit, 'a', &mut all.timers);
        let session = all.scheduler.session(key).unwrap();
        assert!(session.was_refused() && !session.to_client().is_empty());
        assert_eq!((all.actions(), all.run().len()), (vec![], 1));
    }

    /// A session of which neither side takes anything, and which has filled what it may.
    fn stuck(all: &mut Loop) -> SessionKey {
        let key = all.open('a');
        all.tell(key, Event::UpstreamStarted { pid: Some(1) });
        let line = |method: char| {
            format!(
                "{{\"method\":\"{}\"}}\n",
                String::from(method).repeat(200_000)
            )
        };
        all.tell(key, Event::ClientBytes(line('c').as_bytes()));
        all.tell(key, Event::UpstreamBytes(line('s').as_bytes()));
        all.run();
        all.actions();
        key
    }

    #[test]
    fn whoever_waits_for_memory_is_woken_once_there_is_some() {
        let mut all = Loop::new();
        let hoarder = all.open('h');
        all.tell(hoarder, Event::UpstreamStarted { pid: Some(2) });
        let line = format!("{{\"method\":\"{}\"}}\n", "h".repeat(700_000));
        all.tell(hoarder, Event::UpstreamBytes(line.as_bytes()));
        assert!(!all.scheduler.memory().has_headroom());
        let key = stuck(&mut all);
        all.scheduler.enqueue(key);
        assert_eq!(all.run(), [(key.0, 'a')], "it waits once");
        all.scheduler.wake_for_memory();
        assert!(!all.scheduler.is_busy(), "there is none yet");
        all.tell(hoarder, Event::ClientWritten(line.len()));
        assert_eq!(all.run(), [(hoarder.0, 'h')]);
        assert!(all.scheduler.memory().has_headroom());
        all.scheduler.wake_for_memory();
        assert_eq!(all.run(), [(key.0, 'a')]);
        all.scheduler.wake_for_memory();
        assert!(!all.scheduler.is_busy(), "once");
    }

    /// Begins a line of this many bytes.
    fn begin_line(all: &mut Loop, key: SessionKey, bytes: usize) {
        all.tell(key, Event::UpstreamStarted { pid: Some(1) });
        let part = format!("{{\"id\":1,\"method\":\"{}", "x".repeat(bytes));
        all.tell(key, Event::ClientBytes(part.as_bytes()));
    }

    fn weighs(all: &Loop, key: SessionKey) -> bool {
        let session = all.scheduler.session(key).unwrap();
        session.unfinished_weight(all.timers.now()).is_some()
    }

    #[test]
    fn whoever_holds_most_and_has_moved_least_makes_room_for_the_newcomer() {
        let mut all = Loop::new();
        let [small, large, moving] = ['s', 'l', 'm'].map(|place| all.open(place));
        begin_line(&mut all, small, 100_000);
        begin_line(&mut all, large, 350_000);
        let later = all.timers.now() + Duration::from_secs(20);
        all.timers.advance(later);
        begin_line(&mut all, moving, 550_000);
        all.run();
        assert!(weighs(&all, small) && !weighs(&all, large) && weighs(&all, moving));
        assert!(!all.scheduler.memory().is_short());
        // Its line is refused once it ends.
        all.tell(large, Event::ClientBytes(b"\"}\n"));
        let session = all.scheduler.session(large).unwrap();
        let refusal = String::from_utf8(session.to_client().to_vec()).unwrap();
        assert!(
            refusal.contains("others needed the buffer memory"),
            "{refusal}"
        );
        assert!(refusal.contains("\"id\":1,"), "{refusal}");
    }

    #[test]
    fn who_is_alone_with_a_long_line_may_have_what_is_left() {
        let mut all = Loop::new();
        let key = all.open('a');
        begin_line(&mut all, key, 900_000);
        all.run();
        assert!(all.scheduler.memory().is_short() && weighs(&all, key));
    }

    #[test]
    fn a_session_that_was_freed_does_not_wait_for_memory() {
        let mut all = Loop::new();
        let key = stuck(&mut all);
        if all.scheduler.memory().has_headroom() {
            let line = format!("{{\"method\":\"{}\"}}\n", "h".repeat(700_000));
            let hoarder = all.open('h');
            all.tell(hoarder, Event::UpstreamStarted { pid: Some(2) });
            all.tell(hoarder, Event::UpstreamBytes(line.as_bytes()));
        }
        all.scheduler.enqueue(key);
        all.run();
        assert_eq!(all.scheduler.waiting_for_memory, [key]);
        all.tell(key, Event::UpstreamExited(Exit::Code(0)));
        all.break_client(key);
        all.actions();
        assert_eq!(all.free(key), Some('a'));
        assert_eq!(all.scheduler.waiting_for_memory, []);
    }

    #[test]
    fn large_buffers_are_let_go_of() {
        let mut all = Loop::new();
        all.scheduler.shared.memory.lend_large();
        all.scheduler
            .shared
            .memory
            .give_back(Vec::with_capacity(1_000_000));
        all.scheduler.trim_memory();
        all.scheduler.trim_memory();
        let capacity = all.scheduler.shared.memory.lend_large().capacity();
        assert_eq!(
            (capacity, all.scheduler.scratch().len()),
            (0, SCRATCH_BYTES)
        );
    }
}
