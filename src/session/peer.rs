//! What the first line over a link tells of whoever is at its other end: it may be no proxy at all.

use super::report::{EndReason, Exit, why_denied};
use super::{Context, Session};
use crate::protocol::envelope::Message;
use crate::protocol::own_messages::ErrorReason;
use crate::protocol::recogniser::{Protocol, Recogniser, Verdict};

/// What is known of the peer by what it said first.
#[derive(Debug)]
pub(super) struct FirstLine {
    /// Until the protocol is known.
    recogniser: Option<Recogniser>,
    /// Whether it has come.
    has_come: bool,
}

impl FirstLine {
    pub(super) fn new() -> Self {
        Self {
            recogniser: Some(Recogniser::of_server()),
            has_come: false,
        }
    }

    /// Whether it has come.
    pub(super) fn has_come(&self) -> bool {
        self.has_come
    }

    /// Looks at what came. Returns the protocol, if it is another one.
    fn look(&mut self, bytes: &[u8]) -> Option<Protocol> {
        match self.recogniser.as_mut()?.look(bytes) {
            Verdict::Undecided => None,
            Verdict::Ours => {
                self.recogniser = None;
                None
            }
            Verdict::Other(protocol) => Some(protocol),
        }
    }
}

impl Session {
    /// Looks at what came over a link before it is handled. Returns whether it may be.
    ///
    /// A peer of another protocol is a mistake in the address, which no further attempt corrects, unless there was a proxy
    /// before: then something may be in its place for a while.
    #[inline(never)]
    pub(super) fn is_from_proxy(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> bool {
        let first_line = self.backend.first_line();
        let Some(protocol) = first_line.and_then(|first_line| first_line.look(bytes)) else {
            return true;
        };
        if self.backend.was_reached() {
            self.link_ended(Exit::OtherProtocol(protocol), cx);
        } else {
            self.end_now(&EndReason::PeerProtocol(protocol), cx);
        }
        false
    }

    /// Notes that a line has come. Returns whether it is the first one over a link.
    pub(super) fn note_line(&mut self) -> bool {
        let first_line = self.backend.first_line();
        first_line.is_some_and(|first_line| !std::mem::replace(&mut first_line.has_come, true))
    }

    /// Takes the refusal of a proxy that is full, or does not let us in, which is all that it says: nothing for the program
    /// that started this one. Being full is a failed attempt; so is the rest, once there was a good connection before: what
    /// is wrong may be put right by somebody, and nobody starts this program again. Returns whether it was one.
    ///
    /// Ask this of the first line alone, or a server could end the link by saying the same.
    pub(super) fn take_refusal(&mut self, message: &Message<'_>, cx: &mut Context<'_>) -> bool {
        let Message::Single(envelope) = message else {
            return false;
        };
        if envelope.id.is_some() || envelope.method.is_some() || !envelope.is_proxy_error() {
            return false;
        }
        let mut reasons = REFUSALS.into_iter();
        let Some(reason) = reasons.find(|reason| envelope.is_proxy_error_of(*reason)) else {
            return false;
        };
        match reason {
            ErrorReason::SessionLimit => self.link_ended(Exit::Full, cx),
            reason if is_final(reason) && !self.backend.was_reached() => {
                let why = why_denied(reason).to_owned();
                self.end_now(&EndReason::AccessDenied(why), cx);
            }
            reason => self.link_ended(Exit::Denied(reason), cx),
        }
        true
    }
}

/// With these a proxy refuses a connection.
const REFUSALS: [ErrorReason; 7] = [
    ErrorReason::SessionLimit,
    ErrorReason::Unauthorized,
    ErrorReason::Forbidden,
    ErrorReason::UnknownServer,
    ErrorReason::TlsRequired,
    ErrorReason::EntranceTimeout,
    ErrorReason::TooManyConnections,
];

/// Whether a further attempt would end the same.
fn is_final(reason: ErrorReason) -> bool {
    matches!(
        reason,
        ErrorReason::Unauthorized
            | ErrorReason::Forbidden
            | ErrorReason::UnknownServer
            | ErrorReason::TlsRequired
    )
}
