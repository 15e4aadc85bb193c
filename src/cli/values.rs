//! Readers of one value each. Their errors complete the sentence "'x' is not …".

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::entrance::{Name, Network};
use crate::logger::Format;
use crate::options::{Balancer, EraChoice, Target, Value, Variable};
use crate::session::Spawn;
use crate::session::stderr::ServerLogging;
use crate::transport::address::Address;
use crate::transport::tls::client;

pub(super) fn host(value: &str) -> Result<String, String> {
    let bracketed = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let name = bracketed.unwrap_or(value);
    let must_be_ipv6 = bracketed.is_some() || name.contains(':');
    if must_be_ipv6 && !is_ipv6(name) {
        return Err("a host name or an address (the port has an option of its own: --port)".into());
    }
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '[') {
        return Err("a host name or an address (0.0.0.0 or :: for all of this host's)".into());
    }
    Ok(name.to_owned())
}

/// A link-local address may name its interface after a `%`.
fn is_ipv6(name: &str) -> bool {
    let address = name.split_once('%').map_or(name, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

pub(super) fn port(value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| "a port (0 to 65535)".to_owned())
}

pub(super) fn some_host(value: &str) -> Result<Option<String>, String> {
    host(value).map(Some)
}

pub(super) fn some_port(value: &str) -> Result<Option<u16>, String> {
    port(value).map(Some)
}

pub(super) fn unix_mode(value: &str) -> Result<u32, String> {
    let is_octal = value.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(value, 8).ok();
    mode.filter(|mode| is_octal && *mode <= 0o777)
        .ok_or_else(|| "a mode in octal (0 to 0777)".to_owned())
}

pub(super) fn network(value: &str) -> Result<Network, String> {
    Network::parse(value)
}

pub(super) fn balancer(value: &str) -> Result<Balancer, String> {
    if value == "unix" {
        return Ok(Balancer::Unix);
    }
    Network::parse(value)
        .map(Balancer::Network)
        .map_err(|error| format!("unix, or {error}"))
}

pub(super) fn some_path(value: &str) -> Result<Option<PathBuf>, String> {
    if value.is_empty() {
        return Err("the path of a file".to_owned());
    }
    Ok(Some(value.into()))
}

pub(super) fn seconds(value: &str) -> Result<Duration, String> {
    match value.parse::<f64>() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds (0.01 to 86400)".to_owned()),
    }
}

pub(super) fn seconds_or_none(value: &str) -> Result<Duration, String> {
    seconds_or_off(value)
        .map(Option::unwrap_or_default)
        .map_err(|_| "a number of seconds (0.01 to 86400, or 0)".to_owned())
}

pub(super) fn some_address(value: &str) -> Result<Option<Address>, String> {
    super::address::listen(value).map(Some)
}

/// A name by which a web page may not lead to us.
pub(super) fn host_name(value: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if value.is_empty() || !value.chars().all(is_name) {
        return Err("a host name (without a port)".to_owned());
    }
    Ok(value.to_owned())
}

/// 0 is off.
pub(super) fn seconds_or_off(value: &str) -> Result<Option<Duration>, String> {
    if value.parse() == Ok(0.0) {
        return Ok(None);
    }
    seconds(value)
        .map(Some)
        .map_err(|_| "a number of seconds (0.01 to 86400, or 0 for off)".to_owned())
}

pub(super) fn spawn(value: &str) -> Result<Spawn, String> {
    match value {
        "eager" => Ok(Spawn::Eager),
        "lazy" => Ok(Spawn::Lazy),
        _ => Err("a start mode (eager or lazy)".to_owned()),
    }
}

#[allow(clippy::option_option, reason = "not given is not the same as never")]
pub(super) fn first_message(value: &str) -> Result<Option<Option<Duration>>, String> {
    seconds_or_off(value).map(Some)
}

pub(super) fn log_level(value: &str) -> Result<LevelFilter, String> {
    match value {
        "error" => Ok(LevelFilter::Error),
        "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        "trace" => Ok(LevelFilter::Trace),
        _ => Err("a level (error, warn, info, debug or trace)".to_owned()),
    }
}

pub(super) fn log_format(value: &str) -> Result<Format, String> {
    match value {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("a format (text or json)".to_owned()),
    }
}

pub(super) fn server_log(value: &str) -> Result<ServerLogging, String> {
    match value {
        "all" => Ok(ServerLogging::All),
        "limited" => Ok(ServerLogging::Limited),
        "none" => Ok(ServerLogging::None),
        _ => Err("what to log of servers (all, limited or none)".to_owned()),
    }
}

pub(super) fn message_bytes(value: &str) -> Result<usize, String> {
    whole(value, "bytes", 1..=256 * 1024 * 1024)
}

pub(super) fn buffer_bytes(value: &str) -> Result<Option<usize>, String> {
    let bytes: u64 = whole(value, "bytes", 1..=1 << 40)?;
    Ok(Some(usize::try_from(bytes).unwrap_or(usize::MAX)))
}

