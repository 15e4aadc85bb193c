//! The stdio side's loop: our own stdin and stdout, the signals, and one connection to a proxy.
//!
//! The same session state machine as on the serving side, with a connection in the place of the server process. A turn of
//! the loop is a row of phases; [`Connector::turn`] says of each why it stands where it stands.

mod attempt;
mod credentials;
mod end;
pub mod kept_link;
pub mod kept_run;
mod link;
mod resolve;
mod resuming;
mod secure;
mod sides;
mod stdio_pair;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use log::error;
use mio::Events;

pub(crate) use self::attempt::about_unix_socket;
pub(crate) use self::credentials::TokenSource;
use self::end::{END_TIME, STOP_TIME, has_ended_well};
use self::link::Link;
use self::resolve::Resolver;
pub use self::resolve::look_up;
pub(crate) use self::secure::Tls;
use self::sides::Sides;
use self::stdio_pair::StdioPair;
use crate::buffers::budget::{BudgetSize, BufferBudget};
use crate::options::ConnectOptions;
use crate::process::memory_limit::MemoryLimit;
use crate::reactor::Reactor;
use crate::reactor::io::Readiness;
use crate::reactor::peers::{Peers, vanished_error};
use crate::reactor::poller::Poller;
use crate::reactor::signals::Signals;
use crate::reactor::stdio::Stdio;
use crate::reactor::timers::{Deadline, unix_time};
use crate::reactor::token::{self, Target};
use crate::scheduler::{Scheduler, SessionKey};
use crate::session::idle::IdleLimits;
use crate::session::report::Label;
use crate::session::stderr::ServerLogging;
use crate::session::{Action, Backend, Event, Session, Settings, Spawn, VANISH_TIME};
use crate::transport::address::Address;
use crate::util::secret::Secret;

/// Events taken from the system at once: room for all five channels and the alarm, so that none waits for the next turn.
const EVENTS_PER_WAIT: usize = 16;

/// The stdio side of the program.
pub struct Connector {
    reactor: Reactor<Channel, Due>,
    signals: Signals,
    /// Where the proxy is.
    address: Address,
    token_source: TokenSource,
    resolver: Resolver,
    /// What TLS is made with, if it is spoken.
    tls: Option<Tls>,
    connect_timeout: Duration,
    scheduler: Scheduler<()>,
    session: SessionKey,
    sides: Sides,
    peers: Peers,
    /// Set by the first signal.
    stop_deadline: Deadline,
    /// Set by the end of stdin.
    end_deadline: Deadline,
    /// Whether the proxy is asked to keep the session while the connection is lost.
    resumes: bool,
    /// While there is none: when the next attempt is made, and when no more are.
    retry: Deadline,
    not_resumed: Deadline,
    /// Whether everything that could be delivered has been.
    done: bool,
    /// Whether it ended before that.
    is_cut_off: bool,
}

/// The descriptors that this loop watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Signals,
    Stdin,
    Stdout,
    /// The output of a name look-up.
    LookUp,
    Upstream,
}

impl token::Channel for Channel {
    const ALL: &'static [Self] = &[
        Self::Signals,
        Self::Stdin,
        Self::Stdout,
        Self::LookUp,
        Self::Upstream,
    ];

    fn number(self) -> usize {
        self as usize
    }
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The session.
    Session,
    /// An attempt to connect has taken too long.
    Connect,
    /// [`end::CLOSE_TIME`] is over.
    Close,
    /// [`end::STOP_TIME`] is over.
    Stop,
    /// [`end::END_TIME`] is over.
    End,
    /// [`end::REAP_INTERVAL`] is over.
    Reap,
    /// Another attempt to resume may be made.
    Retry,
    /// The session that is to be resumed is gone by now, or the proxy does not answer.
    NotResumed,
}

impl From<SessionKey> for Due {
    fn from(_: SessionKey) -> Self {
        Self::Session
    }
}

impl Connector {
    /// Takes stdin and stdout. Nothing is connected yet.
    pub fn new(options: ConnectOptions, input: Stdio, output: Stdio) -> io::Result<Self> {
        let tls = Tls::load(&options)?;
        let mut reactor = Reactor::new(Poller::new()?);
        let token = reactor.next_token(Target {
            key: 0,
            channel: Channel::Signals,
        });
        let signals = Signals::register(reactor.poller().registry(), token)?;
        let stdio = StdioPair::register(input, output, &mut reactor)?;
        let size = BudgetSize::new(options.max_buffer_bytes, MemoryLimit::find());
        size.log();
        let memory = BufferBudget::new(size.bytes);
        let (token_source, token) = TokenSource::new(&options).map_err(io::Error::other)?;
        let mut scheduler = Scheduler::new(settings(&options, token), memory);
        let label = Label::Connection(options.address.to_string().into());
        let session = scheduler.open(label, (), &mut reactor.timers);
        Ok(Self {
            reactor,
            signals,
            address: options.address,
            token_source,
            resolver: Resolver::default(),
            tls,
            connect_timeout: options.connect_timeout,
            scheduler,
            session,
            sides: Sides {
                stdio,
                link: Link::Down,
                kept: None,
            },
            peers: Peers::new(),
            stop_deadline: Deadline::default(),
            end_deadline: Deadline::default(),
            resumes: options.resume && options.reconnect,
            retry: Deadline::default(),
            not_resumed: Deadline::default(),
            done: false,
            is_cut_off: false,
        })
    }

