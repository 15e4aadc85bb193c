//! What the sessions of a loop share: the settings and the counts of each service, the buffer memory, the limits of the log,
//! and the list of what they want done.

use std::collections::VecDeque;

use super::{Scheduler, SessionKey};
use crate::buffers::budget::BufferBudget;
use crate::reactor::timers::Timers;
use crate::session::counts::Counts;
use crate::session::log_limits::LogLimits;
use crate::session::records::Records;
use crate::session::{Action, Context, Settings};
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Those of each service.
    pub(super) settings: Vec<Settings>,
    pub(super) memory: BufferBudget,
    pub(super) logs: LogLimits,
    pub(super) records: Records,
    /// Those of each service.
    pub(super) counts: Vec<Counts>,
    /// Where sessions put what they want done, and where it waits until it is.
    pub(super) actions: Vec<Action>,
    pub(super) pending_actions: VecDeque<(SessionKey, Action)>,
}

impl Shared {
    pub(super) fn new(settings: Settings, memory: BufferBudget) -> Self {
        Self {
            settings: vec![settings],
            memory,
            logs: LogLimits::default(),
            records: Records::default(),
            counts: vec![Counts::default()],
            actions: Vec::new(),
            pending_actions: VecDeque::new(),
        }
    }

    /// What a session wants done waits until it is.
    #[inline(never)]
    pub(super) fn take_actions(&mut self, key: SessionKey) {
        let actions = self.actions.drain(..).map(|action| (key, action));
        self.pending_actions.extend(actions);
    }

    /// The one place where a context is made.
    pub(super) fn context(&mut self, service: ServiceKey, now: Time) -> Context<'_> {
        Context {
            now,
            settings: &self.settings[service.0],
            memory: &mut self.memory,
            logs: &mut self.logs,
            records: &mut self.records,
            counts: &mut self.counts[service.0],
            actions: &mut self.actions,
        }
    }
}

impl<P> Scheduler<P> {
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
}
