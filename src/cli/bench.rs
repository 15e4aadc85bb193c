//! The command line of `bench`: a target, with options before or after it; or options, and a command after `--`.

use std::ffi::OsString;

use super::flag::Mode;
use super::words::Words;
use super::{Command, UsageError, address, information, quoted, tls};
use crate::options::{BenchOptions, EXEC_PREFIX, Target};
use crate::transport::address::Address;

/// What a target looks like.
const FORMS: &str = "HOST:PORT, [::1]:8080, unix:PATH or exec:'COMMAND LINE'";

pub(super) fn parse(args: Vec<OsString>) -> Result<Command, UsageError> {
    let (before, command) = split_at_dashes(args);
    let words = Words::anywhere(before, Mode::Bench);
    if let Some(answer) = information(&words.options, Mode::Bench) {
        return Ok(answer);
    }
    let mut options = BenchOptions::default();
    words.read_into(&mut options)?;
    options.target = chosen(&words.rest, command)?;
    check(&options)?;
    Ok(Command::Bench(Box::new(options)))
}

fn split_at_dashes(mut args: Vec<OsString>) -> (Vec<OsString>, Option<Vec<OsString>>) {
    let Some(at) = args.iter().position(|word| word == "--") else {
        return (args, None);
    };
    let command = args.split_off(at).split_off(1);
    (args, Some(command))
}

fn chosen(words: &[OsString], command: Option<Vec<OsString>>) -> Result<Target, UsageError> {
    match (words, command) {
        ([], Some(command)) if !command.is_empty() => Ok(Target::Command(command)),
        ([], _) => Err(UsageError(format!(
            "bench: the target is missing ({FORMS}, or -- COMMAND...; see mcp-tcp-proxy bench --help)"
        ))),
        ([only], None) => {
            let text = only.to_str();
            let text =
                text.ok_or_else(|| UsageError(format!("bench: {} is not UTF-8", quoted(only))))?;
            target(text)
                .map_err(|cause| UsageError(format!("bench: {} is not {cause}", quoted(only))))
        }
        ([_, more, ..], _) => Err(UsageError(format!(
            "bench: takes one target, and {} is a word too many (the options of a command go after --)",
            quoted(more)
        ))),
        ([only], Some(_)) => Err(UsageError(format!(
            "bench: {} is a target, and so is the command after -- (--versus TARGET compares two)",
            quoted(only)
        ))),
    }
}

/// Reads a target. The error completes "'x' is not …".
pub(super) fn target(text: &str) -> Result<Target, String> {
    if let Some(line) = text.strip_prefix(EXEC_PREFIX) {
        let words = shlex::split(line).filter(|words| !words.is_empty());
        let words = words.ok_or("a command line (a quotation mark is missing, or it is empty)")?;
        return Ok(Target::Command(
            words.into_iter().map(OsString::from).collect(),
        ));
    }
    match address::listen(text) {
        Ok(Address::Tcp { port: 0, .. }) => Err("a port to connect to (1 to 65535)".to_owned()),
        Ok(address) => Ok(Target::Address(address)),
        Err(_) => Err(format!("a target ({FORMS})")),
    }
}

