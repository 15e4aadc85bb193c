//! A new server under a living session: somebody has built or installed another one, and asks for it (SIGUSR1).
//!
//! ```text
//!                          fit            has finished
//!   Waiting ──► Queued ──► Greeting ──► Finishing ──► HandingOver ──► over
//!                 │
//!                 │ the old one has to go first
//!                 └───────► Finishing ──► InPlace ──► over
//!                                              fit
//! ```
//!
//! - `Waiting`: the session can't do without its present server, as in the middle of a handshake, of a task, or of a question
//!   to the user.
//! - `Queued`: the driver starts one session's server after the other.
//! - `Greeting`: the new server was started beside the old one, and is tried (`successor`). Nothing changes for the client.
//! - `Finishing`: the old server has some time for what it was asked. It still hears of responses and cancellations; what is
//!   new waits.
//! - `HandingOver`: the driver exchanges the two, and the session goes on with the new one (`moving`).
//! - `InPlace`: the old server is on its way out, or the new one was started and is tried.
//! - `Failed`: the new one is not fit; the old one stays, and the driver is told why.
//!
//! This costs no cooldown, and does not count as a restart. A session that loses its server meanwhile, or comes to its end, has
//! nothing to be moved: its next server is a new one anyway.

mod in_place;
mod moving;
mod successor;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::successor::Successor;
use super::goal::FINISH_TIME;
use super::leaving::Sign;
use super::replay::Greeting;
use super::report::Exit;
use super::upstream::{NOTICE_DELAY, Upstream};
use super::{Action, Context, Session, SwapEnd, earliest};
use crate::util::about::about;
use crate::util::time::Time;

/// A session does not keep its old server longer than this for what only that one remembers.
const MAX_TIED: Duration = Duration::from_mins(10);

/// The old server has this long for what it was asked: as long as after the end of a client.
const OLD_SERVER_TIME: Duration = FINISH_TIME;

/// A session on its way to another server.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Swap {
    /// Since when it is.
    since: Time,
    stage: Stage,
    /// Until when it needs its present server, if that is known and keeps it from moving.
    tied_until: Option<Time>,
    hold: Option<Hold>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Stage {
    Waiting,
    Queued,
    Greeting(Box<Successor>),
    /// `None` if the new one is started when the old one is gone.
    Finishing(Option<Box<Successor>>),
    HandingOver(Box<Successor>),
    InPlace {
        /// Whether the new one was started.
        is_started: bool,
        /// When it is fit, if nothing can be asked of it.
        fit_at: Option<Time>,
    },
    Failed(String),
}

/// New requests wait.
#[derive(Debug, Serialize, Deserialize)]
struct Hold {
    since: Time,
    /// How far the old server knew the client.
    greeting: Greeting,
}

/// What keeps a session at its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tie {
    None,
    /// It is over then at the latest.
    Until(Time),
    /// An event tells when it is over.
    Open,
}

impl Swap {
    /// When something is due.
    fn deadline(&self) -> Option<Time> {
        let of_stage = match &self.stage {
            Stage::Greeting(successor) => Some(successor.deadline()),
            Stage::InPlace { fit_at, .. } => *fit_at,
            Stage::Finishing(_) => self.hold.as_ref().map(|hold| hold.since + OLD_SERVER_TIME),
            Stage::Waiting | Stage::Queued | Stage::HandingOver(_) | Stage::Failed(_) => None,
        };
        earliest(of_stage, self.tied_until)
    }

    /// Whether a server was started for it, or is to be after the old one.
    fn had_turn(&self) -> bool {
        !matches!(self.stage, Stage::Waiting | Stage::Queued)
    }

    fn successor(&self) -> Option<&Successor> {
        match &self.stage {
            Stage::Greeting(successor)
            | Stage::Finishing(Some(successor))
            | Stage::HandingOver(successor) => Some(successor),
            _ => None,
        }
    }

    fn successor_mut(&mut self) -> Option<&mut Successor> {
        match &mut self.stage {
            Stage::Greeting(successor)
            | Stage::Finishing(Some(successor))
            | Stage::HandingOver(successor) => Some(successor),
            _ => None,
        }
    }
}

