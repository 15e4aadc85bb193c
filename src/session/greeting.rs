//! How a new server gets to know the client: by the client's own `initialize`, or by a replay of the one before.

use log::{debug, info};

use super::replay::Outcome;
use super::report::{EndReason, Exit};
use super::stderr::excerpt;
use super::upstream::Upstream;
use super::{Context, Session, ToUpstream};
use crate::buffers::outbox::Outbox;
use crate::protocol::envelope::Envelope;
use crate::protocol::id::RequestId;
use crate::util::time::Time;

/// Ends a handshake, in the words of the specification.
const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Whether a new server knows the client.
#[derive(Debug)]
pub(super) enum Greeting {
    /// The client's next line decides whether the handshake is replayed.
    Due,
    /// The handshake was sent by the proxy.
    Replaying(Box<Replay>),
    /// Lines pass.
    Done,
}

/// A handshake that waits for its answer.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) id: RequestId,
    /// It runs from the write.
    pub(super) deadline: Option<Time>,
}

impl Session {
    /// Where a line of this meaning waits: answers to the present server pass those that wait for the handshake.
    pub(super) fn outbox_for(&mut self, tag: Option<&ToUpstream>) -> &mut Outbox<ToUpstream> {
        match &self.upstream {
            Upstream::Up(up)
                if matches!(up.greeting, Greeting::Done)
                    || matches!(tag, Some(ToUpstream::Answer)) =>
            {
                &mut self.to_upstream
            }
            _ => self.held_mut(),
        }
    }

    /// Lets waiting lines through to a server that knows the client, and greets one that does not.
    pub(super) fn release_held(&mut self, cx: &mut Context<'_>) {
        let Some(held) = self.held.as_ref().filter(|held| !held.is_empty()) else {
            return;
        };
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        if matches!(up.greeting, Greeting::Due) {
            let greets_itself = matches!(
                held.first_tag(),
                Some(ToUpstream::Request(request)) if request.is_initialize()
            );
            match self.handshake.recorded() {
                Some(record) if !greets_itself => {
                    self.replays += 1;
                    let id = format!("\"mcp-tcp-proxy-replay-{}\"", self.replays);
                    let line = record.request_as(&id);
                    up.greeting = Greeting::Replaying(Box::new(Replay {
                        id: RequestId::new(&id),
                        deadline: None,
                    }));
                    debug!("{} proxy → server: {}", self.tag, excerpt(&line));
                    self.to_upstream
                        .push(&line, Some(ToUpstream::Replay), cx.memory);
                }
                _ => up.greeting = Greeting::Done,
            }
        }
        if matches!(up.greeting, Greeting::Done) {
            let held = self.take_held();
            self.to_upstream.append(held, cx.memory);
        }
    }

    /// The server answered the replayed handshake.
    pub(super) fn replay_responded(&mut self, answer: &Envelope<'_>, cx: &mut Context<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        let Some(record) = self.handshake.recorded() else {
            return;
        };
        match record.compare(answer) {
            Outcome::Agreed => {
                info!("{}: the handshake was replayed", self.tag);
                up.greeting = Greeting::Done;
                self.policy.heard();
                if self.handshake.is_complete() {
                    self.send_initialized(cx);
                }
                self.release_held(cx);
            }
            // It says nothing about the server that the next attempt may find.
            Outcome::Changed if self.is_connector() && answer.is_proxy_error() => {
                self.connection_ended(Exit::Refused, cx);
            }
            Outcome::Changed => self.end_now(&EndReason::ServerChanged, cx),
        }
    }

    /// Ends a handshake in the client's place.
    pub(super) fn send_initialized(&mut self, cx: &mut Context<'_>) {
        debug!("{} proxy → server: {}", self.tag, excerpt(INITIALIZED));
        self.to_upstream.push(
            INITIALIZED,
            Some(ToUpstream::ReplayedInitialized),
            cx.memory,
        );
    }
}
