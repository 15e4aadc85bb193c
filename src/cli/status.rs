//! The command line of `status`: whom to ask, and whether once.

use std::ffi::OsString;

use super::flag::Mode;
use super::{Command, UsageError, address, information, quoted};
use crate::transport::address::Address;

pub(super) fn parse(rest: &[OsString]) -> Result<Command, UsageError> {
    let mut watch = false;
    let mut named = None;
    for word in rest {
        if let Some(answer) = information(std::slice::from_ref(word), Mode::Serve) {
            return Ok(answer);
        }
        match word.to_str() {
            Some("--watch") => watch = true,
            Some(option) if option.starts_with('-') => {
                return Err(UsageError(format!(
                    "status: {} is not an option of it (--watch is)",
                    quoted(word)
                )));
            }
            _ if named.is_some() => {
                return Err(UsageError(format!(
                    "status: takes one address, and {} is a word too many (to serve a program of that name: \
                     mcp-tcp-proxy -- status)",
                    quoted(word)
                )));
            }
            Some(text) => named = Some(read("status", text)?),
            None => {
                return Err(UsageError(format!("status: {} is not UTF-8", quoted(word))));
            }
        }
    }
    Ok(Command::Status {
        address: named,
        watch,
    })
}

/// An address that was given by `what`.
pub(super) fn read(what: &str, text: &str) -> Result<Address, UsageError> {
    address::listen(text).map_err(|_| {
        UsageError(format!(
            "{what}: {} is not an address (HOST:PORT, [::1]:9180 or unix:PATH)",
            quoted(text.as_ref())
        ))
    })
}
