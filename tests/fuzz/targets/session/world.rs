//! What is outside of a session, and only lets happen what descriptors and processes can do.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use mcp_tcp_proxy::buffers::budget::BufferBudget;
use mcp_tcp_proxy::reactor::timers::Timers;
use mcp_tcp_proxy::scheduler::{Driver, Scheduler, SessionKey};
use mcp_tcp_proxy::session::idle::IdleLimits;
use mcp_tcp_proxy::session::report::{EndReason, Exit, Label, SessionLimit};
use mcp_tcp_proxy::session::stderr::ServerLogging;
use mcp_tcp_proxy::session::{Action, Backend, Context, Event, Session, Settings, Spawn};
use mcp_tcp_proxy::util::time::Time;

use super::lines::{ForClient, ForServers, Lines};
use crate::program::Program;

/// A session that still lives after so many deadlines and events, with both sides gone, lives for ever.
const MAX_ROUNDS: usize = 1_000;

/// What clocks say when they are not 1970.
const UNIX_TIME: Duration = Duration::from_secs(1_700_000_000);

pub(super) struct World {
    scheduler: Scheduler<()>,
    timers: Timers<SessionKey>,
    key: SessionKey,
    settings: Settings,
    /// The connection to the client; `None` once it was closed.
    client: Option<Client>,
    server: Option<Server>,
    wants_server: bool,
    for_servers: ForServers,
    for_client: ForClient,
    opened: Time,
    /// When a server last took something.
    last_taken: Time,
    /// Whether the session was seen to end because it is not used.
    is_unused: bool,
}

#[derive(Default)]
struct Client {
    has_ended: bool,
    /// Whether the session has sent its end.
    was_told_the_end: bool,
    sent: Lines,
    took: Lines,
}

#[derive(Default)]
struct Server {
    has_exited: bool,
    output_has_ended: bool,
    input_is_closed: bool,
    sent: Lines,
    took: Lines,
}

/// What the first two bytes of a program choose.
fn settings(options: u8, size: u8) -> Settings {
    let is_connector = options & 1 == 1;
    let role = if is_connector {
        Backend::Proxy {
            max_delay: Duration::from_secs(2),
            max_attempts: (options & 2 == 0).then_some(3),
            held_timeout: (options & 4 == 0).then_some(Duration::from_secs(5)),
            is_tidy: false,
            token: None,
            server: None,
        }
    } else {
        Backend::Process {
            max_restarts: u32::from(options >> 1 & 3),
        }
    };
    let limit = |bits: u8, seconds| {
        let is_limited = !is_connector && size & bits == bits;
        is_limited.then(|| Duration::from_secs(seconds))
    };
    let is_lazy = !is_connector && size & 1 == 1;
    Settings {
        role,
        heartbeat_interval: Duration::from_secs(30),
        restarts_upstream: options & 8 == 0,
        max_message_bytes: 64 + 4 * usize::from(size),
        replays: true,
        replay_timeout: Duration::from_secs(10),
        stop_timeout: Duration::from_secs(30),
        spawn: if is_lazy { Spawn::Lazy } else { Spawn::Eager },
        idle_limits: IdleLimits {
            exempts_heartbeats: false,
            first_message: limit(0b0110, 5),
            idle: limit(0b1_1000, 20),
            hibernate: limit(0b10_0001, 7),
        },
        server_log: ServerLogging::Limited,
    }
}

impl World {
    pub(super) fn new(program: &mut Program<'_>) -> Self {
        let (options, size) = (program.byte(), program.byte());
        let is_connector = options & 1 == 1;
        let settings = settings(options, size);
        let label = if is_connector {
            Label::Connection("localhost:1".into())
        } else {
            Label::Session {
                number: 1,
                server: None,
                client: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
                pid: None,
            }
        };
        let memory = BufferBudget::new(if options & 16 == 0 { 1 << 20 } else { 0 });
        let now = Time::from_nanos(1 << 40);
        let mut timers = Timers::new(now);
        let mut scheduler = Scheduler::new(settings.clone(), memory);
        let key = if options & 0b1110_0000 == 0b1110_0000 && !is_connector {
            scheduler.refuse(label, SessionLimit::All(1), (), &mut timers)
        } else {
            scheduler.open(label, (), &mut timers)
        };
        let mut world = Self {
            scheduler,
            timers,
            key,
            settings,
            client: Some(Client::default()),
            server: None,
            wants_server: false,
            for_servers: ForServers::default(),
            for_client: ForClient::default(),
            opened: now,
            last_taken: now,
            is_unused: false,
        };
        world.settle();
        world
    }

    pub(super) fn is_over(&self) -> bool {
        self.session().is_finished()
    }

