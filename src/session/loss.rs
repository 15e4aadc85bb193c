//! How an upstream is lost, and what follows.
//!
//! Loss has several signs, which arrive in any order. What the upstream said is read to its end first; then every
//! request that it was sent is answered, and what it was not sent waits for the next one.
//!
//! ```text
//!   stage        ends with                              and is followed by
//!   ClosedPipe   the exit                               Draining; Drained if the output has ended
//!                EXIT_GRACE: it is told to stop         Stopping; Drained if the output has ended
//!   Stopping     the exit                               Draining; Drained if the output has ended
//!                EXIT_GRACE after the output's end      Drained
//!   Draining     the output's end, or DRAIN_GRACE       Drained
//!   Drained      its requests are answered              Gone; Settled if the exit is not known
//!   Settled      the exit                               Gone
//!   Gone         it is released                         another upstream, or none
//! ```
//!
//! The first sign decides where it begins: an exit in `Draining`, the end of its output or a broken input in
//! `ClosedPipe`, our word in `Stopping`. A link has one sign only, its end, and begins in `Drained`.

use std::io;
use std::time::Duration;

use super::goal::Goal;
use super::handshake::Greeting;
use super::in_flight::Request;
use super::report::{EndReason, Exit};
use super::restart::Decision;
use super::server_memory::ServerMemory;
use super::stillbirths::MAX_STILLBIRTHS;
use super::subscriptions::Subscriptions;
use super::upstream::{ToUpstream, Upstream};
use super::{Action, Context, Session};
use crate::buffers::outbox::Outbox;
use crate::protocol::id::RequestId;
use crate::protocol::own_messages::Loss;
use crate::util::about::about;
use crate::util::time::Time;

/// After it closed a pipe, a process has this long to exit before it is stopped, so that its status can be told: a
/// process that exits closes its pipes first, and is reaped within a few milliseconds.
const EXIT_GRACE: Duration = Duration::from_millis(50);

/// After the exit of a process, others may hold its output open, and may still be writing. They are read for this long:
/// what a child of it has to say follows at once, and a daemon may never close its copy.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// An upstream on its way out.
#[derive(Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a thing of its own to know of it"
)]
pub(super) struct Leaving {
    stage: Stage,
    /// What [`super::upstream::Up::used`] was.
    used: bool,
    /// What [`super::upstream::Up::has_responded`] was.
    pub(super) has_responded: bool,
    /// How long it had lived at the first sign.
    lived: Duration,
    /// What [`super::upstream::Up::messages_before`] was.
    messages_before: u64,
    pub(super) has_spoken: bool,
    /// Whether it has died of the client's question what it is. That is no crash.
    died_of_probe: bool,
    /// Whether it was told to stop before there was any other sign.
    was_asked: bool,
    /// Whether it is a seat that is left for a server of the session's own.
    is_left: bool,
    /// It is told to stop because it has not responded to the replay in this time.
    pub(super) replay_overdue: Option<Duration>,
    /// The replay that was not answered yet. The response may be among the last words.
    pub(super) replay: Option<RequestId>,
    /// What was not written of the last line of which something was.
    pub(super) rest: Vec<u8>,
}

/// What the loss of an upstream means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LossKind {
    /// It counts, and the next one waits for the cooldown.
    Crash,
    /// It has died of a probe: the next one is started at once, and nothing is counted.
    Probed,
    /// The next one would not live either.
    Hopeless,
    /// It was a seat at shared servers, which are not for this session: its own is started at once.
    Switched,
}

/// How far it has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It closed a pipe; its exit is awaited.
    ClosedPipe { output_ended: bool, until: Time },
    /// It was told to stop. Once its output has ended, its status is awaited up to this time.
    Stopping { status_until: Option<Time> },
    /// It exited; its output is read to the end.
    Draining {
        exit: Exit,
        until: Time,
        /// Since when `until` stands still, because the client is too slow for the output to be read.
        paused: Option<Time>,
    },
    /// Nothing more will be heard of it: its requests are to be answered. The exit may be unknown.
    Drained { exit: Option<Exit> },
    /// Its requests were answered; its exit is awaited.
    Settled,
    /// It exited, and its requests were answered.
    Gone { exit: Exit },
}

/// A sign that an upstream is leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Exited(Exit),
    OutputEnded,
    InputBroke,
    /// We have told it to stop.
    ToldToStop,
    /// The link is gone.
    LinkEnded(Exit),
}

