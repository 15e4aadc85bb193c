//! The life of a session's upstream: started, greeted, lost, started again.
//!
//! Loss has several signs that come in any order. What the upstream said is read to its end first; then every request
//! that it had been sent is answered, and what it had not been sent waits for the next one.

use std::io;
use std::time::Duration;

use log::{info, warn};

use super::ending::Goal;
use super::greeting::Greeting;
use super::in_flight::Request;
use super::liveness::Liveness;
use super::report::{EndReason, Exit};
use super::{Action, Backend, Context, NOTICE_DELAY, OwnLine, Session, ToUpstream, earliest};
use crate::buffers::budget::BufferBudget;
use crate::buffers::outbox::Outbox;
use crate::protocol::id::RequestId;
use crate::protocol::own_messages::{self, ErrorReason};
use crate::util::time::Time;

/// After the end of its output, a process has this long to exit, so that its status can be told, before it is stopped.
const EXIT_GRACE: Duration = Duration::from_millis(50);

/// After its exit, others may hold the output of a process open, and may still be saying something. This is how long
/// they are listened to.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// Where the upstream is in its life.
#[derive(Debug)]
pub(super) enum Upstream {
    /// There is none, and none is to come.
    None,
    /// It is asked for when there is something for it.
    OnDemand,
    /// It was asked for.
    Starting,
    /// It serves.
    Up(Up),
    /// It is on its way out.
    Leaving(Box<Leaving>),
    /// The next one waits for its time.
    Cooling { until: Time },
}

#[derive(Debug)]
pub(super) struct Up {
    pub(super) greeting: Greeting,
    /// When the client is told that this is not the first one.
    notice_at: Option<Time>,
    /// Whether it was asked or has answered anything that can't be asked again.
    pub(super) used: bool,
}

#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// How the process exited, once it was reaped.
    pub(super) exit: Option<Exit>,
    /// Whether there is nothing more to read.
    pub(super) output_ended: bool,
    /// Whether it was told to stop.
    stopping: bool,
    /// When the next sign is no longer waited for.
    until: Option<Time>,
    /// Since when that time stands still, because the client is too slow for the output to be read.
    paused: Option<Time>,
    /// Whether the status was waited for in vain after the end of the output.
    status_overdue: bool,
    /// Whether the requests that it had been sent were seen to.
    settled: bool,
    /// What [`Up::used`] was.
    used: bool,
    /// The replay that was not answered yet. The answer may be among the last words.
    pub(super) replay: Option<RequestId>,
}

impl Upstream {
    pub(super) fn is_alive(&self) -> bool {
        matches!(self, Self::Up(_))
    }

    pub(super) fn takes_input(&self) -> bool {
        matches!(self, Self::Up(_))
    }

    pub(super) fn has_output(&self) -> bool {
        match self {
            Self::Up(_) => true,
            Self::Leaving(leaving) => !leaving.output_ended,
            Self::None | Self::OnDemand | Self::Starting | Self::Cooling { .. } => false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Self::Up(up) => {
                let replay = match up.greeting {
                    Greeting::Replaying(ref replay) => replay.deadline,
                    Greeting::Due | Greeting::Done => None,
                };
                earliest(up.notice_at, replay)
            }
            Self::Leaving(leaving) if leaving.paused.is_some() => None,
            Self::Leaving(leaving) => leaving.until,
            Self::Cooling { until } => Some(*until),
            Self::None | Self::OnDemand | Self::Starting => None,
        }
    }
}

impl Session {
    /// Whether the upstream that was asked for is still wanted.
    pub fn wants_start(&self) -> bool {
        matches!(self.upstream, Upstream::Starting)
    }

    /// Whether something waits for the upstream to be there.
    pub fn waits_for_upstream(&self) -> bool {
        !self.held().is_empty()
    }

    pub(super) fn start_upstream(&mut self, cx: &mut Context<'_>) {
        self.upstream = Upstream::Starting;
        cx.actions.push(Action::StartUpstream);
    }