pub(super) fn restarts(value: &str) -> Result<u32, String> {
    whole(value, "restarts", 0..=1_000_000)
}

pub(super) fn sessions(value: &str) -> Result<Option<usize>, String> {
    whole(value, "sessions", 1..=1_000_000).map(Some)
}

pub(super) fn starting(value: &str) -> Result<usize, String> {
    whole(value, "servers", 1..=100_000)
}

pub(super) fn prespawn(value: &str) -> Result<usize, String> {
    whole(value, "servers", 0..=1000)
}

/// A host name or an address.
pub(super) fn tls_name(value: &str) -> Result<Option<String>, String> {
    match client::server_name(value) {
        Ok(_) => Ok(Some(value.to_owned())),
        Err(_) => Err("whom a certificate can be for (a host name or an address)".to_owned()),
    }
}

/// The name of a server.
pub(super) fn some_name(value: &str) -> Result<Option<Name>, String> {
    Name::new(value)
        .map(Some)
        .ok_or_else(|| "the name of a server (1 to 64 of letters, digits and ._@:-)".to_owned())
}

pub(super) fn share(value: &str) -> Result<u16, String> {
    whole(value, "processes", 0..=1000)
}

pub(super) fn share_in_flight(value: &str) -> Result<u16, String> {
    whole(value, "requests", 1..=1024)
}

/// 0 is for no limit.
pub(super) fn share_max_requests(value: &str) -> Result<Option<u64>, String> {
    whole(value, "requests", 0..=1_000_000_000)
        .map(|number| Some(number).filter(|number| *number > 0))
}

/// Attempts in a row; 0 is for no limit.
pub(super) fn attempts(value: &str) -> Result<Option<u32>, String> {
    whole(value, "attempts", 0..=1_000_000).map(|number| Some(number).filter(|number| *number > 0))
}

pub(super) fn variable(value: &str) -> Result<Variable, String> {
    let (name, value) = match value.split_once('=') {
        Some((name, value)) => (name, Value::Given(value.into())),
        None => (value, Value::Inherited),
    };
    if name.is_empty() {
        return Err("a variable (NAME=VALUE or NAME)".to_owned());
    }
    let name = name.into();
    Ok(Variable { name, value })
}

pub(super) fn file(value: &str) -> Result<PathBuf, String> {
    path(value, "a file (an empty word)")
}

pub(super) fn directory(value: &str) -> Result<Option<PathBuf>, String> {
    path(value, "a directory (an empty word)").map(Some)
}

fn path(value: &str, what: &str) -> Result<PathBuf, String> {
    if value.is_empty() {
        return Err(what.to_owned());
    }
    Ok(value.into())
}

pub(super) fn user(value: &str) -> Result<Option<String>, String> {
    if value.split(':').any(str::is_empty) || value.split(':').count() > 2 {
        return Err("a user (NAME or NAME:GROUP)".to_owned());
    }
    Ok(Some(value.to_owned()))
}

fn whole<T>(value: &str, of_what: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + fmt::Display,
{
    value
        .parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            format!(
                "a whole number of {of_what} ({} to {})",
                range.start(),
                range.end()
            )
        })
}

/// What to measure.
pub(super) fn bench_target(value: &str) -> Result<Option<Target>, String> {
    super::bench::target(value).map(Some)
}

pub(super) fn bench_sessions(value: &str) -> Result<usize, String> {
    whole(value, "sessions", 1..=100_000)
}

pub(super) fn in_flight(value: &str) -> Result<Option<usize>, String> {
    whole(value, "requests", 1..=1024).map(Some)
}

pub(super) fn bench_requests(value: &str) -> Result<Option<u64>, String> {
    whole(value, "requests", 1..=1_000_000_000_000).map(Some)
}

pub(super) fn some_seconds(value: &str) -> Result<Option<Duration>, String> {
    seconds(value).map(Some)
}

pub(super) fn rounds(value: &str) -> Result<Option<u32>, String> {
    whole(value, "rounds", 1..=100).map(Some)
}

pub(super) fn rate(value: &str) -> Result<Option<f64>, String> {
    let rate = value.parse().ok();
    rate.filter(|rate| (0.001..=10_000_000.0).contains(rate))
        .map(Some)
        .ok_or_else(|| "a number of requests a second (0.001 to 10000000)".to_owned())
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "readers of values may refuse them; any text will do here"
)]
pub(super) fn some_text(value: &str) -> Result<Option<String>, String> {
    Ok(Some(value.to_owned()))
}

pub(super) fn payload(value: &str) -> Result<Option<usize>, String> {
    message_bytes(value).map(Some)
}

pub(super) fn era(value: &str) -> Result<EraChoice, String> {
    match value {
        "auto" => Ok(EraChoice::Auto),
        "legacy" => Ok(EraChoice::Legacy),
        "modern" => Ok(EraChoice::Modern),
        _ => Err("an era (auto, legacy or modern)".to_owned()),
    }
}
