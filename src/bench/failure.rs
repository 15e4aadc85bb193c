//! What can go wrong with a request, by kind; each kind is counted under its name.

use std::collections::BTreeMap;
use std::fmt;

use crate::protocol::json;
use crate::protocol::own_messages::SOURCE;

/// Why a request has no sample, or what else was wrong with what a server said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// The response is an error with this code; if a proxy made it, with its reason.
    Error(i64, Option<String>),
    /// A tool says that it has failed (`isError`).
    Tool,
    /// No response came in time.
    Timeout,
    /// The session ended before the response came.
    SessionEnded,
    /// There was no connection for the request.
    NoConnection,
    /// The schedule could not be kept: no session had room in time.
    Unsent,
    /// A second response to the same request.
    Twice,
    /// A response that came after its time.
    Late,
    /// A response with an id that no request has had.
    UnknownId,
    /// A line that is no message, or a response that says nothing.
    Malformed,
}

impl Failure {
    /// Reads the error of a response; `None` if it is not one.
    pub(super) fn of_error(error: &str) -> Option<Self> {
        let [code, data] = json::find(error, ["code", "data"])?;
        let code = error.get(code?)?.parse().ok()?;
        let reason = data.and_then(|data| proxy_reason(error.get(data)?));
        Some(Self::Error(code, reason))
    }
}

/// The reason that a proxy gives for an error of its own.
fn proxy_reason(data: &str) -> Option<String> {
    let [source, reason] = json::find(data, ["source", "reason"])?;
    let read = |range| serde_json::from_str::<String>(data.get(range)?).ok();
    reason
        .and_then(read)
        .filter(|_| source.and_then(read).as_deref() == Some(SOURCE))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error(code, Some(reason)) => return write!(f, "{code} {reason}"),
            Self::Error(code, None) => return code.fmt(f),
            Self::Tool => "tool_error",
            Self::Timeout => "timeout",
            Self::SessionEnded => "session_ended",
            Self::NoConnection => "no_connection",
            Self::Unsent => "unsent",
            Self::Twice => "answered_twice",
            Self::Late => "late",
            Self::UnknownId => "unknown_id",
            Self::Malformed => "malformed",
        })
    }
}

/// How often each has happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Failures(BTreeMap<Failure, u64>);

impl Failures {
    pub(super) fn add(&mut self, failure: Failure) {
        self.add_many(failure, 1);
    }

    pub(super) fn add_many(&mut self, failure: Failure, count: u64) {
        if count > 0 {
            *self.0.entry(failure).or_default() += count;
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (failure, count) in &other.0 {
            self.add_many(failure.clone(), *count);
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Failure, u64)> {
        self.0.iter().map(|(failure, count)| (failure, *count))
    }

    /// How often this one has happened.
    #[cfg(test)]
    pub(super) fn count(&self, failure: &Failure) -> u64 {
        self.0.get(failure).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_code_and_by_the_reason_of_a_proxy() {
        let read = |error| Failure::of_error(error).map(|failure| failure.to_string());
        for (error, name) in [
            (r#"{"code":-32601,"message":"no"}"#, "-32601"),
            (
                r#"{"code":502,"message":"m","data":{"source":"mcp-tcp-proxy","reason":"unreachable"}}"#,
                "502 unreachable",
            ),
            (r#"{"code":5,"data":{"source":"me","reason":"x"}}"#, "5"),
            (r#"{"code":5,"data":{"reason":"x"}}"#, "5"),
            (r#"{"code":5,"data":7}"#, "5"),
        ] {
            assert_eq!(read(error).as_deref(), Some(name), "{error}");
        }
        for error in [r#"{"message":"no code"}"#, r#"{"code":"1"}"#, "7", "[]"] {
            assert_eq!(read(error), None, "{error}");
        }
    }

    #[test]
    fn kinds_are_added_up() {
        let mut failures = Failures::default();
        failures.add(Failure::Late);
        failures.add_many(Failure::Twice, 0);
        let mut all = failures.clone();
        all.merge(&failures);
        assert_eq!((all.count(&Failure::Late), all.total()), (2, 2));
        assert_eq!(all.iter().count(), 1);
    }
}
