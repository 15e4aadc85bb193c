//! A session of which a connection may be lost and come back: the client's in `serve`, the link in `connect`.
//!
//! What is sent again, and what was taken, is the business of the driver and of [`crate::resume`]. For the session, the time
//! without a connection is a pause: nothing is lost, and its clocks stand. Its heartbeats do not go between its lines, as
//! these may have to wait, but beside them.

use std::io::ErrorKind;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backlog::Backlog;
use super::client_side::Client;
use super::report::Exit;
use super::upstream::{ToUpstream, Upstream};
use super::{Action, Context, Session, Spawn};
use crate::protocol::envelope::Message;
use crate::protocol::own_messages::Delivered;
use crate::resume::wire::Ask;
use crate::util::side_bytes;
use crate::util::time::Time;

/// What there is to know of that. An idle session has little of it, and no piece of memory for it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Resuming {
    /// When the driver wants to be run next; zero for never.
    Calm(Time),
    /// There is more.
    Rare(Box<Rare>),
}

/// What is seldom there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Rare {
    /// The same.
    deadline: Time,
    /// A heartbeat that is due.
    heartbeat: Option<Box<str>>,
    /// Since when there is no connection.
    detached: Option<Time>,
    /// How long there was none before.
    paused: Duration,
    /// The first line of a client that asks for it, until the driver has said what becomes of that.
    #[serde(with = "side_bytes::maybe")]
    asked: Option<Box<[u8]>>,
    /// Whether the other end has said how much it had taken.
    is_delivery_known: bool,
}

impl Default for Resuming {
    fn default() -> Self {
        Self::Calm(Time::default())
    }
}

impl Resuming {
    fn with(rare: Rare) -> Self {
        Self::Rare(Box::new(rare))
    }

    fn rare(&self) -> Option<&Rare> {
        match self {
            Self::Calm(_) => None,
            Self::Rare(rare) => Some(rare),
        }
    }

    fn rare_mut(&mut self) -> &mut Rare {
        if let Self::Calm(deadline) = *self {
            *self = Self::with(Rare {
                deadline,
                ..Rare::default()
            });
        }
        match self {
            Self::Rare(rare) => rare,
            Self::Calm(_) => unreachable!("it is not any more"),
        }
    }

    fn deadline(&self) -> Time {
        match self {
            Self::Calm(deadline) => *deadline,
            Self::Rare(rare) => rare.deadline,
        }
    }

    fn set_deadline(&mut self, at: Time) {
        match self {
            Self::Calm(deadline) => *deadline = at,
            Self::Rare(rare) => rare.deadline = at,
        }
    }

    fn is_detached(&self) -> bool {
        self.rare().is_some_and(|it| it.detached.is_some())
    }

    fn is_asking(&self) -> bool {
        self.rare().is_some_and(|it| it.asked.is_some())
    }
}

// What happens.
impl Session {
    /// From now on, the connection may be lost and come back.
    pub(super) fn keep_connection(&mut self) {
        self.resume = Some(Resuming::default());
    }

    /// It can't.
    pub(super) fn keep_no_connection(&mut self) {
        self.resume = None;
    }

    /// There is no connection for now. A line that is not finished is no line.
    pub(super) fn detached(&mut self, cx: &Context<'_>) {
        let Some(resume) = &mut self.resume else {
            return;
        };
        let rare = resume.rare_mut();
        rare.detached = Some(cx.now);
        rare.heartbeat = None;
        if self.backend.is_link() {
            Backlog::forget_half_line(&mut self.upstream_backlog, &mut self.from_upstream);
        } else if let Client::Open { unread, .. } = &mut self.client {
            Backlog::forget_half_line(unread, &mut self.from_client);
        }
    }

    /// There is a connection again.
    pub(super) fn attached(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        let is_link = self.backend.is_link();
        let Some(resume) = &mut self.resume else {
            return;
        };
        // One that was alive was taken over: what has come of its last line is forgotten all the same.
        let rare = resume.rare_mut();
        let since = rare.detached.take().unwrap_or(now);
        let pause = now.saturating_since(since);
        rare.paused += pause;
        if is_link {
            Backlog::forget_half_line(&mut self.upstream_backlog, &mut self.from_upstream);
        } else if let Client::Open { unread, hung_up } = &mut self.client {
            Backlog::forget_half_line(unread, &mut self.from_client);
            *hung_up = None;
        }
        self.last_line += pause;
        self.last_written += pause;
        self.unwritten_since = self.unwritten_since.map(|since| since + pause);
        self.heartbeat.note_heard(now);
        self.backend
            .link_made_again(now, cx.settings.heartbeat_interval);
        if matches!(self.upstream, Upstream::OnDemand)
            && !is_link
            && !self.hibernates
            && cx.settings.spawn == Spawn::Eager
        {
            self.start_upstream(cx);
        }
    }

