//! What there is to say, as plain data. Where it comes from is not known here.

use std::time::Duration;

use super::history::History;
use crate::session::counts::{Counts, ErrorCounts};
use crate::session::status::SessionStatus;
use crate::util::histogram::Histogram;

/// The program, and the servers that it serves.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The program.
    pub proxy: ProxyFacts<'a>,
    /// The servers.
    pub servers: Vec<ServerFacts<'a>>,
}

/// The program as a whole.
#[derive(Debug)]
pub struct ProxyFacts<'a> {
    /// Its process.
    pub pid: u32,
    /// When it was started, since 1970.
    pub started: Duration,
    /// How long ago that is.
    pub age: Duration,
    /// Where it listens.
    pub addresses: &'a str,
    /// Why it takes no new session; nothing if it does.
    pub reasons: Vec<Reason>,
    /// What it does: `serving`, `draining` or `stopping`.
    pub state: &'static str,
    /// Sessions that are open.
    pub sessions: usize,
    /// Sessions that there may be.
    pub max_sessions: usize,
    /// Connections in the entrance.
    pub visitors: usize,
    /// Connections that were not let in, by why.
    pub refused: Vec<(&'static str, u64)>,
    /// Errors that they were told.
    pub errors: ErrorCounts,
    /// Those of them that are about who somebody is.
    pub auth_failures: Vec<(&'static str, u64)>,
    /// Connections that were to go on with a session, by what became of that; none if no session is kept.
    pub resumes: Vec<(&'static str, u64)>,
    /// How often another program was to go on in this process, by what became of that.
    pub upgrades: Vec<(&'static str, u64)>,
    /// What is held in buffers, in bytes.
    pub buffer_bytes: usize,
    /// What may be.
    pub buffer_limit_bytes: usize,
    /// How long iterations of the loop took.
    pub iterations: Option<&'a Histogram>,
    /// The longest of all.
    pub longest_iteration: Duration,
    /// Lines that stderr did not take.
    pub log_lines_lost: u64,
    /// Whether files were read again with success the last time, and when they last were, since 1970.
    pub reload: Option<(bool, Duration)>,
    /// When the certificate of the proxy ends, in seconds since 1970.
    pub certificate_not_after: Option<i64>,
    /// What the system knows of the process.
    pub process: ProcessFacts,
    /// What was a while ago, of all servers together.
    pub history: &'a History,
}

/// Why no new session is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// In one word.
    pub name: &'static str,
    /// In a sentence, or less.
    pub words: String,
}

/// What the system knows of this process. What it does not tell is `None`.
#[derive(Debug, Default, Clone, Copy)]
pub struct ProcessFacts {
    /// Processor time, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Descriptors that are open.
    pub open_fds: Option<u64>,
    /// Descriptors that may be.
    pub max_fds: Option<u64>,
    /// Memory that is in use, in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space that is in use, in bytes.
    pub virtual_bytes: Option<u64>,
}

/// What is known once all sessions were looked at.
#[derive(Debug, Default, Clone, Copy)]
pub struct Gauges {
    /// Requests that wait for their responses.
    pub in_flight: u64,
    /// Sessions that have given their processes back until they are used again.
    pub hibernating: u64,
    /// Sessions without a connection, which may come back.
    pub detached: u64,
}

/// A process that sessions share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedFacts {
    /// Which of the places for such processes it has; the log calls it by this number.
    pub place: usize,
    /// Its number.
    pub pid: i32,
    /// Sessions that use it.
    pub sessions: usize,
    /// Requests that it has.
    pub in_flight: usize,
    /// What it is for.
    pub kind: SharedKind,
    /// Whether it does nothing although work waits.
    pub is_silent: bool,
}

/// What a process is for that sessions share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedKind {
    /// Sessions.
    Shared,
    /// Those of whom one may be to blame for crashes.
    Solo,
    /// The proxy, which asks what the server speaks.
    Probe,
}

