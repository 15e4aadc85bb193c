//! The command line of `upgrade`: a process. And what precedes the arguments of a program that goes on where another was.

use std::ffi::OsString;

use super::flag::Mode;
use super::{Command, UsageError, generation, information, parse_serve, quoted};
use crate::upgrade::program::GENERATION;

pub(super) fn parse(rest: &[OsString]) -> Result<Command, UsageError> {
    if let Some(answer) = information(&rest[..rest.len().min(1)], Mode::Serve) {
        return Ok(answer);
    }
    match rest {
        [word] => {
            let pid = word.to_str().and_then(|word| word.parse().ok());
            let pid = pid.filter(|pid: &i32| *pid > 0);
            pid.map(Command::Upgrade).ok_or_else(|| {
                UsageError(format!(
                    "upgrade: {} is not a process (a number, as pgrep(1) prints it)",
                    quoted(word)
                ))
            })
        }
        [] => Err(UsageError(
            "upgrade: the process is missing (mcp-tcp-proxy upgrade PID)".to_owned(),
        )),
        [_, more, ..] => Err(UsageError(format!(
            "upgrade: takes one process, and {} follows (to serve a program of that name: mcp-tcp-proxy -- upgrade)",
            quoted(more)
        ))),
    }
}

/// No help mentions it: it is said by the program that went before.
pub(super) fn parse_next(mut args: Vec<OsString>) -> Result<Command, UsageError> {
    let Some(generation) = generation(&args) else {
        return Err(UsageError(format!("{GENERATION}: takes a number")));
    };
    Ok(match parse_serve(args.split_off(2))? {
        Command::Serve { options, given, .. } => Command::TakeOver {
            generation,
            options,
            given,
        },
        other => other,
    })
}
