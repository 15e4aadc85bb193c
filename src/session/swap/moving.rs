//! The session goes on with its new server. All that the old one was asked is answered, or had its time.

use super::Stage;
use crate::protocol::lines::Splitter;
use crate::protocol::own_messages::{ErrorReason, Loss};
use crate::session::history::History;
use crate::session::in_flight::Request;
use crate::session::replay::Greeting;
use crate::session::upstream::{Early, Up, Upstream};
use crate::session::{Action, Context, Session, SwapEnd};
use crate::util::about::about;
use crate::util::plural::Counted;
use crate::util::time::Time;

/// Why a request gets an error that the old server had no time left to answer.
const REPLACED: &str = "the MCP server was replaced before it answered";

impl Session {
    /// The new server has taken the place of the old one.
    pub(in crate::session) fn upstream_moved(&mut self, cx: &mut Context<'_>) {
        if !self.wants_move() {
            return;
        }
        let Some(Stage::HandingOver(successor)) = self.swap.take().map(|swap| swap.stage) else {
            return;
        };
        self.leave_old(cx);
        let (pid, started) = (successor.pid, successor.started);
        let (said, proposal, log) = successor.into_parts();
        self.server_log = log;
        self.label.started(pid);
        self.backend.ended_otherwise();
        self.backend.started(cx.now, cx.settings.heartbeat_interval);
        let is_greeted = proposal.is_some();
        self.upstream = self.new_up(started, is_greeted);
        about!(info, self.label, "moved to a new server");
        if let Some(proposal) = proposal {
            self.handshake.adopt(proposal);
            self.handshake.share_record(cx.records);
            if self.handshake.is_complete() {
                self.send_initialized(cx);
                self.restore_standing(cx);
            }
            self.tell_list_changes(cx);
        }
        self.take_output(&said, cx);
        self.release_held(cx);
        cx.actions.push(Action::EndSwap(SwapEnd::Moved));
    }

    /// What the old server has said is delivered, what it was asked is answered, and what it was not sent is for the new one.
    fn leave_old(&mut self, cx: &mut Context<'_>) {
        self.finish_upstream_backlog(cx);
        self.upstream_tail(cx);
        self.from_upstream = Splitter::verbatim();
        self.take_back_unsent(cx);
        self.lose_unfinished(cx);
        self.take_back_questions(cx);
        self.forget_what_server_knew();
        self.forget_unanswered_standing();
        self.server_log.server_ended(true, &self.label, cx);
    }

    fn lose_unfinished(&mut self, cx: &mut Context<'_>) {
        let lost: Vec<Request> = self.in_flight.take_all().collect();
        if lost.is_empty() {
            return;
        }
        about!(
            warn,
            self.label,
            "the old server has not answered {} in time",
            Counted(lost.len(), "request")
        );
        self.tally.lost = self.tally.lost.saturating_add(lost.len() as u16);
        self.note_unserved(lost.len());
        let what = Loss {
            delivered: Some(self.backend.delivers()),
            ..Loss::default()
        };
        for request in &lost {
            let reason = ErrorReason::ProcessTerminated;
            self.reply_lost(Some(&request.id), reason, REPLACED, what, cx);
        }
        if lost.iter().any(Request::is_initialize) {
            self.handshake.refused();
        }
    }

    /// The new server as the upstream.
    fn new_up(&self, started: Time, has_responded: bool) -> Upstream {
        // Of a restart before that the client is still to be told.
        let notice_at = match &self.upstream {
            Upstream::Up(up) => up.notice_at(),
            _ => None,
        };
        let mut history = History::after(self.sent_to_client.messages());
        history.has_responded = has_responded;
        Upstream::Up(Up {
            greeting: Greeting::Done,
            started,
            history,
            shared: None,
            wakes: false,
            early: Early::of(Early {
                notice_at,
                ..Early::default()
            }),
        })
    }
}
