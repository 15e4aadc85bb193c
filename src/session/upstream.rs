//! The upstream from the request for it to its loss. What it gets is in `to_upstream`, how it is lost in `loss`.

mod to_upstream;

use std::fmt::Write as _;
use std::time::Duration;

pub(super) use self::to_upstream::ToUpstream;
use serde::{Deserialize, Serialize};

use super::history::History;
use super::leaving::Leaving;
use super::loss::LossKind;
use super::replay::Greeting;
use super::report::{EndReason, Label};
use super::shared::Shared;
use super::standing::UNASKED_REPLAY_DELAY;
use super::{Action, Context, LARGE_LINE_BYTES, OUTBOX_BYTES, Session, earliest};
use crate::buffers::budget::BufferBudget;
use crate::protocol::own_messages::{self, ErrorReason};
use crate::util::about::about;
use crate::util::defaults::is_default;
use crate::util::secret::Secret;
use crate::util::time::Time;

/// A new server must live this long before the client is told of it: one that fails at startup does so sooner.
pub(super) const NOTICE_DELAY: Duration = Duration::from_millis(500);

/// The stages of an upstream's life.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Upstream {
    /// There is none, and none will come.
    None,
    /// It is asked for once something waits for it.
    OnDemand,
    /// It was asked for.
    Starting,
    /// It serves.
    Up(Up),
    /// It is on its way out.
    Leaving(Box<Leaving>),
    /// The next one is asked for at this time.
    Cooling { until: Time },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Up {
    pub(super) greeting: Greeting,
    /// When it was started.
    pub(super) started: Time,
    pub(super) history: History,
    /// Present if it is a seat at servers that others use, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shared: Option<Shared>,
    /// Whether it takes the place of one that was given back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) wakes: bool,
    /// What there is to do as long as it is new, if there is anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) early: Option<Box<Early>>,
}

/// What there is to do about a new upstream.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Early {
    /// When the client is told that this is not the first one.
    pub(super) notice_at: Option<Time>,
    /// When the handshake is replayed although the client has said nothing.
    pub(super) replay_at: Option<Time>,
    /// How it starts up, until it has written something; `None` for a link.
    pub(super) unheard: Option<Unheard>,
}

/// What to report about the first output of a server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Unheard {
    started: Time,
    first_input: Option<Time>,
    /// Whether it is the session's first server.
    is_first: bool,
}

impl Upstream {
    /// Whether it serves, and takes input.
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }

    /// Whether it may still say something that counts.
    #[inline]
    pub(super) fn has_output(&self) -> bool {
        self.is_up() || self.may_say_more()
    }

    #[inline(never)]
    fn may_say_more(&self) -> bool {
        match self {
            Self::Up(_) => true,
            Self::Leaving(leaving) => leaving.has_output(),
            Self::None | Self::OnDemand | Self::Starting | Self::Cooling { .. } => false,
        }
    }

    /// How many bytes are kept of a line in case none of it was read.
    pub(super) fn capacity(&self) -> usize {
        match self {
            Self::Leaving(leaving) => leaving.rest.capacity(),
            _ => 0,
        }
    }

    #[inline]
    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Self::Up(up) if up.owes_nothing() => None,
            _ => self.deadline_of_stage(),
        }
    }

    #[inline(never)]
    fn deadline_of_stage(&self) -> Option<Time> {
        match self {
            Self::Up(up) => {
                let replay = earliest(up.unasked_replay_at(), up.greeting.deadline());
                earliest(up.notice_at(), replay)
            }
            Self::Leaving(leaving) => leaving.deadline(),
            Self::Cooling { until } => Some(*until),
            Self::None | Self::OnDemand | Self::Starting => None,
        }
    }
}

impl Early {
    /// Takes no memory if it is nothing.
    pub(super) fn of(early: Self) -> Option<Box<Self>> {
        let Self {
            notice_at,
            replay_at,
            unheard,
        } = &early;
        let is_anything = notice_at.is_some() || replay_at.is_some() || unheard.is_some();
        is_anything.then(|| Box::new(early))
    }
}

impl Up {
    /// Whether the client is to be told nothing, and no handshake is under way.
    fn owes_nothing(&self) -> bool {
        self.notice_at().is_none() && matches!(self.greeting, Greeting::Done)
    }

    /// When the client is told that this is not the first one.
    pub(super) fn notice_at(&self) -> Option<Time> {
        self.early.as_ref()?.notice_at
    }

