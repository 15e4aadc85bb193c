//! The token that is shown to the proxy: where it comes from, and to whom it may be sent.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use log::warn;

use crate::entrance::MAX_FIRST_LINE_BYTES;
use crate::options::ConnectOptions;
use crate::process::hide_memory;
use crate::secret_file;
use crate::util::secret::Secret;

/// The variable that has the token if no file is named.
pub(super) const TOKEN_VARIABLE: &str = "MCP_TCP_PROXY_TOKEN";

/// The longest token, in bytes: what else stands in the first line takes less than the other half.
const MAX_BYTES: usize = MAX_FIRST_LINE_BYTES / 2;

/// Where the token comes from, and where it may go.
#[derive(Debug)]
pub(crate) struct TokenSource {
    file: Option<PathBuf>,
    /// Whether there is one.
    is_given: bool,
    /// Whether it may be sent where others on the way can read it.
    may_be_read: bool,
}

impl TokenSource {
    /// Reads the token for the first time, if there is one. From then on, no other program of this user
    /// can, unless it is asked to let them.
    pub(crate) fn new(options: &ConnectOptions) -> Result<(Self, Option<Secret>), String> {
        let file = options.token_file.clone();
        let has_secret = file.is_some() || env::var_os(TOKEN_VARIABLE).is_some();
        if has_secret && !options.traceable {
            hide_memory();
        }
        let token = match &file {
            Some(path) => Some(read(path)?),
            None => of_environment()?,
        };
        let source = Self {
            file,
            is_given: token.is_some(),
            may_be_read: options.insecure_token,
        };
        Ok((source, token))
    }

    /// Reads the file again: the token may have been replaced. If it can't be read now, the one before has to do.
    pub(super) fn read_again(&self) -> Option<Secret> {
        match read(self.file.as_ref()?) {
            Ok(token) => Some(token),
            Err(error) => {
                warn!("{error}; going on with the token that was read before");
                None
            }
        }
    }

    /// Whether the token, if there is one, may be sent to this address in plain text.
    pub(crate) fn may_go_to(&self, address: SocketAddr) -> bool {
        !self.is_given || self.may_be_read || address.ip().to_canonical().is_loopback()
    }
}

fn read(path: &Path) -> Result<Secret, String> {
    let text = secret_file::read(path).map_err(|error| format!("--token-file: {error}"))?;
    let line = text.lines().next().unwrap_or_default();
    check(line).map_err(|what| format!("--token-file: {}: its first line {what}", path.display()))
}

fn of_environment() -> Result<Option<Secret>, String> {
    match env::var(TOKEN_VARIABLE) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => check(&text)
            .map(Some)
            .map_err(|what| format!("{TOKEN_VARIABLE} {what}")),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{TOKEN_VARIABLE} is not UTF-8")),
    }
}

/// The error completes a sentence about where the token came from, and quotes nothing of it.
fn check(text: &str) -> Result<Secret, String> {
    let token = text.trim();
    if token.is_empty() {
        return Err("is empty, and should be the token".to_owned());
    }
    if token.contains(char::is_whitespace) {
        return Err(
            "has more than one word, and should be the token alone (the proxy's file is another one)"
                .to_owned(),
        );
    }
    if token.len() > MAX_BYTES {
        return Err(format!("is longer than {MAX_BYTES} bytes, and no token"));
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word() {
        assert_eq!(check(" mtp_1234\r").unwrap().reveal(), "mtp_1234");
        for (text, part) in [
            (" ", "is empty"),
            ("ann secret-of-ann", "more than one word"),
            (&"x".repeat(5000), "is longer"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(part) && !error.contains("secret-of-ann"));
        }
    }

    #[test]
    fn a_token_stays_on_this_machine_unless_somebody_says_otherwise() {
        let source = |is_given, may_be_read| TokenSource {
            file: None,
            is_given,
            may_be_read,
        };
        let [near, near_6, mapped, far, any] = [
            "127.0.0.1:1",
            "[::1]:1",
            "[::ffff:127.0.0.9]:1",
            "192.0.2.1:1",
            "0.0.0.0:1",
        ]
        .map(|text| text.parse::<SocketAddr>().unwrap());
        for address in [near, near_6, mapped] {
            assert!(source(true, false).may_go_to(address));
        }
        for address in [far, any] {
            assert!(!source(true, false).may_go_to(address));
            assert!(source(true, true).may_go_to(address));
            assert!(source(false, false).may_go_to(address));
        }
    }
}
