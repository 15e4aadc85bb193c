//! The life of a session's upstream: started, greeted, lost, started again.
//!
//! Loss has several signs that come in any order. What the upstream said is read to its end first; then every request
//! that it had been sent is answered, and what it had not been sent waits for the next one.

use std::fmt::Display;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::ending::Goal;
use super::in_flight::{InFlight, Kind, Request};
use super::replay::{Handshake, Outcome};
use super::report::{EndReason, Exit};
use super::restart::Verdict;
use super::{Action, Client, NOTICE_DELAY, OwnLine, Session, ToServer, Turn};
use crate::memory::Memory;
use crate::outbox::Outbox;
use crate::protocol::envelope::Envelope;
use crate::protocol::id::RequestId;
use crate::protocol::reply::{self, Reason};

/// After the end of its output, a process has this long to exit, so that its status can be told, before it is stopped.
const EXIT_GRACE: Duration = Duration::from_millis(50);

/// After its exit, others may hold the output of a process open, and may still be saying something. This is how long
/// they are listened to.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// Ends a handshake, in the words of the specification.
const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Where the upstream is in its life.
#[derive(Debug)]
pub(super) enum Upstream {
    /// There is none, and none is to come.
    None,
    /// It was asked for.
    Starting,
    /// It serves.
    Up(Up),
    /// It is on its way out.
    Leaving(Leaving),
    /// The next one waits for its time.
    Cooling { until: Instant },
}

#[derive(Debug)]
pub(super) struct Up {
    pub(super) greeting: Greeting,
    /// When the client is told that this is not the first one.
    notice_at: Option<Instant>,
    /// Whether it was asked or has answered anything that can't be asked again.
    pub(super) used: bool,
}

/// Whether a new server knows the client.
#[derive(Debug)]
pub(super) enum Greeting {
    /// The client's next line decides whether the handshake is replayed.
    Due,
    /// The handshake was sent by the proxy. The deadline runs from the write.
    Replaying {
        id: RequestId,
        deadline: Option<Instant>,
    },
    /// Lines pass.
    Done,
}

#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// How the process exited, once it was reaped.
    exit: Option<Exit>,
    /// Whether there is nothing more to read.
    output_ended: bool,
    /// Whether it was told to stop.
    stopping: bool,
    /// When the next sign is no longer waited for.
    until: Option<Instant>,
    /// Since when that time stands still, because the client is too slow for the output to be read.
    paused: Option<Instant>,
    /// Whether the status was waited for in vain after the end of the output.
    status_overdue: bool,
    /// Whether the requests that it had been sent were seen to.
    settled: bool,
    /// What [`Up::used`] was.
    used: bool,
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
            Self::None | Self::Starting | Self::Cooling { .. } => false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Up(up) => {
                let replay = match up.greeting {
                    Greeting::Replaying { deadline, .. } => deadline,
                    Greeting::Due | Greeting::Done => None,
                };
                [up.notice_at, replay].into_iter().flatten().min()
            }
            Self::Leaving(leaving) if leaving.paused.is_some() => None,
            Self::Leaving(leaving) => leaving.until,
            Self::Cooling { until } => Some(*until),
            Self::None | Self::Starting => None,
        }
    }
}

impl Session {
    /// Whether the upstream that was asked for is still wanted.
    pub fn wants_start(&self) -> bool {
        matches!(self.upstream, Upstream::Starting)
    }

    /// The upstream was started, as this process.
    pub fn upstream_started(&mut self, pid: Option<u32>, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        self.tag.pid = pid;
        self.policy.started(turn.now);
        let greeting = if self.handshake.recorded().is_some() {
            Greeting::Due
        } else {
            Greeting::Done
        };
        let notice_at = self.notice_owed.then(|| turn.now + NOTICE_DELAY);
        self.upstream = Upstream::Up(Up {
            greeting,
            notice_at,
            used: false,
        });
        info!("{}: server started", self.tag);
        self.greet(turn);
        self.finish_event(turn);
    }

    /// The upstream could not be started. That counts as a loss.
    pub fn upstream_failed(&mut self, error: &dyn Display, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        warn!("{}: the server could not be started: {error}", self.tag);
        self.policy.started(turn.now);
        self.after_loss(&EndReason::SpawnFailed(error.to_string()), turn);
        self.finish_event(turn);
    }

