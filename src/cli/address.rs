//! The addresses to connect to and to listen on, and what to say about those that make no sense.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::values::{host, port};
use super::{UsageError, quoted};
use crate::options::DEFAULT_PORT;
use crate::transport::address::{Address, UNIX_PREFIX};

/// Completes "'x' is not …".
const NO_HOST: &str =
    "a host name or an address (an IPv6 address that a port follows goes in brackets: [::1]:8080)";

/// The longest path of a unix socket, in bytes (unix(7): 108, of which one is zero).
const MAX_PATH_BYTES: usize = 107;

/// What to listen on: `HOST:PORT`, `[::1]:9000` or `unix:PATH`. The error completes "'x' is not …".
pub(super) fn listen(value: &str) -> Result<Address, String> {
    if let Some(path) = unix_path(value) {
        return path.map(Address::Unix);
    }
    if is_path(value) {
        return Err(format!("an address (for a unix socket: unix:{value})"));
    }
    let (name, number) = split_port(value);
    let number = number.and_then(|number| port(number).ok());
    match (host(name), number) {
        (Ok(host), Some(port)) => Ok(Address::Tcp { host, port }),
        _ => Err("an address to listen on (HOST:PORT, [::1]:9000 or unix:PATH)".to_owned()),
    }
}

/// The path of a unix socket; `None` if this is another address. The error completes "'x' is not …".
fn unix_path(text: &str) -> Option<Result<PathBuf, String>> {
    let path = text.strip_prefix(UNIX_PREFIX)?;
    Some(match path.len() {
        0 => Err("an address (unix:PATH, with the path of a socket)".to_owned()),
        _ if path.starts_with('@') => Err(
            "the path of a socket (one of the names that begin with @ has no file, and so no permissions)"
                .to_owned(),
        ),
        1..=MAX_PATH_BYTES => Ok(path.into()),
        bytes => Err(format!(
            "the path of a socket (at most {MAX_PATH_BYTES} bytes, and this has {bytes})"
        )),
    })
}

fn is_path(text: &str) -> bool {
    text.starts_with(['/', '.'])
}

/// `HOST:PORT`, `HOST PORT`, `HOST`, `PORT`, with an IPv6 address in brackets where a port follows it directly; `unix:PATH`.
pub(super) fn read(words: &[OsString]) -> Result<Address, UsageError> {
    let text = |word: &OsString| {
        word.to_str()
            .map(str::to_owned)
            .ok_or_else(|| UsageError(format!("connect: {} is not UTF-8", quoted(word))))
    };
    match words {
        [] => Err(UsageError(
            "connect: the address is missing (mcp-tcp-proxy connect HOST:PORT; see mcp-tcp-proxy connect --help)"
                .into(),
        )),
        [only] => one_word(&text(only)?),
        [host, port] if !has_port(host) => checked(&text(host)?, Some(&text(port)?)),
        [_, more] | [_, _, more, ..] => Err(UsageError(format!(
            "connect: takes one address, and {} is a word too many (see mcp-tcp-proxy connect --help)",
            quoted(more)
        ))),
    }
}

fn has_port(word: &OsStr) -> bool {
    word.to_str()
        .is_some_and(|word| split_port(word).1.is_some())
}

fn one_word(text: &str) -> Result<Address, UsageError> {
    if let Some(path) = unix_path(text) {
        let path = path.map_err(|cause| is_not(text, &cause))?;
        return Ok(Address::Unix(path));
    }
    if is_number(text) {
        return checked("localhost", Some(text));
    }
    if let Some(advice) = advice(text) {
        return Err(UsageError(format!(
            "connect: {} {advice}",
            quoted(OsStr::new(text))
        )));
    }
    let (host, port) = split_port(text);
    checked(host, port)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Cuts at the last colon, unless it is one inside an IPv6 address.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn is_not(value: &str, cause: &str) -> UsageError {
    UsageError(format!(
        "connect: {} is not {cause}",
        quoted(OsStr::new(value))
    ))
}

fn checked(name: &str, number: Option<&str>) -> Result<Address, UsageError> {
    let host = host(name).map_err(|_| is_not(name, NO_HOST))?;
    let port = match number {
        None => DEFAULT_PORT,
        Some(number) => match port(number) {
            Ok(port) if port > 0 => port,
            _ => return Err(is_not(number, "a port to connect to (1 to 65535)")),
        },
    };
    Ok(Address::Tcp { host, port })
}

/// What is wrong with an address of a kind that people write often.
fn advice(text: &str) -> Option<String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Some(about_url(scheme, rest));
    }
    if let Some(port) = text.strip_prefix(':').filter(|rest| is_number(rest)) {
        return Some(format!("has no host (for this machine: localhost:{port})"));
    }
    if text.starts_with('[') && !text.contains(']') {
        return Some("has no closing bracket (write [::1] or [::1]:8080)".to_owned());
    }
    if is_path(text) {
        return Some(format!("is a path (write {UNIX_PREFIX}{text})"));
    }
    let (host, _) = text.split_once('/')?;
    one_word(host).ok()?;
    Some(format!(
        "has a path, and an address has none (write {host})"
    ))
}

