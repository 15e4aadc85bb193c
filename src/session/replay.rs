//! How the handshake of a legacy session is replayed to an upstream that replaces another.
//!
//! A legacy server refuses everything before `initialize`. A client that does not know about restarts does not send it
//! again, so the proxy does, in the client's words but with an id of its own. Lines for the server are held until it
//! has responded.

use serde::{Deserialize, Serialize};

use super::handshake::{Handshake, Outcome};
use super::report::{EndReason, Exit};
use super::stderr::excerpt;
use super::upstream::{ToUpstream, Upstream};
use super::{Context, Session};
use crate::buffers::outbox::Outbox;
use crate::protocol::envelope::Envelope;
use crate::protocol::id::RequestId;
use crate::protocol::own_messages::ErrorReason;
use crate::util::about::about;
use crate::util::time::Time;

/// Ends a handshake, in the words of the specification.
const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Whether an upstream knows the client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Greeting {
    /// Whether the handshake is replayed is decided by the client's next line, unless the time for a replay comes
    /// first.
    Due,
    /// The handshake was sent by the proxy.
    Replaying(Box<Replay>),
    /// Lines are passed on.
    Done,
    /// The other side accepts no new requests any more; they wait for the next upstream.
    Refusing,
    /// The same, but it is this side that sends none: another server is to take its place.
    Finishing,
}

/// A handshake that waits for its response.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Replay {
    id: RequestId,
    /// Counts from the first byte that is written.
    deadline: Option<Time>,
}

impl Greeting {
    /// How a new upstream begins.
    pub(super) fn first(handshake: &Handshake, replays: bool) -> Self {
        if replays && handshake.is_recorded() {
            Self::Due
        } else {
            Self::Done
        }
    }

    /// When the response to a replay is overdue.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Self::Replaying(replay) => replay.deadline,
            Self::Due | Self::Done | Self::Refusing | Self::Finishing => None,
        }
    }

    /// The first byte of the replay was written.
    pub(super) fn replay_started(&mut self, deadline: Time) {
        if let Self::Replaying(replay) = self {
            replay.deadline = Some(deadline);
        }
    }

    /// The id of a replay that waits for its response.
    pub(super) fn replay_id(&self) -> Option<&RequestId> {
        match self {
            Self::Replaying(replay) => Some(&replay.id),
            Self::Due | Self::Done | Self::Refusing | Self::Finishing => None,
        }
    }

    /// The same, when the rest of the greeting is no longer needed.
    pub(super) fn into_replay_id(self) -> Option<RequestId> {
        match self {
            Self::Replaying(replay) => Some(replay.id),
            Self::Due | Self::Done | Self::Refusing | Self::Finishing => None,
        }
    }
}

impl Session {
    /// The outbox for a line with this tag. Responses to the present server overtake lines that wait for the handshake.
    #[inline]
    pub(super) fn outbox_for(&mut self, tag: Option<&ToUpstream>) -> &mut Outbox<ToUpstream> {
        if let Upstream::Up(up) = &self.upstream
            && matches!(up.greeting, Greeting::Done)
        {
            return &mut self.to_upstream;
        }
        self.outbox_before_greeting(tag)
    }

    #[inline(never)]
    fn outbox_before_greeting(&mut self, tag: Option<&ToUpstream>) -> &mut Outbox<ToUpstream> {
        let passes = match (&self.upstream, tag) {
            (Upstream::Up(_), Some(ToUpstream::Response)) => true,
            (Upstream::Up(up), tag) => match up.greeting {
                Greeting::Done => true,
                Greeting::Refusing | Greeting::Finishing => {
                    matches!(tag, Some(ToUpstream::Cancelled(id)) if self.in_flight.contains(id))
                }
                Greeting::Due | Greeting::Replaying(_) => false,
            },
            _ => false,
        };
        if passes {
            &mut self.to_upstream
        } else {
            self.held.get_or_insert_default()
        }
    }

    /// How many bytes are in the outbox for a line that means nothing.
    #[inline]
    pub(super) fn bytes_in_outbox(&self) -> usize {
        match &self.upstream {
            Upstream::Up(up) if matches!(up.greeting, Greeting::Done) => self.to_upstream.len(),
            _ => self.held_bytes(),
        }
    }

    /// Releases the held lines to an upstream that knows the client, and greets one that does not.
    #[inline]
    pub(super) fn release_held(&mut self, cx: &mut Context<'_>) {
        if self.held.is_some() {
            self.release_if_greeted(cx);
        }
    }