    /// The process exited, and was reaped.
    pub fn upstream_exited(&mut self, exit: Exit, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        self.leave(turn, |leaving, now| {
            leaving.exit = Some(exit);
            leaving.until = Some(now + DRAIN_GRACE);
        });
        self.finish_event(turn);
    }

    /// The end of the output was read.
    pub fn upstream_output_ended(&mut self, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        self.server_tail(turn);
        self.leave(turn, |leaving, now| {
            leaving.output_ended = true;
            if leaving.exit.is_none() {
                leaving.until = Some(now + EXIT_GRACE);
            }
        });
        self.finish_event(turn);
    }

    /// Nobody reads the input any more.
    pub fn upstream_input_broke(&mut self, turn: &mut Turn<'_>) {
        self.begin_event(turn);
        self.leave(turn, |leaving, now| {
            if leaving.exit.is_none() && !leaving.stopping && leaving.until.is_none() {
                leaving.until = Some(now + EXIT_GRACE);
            }
        });
        self.finish_event(turn);
    }

    /// Tells the upstream to go, if there is one, and lets none come.
    pub(super) fn stop_upstream(&mut self, turn: &mut Turn<'_>) {
        match &mut self.upstream {
            Upstream::Starting | Upstream::Cooling { .. } => self.upstream = Upstream::None,
            Upstream::Up(_) => self.leave(turn, |leaving, _| leaving.stopping = true),
            Upstream::Leaving(leaving) if !leaving.stopping && leaving.exit.is_none() => {
                leaving.stopping = true;
                if !leaving.output_ended {
                    leaving.until = None;
                }
            }
            Upstream::None | Upstream::Leaving(_) => return,
        }
        if matches!(self.upstream, Upstream::Leaving(_)) {
            turn.actions.push(Action::StopUpstream);
        }
    }

    /// Notes a sign that the upstream is leaving. With the first one, what it has not been sent is called back.
    fn leave(&mut self, turn: &mut Turn<'_>, note: impl FnOnce(&mut Leaving, Instant)) {
        match &mut self.upstream {
            Upstream::Up(up) => {
                let mut leaving = Leaving {
                    used: up.used,
                    ..Leaving::default()
                };
                note(&mut leaving, turn.now);
                self.upstream = Upstream::Leaving(leaving);
                self.recall(turn.memory);
            }
            Upstream::Leaving(leaving) => note(leaving, turn.now),
            Upstream::None | Upstream::Starting | Upstream::Cooling { .. } => {}
        }
    }

    /// What was meant for any server waits for the next; what was meant for this one is dropped.
    fn recall(&mut self, memory: &mut Memory) {
        self.to_server.recall(|line| match line {
            ToServer::Request(_)
            | ToServer::Batch(_)
            | ToServer::Initialized
            | ToServer::Cancelled(_) => true,
            ToServer::Answer | ToServer::Replay | ToServer::ReplayedInitialized => false,
        });
        self.to_server
            .append(std::mem::take(&mut self.held), memory);
        std::mem::swap(&mut self.to_server, &mut self.held);
    }

    pub(super) fn upstream_timeout(&mut self, unix_time: Duration, turn: &mut Turn<'_>) {
        if self
            .upstream
            .deadline()
            .is_none_or(|deadline| deadline > turn.now)
        {
            return;
        }
        match &mut self.upstream {
            Upstream::Up(_) => self.up_timeout(unix_time, turn),
            Upstream::Leaving(_) => self.leaving_timeout(turn),
            Upstream::Cooling { .. } => self.start_if_due(turn),
            Upstream::None | Upstream::Starting => {}
        }
    }

    fn up_timeout(&mut self, unix_time: Duration, turn: &mut Turn<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        if up.notice_at.is_some_and(|at| at <= turn.now) {
            up.notice_at = None;
            self.notice_owed = false;
            if self.goal == Goal::Serve {
                self.own_line(&reply::server_restarted(unix_time), OwnLine::Other, turn);
            }
        }
        let Upstream::Up(up) = &self.upstream else {
            return;
        };
        if matches!(up.greeting, Greeting::Replaying { deadline: Some(deadline), .. } if deadline <= turn.now)
        {
            self.end_now(
                &EndReason::ReplayTimeout(turn.settings.replay_timeout),
                turn,
            );
        }
    }