    /// The other end does not know the session any more. It may say what it has taken: all but these last lines that were
    /// sent. They go to the next upstream, which is there at once.
    pub(super) fn not_resumed(&mut self, untaken: Option<&[u8]>, cx: &mut Context<'_>) {
        self.finish_upstream_backlog(cx);
        self.resume = None;
        let kind = untaken.is_none().then_some(ErrorKind::ConnectionReset);
        self.link_ended(Exit::Connection(kind), cx);
        if let Upstream::Leaving(leaving) = &mut self.upstream {
            leaving.is_left = true;
        }
        let Some(untaken) = untaken else {
            return self.advance_leaving(cx);
        };
        self.take_back_unread(untaken, cx);
        self.resume = Some(Resuming::with(Rare {
            is_delivery_known: true,
            ..Rare::default()
        }));
        self.advance_leaving(cx);
        self.resume = None;
    }

    /// The proxy at the other end says something of the connection itself.
    pub(super) fn link_said(&mut self, line: &[u8], cx: &mut Context<'_>) {
        if let Some(liveness) = self.backend.liveness() {
            liveness.note_received(cx.now);
        }
        self.note_line();
        self.backend.proxy_heard();
        if let Ok(Message::Single(envelope)) = Message::read(line) {
            self.backend
                .take_link_line(&envelope, line, &self.label, cx.now);
        }
    }

    /// A client begins with a handshake. If it asks for its session to be kept, what follows waits for the driver's answer.
    pub(super) fn note_ask(&mut self, line: &[u8], cx: &mut Context<'_>) {
        let has_said_nothing = self.sent_to_upstream.is_none() && !self.heartbeat.is_announced();
        if self.resume.is_some() || !has_said_nothing || Ask::in_line(line).is_none() {
            return;
        }
        self.resume = Some(Resuming::with(Rare {
            asked: Some(line.into()),
            ..Rare::default()
        }));
        cx.actions.push(Action::ResumeAsked);
    }
}

// What the driver asks.
impl Session {
    /// The first line of a client that asks for its session to be kept.
    pub fn asked_to_resume(&self) -> Option<&[u8]> {
        self.resume.as_ref()?.rare()?.asked.as_deref()
    }

    /// What was read of the client after that.
    pub fn take_unread(&mut self) -> Vec<u8> {
        let mut bytes = self.from_client.take_begun();
        if let Client::Open { unread, .. } = &mut self.client
            && let Some(unread) = unread.take()
        {
            bytes.extend_from_slice(unread.rest());
        }
        bytes
    }

    /// Whether anything was said to the client, or waits to be.
    pub fn has_spoken_to_client(&self) -> bool {
        let has_written = self.last_written > self.opened;
        has_written || !self.sent_to_client.is_none() || !self.to_client.is_empty()
    }

    /// Takes the heartbeat that is due.
    pub fn take_heartbeat(&mut self) -> Option<Box<str>> {
        let resume = self.resume.as_mut()?;
        let Resuming::Rare(rare) = resume else {
            return None;
        };
        let heartbeat = rare.heartbeat.take();
        if rare.paused.is_zero() && rare.detached.is_none() && rare.asked.is_none() {
            *resume = Resuming::Calm(rare.deadline);
        }
        heartbeat
    }

    /// Sets when the driver wants to be run next.
    pub fn set_resume_deadline(&mut self, at: Option<Time>) {
        if let Some(resume) = &mut self.resume {
            resume.set_deadline(at.unwrap_or_default());
        }
    }

    /// Whether the connection that may come back is not there.
    pub fn is_detached(&self) -> bool {
        let resume = self.resume.as_ref();
        resume.is_some_and(Resuming::is_detached)
    }

