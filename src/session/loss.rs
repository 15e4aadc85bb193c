//! How an upstream is lost, and what follows.
//!
//! Loss has several signs, which arrive in any order; the stages they lead through are in `leaving`. First the
//! upstream's output is read to its end. Then every request that was sent to it is answered, and what was not sent
//! waits for the next upstream.

use std::io::{self, ErrorKind};

use super::goal::Goal;
use super::in_flight::Request;
use super::leaving::{Leaving, Sign, Stage};
use super::no_memory::copy_of;
use super::replay::Greeting;
use super::report::{EndReason, Exit};
use super::restart::Decision;
use super::stillbirths::MAX_STILLBIRTHS;
use super::upstream::{ToUpstream, Upstream};
use super::{Action, Context, Session};
use crate::buffers::outbox::{Edit, Outbox};
use crate::protocol::own_messages::{ErrorReason, Loss};
use crate::util::about::about;

/// Why a request gets an error that was at a shared server when its session ended. That server goes on.
const LEFT: &str = "the session left the shared server before it answered";

/// What the loss of an upstream means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LossKind {
    /// It counts, and the next one waits for the cooldown.
    Crash,
    /// A probe made it exit: the next one is started at once, and the loss does not count.
    Probed,
    /// The next one would not survive either.
    Hopeless,
    /// It was a seat at shared servers, which are not for this session, or another one is wanted: that is started at once.
    Switched,
    /// It was given back: the next one is started once something waits for it.
    Hibernated,
}

// The signs.
impl Session {
    /// The process exited, and was reaped.
    pub(super) fn upstream_exited(&mut self, exit: Exit, cx: &mut Context<'_>) {
        self.begin_leaving(Sign::Exited(exit), cx);
    }

    /// The end of the output was read, or an error instead.
    pub(super) fn upstream_eof(&mut self, error: Option<&io::Error>, cx: &mut Context<'_>) {
        self.finish_upstream_backlog(cx);
        self.upstream_tail(cx);
        if let Some(error) = error.filter(|error| error.kind() == ErrorKind::PermissionDenied)
            && self.backend.is_link()
        {
            self.link_refused(&error.to_string(), cx);
        } else if self.backend.is_link() {
            self.link_ended(Exit::Connection(error.map(io::Error::kind)), cx);
        } else {
            self.begin_leaving(Sign::OutputEnded, cx);
        }
    }

    /// A link that was up already is refused after all: TLS 1.3 has no other way to tell a client.
    fn link_refused(&mut self, words: &str, cx: &mut Context<'_>) {
        if self.backend.was_reached() {
            about!(warn, self.label, "{words}");
            self.link_ended(Exit::Connection(Some(ErrorKind::PermissionDenied)), cx);
        } else {
            let (reason, words) = (ErrorReason::AccessDenied, words.to_owned());
            self.end_now(&EndReason::Refused { reason, words }, cx);
        }
    }

    /// Nobody reads the input any more. On a link, what the other side sent before can still be read, and then its end.
    pub(super) fn upstream_input_broke(&mut self, cx: &mut Context<'_>) {
        if !self.backend.is_link() {
            self.begin_leaving(Sign::InputBroke, cx);
        }
    }

    /// Nobody reads the input any more, and these bytes of it were never read.
    pub(super) fn upstream_left_unread(&mut self, unread: &[u8], cx: &mut Context<'_>) {
        self.begin_leaving(Sign::InputBroke, cx);
        self.take_back_unread(unread, cx);
    }

    /// A link is gone in both directions at once. That may be noticed twice: a refusal among its last words ends it
    /// before its end is read.
    pub(super) fn link_ended(&mut self, exit: Exit, cx: &mut Context<'_>) {
        if !self.upstream.has_output() {
            return;
        }
        self.resume = None;
        let was_idle = exit == Exit::Connection(None) && self.nothing_waits();
        self.backend.disconnected(was_idle, cx.now);
        // A link that ended because nothing passed is not to bring its server back before anything does.
        self.handshake.replays_at_once = !was_idle && self.rare.standing.has_any();
        self.begin_leaving(Sign::LinkEnded(exit), cx);
    }

