//! Gathers what there is to say of the proxy and its servers.

use super::status::StatusService;
use super::system::System;
use super::{Proxy, Stopping};
use crate::entrance::tokens::DEFAULT_SERVER;
use crate::entrance::{Identity, Name, Refusal};
use crate::logger;
use crate::scheduler::SessionKey;
use crate::session::counts::ErrorCounts;
use crate::session::report::{EndReason, SessionLimit};
use crate::status::facts::{Facts, Gauges, ProxyFacts, Reason, ServerFacts, SessionFacts};
use crate::util::about::Subject;

/// Names of limits on sessions, in the order in which refusals are counted.
const LIMITS: [&str; 4] = [
    "session_limit",
    "address_limit",
    "client_limit",
    "server_limit",
];

impl<S: System> Proxy<S> {
    /// All but the sessions.
    pub(super) fn facts<'a>(&'a self, status: &'a StatusService<S>, gauges: Gauges) -> Facts<'a> {
        Facts {
            proxy: self.proxy_facts(status),
            servers: vec![self.server_facts(status, gauges)],
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
            auth_failures: named()
                .enumerate()
                .filter(|(number, _)| Refusal::is_about_identity(*number))
                .map(|(_, named)| named)
                .collect(),
            buffer_bytes: memory.used(),
            buffer_limit_bytes: memory.limit(),
            iterations: self.reactor.iterations(),
            longest_iteration: self.reactor.longest_iteration(),
            log_lines_lost: logger::lines_lost(),
            reload: self.counts.reload,
            certificate_not_after: self.system.certificate_not_after(),
            process: self.system.process_facts(),
        }
    }

    fn server_facts<'a>(&'a self, status: &'a StatusService<S>, gauges: Gauges) -> ServerFacts<'a> {
        let counts = self.scheduler.counts();
        let exits = self.servers.exits();
        let trouble = self.counts.why_none_starts(self.now());
        let reasons = EndReason::NAMES.into_iter().zip(self.counts.closed);
        ServerFacts {
            name: DEFAULT_SERVER,
            command: &status.about.command,
            trouble: trouble.map(|error| Reason {
                name: "spawn_failed",
                words: error.to_owned(),
            }),
            sessions: self.open_sessions(),
            waiting: self.start_queue.len(),
            gauges,
            processes: self.servers.running(),
            spares: self.services.iter().map(|it| it.spares.waiting()).sum(),
            counts,
            errors: self.errors(),
            opened: self.counts.opened,
            closed: reasons
                .enumerate()
                .filter(|(number, _)| EndReason::is_of_proxy(*number))
                .map(|(_, reason)| reason)
                .collect(),
            starts: self.counts.starts,
            exits: [
                ("exit_0", exits.well),
                ("exit_other", exits.other),
                ("signal", exits.signal),
                ("start_failed", self.counts.failed_starts),
            ],
            start_times: &self.counts.start_times,
            history: &status.history,
        }
    }

    /// Errors of the proxy's own, wherever they came from.
    fn errors(&self) -> ErrorCounts {
        let entrance = self.visitors.as_ref().map(|visitors| &visitors.entrance);
        let own = self.scheduler.counts().errors();
        let shared = self.services.all_sharing().map(|it| it.share.errors());
        shared
            .fold(own, ErrorCounts::plus)
            .plus(entrance.map_or_else(ErrorCounts::default, |it| it.refusals().errors))
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