    /// When the handshake is replayed, if the client has not said anything before.
    pub(super) fn unasked_replay_at(&self) -> Option<Time> {
        let is_due = matches!(self.greeting, Greeting::Due);
        self.early.as_ref()?.replay_at.filter(|_| is_due)
    }
}

// What the driver asks.
impl Session {
    /// Whether the upstream that was asked for is still wanted.
    pub fn wants_start(&self) -> bool {
        matches!(self.upstream, Upstream::Starting)
    }

    /// Whether it has had an upstream before.
    pub fn had_upstream(&self) -> bool {
        matches!(self.label, Label::Session { pid: Some(_), .. })
    }

    /// Whether something waits for the upstream to be there.
    pub fn waits_for_upstream(&self) -> bool {
        !self.held().is_empty()
    }

    /// Whether the upstream's output is to be read now.
    ///
    /// If nothing can be written to either side, both may be waiting for this session to read. The upstream is then
    /// read beyond the limit, as long as there is plenty of memory: its responses are what the client waits for.
    pub fn wants_upstream_output(&self, memory: &BufferBudget) -> bool {
        if !self.upstream.has_output() || self.upstream_backlog.is_some() {
            return false;
        }
        self.to_client.len() < OUTBOX_BYTES || self.wants_more_output(memory)
    }

    /// The same while much waits for the client.
    #[inline(never)]
    fn wants_more_output(&self, memory: &BufferBudget) -> bool {
        !self.delivers_to_client() || (self.is_input_full() && memory.has_headroom())
    }

    /// Whether the upstream would be read if there were plenty of memory. No event tells this session when there is.
    pub fn waits_for_memory(&self, memory: &BufferBudget) -> bool {
        let has_output = self.upstream.has_output() && self.upstream_backlog.is_none();
        has_output && !self.wants_upstream_output(memory) && self.is_input_full()
    }

    /// Whether as much waits for the upstream as is allowed.
    fn is_input_full(&self) -> bool {
        self.to_upstream.len() + self.held().len() >= OUTBOX_BYTES
    }

    /// Whether much of a line of the upstream has arrived, but not its end.
    pub fn is_within_long_line_of_upstream(&self) -> bool {
        self.from_upstream.is_within_line(LARGE_LINE_BYTES)
    }

    /// What is to be written to the upstream.
    pub fn to_upstream(&self) -> &[u8] {
        if self.upstream.is_up() {
            self.to_upstream.waiting()
        } else {
            &[]
        }
    }

    /// Whether there is anything to be written to the upstream.
    pub fn has_output_for_upstream(&self) -> bool {
        self.upstream.is_up() && !self.to_upstream.is_empty()
    }
}

// Starting.
impl Session {
    pub(super) fn start_upstream(&mut self, cx: &mut Context<'_>) {
        self.upstream = Upstream::Starting;
        cx.actions.push(Action::StartUpstream);
    }

    /// Asks for the upstream once it is needed.
    pub(super) fn start_on_demand(&mut self, cx: &mut Context<'_>) {
        if !self.waits_for_upstream() {
            return;
        }
        self.wake_up(cx);
        if matches!(self.upstream, Upstream::OnDemand) {
            self.start_upstream(cx);
        }
    }

    /// Asks for the next upstream once its time has come.
    pub(super) fn start_if_due(&mut self, cx: &mut Context<'_>) {
        if matches!(self.upstream, Upstream::Cooling { until } if until <= cx.now) {
            self.start_upstream(cx);
        }
    }

    /// The upstream was started, as this process if it is one.
    pub(super) fn upstream_started(&mut self, pid: Option<u32>, cx: &mut Context<'_>) {
        let is_first = self.label.started(pid);
        self.backend.started(cx.now, cx.settings.heartbeat_interval);
        let wakes = std::mem::take(&mut self.hibernates);
        let is_swapped = self.is_swapped_in_place();
        let notice_at = self.backend.owes_notice().then(|| cx.now + NOTICE_DELAY);
        self.upstream = Upstream::Up(Up {
            greeting: Greeting::first(&self.handshake, cx.settings.replays),
            started: cx.now,
            history: History::after(self.sent_to_client.messages()),
            shared: None,
            wakes,
            early: Early::of(Early {
                notice_at,
                replay_at: (self.handshake.replays_at_once || is_swapped).then_some(cx.now),
                unheard: pid.map(|_| Unheard {
                    started: cx.now,
                    first_input: None,
                    is_first,
                }),
            }),
        });
        if is_swapped {
            about!(info, self.label, "has a new server");
            self.note_started_in_place(cx);
        } else {
            self.note_started(is_first, wakes, cx);
        }
        if self.backend.is_link() && self.resume.is_none() {
            let token = cx.settings.role.token().map(Secret::reveal);
            let server = cx.settings.role.server();
            self.link_line(&own_messages::handshake(token, server, None), cx);
        }
        self.release_held(cx);
        self.replay_unasked(cx);
    }

