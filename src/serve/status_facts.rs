//! Gathers what there is to say of the proxy and its servers.

use super::counts::UPGRADES;
use super::services::Service;
use super::status::StatusService;
use super::system::System;
use super::{Proxy, Stopping};
use crate::entrance::tokens::DEFAULT_SERVER;
use crate::entrance::{Identity, Name, Refusal};
use crate::logger;
use crate::scheduler::SessionKey;
use crate::session::counts::ErrorCounts;
use crate::session::report::{EndReason, SessionLimit};
use crate::status::facts::{
    Facts, Gauges, ProxyFacts, Reason, ServerFacts, SessionFacts, SwapFacts,
};
use crate::status::history::History;
use crate::util::about::Subject;
use crate::util::service_key::ServiceKey;

/// Names of limits on sessions, in the order in which refusals are counted.
const LIMITS: [&str; 4] = [
    "session_limit",
    "address_limit",
    "client_limit",
    "server_limit",
];

impl<S: System> Proxy<S> {
    /// All but the sessions.
    pub(super) fn facts<'a>(
        &'a self,
        status: &'a StatusService<S>,
        gauges: &[Gauges],
    ) -> Facts<'a> {
        Facts {
            proxy: self.proxy_facts(status),
            servers: self
                .services
                .keys()
                .filter(|key| !self.services.get(*key).is_retired)
                .map(|key| {
                    let gauges = gauges.get(key.0).copied().unwrap_or_default();
                    self.server_facts(status, key, gauges)
                })
                .collect(),
        }
    }

    /// A session that was not refused.
    pub(super) fn session_facts(&self, key: usize) -> Option<SessionFacts<'_>> {
        let key = SessionKey(key);
        let session = self.scheduler.session(key)?;
        if session.was_refused() {
            return None;
        }
        let identity = self.scheduler.place(key)?.identity();
        Some(SessionFacts {
            session: session.status(self.now())?,
            name: identity.and_then(Identity::client).map(Name::as_str),
            server: session.label().server().unwrap_or(DEFAULT_SERVER),
            kept_for: self.kept_for(key),
        })
    }

    fn proxy_facts<'a>(&'a self, status: &'a StatusService<S>) -> ProxyFacts<'a> {
        let about = &status.about;
        let memory = self.scheduler.memory();
        let entrance = self.visitors.as_ref().map(|visitors| &visitors.entrance);
        let refusals = entrance.map(|entrance| entrance.refusals().by_reason);
        let refusals = refusals.unwrap_or_default();
        let named = || Refusal::NAMES.into_iter().zip(refusals);
        let limits = LIMITS.into_iter().zip(self.counts.refused);
        ProxyFacts {
            pid: std::process::id(),
            started: about.started_unix,
            age: self.now().saturating_since(about.started),
            addresses: &about.addresses,
            reasons: self.reasons(),
            state: self.state(),
            sessions: self.open_sessions(),
            max_sessions: self.limits.max_sessions,
            visitors: self.visitors(),
            refused: limits.chain(named()).collect(),
            errors: self.entrance_errors(),
            auth_failures: named()
                .enumerate()
                .filter(|(number, _)| Refusal::is_about_identity(*number))
                .map(|(_, named)| named)
                .collect(),
            resumes: self.resumes(),
            upgrades: UPGRADES.into_iter().zip(self.counts.upgrades).collect(),
            buffer_bytes: memory.used(),
            buffer_limit_bytes: memory.limit(),
            iterations: self.reactor.iterations(),
            longest_iteration: self.reactor.longest_iteration(),
            log_lines_lost: logger::lines_lost(),
            reload: self.counts.reload,
            certificate_not_after: self.system.certificate_not_after(),
            process: self.system.process_facts(),
            history: &status.whole_history,
        }
    }

    fn server_facts<'a>(
        &'a self,
        status: &'a StatusService<S>,
        key: ServiceKey,
        gauges: Gauges,
    ) -> ServerFacts<'a> {
        static NO_HISTORY: History = History::new();
        let service = self.services.get(key);
        let processes = self.servers.counts_of(key);
        let counts = self.scheduler.counts_of(key);
        let own = &service.counts;
        let reasons = EndReason::NAMES.into_iter().zip(own.closed);
        let sharing = service.sharing.as_ref();
        let shared = sharing.map(|it| it.share.errors());
        ServerFacts {
            name: service
                .name
                .as_ref()
                .map_or(DEFAULT_SERVER, |name| name.as_str()),
            command: status.about.commands.get(key.0).map_or("", String::as_str),
            trouble: self.trouble(service),
            sessions: self.services.sessions_like(service),
            waiting: self.start_queue.waiting(key),
            gauges,
            processes: processes.running,
            spares: service.spares.waiting(),
            counts,
            errors: counts.errors().plus(shared.unwrap_or_default()),
            opened: own.opened,
            closed: reasons
                .enumerate()
                .filter(|(number, _)| EndReason::is_of_proxy(*number))
                .map(|(_, reason)| reason)
                .collect(),
            starts: own.starts,
            exits: [
                ("exit_0", processes.exits.well),
                ("exit_other", processes.exits.other),
                ("signal", processes.exits.signal),
                ("start_failed", own.failed_starts),
            ],
            shared: sharing.map_or_else(Vec::new, |it| it.facts(self.now())),
            dropped: sharing.map_or_else(Vec::new, |it| it.share.drops().iter().collect()),
            swaps: SwapFacts {
                left: service.swaps.left(),
                succeeded: own.swapped,
                failed: own.failed_swaps,
                failure: own.swap_failure.as_deref(),
            },
            start_times: &own.start_times,
            history: status.history.get(key.0).unwrap_or(&NO_HISTORY),
        }
    }

    /// Why a new session of a service would not be served.
    fn trouble(&self, service: &Service) -> Option<Reason> {
        let limit = service.max_sessions;
        if let Some(limit) = limit.filter(|limit| self.services.sessions_like(service) >= *limit) {
            return Some(Reason {
                name: "server_limit",
                words: SessionLimit::OfServer(limit).to_string(),
            });
        }
        let error = service.counts.why_none_starts(self.now())?;
        Some(Reason {
            name: "spawn_failed",
            words: error.to_owned(),
        })
    }

    /// Errors that clients got before it was known which server they want, or that were refused.
    fn entrance_errors(&self) -> ErrorCounts {
        let entrance = self.visitors.as_ref().map(|visitors| &visitors.entrance);
        entrance.map_or_else(ErrorCounts::default, |it| it.refusals().errors)
    }

    fn open_sessions(&self) -> usize {
        self.scheduler.len() - self.refused
    }

    fn state(&self) -> &'static str {
        match self.stopping {
            Stopping::No if self.is_draining() => "draining",
            Stopping::No => "serving",
            _ => "stopping",
        }
    }

    /// Why no new session would be served, whatever its server.
    fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut add = |name, words: String| reasons.push(Reason { name, words });
        if self.stopping != Stopping::No {
            add("shutdown", "the proxy is being stopped".to_owned());
        } else if self.is_draining() {
            let words = "the proxy is about to be stopped (--drain-delay)";
            add("draining", words.to_owned());
        }
        let limit = self.limits.max_sessions;
        if self.open_sessions() >= limit {
            add("session_limit", SessionLimit::All(limit).to_string());
        }
        if self.is_paused() {
            let words = "descriptors, memory or processes have run out";
            add("exhausted", words.to_owned());
        }
        reasons
    }
}
