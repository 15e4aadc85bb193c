//! The command line: words in, a [`Command`] or a one-line [`UsageError`] out; and all texts about it.
//!
//! Only words are read and checked here. Nothing here may look at the system: whether a host name resolves
//! or a program can be found is for those who use them to say.

mod address;
mod bench;
mod completions;
mod connect;
mod flag;
mod flags;
mod help;
pub mod keys;
mod man_page;
mod pages;
#[cfg(test)]
mod readme;
mod serve;
mod status;
#[cfg(test)]
mod tests;
mod tls;
mod unknown;
mod upgrade;
mod values;
mod words;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use self::flag::Mode;
use self::keys::Given;
pub use self::serve::{check_proxy, check_server};
use self::words::Words;
use crate::entrance::Name;
use crate::options::{BenchOptions, ConnectOptions, ServeOptions};
use crate::transport::address::Address;
use crate::upgrade::program::{GENERATION, REHEARSE};

/// What the user asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Serve an MCP server over TCP.
    Serve {
        /// What is served, and how.
        options: Box<ServeOptions>,
        /// What the log should say about a likely mistake, in one line.
        hint: Option<String>,
        /// The options as they were given, which count more than those for all servers in a configuration.
        given: Given,
    },
    /// Go on where another program has served in the same process.
    TakeOver {
        /// How often that has happened, this time included.
        generation: u64,
        /// What is served, and how.
        options: Box<ServeOptions>,
        /// The options as they were given.
        given: Given,
    },
    /// Check a configuration.
    Check(PathBuf),
    /// Be the stdio side of a server that is served over TCP.
    Connect(Box<ConnectOptions>),
    /// Measure an MCP server.
    Bench(Box<BenchOptions>),
    /// Be the demo MCP server, on stdio.
    DemoServer,
    /// Print the addresses of a name. `connect` runs this; it is not for users.
    Resolve {
        /// The host's name.
        host: String,
        /// The port that the addresses are printed with.
        port: u16,
    },
    /// Print a fresh token for the client of this name.
    Token(Name),
    /// Ask a running proxy how it is.
    Status {
        /// Whom; `None` if that is not said.
        address: Option<Address>,
        /// Whether to ask again and again.
        watch: bool,
    },
    /// Have a running proxy go on with the program that lies at its path now.
    Upgrade(i32),
    /// Say whether this program could go on where another one is, if it was told these words. A proxy runs this; it is not
    /// for users.
    Rehearse(Vec<OsString>),
    /// Print this text.
    Print(String),
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
    if args.first().is_some_and(|word| word == GENERATION) {
        return upgrade::parse_next(args);
    }
    match args.first().and_then(|word| word.to_str()) {
        Some("connect") => parse_connect(args.split_off(1)),
        Some("bench") => bench::parse(args.split_off(1)),
        Some("demo-server") => bare("demo-server", &args[1..], || Command::DemoServer),
        Some("resolve") => parse_resolve(&args[1..]),
        Some("check") => parse_check(&args[1..]),
        Some("token") => parse_token(&args[1..]),
        Some("status") => status::parse(&args[1..]),
        Some("upgrade") => upgrade::parse(&args[1..]),
        Some(REHEARSE) => Ok(Command::Rehearse(args.split_off(1))),
        Some("completions") => parse_completions(&args[1..]),
        Some("man-page") => bare("man-page", &args[1..], || Command::Print(man_page::text())),
        _ => parse_serve(args),
    }
}

/// How often another program was replaced by one with these arguments in the same process; `None` if it was started.
pub fn generation(args: &[OsString]) -> Option<u64> {
    let [option, value, ..] = args else {
        return None;
    };
    let value = value.to_str().filter(|_| *option == *GENERATION);
    value?.parse().ok()
}

/// Whether a word that comes first says that the program is to do something else than to serve.
pub fn is_subcommand(word: &str) -> bool {
    let mut known = pages::SUBCOMMANDS.iter();
    known.any(|subcommand| subcommand.name == word) || ["resolve", REHEARSE].contains(&word)
}

/// The address that the environment variable of this name says.
///
/// # Errors
/// It is not an address.
pub fn address_of_variable(name: &str, value: &OsStr) -> Result<Address, UsageError> {
    status::read(name, &value.to_string_lossy())
}

fn parse_serve(args: Vec<OsString>) -> Result<Command, UsageError> {
    let words = Words::until_command(args, Mode::Serve);
    if let Some(answer) = information(&words.options, Mode::Serve) {
        return Ok(answer);
    }
    Ok(Command::Serve {
        options: Box::new(serve::parse(&words)?),
        hint: serve::hint(&words),
        given: words.given(Mode::Serve)?,
    })
}

