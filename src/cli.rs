//! The command line: words in, a [`Command`] or a one-line [`UsageError`] out; and the help text.
//!
//! This file reads and checks words. It must not look at the system: whether a host name resolves
//! or a program can be found is for those who use them to say.
//!
//! The words are cut at the server's command *before* `pico-args` sees them: it looks for options
//! everywhere, and would find `--debug` among the server's own arguments.

mod connect;
mod serve;
mod values;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use pico_args::Arguments;

pub use self::connect::{CONNECT_HELP, ConnectOptions};
pub use self::serve::{HELP, ServeOptions, ServerCommand};

/// What the user asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Serve an MCP server over TCP.
    Serve(ServeOptions),
    /// Be the stdio side of a server that is served over TCP.
    Connect(ConnectOptions),
    /// Be the demo MCP server, on stdio.
    DemoServer,
    /// Print a help text: [`HELP`] or [`CONNECT_HELP`].
    Help(&'static str),
    /// Print [`VERSION`].
    Version,
}

/// A command line that makes no sense. Displays as one line that names the option, the value and
/// the way out; no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// What `--version` prints, without the newline.
pub const VERSION: &str = concat!("mcp-tcp-proxy ", env!("CARGO_PKG_VERSION"));

/// Reads a command line, `args` being without the program's own name.
///
/// `--help` or `--version` among the options wins over everything else that may be wrong.
///
/// # Errors
/// Whatever `args` gets wrong first, as a line to print; the exit code for it is 2.
pub fn parse(mut args: Vec<OsString>) -> Result<Command, UsageError> {
    match args.first().and_then(|word| word.to_str()) {
        Some("demo-server") => parse_demo_server(&args[1..]),
        Some("connect") => {
            let (options, target) = split(args.split_off(1), &connect::TABLE);
            if let Some(answer) = options
                .iter()
                .find_map(|word| information(word, CONNECT_HELP))
            {
                return Ok(answer);
            }
            let words = in_two_words(&options, &connect::TABLE)?;
            connect::parse(words, &target).map(Command::Connect)
        }
        _ => {
            let (options, command) = split(args, &serve::TABLE);
            if let Some(answer) = options.iter().find_map(|word| information(word, HELP)) {
                return Ok(answer);
            }
            let words = in_two_words(&options, &serve::TABLE)?;
            serve::parse(words, command).map(Command::Serve)
        }
    }
}

fn parse_demo_server(rest: &[OsString]) -> Result<Command, UsageError> {
    match rest.first() {
        None => Ok(Command::DemoServer),
        Some(word) => information(word, HELP).ok_or_else(|| {
            UsageError(format!(
                "demo-server: takes no arguments, and {} is one \
                 (to serve a program of that name: mcp-tcp-proxy -- demo-server)",
                quoted(word)
            ))
        }),
    }
}

fn information(word: &OsStr, help: &'static str) -> Option<Command> {
    match word.to_str() {
        Some("-h" | "--help") => Some(Command::Help(help)),
        Some("-V" | "--version") => Some(Command::Version),
        _ => None,
    }
}

/// Cuts the words into the proxy's options and the server's command. Judges nothing: a word that
/// looks like an option is one, known or not.
fn split(mut args: Vec<OsString>, table: &Table) -> (Vec<OsString>, Vec<OsString>) {
    let mut end = 0;
    while args
        .get(end)
        .is_some_and(|word| word != "--" && looks_like_option(word))
    {
        let value_follows = table.kind_of(&args[end]) == Some(Kind::Value)
            && args.get(end + 1).is_some_and(|next| can_be_value(next));
        end += if value_follows { 2 } else { 1 };
    }
    let mut command = args.split_off(end);
    if command.first().is_some_and(|word| word == "--") {
        command.remove(0);
    }
    (args, command)
}

/// `-` alone is no option by custom; it is a name.
fn looks_like_option(word: &OsStr) -> bool {
    word.len() > 1 && word.as_bytes().starts_with(b"-")
}