// What the driver asks.
impl Session {
    /// Whether the session is to get another server, and has not.
    pub fn is_swapping(&self) -> bool {
        let swap = self.swap.as_ref();
        swap.is_some_and(|swap| !matches!(swap.stage, Stage::Failed(_)))
    }

    /// Whether it waits for its turn to get one.
    pub fn waits_for_turn(&self) -> bool {
        let swap = self.swap.as_ref();
        swap.is_some_and(|swap| matches!(swap.stage, Stage::Queued))
    }

    /// Whether the new server is to take the place of the old one now.
    pub fn wants_move(&self) -> bool {
        let swap = self.swap.as_ref();
        let is_due = swap.is_some_and(|swap| matches!(swap.stage, Stage::HandingOver(_)));
        is_due && self.upstream.is_up()
    }

    /// Why the new server is not used.
    pub fn swap_failure(&self) -> Option<&str> {
        match &self.swap.as_ref()?.stage {
            Stage::Failed(words) => Some(words),
            _ => None,
        }
    }

    /// What is to be written to the new server that is tried.
    pub fn to_successor(&self) -> &[u8] {
        let successor = self.swap.as_deref().and_then(Swap::successor);
        successor.map_or(&[], Successor::unwritten)
    }

    /// Whether the output of the new server is to be read now.
    pub fn wants_successor_output(&self) -> bool {
        let successor = self.swap.as_deref().and_then(Swap::successor);
        successor.is_some_and(Successor::wants_output)
    }
}

// Events.
impl Session {
    /// The user wants the session to get a new server.
    pub(super) fn swap_wanted(&mut self, cx: &mut Context<'_>) {
        match self.swap.as_ref().map(|swap| &swap.stage) {
            Some(Stage::InPlace { .. } | Stage::HandingOver(_) | Stage::Failed(_)) => return,
            // What was started may be out of date already.
            Some(_) => self.leave_swap(cx),
            None => {}
        }
        if !self.may_swap() {
            return;
        }
        self.swap = Some(Box::new(Swap {
            since: cx.now,
            stage: Stage::Waiting,
            tied_until: None,
            hold: None,
        }));
        cx.actions.push(Action::BeginSwap);
    }

    /// The new server was started beside the old one.
    pub(super) fn successor_started(&mut self, pid: Option<u32>, cx: &mut Context<'_>) {
        if !self.waits_for_turn() {
            return;
        }
        let successor = self.new_successor(pid, cx);
        if let Some(swap) = &mut self.swap {
            swap.stage = Stage::Greeting(Box::new(successor));
        }
    }

    /// It is this session's turn, and its old server is to go before the new one is started.
    pub(super) fn swap_in_place(&mut self) {
        if let Some(swap) = self
            .swap
            .as_mut()
            .filter(|swap| matches!(swap.stage, Stage::Queued))
        {
            swap.stage = Stage::Finishing(None);
        }
    }

    /// The new server wrote this.
    pub(super) fn successor_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        let Some(mut swap) = self.swap.take() else {
            return;
        };
        let limits = Self::line_limits(cx);
        let trouble = swap
            .successor_mut()
            .and_then(|successor| successor.take(bytes, limits, &self.handshake).err());
        self.swap = Some(swap);
        if let Some(words) = trouble {
            self.fail_swap(&words, cx);
        }
    }

    /// It took this many bytes.
    pub(super) fn successor_written(&mut self, count: usize) {
        if let Some(successor) = self.swap.as_deref_mut().and_then(Swap::successor_mut) {
            successor.written(count);
        }
    }

    /// It wrote this to its stderr.
    pub(super) fn successor_stderr(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if let Some(successor) = self.swap.as_deref_mut().and_then(Swap::successor_mut) {
            successor.log.stderr(bytes, &self.label, cx);
        }
    }

    /// It ended, or closed a pipe, before it could be used.
    pub(super) fn successor_ended(&mut self, exit: Option<Exit>, cx: &mut Context<'_>) {
        let Some(successor) = self.swap.as_deref_mut().and_then(Swap::successor_mut) else {
            return;
        };
        successor.log.server_ended(exit.is_none(), &self.label, cx);
        let line = successor.log.take_last_line();
        let mut words = exit.map_or_else(
            || "it closed a pipe".to_owned(),
            |exit| format!("it ended ({exit})"),
        );
        if let Some(line) = line {
            words = format!("{words}; its last line on stderr: {line}");
        }
        self.fail_swap(&words, cx);
    }

    /// No new server is to come, as one of another session was not fit.
    pub(super) fn swap_over(&mut self, cx: &mut Context<'_>) {
        if self.swap_failure().is_some() {
            self.swap = None;
        } else if self.swap.is_some() {
            self.leave_swap(cx);
        }
    }
}