fn parse_connect(args: Vec<OsString>) -> Result<Command, UsageError> {
    let guess = connect::refuse_host_and_port(&args);
    let words = Words::anywhere(args, Mode::Connect);
    if let Some(answer) = information(&words.options, Mode::Connect) {
        return Ok(answer);
    }
    guess?;
    let options = connect::parse(&words)?;
    Ok(Command::Connect(Box::new(options)))
}

/// No help mentions it, so what is wrong here is likely to be meant for a program of that name.
fn parse_resolve(rest: &[OsString]) -> Result<Command, UsageError> {
    let words: Vec<&str> = rest.iter().filter_map(|word| word.to_str()).collect();
    if let [host, port] = words[..]
        && let Ok(port) = port.parse()
        && rest.len() == 2
    {
        let host = host.to_owned();
        return Ok(Command::Resolve { host, port });
    }
    Err(UsageError(
        "resolve: takes a host and a port (to serve a program of that name: mcp-tcp-proxy -- resolve)".to_owned(),
    ))
}

fn parse_token(rest: &[OsString]) -> Result<Command, UsageError> {
    if let Some(answer) = information(&rest[..rest.len().min(1)], Mode::Serve) {
        return Ok(answer);
    }
    match rest {
        [word] => word
            .to_str()
            .and_then(Name::new)
            .map(Command::Token)
            .ok_or_else(|| {
                let word = quoted(word);
                UsageError(format!(
                    "token: {word} is not a name (1 to 64 of letters, digits and ._@:-)"
                ))
            }),
        [] => Err(UsageError(
            "token: the name of the client is missing (mcp-tcp-proxy token NAME)".to_owned(),
        )),
        [_, more, ..] => Err(UsageError(format!(
            "token: takes no more than a name, and {} follows (to serve a program of that name: mcp-tcp-proxy -- token)",
            quoted(more)
        ))),
    }
}

fn parse_check(rest: &[OsString]) -> Result<Command, UsageError> {
    if let Some(answer) = information(&rest[..rest.len().min(1)], Mode::Serve) {
        return Ok(answer);
    }
    match rest {
        [file] if !words::looks_like_option(file) => Ok(Command::Check(file.into())),
        [] => Err(UsageError(
            "check: the file is missing (mcp-tcp-proxy check FILE)".to_owned(),
        )),
        [word, ..] => {
            let word = rest.get(1).unwrap_or(word);
            Err(UsageError(format!(
                "check: takes no more than a file, and there is {} (to serve a program of that name: mcp-tcp-proxy -- check)",
                quoted(word)
            )))
        }
    }
}

fn parse_completions(rest: &[OsString]) -> Result<Command, UsageError> {
    let (shell, rest) = rest.split_at(rest.len().min(1));
    if let Some(answer) = information(shell, Mode::Serve) {
        return Ok(answer);
    }
    let text = shell.first().map(|shell| completions::text(shell));
    match text {
        Some(Some(text)) if rest.is_empty() => Ok(Command::Print(text)),
        Some(Some(_)) => Err(UsageError(format!(
            "completions: takes no more than that, and {} follows",
            quoted(&rest[0])
        ))),
        Some(None) => Err(UsageError(format!(
            "completions: {} is not a shell that is known here (bash, zsh or fish)",
            quoted(&shell[0])
        ))),
        None => Err(UsageError(
            "completions: the shell is missing (bash, zsh or fish)".to_owned(),
        )),
    }
}

/// A subcommand that nothing may follow.
fn bare(
    name: &str,
    rest: &[OsString],
    command: impl FnOnce() -> Command,
) -> Result<Command, UsageError> {
    match rest.first() {
        None => Ok(command()),
        Some(word) => information(std::slice::from_ref(word), Mode::Serve).ok_or_else(|| {
            UsageError(format!(
                "{name}: takes no arguments, and {} is one \
                 (to serve a program of that name: mcp-tcp-proxy -- {name})",
                quoted(word)
            ))
        }),
    }
}

/// The text that the first of these options asks for.
fn information(options: &[OsString], mode: Mode) -> Option<Command> {
    options.iter().find_map(|word| match word.to_str() {
        Some("-h" | "--help") => Some(Command::Print(help::text(mode))),
        Some("-V" | "--version") => Some(Command::Print(format!("{VERSION}\n"))),
        _ => None,
    })
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