    /// Asks for the upstream once it is needed.
    pub(super) fn start_on_demand(&mut self, cx: &mut Context<'_>) {
        if matches!(self.upstream, Upstream::OnDemand) && self.waits_for_upstream() {
            self.start_upstream(cx);
        }
    }

    /// The upstream was started, as this process.
    pub(super) fn upstream_started(&mut self, pid: Option<u32>, cx: &mut Context<'_>) {
        let first = self.tag.started(pid);
        self.policy.started(cx.now);
        let greeting = if self.handshake.recorded().is_some() {
            Greeting::Due
        } else {
            Greeting::Done
        };
        let notice_at = self.notice_owed.then(|| cx.now + NOTICE_DELAY);
        self.upstream = Upstream::Up(Up {
            greeting,
            notice_at,
            used: false,
        });
        match cx.settings.role {
            Backend::Process { .. } if first => info!("{} opened", self.tag),
            Backend::Process { .. } => info!("{} goes on with a new server", self.tag),
            Backend::Proxy { .. } => {
                info!("connected to {}", self.tag);
                let peer = Liveness::new(cx.now, cx.settings.heartbeat_interval);
                self.peer = Some(Box::new(peer));
                self.control_line_to_peer(own_messages::HANDSHAKE, cx);
            }
        }
        self.release_held(cx);
    }

    /// The upstream could not be started. That counts as a loss.
    pub(super) fn upstream_failed(&mut self, error: &str, cx: &mut Context<'_>) {
        let why = match cx.settings.role {
            Backend::Process { .. } => EndReason::SpawnFailed(error.to_string()),
            Backend::Proxy { .. } => EndReason::ConnectionLost(error.to_string()),
        };
        match &why {
            EndReason::SpawnFailed(_) => {
                warn!("{}: the server could not be started: {error}", self.tag);
            }
            _ => warn!("no connection to {}: {error}", self.tag),
        }
        self.policy.started(cx.now);
        self.after_loss(&why, cx);
    }

    /// The process exited, and was reaped.
    pub(super) fn upstream_exited(&mut self, exit: Exit, cx: &mut Context<'_>) {
        self.begin_leaving(cx, |leaving, now| {
            leaving.exit = Some(exit);
            leaving.until = Some(now + DRAIN_GRACE);
        });
    }

    /// The end of the output was read, or an error instead.
    pub(super) fn upstream_eof(&mut self, error: Option<&io::Error>, cx: &mut Context<'_>) {
        if let Backend::Proxy { .. } = cx.settings.role {
            return self.connection_ended(Exit::Connection(error.map(io::Error::kind)), cx);
        }
        self.upstream_tail(cx);
        self.begin_leaving(cx, |leaving, now| {
            leaving.output_ended = true;
            if leaving.exit.is_none() {
                leaving.until = Some(now + EXIT_GRACE);
            }
        });
    }

    /// Nobody reads the input any more.
    pub(super) fn upstream_input_broke(&mut self, cx: &mut Context<'_>) {
        if self.is_connector() {
            // What had come before is still there to be read, and the end behind it.
            return;
        }
        self.begin_leaving(cx, |leaving, now| {
            if leaving.exit.is_none() && !leaving.stopping && leaving.until.is_none() {
                leaving.until = Some(now + EXIT_GRACE);
            }
        });
    }

    /// Tells the upstream to go, if there is one, and lets none come.
    pub(super) fn stop_upstream(&mut self, cx: &mut Context<'_>) {
        match &mut self.upstream {
            Upstream::OnDemand | Upstream::Starting | Upstream::Cooling { .. } => {
                self.upstream = Upstream::None;
            }
            Upstream::Up(_) => self.begin_leaving(cx, |leaving, _| leaving.stopping = true),
            Upstream::Leaving(leaving) if !leaving.stopping && leaving.exit.is_none() => {
                leaving.stopping = true;
                if !leaving.output_ended {
                    leaving.until = None;
                }
            }
            Upstream::None | Upstream::Leaving(_) => return,
        }
        if matches!(self.upstream, Upstream::Leaving(_)) {
            cx.actions.push(Action::StopUpstream);
        }
    }