impl Stage {
    /// The stage that begins with the first sign.
    fn first(sign: Sign, now: Time) -> Self {
        let until = now + EXIT_GRACE;
        match sign {
            Sign::Exited(exit) => Self::draining(exit, now),
            Sign::OutputEnded => Self::ClosedPipe {
                output_ended: true,
                until,
            },
            Sign::InputBroke => Self::ClosedPipe {
                output_ended: false,
                until,
            },
            Sign::ToldToStop => Self::Stopping { status_until: None },
            Sign::LinkEnded(exit) => Self::Drained { exit: Some(exit) },
        }
    }

    /// The stage after one more sign.
    fn after(self, sign: Sign, now: Time) -> Self {
        match (self, sign) {
            (Self::Settled, Sign::Exited(exit)) => Self::Gone { exit },
            (stage, Sign::Exited(exit)) if stage.has_output() => Self::draining(exit, now),
            (Self::ClosedPipe { .. } | Self::Stopping { .. }, Sign::Exited(exit))
            | (Self::Draining { exit, .. }, Sign::OutputEnded)
            | (Self::Stopping { .. }, Sign::LinkEnded(exit)) => Self::Drained { exit: Some(exit) },
            (Self::ClosedPipe { .. }, Sign::OutputEnded) => Self::ClosedPipe {
                output_ended: true,
                until: now + EXIT_GRACE,
            },
            (Self::Stopping { .. }, Sign::OutputEnded) => Self::Stopping {
                status_until: Some(now + EXIT_GRACE),
            },
            (
                Self::ClosedPipe {
                    output_ended,
                    until,
                },
                Sign::ToldToStop,
            ) => Self::Stopping {
                status_until: output_ended.then_some(until),
            },
            (stage, _) => stage,
        }
    }

    fn draining(exit: Exit, now: Time) -> Self {
        Self::Draining {
            exit,
            until: now + DRAIN_GRACE,
            paused: None,
        }
    }

    fn has_output(self) -> bool {
        match self {
            Self::ClosedPipe { output_ended, .. } => !output_ended,
            Self::Stopping { status_until } => status_until.is_none(),
            Self::Draining { .. } => true,
            Self::Drained { .. } | Self::Settled | Self::Gone { .. } => false,
        }
    }

    fn deadline(self) -> Option<Time> {
        match self {
            Self::ClosedPipe { until, .. } => Some(until),
            Self::Stopping { status_until } => status_until,
            Self::Draining { until, paused, .. } => paused.is_none().then_some(until),
            Self::Drained { .. } | Self::Settled | Self::Gone { .. } => None,
        }
    }
}

impl Leaving {
    pub(super) fn has_output(&self) -> bool {
        self.stage.has_output()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.stage.deadline()
    }

    /// Whether its requests were answered.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.stage, Stage::Settled | Stage::Gone { .. })
    }
}

// The signs.
impl Session {
    /// The process exited, and was reaped.
    pub(super) fn upstream_exited(&mut self, exit: Exit, cx: &mut Context<'_>) {
        self.begin_leaving(Sign::Exited(exit), cx);
    }

    /// The end of the output was read, or an error instead.
    pub(super) fn upstream_eof(&mut self, error: Option<&io::Error>, cx: &mut Context<'_>) {
        self.upstream_tail(cx);
        if self.backend.is_link() {
            self.link_ended(Exit::Connection(error.map(io::Error::kind)), cx);
        } else {
            self.begin_leaving(Sign::OutputEnded, cx);
        }
    }

    /// Nobody reads the input any more. On a link, what had been sent before is still there to be read, and its end
    /// after that.
    pub(super) fn upstream_input_broke(&mut self, cx: &mut Context<'_>) {
        if !self.backend.is_link() {
            self.begin_leaving(Sign::InputBroke, cx);
        }
    }

    /// Nobody reads the input any more, and this is what nobody has read of it.
    pub(super) fn upstream_left_unread(&mut self, unread: &[u8], cx: &mut Context<'_>) {
        self.begin_leaving(Sign::InputBroke, cx);
        self.take_back_unread(unread, cx);
    }