impl SharedKind {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Solo => "solo",
            Self::Probe => "probe",
        }
    }
}

/// Sessions that go on with new servers, because the user wants that.
#[derive(Debug, Default, Clone, Copy)]
pub struct SwapFacts<'a> {
    /// Those that are about to.
    pub left: usize,
    /// How many have.
    pub succeeded: u64,
    /// How often that came to an end because a new server was not fit.
    pub failed: u64,
    /// Why it did the last time, unless it went well since.
    pub failure: Option<&'a str>,
}

/// A server that is served.
#[derive(Debug)]
pub struct ServerFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// The program that is run.
    pub command: &'a str,
    /// Why it can't be started, as far as is known.
    pub trouble: Option<Reason>,
    /// Its sessions.
    pub sessions: usize,
    /// Those of them that wait for a process.
    pub waiting: usize,
    /// What the sessions say, if they were looked at.
    pub gauges: Gauges,
    /// Processes that run.
    pub processes: usize,
    /// Those of them that wait for a session.
    pub spares: usize,
    /// What sessions count.
    pub counts: &'a Counts,
    /// Errors of the proxy's own.
    pub errors: ErrorCounts,
    /// Sessions so far.
    pub opened: u64,
    /// Those that are gone, by why.
    pub closed: Vec<(&'static str, u64)>,
    /// Processes that were started.
    pub starts: u64,
    /// How they ended, or failed to start.
    pub exits: [(&'static str, u64); 4],
    /// Processes that sessions share.
    pub shared: Vec<SharedFacts>,
    /// Lines of shared processes and their clients that reached nobody, by what they were; nothing if nothing is shared.
    pub dropped: Vec<(&'static str, u64)>,
    /// Sessions that get new servers.
    pub swaps: SwapFacts<'a>,
    /// From a start to the first output.
    pub start_times: &'a Histogram,
    /// What was a while ago.
    pub history: &'a History,
}

/// A session, with what is known of it beside itself.
#[derive(Debug, Clone, Copy)]
pub struct SessionFacts<'a> {
    /// The session.
    pub session: SessionStatus,
    /// The name that its client has shown to be its own.
    pub name: Option<&'a str>,
    /// The server that it uses.
    pub server: &'a str,
    /// How long it is still kept, if it has no connection.
    pub kept_for: Option<Duration>,
}

impl Facts<'_> {
    /// Why no server, or not this one, would serve a new session; nothing if it would. `None` if there is no server of this
    /// name.
    pub fn reasons(&self, server: Option<&str>) -> Option<Vec<String>> {
        let mut servers = self.servers.iter();
        let asked: Vec<&ServerFacts<'_>> = match server {
            Some(name) => vec![servers.find(|server| server.name == name)?],
            None => servers.collect(),
        };
        let mut reasons: Vec<String> = self.proxy.reasons.iter().map(Reason::to_string).collect();
        if asked.iter().all(|server| server.trouble.is_some()) {
            reasons.extend(asked.iter().filter_map(|server| server.trouble_words()));
        }
        Some(reasons)
    }

    /// The body of `/readyz`: whether a new session would be served, and what would be in its way.
    pub fn readiness(&self, server: Option<&str>) -> Option<(bool, String)> {
        let reasons = self.reasons(server)?;
        let is_ready = reasons.is_empty();
        let mut lines = vec![if is_ready { "ready" } else { "not ready" }.to_owned()];
        lines.extend(reasons);
        if is_ready && server.is_none() {
            let troubled = self.servers.iter();
            lines.extend(troubled.filter_map(ServerFacts::trouble_words));
        }
        Some((is_ready, lines.join("\n") + "\n"))
    }
}

