//! The loop of `connect`, for several hosts at once: the shipped session, scheduler, link and run, in the phases of the
//! program, over the scripted network.

use std::io;

use mcp_tcp_proxy::buffers::budget::BufferBudget;
use mcp_tcp_proxy::connect::kept_link::{End, KeptLink, Step};
use mcp_tcp_proxy::connect::kept_run::{Carrier, KeptRun};
use mcp_tcp_proxy::protocol::own_messages;
use mcp_tcp_proxy::pump::{Transport, pump};
use mcp_tcp_proxy::reactor::Reactor;
use mcp_tcp_proxy::reactor::io::{Input, Io};
use mcp_tcp_proxy::reactor::timers::{Deadline, Timers};
use mcp_tcp_proxy::reactor::token::Target;
use mcp_tcp_proxy::resume::wire::SessionId;
use mcp_tcp_proxy::scheduler::{Driver, Scheduler, SessionKey};
use mcp_tcp_proxy::session::report::Label;
use mcp_tcp_proxy::session::{Action, Context, Event, Session, Settings};
use mcp_tcp_proxy::util::time::Time;
use mio::Interest;

use super::below::{Below, Dial};
use crate::connectors::{CLOSE_TIME, CONNECT_TIME, END_TIME, Side as Of};
use crate::plain_system::{Poller, Who};
use crate::script::Sleep;
use crate::transport::{Events, Shared, Socket};

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Session(SessionKey),
    Connect(SessionKey),
    Close(SessionKey),
    End(SessionKey),
    Retry(SessionKey),
    NotResumed(SessionKey),
}

impl From<SessionKey> for Due {
    fn from(key: SessionKey) -> Self {
        Self::Session(key)
    }
}

/// The connection of one session.
pub struct Link {
    io: Option<Io<Socket>>,
    is_half_closed: bool,
    close: Deadline,
    below: Shared<Below>,
}

impl Transport for Link {
    fn is_readable(&self) -> bool {
        self.io.is_readable()
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.io.read(buffer)
    }

    fn is_writable(&self) -> bool {
        self.io.is_writable()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.io.write(bytes)
    }
}

impl Carrier for Link {
    fn is_half_closed(&self) -> bool {
        self.is_half_closed
    }

    fn end(&mut self) {
        if let Some(io) = &self.io {
            io.source().duplex.borrow_mut().writes = false;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn note_held_input(&mut self) -> bool {
        false
    }

    fn boot_time(&self) -> Time {
        let below = self.below.borrow();
        below.now + below.slept
    }
}

impl Link {
    fn bring_down(&mut self, timers: &mut Timers<Due>) {
        self.io = None;
        self.is_half_closed = false;
        self.close.clear(timers);
    }

    fn half_close(&mut self, key: SessionKey, timers: &mut Timers<Due>) {
        self.is_half_closed = true;
        let at = timers.now() + CLOSE_TIME;
        self.close.set(Some(at), Due::Close(key), timers);
    }
}

/// What is around one session.
pub struct Place {
    pub host: usize,
    stdio: Option<Io<Socket>>,
    link: Link,
    pub kept: Option<Box<KeptLink>>,
    connect: Deadline,
    retry: Deadline,
    not_resumed: Deadline,
    end: Deadline,
    is_done: bool,
}

impl Place {
    fn deadlines(&self) -> usize {
        let all = [
            &self.connect,
            &self.retry,
            &self.not_resumed,
            &self.end,
            &self.link.close,
        ];
        all.iter().filter(|it| it.at().is_some()).count()
    }

    fn is_lost(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.is_lost())
    }
}

struct Sides;

impl Driver for Sides {
    type Place = Place;