    /// A link is gone, both ways at once. That may be noticed twice: its last words can end it before its end is read.
    pub(super) fn link_ended(&mut self, exit: Exit, cx: &mut Context<'_>) {
        if !self.upstream.has_output() {
            return;
        }
        let was_idle = exit == Exit::Connection(None) && self.nothing_waits();
        self.backend.disconnected(was_idle, cx.now);
        // A link that ended because nothing passed is not to bring its server back before anything does.
        self.replays_at_once = !was_idle && self.standing.has_any();
        self.begin_leaving(Sign::LinkEnded(exit), cx);
    }

    /// Tells the upstream to stop, if there is one, and lets none come.
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

    /// Leaves a seat at shared servers for a server of the session's own, if it has shown that it needs one.
    pub(super) fn leave_shared(&mut self, cx: &mut Context<'_>) {
        if self.upstream.is_shared() && self.is_legacy() {
            self.begin_leaving(Sign::ToldToStop, cx);
            if let Upstream::Leaving(leaving) = &mut self.upstream {
                leaving.is_left = true;
            }
            cx.actions.push(Action::StopUpstream);
        }
    }

    /// Notes a sign that the upstream is leaving. With the first one, what it was not sent is taken back.
    fn begin_leaving(&mut self, sign: Sign, cx: &mut Context<'_>) {
        match &mut self.upstream {
            Upstream::Up(up) => {
                let replay = std::mem::replace(&mut up.greeting, Greeting::Done).into_replay_id();
                // A process may turn out not to have read any of that line.
                let rest = if self.backend.is_link() {
                    Vec::new()
                } else {
                    self.to_upstream.rest_of_started().to_vec()
                };
                self.upstream = Upstream::Leaving(Box::new(Leaving {
                    stage: Stage::first(sign, cx.now),
                    used: up.used,
                    has_responded: up.has_responded,
                    lived: cx.now.saturating_since(up.started),
                    messages_before: up.messages_before,
                    has_spoken: up.has_spoken,
                    died_of_probe: false,
                    was_asked: sign == Sign::ToldToStop,
                    is_left: false,
                    replay_overdue: None,
                    replay,
                    rest,
                }));
                self.take_back_unsent(cx.memory);
            }
            Upstream::Leaving(leaving) => leaving.stage = leaving.stage.after(sign, cx.now),
            Upstream::None | Upstream::OnDemand | Upstream::Starting | Upstream::Cooling { .. } => {
            }
        }
    }

    /// The next sign was awaited long enough.
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

    /// The time after an exit is for those who hold the output open, not for a client that is slow to read it.
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

    /// Goes on with the loss of an upstream as far as the signs allow.
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

    /// Answers what the upstream was sent, except for requests that only ask who is there: those are sent again.
    fn settle_in_flight(&mut self, exit: Option<Exit>, cx: &mut Context<'_>) {
        let status = exit.map_or_else(|| "stdout closed".to_owned(), |exit| exit.to_string());
        let may_resend = self.may_resend(cx);
        let (again, lost): (Vec<Request>, Vec<Request>) = self
            .in_flight
            .take_all()
            .partition(|request| may_resend && request.resendable().is_some());
        self.tally.lost = self.tally.lost.saturating_add(lost.len() as u16);
        let (reason, what) = self.backend.lost_request();
        let message = format!("{what} ({status})");
        let data = Loss {
            status: Some(&status),
            delivered: Some(self.backend.delivers()),
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
            if request.is_initialize() {
                self.handshake.repeat();
            }
            self.queued.add(&request);
            let line = request.resendable().unwrap_or_default().to_vec();
            front.push(&line, Some(ToUpstream::Request(request)), cx.memory);
        }
        front.append(self.take_held(), cx.memory);
        self.hold(front);
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
            && !leaving.has_responded
            && !lost.is_empty()
            && lost.iter().all(Request::is_probe);
        let is_costly = leaving.used || !lost.is_empty() || !begins_anew;
        if is_costly && !leaving.died_of_probe {
            self.backend.owe_notice();
        }
    }