    /// Notes a sign that the upstream is leaving. With the first one, what it has not been sent is called back.
    pub(super) fn begin_leaving(
        &mut self,
        cx: &mut Context<'_>,
        note: impl FnOnce(&mut Leaving, Time),
    ) {
        match &mut self.upstream {
            Upstream::Up(up) => {
                let replay = match std::mem::replace(&mut up.greeting, Greeting::Done) {
                    Greeting::Replaying(replay) => Some(replay.id),
                    Greeting::Due | Greeting::Done => None,
                };
                let mut leaving = Leaving {
                    used: up.used,
                    replay,
                    ..Leaving::default()
                };
                note(&mut leaving, cx.now);
                self.upstream = Upstream::Leaving(Box::new(leaving));
                self.retain_unstarted(cx.memory);
            }
            Upstream::Leaving(leaving) => note(leaving, cx.now),
            Upstream::None | Upstream::OnDemand | Upstream::Starting | Upstream::Cooling { .. } => {
            }
        }
    }

    /// What was meant for any server waits for the next; what was meant for this one is dropped.
    fn retain_unstarted(&mut self, memory: &mut BufferBudget) {
        self.to_upstream.retain_unstarted(|line| match line {
            ToUpstream::Request(_)
            | ToUpstream::Batch(_)
            | ToUpstream::Initialized
            | ToUpstream::Cancelled(_) => true,
            ToUpstream::Answer
            | ToUpstream::Replay
            | ToUpstream::ReplayedInitialized
            | ToUpstream::Control => false,
        });
        let mut waiting = std::mem::take(&mut self.to_upstream);
        waiting.append(self.take_held(), memory);
        self.hold(waiting);
    }