/// A value may be a negative number, so that the complaint is about the number's range. Anything
/// else with a dash in front is an option, and the value before it was forgotten.
fn can_be_value(word: &OsStr) -> bool {
    !looks_like_option(word) || matches!(word.as_bytes()[1], b'0'..=b'9' | b'.')
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Flag,
    Value,
}

/// The options of a command.
struct Table {
    flags: &'static [&'static str],
    /// Those that take a value.
    values: &'static [&'static str],
}

impl Table {
    fn kind_of(&self, name: &OsStr) -> Option<Kind> {
        let name = name.to_str()?;
        if self.flags.contains(&name) {
            Some(Kind::Flag)
        } else if self.values.contains(&name) {
            Some(Kind::Value)
        } else {
            None
        }
    }
}

/// Rewrites `--option=value` as two words, and refuses what `pico-args` would misread or complain
/// about less clearly. It collects the two spellings one after the other, so that the last word
/// would not win, and strips quotes from one of them only.
fn in_two_words(options: &[OsString], table: &Table) -> Result<Vec<OsString>, UsageError> {
    let mut words = Vec::with_capacity(options.len());
    let mut rest = options.iter();
    while let Some(word) = rest.next() {
        let (name, attached) = split_at_equals(word);
        match (table.kind_of(name), attached) {
            (None, _) => return Err(no_such_option(name)),
            (Some(Kind::Flag), None) => words.push(name.to_owned()),
            (Some(Kind::Flag), Some(value)) => return Err(takes_no_value(name, value)),
            (Some(Kind::Value), _) => {
                let value = attached.or_else(|| rest.next().map(OsString::as_os_str));
                let value = checked_value(name, value)?;
                words.extend([name.to_owned(), value.to_owned()]);
            }
        }
    }
    Ok(words)
}

fn split_at_equals(word: &OsStr) -> (&OsStr, Option<&OsStr>) {
    let bytes = word.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (
            OsStr::from_bytes(&bytes[..at]),
            Some(OsStr::from_bytes(&bytes[at + 1..])),
        ),
        None => (word, None),
    }
}

fn checked_value<'a>(name: &OsStr, value: Option<&'a OsStr>) -> Result<&'a OsStr, UsageError> {
    let name = name.display();
    match value {
        None => Err(UsageError(format!(
            "{name}: its value is missing (see --help)"
        ))),
        Some(value) if !can_be_value(value) => Err(UsageError(format!(
            "{name}: its value is missing, {} is an option (see --help)",
            quoted(value)
        ))),
        Some(value) if value.to_str().is_none() => Err(UsageError(format!(
            "{name}: {} is not UTF-8 (only the server's command may be anything)",
            quoted(value)
        ))),
        Some(value) => Ok(value),
    }
}

fn no_such_option(name: &OsStr) -> UsageError {
    UsageError(format!(
        "{}: no such option (see --help; what is meant for the server goes behind its command, \
         and a command that starts with '-' behind '--')",
        printable(name)
    ))
}

fn takes_no_value(name: &OsStr, value: &OsStr) -> UsageError {
    let (name, value) = (name.display(), quoted(value));
    UsageError(format!(
        "{name}: takes no value, and {value} is one (leave out '=' and the value)"
    ))
}