/// One option, and whether it was given.
type Given = (&'static str, bool);

/// Which options go with which.
fn check(options: &BenchOptions) -> Result<(), UsageError> {
    let tool = ("--tool", options.tool.is_some());
    let method = ("--method", options.method.is_some());
    let message = ("--message", options.message.is_some());
    excludes(tool, method)?;
    excludes(tool, message)?;
    excludes(method, message)?;
    tls::needs(("--arguments", options.arguments.is_some()), tool)?;
    tls::needs(("--params", options.params.is_some()), method)?;
    tls::needs(
        ("--payload", options.payload.is_some()),
        ("--tool or --method", tool.1 || method.1),
    )?;
    let rate = ("--rate", options.rate.is_some());
    let in_flight = ("--in-flight", options.in_flight.is_some());
    excludes(rate, in_flight)?;
    excludes(("--churn", options.churn), in_flight)?;
    excludes(
        ("--requests", options.requests.is_some()),
        ("--duration", options.duration.is_some()),
    )?;
    excludes(("--json", options.json), ("--csv", options.csv))?;
    check_access(options)
}

/// TLS, tokens and servers by name are for TCP or for proxies, and mean nothing to a process.
fn check_access(options: &BenchOptions) -> Result<(), UsageError> {
    let access = &options.access;
    tls::check_client(access)?;
    let is_tcp = |target: &Target| matches!(target, Target::Address(Address::Tcp { .. }));
    let is_address = |target: &Target| matches!(target, Target::Address(_));
    let has_tcp = options.targets().any(is_tcp);
    let has_address = options.targets().any(is_address);
    tls::needs(("--tls", access.wants_tls()), ("a target on TCP", has_tcp))?;
    tls::needs(
        ("--token-file", access.token_file.is_some()),
        ("a target that is an address", has_address),
    )?;
    tls::needs(
        ("--server", access.server.is_some()),
        ("a target that is an address", has_address),
    )
}

fn excludes((one, is_one): Given, (other, is_other): Given) -> Result<(), UsageError> {
    if is_one && is_other {
        return Err(UsageError(format!(
            "{one}: goes not with {other} (leave out one of the two)"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(line: &[&str]) -> Result<BenchOptions, String> {
        let args = line.iter().map(OsString::from).collect();
        match parse(args) {
            Ok(Command::Bench(options)) => Ok(*options),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn command(words: &[&str]) -> Target {
        Target::Command(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn a_target_is_an_address_or_a_command() {
        for (line, expected) in [
            (&["127.0.0.1:80"][..], "127.0.0.1:80"),
            (&["[::1]:80", "--json"], "[::1]:80"),
            (&["--sessions", "3", "unix:/a/b"], "unix:/a/b"),
            (&["exec:a 'b c' d"], "exec:a 'b c' d"),
            (&["--json", "--", "a", "--json", "--"], "exec:a --json --"),
        ] {
            let options = bench(line).unwrap();
            assert_eq!(options.target.to_string(), expected);
        }
        let both = bench(&["--versus=exec:x y", "--", "z"]).unwrap();
        assert_eq!(both.target, command(&["z"]));
        assert_eq!(both.versus, Some(command(&["x", "y"])));
        assert_eq!(both.rounds(), 5);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (line, part) in [
            (&[][..], "the target is missing"),
            (&["--"], "the target is missing"),
            (&["a:1", "b:2"], "'b:2' is a word too many"),
            (&["a:1", "--", "b"], "'a:1' is a target, and so is"),
            (&["localhost"], "'localhost' is not a target (HOST:PORT"),
            (&["localhost:0"], "is not a port to connect to"),
            (&["exec:"], "is not a command line"),
            (&["exec:a 'b"], "is not a command line"),
            (&["--versus", "x", "a:1"], "--versus: 'x' is not a target"),
            (
                &["a:1", "--rate", "0"],
                "--rate: '0' is not a number of requests a second",
            ),
            (&["a:1", "--rate=nan"], "--rate: 'nan'"),
            (
                &["a:1", "--rate=5", "--in-flight=2"],
                "--rate: goes not with --in-flight",
            ),
            (
                &["a:1", "--churn", "--in-flight=2"],
                "--churn: goes not with --in-flight",
            ),
            (
                &["a:1", "--requests=5", "--duration=2"],
                "--requests: goes not with --duration",
            ),
            (&["a:1", "--json", "--csv"], "--json: goes not with --csv"),
            (
                &["a:1", "--tool=a", "--method=b"],
                "--tool: goes not with --method",
            ),
            (&["a:1", "--arguments={}"], "--arguments: needs --tool"),
            (&["a:1", "--params={}"], "--params: needs --method"),
            (
                &["a:1", "--payload=1"],
                "--payload: needs --tool or --method",
            ),
            (&["unix:/a", "--tls"], "--tls: needs a target on TCP"),
            (&["a:1", "--tls-name=b"], "--tls-name: needs --tls"),
            (
                &["exec:a", "--server=b"],
                "--server: needs a target that is an address",
            ),
            (&["a:1", "--port=1"], "--port: no such option of bench"),
            (&["a:1", "--session=1"], "did you mean --sessions?"),
        ] {
            let error = bench(line).unwrap_err();
            assert!(error.contains(part), "{line:?}: {error}");
        }
    }
}
