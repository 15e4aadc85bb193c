//! The proxy under test as a process: started, listened to on stderr, signalled, and ended with the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{self, Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::client::Client;
use super::processes::{self, Process};
use super::{DEADLINE, eventually, eventually_some};

/// What a proxy gets to end all in good order, at a test's end, before it is told a second time: what is still under way
/// then is of no interest to anyone.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);

/// What it gets altogether.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(12);

/// How many of the last log lines a failing test prints.
const LOG_TAIL_LINES: usize = 60;

/// Options that come first, so that a test's own override them.
const ON_A_FREE_PORT: [&str; 4] = ["--host", "127.0.0.1", "--port", "0"];

/// Has the proxy leave open what tests read of it in `/proc`, also when they do not run as root.
const TRACEABLE: &str = "--traceable";

/// A running proxy under test; it is ended when this is dropped, and its log printed if the test failed.
pub(crate) struct Proxy {
    child: Child,
    address: SocketAddr,
    log: Arc<Log>,
}

impl Proxy {
    /// Starts the proxy on a free port of the loopback address, in front of `server`, and waits until it listens.
    ///
    /// `options` come before the command; later ones override the test's own `--host` and `--port`.
    pub(crate) fn start(options: &[&str], server: &[String]) -> Self {
        Self::start_configured(options, server, |_| {})
    }

    /// Like [`start`](Self::start); `configure` has the last word on environment, working directory and the like.
    pub(crate) fn start_configured(
        options: &[&str],
        server: &[String],
        configure: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = command_under_test();
        command.args(first_options());
        command.args(options).arg("--").args(server);
        configure(&mut command);
        Self::spawn(command)
    }

    /// Like [`start_configured`](Self::start_configured), where the options say where it listens, and `configure` has
    /// the last word on stdin and stdout, too.
    pub(crate) fn start_listening(
        options: &[&str],
        server: &[String],
        configure: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = command_under_test();
        command.arg(TRACEABLE).args(options).arg("--").args(server);
        plug(&mut command);
        configure(&mut command);
        Self::spawn_plugged(command)
    }

    /// Starts the proxy by options alone, which say what is served.
    pub(crate) fn start_with_config(
        options: &[&str],
        configure: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = command_under_test();
        command.arg(TRACEABLE).args(options);
        plug(&mut command);
        configure(&mut command);
        Self::spawn_plugged(command)
    }

    /// Like [`start`](Self::start), but without the `--` before the command.
    pub(crate) fn start_with_words(options: &[&str], server: &[String]) -> Self {
        let mut command = command_under_test();
        command.args(first_options()).args(options).args(server);
        Self::spawn(command)
    }