/// The value of an option as last given. All of them must be good, though.
fn last<T>(
    args: &mut Arguments,
    name: &'static str,
    read: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, UsageError> {
    match args.values_from_fn(name, read) {
        Ok(mut values) => Ok(values.pop()),
        Err(pico_args::Error::Utf8ArgumentParsingFailed { value, cause }) => Err(UsageError(
            format!("{name}: {} is not {cause}", quoted(OsStr::new(&value))),
        )),
        Err(other) => Err(UsageError(format!("{name}: {other} (see --help)"))),
    }
}

fn quoted(word: &OsStr) -> String {
    format!("'{}'", printable(word))
}

/// A word as it may stand in a message: one line, no escape sequences for the terminal.
fn printable(word: &OsStr) -> String {
    let mut shown = String::with_capacity(word.len());
    for c in word.to_string_lossy().chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::Spawn;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn serve(line: &str) -> ServeOptions {
        match parse(words(line)) {
            Ok(Command::Serve(options)) => options,
            other => panic!("{line:?} gives {other:?}"),
        }
    }

    fn error_of(args: Vec<OsString>) -> String {
        let error = parse(args).unwrap_err().to_string();
        assert!(
            !error.contains(char::is_control),
            "{error:?} is not one line"
        );
        error
    }

    fn error(line: &str) -> String {
        error_of(words(line))
    }

    fn program(options: &ServeOptions) -> Vec<&str> {
        match &options.server {
            ServerCommand::Program(words) => words.iter().map(|w| w.to_str().unwrap()).collect(),
            ServerCommand::Demo => panic!("the demo"),
        }
    }

    #[test]
    fn the_defaults() {
        let expected = ServeOptions {
            host: "0.0.0.0".to_owned(),
            port: 8080,
            heartbeat_interval: Duration::from_secs(30),
            auto_restart: true,
            debug: false,
            max_message_bytes: 10_485_760,
            max_restarts: 5,
            max_sessions: None,
            replay_timeout: Duration::from_secs(10),
            spawn: Spawn::Eager,
            first_message_timeout: None,
            idle_timeout: None,
            max_starting: 32,
            prespawn: 0,
            server: ServerCommand::Demo,
        };
        assert_eq!(serve("--demo"), expected);
    }

    #[test]
    fn every_option_in_both_spellings() {
        let expected = ServeOptions {
            host: "localhost".to_owned(),
            port: 0,
            heartbeat_interval: Duration::from_millis(2_500),
            auto_restart: false,
            debug: true,
            max_message_bytes: 1,
            max_restarts: 0,
            max_sessions: Some(7),
            replay_timeout: Duration::from_millis(10),
            spawn: Spawn::Lazy,
            first_message_timeout: Some(Duration::from_millis(500)),
            idle_timeout: Some(Duration::from_hours(24)),
            max_starting: 1,
            prespawn: 1000,
            server: ServerCommand::Program(vec!["cat".into()]),
        };
        let line = "--host localhost --port 0 --heartbeat-interval 2.5 --no-auto-restart --debug \
                    --max-message-bytes 1 --max-restarts 0 --max-sessions 7 --replay-timeout 0.01 \
                    --spawn lazy --first-message-timeout 0.5 --idle-timeout 86400 --max-starting 1 --prespawn 1000 cat";
        assert_eq!(serve(line), expected);
        let line = "--host=localhost --port=0 --heartbeat-interval=2.5 --no-auto-restart --debug \
                    --max-message-bytes=1 --max-restarts=0 --max-sessions=7 --replay-timeout=.01 \
                    --spawn=lazy --first-message-timeout=.5 --idle-timeout=86400 --max-starting=1 --prespawn=1000 cat";
        assert_eq!(serve(line), expected);
    }

    #[test]
    fn the_servers_own_words_are_untouched() {
        let options = serve("--port 1 python3 server.py --debug --port 2 --help -- --demo");
        let expected = [
            "python3",
            "server.py",
            "--debug",
            "--port",
            "2",
            "--help",
            "--",
            "--demo",
        ];
        assert_eq!(program(&options), expected);
        assert_eq!((options.port, options.debug), (1, false));
    }

    #[test]
    fn two_dashes_end_the_options() {
        assert_eq!(
            program(&serve("-- --odd-name --debug")),
            ["--odd-name", "--debug"]
        );
        assert_eq!(program(&serve("--debug -- -- x")), ["--", "x"]);
        assert_eq!(program(&serve("-- connect host:1")), ["connect", "host:1"]);
        assert_eq!(program(&serve("-- demo-server")), ["demo-server"]);
        assert_eq!(program(&serve("-")), ["-"]);
    }

    #[test]
    fn the_last_of_a_repeated_option_counts_whatever_its_spelling() {
        assert_eq!(serve("--demo --port 1 --port=2").port, 2);
        assert_eq!(serve("--demo --port=1 --port 2").port, 2);
        assert_eq!(serve("--demo --port=1 --port 2 --port=3").port, 3);
        assert!(serve("--demo --no-auto-restart --auto-restart").auto_restart);
        assert!(!serve("--demo --auto-restart --no-auto-restart").auto_restart);
        assert!(serve("--demo --demo --debug --debug").debug);
    }

    #[test]
    fn numbers_out_of_range_are_named_with_their_range() {
        assert_eq!(
            error("--port 99999 x"),
            "--port: '99999' is not a port (0 to 65535)"
        );
        assert_eq!(
            error("--port -1 x"),
            "--port: '-1' is not a port (0 to 65535)"
        );
        assert_eq!(error("--port= x"), "--port: '' is not a port (0 to 65535)");
        for bad in [
            "0", "0.009", "86401", "nan", "inf", "-inf", "-5", "1e99", "5s", "",
        ] {
            for name in ["--heartbeat-interval", "--replay-timeout"] {
                let error = error(&format!("{name}={bad} x"));
                let named = format!("{name}: '{bad}' is not a number of seconds (0.01 to 86400)");
                let missing = format!("{name}: its value is missing, '{bad}' is an option");
                assert!(error == named || error.starts_with(&missing), "{error}");
            }
        }
        let range = "is not a whole number of bytes (1 to 268435456)";
        assert_eq!(
            error("--max-message-bytes 0 x"),
            format!("--max-message-bytes: '0' {range}")
        );
        assert_eq!(
            error("--max-message-bytes 268435457 x"),
            format!("--max-message-bytes: '268435457' {range}")
        );
        let range = "is not a whole number of restarts (0 to 1000000)";
        assert_eq!(
            error("--max-restarts 1000001 x"),
            format!("--max-restarts: '1000001' {range}")
        );
        assert_eq!(
            error("--max-restarts 1.5 x"),
            format!("--max-restarts: '1.5' {range}")
        );
        let range = "is not a whole number of sessions (1 to 1000000)";
        assert_eq!(
            error("--max-sessions 0 x"),
            format!("--max-sessions: '0' {range}")
        );
        assert_eq!(
            error("--max-sessions 99999999999999999999999 x"),
            format!("--max-sessions: '99999999999999999999999' {range}")
        );
    }

    #[test]
    fn a_timeout_that_can_be_off_is_off_at_0() {
        for name in ["--first-message-timeout", "--idle-timeout"] {
            for off in ["0", "0.0", "0e5"] {
                let options = serve(&format!("--demo {name} 1 {name} {off}"));
                assert_eq!(options.first_message_timeout.or(options.idle_timeout), None);
            }
            for bad in ["0.009", "86401", "off", "nan", "-0.5", ""] {
                let named = format!(
                    "{name}: '{bad}' is not a number of seconds (0.01 to 86400, or 0 for off)"
                );
                assert_eq!(error(&format!("{name}={bad} x")), named);
            }
        }
    }

    #[test]
    fn numbers_of_servers() {
        let range = "is not a whole number of servers (1 to 100000)";
        for bad in ["0", "100001", "1.5"] {
            assert_eq!(
                error(&format!("--max-starting {bad} x")),
                format!("--max-starting: '{bad}' {range}")
            );
        }
        assert_eq!(
            error("--prespawn 1001 x"),
            "--prespawn: '1001' is not a whole number of servers (0 to 1000)"
        );
        assert_eq!(serve("--demo --max-starting 100000").max_starting, 100_000);
    }

    #[test]
    fn servers_are_started_eagerly_or_lazily() {
        assert_eq!(
            serve("--demo --spawn lazy --spawn eager").spawn,
            Spawn::Eager
        );
        for bad in ["", "Lazy", "later"] {
            let named = format!("--spawn: '{bad}' is not a time to start servers (eager or lazy)");
            assert_eq!(error(&format!("--spawn={bad} x")), named);
        }
    }

    #[test]
    fn the_ends_of_the_ranges_are_in_them() {
        assert_eq!(serve("--demo --port 65535").port, 65535);
        let day = Duration::from_hours(24);
        assert_eq!(
            serve("--demo --heartbeat-interval 86400").heartbeat_interval,
            day
        );
        assert_eq!(serve("--demo --replay-timeout 86400").replay_timeout, day);
        assert_eq!(
            serve("--demo --max-message-bytes 268435456").max_message_bytes,
            268_435_456
        );
        assert_eq!(
            serve("--demo --max-restarts 1000000").max_restarts,
            1_000_000
        );
        assert_eq!(
            serve("--demo --max-sessions 1000000").max_sessions,
            Some(1_000_000)
        );
    }

    #[test]
    fn one_bad_value_is_enough_even_if_a_good_one_follows() {
        assert_eq!(
            error("--port x --port 1 cat"),
            "--port: 'x' is not a port (0 to 65535)"
        );
    }

    #[test]
    fn a_missing_value_is_noticed() {
        assert_eq!(error("--port"), "--port: its value is missing (see --help)");
        assert_eq!(
            error("--port -- cat"),
            "--port: its value is missing (see --help)"
        );
        let missing = "--port: its value is missing, '--debug' is an option (see --help)";
        assert_eq!(error("--port --debug cat"), missing);
        assert_eq!(error("--port=--debug cat"), missing);
        // The words "--port" and "80" must not become a port.
        assert!(error("--host --port 80").starts_with("--host: its value is missing"));
    }

    #[test]
    fn a_flag_takes_no_value() {
        let expected = "--debug: takes no value, and '1' is one (leave out '=' and the value)";
        assert_eq!(error("--debug=1 cat"), expected);
        assert!(error("--help=").starts_with("--help: takes no value, and '' is one"));
    }

    #[test]
    fn an_unknown_option_is_named() {
        for line in [
            "--bogus cat",
            "--bogus=3 cat",
            "--bogus 3 --debug",
            "--bogus",
        ] {
            let error = error(line);
            assert!(
                error.starts_with("--bogus: no such option (see --help; "),
                "{error}"
            );
            assert!(error.contains("'--'"), "{error}");
        }
        assert!(error("-p 80").starts_with("-p: no such option"));
        assert!(
            error("--por 80").starts_with("--por: no such option"),
            "no abbreviations"
        );
    }

    #[test]
    fn hosts() {
        for (word, host) in [
            ("localhost", "localhost"),
            ("::", "::"),
            ("[::1]", "::1"),
            ("[fe80::1%eth0]", "fe80::1%eth0"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(serve(&format!("--demo --host {word}")).host, host);
        }
        for bad in [
            "localhost:80",
            "[localhost]",
            "[::1",
            "[::1]:80",
            "[]",
            "[::1]]",
            ":",
        ] {
            let error = error(&format!("--demo --host {bad}"));
            let expected = format!("--host: '{bad}' is not a host name or an address (");
            assert!(error.starts_with(&expected), "{error}");
        }
        let empty = error_of(vec!["--demo".into(), "--host".into(), "".into()]);
        assert!(
            empty.starts_with("--host: '' is not a host name"),
            "{empty}"
        );
        assert_eq!(error("--demo --host="), empty);
        let spaced = error_of(vec!["--demo".into(), "--host=a b\n".into()]);
        assert!(
            spaced.starts_with(r"--host: 'a b\n' is not a host name"),
            "{spaced}"
        );
    }

    #[test]
    fn quotes_are_not_ours_to_strip() {
        assert!(error("--port='80' cat").starts_with("--port: ''80'' is not a port"));
    }

    #[test]
    fn words_that_are_not_utf8() {
        let odd = |prefix: &str| {
            let mut bytes = prefix.as_bytes().to_vec();
            bytes.push(0xff);
            OsStr::from_bytes(&bytes).to_owned()
        };
        let separate = error_of(vec!["--host".into(), odd(""), "cat".into()]);
        assert!(
            separate.starts_with("--host: '\u{fffd}' is not UTF-8"),
            "{separate}"
        );
        assert_eq!(
            error_of(vec![odd("--host="), "cat".into()]).replace("='", "'"),
            separate
        );
        assert!(error_of(vec![odd("--x")]).starts_with("--x\u{fffd}: no such option"));
        let Ok(Command::Serve(options)) = parse(vec!["--debug".into(), odd("cat"), odd("-")])
        else {
            panic!("a command may be anything")
        };
        assert_eq!(
            options.server,
            ServerCommand::Program(vec![odd("cat"), odd("-")])
        );
    }

    #[test]
    fn the_demo_or_a_command_and_exactly_one_of_them() {
        assert_eq!(
            error("--demo python3 x.py"),
            "--demo: takes the place of a command, and 'python3' starts one \
             (leave out one of the two)"
        );
        for line in ["", "--debug", "--port 80", "--"] {
            let error = error(line);
            assert!(error.starts_with("no command to serve"), "{error}");
            assert!(
                error.contains("COMMAND") && error.contains("--demo"),
                "{error}"
            );
        }
    }

    #[test]
    fn help_and_version_win_over_what_is_wrong() {
        for line in [
            "--help",
            "-h",
            "--bogus --help",
            "--port --help",
            "--port x -h",
            "-h -V cat",
        ] {
            assert_eq!(parse(words(line)), Ok(Command::Help(HELP)), "{line}");
        }
        for line in [
            "--version",
            "-V",
            "--debug --version --help",
            "--demo -V cat",
        ] {
            assert_eq!(parse(words(line)), Ok(Command::Version), "{line}");
        }
        assert_eq!(program(&serve("cat --help")), ["cat", "--help"]);
    }

    #[test]
    fn subcommands() {
        assert_eq!(parse(words("demo-server")), Ok(Command::DemoServer));
        assert_eq!(parse(words("demo-server --help")), Ok(Command::Help(HELP)));
        let extra = error("demo-server --debug");
        assert!(
            extra.starts_with("demo-server: takes no arguments, and '--debug' is"),
            "{extra}"
        );
        assert_eq!(
            parse(words("connect --help")),
            Ok(Command::Help(CONNECT_HELP))
        );
        assert!(error("connect").starts_with("connect: the address is missing"));
    }

    #[test]
    fn connect_has_options_of_its_own() {
        let Ok(Command::Connect(options)) = parse(words("connect localhost:1")) else {
            panic!()
        };
        let seconds = Duration::from_secs;
        assert_eq!(
            options,
            ConnectOptions {
                host: "localhost".to_owned(),
                port: 1,
                heartbeat_interval: seconds(30),
                reconnect: true,
                reconnect_delay: seconds(2),
                max_reconnect_attempts: Some(50),
                connect_timeout: seconds(10),
                replay_timeout: seconds(10),
                max_message_bytes: 10 * 1024 * 1024,
                debug: false,
            }
        );
        let line = "connect --no-reconnect --max-reconnect-attempts=0 --connect-timeout 3 [::1]:2";
        let Ok(Command::Connect(options)) = parse(words(line)) else {
            panic!()
        };
        assert_eq!(
            (options.reconnect, options.max_reconnect_attempts),
            (false, None)
        );
        assert_eq!(
            (options.connect_timeout, options.host.as_str()),
            (seconds(3), "::1")
        );
        assert!(error("connect --port 1 host").starts_with("--port: no such option"));
        assert!(error("--no-reconnect --demo").starts_with("--no-reconnect: no such option"));
        assert!(error("connect host:1 --debug x").contains("options go before the address"));
    }

    #[test]
    fn the_help_names_every_option_and_fits_the_screen() {
        for (table, help) in [(&serve::TABLE, HELP), (&connect::TABLE, CONNECT_HELP)] {
            for name in table.flags.iter().chain(table.values) {
                assert!(help.contains(&format!(" {name}")), "{name}");
            }
            for line in help.lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
        assert!(HELP.ends_with('\n') && VERSION.starts_with("mcp-tcp-proxy 0."));
    }
}
