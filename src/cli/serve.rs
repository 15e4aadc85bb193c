//! The options of the serving side.

use std::ffi::OsString;
use std::time::Duration;

use pico_args::Arguments;

use super::values::{
    host, message_bytes, port, prespawn, restarts, seconds, seconds_or_off, sessions, spawn,
    starting,
};
use super::{Table, UsageError, last, quoted};
use crate::session::Spawn;

/// The options of [`Command::Serve`], each within its range.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeOptions {
    /// A host name or an IP address, without brackets; not resolved yet.
    pub host: String,
    /// The TCP port; 0 picks a free one.
    pub port: u16,
    /// 10 ms to one day.
    pub heartbeat_interval: Duration,
    /// Whether a server that died is started again.
    pub auto_restart: bool,
    /// Whether debug messages are logged.
    pub debug: bool,
    /// The longest line that passes, in bytes: 1 to 256 MiB.
    pub max_message_bytes: usize,
    /// Restarts of one session within its window: 0 to 1,000,000.
    pub max_restarts: u32,
    /// Sessions at a time: 1 to 1,000,000. `None`: as many as the limit on open files allows.
    pub max_sessions: Option<usize>,
    /// How long a restarted server may take to answer the replayed handshake: 10 ms to one day.
    pub replay_timeout: Duration,
    /// When a session's server is started.
    pub spawn: Spawn,
    /// How long a client may take to send its first message: 10 ms to one day, or `None` for ever.
    pub first_message_timeout: Option<Duration>,
    /// How long a session may be idle: 10 ms to one day, or `None` for ever.
    pub idle_timeout: Option<Duration>,
    /// Servers that may be starting up at a time: 1 to 100,000.
    pub max_starting: usize,
    /// Servers that wait for sessions: 0 to 1,000.
    pub prespawn: usize,
    /// What is served.
    pub server: ServerCommand,
}

/// What each session runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerCommand {
    /// This very program, as its `demo-server`.
    Demo,
    /// A program and its arguments, as the user wrote them. There is at least one word.
    Program(Vec<OsString>),
}

/// Every option there is.
pub(super) const TABLE: Table = Table {
    flags: &[
        "--auto-restart",
        "--no-auto-restart",
        "--debug",
        "--demo",
        "-h",
        "--help",
        "-V",
        "--version",
    ],
    values: &[
        "--host",
        "--port",
        "--heartbeat-interval",
        "--max-restarts",
        "--replay-timeout",
        "--max-message-bytes",
        "--max-sessions",
        "--spawn",
        "--first-message-timeout",
        "--idle-timeout",
        "--max-starting",
        "--prespawn",
    ],
};

/// What `--help` prints.
pub const HELP: &str = "\
Serves any MCP server that speaks stdio over TCP: each connection gets a server process of its own,
and the session outlives crashes of that process.

Usage:
  mcp-tcp-proxy [OPTIONS] [--] COMMAND...   serve the MCP server that COMMAND starts
  mcp-tcp-proxy [OPTIONS] --demo            serve the built-in demo MCP server
  mcp-tcp-proxy demo-server                 be the demo MCP server, on stdio

The options end at the first word that is none, or at '--'; the rest is COMMAND, untouched. If an
option is given twice, the last one counts.