    /// Tells the upstream to stop, if there is one, and makes sure that none is started.
    pub(super) fn stop_upstream(&mut self, cx: &mut Context<'_>) {
        match &self.upstream {
            Upstream::OnDemand | Upstream::Starting | Upstream::Cooling { .. } => {
                self.upstream = Upstream::None;
                return;
            }
            Upstream::Up(_) => {}
            Upstream::Leaving(leaving) if matches!(leaving.stage, Stage::ClosedPipe { .. }) => {}
            Upstream::None | Upstream::Leaving(_) => return,
        }
        self.begin_leaving(Sign::ToldToStop, cx);
        cx.actions.push(Action::StopUpstream);
    }

    /// Notes a sign that the upstream is leaving. At the first one, what was not sent to it is taken back.
    pub(super) fn begin_leaving(&mut self, sign: Sign, cx: &mut Context<'_>) {
        match &mut self.upstream {
            Upstream::Up(up) => {
                let replay = std::mem::replace(&mut up.greeting, Greeting::Done).into_replay_id();
                // A process may turn out not to have read any of that line.
                let rest = if self.backend.is_link() {
                    Vec::new()
                } else {
                    copy_of([self.to_upstream.rest_of_started(), b""])
                };
                self.upstream = Upstream::Leaving(Box::new(Leaving {
                    stage: Stage::first(sign, cx.now),
                    history: up.history,
                    lived: cx.now.saturating_since(up.started),
                    died_of_probe: false,
                    was_asked: sign == Sign::ToldToStop,
                    is_left: false,
                    replay_overdue: None,
                    replay,
                    rest,
                }));
                self.take_back_unsent(cx);
            }
            Upstream::Leaving(leaving) => leaving.stage = leaving.stage.after(sign, cx.now),
            Upstream::None | Upstream::OnDemand | Upstream::Starting | Upstream::Cooling { .. } => {
            }
        }
    }

    /// The next sign has not come in time.
    pub(super) fn leaving_timeout(&mut self, cx: &mut Context<'_>) {
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        match leaving.stage {
            Stage::ClosedPipe { output_ended, .. } => {
                leaving.stage = if output_ended {
                    Stage::Drained { exit: None }
                } else {
                    Stage::Stopping { status_until: None }
                };
                about!(
                    warn,
                    self.label,
                    "the server closed a pipe but does not exit; it is stopped"
                );
                cx.actions.push(Action::StopUpstream);
            }
            Stage::Stopping { .. } => leaving.stage = Stage::Drained { exit: None },
            Stage::Draining { exit, .. } => {
                leaving.stage = Stage::Drained { exit: Some(exit) };
                self.upstream_tail(cx);
            }
            Stage::Drained { .. } | Stage::Settled | Stage::Gone { .. } => {}
        }
    }

    /// The time after an exit is meant for processes that hold the output open, not for a client that is slow to read
    /// it.
    fn pause_for_slow_client(&mut self, cx: &Context<'_>) {
        let is_read = self.wants_upstream_output(cx.memory);
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        if let Stage::Draining { until, paused, .. } = &mut leaving.stage {
            if !is_read {
                paused.get_or_insert(cx.now);
            } else if let Some(since) = paused.take() {
                *until += cx.now.saturating_since(since);
            }
        }
    }

    /// Continues with the loss of an upstream as far as the signs allow.
    pub(super) fn advance_leaving(&mut self, cx: &mut Context<'_>) {
        self.pause_for_slow_client(cx);
        let delivers_to_client = self.delivers_to_client();
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        if let Stage::Draining { exit, .. } = leaving.stage
            && !delivers_to_client
        {
            leaving.stage = Stage::Drained { exit: Some(exit) };
        }
        if let Stage::Drained { exit } = leaving.stage {
            leaving.stage = exit.map_or(Stage::Settled, |exit| Stage::Gone { exit });
            self.settle_in_flight(exit, cx);
        }
        if let Upstream::Leaving(leaving) = &self.upstream
            && let Stage::Gone { exit } = leaving.stage
        {
            let was_asked = leaving.was_asked && !exit.is_crash();
            self.release_upstream(exit, was_asked, cx);
        }
    }