    /// What came over the connection and waits for the other side, in bytes.
    pub fn waiting_for_other_side(&self) -> usize {
        if self.backend.is_link() {
            let backlog = self.upstream_backlog.as_deref();
            return self.to_client.len() + backlog.map_or(0, |backlog| backlog.rest().len());
        }
        let unread = match &self.client {
            Client::Open {
                unread: Some(unread),
                ..
            } => unread.rest().len(),
            _ => 0,
        };
        self.to_upstream.len() + self.held().len() + unread
    }

    /// Whether everything that was read of the client is handled.
    pub fn has_handled_client(&self) -> bool {
        !self.client.has_unread()
    }

    /// Whether nothing more will be said to the client but what waits for it.
    pub fn is_ending(&self) -> bool {
        self.goal.is_end()
    }

    /// Whether the client has been told of the end, and there is no upstream.
    pub fn is_only_lingering(&self) -> bool {
        matches!(self.client, Client::Lingering(_)) && matches!(self.upstream, Upstream::None)
    }

    /// The reason of the end in one word.
    pub fn end_reason_name(&self) -> &'static str {
        self.goal
            .reason()
            .map_or("ended", |reason| reason.error_reason().name())
    }

    /// When another attempt to connect may be made, by the policy for lost links; `None` if none may.
    pub fn next_attempt(&mut self, now: Time) -> Option<Time> {
        self.backend.next_attempt(now)
    }
}

// What depends on it.
impl Session {
    /// Whether nothing is to be handled for now.
    pub(super) fn is_paused(&self) -> bool {
        let resume = self.resume.as_ref();
        resume.is_some_and(|resume| resume.is_asking() || resume.is_detached())
    }

    /// Whether the client's next lines have to wait for the driver.
    pub(super) fn is_asking(&self) -> bool {
        let resume = self.resume.as_ref();
        resume.is_some_and(Resuming::is_asking)
    }

    /// Whether it is for the driver to say how long the client is waited for.
    pub(super) fn waits_as_driver_says(&self) -> bool {
        self.resume.is_some() && !self.backend.is_link() && !self.is_stopping()
    }

    /// Takes a heartbeat beside the lines. Returns whether there is such a way.
    pub(super) fn beat_beside(&mut self, line: impl FnOnce() -> String) -> bool {
        let Some(resume) = &mut self.resume else {
            return false;
        };
        if !resume.is_detached() {
            resume.rare_mut().heartbeat = Some(line().into());
        }
        true
    }

    pub(super) fn resume_deadline(&self) -> Option<Time> {
        let deadline = self.resume.as_ref()?.deadline();
        (deadline != Time::default()).then_some(deadline)
    }

    /// The driver is run after any event.
    pub(super) fn resume_timeout(&mut self, now: Time) {
        if let Some(resume) = &mut self.resume
            && resume.deadline() <= now
        {
            resume.set_deadline(Time::default());
        }
    }

    /// How long the session had no connection, in all.
    pub(super) fn time_paused(&self) -> Duration {
        let rare = self.resume.as_ref().and_then(Resuming::rare);
        rare.map_or(Duration::ZERO, |rare| rare.paused)
    }

    /// Since when no request can be sent although the upstream is there.
    pub(super) fn link_lost_since(&self) -> Option<Time> {
        self.resume.as_ref()?.rare()?.detached
    }

    /// Whether requests that were sent had reached the other end.
    pub(super) fn delivered(&self) -> Delivered {
        let rare = self.resume.as_ref().and_then(Resuming::rare);
        match rare {
            Some(rare) if rare.is_delivery_known => Delivered::Yes,
            _ => self.backend.delivers(),
        }
    }

    /// Whether a server that died is started only once something waits for it.
    pub(super) fn restarts_on_demand(&self) -> bool {
        self.is_detached() && !self.backend.is_link() && !self.waits_for_upstream()
    }

    /// Whether a line of the upstream would be taken for one of the proxy's own.
    pub(super) fn mimics_proxy(&self, message: &Message<'_>) -> bool {
        use crate::resume::wire::Side;
        matches!(message, Message::Single(envelope)
            if envelope.control.is_some_and(|control| control.side() == Side::Proxy))
            && !self.backend.is_link()
            && self.heartbeat.is_announced()
    }

    /// Lines that wait to be written over a link that is lost.
    pub(super) fn waits_for_link(&self) -> impl Iterator<Item = &ToUpstream> {
        let tags = self.is_detached().then(|| self.to_upstream.tags());
        tags.into_iter().flatten()
    }
}