    /// Logs how long the server took to write its first output. It may have had nothing to say before it got its first
    /// input.
    #[inline]
    pub(super) fn note_first_output(&mut self, cx: &Context<'_>) {
        if matches!(&self.upstream, Upstream::Up(up) if up.early.is_some()) {
            self.note_early_output(cx);
        }
    }

    /// The same for an upstream that is new.
    #[cold]
    fn note_early_output(&mut self, cx: &Context<'_>) {
        let Upstream::Up(up) = &mut self.upstream else {
            return;
        };
        let Some(mut early) = up.early.take() else {
            return;
        };
        let unheard = early.unheard.take();
        up.early = Early::of(*early);
        let Some(unheard) = unheard else {
            return;
        };
        let since = |time: Time| cx.now.saturating_since(time).as_secs_f64();
        let after_start = since(unheard.started);
        let mut text = format!("first output of the server {after_start:.3} s after its start");
        if let Some(input) = unheard.first_input {
            let _ = write!(text, ", {:.3} s after its first input", since(input));
        }
        if unheard.is_first {
            about!(info, self.label, "{text}");
        } else {
            about!(debug, self.label, "{text}");
        }
    }

    /// Sessions that open without a message are subject to a limit: there may be too many of them for the log.
    fn note_started(&mut self, is_first: bool, wakes: bool, cx: &mut Context<'_>) {
        if wakes {
            return about!(info, self.label, "wakes up, with a new server");
        }
        if !is_first && !self.backend.is_link() {
            self.tally.restarts = self.tally.restarts.saturating_add(1);
            cx.counts.restarts += 1;
        }
        let is_unasked = is_first && self.held().is_empty();
        if is_unasked && !cx.logs.unasked.take(cx.now) {
            self.owes_opened = true;
        } else {
            self.backend.log_started(&self.label, is_first);
        }
    }

    /// The upstream could not be started. That counts as a loss.
    pub(super) fn upstream_failed(&mut self, error: &str, cx: &mut Context<'_>) {
        self.hibernates = false;
        self.backend.log_start_failed(&self.label, error);
        self.not_started_in_place(error, cx);
        self.backend.start_failed(cx.now);
        let why = self.backend.start_failure(error);
        self.after_loss(&why, LossKind::Crash, cx);
    }

    /// The upstream could not be started, and will not be.
    pub(super) fn upstream_missing(&mut self, error: &str, cx: &mut Context<'_>) {
        self.backend.log_start_failed(&self.label, error);
        self.not_started_in_place(error, cx);
        let why = self.backend.start_failure(error);
        self.after_loss(&why, LossKind::Hopeless, cx);
    }

    /// There is a peer, but it does not let us in, or is not one of ours. No further attempt changes that, unless there was a
    /// good connection before: certificates expire at three in the morning, and hosts do not start connectors again.
    pub(super) fn upstream_refused(
        &mut self,
        reason: ErrorReason,
        words: &str,
        cx: &mut Context<'_>,
    ) {
        if self.backend.was_reached() {
            self.upstream_failed(words, cx);
        } else {
            self.upstream = Upstream::None;
            let words = words.to_owned();
            self.end_now(&EndReason::Refused { reason, words }, cx);
        }
    }

    pub(super) fn upstream_timeout(&mut self, unix_time: Duration, cx: &mut Context<'_>) {
        if self.upstream.deadline().is_none_or(|at| at > cx.now) {
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
        let replay_failed = up.greeting.deadline().is_some_and(|at| at <= cx.now);
        if let Some(early) = &mut up.early
            && early.notice_at.is_some_and(|at| at <= cx.now)
        {
            early.notice_at = None;
            let replay_at = cx.now + UNASKED_REPLAY_DELAY;
            early.replay_at.get_or_insert(replay_at);
            self.give_notice(unix_time, cx);
        }
        self.replay_unasked(cx);
        if replay_failed {
            self.replay_overdue(cx);
        }
    }
}
