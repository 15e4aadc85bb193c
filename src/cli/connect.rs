//! The command line of `connect`: an address, and options before or after it.

use std::ffi::OsString;

use super::flag::Mode;
use super::words::{Words, looks_like_option, split_at_equals, value_follows};
use super::{UsageError, address, tls};
use crate::options::ConnectOptions;

pub(super) fn parse(words: &Words) -> Result<ConnectOptions, UsageError> {
    let mut options = ConnectOptions::default();
    words.read_into(&mut options)?;
    options.address = address::read(&words.rest)?;
    tls::check_connect(&options)?;
    Ok(options)
}

/// `--host` and `--port` are options of the serving side, and a good guess here.
pub(super) fn refuse_host_and_port(args: &[OsString]) -> Result<(), UsageError> {
    let guess = Guess::of(args);
    let given = match (guess.host, guess.port) {
        (None, None) => return Ok(()),
        (Some(_), None) => "--host: no such option",
        (None, Some(_)) => "--port: no such option",
        (Some(_), Some(_)) => "--host, --port: no such options",
    };
    Err(UsageError(format!(
        "{given} of connect, which takes the address alone: mcp-tcp-proxy connect {}",
        guess.address().unwrap_or_else(|| "HOST:PORT".to_owned())
    )))
}

/// An address that was given by options: what follows each, and the first word beside them.
#[derive(Default)]
struct Guess<'a> {
    host: Option<&'a str>,
    port: Option<&'a str>,
    beside: Option<&'a str>,
}

impl<'a> Guess<'a> {
    fn of(args: &'a [OsString]) -> Self {
        let mut guess = Self::default();
        let mut args = args.iter().take_while(|word| *word != "--");
        while let Some(word) = args.next() {
            let (name, attached) = split_at_equals(word);
            let mut value = || {
                let value = attached.or_else(|| args.next().map(OsString::as_os_str));
                value.and_then(|value| value.to_str()).or(Some(""))
            };
            match name.to_str() {
                Some("--host") => guess.host = value(),
                Some("--port") => guess.port = value(),
                _ if !looks_like_option(word) => guess.beside = guess.beside.or(word.to_str()),
                _ if value_follows(word, Mode::Connect) => {
                    value();
                }
                _ => {}
            }
        }
        guess
    }

    fn address(&self) -> Option<String> {
        let beside = |taken: Option<&str>| self.beside.filter(|_| taken.is_some());
        let host = self.host.or(beside(self.port)).unwrap_or("localhost");
        let port = self.port.or(beside(self.host)).unwrap_or("8080");
        let address = address::read(&[host.into(), port.into()]).ok()?;
        Some(address.to_string())
    }
}