    fn session(&self) -> &Session {
        self.scheduler.session(self.key).expect("a session")
    }

    fn reads_server(&self) -> bool {
        self.session()
            .wants_upstream_output(self.scheduler.memory())
    }

    // The client.

    pub(super) fn client_sends(&mut self, bytes: &[u8]) {
        let is_read = self.session().wants_client_input() && !bytes.is_empty();
        let Some(client) = self
            .client
            .as_mut()
            .filter(|client| is_read && !client.has_ended)
        else {
            return;
        };
        for line in client.sent.cut(bytes) {
            self.for_servers.said(&line);
        }
        self.event(Event::ClientBytes(bytes));
    }

    pub(super) fn client_takes(&mut self, count: usize) {
        let waiting = self.session().to_client();
        let took = waiting[..count.min(waiting.len())].to_vec();
        let Some(client) = self.client.as_mut().filter(|_| !took.is_empty()) else {
            return;
        };
        assert!(!client.was_told_the_end, "more after the end");
        for line in client.took.cut(&took) {
            self.for_client.got(&line);
        }
        self.event(Event::ClientWritten(took.len()));
    }

    pub(super) fn client_ends(&mut self) {
        let is_read = self.session().wants_client_input();
        let Some(client) = self
            .client
            .as_mut()
            .filter(|client| is_read && !client.has_ended)
        else {
            return;
        };
        client.has_ended = true;
        let rest = client.sent.rest();
        self.for_servers.said(&rest);
        self.event(Event::ClientEof);
    }

    pub(super) fn client_hangs_up(&mut self) {
        if self.client.is_some() {
            self.event(Event::ClientHup);
        }
    }

    pub(super) fn client_goes(&mut self) {
        if self.client.is_some() {
            let error = Error::from(ErrorKind::ConnectionReset);
            self.event(Event::ClientFailed(&error));
        }
    }

    // The server.

    pub(super) fn server_starts(&mut self, succeeds: bool) {
        if !std::mem::take(&mut self.wants_server) || !self.session().wants_start() {
            return;
        }
        if succeeds {
            self.server = Some(Server::default());
            self.event(Event::UpstreamStarted { pid: Some(7) });
        } else {
            self.event(Event::UpstreamFailed("no such file"));
        }
    }

    pub(super) fn server_sends(&mut self, bytes: &[u8]) {
        let is_read = self.reads_server() && !bytes.is_empty();
        let Some(server) = self
            .server
            .as_mut()
            .filter(|server| is_read && !server.output_has_ended)
        else {
            return;
        };
        for line in server.sent.cut(bytes) {
            self.for_client.said(line);
        }
        self.event(Event::UpstreamBytes(bytes));
    }

    pub(super) fn server_takes(&mut self, count: usize) {
        let waiting = self.session().to_upstream();
        let took = waiting[..count.min(waiting.len())].to_vec();
        let Some(server) = self
            .server
            .as_mut()
            .filter(|server| !took.is_empty() && !server.input_is_closed)
        else {
            return;
        };
        for line in server.took.cut(&took) {
            self.for_servers.got(&line);
        }
        self.last_taken = self.timers.now();
        self.event(Event::UpstreamWritten(took.len()));
    }

    /// Only processes exit; of a connection there is nothing but its end.
    pub(super) fn server_exits(&mut self) {
        let is_process = matches!(self.settings.role, Backend::Process { .. });
        if let Some(server) = self
            .server
            .as_mut()
            .filter(|server| is_process && !server.has_exited)
        {
            server.has_exited = true;
            self.event(Event::UpstreamExited(Exit::Code(3)));
        }
    }

    pub(super) fn server_output_ends(&mut self, broken: bool) {
        let is_read = self.reads_server();
        if let Some(server) = self
            .server
            .as_mut()
            .filter(|server| is_read && !server.output_has_ended)
        {
            server.output_has_ended = true;
            let rest = server.sent.rest();
            self.for_client.said(rest);
            let error = broken.then(|| Error::from(ErrorKind::ConnectionReset));
            self.event(Event::UpstreamEof(error.as_ref()));
        }
    }

    pub(super) fn server_input_breaks(&mut self) {
        if let Some(server) = self
            .server
            .as_mut()
            .filter(|server| !server.input_is_closed)
        {
            server.input_is_closed = true;
            self.event(Event::UpstreamInputBroke);
        }
    }

    pub(super) fn server_logs(&mut self, bytes: &[u8]) {
        if self.server.is_some() {
            self.event(Event::UpstreamStderr(bytes));
        }
    }

    // Time, and the end.

