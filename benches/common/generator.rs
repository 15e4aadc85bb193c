//! The load generator of all benchmarks: `mcp-tcp-proxy bench`, as a process of its own on the cores of the calling thread.

use std::fmt::Display;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::PROXY;
use super::end_to_end::log_stream::{LogStream, terminal};
use super::end_to_end::processes;

/// What a session is opened to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Address(SocketAddr),
    /// A process for each session, and its stdio.
    Command(Vec<String>),
}

impl Target {
    fn as_word(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Command(words) => {
                let words = shlex::try_join(words.iter().map(String::as_str));
                format!("exec:{}", words.expect("no word has a NUL"))
            }
        }
    }
}

/// A load: the options of `bench`.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    options: Vec<String>,
    /// Has least priority.
    is_nice: bool,
}

impl Load {
    /// Each request is a `tools/call` of about this many bytes, the line end included, in a legacy session.
    pub(crate) fn echo(bytes: usize) -> Self {
        const REST: &str = concat!(
            r#"{"jsonrpc":"2.0","id":12345,"method":"tools/call","#,
            r#""params":{"name":"echo","arguments":{"text":""}}}"#,
            "\n"
        );
        Self::of_era("legacy")
            .with("--tool", "echo")
            .with("--payload", bytes - REST.len())
    }

    /// Each request asks for the list of tools, in a modern session.
    pub(crate) fn modern_list() -> Self {
        Self::of_era("modern").with("--method", "tools/list")
    }

    /// Each request is the one that costs a server of this era least.
    pub(crate) fn of_era(era: &str) -> Self {
        let load = Self {
            options: vec!["--json".to_owned()],
            is_nice: false,
        };
        load.with("--era", era)
    }

    /// Runs with the least priority, so that others do not have to wait for the processor because of it.
    pub(crate) fn nicely(self) -> Self {
        Self {
            is_nice: true,
            ..self
        }
    }

    pub(crate) fn with(mut self, option: &str, value: impl Display) -> Self {
        self.options.push(format!("{option}={value}"));
        self
    }

