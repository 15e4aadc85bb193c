//! Why a connection is not let in: for the log, and for the client where it gets to know.

use std::fmt;

use crate::protocol::own_messages::ErrorReason;
use crate::protocol::recogniser::Protocol;
use crate::session::report::remedy;

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its address is not in any network that may come in.
    NotAllowed,
    /// A balancer did not say whose connection it is, and that matters.
    UnknownClient,
    /// A balancer's connection does not begin with a header, or not with one that makes sense.
    NoHeader,
    /// What came is not TLS.
    NoTls,
    /// TLS did not come about.
    TlsFailed,
    /// The name in the certificate is not one that can be used.
    CertificateName,
    /// The first line is not a handshake with a token.
    NoToken,
    /// The token is not one of those in the file.
    WrongToken,
    /// The first line is longer than it may be.
    LongFirstLine,
    /// It may not use this server.
    Forbidden,
    /// There is no server of the name that it asks for, or it asks for none where there is a choice.
    UnknownServer,
    /// It speaks this protocol.
    OtherProtocol(Protocol),
    /// It took too long.
    TimedOut,
    /// It had to make room for a newer one.
    Displaced,
}

impl Refusal {
    /// All names.
    pub const NAMES: [&'static str; 14] = [
        "not_allowed",
        "unknown_client",
        "no_proxy_header",
        "tls_required",
        "tls_failed",
        "certificate_name",
        "no_token",
        "wrong_token",
        "long_first_line",
        "forbidden",
        "unknown_server",
        "other_protocol",
        "entrance_timeout",
        "too_many_connections",
    ];

    /// The place of the name in [`Self::NAMES`].
    pub fn number(self) -> usize {
        match self {
            Self::NotAllowed => 0,
            Self::UnknownClient => 1,
            Self::NoHeader => 2,
            Self::NoTls => 3,
            Self::TlsFailed => 4,
            Self::CertificateName => 5,
            Self::NoToken => 6,
            Self::WrongToken => 7,
            Self::LongFirstLine => 8,
            Self::Forbidden => 9,
            Self::UnknownServer => 10,
            Self::OtherProtocol(_) => 11,
            Self::TimedOut => 12,
            Self::Displaced => 13,
        }
    }

    /// The reason in one word, for fields of log lines and for metrics.
    pub fn name(self) -> &'static str {
        Self::NAMES[self.number()]
    }

    /// Whether it is about who somebody is, and not about anything else.
    pub fn is_about_identity(number: usize) -> bool {
        const FIRST: usize = 3;
        const LAST: usize = 9;
        (FIRST..=LAST).contains(&number)
    }

    /// What the client is told, if it can be told anything.
    pub fn error(self) -> Option<ErrorReason> {
        match self {
            Self::NoTls => Some(ErrorReason::TlsRequired),
            Self::NoToken | Self::WrongToken | Self::LongFirstLine => {
                Some(ErrorReason::Unauthorized)
            }
            Self::Forbidden | Self::CertificateName => Some(ErrorReason::Forbidden),
            Self::UnknownServer => Some(ErrorReason::UnknownServer),
            Self::TimedOut => Some(ErrorReason::EntranceTimeout),
            Self::Displaced => Some(ErrorReason::TooManyConnections),
            Self::NotAllowed
            | Self::UnknownClient
            | Self::NoHeader
            | Self::TlsFailed
            | Self::OtherProtocol(_) => None,
        }
    }

    /// The same in words.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::NoTls => "this port takes TLS (mcp-tcp-proxy connect --tls)",
            Self::NoToken => {
                r#"a token is needed: the first line has to be {"type":"handshake","token":"…"} (mcp-tcp-proxy connect --token-file FILE)"#
            }
            Self::LongFirstLine => {
                "a token is needed, in the first line, and that must not be longer than 8192 bytes"
            }
            Self::WrongToken => "the token is not one that this proxy knows",
            Self::Forbidden => "this client may not use this server",
            Self::UnknownServer => {
                r#"there is no such server here: the first line has to be {"type":"handshake","server":"NAME"} (mcp-tcp-proxy connect --server NAME)"#
            }
            Self::CertificateName => "the name in the certificate can't be used",
            Self::TimedOut => "the first line took too long (--entrance-timeout)",
            Self::Displaced => "there are too many connections that have sent no first line",
            _ => "",
        }
    }
}

/// It stands in the log after `entrance: refused ADDRESS:`, and has nothing in it that a stranger sent.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => "not_allowed (--allow)",
            Self::UnknownClient => "unknown_client, behind a balancer",
            Self::NoHeader => "no PROXY header, or a bad one (--proxy-protocol)",
            Self::NoTls => "tls_required",
            Self::TlsFailed => "TLS handshake failed",
            Self::CertificateName => "forbidden, the certificate has no usable name",
            Self::NoToken => "unauthorized, no token",
            Self::WrongToken => "unauthorized, wrong token",
            Self::LongFirstLine => "unauthorized, first line too long",
            Self::Forbidden => "forbidden",
            Self::UnknownServer => "unknown_server",
            Self::TimedOut => "entrance_timeout",
            Self::Displaced => "too_many_connections",
            Self::OtherProtocol(protocol) => {
                return write!(f, "the client speaks {protocol}: {}", remedy(*protocol));
            }
        })
    }
}
