//! The sessions of a scheduler, written down and read again: by another program, or by this one.
//!
//! Deadlines are not written down, as each follows from its session.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Entry, Scheduler, SessionKey};
use crate::reactor::timers::{Deadline, Timers};
use crate::session::counts::Counts;
use crate::session::log_limits::LogLimits;
use crate::session::{Session, Settings};
use crate::util::defaults::is_default;
use crate::util::service_key::ServiceKey;

/// Sessions without their places. `S` is a session, or where it is.
#[derive(Debug, Serialize, Deserialize)]
pub struct SchedulerState<S = Session> {
    entries: Vec<EntryState<S>>,
    run_queue: VecDeque<SessionKey>,
    waiting_for_memory: Vec<SessionKey>,
    logs: LogLimits,
    /// Of each service.
    counts: Vec<Counts>,
}

#[derive(Debug, Serialize, Deserialize)]
struct EntryState<S> {
    key: SessionKey,
    service: ServiceKey,
    #[serde(default, skip_serializing_if = "is_default")]
    queued: bool,
    session: S,
}

impl<P> Scheduler<P> {
    /// The sessions as they are. There must be nothing that they want done.
    pub fn state(&self) -> SchedulerState<&Session> {
        debug_assert!(self.shared.pending_actions.is_empty());
        let entries = self.entries.iter().map(|(key, entry)| EntryState {
            key: SessionKey(key),
            service: entry.service,
            queued: entry.queued,
            session: &entry.session,
        });
        SchedulerState {
            entries: entries.collect(),
            run_queue: self.run_queue.clone(),
            waiting_for_memory: self.waiting_for_memory.clone(),
            logs: self.shared.logs.clone(),
            counts: self.shared.counts.clone(),
        }
    }

    /// Goes on with these sessions, each at its place. There must be none yet, and the services of all.
    pub fn restore<D: Copy + From<SessionKey>>(
        &mut self,
        state: SchedulerState,
        places: impl IntoIterator<Item = P>,
        timers: &mut Timers<D>,
    ) {
        debug_assert!(self.entries.is_empty());
        let SchedulerState {
            entries,
            run_queue,
            waiting_for_memory,
            logs,
            counts,
        } = state;
        let shared = &mut self.shared;
        shared.logs = logs;
        shared.counts = counts;
        shared
            .counts
            .resize_with(shared.settings.len(), Counts::default);
        let restored = entries.into_iter().zip(places).map(|(state, place)| {
            let EntryState {
                key,
                service,
                queued,
                mut session,
            } = state;
            session.take_up(&mut shared.memory, &mut shared.records);
            let mut deadline = Deadline::default();
            let at = session.next_deadline(&shared.settings[service.0]);
            deadline.set(at, D::from(key), timers);
            let entry = Entry {
                session,
                place,
                service,
                deadline,
                queued,
                waits_for_memory: waiting_for_memory.contains(&key),
            };
            (key.0, entry)
        });
        self.entries = restored.collect();
        self.run_queue = run_queue;
        self.waiting_for_memory = waiting_for_memory;
    }

    /// What holds for the sessions of each service.
    pub fn all_settings(&self) -> impl Iterator<Item = &Settings> {
        self.shared.settings.iter()
    }

    /// What was kept beside the sessions, without them.
    pub fn into_places(self) -> impl Iterator<Item = P> {
        self.entries.into_iter().map(|(_, entry)| entry.place)
    }
}

impl<S> SchedulerState<S> {
    /// The sessions with their services, in the order in which they are.
    pub fn services(&self) -> impl Iterator<Item = (SessionKey, ServiceKey)> {
        self.entries.iter().map(|entry| (entry.key, entry.service))
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