    pub(crate) fn with_switch(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Is measured for this time, after a warm-up.
    pub(crate) fn lasting(self, time: Duration, warm_up: Duration) -> Self {
        self.with("--duration", time.as_secs_f64())
            .with("--warm-up", warm_up.as_secs_f64())
    }

    /// Runs it to its end. It fails if a request does.
    pub(crate) fn run(&self, target: &Target) -> Result<Report, String> {
        self.start(target)?.report()
    }

    /// Runs it on both in turn. Returns the reports, and how many times each latency of the first one that of the second one
    /// is, as the median over the rounds.
    pub(crate) fn run_versus(&self, first: &Target, second: &Target) -> Result<Versus, String> {
        let both = self.clone().with("--versus", second.as_word());
        let Report(mut report) = both.run(first)?;
        let ratio = report["ratio"].take();
        let targets = [report["targets"][0].take(), report["targets"][1].take()];
        Ok(Versus {
            reports: targets.map(Report),
            ratio,
        })
    }

    pub(crate) fn start(&self, target: &Target) -> Result<Generator, String> {
        Generator::spawn(self.command(target).stderr(Stdio::piped()))
    }

    fn command(&self, target: &Target) -> Command {
        let mut command = Command::new("nice");
        let niceness = if self.is_nice { "19" } else { "0" };
        command.args(["-n", niceness, PROXY, "bench"]);
        command.args(&self.options).arg(target.as_word());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// Opens this many sessions, and has them idle until the end. Returns when all are open.
    pub(crate) fn hold(self, target: &Target, sessions: usize) -> Result<Generator, String> {
        let load = self
            .with("--sessions", sessions)
            // The first request is sent at once, and the second one after more time than any trial takes.
            .with("--rate", 2.0 / LONGEST_HOLD.as_secs_f64())
            .lasting(LONGEST_HOLD, Duration::ZERO);
        // Who watches it on a terminal is told when it begins to measure, which is when all sessions are open.
        let (terminal, stderr) = terminal();
        let mut generator = Generator::spawn(load.command(target).stderr(stderr))?;
        let terminal = generator.terminal.insert(terminal);
        let begin = Instant::now();
        while !terminal.read().contains(MEASURING) {
            if !matches!(generator.child.try_wait(), Ok(None)) {
                return Err("the load has ended before all sessions were open".to_owned());
            }
            if begin.elapsed() > OPENING_LIMIT {
                return Err("the sessions are not opened in time".to_owned());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(generator)
    }
}

/// What is shown of each second of the measurement.
const MEASURING: &str = " requests in the last one";

/// Sessions are not held for longer.
const LONGEST_HOLD: Duration = Duration::from_mins(15);

/// Interpreters by the hundred take their time to start.
const OPENING_LIMIT: Duration = Duration::from_mins(3);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A load under way. Dropping it ends it.
pub(crate) struct Generator {
    child: Child,
    /// The terminal that it has, if it has one.
    terminal: Option<LogStream>,
}

impl Generator {
    fn spawn(command: &mut Command) -> Result<Self, String> {
        let child = command.spawn().map_err(|error| error.to_string())?;
        Ok(Self {
            child,
            terminal: None,
        })
    }

    /// Has it end now, and say what there is.
    pub(crate) fn finish(self) -> Result<Report, String> {
        processes::send_signal(self.child.id().cast_signed(), Signal::SIGINT);
        self.report()
    }

    /// Waits for its end.
    pub(crate) fn report(mut self) -> Result<Report, String> {
        let (mut text, mut troubles) = (String::new(), String::new());
        // What it says on stderr is short, so it can wait.
        let outcome = [
            self.child
                .stdout
                .take()
                .map(|mut out| out.read_to_string(&mut text)),
            self.child
                .stderr
                .take()
                .map(|mut out| out.read_to_string(&mut troubles)),
        ];
        for result in outcome.into_iter().flatten() {
            result.map_err(|error| error.to_string())?;
        }
        let status = self.child.wait().map_err(|error| error.to_string())?;
        let report: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.success() && report.is_object() {
            return Ok(Report(report));
        }
        let errors = &report["errors"];
        Err(format!("bench: {status}; {} {errors}", troubles.trim()))
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Fails only if it has ended just now.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What was measured of one target.
pub(crate) struct Report(Value);

impl Report {
    /// A percentile of the latency by its name, `mean` or `max`, in µs; `None` if there are too few samples for it.
    pub(crate) fn latency(&self, name: &str) -> Option<f64> {
        self.0["latency_us"][name].as_f64()
    }

    /// The same of the time to a session's first response.
    pub(crate) fn first_response(&self, name: &str) -> Option<f64> {
        self.0["open"]["first_response_us"][name].as_f64()
    }

    /// How long it took to open all sessions.
    pub(crate) fn opening(&self) -> Duration {
        let seconds = self.0["open"]["seconds"].as_f64();
        Duration::from_secs_f64(seconds.unwrap_or_default())
    }

    pub(crate) fn requests_per_second(&self) -> Option<f64> {
        self.0["requests_per_second"].as_f64()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.0["requests"].as_u64().unwrap_or_default()
    }

    /// Requests and responses together, in MB.
    pub(crate) fn megabytes_per_second(&self) -> Option<f64> {
        Some(self.0["bytes_per_second"].as_f64()? / 1e6)
    }
}

/// Two targets that were measured in turn.
pub(crate) struct Versus {
    pub(crate) reports: [Report; 2],
    ratio: Value,
}

impl Versus {
    /// The second one's figure divided by the first one's: the median over all rounds, the least, and the most.
    pub(crate) fn ratio(&self, figure: &str) -> Option<[f64; 3]> {
        let of = |name| self.ratio[figure][name].as_f64();
        Some([of("median")?, of("min")?, of("max")?])
    }
}
