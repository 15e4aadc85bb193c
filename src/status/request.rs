//! The head of a request: what is asked for, and of whom.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::response::Status;

/// The longest head, in bytes. Browsers send less than a tenth of it.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// The most header fields.
const MAX_FIELDS: usize = 64;

/// What came of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// More has to come.
    Partial,
    /// It is whole.
    Request(Request),
    /// It is answered with this.
    Bad(Status),
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether the body is not wanted.
    pub is_head: bool,
    /// As it was sent, without the query.
    pub path: String,
    /// As it was sent, without the question mark.
    pub query: String,
}

/// The names under which the proxy may be asked, besides addresses and `localhost`.
#[derive(Debug, Clone, Default)]
pub struct Hosts(pub Vec<String>);

impl Hosts {
    /// Whether a web page may not have chosen this name: an address or a name that the user has named. Any other could be a
    /// name of a stranger that leads here (DNS rebinding), and his page could read what we say.
    fn has(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => {
                let Some((address, port)) = rest.split_once(']') else {
                    return false;
                };
                return is_port(port) && address.parse::<Ipv6Addr>().is_ok();
            }
            None => match host.split_once(':') {
                Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
                Some(_) => return false,
                None => host,
            },
        };
        name.parse::<Ipv4Addr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// What follows an address in brackets.
fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':');
    text.is_empty() || digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Reads a head, as far as it has come.
pub fn read(bytes: &[u8], hosts: &Hosts) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => {
            understand(&request, hosts).map_or_else(Head::Bad, Head::Request)
        }
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => Head::Partial,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Head::Bad(Status::HeadTooLarge),
        Err(httparse::Error::Version) => Head::Bad(Status::Version),
        Err(_) => Head::Bad(Status::BadRequest),
    }
}

fn understand(request: &httparse::Request<'_, '_>, hosts: &Hosts) -> Result<Request, Status> {
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Status::MethodNotAllowed),
    };
    let (authority, target) = split_target(request.path.unwrap_or_default())?;
    let mut named = request
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("host"));
    let (host, more) = (named.next(), named.next());
    let is_old = request.version == Some(0);
    if more.is_some() || (host.is_none() && !is_old) {
        return Err(Status::BadRequest);
    }
    let host = host.map(|field| std::str::from_utf8(field.value));
    let host = host.transpose().map_err(|_| Status::BadRequest)?;
    // What stands in the target counts more than the field (RFC 9112, 3.2.2).
    if authority.or(host).is_some_and(|host| !hosts.has(host)) {
        return Err(Status::Misdirected);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request {
        is_head,
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

/// The authority, if the target has one, and what follows it.
fn split_target(target: &str) -> Result<(Option<&str>, &str), Status> {
    const SCHEME: &str = "http://";
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let scheme = target.get(..SCHEME.len());
    if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
        return Err(Status::BadRequest);
    }
    let rest = &target[SCHEME.len()..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let path = if rest[end..].starts_with('/') {
        &rest[end..]
    } else {
        "/"
    };
    Ok((Some(&rest[..end]), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts(vec!["proxy.example".to_owned()])
    }

    fn of(head: &str) -> Head {
        read(head.as_bytes(), &hosts())
    }

    fn path(head: &str) -> String {
        match of(head) {
            Head::Request(request) => format!("{}?{}", request.path, request.query),
            other => panic!("{head:?}: {other:?}"),
        }
    }

    #[test]
    fn requests_as_probes_send_them() {
        let kubelet = "GET /readyz HTTP/1.1\r\nHost: 10.1.2.3:9180\r\nUser-Agent: kube-probe/1.31\r\n\
                       Accept: */*\r\nConnection: close\r\n\r\n";
        let haproxy = "GET /readyz HTTP/1.0\r\n\r\n";
        let curl =
            "GET /readyz?server=default HTTP/1.1\r\nHost: localhost:9180\r\nAccept: */*\r\n\r\n";
        assert_eq!(path(kubelet), "/readyz?");
        assert_eq!(path(haproxy), "/readyz?");
        assert_eq!(path(curl), "/readyz?server=default");
        let unix = "GET / HTTP/1.1\nhOST: localhost\n\n";
        assert_eq!(path(unix), "/?");
        let absolute = "GET http://127.0.0.1:1/a?b HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        assert_eq!(path(absolute), "/a?b");
        assert_eq!(path("GET HTTP://[::1] HTTP/1.0\r\n\r\n"), "/?");
        assert!(matches!(
            of("HEAD / HTTP/1.0\r\n\r\n"),
            Head::Request(Request { is_head: true, .. })
        ));
    }

    #[test]
    fn only_names_that_nobody_else_can_choose_are_ours() {
        for good in [
            "127.0.0.1",
            "192.0.2.1:9180",
            "[::1]",
            "[2001:db8::1]:9180",
            "LocalHost:1",
            "Proxy.Example",
            "proxy.example:80",
        ] {
            assert!(hosts().has(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:127.0.0.1",
            "localhost:evil",
            "[::1",
            "[::1]x",
            "[evil.example]",
            "::1",
            "0x7f.1",
            "a@localhost",
            "proxy.example.",
        ] {
            assert!(!hosts().has(bad), "{bad}");
        }
        let head = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(of(&head("evil.example")), Head::Bad(Status::Misdirected));
        let absolute = "GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(of(absolute), Head::Bad(Status::Misdirected));
    }

    #[test]
    fn what_is_wrong_with_a_request() {
        for (head, status) in [
            ("GET / HTTP/1.1\r\n\r\n", Status::BadRequest),
            (
                "GET / HTTP/1.1\r\nHost: [::1]\r\nHost: [::1]\r\n\r\n",
                Status::BadRequest,
            ),
            ("GET / HTTP/2.0\r\n\r\n", Status::Version),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Status::Version),
            ("POST / HTTP/1.0\r\n\r\n", Status::MethodNotAllowed),
            ("OPTIONS * HTTP/1.0\r\n\r\n", Status::MethodNotAllowed),
            ("GET metrics HTTP/1.0\r\n\r\n", Status::BadRequest),
            (
                "GET https://localhost/ HTTP/1.0\r\n\r\n",
                Status::BadRequest,
            ),
            ("GET / HTTP/1.0\r\n : x\r\n\r\n", Status::BadRequest),
            ("{\"jsonrpc\":\"2.0\"}\n", Status::BadRequest),
            ("\u{16}\u{3}\u{1}", Status::BadRequest),
        ] {
            assert_eq!(of(head), Head::Bad(status), "{head:?}");
        }
        let many = "A: b\r\n".repeat(MAX_FIELDS + 1);
        let many = format!("GET / HTTP/1.0\r\n{many}\r\n");
        assert_eq!(of(&many), Head::Bad(Status::HeadTooLarge));
    }

    #[test]
    fn a_head_may_come_in_pieces_and_has_a_longest_length() {
        let head = "GET / HTTP/1.0\r\nA: b\r\n\r\n";
        for end in 0..head.len() {
            assert_eq!(of(&head[..end]), Head::Partial, "{end}");
        }
        let endless = format!("GET / HTTP/1.0\r\nA: {}", "b".repeat(MAX_HEAD_BYTES));
        assert_eq!(of(&endless[..MAX_HEAD_BYTES - 1]), Head::Partial);
        assert_eq!(of(&endless), Head::Bad(Status::HeadTooLarge));
    }
}