    fn leaving_timeout(&mut self, turn: &mut Turn<'_>) {
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        leaving.until = None;
        if leaving.exit.is_some() {
            leaving.output_ended = true;
            self.server_tail(turn);
            return;
        }
        leaving.status_overdue = leaving.output_ended;
        if !leaving.stopping {
            leaving.stopping = true;
            warn!(
                "{}: the server closed a pipe but does not exit; it is stopped",
                self.tag
            );
            turn.actions.push(Action::StopUpstream);
        }
    }

    /// The time after an exit is for those who hold the output open, not for a client that is slow to take it.
    fn pause_for_slow_client(&mut self, turn: &Turn<'_>) {
        let slow_client = !self.wants_upstream(turn.memory);
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        if leaving.exit.is_none() || leaving.output_ended || !slow_client {
            if let (Some(since), Some(until)) = (leaving.paused.take(), &mut leaving.until) {
                *until += turn.now.saturating_duration_since(since);
            }
        } else if leaving.paused.is_none() {
            leaving.paused = Some(turn.now);
        }
    }

    /// Goes on with the loss of an upstream as far as its signs allow.
    pub(super) fn proceed_leaving(&mut self, turn: &mut Turn<'_>) {
        self.pause_for_slow_client(turn);
        let delivers = self.delivers();
        let Upstream::Leaving(leaving) = &mut self.upstream else {
            return;
        };
        leaving.output_ended |= !delivers && leaving.exit.is_some();
        let status_known = leaving.exit.is_some() || leaving.status_overdue;
        if !leaving.settled && leaving.output_ended && status_known {
            leaving.settled = true;
            let status = leaving
                .exit
                .map_or_else(|| "stdout closed".to_owned(), |exit| exit.to_string());
            self.settle_in_flight(&status, turn);
        }
        let Upstream::Leaving(Leaving {
            settled: true,
            exit: Some(exit),
            ..
        }) = self.upstream
        else {
            return;
        };
        self.from_server.clear();
        self.server_requests.orphan();
        self.flush_stderr(turn);
        turn.actions.push(Action::ReleaseUpstream);
        if !self.goal.is_end() {
            info!("{}: the server ended ({exit})", self.tag);
        }
        self.tag.pid = None;
        self.after_loss(&EndReason::ServerEnded(exit.to_string()), turn);
    }

    /// Answers what the upstream had been sent, but for requests that only ask who is there: those it is asked again.
    fn settle_in_flight(&mut self, status: &str, turn: &mut Turn<'_>) {
        let (again, lost): (Vec<Request>, Vec<Request>) = self
            .in_flight
            .take_all()
            .into_iter()
            .partition(|request| self.may_resend(request));
        for request in &lost {
            let message = format!("the MCP server went away before it answered ({status})");
            let line = reply::error(
                Some(&request.id),
                Reason::ProcessTerminated,
                &message,
                Some(status),
            );
            self.own_line(&line, OwnLine::Other, turn);
        }
        let greets = !again.is_empty()
            || matches!(self.held.first_mark(), Some(ToServer::Request(request)) if request.resendable().is_some());
        let used = matches!(&self.upstream, Upstream::Leaving(leaving) if leaving.used);
        self.notice_owed |= used || !lost.is_empty() || !greets;
        let mut front = Outbox::default();
        for request in again {
            self.queued_requests += 1;
            let line = request.resendable().unwrap_or_default().to_vec();
            front.push(&line, Some(ToServer::Request(request)), turn.memory);
        }
        front.append(std::mem::take(&mut self.held), turn.memory);
        self.held = front;
    }

    fn may_resend(&self, request: &Request) -> bool {
        request.resendable().is_some() && !self.goal.is_end() && self.client != Client::Closed
    }

    /// The upstream is gone: is there to be another?
    fn after_loss(&mut self, why: &EndReason, turn: &mut Turn<'_>) {
        self.upstream = Upstream::None;
        if self.goal.is_end() || (matches!(self.goal, Goal::Finish { .. }) && self.nothing_waits())
        {
            return;
        }
        if self.shutting_down() || !turn.settings.auto_restart {
            self.give_up(why, turn);
            return;
        }
        match self.policy.lost(turn.now) {
            Verdict::RestartAt(at) => {
                let wait = at.saturating_duration_since(turn.now);
                info!(
                    "{}: the server is restarted in {:.3} s",
                    self.tag,
                    wait.as_secs_f64()
                );
                self.upstream = Upstream::Cooling { until: at };
                self.start_if_due(turn);
            }
            Verdict::GiveUp { restarts } => {
                let reason = match why {
                    EndReason::SpawnFailed(_) => why.clone(),
                    other => EndReason::RestartLimit {
                        restarts,
                        last: last_status(other),
                    },
                };
                self.give_up(&reason, turn);
            }
        }
    }

