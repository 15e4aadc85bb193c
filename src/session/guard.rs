//! Connections of other protocols: they end with their first line, and nothing after it is looked at.
//!
//! Above all this is about web pages, which reach loopback, too: a form that submits itself is an HTTP request whose body
//! may be anything, and the proxy must not serve it.

use super::report::EndReason;
use super::{Context, Goal, Session};
use crate::protocol::own_messages::HTTP_RESPONSE;
use crate::protocol::recogniser::{Protocol, Verdict};

impl Session {
    /// Looks at what the client sent before it is handled, until its first line is known to be none of another protocol.
    /// What is to be handled is left in `input`. Returns whether there can be anything.
    #[cold]
    #[inline(never)]
    pub(super) fn guard(&mut self, input: &mut &[u8], cx: &mut Context<'_>) -> bool {
        let Some(guard) = &mut self.guard else {
            return true;
        };
        let withheld = guard.withheld();
        match guard.look(input) {
            Verdict::Undecided => {
                let more = guard.withheld().len() - withheld.len();
                *input = &input[..input.len() - more];
                true
            }
            Verdict::Ours => {
                self.guard = None;
                self.take_input(withheld, cx);
                true
            }
            Verdict::Other(protocol) => {
                self.guard = None;
                self.turn_away(protocol, cx);
                false
            }
        }
    }

    /// The client has ended its side. What may have been the beginning of another protocol was something else.
    pub(super) fn end_guard(&mut self, cx: &mut Context<'_>) {
        if let Some(guard) = self.guard.take() {
            self.handle_input(&mut guard.withheld(), cx);
        }
    }

    /// Ends the session of a client that speaks another protocol.
    fn turn_away(&mut self, protocol: Protocol, cx: &mut Context<'_>) {
        self.from_client.clear();
        if protocol == Protocol::Http {
            self.to_client
                .push(HTTP_RESPONSE.as_bytes(), None, cx.memory);
        }
        // Whatever else was about to end it: this is what whoever reads the log has to know.
        self.goal = Goal::end(EndReason::OtherProtocol(protocol), cx.now);
        self.last_written = cx.now;
    }

    /// The protocol of the client, if the session ended because it is another one.
    pub fn other_protocol(&self) -> Option<Protocol> {
        match self.goal.reason() {
            Some(EndReason::OtherProtocol(protocol)) => Some(*protocol),
            _ => None,
        }
    }
}