    /// Lets the time of the next deadline come.
    pub(super) fn next_deadline(&mut self) {
        if let Some(at) = self.timers.next() {
            self.pass(at.saturating_since(self.timers.now()));
        }
    }

    /// Jumps; deadlines that were passed are late. None of them stays.
    pub(super) fn pass(&mut self, time: Duration) {
        self.timers.advance(self.timers.now() + time);
        for _ in 0..MAX_ROUNDS {
            if self.timers.pop().is_none() {
                return;
            }
            self.event(Event::Deadline {
                unix_time: UNIX_TIME,
            });
        }
        panic!("a deadline is not seen to");
    }

    pub(super) fn shut_down(&mut self) {
        self.event(Event::ShutDown);
    }

    /// Both sides go, and the session with them.
    pub(super) fn end(&mut self) {
        for _ in 0..MAX_ROUNDS {
            if self.is_over() {
                break;
            }
            self.client_takes(usize::MAX);
            self.server_takes(usize::MAX);
            self.client_ends();
            self.server_starts(true);
            self.server_exits();
            self.server_output_ends(false);
            self.next_deadline();
        }
        assert!(self.is_over(), "it does not end: {:?}", self.session());
        let freed = self.scheduler.free_if_finished(self.key, &mut self.timers);
        assert!(freed.is_some() && self.timers.is_empty());
        assert_eq!(self.scheduler.memory().used(), 0);
    }

    fn event(&mut self, event: Event<'_>) {
        self.scheduler.handle(self.key, event, &mut self.timers);
        self.settle();
    }

    /// Runs the loop: nothing is moved but by events, so there is only what follows from them.
    fn settle(&mut self) {
        self.check_unused();
        self.apply();
        self.scheduler.run_ready(&mut Nothing, &mut self.timers);
        self.scheduler.wake_for_memory();
        self.scheduler.run_ready(&mut Nothing, &mut self.timers);
        self.scheduler.check();
        assert_eq!(self.timers.len(), self.scheduler.deadlines());
    }

    /// A session that ends because it is not used was not used for so long.
    fn check_unused(&mut self) {
        let (since, limit) = match self.session().failure() {
            Some(EndReason::FirstMessageTimeout(limit)) => (self.opened, *limit),
            Some(EndReason::IdleTimeout(limit)) => (self.last_taken, *limit),
            _ => {
                // It may be used after all.
                self.is_unused = false;
                return;
            }
        };
        if std::mem::replace(&mut self.is_unused, true) {
            return;
        }
        assert!(since + limit <= self.timers.now(), "it ends too early");
        assert!(
            self.session().to_upstream().is_empty() && !self.session().waits_for_upstream(),
            "it ends although lines wait"
        );
    }

    fn apply(&mut self) {
        while let Some((_, action)) = self.scheduler.next_action() {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::StartUpstream => {
                assert!(self.server.is_none(), "two servers at a time");
                let is_lazy = self.settings.spawn == Spawn::Lazy;
                assert!(
                    !is_lazy || self.for_servers.has_message(),
                    "a server for nothing"
                );
                self.wants_server = true;
            }
            Action::StopUpstream | Action::HibernateUpstream => {
                if let Some(server) = &mut self.server {
                    server.input_is_closed = true;
                }
            }
            Action::ReleaseUpstream => {
                let mut server = self.server.take().expect("a server");
                // Others may hold its output open, and what they have not ended is not waited for.
                self.for_client.said(server.sent.rest());
            }
            Action::ShutdownClient => {
                let client = self.client.as_mut().expect("a client");
                assert!(client.took.is_between_lines(), "cut off in a line");
                assert!(!std::mem::replace(&mut client.was_told_the_end, true));
            }
            // Nobody vanishes here, or wants new servers.
            Action::CheckClient
            | Action::CheckUpstream
            | Action::LinkSilent
            | Action::BeginSwap
            | Action::QueueSwap
            | Action::MoveUpstream
            | Action::EndSwap(_) => {}
            Action::ResumeAsked => self.event(Event::NotKept),
            Action::MeasureClient => {
                // A client has taken what was written to it.
                let unsent = self.client.as_ref().map(|_| 0);
                self.event(Event::ClientQueue { unsent });
            }
            Action::CloseClient => {
                assert!(self.client.take().is_some(), "closed twice");
            }
        }
    }
}

/// Moves nothing: all that passes comes by events. What is left of them is handled, however long.
struct Nothing;

impl Driver for Nothing {
    type Place = ();

    fn run(
        &mut self,
        _: SessionKey,
        session: &mut Session,
        (): &mut (),
        _: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        session.begin_run(cx);
        while session.has_more_lines() {
            session.begin_run(cx);
        }
        false
    }
}