/// A URL names an HTTP server, which is another transport; or someone only added a scheme to an address.
fn about_url(scheme: &str, rest: &str) -> String {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let address = Some(host)
        .filter(|host| advice(host).is_none())
        .map(split_port)
        .and_then(|(host, port)| checked(host, port?.into()).ok())
        .map_or_else(|| "HOST:PORT".to_owned(), |address| address.to_string());
    if scheme.starts_with("http") || scheme.starts_with("ws") {
        format!(
            "is a URL, and connect does not speak HTTP (if mcp-tcp-proxy serves there, write {address})"
        )
    } else {
        format!("is a URL (write {address}, without a scheme)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(words: &[&str]) -> Result<Address, String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        read(&words).map_err(|error| error.to_string())
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
            (&["[fe80::1%eth0]:9"], "fe80::1%eth0", 9),
            (&["9000"], "localhost", 9000),
            (&["127.0.0.1"], "127.0.0.1", 8080),
        ] {
            let host = host.to_owned();
            assert_eq!(
                read_words(words),
                Ok(Address::Tcp { host, port }),
                "{words:?}"
            );
        }
    }

    #[test]
    fn what_is_not_an_address() {
        for (words, complaint) in [
            (&[][..], "the address is missing"),
            (&["host:99999"], "'99999' is not a port"),
            (
                &["99999"],
                "'99999' is not a port to connect to (1 to 65535)",
            ),
            (&["0"], "'0' is not a port to connect to (1 to 65535)"),
            (&["host:0"], "'0' is not a port to connect to (1 to 65535)"),
            (&["host:"], "'' is not a port"),
            (&[""], "'' is not a host name"),
            (&[":"], "'' is not a host name"),
            (&["host", "80", "x"], "'x' is a word too many"),
            (&["host:80", "x"], "'x' is a word too many"),
            (&["a b", "80"], "'a b' is not a host name"),
            (&["[host]:80"], "'[host]' is not a host name"),
            (&["[::1]80"], "'[::1]80' is not a host name"),
        ] {
            let error = read_words(words).unwrap_err();
            assert!(error.contains(complaint), "{words:?}: {error}");
        }
    }

    #[test]
    fn addresses_of_other_kinds_get_advice() {
        for (word, said, instead) in [
            (":9000", "has no host", "localhost:9000"),
            ("[::1", "no closing bracket", "[::1]:8080"),
            ("[::1:9000", "no closing bracket", "[::1]:8080"),
            (
                "http://h.example:9/mcp?x#y",
                "does not speak HTTP",
                "write h.example:9)",
            ),
            (
                "https://u:p@[::1]:9",
                "does not speak HTTP",
                "write [::1]:9)",
            ),
            (
                "http://h.example/sse",
                "does not speak HTTP",
                "write HOST:PORT)",
            ),
            ("http://[::1/", "does not speak HTTP", "write HOST:PORT)"),
            ("ws://h:1", "does not speak HTTP", "write h:1)"),
            ("tcp://h:1", "is a URL", "write h:1,"),
            ("tcp://", "is a URL", "write HOST:PORT,"),
            ("localhost:9000/mcp", "has a path", "write localhost:9000)"),
        ] {
            let error = read_words(&[word]).unwrap_err();
            assert!(error.starts_with(&format!("connect: '{word}' ")), "{error}");
            assert!(error.contains(said) && error.contains(instead), "{error}");
        }
    }

    #[test]
    fn unix_sockets() {
        let longest = format!("unix:/{}", "x".repeat(MAX_PATH_BYTES - 1));
        for word in ["unix:/run/mcp.sock", "unix:mcp.sock", "unix:80", &longest] {
            let address = Address::Unix(word[UNIX_PREFIX.len()..].into());
            assert_eq!(read_words(&[word]), Ok(address.clone()));
            assert_eq!(listen(word), Ok(address));
        }
        for (word, complaint) in [
            ("unix:", "is not an address (unix:PATH"),
            ("unix:@x", "names that begin with @ has no file"),
            (
                &format!("{longest}y"),
                "at most 107 bytes, and this has 108",
            ),
        ] {
            let error = read_words(&[word]).unwrap_err();
            assert!(error.contains(complaint), "{error}");
            let error = format!("is not {}", listen(word).unwrap_err());
            assert!(error.contains(complaint), "{error}");
        }
        let error = read_words(&["unix:/a", "80"]).unwrap_err();
        assert!(error.contains("'80' is a word too many"), "{error}");
        for path in ["/run/mcp.sock", "./mcp.sock"] {
            let advice = format!("unix:{path})");
            assert!(read_words(&[path]).unwrap_err().contains(&advice));
            assert!(listen(path).unwrap_err().contains(&advice));
        }
    }

    #[test]
    fn where_to_listen_is_said_with_a_port() {
        for (word, host, port) in [
            ("localhost:9", "localhost", 9),
            ("0.0.0.0:0", "0.0.0.0", 0),
            ("[::1]:9000", "::1", 9000),
            ("[fe80::1%eth0]:9", "fe80::1%eth0", 9),
        ] {
            let host = host.to_owned();
            assert_eq!(listen(word), Ok(Address::Tcp { host, port }));
        }
        for word in [
            "",
            ":9000",
            "9000",
            "localhost",
            "::1",
            "::1:9",
            "host:99999",
            "a b:1",
        ] {
            let error = listen(word).unwrap_err();
            assert!(
                error.contains("(HOST:PORT, [::1]:9000 or unix:PATH)"),
                "{word}: {error}"
            );
        }
    }
}
