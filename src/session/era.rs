//! Which era of MCP a session belongs to: legacy clients open with `initialize` and have a session with their server; modern
//! ones (2026-07-28 and newer) have none, and say in each request what they speak.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::{Context, Session};
use crate::protocol::envelope::{Envelope, Message, Method};
use crate::util::defaults::is_default;

/// The era, which the first request decides. `server/discover` does not: a client sends it to find out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Era {
    /// There was no such request. It counts as legacy.
    #[default]
    Undecided,
    Legacy {
        /// Whether that request is an `initialize`, as it has to be.
        #[serde(default, skip_serializing_if = "is_default")]
        is_opened: bool,
    },
    Modern,
}

/// The version of MCP that a client has said that it speaks, as JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version(Box<str>);

impl Era {
    pub(super) fn is_modern(self) -> bool {
        self == Self::Modern
    }

    /// A message of the client is forwarded. Only the first request is looked into.
    fn note(&mut self, message: &Message<'_>) {
        if *self != Self::Undecided {
            return;
        }
        let is_deciding = |envelope: &&Envelope<'_>| {
            envelope.request_id().is_some() && envelope.method != Some(Method::Discover)
        };
        let Some(first) = message.envelopes().iter().find(is_deciding) else {
            return;
        };
        let is_single = matches!(message, Message::Single(_));
        *self = if first.names_protocol_version() {
            Self::Modern
        } else {
            Self::Legacy {
                is_opened: is_single && first.method == Some(Method::Initialize),
            }
        };
    }
}

impl Session {
    /// A message of the client is forwarded.
    #[inline]
    pub(super) fn note_era(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        if self.era == Era::Undecided {
            self.find_era(message, cx);
        }
    }

    #[inline(never)]
    fn find_era(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        self.era.note(message);
        if self.era.is_modern() {
            let mut versions = message
                .envelopes()
                .iter()
                .filter_map(Envelope::protocol_version);
            self.modern_version = versions.next().map(|version| {
                let mut version = Rc::new(Version(version.into()));
                cx.records.versions.share(&mut version);
                version
            });
        }
    }

    /// What a modern client has said that it speaks, as JSON.
    pub(super) fn modern_version(&self) -> Option<&str> {
        self.modern_version.as_ref().map(|version| &*version.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str]) -> Era {
        let mut era = Era::default();
        for line in lines {
            era.note(&Message::read(line.as_bytes()).unwrap());
        }
        era
    }

    const MODERN: &str = r#"{"id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    const DISCOVER: &str = r#"{"id":1,"method":"server/discover","params":{}}"#;
    const LEGACY: &str = r#"{"id":1,"method":"tools/list","params":{"_meta":{"progressToken":1}}}"#;

    const OPENED: Era = Era::Legacy { is_opened: true };
    const UNOPENED: Era = Era::Legacy { is_opened: false };

    #[test]
    fn the_first_request_decides() {
        assert_eq!(after(&[MODERN, LEGACY]), Era::Modern);
        assert_eq!(after(&[LEGACY, MODERN]), UNOPENED);
        assert_eq!(after(&[DISCOVER]), Era::Undecided);
        assert_eq!(after(&[DISCOVER, MODERN]), Era::Modern);
        let not_requests = [r#"{"method":"n"}"#, r#"{"id":1,"result":{}}"#];
        assert_eq!(
            after(&[not_requests[0], not_requests[1], MODERN]),
            Era::Modern
        );
        assert_eq!(after(&[r#"{"id":1,"method":"initialize"}"#]), OPENED);
        assert_eq!(after(&[r#"[{"id":1,"method":"m"}]"#]), UNOPENED);
        let batch = r#"[{"id":1,"method":"initialize"}]"#;
        assert_eq!(after(&[batch]), UNOPENED);
    }
}