// The way there.
impl Session {
    /// When something is due.
    #[inline]
    pub(super) fn swap_deadline(&self) -> Option<Time> {
        self.swap.as_ref()?.deadline()
    }

    /// How much memory it takes.
    pub(super) fn swap_capacity(&self) -> usize {
        let successor = self.swap.as_deref().and_then(Swap::successor);
        successor.map_or(0, Successor::capacity)
    }

    /// Takes the session as far towards its new server as it can get.
    pub(super) fn advance_swap(&mut self, cx: &mut Context<'_>) {
        let Some(swap) = &self.swap else { return };
        if matches!(swap.stage, Stage::Failed(_)) {
            return;
        }
        let is_early = matches!(swap.stage, Stage::Waiting | Stage::Queued);
        if !self.may_swap() || (is_early && self.is_bound(cx)) {
            return self.leave_swap(cx);
        }
        let tie = self.tie(cx.now);
        let begins_anew = self.handshake.is_under_way();
        let Some(swap) = &mut self.swap else { return };
        let holds = swap.hold.is_some();
        swap.tied_until = match (&swap.stage, tie) {
            (Stage::Waiting | Stage::Finishing(_), Tie::Until(at)) => Some(at),
            _ => None,
        };
        match &mut swap.stage {
            Stage::Waiting if tie == Tie::None => {
                swap.stage = Stage::Queued;
                cx.actions.push(Action::QueueSwap);
            }
            // It was told of another handshake.
            Stage::Greeting(_) | Stage::Finishing(Some(_)) if begins_anew && !holds => {
                swap.stage = Stage::Waiting;
                cx.actions.push(Action::EndSwap(SwapEnd::Again));
            }
            Stage::Greeting(successor) => match successor.verdict(cx.now) {
                Some(Ok(())) => {
                    let is_fit = std::mem::replace(&mut swap.stage, Stage::Waiting);
                    if let Stage::Greeting(successor) = is_fit {
                        swap.stage = Stage::Finishing(Some(successor));
                    }
                    self.finish_before_swap(tie, cx);
                }
                Some(Err(words)) => self.fail_swap(&words, cx),
                None => {}
            },
            Stage::Finishing(_) => self.finish_before_swap(tie, cx),
            Stage::InPlace { fit_at, .. } if fit_at.is_some_and(|at| at <= cx.now) => {
                self.moved_in_place(cx);
            }
            _ => {}
        }
    }

    /// Whether there is a server that another one can take the place of.
    fn may_swap(&self) -> bool {
        let swap = self.swap.as_ref();
        let is_in_place = swap.is_some_and(|swap| matches!(swap.stage, Stage::InPlace { .. }));
        let is_up = matches!(&self.upstream, Upstream::Up(up) if up.shared.is_none());
        self.goal.is_serve() && !self.is_stopping() && (is_up || is_in_place)
    }

    /// Whether no other server can be told of the client.
    fn is_bound(&self, cx: &Context<'_>) -> bool {
        let is_unreplayed = self.handshake.is_recorded() && !cx.settings.replays;
        let is_bound = self.handshake.is_too_large() || is_unreplayed;
        if is_bound {
            let why = "keeps its server, as its handshake can't be replayed to another";
            about!(warn, self.label, "{why}");
        }
        is_bound
    }