    /// Answers the requests that were sent to the upstream, except for those that only ask who is there: these are sent
    /// again.
    fn settle_in_flight(&mut self, exit: Option<Exit>, cx: &mut Context<'_>) {
        let status = exit.map_or_else(|| "stdout closed".to_owned(), |exit| exit.to_string());
        let may_resend = self.may_resend(cx);
        let (again, lost): (Vec<Request>, Vec<Request>) = self
            .in_flight
            .take_all()
            .partition(|request| may_resend && request.resendable().is_some());
        self.tally.lost = self.tally.lost.saturating_add(lost.len() as u16);
        let (reason, what) = self.backend.lost_request();
        let has_left = exit == Some(Exit::Left);
        let message = if has_left {
            LEFT.to_owned()
        } else {
            format!("{what} ({status})")
        };
        let data = Loss {
            status: Some(status.as_str()).filter(|_| !has_left),
            delivered: Some(self.delivered()),
            ..Loss::default()
        };
        self.note_unserved(lost.len());
        for request in &lost {
            self.reply_lost(Some(&request.id), reason, &message, data, cx);
        }
        if lost.iter().any(Request::is_initialize) {
            self.handshake.refused();
        }
        self.take_back_questions(cx);
        self.note_cost(&lost, !again.is_empty());
        let mut front = Outbox::default();
        let is_new_wait = self.backend.was_link_heard() && !is_refusal(exit);
        for mut request in again {
            request.note_sent();
            if is_new_wait {
                request.since = cx.now;
            }
            self.queued.add(&request);
            let line = request.resendable().unwrap_or_default().to_vec();
            front.push(&line, Some(ToUpstream::Request(request)), cx.memory);
        }
        self.hold_behind(front, cx);
        let mut waiting = self.held().tags().flat_map(ToUpstream::requests);
        let begins_anew = waiting.any(Request::is_initialize);
        drop(waiting);
        if begins_anew {
            self.handshake.repeat();
        }
    }

    /// Notes whether the loss is a crash, and whether it costs the client anything. `lost` was answered; `begins_anew` if
    /// something is sent again.
    fn note_cost(&mut self, lost: &[Request], begins_anew: bool) {
        let is_link = self.backend.is_link();
        let begins_anew = begins_anew
            || matches!(self.held().first_tag(), Some(ToUpstream::Request(request)) if request.resendable().is_some());
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        leaving.died_of_probe = !is_link
            && !leaving.history.has_responded
            && !lost.is_empty()
            && lost.iter().all(Request::is_probe);
        let is_costly = leaving.history.used || !lost.is_empty() || !begins_anew;
        let is_costly = is_costly && !leaving.died_of_probe && !self.hibernates;
        if is_costly && !self.is_swapped_in_place() {
            self.backend.owe_notice();
        }
    }

    /// After a probe made a server exit, a waiting `initialize` goes first.
    fn advance_initialize(&mut self, cx: &mut Context<'_>) {
        let mut held = self.take_held();
        let mut first = Outbox::default();
        let mut initialize = None;
        let take = |line: &[u8], tag| match tag {
            ToUpstream::Request(request) if request.is_initialize() && initialize.is_none() => {
                initialize = Some((line.to_vec(), ToUpstream::Request(request)));
                Edit::Drop
            }
            other => Edit::Keep(other),
        };
        held.edit_unstarted(take, cx.memory);
        if let Some((line, tag)) = initialize {
            first.push_buffer(line, Some(tag), cx.memory);
        }
        self.hold(held);
        self.hold_behind(first, cx);
    }

    /// Whether another upstream may be asked in place of this one.
    fn may_resend(&self, cx: &Context<'_>) -> bool {
        cx.settings.restarts_upstream
            && !self.is_stopping()
            && !self.goal.is_end()
            && !self.goal.is_overdue(cx.now)
    }

    /// `was_asked` unless the upstream ended by itself.
    fn release_upstream(&mut self, exit: Exit, was_asked: bool, cx: &mut Context<'_>) {
        self.let_go_of_upstream(was_asked, cx);
        let is_left = matches!(&self.upstream, Upstream::Leaving(leaving) if leaving.is_left);
        if !was_asked && !is_left {
            self.backend.log_lost(&self.label, exit);
        }
        let last_line = self.server_log.take_last_line();
        let (kind, why) = self.diagnose(exit, last_line.as_deref());
        self.lost_in_place(&why.to_string(), cx);
        if kind == LossKind::Probed {
            self.advance_initialize(cx);
        }
        self.after_loss(&why, kind, cx);
    }