    #[inline(never)]
    fn release_if_greeted(&mut self, cx: &mut Context<'_>) {
        self.held.take_if(|held| held.is_empty());
        let Some(held) = &self.held else {
            return;
        };
        let Upstream::Up(up) = &self.upstream else {
            return;
        };
        if matches!(up.greeting, Greeting::Due) {
            let greets_itself = matches!(
                held.first_tag(),
                Some(ToUpstream::Request(request)) if request.is_initialize()
            );
            if greets_itself || !self.start_replay(cx) {
                self.greet_done();
            }
        }
        let Upstream::Up(up) = &self.upstream else {
            return;
        };
        if matches!(up.greeting, Greeting::Done) {
            let held = self.take_held();
            if let Some(left) = self.to_upstream.append(held, cx.memory) {
                self.refuse_all_in(&left, cx);
            }
        }
    }

    fn greet_done(&mut self) {
        if let Upstream::Up(up) = &mut self.upstream {
            up.greeting = Greeting::Done;
        }
    }

    /// Sends the recorded handshake. Returns whether there is one.
    pub(super) fn start_replay(&mut self, cx: &mut Context<'_>) -> bool {
        let Upstream::Up(up) = &mut self.upstream else {
            return false;
        };
        let Some((id, line)) = self.handshake.next_replay() else {
            return false;
        };
        up.greeting = Greeting::Replaying(Box::new(Replay { id, deadline: None }));
        about!(debug, self.label, "proxy → server: {}", excerpt(&line));
        self.to_upstream
            .push(&line, Some(ToUpstream::Replay), cx.memory);
        true
    }

    /// The id of the replay that waits for its response, if one does. It may be among an upstream's last words.
    pub(super) fn replay_id(&self) -> Option<&RequestId> {
        match &self.upstream {
            Upstream::Up(up) => up.greeting.replay_id(),
            Upstream::Leaving(leaving) => leaving.replay.as_ref(),
            _ => None,
        }
    }

    /// The response to the replayed handshake arrived.
    pub(super) fn on_replay_response(&mut self, response: &Envelope<'_>, cx: &mut Context<'_>) {
        if !self.upstream.is_up() {
            return;
        }
        let is_tried = self.is_tried_in_place();
        let outcome = if is_tried {
            self.handshake.compare_with_new(response)
        } else {
            self.handshake.compare(response)
        };
        let Some(outcome) = outcome else {
            return;
        };
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        match outcome {
            Outcome::Agreed => {
                let wakes = up.wakes;
                if wakes {
                    about!(debug, self.label, "the handshake was replayed");
                } else {
                    about!(info, self.label, "the handshake was replayed");
                }
                up.greeting = Greeting::Done;
                up.history.has_responded = true;
                self.backend.server_heard();
                if self.handshake.is_complete() {
                    self.send_initialized(cx);
                    self.restore_standing(cx);
                }
                let is_renewed = self.handshake.renew_version(response);
                self.handshake.share_record(cx.records);
                // One that was given back is replaced by its like, unless it was exchanged meanwhile.
                if is_renewed || !wakes {
                    self.tell_list_changes(cx);
                }
                self.release_held(cx);
                if is_tried {
                    self.moved_in_place(cx);
                }
            }
            Outcome::Changed if self.backend.may_find_server_later(response) => {
                let is_stopped = response.is_proxy_error_of(ErrorReason::Shutdown);
                let exit = if is_stopped {
                    Exit::BeingStopped
                } else {
                    Exit::Refused
                };
                self.link_ended(exit, cx);
            }
            Outcome::Changed => {
                self.lost_in_place(&EndReason::ServerChanged.to_string(), cx);
                self.end_now(&EndReason::ServerChanged, cx);
            }
        }
    }

    /// The server has not responded to the replay in time. That is a failed start, as by a crash.
    pub(super) fn replay_overdue(&mut self, cx: &mut Context<'_>) {
        if self.backend.is_link() {
            // What has no line end may be a line all the same, if only the end is late: even the response.
            self.upstream_tail(cx);
            if self.replay_id().is_none() {
                return;
            }
        }
        let time = self.handshake.replay_time(cx.settings.replay_timeout);
        about!(warn, self.label, "{}", EndReason::ReplayTimeout(time));
        if self.backend.is_link() {
            return self.link_ended(Exit::NoReplay(time), cx);
        }
        self.stop_upstream(cx);
        if let Upstream::Leaving(leaving) = &mut self.upstream {
            leaving.replay_overdue = Some(time);
        }
    }

    /// Ends a handshake on the client's behalf. An upstream on its way out gets nothing any more: the replay tells the
    /// next one.
    pub(super) fn send_initialized(&mut self, cx: &mut Context<'_>) {
        if !self.upstream.is_up() {
            return;
        }
        about!(
            debug,
            self.label,
            "proxy → server: {}",
            excerpt(INITIALIZED)
        );
        self.to_upstream.push(
            INITIALIZED,
            Some(ToUpstream::ReplayedInitialized),
            cx.memory,
        );
    }
}
