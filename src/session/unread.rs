//! What a lost server was sent and has never read: it was never sent, and waits for the next server.
//!
//! Nothing is noted of lines on their way for this. What nobody has read is the end of what was written, so its requests
//! are the last ones in flight, and its lines are read once more to find them. It may begin inside of a line, which the
//! server has read in part: what remains of a JSON object or array without its first byte is no JSON text, so that line
//! is not taken for a whole one.

use std::borrow::Cow;

use super::in_flight::Request;
use super::no_memory::copy_of;
use super::upstream::{ToUpstream, Upstream};
use super::{Context, Session};
use crate::buffers::outbox::Outbox;
use crate::protocol::envelope::{Envelope, Message, Method};
use crate::protocol::id::RequestId;
use crate::protocol::splice::{self, Spliced};

/// What was found of the lines that were not read.
struct Unread {
    /// Their requests, in order: `None` for one that is no longer in flight, as it was taken back.
    requests: std::vec::IntoIter<Option<Request>>,
    /// Whether the next server is told `notifications/initialized` by the proxy.
    is_told: bool,
}

/// What becomes of a message that was not read.
enum Fate {
    Dropped,
    /// It waits for the next server, and means this if that matters.
    Waits(Option<ToUpstream>),
}

impl Session {
    /// The lines that lie in `unread` as a whole go before those that are held. Of the last one a part may not have been
    /// written.
    pub(super) fn take_back_unread(&mut self, unread: &[u8], cx: &mut Context<'_>) {
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        let rest = std::mem::take(&mut leaving.rest);
        if leaving.is_settled() || self.goal.is_end() {
            return;
        }
        let lines = lines(unread, &rest);
        let messages: Vec<(&[u8], Message<'_>)> = lines
            .iter()
            .filter_map(|line| Some((&**line, Message::read(line).ok()?)))
            .collect();
        let mut found = self.find_not_read(&messages);
        let mut front = Outbox::default();
        for (line, message) in &messages {
            match message {
                Message::Single(envelope) => {
                    let Fate::Waits(tag) = self.fate_of_not_read(envelope, &mut found) else {
                        continue;
                    };
                    self.push_or_refuse(&mut front, line, tag, cx);
                }
                Message::Batch(_) => {
                    let mut parts = Vec::new();
                    let left = splice::retain(line, |envelope| {
                        let Fate::Waits(tag) = self.fate_of_not_read(envelope, &mut found) else {
                            return false;
                        };
                        parts.extend(tag);
                        true
                    });
                    let line = match &left {
                        Spliced::Unchanged => line,
                        Spliced::Line(line) => line.as_slice(),
                        Spliced::Nothing => continue,
                    };
                    let tag = (!parts.is_empty()).then(|| ToUpstream::Batch(parts.into()));
                    self.push_or_refuse(&mut front, line, tag, cx);
                }
            }
        }
        self.hold_behind(front, cx);
    }

    /// Takes the requests in these messages, the last ones that were written, out of those in flight.
    fn find_not_read(&mut self, messages: &[(&[u8], Message<'_>)]) -> Unread {
        let envelopes = messages.iter().flat_map(|(_, message)| message.envelopes());
        let ids: Vec<RequestId> = envelopes
            .filter_map(Envelope::request_id)
            .map(RequestId::new)
            .collect();
        let mut in_flight: Vec<Request> = self.in_flight.take_all().collect();
        let mut found: Vec<Option<Request>> = ids
            .iter()
            .rev()
            .map(|id| in_flight.pop_if(|last| last.id == *id))
            .collect();
        found.reverse();
        let is_told = self.handshake.is_replayed_whole();
        for request in in_flight {
            self.in_flight.begin(request);
        }
        Unread {
            requests: found.into_iter(),
            is_told,
        }
    }

    /// Responses were for the one that is lost, and
    /// cancellations take back what that had, or what is not sent again.
    fn fate_of_not_read(&mut self, envelope: &Envelope<'_>, found: &mut Unread) -> Fate {
        if envelope.request_id().is_some() {
            let Some(request) = found.requests.next().flatten() else {
                return Fate::Dropped;
            };
            self.queued.add(&request);
            return Fate::Waits(Some(ToUpstream::Request(request)));
        }
        if envelope.response_id().is_some() || envelope.cancelled_id().is_some() {
            return Fate::Dropped;
        }
        if envelope.method != Some(Method::Initialized) {
            return Fate::Waits(None);
        }
        if found.is_told {
            return Fate::Dropped;
        }
        self.handshake.take_back_initialized();
        Fate::Waits(Some(ToUpstream::Initialized))
    }
}

/// The lines in `unread`, without their line ends. The first may not be whole. `rest` is what was not written of the last.
fn lines<'a>(unread: &'a [u8], rest: &[u8]) -> Vec<Cow<'a, [u8]>> {
    let mut lines: Vec<Cow<'a, [u8]>> =
        unread.split(|byte| *byte == b'\n').map(Cow::from).collect();
    // Of what follows the last line end all may have been read, if that was nothing but blanks.
    if let Some(last) = lines.pop()
        && let Some((_, rest)) = rest.split_last()
    {
        // Without memory for it, it counts as read.
        lines.push(copy_of([&last, rest]).into());
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(unread: &str, rest: &str) -> Vec<String> {
        let lines = lines(unread.as_bytes(), rest.as_bytes());
        let text = |line: &Cow<'_, [u8]>| String::from_utf8(line.to_vec()).unwrap();
        lines.iter().map(text).collect()
    }

    #[test]
    fn the_rest_completes_the_last_line() {
        assert_eq!(texts("a\nb\n", ""), ["a", "b"]);
        assert_eq!(texts("a\nb", "cd\n"), ["a", "bcd"]);
        assert_eq!(texts("b", "cd\n"), ["bcd"]);
        assert_eq!(texts("a\n", "cd\n"), ["a", "cd"]);
        assert_eq!(texts("\na\n", ""), ["", "a"]);
        assert_eq!(texts("a\nb", ""), ["a"], "the rest of it is lost");
    }

    /// JSON values, and strings that look like them.
    fn json() -> impl Strategy<Value = String> {
        let scalar = prop_oneof![
            Just("1".to_owned()),
            Just("null".to_owned()),
            r#"[\[\]{}:,1 \\"]{0,12}"#.prop_map(|text| serde_json::to_string(&text).unwrap()),
        ];
        scalar.prop_recursive(3, 24, 4, |inner| {
            let key =
                r#"[\[\]{}:,\\"]{0,4}"#.prop_map(|text| serde_json::to_string(&text).unwrap());
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec((key, inner), 0..4).prop_map(|members| {
                    let members = members.iter().map(|(key, value)| format!("{key}:{value}"));
                    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    proptest! {
        /// So what a server has read in part is not taken for what it has not read.
        #[test]
        fn what_remains_of_a_message_without_its_beginning_is_none(value in json()) {
            let message = format!("[{value}]");
            for start in 1..message.len() {
                if message.is_char_boundary(start) {
                    prop_assert!(Message::read(&message.as_bytes()[start..]).is_err());
                }
            }
        }
    }
}