    /// The upstream is not used any more: forgets what was known of it, and has it released.
    pub(super) fn let_go_of_upstream(&mut self, was_asked: bool, cx: &mut Context<'_>) {
        self.from_upstream.clear();
        self.upstream_backlog = None;
        self.forget_what_server_knew();
        self.forget_unanswered_standing();
        self.server_log.server_ended(was_asked, &self.label, cx);
        cx.actions.push(Action::ReleaseUpstream);
    }

    /// What the loss of the upstream means for the next one, and the reason to give if there is none.
    fn diagnose(&mut self, exit: Exit, last_line: Option<&str>) -> (LossKind, EndReason) {
        let Upstream::Leaving(leaving) = &self.upstream else {
            return (LossKind::Crash, self.backend.loss(exit));
        };
        if self.hibernates {
            self.backend.ended_otherwise();
            return (LossKind::Hibernated, self.backend.loss(exit));
        }
        if leaving.died_of_probe {
            self.backend.ended_otherwise();
            return (LossKind::Probed, self.backend.loss(exit));
        }
        if self.is_swapped_in_place() {
            self.backend.ended_otherwise();
            return (LossKind::Switched, self.backend.loss(exit));
        }
        if leaving.is_left {
            return (LossKind::Switched, self.backend.loss(exit));
        }
        if let Some(time) = leaving.replay_overdue {
            self.backend.ended_otherwise();
            return (LossKind::Crash, EndReason::ReplayTimeout(time));
        }
        let has_spoken = self.has_upstream_spoken();
        if self.backend.is_hopeless(exit, leaving.lived, has_spoken) {
            let mut text = format!("it ended at once {MAX_STILLBIRTHS} times in a row ({exit})");
            if let Some(line) = last_line {
                text = format!("{text}; its last line on stderr: {line}");
            }
            return (LossKind::Hopeless, EndReason::SpawnFailed(text));
        }
        (LossKind::Crash, self.backend.loss(exit))
    }

    /// Decides whether there is another upstream after this one.
    pub(super) fn after_loss(&mut self, why: &EndReason, kind: LossKind, cx: &mut Context<'_>) {
        self.upstream = Upstream::None;
        let is_finished = matches!(self.goal, Goal::Finish(_)) && self.nothing_waits();
        if self.goal.is_end() || is_finished || self.goal.is_overdue(cx.now) {
            return;
        }
        if kind == LossKind::Hibernated {
            self.upstream = Upstream::OnDemand;
            return;
        }
        let is_switch = kind == LossKind::Switched;
        if self.is_stopping() || (!cx.settings.restarts_upstream && !is_switch) {
            self.give_up(why, cx);
            return;
        }
        let decision = match kind {
            LossKind::Crash => self.backend.lost(cx.now),
            LossKind::Hopeless => return self.give_up(why, cx),
            LossKind::Probed | LossKind::Switched | LossKind::Hibernated => {
                Decision::RetryAt(cx.now)
            }
        };
        match decision {
            Decision::RetryAt(_) if self.restarts_on_demand() => {
                self.upstream = Upstream::OnDemand;
            }
            Decision::RetryAt(at) => {
                let delay = at.saturating_since(cx.now);
                if !delay.is_zero() {
                    self.backend.log_retry(&self.label, delay);
                }
                self.upstream = Upstream::Cooling { until: at };
                self.start_if_due(cx);
            }
            Decision::GiveUp { restarts } => self.give_up(&why.after_retries(restarts), cx),
        }
    }
}

/// Whether the peer had nothing to offer: then what is waiting has been waiting all along.
fn is_refusal(exit: Option<Exit>) -> bool {
    matches!(
        exit,
        Some(
            Exit::Full
                | Exit::Refused
                | Exit::BeingStopped
                | Exit::Denied(_)
                | Exit::OtherProtocol(_)
        )
    )
}