    /// Like [`start`](Self::start), with the proxy's command as the last words of another one, which has to replace
    /// itself by the proxy.
    pub(crate) fn start_under(wrapper: &[&str], options: &[&str], server: &[String]) -> Self {
        let proxy = command_under_test();
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]);
        command.arg(proxy.get_program()).args(proxy.get_args());
        command.args(first_options()).args(options);
        command.arg("--").args(server);
        Self::spawn(command)
    }

    /// Starts a proxy by this command, in which everything is said.
    pub(crate) fn start_as_it_is(command: Command) -> Self {
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        plug(&mut command);
        Self::spawn_plugged(command)
    }

    fn spawn_plugged(mut command: Command) -> Self {
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));

        let log = Arc::new(Log::default());
        Log::collect(&log, child.stderr.take().unwrap());
        let mut proxy = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
        };
        let line = proxy.wait_for_log("listening on ");
        // A unix socket has none.
        proxy.address.set_port(port_in(&line).unwrap_or(0));
        proxy
    }

    /// Like [`start`](Self::start), in a shell that runs `preamble` before it becomes the proxy: for limits that the
    /// test process must not have itself.
    pub(crate) fn start_after(preamble: &str, options: &[&str], server: &[String]) -> Self {
        Self::start_configured(options, server, |command| in_shell(preamble, command))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new client's connection.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        processes::send_signal(self.pid(), signal);
    }

    /// Sends a signal again and again until the proxy ends: one that comes right after the first stop signal counts as
    /// the same.
    #[track_caller]
    pub(crate) fn signal_until_exit(&mut self, signal: Signal, deadline: Duration) -> ExitStatus {
        eventually_some("the end after a second signal", deadline, || {
            let status = self.child.try_wait().unwrap();
            if status.is_none() {
                self.signal(signal);
            }
            status
        })
    }

    /// Waits for the proxy's own end.
    pub(crate) fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        eventually_some("the proxy's exit", deadline, || {
            self.child.try_wait().unwrap()
        })
    }

    /// Waits for a log line that contains `text`, from the start of the log on, and returns it.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_logs(text, 1).remove(0)
    }

    /// Waits until that many log lines contain `text`, from the start of the log on, and returns them.
    #[track_caller]
    pub(crate) fn wait_for_logs(&self, text: &str, count: usize) -> Vec<String> {
        self.log.wait_for(text, count, DEADLINE)
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The processes it has, grandchildren and zombies too.
    pub(crate) fn descendants(&self) -> Vec<Process> {
        processes::descendants(self.pid())
    }

    /// The servers that it started itself and that still run, in the order of their ids.
    pub(crate) fn servers(&self) -> Vec<i32> {
        let mut servers = processes::children(self.pid());
        servers.retain(|process| !process.is_zombie());
        servers.sort_by_key(|process| process.pid);
        servers.iter().map(|process| process.pid).collect()
    }

    /// The server that each session has been given last, by the client's address.
    pub(crate) fn servers_by_client(&self) -> HashMap<SocketAddr, i32> {
        let started = |line: String| {
            let label = line
                .strip_suffix("] opened")
                .or_else(|| line.strip_suffix("] goes on with a new server"));
            let (_, label) = label?.split_once("[session ")?;
            let (_, label) = label.split_once(' ')?;
            let (client, pid) = label.split_once(" pid ")?;
            Some((client.parse().ok()?, pid.parse().ok()?))
        };
        self.log().into_iter().filter_map(started).collect()
    }

    /// Waits until it has exactly one server, and returns that one's id.
    #[track_caller]
    pub(crate) fn only_server(&self) -> i32 {
        eventually_some(
            "one server process",
            DEADLINE,
            || match self.servers()[..] {
                [pid] => Some(pid),
                _ => None,
            },
        )
    }

    /// Waits until it has no process left, not even a zombie.
    #[track_caller]
    pub(crate) fn wait_until_childless(&self) {
        eventually("the proxy to have no process left", DEADLINE, || {
            self.descendants().is_empty()
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGTERM);
            let start = Instant::now();
            let mut is_told_again = false;
            while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < SHUTDOWN_GRACE {
                if !is_told_again && start.elapsed() > SHUTDOWN_PATIENCE {
                    self.signal(Signal::SIGTERM);
                    is_told_again = true;
                }
                thread::sleep(super::POLL_INTERVAL);
            }
            // A proxy that fails its test may leave servers that nobody else ends.
            let left = if matches!(self.child.try_wait(), Ok(None)) {
                self.descendants()
            } else {
                Vec::new()
            };
            // Both fail only when it has gone after all.
            let _ = self.child.kill();
            let _ = self.child.wait();
            for process in left {
                processes::send_signal(process.pid, Signal::SIGKILL);
            }
        }
        if thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log.tail());
        }
    }
}

/// The words of the command that runs another proxy than ours, if that is under test.
fn other_command() -> Option<Vec<String>> {
    match std::env::var("MCP_TCP_PROXY_COMMAND") {
        Ok(line) if !line.trim().is_empty() => {
            Some(line.split_whitespace().map(str::to_owned).collect())
        }
        _ => super::reference().map(|script| vec!["python3".to_owned(), script]),
    }
}

/// What comes before a test's own options.
fn first_options() -> Vec<&'static str> {
    let mut options = ON_A_FREE_PORT.to_vec();
    if other_command().is_none() {
        options.push(TRACEABLE);
    }
    options
}

