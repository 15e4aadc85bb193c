//! What servers have answered to `server/discover`, for as long as they say that it may be told to anybody.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::json;
use crate::util::side_bytes;
use crate::util::time::Time;

/// The longest answer that is kept, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// For how many versions of MCP answers are kept. Clients may ask for any.
const MAX_VERSIONS: usize = 8;

/// The longest version, as written, in bytes.
const MAX_VERSION_BYTES: usize = 64;

/// The answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Discovered {
    answers: Vec<Answer>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// The version that was asked for, as written.
    #[serde(with = "side_bytes")]
    version: Box<[u8]>,
    #[serde(with = "side_bytes")]
    line: Box<[u8]>,
    /// Where its id is.
    at: Range<usize>,
    until: Time,
}

impl Discovered {
    /// A process has answered a request for this version; the id is there in the line.
    pub(super) fn note(&mut self, version: &[u8], line: &[u8], at: &Range<usize>, now: Time) {
        self.answers.retain(|answer| *answer.version != *version);
        self.answers.retain(|answer| answer.until > now);
        let is_short = line.len() <= MAX_BYTES && version.len() <= MAX_VERSION_BYTES;
        if !is_short || self.answers.len() >= MAX_VERSIONS {
            return;
        }
        if let Some(time) = public_time(line) {
            self.answers.push(Answer {
                version: version.into(),
                line: line.into(),
                at: at.clone(),
                until: now + time,
            });
        }
    }

    /// The answer to a request for this version, and where its id is.
    pub(super) fn find(&self, version: &[u8], now: Time) -> Option<(&[u8], Range<usize>)> {
        let mut answers = self.answers.iter();
        let answer = answers.find(|answer| *answer.version == *version && answer.until > now)?;
        Some((&answer.line, answer.at.clone()))
    }

    /// The server is another, or may be.
    pub(super) fn forget(&mut self) {
        self.answers.clear();
    }
}

/// For how long anybody may be told this, if it is a result that says so.
fn public_time(line: &[u8]) -> Option<Duration> {
    let line = str::from_utf8(line).ok()?;
    let [result] = json::find(line, ["result"])?;
    let result = line.get(result?)?;
    let [time, scope] = json::find(result, ["ttlMs", "cacheScope"])?;
    let value = |range: Option<Range<usize>>| {
        let text = result.get(range?)?;
        serde_json::from_str::<Value>(text).ok()
    };
    if value(scope)? != "public" {
        return None;
    }
    let millis = value(time)?.as_u64().filter(|millis| *millis > 0)?;
    Some(Duration::from_millis(millis.min(MAX_MILLIS)))
}

/// No answer is kept for longer: a day.
const MAX_MILLIS: u64 = 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_public_is_kept_and_only_while_it_lasts() {
        for (line, is_kept) in [
            (
                r#"{"id":7,"result":{"ttlMs":1000,"cacheScope":"public"}}"#,
                true,
            ),
            (
                r#"{"id":7,"result":{"ttlMs":1000,"cacheScope":"private"}}"#,
                false,
            ),
            (r#"{"id":7,"result":{"ttlMs":1000}}"#, false),
            (r#"{"id":7,"result":{"cacheScope":"public"}}"#, false),
            (
                r#"{"id":7,"result":{"ttlMs":0,"cacheScope":"public"}}"#,
                false,
            ),
            (
                r#"{"id":7,"error":{"ttlMs":1000,"cacheScope":"public"}}"#,
                false,
            ),
        ] {
            let start = Time::from_nanos(1 << 40);
            let mut discovered = Discovered::default();
            discovered.note(b"\"v\"", line.as_bytes(), &(6..7), start);
            let later = start + Duration::from_millis(999);
            let found = discovered.find(b"\"v\"", later);
            assert_eq!(found.is_some(), is_kept, "{line}");
            assert_eq!(discovered.find(b"\"w\"", later), None);
            assert_eq!(
                discovered.find(b"\"v\"", start + Duration::from_secs(1)),
                None
            );
            discovered.forget();
            assert_eq!(discovered.find(b"\"v\"", start), None);
        }
    }

    #[test]
    fn no_client_can_fill_the_memory_with_versions() {
        let start = Time::from_nanos(1 << 40);
        let mut discovered = Discovered::default();
        let line = br#"{"id":7,"result":{"ttlMs":1000,"cacheScope":"public"}}"#;
        for version in 0..100 {
            discovered.note(version.to_string().as_bytes(), line, &(6..7), start);
        }
        assert_eq!(discovered.answers.len(), MAX_VERSIONS);
        let later = start + Duration::from_secs(1);
        discovered.note(b"new", line, &(6..7), later);
        assert_eq!(discovered.answers.len(), 1);
    }
}
