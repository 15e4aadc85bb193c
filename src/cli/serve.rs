//! The command line of the serving side: options, then what is served.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;

use super::flag::Mode;
use super::words::{Words, split_at_equals};
use super::{UsageError, pages, printable, quoted, tls};
use crate::options::{ServeOptions, ServerCommand, ServerOptions};

/// Options that many servers have, too. After a command they are meant for the server.
const COMMON_OPTIONS: [&str; 4] = ["--debug", "--help", "--log-level", "--version"];

pub(super) fn parse(words: &Words) -> Result<ServeOptions, UsageError> {
    let mut options = ServeOptions::default();
    words.read_into(&mut options)?;
    if !words.dashes {
        refuse_reserved(words)?;
    }
    if options.watch
        && options.config.is_none()
        && options.token_file.is_none()
        && options.tls_cert.is_none()
    {
        return Err(UsageError(
            "--watch: there is no file to be watched (--config, --token-file or --tls-cert)"
                .to_owned(),
        ));
    }
    if options.config.is_some() {
        refuse_command(&options.server.command, words.rest.first())?;
        return Ok(options);
    }
    let server = &options.server;
    check_sharing(server)?;
    check_server(server)?;
    match (&server.command, words.rest.first()) {
        (ServerCommand::Demo, None) => {}
        (ServerCommand::Program(_), Some(_)) => {
            options.server.command = ServerCommand::Program(words.rest.clone());
        }
        (ServerCommand::Demo, Some(word)) => {
            return Err(UsageError(format!(
                "--demo: takes the place of a command, and {} starts one (leave out one of the two)",
                quoted(word)
            )));
        }
        (ServerCommand::Program(_), None) => {
            return Err(UsageError(
                "no command to serve (mcp-tcp-proxy [OPTIONS] [--] COMMAND..., or mcp-tcp-proxy --demo for the \
                 built-in server; see --help)"
                    .to_owned(),
            ));
        }
    }
    tls::check_serve(&options)?;
    Ok(options)
}

/// What says how to share means nothing if nothing is shared.
fn check_sharing(options: &ServerOptions) -> Result<(), UsageError> {
    let defaults = ServerOptions::default();
    let given = [
        (
            options.share_in_flight != defaults.share_in_flight,
            "--share-in-flight",
        ),
        (options.share_legacy, "--share-legacy"),
        (options.share_max_age.is_some(), "--share-max-age"),
        (options.share_max_requests.is_some(), "--share-max-requests"),
    ];
    let given = given.iter().find(|(is_given, _)| *is_given);
    match given {
        Some((_, name)) if options.share == 0 => Err(UsageError(format!(
            "{name}: nothing is shared (--share N says by how many processes)"
        ))),
        _ => Ok(()),
    }
}

/// What keeps sessions from hibernating, or servers from being of any use after it.
fn check_hibernation(options: &ServerOptions) -> Result<(), UsageError> {
    let Some(after) = options.hibernate_after else {
        return Ok(());
    };
    if !options.replay {
        return Err(UsageError(
            "--hibernate-after: servers that are started again need the handshake, and --no-replay keeps it from them \
             (leave out one of the two)"
                .to_owned(),
        ));
    }
    match options.idle_timeout {
        Some(idle) if idle <= after => Err(UsageError(format!(
            "--hibernate-after: with --idle-timeout {} the session has ended after {} s (give it less time than \
             --idle-timeout)",
            idle.as_secs_f64(),
            after.as_secs_f64()
        ))),
        _ => Ok(()),
    }
}

/// Checks whether the options of a server go together.
///
/// # Errors
/// The options that do not.
pub fn check_server(options: &ServerOptions) -> Result<(), UsageError> {
    if options.client_env && options.share > 0 {
        return Err(UsageError(
            "--client-env: the servers of --share have many clients (leave out one of the two)"
                .to_owned(),
        ));
    }
    if options.client_env && !options.tells_clients() {
        return Err(UsageError(
            "--client-env: the servers of --prespawn are started before their clients are known (leave out one of the \
             two)"
                .to_owned(),
        ));
    }
    if options.swap_in_place && options.share > 0 {
        return Err(UsageError(
            "--swap-in-place: new processes of --share are started beside the old ones (leave out one of the two)"
                .to_owned(),
        ));
    }
    check_hibernation(options)
}

/// Checks whether the options of the proxy go together.
///
/// # Errors
/// The options that do not.
pub fn check_proxy(options: &ServeOptions) -> Result<(), UsageError> {
    tls::check_serve(options)
}

/// What is served is said in one place.
fn refuse_command(command: &ServerCommand, word: Option<&OsString>) -> Result<(), UsageError> {
    let other = match (command, word) {
        (_, Some(word)) => format!("{} starts a command", quoted(word)),
        (ServerCommand::Demo, None) => "--demo is one".to_owned(),
        (ServerCommand::Program(_), None) => return Ok(()),
    };
    Err(UsageError(format!(
        "--config: takes the place of a command, and {other} (leave out one of the two)"
    )))
}

/// A word that is a subcommand, or looks like one, is hardly ever the name of a server.
fn refuse_reserved(words: &Words) -> Result<(), UsageError> {
    let Some(name) = words.rest.first().and_then(|word| word.to_str()) else {
        return Ok(());
    };
    let serve_it = format!("to serve a program of that name: {}", with_dashes(words));
    let complaint = match name {
        "help" => format!("not a subcommand (see mcp-tcp-proxy --help; {serve_it})"),
        "serve" => format!(
            "not a subcommand; serving needs none (mcp-tcp-proxy [OPTIONS] [--] COMMAND..., see \
             --help; {serve_it})"
        ),
        _ if pages::SUBCOMMANDS.iter().any(|known| known.name == name) => {
            let moved = line(&[&words.rest[..1], &words.options, &words.rest[1..]]);
            format!("a subcommand has to be the first word ({moved}; {serve_it})")
        }
        _ => return Ok(()),
    };
    Err(UsageError(format!("{name}: {complaint}")))
}

fn with_dashes(words: &Words) -> String {
    line(&[&words.options, &[OsString::from("--")], &words.rest])
}

/// A command line of this program, to be read.
fn line(parts: &[&[OsString]]) -> String {
    let mut line = String::from("mcp-tcp-proxy");
    for word in parts.iter().flat_map(|words| words.iter()) {
        let _ = write!(line, " {}", printable(word));
    }
    line
}

/// What to tell a user who has probably put options of the proxy after the server's command.
///
/// One that is given to the proxy, too, is meant for the server.
pub(super) fn hint(words: &Words) -> Option<String> {
    let (program, arguments) = words.rest.split_first()?;
    let is_given = |name: &str| {
        let mut options = words.options.iter();
        options.any(|word| split_at_equals(word).0 == name)
    };
    let mut suspects: Vec<&str> = arguments
        .iter()
        .filter_map(|word| option_of_ours(word))
        .collect();
    suspects.retain(|name| !is_given(name));
    let name = suspects.first()?;
    Some(format!(
        "{name} after '{}' is the server's, not the proxy's (options of the proxy go before the command)",
        printable(program)
    ))
}

fn option_of_ours(word: &OsStr) -> Option<&'static str> {
    let flag = Mode::Serve.find(split_at_equals(word).0)?;
    (!COMMON_OPTIONS.contains(&flag.name)).then_some(flag.name)
}