    fn tie(&self, now: Time) -> Tie {
        let Upstream::Up(up) = &self.upstream else {
            return Tie::None;
        };
        let is_greeting = matches!(up.greeting, Greeting::Replaying(_) | Greeting::Refusing);
        let holds = self.swap.as_ref().is_some_and(|swap| swap.hold.is_some());
        if is_greeting || (self.handshake.is_under_way() && !holds) {
            return Tie::Open;
        }
        let since = self.swap.as_ref().map_or(now, |swap| swap.since);
        let until = self
            .rare
            .server_memory
            .needed_until(now)
            .min(since + MAX_TIED);
        if until > now {
            Tie::Until(until)
        } else {
            Tie::None
        }
    }

    /// Lets the old server finish, and nothing new begin. What was asked to be told of for good is over.
    fn finish_before_swap(&mut self, tie: Tie, cx: &mut Context<'_>) {
        if tie != Tie::None {
            return self.hold_no_more(cx);
        }
        self.hold_what_is_new(cx);
        self.close_open_subscriptions(cx);
        let has_finished = self.in_flight.is_empty()
            && self.to_upstream.is_empty()
            && self.upstream_backlog.is_none()
            && self.from_upstream.is_between_lines();
        let Some(swap) = &mut self.swap else { return };
        let since = swap.hold.as_ref().map_or(cx.now, |hold| hold.since);
        if !has_finished && cx.now < since + OLD_SERVER_TIME {
            return;
        }
        let stage = std::mem::replace(&mut swap.stage, Stage::Waiting);
        if let Stage::Finishing(Some(successor)) = stage {
            swap.stage = Stage::HandingOver(successor);
            cx.actions.push(Action::MoveUpstream);
        } else {
            let (is_started, fit_at) = (false, None);
            swap.stage = Stage::InPlace { is_started, fit_at };
            swap.hold = None;
            self.begin_leaving(Sign::ToldToStop, cx);
            cx.actions.push(Action::StopUpstream);
        }
    }

    fn hold_what_is_new(&mut self, cx: &Context<'_>) {
        let (Some(swap), Upstream::Up(up)) = (&mut self.swap, &mut self.upstream) else {
            return;
        };
        swap.hold.get_or_insert_with(|| Hold {
            since: cx.now,
            greeting: std::mem::replace(&mut up.greeting, Greeting::Finishing),
        });
    }

    fn hold_no_more(&mut self, cx: &mut Context<'_>) {
        let hold = self.swap.as_mut().and_then(|swap| swap.hold.take());
        self.release_hold(hold, cx);
    }

    /// The old server gets what has waited.
    fn release_hold(&mut self, hold: Option<Hold>, cx: &mut Context<'_>) {
        if let Some(hold) = hold
            && let Upstream::Up(up) = &mut self.upstream
            && matches!(up.greeting, Greeting::Finishing)
        {
            up.greeting = hold.greeting;
            self.release_held(cx);
        }
    }

    /// The session is not on its way to another server any more.
    pub(super) fn leave_swap(&mut self, cx: &mut Context<'_>) {
        let Some(swap) = self.swap.take() else {
            return;
        };
        let had_turn = swap.had_turn();
        let end = SwapEnd::Over { had_turn };
        cx.actions.push(Action::EndSwap(end));
        self.release_hold(swap.hold, cx);
    }

    /// The new server is not fit: the old one stays.
    pub(super) fn fail_swap(&mut self, words: &str, cx: &mut Context<'_>) {
        about!(warn, self.label, "the new server is not used: {words}");
        let Some(swap) = &mut self.swap else { return };
        let had_turn = swap.had_turn();
        let hold = swap.hold.take();
        swap.tied_until = None;
        swap.stage = Stage::Failed(words.to_owned());
        let end = SwapEnd::Failed { had_turn };
        cx.actions.push(Action::EndSwap(end));
        self.release_hold(hold, cx);
    }
}