    /// After a server has died of another question, an `initialize` that waits goes first.
    fn advance_initialize(&mut self, cx: &mut Context<'_>) {
        let mut held = self.take_held();
        let mut first = Outbox::default();
        let is_initialize = |tag: &ToUpstream| matches!(tag, ToUpstream::Request(request) if request.is_initialize());
        let mut initialize = None;
        let take = |line, tag| {
            initialize = Some((line, tag));
            None
        };
        held.edit_first(is_initialize, take, cx.memory);
        if let Some((line, tag)) = initialize {
            first.push_buffer(line, Some(tag), cx.memory);
        }
        first.append(held, cx.memory);
        self.hold(first);
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
        self.from_upstream.clear();
        self.server_requests.orphan();
        self.subscriptions = Subscriptions::default();
        self.server_memory = ServerMemory::default();
        self.forget_unanswered_standing();
        self.server_log.server_ended(was_asked, &self.label, cx);
        cx.actions.push(Action::ReleaseUpstream);
        if !was_asked {
            self.backend.log_lost(&self.label, exit);
        }
        let last_line = self.server_log.take_last_line();
        let (kind, why) = self.diagnose(exit, last_line.as_deref());
        if kind == LossKind::Probed {
            self.advance_initialize(cx);
        }
        self.after_loss(&why, kind, cx);
    }

    /// Whether the present upstream has written a line.
    pub(super) fn has_upstream_spoken(&self) -> bool {
        let (has_spoken, messages_before) = match &self.upstream {
            Upstream::Up(up) => (up.has_spoken, up.messages_before),
            Upstream::Leaving(leaving) => (leaving.has_spoken, leaving.messages_before),
            _ => return false,
        };
        has_spoken || self.sent_to_client.messages() > messages_before
    }

    /// What the loss of the upstream means for the next one, and how it is told if there is none.
    fn diagnose(&mut self, exit: Exit, last_line: Option<&str>) -> (LossKind, EndReason) {
        let Upstream::Leaving(leaving) = &self.upstream else {
            return (LossKind::Crash, self.backend.loss(exit));
        };
        if leaving.died_of_probe {
            return (LossKind::Probed, self.backend.loss(exit));
        }
        if leaving.is_left {
            return (LossKind::Switched, self.backend.loss(exit));
        }
        if let Some(time) = leaving.replay_overdue {
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

    /// The upstream is gone: is there to be another?
    pub(super) fn after_loss(&mut self, why: &EndReason, kind: LossKind, cx: &mut Context<'_>) {
        self.upstream = Upstream::None;
        let is_finished = matches!(self.goal, Goal::Finish { .. }) && self.nothing_waits();
        if self.goal.is_end() || is_finished || self.goal.is_overdue(cx.now) {
            return;
        }
        let is_switch = kind == LossKind::Switched;
        if self.is_stopping() || (!cx.settings.restarts_upstream && !is_switch) {
            self.give_up(why, cx);
            return;
        }
        let decision = match kind {
            LossKind::Crash => self.backend.lost(cx.now),
            LossKind::Probed | LossKind::Switched => Decision::RetryAt(cx.now),
            LossKind::Hopeless => return self.give_up(why, cx),
        };
        match decision {
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

/// Whether the peer had nothing to offer: then whoever waits has waited all along.
fn is_refusal(exit: Option<Exit>) -> bool {
    matches!(
        exit,
        Some(Exit::Full | Exit::Refused | Exit::OtherProtocol(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_nanos(1 << 40);

    fn stage_after(signs: &[Sign]) -> Stage {
        let first = Stage::first(signs[0], NOW);
        signs[1..]
            .iter()
            .fold(first, |stage, sign| stage.after(*sign, NOW))
    }

    #[test]
    fn the_order_of_the_signs_does_not_matter_once_the_exit_and_the_end_of_the_output_are_known() {
        let signs = [
            Sign::Exited(Exit::Code(3)),
            Sign::OutputEnded,
            Sign::InputBroke,
            Sign::ToldToStop,
        ];
        let drained = Stage::Drained {
            exit: Some(Exit::Code(3)),
        };
        for code in 0..256 {
            let order = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6 & 3];
            if (0..4).all(|sign| order.contains(&sign)) {
                assert_eq!(
                    stage_after(&order.map(|sign| signs[sign])),
                    drained,
                    "{order:?}"
                );
            }
        }
    }

    #[test]
    fn an_end_of_the_output_does_not_prolong_the_wait_of_one_that_was_told_to_stop_later() {
        let until = Some(NOW + EXIT_GRACE);
        let stopping = stage_after(&[Sign::OutputEnded, Sign::ToldToStop]);
        assert_eq!(stopping.deadline(), until);
        let waiting = stage_after(&[Sign::InputBroke, Sign::ToldToStop]);
        assert_eq!((waiting.deadline(), waiting.has_output()), (None, true));
    }
}
