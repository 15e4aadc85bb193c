//! Heads of responses, and those responses that are the same each time.

use std::fmt::Write as _;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Timeout,
    Misdirected,
    HeadTooLarge,
    Unavailable,
    Version,
}

impl Status {
    /// Code and words.
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::Misdirected => "421 Misdirected Request",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
            Self::Version => "505 HTTP Version Not Supported",
        }
    }

    /// What there is to say of it.
    fn words(self) -> &'static str {
        match self {
            Self::Ok => "ok\n",
            Self::BadRequest => "This is not a request that can be answered here.\n",
            Self::Forbidden => {
                "From other machines there are only /healthz, /readyz and /metrics here (--status-public).\n"
            }
            Self::NotFound => "There are /, /healthz, /readyz, /metrics and /status.json here.\n",
            Self::MethodNotAllowed => "There are only GET and HEAD here.\n",
            Self::Timeout => "The request took too long.\n",
            Self::Misdirected => {
                "The name in the request is not one of this proxy's: use an address, localhost or a name of --status-host.\n"
            }
            Self::HeadTooLarge => "The request is too large.\n",
            Self::Unavailable => "unavailable\n",
            Self::Version => "There are only HTTP/1.0 and HTTP/1.1 here.\n",
        }
    }
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Prometheus's.
    Metrics,
    Json,
    Html,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            Self::Json => "application/json",
            Self::Html => "text/html; charset=utf-8",
        }
    }
}

/// What the page may do: nothing with anything from elsewhere, and nobody may put it into a frame. `scripts` and `styles`
/// are what of its own it may run.
pub fn page_policy(scripts: &str, styles: &str) -> String {
    format!(
        "default-src 'none'; script-src {scripts}; style-src {styles}; connect-src 'self'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    )
}

/// What all else may do.
const STRICT_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// A head. The end of the connection is the end of the body, unless its length is known.
pub fn head(status: Status, kind: Kind, length: Option<usize>, policy: Option<&str>) -> String {
    let mut head = format!(
        "HTTP/1.1 {}\r\n\
         Content-Type: {}\r\n\
         Connection: close\r\n\
         Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\n\
         Content-Security-Policy: {}\r\n",
        status.line(),
        kind.name(),
        policy.unwrap_or(STRICT_POLICY)
    );
    if status == Status::MethodNotAllowed {
        head.push_str("Allow: GET, HEAD\r\n");
    }
    if let Some(length) = length {
        let _ = write!(head, "Content-Length: {length}\r\n");
    }
    head.push_str("\r\n");
    head
}

/// A whole response. With `is_head` it has no body, but says how long that would be.
pub fn whole(status: Status, kind: Kind, body: &str, is_head: bool) -> Vec<u8> {
    let mut response = head(status, kind, Some(body.len()), None).into_bytes();
    if !is_head {
        response.extend_from_slice(body.as_bytes());
    }
    response
}

/// The response that says no more than its status.
pub fn plain(status: Status, is_head: bool) -> Vec<u8> {
    whole(status, Kind::Text, status.words(), is_head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_responses_say_how_they_are_to_be_treated() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let response = text(plain(Status::MethodNotAllowed, false));
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
        for line in [
            "Allow: GET, HEAD",
            "Connection: close",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Referrer-Policy: no-referrer",
            "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
            &format!("Content-Length: {}", body.len()),
        ] {
            assert!(head.lines().any(|other| other == line), "{line}");
        }
        let response = text(plain(Status::Ok, true));
        assert!(response.contains("Content-Length: 3\r\n") && response.ends_with("\r\n\r\n"));
    }
}