    /// Relays until stdin or stdout ends, a signal comes, or there is no connection to be had. Returns whether it ended
    /// well; if not, the reason was logged.
    pub fn run(mut self) -> io::Result<bool> {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        // No event tells what the session wants from the start.
        self.apply_actions();
        while !self.done {
            self.turn(&mut events)?;
        }
        self.say_bye();
        self.reap_look_ups(&mut events)?;
        let session = self.scheduler.session(self.session);
        if self.is_cut_off {
            let seconds = END_TIME.as_secs();
            error!("not everything could be delivered within {seconds} s after the end of stdin");
            return Ok(false);
        }
        Ok(session.is_none_or(has_ended_well))
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        // The one place where time passes.
        self.reactor.wait(events, self.scheduler.is_busy())?;
        // Events are only noted, except signals: what follows is done with all of them known.
        self.dispatch(events);
        // Before the session runs, so that a connection that was just made is used at once.
        self.advance_attempt();
        // Before timers: what arrived in time must not be declared late.
        self.scheduler
            .run_ready(&mut self.sides, &mut self.reactor.timers);
        self.note_end_of_stdin();
        self.go_on_resuming();
        self.fire_timers();
        // After all that the session can be told in a turn, and before the wait: no event tells what it wants.
        self.apply_actions();
        // After everything that can end the session's interest in it: a look-up must not outlive that.
        self.drop_unwanted_attempt();
        // Last, when everything that gives memory back has been done.
        self.scheduler.wake_for_memory();
        Ok(())
    }

    fn dispatch(&mut self, events: &Events) {
        for event in events {
            let Some(target) = self.reactor.target(event.token()) else {
                continue;
            };
            let (token, readiness) = (event.token(), Readiness::of(event));
            let is_news = match target.channel {
                Channel::Signals => {
                    self.handle_signals();
                    false
                }
                Channel::Stdin => self.sides.stdio.latch_input(token, readiness),
                Channel::Stdout => self.sides.stdio.latch_output(token, readiness),
                Channel::LookUp | Channel::Upstream => self.sides.link.latch(token, readiness),
            };
            if is_news {
                self.scheduler.enqueue(self.session);
            }
        }
    }

    fn handle_signals(&mut self) {
        let pending = self.signals.take();
        if pending.child {
            let under_way = match &mut self.sides.link {
                Link::Resolving { look_up, .. } => Some(look_up),
                _ => None,
            };
            self.resolver.reap(under_way);
        }
        if pending.stop {
            self.stop();
        }
    }

    fn fire_timers(&mut self) {
        while let Some(due) = self.reactor.timers.pop() {
            match due {
                Due::Session => {
                    self.scheduler.trim_memory();
                    let unix_time = unix_time();
                    self.tell(Event::Deadline { unix_time });
                }
                Due::Connect => self.attempt_overdue(),
                Due::Close => self.close_overdue(),
                Due::Stop => self.done = true,
                Due::End => self.end_overdue(),
                Due::Retry => self.retry_due(),
                Due::NotResumed => self.resume_overdue(),
                Due::Reap => {}
            }
        }
    }

    fn tell(&mut self, event: Event<'_>) {
        self.scheduler
            .handle(self.session, event, &mut self.reactor.timers);
    }

    fn apply_actions(&mut self) {
        while let Some((_, action)) = self.scheduler.next_action() {
            self.apply(action);
        }
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::StartUpstream if self.wants_start() => self.start_link(),
            // A program on this machine does not vanish, and there is one connection at a time.
            Action::StartUpstream
            | Action::CheckClient
            | Action::ResumeAsked
            | Action::BeginSwap
            | Action::QueueSwap
            | Action::MoveUpstream
            | Action::EndSwap(_) => {}
            Action::LinkSilent => self.link_is_silent(),
            Action::StopUpstream | Action::HibernateUpstream => self.end_our_side(),
            Action::ReleaseUpstream => self.release_link(),
            // Nothing more is to be delivered, and nothing that stdin still brings would be heard.
            Action::ShutdownClient | Action::CloseClient => self.done = true,
            Action::CheckUpstream => self.check_upstream(),
            // What it was sent is its own.
            Action::MeasureClient => self.tell(Event::ClientQueue { unsent: None }),
        }
    }

    fn wants_start(&self) -> bool {
        let session = self.scheduler.session(self.session);
        session.is_some_and(Session::wants_start)
    }

    fn drop_connection(&mut self) {
        self.forget_kept();
        self.sides.link.bring_down(&mut self.reactor.timers);
        self.tell(Event::UpstreamEof(None));
    }

    /// Ends a connection of which the other side has vanished.
    fn check_upstream(&mut self) {
        let connection = self
            .sides
            .link
            .io()
            .and_then(|io| io.source().socket().tcp());
        if connection.is_some_and(|stream| self.peers.has_vanished(stream, VANISH_TIME)) {
            if self.sides.kept.is_some() {
                return self.link_is_silent();
            }
            self.sides.link.bring_down(&mut self.reactor.timers);
            self.tell(Event::UpstreamEof(Some(&vanished_error())));
        }
    }
}

fn settings(options: &ConnectOptions, token: Option<Secret>) -> Settings {
    Settings {
        role: Backend::Proxy {
            max_delay: options.reconnect_delay,
            max_attempts: options.max_reconnect_attempts,
            held_timeout: options.held_request_timeout,
            is_tidy: options.tidy,
            token,
            server: options.server.clone(),
        },
        heartbeat_interval: options.heartbeat_interval,
        restarts_upstream: options.reconnect,
        max_message_bytes: options.max_message_bytes,
        replays: options.replay,
        replay_timeout: options.replay_timeout,
        stop_timeout: STOP_TIME,
        // The host may speak at any time, and then expects the connection to be there.
        spawn: Spawn::Eager,
        idle_limits: IdleLimits::default(),
        server_log: ServerLogging::Limited,
    }
}