    fn run(
        &mut self,
        _: SessionKey,
        session: &mut Session,
        place: &mut Place,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        if place.kept.is_some() {
            let mut run = KeptRun {
                kept: &mut place.kept,
                carrier: &mut place.link,
            };
            return run.run(session, &mut place.stdio, scratch, cx);
        }
        pump(session, &mut place.stdio, &mut place.link, scratch, cx)
    }
}

pub struct Connectors {
    below: Shared<Below>,
    pub reactor: Reactor<Of, Due, Poller<Below>>,
    pub scheduler: Scheduler<Place>,
    events: Events,
}

impl Connectors {
    pub fn new(below: &Shared<Below>, settings: Settings) -> Self {
        Self {
            below: below.clone(),
            reactor: Reactor::new(Poller::new(below, Who::Connectors)),
            scheduler: Scheduler::new(settings, BufferBudget::new(1 << 26)),
            events: Events::new(),
        }
    }

    pub fn open(&mut self, host: usize) {
        let duplex = self.below.borrow().duplex_of(host);
        let target = Target {
            key: self.scheduler.next_key().0,
            channel: Of::Client,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let socket = Socket { duplex, slot: host };
        let stdio = self.reactor.register(socket, target, interest);
        let place = Place {
            host,
            stdio: stdio.ok(),
            link: Link {
                io: None,
                is_half_closed: false,
                close: Deadline::default(),
                below: self.below.clone(),
            },
            kept: None,
            connect: Deadline::default(),
            retry: Deadline::default(),
            not_resumed: Deadline::default(),
            end: Deadline::default(),
            is_done: false,
        };
        let label = Label::Connection("localhost:1".into());
        self.scheduler.open(label, place, &mut self.reactor.timers);
        self.apply_actions();
    }

    /// Whether the loop would sleep now.
    pub fn is_at_rest(&self) -> bool {
        let is_asleep = self.reactor.poller().sleeps_until != Sleep::No;
        let is_due = self.reactor.timers.is_due();
        let places = self.scheduler.iter();
        let below = self.below.borrow();
        let mut dials = places.map(|(_, _, place)| below.dials[place.host]);
        let is_dialled = dials.any(|it| !matches!(it, Dial::None | Dial::Pending));
        is_asleep && self.events.is_empty() && !is_due && !is_dialled && !self.scheduler.is_busy()
    }

    /// How the links are.
    pub fn states(&self) -> Vec<String> {
        let places = self.scheduler.iter();
        let shown = places.map(|(_, session, place)| {
            let link = &place.link;
            format!(
                "host {}: {} link {} {} {} w{}, {:?}, {:?} {} {}",
                place.host,
                place.stdio.is_readable(),
                link.io.is_some(),
                link.is_half_closed,
                link.is_readable(),
                link.is_writable(),
                place.kept,
                session.has_output_for_client(),
                session.has_output_for_upstream(),
                session.has_more_lines()
            )
        });
        shown.collect()
    }

    fn keys(&self) -> Vec<SessionKey> {
        self.scheduler.iter().map(|(key, ..)| key).collect()
    }

    pub fn iterate(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        let is_busy = self.scheduler.is_busy();
        self.reactor.wait(&mut events, is_busy).unwrap();
        for (token, readiness) in &events {
            if let Some(Target { key, channel }) = self.reactor.target(*token) {
                self.scheduler.note(SessionKey(key), |place| {
                    let io = match channel {
                        Of::Client => &mut place.stdio,
                        Of::Upstream => &mut place.link.io,
                    };
                    io.as_mut().is_some_and(|io| io.latch(*token, *readiness))
                });
            }
        }
        self.events = events;
        for key in self.keys() {
            self.advance_attempt(key);
        }
        self.scheduler
            .run_ready(&mut Sides, &mut self.reactor.timers);
        for key in self.keys() {
            self.note_end(key);
            self.go_on_resuming(key);
        }
        self.fire_timers();
        self.apply_actions();
        for key in self.keys() {
            self.drop_unwanted_attempt(key);
            self.free_if_done(key);
        }
        self.scheduler.wake_for_memory();
        self.check();
    }

    /// All deadlines are someone's.
    fn check(&self) {
        self.scheduler.check();
        let places = self.scheduler.iter();
        let own: usize = places.map(|(_, _, place)| place.deadlines()).sum();
        let all = self.scheduler.deadlines() + own;
        assert_eq!(self.reactor.timers.len(), all, "timers are nobody's");
    }

    fn place(&mut self, key: SessionKey) -> (&mut Place, &mut Timers<Due>) {
        let place = self.scheduler.place_mut(key).unwrap();
        (place, &mut self.reactor.timers)
    }

    fn tell(&mut self, key: SessionKey, event: Event<'_>) {
        self.scheduler.handle(key, event, &mut self.reactor.timers);
    }

    fn fire_timers(&mut self) {
        while let Some(due) = self.reactor.timers.pop() {
            match due {
                Due::Session(key) => {
                    let unix_time = {
                        let below = self.below.borrow();
                        below.now.saturating_since(below.began)
                    };
                    self.tell(key, Event::Deadline { unix_time });
                }
                Due::Connect(key) => {
                    self.place(key).0.connect.fired();
                    let host = self.place(key).0.host;
                    self.below.borrow_mut().hang_up(host);
                    self.attempt_failed(key);
                }
                Due::Close(key) => self.close_overdue(key),
                Due::End(key) => self.end_overdue(key),
                Due::Retry(key) => self.retry_due(key),
                Due::NotResumed(key) => self.resume_overdue(key),
            }
        }
    }

    fn note_end(&mut self, key: SessionKey) {
        let session = self.scheduler.session(key).unwrap();
        let has_left = session.client_has_left();
        let (place, timers) = self.place(key);
        if has_left && place.end.at().is_none() {
            let at = timers.now() + END_TIME;
            place.end.set(Some(at), Due::End(key), timers);
        }
    }

    /// Whatever is still to be said or heard: it had its time.
    fn end_overdue(&mut self, key: SessionKey) {
        let (place, _) = self.place(key);
        place.end.fired();
        let kept = place.kept.as_ref();
        let is_said = !kept.is_some_and(|kept| kept.is_lost() && kept.is_ending());
        let host = place.host;
        self.drop_connection(key);
        self.scheduler.enqueue(key);
        self.scheduler
            .run_ready(&mut Sides, &mut self.reactor.timers);
        let session = self.scheduler.session(key).unwrap();
        let is_heard = session.to_client().is_empty();
        if !is_said || !is_heard {
            self.below.borrow_mut().hosts[host].cut_off();
        }
        self.place(key).0.is_done = true;
    }

    fn apply_actions(&mut self) {
        while let Some((key, action)) = self.scheduler.next_action() {
            let session = self.scheduler.session(key).unwrap();
            let wants_start = session.wants_start();
            match action {
                Action::StartUpstream if wants_start => self.start_link(key),
                Action::StartUpstream
                | Action::CheckClient
                | Action::CheckUpstream
                | Action::ResumeAsked
                | Action::BeginSwap
                | Action::QueueSwap
                | Action::MoveUpstream
                | Action::EndSwap(_) => {}
                Action::LinkSilent => self.link_is_silent(key),
                Action::StopUpstream | Action::HibernateUpstream => self.end_our_side(key),
                Action::ReleaseUpstream => self.release_link(key),
                Action::ShutdownClient | Action::CloseClient => self.place(key).0.is_done = true,
                Action::MeasureClient => self.tell(key, Event::ClientQueue { unsent: None }),
            }
        }
    }

    fn free_if_done(&mut self, key: SessionKey) {
        if !self.place(key).0.is_done {
            return;
        }
        self.forget_kept(key);
        let timers = &mut self.reactor.timers;
        let (_, mut place) = self.scheduler.free(key, timers).unwrap();
        for deadline in [
            &mut place.connect,
            &mut place.retry,
            &mut place.not_resumed,
            &mut place.end,
        ] {
            deadline.clear(timers);
        }
        place.link.bring_down(timers);
        self.below.borrow_mut().hang_up(place.host);
    }

    // Attempts.

    fn connect(&mut self, key: SessionKey) {
        let (place, timers) = self.place(key);
        let at = timers.now() + CONNECT_TIME;
        place.connect.set(Some(at), Due::Connect(key), timers);
        let host = place.host;
        self.below.borrow_mut().dials[host] = Dial::Pending;
    }

    fn advance_attempt(&mut self, key: SessionKey) {
        self.drop_unwanted_attempt(key);
        let host = self.place(key).0.host;
        let dialled = self.below.borrow_mut().dialled(host);
        let Some(dialled) = dialled else { return };
        let (place, timers) = self.place(key);
        place.connect.clear(timers);
        let Ok(socket) = dialled else {
            return self.attempt_failed(key);
        };
        let target = Target {
            key: key.0,
            channel: Of::Upstream,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let io = self.reactor.register(socket, target, interest);
        self.place(key).0.link.io = io.ok();
        if self.place(key).0.is_lost() {
            return self.ask_again(key);
        }
        self.ask(key);
        self.tell(key, Event::UpstreamStarted { pid: None });
    }

    fn attempt_failed(&mut self, key: SessionKey) {
        let (place, _) = self.place(key);
        if !place.is_lost() {
            return self.tell(key, Event::UpstreamFailed("refused"));
        }
        if let Some(kept) = &mut place.kept {
            kept.try_again();
        }
        self.go_on_resuming(key);
    }

    fn drop_unwanted_attempt(&mut self, key: SessionKey) {
        let wants_start = self.scheduler.session(key).unwrap().wants_start();
        let (place, timers) = self.place(key);
        if place.connect.at().is_some() && !wants_start && !place.is_lost() {
            place.connect.clear(timers);
            let host = place.host;
            self.below.borrow_mut().hang_up(host);
        }
    }

    // A link that may come back.

    fn fresh_id(&self) -> SessionId {
        let mut below = self.below.borrow_mut();
        SessionId::new(std::array::from_fn(|_| below.rng.below(256) as u8))
    }

    fn ask(&mut self, key: SessionKey) {
        let id = self.fresh_id();
        let heartbeat = self.scheduler.settings().heartbeat_interval;
        let now = self.reactor.now();
        let (place, _) = self.place(key);
        let mut kept = KeptLink::new(id, heartbeat, now, place.link.boot_time());
        let text = kept.ask().text();
        kept.begin_with(&own_messages::handshake(None, None, Some(&text)));
        place.kept = Some(Box::new(kept));
        self.tell(key, Event::Kept);
    }

    fn ask_again(&mut self, key: SessionKey) {
        let fresh = self.fresh_id();
        let now = self.reactor.now();
        let (place, timers) = self.place(key);
        if let Some(kept) = &mut place.kept {
            let text = kept.ask_again(fresh, now).text();
            kept.say_first(&own_messages::handshake(None, None, Some(&text)));
        }
        let at = now + CONNECT_TIME;
        place.retry.set(Some(at), Due::Retry(key), timers);
        self.scheduler.enqueue(key);
    }

    fn go_on_resuming(&mut self, key: SessionKey) {
        let now = self.reactor.now();
        let timers = &mut self.reactor.timers;
        let place = self.scheduler.place_mut(key).unwrap();
        if !place.is_lost() {
            place.retry.clear(timers);
            place.not_resumed.clear(timers);
            let is_due = place.kept.as_ref().is_some_and(|kept| kept.is_ending());
            if is_due && place.link.io.is_some() && !place.link.is_half_closed {
                place.link.half_close(key, timers);
                self.scheduler.enqueue(key);
            }
            return;
        }
        let boot_time = place.link.boot_time();
        let Some(mut kept) = place.kept.take() else {
            return;
        };
        if kept.is_down() {
            place.link.bring_down(timers);
        }
        let session = self.scheduler.session_mut(key).unwrap();
        let step = kept.next_step(session, now, boot_time);
        let (place, timers) = self.place(key);
        place.kept = Some(kept);
        match step {
            Step::Wait => {}
            Step::GiveUp(_) => self.give_up_resuming(key),
            Step::ConnectAt { at, left } => {
                let until = Some(now + left);
                place.not_resumed.set(until, Due::NotResumed(key), timers);
                if at <= now {
                    place.retry.clear(timers);
                    self.connect(key);
                } else {
                    place.retry.set(Some(at), Due::Retry(key), timers);
                }
            }
        }
    }

    fn retry_due(&mut self, key: SessionKey) {
        let (place, _) = self.place(key);
        place.retry.fired();
        let is_tried = place.connect.at().is_some();
        let Some(kept) = &place.kept else { return };
        if kept.awaits_verdict() {
            self.give_up_resuming(key);
        } else if kept.is_down() && !is_tried {
            self.connect(key);
        }
    }

    fn resume_overdue(&mut self, key: SessionKey) {
        let (place, timers) = self.place(key);
        place.not_resumed.fired();
        let boot_time = place.link.boot_time();
        let kept = place.kept.as_ref().filter(|kept| kept.is_lost());
        let Some(left) = kept.map(|kept| kept.time_left(boot_time)) else {
            return;
        };
        match left {
            Some(left) => {
                let at = timers.now() + left;
                place
                    .not_resumed
                    .set(Some(at), Due::NotResumed(key), timers);
            }
            None => self.give_up_resuming(key),
        }
    }

    fn give_up_resuming(&mut self, key: SessionKey) {
        self.forget_kept(key);
        let (place, timers) = self.place(key);
        place.retry.clear(timers);
        place.not_resumed.clear(timers);
        place.connect.clear(timers);
        place.link.bring_down(timers);
        let host = place.host;
        self.below.borrow_mut().hang_up(host);
        let error = io::Error::from(io::ErrorKind::TimedOut);
        self.tell(key, Event::UpstreamEof(Some(&error)));
    }

    fn forget_kept(&mut self, key: SessionKey) {
        if let Some(mut kept) = self.place(key).0.kept.take() {
            kept.release(self.scheduler.memory_mut());
        }
    }

    fn start_link(&mut self, key: SessionKey) {
        let kept = self.place(key).0.kept.as_mut();
        let Some(early) = kept.and_then(|kept| kept.begin_fresh()) else {
            return self.connect(key);
        };
        self.tell(key, Event::Kept);
        self.tell(key, Event::UpstreamStarted { pid: None });
        if !early.is_empty() {
            self.tell(key, Event::UpstreamBytes(&early));
        }
    }

    fn release_link(&mut self, key: SessionKey) {
        let kept = self.place(key).0.kept.as_ref();
        if kept.is_some_and(|kept| kept.is_fresh()) {
            return;
        }
        self.forget_kept(key);
        let (place, timers) = self.place(key);
        place.link.bring_down(timers);
    }

    fn link_is_silent(&mut self, key: SessionKey) {
        let Some(kept) = &mut self.place(key).0.kept else {
            return;
        };
        if !kept.is_silent() {
            return self.drop_connection(key);
        }
        let (place, timers) = self.place(key);
        place.link.bring_down(timers);
        self.tell(key, Event::Detached);
    }

    fn drop_connection(&mut self, key: SessionKey) {
        self.forget_kept(key);
        let (place, timers) = self.place(key);
        place.link.bring_down(timers);
        self.tell(key, Event::UpstreamEof(None));
        self.scheduler.enqueue(key);
    }

    fn end_our_side(&mut self, key: SessionKey) {
        let (place, timers) = self.place(key);
        let may_wait = place.end.at().is_some();
        let end = place
            .kept
            .as_mut()
            .map_or(End::Now, |kept| kept.end(may_wait));
        match end {
            End::OnceBack => return,
            End::Gone => return self.drop_connection(key),
            End::Now | End::OnceSaid if place.link.io.is_none() => {
                return self.drop_connection(key);
            }
            End::Now => place.link.end(),
            End::OnceSaid => {}
        }
        place.link.half_close(key, timers);
        self.scheduler.enqueue(key);
    }

    fn close_overdue(&mut self, key: SessionKey) {
        let session = self.scheduler.session(key).unwrap();
        let is_wanted = session.wants_upstream_output(self.scheduler.memory());
        let (place, timers) = self.place(key);
        place.link.close.fired();
        let is_said = place.kept.as_ref().is_none_or(|kept| kept.has_ended_side());
        if is_said && is_wanted {
            self.drop_connection(key);
        } else {
            place.link.half_close(key, timers);
        }
    }
}