    pub(super) fn upstream_timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        if self
            .upstream
            .deadline()
            .is_none_or(|deadline| deadline > cx.now)
        {
            return;
        }
        match &mut self.upstream {
            Upstream::Up(_) => self.up_timeout(unix_time, cx),
            Upstream::Leaving(_) => self.leaving_timeout(cx),
            Upstream::Cooling { .. } => self.start_if_due(cx),
            Upstream::None | Upstream::OnDemand | Upstream::Starting => {}
        }
    }

    fn up_timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        if up.notice_at.is_some_and(|at| at <= cx.now) {
            up.notice_at = None;
            self.notice_owed = false;
            if self.goal == Goal::Serve {
                self.own_line(
                    &own_messages::server_restarted(unix_time),
                    OwnLine::Other,
                    cx,
                );
            }
        }
        let Upstream::Up(up) = &self.upstream else {
            return;
        };
        if matches!(&up.greeting, Greeting::Replaying(replay) if replay.deadline.is_some_and(|at| at <= cx.now))
        {
            self.end_now(&EndReason::ReplayTimeout(cx.settings.replay_timeout), cx);
        }
    }

    fn leaving_timeout(&mut self, cx: &mut Context<'_>) {
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        leaving.until = None;
        if leaving.exit.is_some() {
            leaving.output_ended = true;
            self.upstream_tail(cx);
            return;
        }
        leaving.status_overdue = leaving.output_ended;
        if !leaving.stopping {
            leaving.stopping = true;
            warn!(
                "{}: the server closed a pipe but does not exit; it is stopped",
                self.tag
            );
            cx.actions.push(Action::StopUpstream);
        }
    }

    /// The time after an exit is for those who hold the output open, not for a client that is slow to take it.
    fn pause_for_slow_client(&mut self, cx: &Context<'_>) {
        let slow_client = !self.wants_upstream_output(cx.memory);
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        if leaving.exit.is_none() || leaving.output_ended || !slow_client {
            if let (Some(since), Some(until)) = (leaving.paused.take(), &mut leaving.until) {
                *until += cx.now.saturating_since(since);
            }
        } else if leaving.paused.is_none() {
            leaving.paused = Some(cx.now);
        }
    }

    /// Goes on with the loss of an upstream as far as its signs allow.
    pub(super) fn advance_leaving(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.upstream, Upstream::Leaving(_)) {
            return;
        }
        self.pause_for_slow_client(cx);
        let delivers_to_client = self.delivers_to_client();
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        leaving.output_ended |= !delivers_to_client && leaving.exit.is_some();
        let status_known = leaving.exit.is_some() || leaving.status_overdue;
        if !leaving.settled && leaving.output_ended && status_known {
            leaving.settled = true;
            let status = leaving
                .exit
                .map_or_else(|| "stdout closed".to_owned(), |exit| exit.to_string());
            self.settle_in_flight(&status, cx);
        }
        let exit = match &self.upstream {
            Upstream::Leaving(leaving) if leaving.settled => leaving.exit,
            _ => None,
        };
        let Some(exit) = exit else {
            return;
        };
        self.from_upstream.clear();
        self.server_requests.orphan();
        self.server_log.server_ended(&self.tag, cx.now);
        cx.actions.push(Action::ReleaseUpstream);
        let why = match cx.settings.role {
            Backend::Process { .. } => EndReason::ServerEnded(exit.to_string()),
            Backend::Proxy { .. } => EndReason::ConnectionLost(exit.to_string()),
        };
        if self.goal == Goal::Serve {
            match why {
                EndReason::ConnectionLost(_) => {
                    warn!("lost the connection to {}: {exit}", self.tag);
                }
                _ => warn!("{}: the server ended ({exit})", self.tag),
            }
        }
        self.after_loss(&why, cx);
    }

    /// Answers what the upstream had been sent, but for requests that only ask who is there: those it is asked again.
    fn settle_in_flight(&mut self, status: &str, cx: &mut Context<'_>) {
        let may_resend = self.may_resend(cx);
        let (again, lost): (Vec<Request>, Vec<Request>) = self
            .in_flight
            .take_all()
            .partition(|request| may_resend && request.resendable().is_some());
        let (reason, what) = match cx.settings.role {
            Backend::Process { .. } => (
                ErrorReason::ProcessTerminated,
                "the MCP server went away before it answered",
            ),
            Backend::Proxy { .. } => (
                ErrorReason::ConnectionLost,
                "the connection was lost before the MCP server answered",
            ),
        };
        for request in &lost {
            let message = format!("{what} ({status})");
            let line = own_messages::error(Some(&request.id), reason, &message, Some(status));
            self.own_line(&line, OwnLine::Other, cx);
        }
        let greets = !again.is_empty()
            || matches!(self.held().first_tag(), Some(ToUpstream::Request(request)) if request.resendable().is_some());
        let used = matches!(&self.upstream, Upstream::Leaving(leaving) if leaving.used);
        let tells = matches!(cx.settings.role, Backend::Process { .. });
        self.notice_owed |= tells && (used || !lost.is_empty() || !greets);
        let mut front = Outbox::default();
        for request in again {
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

    /// Whether another server may be asked in place of this one.
    fn may_resend(&self, cx: &Context<'_>) -> bool {
        cx.settings.restarts_upstream
            && !self.stopping
            && self.goal != Goal::End
            && !self.goal.is_overdue(cx.now)
    }

    /// The first byte of a line was sent.
    pub(super) fn on_line_started(&mut self, line: ToUpstream, cx: &Context<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        up.used |= !matches!(
            &line,
            ToUpstream::Replay | ToUpstream::ReplayedInitialized | ToUpstream::Control
        ) && !matches!(&line, ToUpstream::Request(request) if request.resendable().is_some());
        match line {
            ToUpstream::Request(request) => {
                self.queued.remove(&request);
                self.in_flight.begin(request);
            }
            ToUpstream::Batch(parts) => {
                for part in parts {
                    self.on_line_started(part, cx);
                }
            }
            ToUpstream::Initialized => self.handshake.complete(),
            ToUpstream::Cancelled(id) => {
                self.queued.remove_cancellation(&id);
                self.in_flight.cancel(&id);
            }
            ToUpstream::Replay => {
                if let Greeting::Replaying(replay) = &mut up.greeting {
                    replay.deadline = Some(cx.now + cx.settings.replay_timeout);
                }
            }
            ToUpstream::Answer | ToUpstream::ReplayedInitialized | ToUpstream::Control => {}
        }
    }
}