impl ServerFacts<'_> {
    fn trouble_words(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        Some(format!("server {}: {trouble}", self.name))
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.words)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What the facts of tests borrow.
    #[derive(Default)]
    pub(crate) struct Kept {
        pub(crate) counts: Counts,
        pub(crate) times: Histogram,
        pub(crate) history: History,
    }

    pub(crate) fn server<'a>(name: &'a str, kept: &'a Kept) -> ServerFacts<'a> {
        ServerFacts {
            name,
            command: "cat",
            trouble: None,
            sessions: 1,
            waiting: 0,
            gauges: Gauges {
                in_flight: 2,
                hibernating: 0,
                detached: 1,
            },
            processes: 1,
            spares: 0,
            counts: &kept.counts,
            errors: ErrorCounts::default(),
            opened: 3,
            closed: vec![("client_ended", 2)],
            starts: 3,
            exits: [
                ("exit_0", 1),
                ("exit_other", 1),
                ("signal", 0),
                ("start_failed", 0),
            ],
            shared: vec![SharedFacts {
                place: 3,
                pid: 9,
                sessions: 4,
                in_flight: 2,
                kind: SharedKind::Shared,
                is_silent: true,
            }],
            dropped: vec![("server_log", 3)],
            swaps: SwapFacts {
                left: 1,
                succeeded: 2,
                failed: 1,
                failure: Some("it has \"ended\""),
            },
            start_times: &kept.times,
            history: &kept.history,
        }
    }

    pub(crate) fn facts<'a>(names: &[&'a str], kept: &'a Kept) -> Facts<'a> {
        Facts {
            proxy: ProxyFacts {
                pid: 7,
                started: Duration::from_secs(1_790_000_000),
                age: Duration::from_mins(1),
                addresses: "127.0.0.1:8080",
                reasons: Vec::new(),
                state: "serving",
                sessions: 1,
                max_sessions: 10,
                visitors: 0,
                refused: vec![("session_limit", 0)],
                errors: ErrorCounts::default(),
                auth_failures: vec![("wrong_token", 0)],
                resumes: vec![("resumed", 4), ("unknown", 0)],
                upgrades: vec![("done", 2), ("failed", 1)],
                buffer_bytes: 0,
                buffer_limit_bytes: 1 << 28,
                iterations: Some(&kept.times),
                longest_iteration: Duration::from_millis(3),
                log_lines_lost: 0,
                reload: None,
                certificate_not_after: None,
                process: ProcessFacts::default(),
                history: &kept.history,
            },
            servers: names.iter().map(|name| server(name, kept)).collect(),
        }
    }

    fn reason(name: &'static str) -> Reason {
        let words = "why".to_owned();
        Reason { name, words }
    }

    #[test]
    fn one_server_that_can_be_started_is_enough() {
        let kept = Kept::default();
        let mut facts = facts(&["a", "b"], &kept);
        assert_eq!(facts.readiness(None), Some((true, "ready\n".to_owned())));
        facts.servers[0].trouble = Some(reason("spawn_failed"));
        let body = "ready\nserver a: spawn_failed: why\n".to_owned();
        assert_eq!(facts.readiness(None), Some((true, body)));
        let body = "not ready\nserver a: spawn_failed: why\n".to_owned();
        assert_eq!(facts.readiness(Some("a")), Some((false, body)));
        assert_eq!(
            facts.readiness(Some("b")),
            Some((true, "ready\n".to_owned()))
        );
        assert_eq!(facts.readiness(Some("c")), None);
        facts.servers[1].trouble = Some(reason("spawn_failed"));
        assert!(!facts.readiness(None).unwrap().0);
    }

    #[test]
    fn what_is_in_the_way_of_all_is_in_the_way_of_each() {
        let kept = Kept::default();
        let mut facts = facts(&["a"], &kept);
        facts.proxy.reasons.push(reason("shutdown"));
        for server in [None, Some("a")] {
            let body = "not ready\nshutdown: why\n".to_owned();
            assert_eq!(facts.readiness(server), Some((false, body)));
        }
    }
}