Options:
  --host HOST              host name or address to listen on, as '::' or localhost
                           [default: 0.0.0.0; example: --host 127.0.0.1]
  --port PORT              TCP port, 0 to 65535; 0 picks a free one, which the log names
                           [default: 8080; example: --port 9000]
  --heartbeat-interval S   seconds between heartbeats to clients that use them, 0.01 to 86400
                           [default: 30; example: --heartbeat-interval 2.5]
  --auto-restart           start a server that died again [default]
  --no-auto-restart        close the session instead
  --max-restarts N         restarts of a session within max(60, 6 x N) seconds, 0 to 1000000
                           [default: 5; example: --max-restarts 20]
  --replay-timeout S       seconds that a restarted server has to answer the handshake that is
                           replayed to it, 0.01 to 86400
                           [default: 10; example: --replay-timeout 60]
  --max-message-bytes N    longest message in bytes, either way, 1 to 268435456
                           [default: 10485760; example: --max-message-bytes 1048576]
  --max-sessions N         sessions at a time, 1 to 1000000
                           [default: from the limit on open files; example: --max-sessions 100]
  --spawn eager|lazy       start a session's server at once, or when its first message comes
                           [default: eager; example: --spawn lazy]
  --first-message-timeout S
                           seconds in which a client must send its first message, 0.01 to 86400, or
                           0 for no end [default: 0; example: --first-message-timeout 30]
  --idle-timeout S         seconds without a message either way and none to be answered after which
                           a session is closed, 0.01 to 86400, or 0 for no end
                           [default: 0; example: --idle-timeout 3600]
  --max-starting N         servers that may be starting up at a time, 1 to 100000; one counts until
                           it writes something, or for a second
                           [default: 32; example: --max-starting 4]
  --prespawn N             servers that are started ahead of time and wait for sessions, 0 to 1000
                           [default: 0; example: --prespawn 2]
  --demo                   serve the built-in demo MCP server; takes the place of COMMAND
  --debug                  log debug messages, too
  -h, --help               print this help
  -V, --version            print the version

Examples:
  mcp-tcp-proxy --port 9000 python3 my_server.py --verbose
  mcp-tcp-proxy --demo --host 127.0.0.1 --debug

Exit codes: 0 stopped by a signal, or help or version printed; 1 could not start; 2 bad command line
";

/// Reads the words in front of the server's command.
pub(super) fn parse(
    words: Vec<OsString>,
    command: Vec<OsString>,
) -> Result<ServeOptions, UsageError> {
    let auto_restart = auto_restart(&words);
    let mut args = Arguments::from_vec(words);
    Ok(ServeOptions {
        host: last(&mut args, "--host", host)?.unwrap_or_else(|| "0.0.0.0".to_owned()),
        port: last(&mut args, "--port", port)?.unwrap_or(8080),
        heartbeat_interval: last(&mut args, "--heartbeat-interval", seconds)?
            .unwrap_or(Duration::from_secs(30)),
        auto_restart,
        debug: args.contains("--debug"),
        max_message_bytes: last(&mut args, "--max-message-bytes", message_bytes)?
            .unwrap_or(10 * 1024 * 1024),
        max_restarts: last(&mut args, "--max-restarts", restarts)?.unwrap_or(5),
        max_sessions: last(&mut args, "--max-sessions", sessions)?,
        replay_timeout: last(&mut args, "--replay-timeout", seconds)?
            .unwrap_or(Duration::from_secs(10)),
        spawn: last(&mut args, "--spawn", spawn)?.unwrap_or(Spawn::Eager),
        first_message_timeout: last(&mut args, "--first-message-timeout", seconds_or_off)?
            .flatten(),
        max_starting: last(&mut args, "--max-starting", starting)?.unwrap_or(32),
        prespawn: last(&mut args, "--prespawn", prespawn)?.unwrap_or(0),
        idle_timeout: last(&mut args, "--idle-timeout", seconds_or_off)?.flatten(),
        server: server(args.contains("--demo"), command)?,
    })
}

/// `pico-args` can't say which of two flags came last.
fn auto_restart(words: &[OsString]) -> bool {
    let last = words
        .iter()
        .rfind(|word| *word == "--auto-restart" || *word == "--no-auto-restart");
    last.is_none_or(|word| word == "--auto-restart")
}

fn server(demo: bool, command: Vec<OsString>) -> Result<ServerCommand, UsageError> {
    match (demo, command.first()) {
        (true, None) => Ok(ServerCommand::Demo),
        (false, Some(_)) => Ok(ServerCommand::Program(command)),
        (true, Some(word)) => Err(UsageError(format!(
            "--demo: takes the place of a command, and {} starts one (leave out one of the two)",
            quoted(word)
        ))),
        (false, None) => Err(UsageError(
            "no command to serve (mcp-tcp-proxy [OPTIONS] [--] COMMAND..., or mcp-tcp-proxy --demo \
             for the built-in server; see --help)"
                .to_owned(),
        )),
    }
}
