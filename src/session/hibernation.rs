//! Sessions that give their servers back while nothing passes, and get others when something does.
//!
//! ```text
//!        nothing passes, and nothing is open                     it is gone
//!   Up ──────────────────────────────────────► Leaving ──────────────────────► OnDemand
//!    ▲                                            │                               │
//!    │   started, and greeted                     │ something waits for it        │ the same
//!    └────────────────────────── Starting ◄───────┴───────────────────────────────┘
//! ```
//!
//! The connection stays, and the client notices nothing: what it says next is held, as after a crash, until another server
//! knows it. That costs it neither a notice nor the cooldown, and does not count as a restart. Only a server that keeps
//! nothing between two calls may be given back, so nothing is done unless the user has asked for it.
//!
//! A session with a seat at shared servers has no server to give back. It says that it does not use its seat.

use std::time::Duration;

use super::client_side::OwnLine;
use super::leaving::Sign;
use super::upstream::Upstream;
use super::{Action, Context, Session, Settings};
use crate::protocol::envelope::Message;
use crate::protocol::json;
use crate::protocol::own_messages;
use crate::util::about::about;
use crate::util::time::Time;

/// A server that has yet to read what it was sent is looked at again after this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Session {
    /// Whether it has given its server back, and has no other one yet.
    pub fn is_hibernating(&self) -> bool {
        self.hibernates
    }

    /// When the server is given back if nothing passes before.
    pub(super) fn hibernation_deadline(&self, settings: &Settings) -> Option<Time> {
        let limit = settings
            .idle_limits
            .hibernate
            .filter(|_| self.is_use_known())?;
        let has_said_so = self.quiet_since == Some(self.last_line);
        let may_go = !has_said_so && self.can_be_woken(settings) && self.nothing_open();
        may_go.then(|| self.rare.server_memory.kept_until(self.last_line + limit))
    }

    /// Whether the server would be given back now.
    pub fn would_hibernate(&self, settings: &Settings, now: Time) -> bool {
        self.hibernation_deadline(settings)
            .is_some_and(|at| at <= now)
    }

    /// The server has yet to read some of what it was sent: what has passed last has not come to it.
    pub(super) fn upstream_reads_late(&mut self, cx: &Context<'_>) {
        let memory = &mut self.rare.change().server_memory;
        memory.note_unread(cx.now + LOOK_INTERVAL);
    }

    /// Whether the next server would be told what this one knows of the client.
    fn can_be_woken(&self, settings: &Settings) -> bool {
        let may_replay = settings.replays && self.handshake.is_replayed_whole();
        may_replay || (self.era.is_modern() && self.handshake.is_none())
    }

    pub(super) fn hibernation_timeout(&mut self, cx: &mut Context<'_>) {
        let due = self.hibernation_deadline(cx.settings);
        if due.is_none_or(|at| at > cx.now) {
            return;
        }
        self.quiet_since = Some(self.last_line);
        if !self.upstream.is_shared() {
            let quiet = cx.now.saturating_since(self.last_line).as_secs_f64();
            about!(
                info,
                self.label,
                "hibernates, as nothing has passed for {quiet:.3} s: its server is stopped"
            );
            // The next server is a new one anyway.
            self.leave_swap(cx);
            self.hibernates = true;
            self.begin_leaving(Sign::ToldToStop, cx);
        }
        cx.actions.push(Action::HibernateUpstream);
    }

    /// Something waits for a server, and there is none, or one that was given back: that one is not waited for.
    pub(super) fn wake_up(&mut self, cx: &mut Context<'_>) {
        if self.hibernates && matches!(self.upstream, Upstream::Leaving(_)) {
            // What was read of it is delivered all the same.
            self.finish_upstream_backlog(cx);
            self.upstream_tail(cx);
            self.take_back_questions(cx);
            self.let_go_of_upstream(true, cx);
            self.upstream = Upstream::OnDemand;
        }
    }

    /// Answers a `ping` that would wake a server for nothing. Returns whether it was one.
    pub(super) fn takes_ping(
        &mut self,
        message: &Message<'_>,
        line: &[u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let Message::Single(envelope) = message else {
            return false;
        };
        let is_woken = self.waits_for_upstream() || matches!(self.upstream, Upstream::Starting);
        let id = envelope.request_id().filter(|_| !is_woken && is_ping(line));
        let Some(id) = id else {
            return false;
        };
        self.own_line(&own_messages::empty_result(&id), OwnLine::Other, cx);
        true
    }
}

fn is_ping(line: &[u8]) -> bool {
    let method = || {
        let line = str::from_utf8(line).ok()?;
        let [method] = json::find(line, ["method"])?;
        serde_json::from_str::<String>(line.get(method?)?).ok()
    };
    method().is_some_and(|method| method == "ping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_known_however_it_is_written() {
        assert!(is_ping(br#"{"id":1,"method":"ping"}"#));
        assert!(is_ping(br#"{"method" : "\u0070ing","params":{},"id":"x"}"#));
        for other in [
            r#"{"id":1,"method":"pings"}"#,
            r#"{"id":1,"method":7,"params":{"method":"ping"}}"#,
            r#"{"id":1,"result":{}}"#,
        ] {
            assert!(!is_ping(other.as_bytes()), "{other}");
        }
    }
}