    fn start_if_due(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.upstream, Upstream::Cooling { until } if until <= turn.now) {
            self.upstream = Upstream::Starting;
            turn.actions.push(Action::StartUpstream);
        }
    }

    /// Where a line of this meaning waits: answers to the present server pass those that wait for the handshake.
    pub(super) fn outbox_for(&mut self, mark: Option<&ToServer>) -> &mut Outbox<ToServer> {
        match &self.upstream {
            Upstream::Up(up)
                if matches!(up.greeting, Greeting::Done)
                    || matches!(mark, Some(ToServer::Answer)) =>
            {
                &mut self.to_server
            }
            _ => &mut self.held,
        }
    }

    /// Lets waiting lines through to a server that knows the client, and greets one that does not.
    pub(super) fn greet(&mut self, turn: &mut Turn<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        if self.held.is_empty() {
            return;
        }
        if matches!(up.greeting, Greeting::Due) {
            let greets_itself = matches!(
                self.held.first_mark(),
                Some(ToServer::Request(Request {
                    kind: Kind::Initialize(_),
                    ..
                }))
            );
            match self.handshake.recorded() {
                Some(record) if !greets_itself => {
                    self.replays += 1;
                    let id = format!("\"mcp-tcp-proxy-replay-{}\"", self.replays);
                    let line = record.request_as(&id);
                    up.greeting = Greeting::Replaying {
                        id: RequestId::new(&id),
                        deadline: None,
                    };
                    self.to_server
                        .push(&line, Some(ToServer::Replay), turn.memory);
                }
                _ => up.greeting = Greeting::Done,
            }
        }
        if matches!(up.greeting, Greeting::Done) {
            self.to_server
                .append(std::mem::take(&mut self.held), turn.memory);
        }
    }

    /// The first byte of a line was sent.
    pub(super) fn line_began(&mut self, line: ToServer, turn: &Turn<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        up.used |= !matches!(&line, ToServer::Replay | ToServer::ReplayedInitialized)
            && !matches!(&line, ToServer::Request(request) if request.resendable().is_some());
        match line {
            ToServer::Request(request) => {
                self.queued_requests -= 1;
                self.in_flight.begin(request);
            }
            ToServer::Batch(parts) => {
                for part in parts {
                    self.line_began(part, turn);
                }
            }
            ToServer::Initialized => self.handshake.complete(),
            ToServer::Cancelled(id) => {
                self.in_flight.end(&id);
            }
            ToServer::Replay => {
                if let Greeting::Replaying { deadline, .. } = &mut up.greeting {
                    *deadline = Some(turn.now + turn.settings.replay_timeout);
                }
            }
            ToServer::Answer | ToServer::ReplayedInitialized => {}
        }
    }

    /// The server answered the replayed handshake.
    pub(super) fn replay_answered(&mut self, answer: &Envelope<'_>, turn: &mut Turn<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        let Handshake::Recorded(record) = &self.handshake else {
            return;
        };
        match record.compare(answer) {
            Outcome::Agreed => {
                info!("{}: the handshake was replayed", self.tag);
                up.greeting = Greeting::Done;
                if record.initialized {
                    self.to_server.push(
                        INITIALIZED,
                        Some(ToServer::ReplayedInitialized),
                        turn.memory,
                    );
                }
                self.greet(turn);
            }
            Outcome::Changed => self.end_now(&EndReason::ServerChanged, turn),
        }
    }

    /// Answers what waits for a server that will not come. What is in flight is answered too.
    pub(super) fn refuse_waiting(&mut self, reason: Reason, text: &str, turn: &mut Turn<'_>) {
        let in_flight: InFlight = std::mem::take(&mut self.in_flight);
        let mut ids: Vec<RequestId> = in_flight.into_ids().collect();
        for outbox in [&mut self.to_server, &mut self.held] {
            let requests = outbox.marks().flat_map(ToServer::requests);
            ids.extend(requests.map(|request| request.id.clone()));
            outbox.clear();
        }
        self.queued_requests = 0;
        for id in ids {
            self.reply_error(Some(&id), reason, text, turn);
        }
    }
}

fn last_status(reason: &EndReason) -> String {
    match reason {
        EndReason::ServerEnded(status) => status.clone(),
        other => other.to_string(),
    }
}
