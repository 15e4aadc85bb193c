//! The options of `connect`, the stdio side.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use pico_args::Arguments;

use super::values::{attempts, host, message_bytes, port, seconds};
use super::{Table, UsageError, last, quoted};

/// The port if none is given.
const DEFAULT_PORT: u16 = 8080;

/// The options of [`super::Command::Connect`], each within its range.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectOptions {
    /// A host name or an IP address, without brackets; not resolved yet.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// 10 ms to one day.
    pub heartbeat_interval: Duration,
    /// Whether a lost connection is made again.
    pub reconnect: bool,
    /// The longest delay between two attempts: 10 ms to one day.
    pub reconnect_delay: Duration,
    /// Attempts in a row: 1 to 1,000,000. `None`: without end.
    pub max_reconnect_attempts: Option<u32>,
    /// How long an attempt may take: 10 ms to one day.
    pub connect_timeout: Duration,
    /// How long a new server may take to answer the replayed handshake: 10 ms to one day.
    pub replay_timeout: Duration,
    /// The longest line that passes, in bytes: 1 to 256 MiB.
    pub max_message_bytes: usize,
    /// Whether debug messages are logged.
    pub debug: bool,
}

/// Every option there is.
pub(super) const TABLE: Table = Table {
    flags: &[
        "--no-reconnect",
        "--debug",
        "-h",
        "--help",
        "-V",
        "--version",
    ],
    values: &[
        "--heartbeat-interval",
        "--reconnect-delay",
        "--max-reconnect-attempts",
        "--connect-timeout",
        "--replay-timeout",
        "--max-message-bytes",
    ],
};

/// What `connect --help` prints.
pub const CONNECT_HELP: &str = "\
Makes an MCP server that is served over TCP look like a local one: whoever starts this speaks to it
on stdio. A lost connection is made again; it ends when its stdin ends.

Usage:
  mcp-tcp-proxy connect [OPTIONS] HOST:PORT
  mcp-tcp-proxy connect [OPTIONS] HOST [PORT]

HOST is a name or an address, an IPv6 address with a port in brackets: [::1]:8080. The port is 8080
if none is given. If an option is given twice, the last one counts.

Options:
  --heartbeat-interval S      seconds between heartbeats to the other side, 0.01 to 86400
                              [default: 30; example: --heartbeat-interval 5]
  --reconnect-delay S         seconds between attempts to connect, 0.01 to 86400; the first is made
                              after 0.1, and the delay doubles up to this
                              [default: 2; example: --reconnect-delay 10]
  --max-reconnect-attempts N  attempts in a row, 0 to 1000000; 0 for no end
                              [default: 50; example: --max-reconnect-attempts 0]
  --no-reconnect              end when the connection is lost
  --connect-timeout S         seconds that an attempt may take, 0.01 to 86400
                              [default: 10; example: --connect-timeout 3]
  --replay-timeout S          seconds that the server has after a reconnect to answer the handshake
                              that is replayed to it, 0.01 to 86400
                              [default: 10; example: --replay-timeout 60]
  --max-message-bytes N       longest message in bytes, either way, 1 to 268435456
                              [default: 10485760; example: --max-message-bytes 1048576]
  --debug                     log every message, and more
  -h, --help                  print this help
  -V, --version               print the version

Exit codes: 0 stdin or stdout ended, or stopped by a signal; 1 no connection any more; 2 bad command
line
";

/// Reads the options, in two words each, and what is behind them.
pub(super) fn parse(
    words: Vec<OsString>,
    target: &[OsString],
) -> Result<ConnectOptions, UsageError> {
    let (host, port) = address(target)?;
    let mut args = Arguments::from_vec(words);
    Ok(ConnectOptions {
        host,
        port,
        heartbeat_interval: last(&mut args, "--heartbeat-interval", seconds)?
            .unwrap_or(Duration::from_secs(30)),
        reconnect: !args.contains("--no-reconnect"),
        reconnect_delay: last(&mut args, "--reconnect-delay", seconds)?
            .unwrap_or(Duration::from_secs(2)),
        max_reconnect_attempts: last(&mut args, "--max-reconnect-attempts", attempts)?
            .unwrap_or(Some(50)),
        connect_timeout: last(&mut args, "--connect-timeout", seconds)?
            .unwrap_or(Duration::from_secs(10)),
        replay_timeout: last(&mut args, "--replay-timeout", seconds)?
            .unwrap_or(Duration::from_secs(10)),
        max_message_bytes: last(&mut args, "--max-message-bytes", message_bytes)?
            .unwrap_or(10 * 1024 * 1024),
        debug: args.contains("--debug"),
    })
}

/// `HOST:PORT`, `HOST PORT`, `HOST`, with an IPv6 address in brackets where a port follows it directly.
fn address(words: &[OsString]) -> Result<(String, u16), UsageError> {
    let text = |word: &OsString| {
        word.to_str()
            .map(str::to_owned)
            .ok_or_else(|| UsageError(format!("connect: {} is not UTF-8", quoted(word))))
    };
    match words {
        [] => Err(UsageError(
            "connect: the address is missing (mcp-tcp-proxy connect HOST:PORT; see --help)".into(),
        )),
        [only] => {
            let only = text(only)?;
            let (host, port) = split_port(&only);
            checked(host, port)
        }
        [host, port] => checked(&text(host)?, Some(&text(port)?)),
        [_, _, more, ..] => Err(UsageError(format!(
            "connect: takes an address and nothing behind it, and {} is something (options go before the address)",
            quoted(more)
        ))),
    }
}

/// Cuts at the last colon, unless it is one inside an IPv6 address.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn checked(name: &str, number: Option<&str>) -> Result<(String, u16), UsageError> {
    let wrong = |value: &str, cause: String| {
        UsageError(format!(
            "connect: {} is not {cause}",
            quoted(OsStr::new(value))
        ))
    };
    let host = host(name).map_err(|cause| wrong(name, cause))?;
    let port = match number {
        None => DEFAULT_PORT,
        Some(number) => match port(number) {
            Ok(port) if port > 0 => port,
            _ => return Err(wrong(number, "a port to connect to (1 to 65535)".into())),
        },
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<(String, u16), String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        address(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses() {
        for (words, host, port) in [
            (&["example.org:9"][..], "example.org", 9),
            (&["example.org", "9"], "example.org", 9),
            (&["example.org"], "example.org", 8080),
            (&["[::1]:8081"], "::1", 8081),
            (&["[::1]"], "::1", 8080),
            (&["::1"], "::1", 8080),
            (&["::1", "7"], "::1", 7),
        ] {
            assert_eq!(read(words), Ok((host.to_owned(), port)), "{words:?}");
        }
    }

    #[test]
    fn what_is_no_address() {
        for (words, complaint) in [
            (&[][..], "the address is missing"),
            (&["host:99999"], "'99999' is not a port"),
            (&["host:0"], "'0' is not a port to connect to (1 to 65535)"),
            (&["host:"], "'' is not a port"),
            (&[":80"], "'' is not a host name"),
            (&["host", "80", "x"], "'x' is something"),
            (&["[host]:80"], "'[host]' is not a host name"),
        ] {
            assert!(
                read(words).unwrap_err().contains(complaint),
                "{words:?}: {:?}",
                read(words)
            );
        }
    }
}
