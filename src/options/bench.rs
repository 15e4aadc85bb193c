//! What `bench` measures, and how.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::ConnectOptions;
use crate::transport::address::Address;
use crate::util::shell_words;

/// What is measured and how, each value within its range.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a switch that the user may set"
)]
#[derive(Clone, Debug, PartialEq)]
pub struct BenchOptions {
    /// What is measured.
    pub target: Target,
    /// What it is compared with.
    pub versus: Option<Target>,
    /// Sessions at a time: 1 to 100,000.
    pub sessions: usize,
    /// Requests of each that wait for their responses: 1 to 1,024. `None`: not given.
    pub in_flight: Option<usize>,
    /// Requests in all: 1 to 10^12. `None`: as many as there is time for.
    pub requests: Option<u64>,
    /// How long to measure: 10 ms to one day. `None`: not given.
    pub duration: Option<Duration>,
    /// How long to send before that: up to one day.
    pub warm_up: Duration,
    /// How often to measure: 1 to 100. `None`: not given.
    pub rounds: Option<u32>,
    /// Requests a second, of all sessions together: 0.001 to 10^7. `None`: as fast as they are answered.
    pub rate: Option<f64>,
    /// The tool that is called.
    pub tool: Option<String>,
    /// Its arguments, as JSON.
    pub arguments: Option<String>,
    /// The method that is asked for.
    pub method: Option<String>,
    /// Its parameters, as JSON.
    pub params: Option<String>,
    /// The file with the requests.
    pub message: Option<PathBuf>,
    /// The length of a text among the arguments, in bytes: 1 to 256 MiB. `None`: as it is.
    pub payload: Option<usize>,
    /// How sessions are opened.
    pub era: EraChoice,
    /// How long a response may take: 10 ms to one day.
    pub timeout: Duration,
    /// Whether each request has a connection of its own.
    pub churn: bool,
    /// Whether the report is JSON.
    pub json: bool,
    /// Whether it is CSV.
    pub csv: bool,
    /// Where the distribution of latencies is written to.
    pub histogram: Option<PathBuf>,
    /// Where it is drawn.
    pub chart: Option<PathBuf>,
    /// How a proxy lets sessions in. The address and what else concerns `connect` alone mean nothing.
    pub access: ConnectOptions,
}

/// How sessions are opened, and what requests say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EraChoice {
    /// As the server likes it.
    Auto,
    /// By `initialize`.
    Legacy,
    /// As from 2026-07-28 on.
    Modern,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A server on TCP or on a unix socket.
    Address(Address),
    /// A server on stdio: its command.
    Command(Vec<OsString>),
}

/// What stands before the command of a server on stdio.
pub const EXEC_PREFIX: &str = "exec:";

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Command(words) => write!(f, "{EXEC_PREFIX}{}", shell_words::join(words)),
        }
    }
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self {
            target: Target::Command(Vec::new()),
            versus: None,
            sessions: 1,
            in_flight: None,
            requests: None,
            duration: None,
            warm_up: Duration::from_secs(1),
            rounds: None,
            rate: None,
            tool: None,
            arguments: None,
            method: None,
            params: None,
            message: None,
            payload: None,
            era: EraChoice::Auto,
            timeout: Duration::from_secs(30),
            churn: false,
            json: false,
            csv: false,
            histogram: None,
            chart: None,
            access: ConnectOptions::default(),
        }
    }
}

impl BenchOptions {
    /// How long to measure if there is no number of requests, and nothing else was said.
    pub const DEFAULT_DURATION: Duration = Duration::from_secs(10);

    /// What is measured, in the order in which it is.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        [&self.target].into_iter().chain(&self.versus)
    }

    /// How often each is measured.
    pub fn rounds(&self) -> u32 {
        let default = if self.versus.is_some() { 5 } else { 1 };
        self.rounds.unwrap_or(default)
    }
}