/// Has the proxy hide what it does by default.
pub(crate) fn untraceable(command: &mut Command) {
    let mut other = Command::new(command.get_program());
    other.args(command.get_args().filter(|word| *word != TRACEABLE));
    *command = other;
}

/// The command that runs the proxy under test, without arguments.
pub(crate) fn command_under_test() -> Command {
    let own = || vec![env!("CARGO_BIN_EXE_mcp-tcp-proxy").to_owned()];
    let words = other_command().unwrap_or_else(own);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// Has a shell run `preamble`, and then become what `command` was.
pub(crate) fn in_shell(preamble: &str, command: &mut Command) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{preamble} && exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    plug(&mut shell);
    *command = shell;
}

/// The proxy reads nothing, prints nothing, and its stderr is read.
fn plug(command: &mut Command) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
}

/// Has a command run as a user of its own, whose number nobody else has, and who may have that many processes.
pub(crate) fn as_another_user(command: &mut Command, processes: usize) {
    // Not every shell has an option for processes by that name.
    in_shell(
        &format!("{{ ulimit -u {processes} || ulimit -p {processes}; }} 2>/dev/null"),
        command,
    );
    let number = 20_000 + process::id() % 40_000;
    command.uid(number).gid(number).current_dir("/");
}

/// Whether the proxy can be run by [`as_another_user`]; says so if not.
pub(crate) fn can_run_as_another_user() -> bool {
    let mut probe = Command::new(env!("CARGO_BIN_EXE_mcp-tcp-proxy"));
    probe.arg("--version");
    as_another_user(&mut probe, 2);
    let may_run = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let can = may_run.is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: only root can run the proxy as a user with a limit of its own");
    }
    can
}

/// The port in a line that ends in `ADDRESS:PORT`, possibly with more words behind.
fn port_in(line: &str) -> Option<u16> {
    let port = line.rsplit(':').next().unwrap();
    let digits = port.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().ok()
}

/// The stderr of a program under test, line by line.
#[derive(Default)]
pub(crate) struct Log {
    state: Mutex<LogState>,
    changed: Condvar,
}

#[derive(Default)]
struct LogState {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    /// Reads the pipe to its end, on a thread of its own.
    pub(crate) fn collect(log: &Arc<Self>, pipe: ChildStderr) {
        let log = Arc::clone(log);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                log.state.lock().unwrap().lines.push(line);
                log.changed.notify_all();
            }
            log.end();
        });
    }

    /// Nothing more will be logged.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap().ended = true;
        self.changed.notify_all();
    }

    /// What was logged so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.state.lock().unwrap().lines.clone()
    }

    /// All that was logged, once it has ended.
    #[track_caller]
    pub(crate) fn to_end(&self, deadline: Duration) -> Vec<String> {
        eventually("the end of the log", deadline, || {
            self.state.lock().unwrap().ended
        });
        self.lines()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str, count: usize, deadline: Duration) -> Vec<String> {
        let start = Instant::now();
        let mut found = Vec::new();
        let mut seen = 0;
        let mut state = self.state.lock().unwrap();
        loop {
            found.extend(
                state.lines[seen..]
                    .iter()
                    .filter(|line| line.contains(text))
                    .cloned(),
            );
            seen = state.lines.len();
            if found.len() >= count {
                return found;
            }
            let left = deadline.saturating_sub(start.elapsed());
            if state.ended || left.is_zero() {
                let why = if state.ended {
                    "the log ended"
                } else {
                    "the deadline passed"
                };
                // Whoever panics with the lock held would keep `tail` from printing.
                drop(state);
                panic!(
                    "{why}, and {} of {count} log lines contain {text:?}:\n{}",
                    found.len(),
                    self.tail()
                );
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    pub(crate) fn tail(&self) -> String {
        let state = self.state.lock().unwrap();
        let left_out = state.lines.len().saturating_sub(LOG_TAIL_LINES);
        let mut tail = format!("({left_out} lines before)\n");
        tail.push_str(&state.lines[left_out..].join("\n"));
        tail
    }
}
