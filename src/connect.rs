//! The stdio side: one poll loop over our own stdin and stdout, the signals, and one connection to a proxy.
//!
//! The same session state machine as on the serving side, with a connection in the place of the server process.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::time::Duration;

use log::{debug, error};
use mio::net::TcpStream;
use mio::{Events, Interest, Registry, Token};
use nix::errno::Errno;

use crate::buffers::budget::{BufferBudget, DEFAULT_BUDGET_BYTES};
use crate::cli::ConnectOptions;
use crate::pump::{Pump, SCRATCH_BYTES, Transport};
use crate::reactor::io::{Input, Io};
use crate::reactor::poller::Poller;
use crate::reactor::signals::Signals;
use crate::reactor::stdio::{Direction, Stdio};
use crate::reactor::tcp;
use crate::reactor::timers::{self, Timer, Timers, unix_time};
use crate::reactor::token::{Address, Channel, Tokens};
use crate::session::idle::IdleLimits;
use crate::session::report::Label;
use crate::session::{Action, Backend, Context, Event, Session, Settings, Spawn};
use crate::util::time::Time;
use crate::util::timer_wheel::TimerId;

/// Events taken from the system at once; there are few descriptors.
const EVENTS_PER_TURN: usize = 16;

/// After the end of our side of the connection, the other side has this long to end its own. It takes its server down
/// in that time, by force if need be, which is over in seven seconds.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// After a signal, what is left to be delivered has this long.
const STOP_TIME: Duration = Duration::from_secs(1);

/// The stdio side of the program.
pub struct Connector {
    poller: Poller,
    tokens: Tokens,
    signals: Signals,
    host: String,
    port: u16,
    connect_timeout: Duration,
    settings: Settings,

    session: Session,
    stdio: StdioPair,
    connection: Option<Io<TcpStream>>,
    connecting: Option<Connecting>,
    memory: BufferBudget,
    timers: Timers,
    session_timer: Option<(Time, TimerId)>,
    close_timer: Option<TimerId>,
    actions: Vec<Action>,
    scratch: Box<[u8]>,
    now: Time,
    /// Whether the session or the connection may have something to do.
    ready: bool,
    /// Whether all that was to be delivered was delivered.
    done: bool,
    stopping: bool,
}

/// An attempt to connect: the addresses that have not been tried, and the deadline.
struct Connecting {
    addresses: std::vec::IntoIter<SocketAddr>,
    timer: TimerId,
}

/// The program that started this one.
struct StdioPair {
    input: Option<Io<Stdio>>,
    output: Option<Io<Stdio>>,
}

impl Connector {
    /// Takes stdin and stdout. Nothing is connected yet.
    pub fn new(options: ConnectOptions) -> io::Result<Self> {
        let mut tokens = Tokens::default();
        let poller = Poller::new(&mut tokens)?;
        let signals = Signals::register(
            poller.registry(),
            tokens.next(Address {
                slot: 0,
                port: Channel::Signals,
            }),
        )?;
        let stdio = StdioPair::register(poller.registry(), &mut tokens)?;
        let now = timers::now();
        let settings = Settings {
            role: Backend::Proxy {
                max_delay: options.reconnect_delay,
                max_attempts: options.max_reconnect_attempts,
            },
            heartbeat_interval: options.heartbeat_interval,
            restarts_upstream: options.reconnect,
            max_message_bytes: options.max_message_bytes,
            replay_timeout: options.replay_timeout,
            // The host may speak at any time, and then expects the connection to be there.
            spawn: Spawn::Eager,
            idle_limits: IdleLimits::default(),
        };
        let mut memory = BufferBudget::new(DEFAULT_BUDGET_BYTES);
        let mut actions = Vec::new();
        let mut cx = Context {
            now,
            settings: &settings,
            memory: &mut memory,
            actions: &mut actions,
        };
        let address = tcp::address_text(&options.host, options.port);
        let session = Session::open(Label::Connection(address.into()), &mut cx);
        Ok(Self {
            poller,
            tokens,
            signals,
            host: options.host,
            port: options.port,
            connect_timeout: options.connect_timeout,
            settings,
            session,
            stdio,
            connection: None,
            connecting: None,
            memory,
            timers: Timers::new(now),
            session_timer: None,
            close_timer: None,
            actions,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            now,
            ready: true,
            done: false,
            stopping: false,
        })
    }

    /// Relays until stdin or stdout ends, a signal comes, or there is no connection to be had. Returns whether it ended
    /// well; if not, the reason was logged.
    pub fn run(mut self) -> io::Result<bool> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        self.apply_actions();
        while !self.done {
            self.wait(&mut events)?;
            self.dispatch(&events);
            // What has come is looked at before the clock says that it came too late.
            self.relay();
            self.fire_timers();
            self.apply_actions();
            self.set_session_timer();
        }
        match self.session.failure() {
            None => Ok(true),
            Some(reason) => {
                error!("{}: {reason}", self.session.label());
                Ok(false)
            }
        }
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let deadline = if self.ready {
            Some(self.now)
        } else {
            self.timers.next()
        };
        self.poller.wait(events, deadline, self.now)?;
        self.now = timers::now();
        Ok(())
    }

    fn dispatch(&mut self, events: &Events) {
        for event in events {
            match Address::of(event.token()).map(|address| address.port) {
                Some(Channel::Signals) => self.handle_signals(),
                Some(Channel::Stdin) => self.ready |= latch(&mut self.stdio.input, event),
                Some(Channel::Stdout) => self.ready |= latch(&mut self.stdio.output, event),
                Some(Channel::Alarm) => self.poller.alarm_fired(),
                Some(Channel::Upstream) => self.ready |= latch(&mut self.connection, event),
                _ => {}
            }
        }
        if self.connecting.is_some() && self.ready {
            self.check_connection();
        }
    }

    /// Who stops this program does not wait long: it ends as soon as what is there is delivered.
    fn handle_signals(&mut self) {
        if !self.signals.take().stop {
            return;
        }
        if self.stopping {
            self.done = true;
            return;
        }
        self.stopping = true;
        self.timers.set(self.now + STOP_TIME, Timer::Close);
        self.with_session(|session, cx| session.handle(Event::ShutDown, cx));
    }

    fn fire_timers(&mut self) {
        while let Some(timer) = self.timers.pop(self.now) {
            match timer {
                Timer::Session(_) => {
                    self.session_timer = None;
                    self.memory.trim();
                    self.with_session(|session, cx| {
                        session.handle(
                            Event::Deadline {
                                unix_time: unix_time(),
                            },
                            cx,
                        );
                    });
                }
                Timer::Connect => {
                    self.connecting = None;
                    self.connection = None;
                    let timeout = self.connect_timeout.as_secs_f64();
                    self.connect_failed(&format!(
                        "no answer within {timeout} s (--connect-timeout)"
                    ));
                }
                Timer::Close if self.stopping => self.done = true,
                Timer::Close => self.close_overdue(),
                Timer::Process(_)
                | Timer::Accept
                | Timer::Starting
                | Timer::Spares
                | Timer::Monitor => {}
            }
        }
    }

    fn relay(&mut self) {
        let Self {
            session,
            stdio,
            connection,
            now,
            settings,
            memory,
            actions,
            scratch,
            connecting,
            ..
        } = self;
        let mut cx = Context {
            now: *now,
            settings,
            memory,
            actions,
        };
        if stdio.output.as_ref().is_some_and(Io::is_write_closed) {
            session.handle(Event::ClientFailed(&ErrorKind::BrokenPipe.into()), &mut cx);
        }
        if stdio.input.as_ref().is_some_and(Io::is_read_closed) {
            session.handle(Event::ClientHup, &mut cx);
        }
        let mut nothing = None;
        let upstream = if connecting.is_some() {
            &mut nothing
        } else {
            connection
        };
        let mut relay = Pump {
            session,
            client: stdio,
            upstream,
        };
        relay.run(scratch, &mut cx);
        self.ready = relay.is_ready(&cx);
    }

    fn with_session(&mut self, event: impl FnOnce(&mut Session, &mut Context<'_>)) {
        let mut cx = Context {
            now: self.now,
            settings: &self.settings,
            memory: &mut self.memory,
            actions: &mut self.actions,
        };
        event(&mut self.session, &mut cx);
        self.ready = true;
    }

    fn set_session_timer(&mut self) {
        let deadline = self.session.next_deadline(&self.settings);
        self.timers
            .reset(&mut self.session_timer, deadline, Timer::Session(0));
    }

    fn apply_actions(&mut self) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.apply(action);
            }
        }
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::StartUpstream if self.session.wants_start() => self.connect(),
            Action::StartUpstream => {}
            Action::StopUpstream => self.end_connection(),
            Action::ReleaseUpstream => self.release_connection(),
            // Nothing more is to be delivered, and nothing that stdin still brings would be heard.
            Action::ShutdownClient | Action::CloseClient => self.done = true,
        }
    }

    /// Ends our side of the connection; the other side ends its own when it has said everything.
    fn end_connection(&mut self) {
        let Some(connection) = &self.connection else {
            return self.drop_connection();
        };
        // It may be gone already, which the next read tells.
        let _ = connection.source().shutdown(Shutdown::Write);
        self.close_timer = Some(self.timers.set(self.now + CLOSE_TIME, Timer::Close));
    }

    /// The time is for the other side, not for a program that is slow to read our stdout.
    fn close_overdue(&mut self) {
        if self.session.wants_upstream_output(&self.memory) {
            self.close_timer = None;
            self.drop_connection();
        } else {
            self.close_timer = Some(self.timers.set(self.now + CLOSE_TIME, Timer::Close));
        }
    }

    fn release_connection(&mut self) {
        self.connection = None;
        if let Some(timer) = self.close_timer.take() {
            self.timers.cancel(timer);
        }
    }

    fn drop_connection(&mut self) {
        self.connection = None;
        self.with_session(|session, cx| session.handle(Event::UpstreamEof(None), cx));
    }

    /// Begins to connect. A name is looked up anew each time, as its addresses may have changed. The look-up of a name
    /// blocks, signals included; that of an address does not.
    fn connect(&mut self) {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        self.now = timers::now();
        match found {
            Ok(addresses) => {
                let timer = self
                    .timers
                    .set(self.now + self.connect_timeout, Timer::Connect);
                self.connecting = Some(Connecting {
                    addresses: addresses.collect::<Vec<_>>().into_iter(),
                    timer,
                });
                self.try_next_address(&"the name has no address");
            }
            Err(error) => self.connect_failed(&error),
        }
    }

    /// Tries the next address; without one the attempt has failed, for the reason that the last one failed.
    fn try_next_address(&mut self, reason: &dyn Display) {
        let mut reason = reason.to_string();
        while let Some(address) = self
            .connecting
            .as_mut()
            .and_then(|connecting| connecting.addresses.next())
        {
            debug!("connecting to {address}");
            match self.begin_connecting(address) {
                Ok(connection) => {
                    self.connection = Some(connection);
                    return;
                }
                Err(error) => reason = error.to_string(),
            }
        }
        if let Some(Connecting { timer, .. }) = self.connecting.take() {
            self.timers.cancel(timer);
        }
        self.connect_failed(&reason);
    }

    fn begin_connecting(&mut self, address: SocketAddr) -> io::Result<Io<TcpStream>> {
        let stream = TcpStream::connect(address)?;
        tcp::configure(&stream)?;
        let token = self.tokens.next(Address {
            slot: 0,
            port: Channel::Upstream,
        });
        Io::register(
            stream,
            self.poller.registry(),
            token,
            Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY,
        )
    }

    /// Looks what became of an attempt (connect(2), EINPROGRESS).
    fn check_connection(&mut self) {
        let Some(stream) = self.connection.as_ref().map(Io::source) else {
            return;
        };
        let attempt = stream
            .take_error()
            .and_then(|error| error.map_or(Ok(()), Err));
        match attempt.and_then(|()| Ok((stream.peer_addr()?, stream.local_addr()?))) {
            // With nobody listening, a port out of the range of our own can be connected to itself (RFC 9293, 3.5).
            Ok((peer, own)) if peer == own => {
                self.connection = None;
                self.try_next_address(&"nobody listens there");
            }
            Ok(_) => self.connected(),
            Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => {}
            Err(error) => {
                self.connection = None;
                self.try_next_address(&error);
            }
        }
    }

    fn connected(&mut self) {
        if let Some(Connecting { timer, .. }) = self.connecting.take() {
            self.timers.cancel(timer);
        }
        if self.session.wants_start() {
            self.with_session(|session, cx| {
                session.handle(Event::UpstreamStarted { pid: None }, cx);
            });
        } else {
            self.connection = None;
        }
    }

    fn connect_failed(&mut self, reason: &dyn Display) {
        self.with_session(|session, cx| {
            session.handle(Event::UpstreamFailed(&reason.to_string()), cx);
        });
    }
}

fn latch<S>(endpoint: &mut Option<Io<S>>, event: &mio::event::Event) -> bool {
    endpoint
        .as_mut()
        .is_some_and(|endpoint| endpoint.latch(event))
}

impl StdioPair {
    fn register(registry: &Registry, tokens: &mut Tokens) -> io::Result<Self> {
        let mut token = |port| tokens.next(Address { slot: 0, port });
        let input = Stdio::open(io::stdin().as_fd(), Direction::In);
        let output = Stdio::open(io::stdout().as_fd(), Direction::Out);
        Ok(Self {
            input: Some(register(
                input,
                registry,
                token(Channel::Stdin),
                Interest::READABLE,
            )?),
            output: Some(register(
                output,
                registry,
                token(Channel::Stdout),
                Interest::WRITABLE,
            )?),
        })
    }
}

/// What no event tells of is read at once.
fn register(
    stdio: Stdio,
    registry: &Registry,
    token: Token,
    interest: Interest,
) -> io::Result<Io<Stdio>> {
    let mut endpoint = Io::register(stdio, registry, token, interest)?;
    if interest.is_readable() && endpoint.source().reads_in_pieces() {
        endpoint.assume_readable();
    }
    Ok(endpoint)
}

impl Transport for StdioPair {
    fn is_readable(&self) -> bool {
        self.input.as_ref().is_some_and(Io::is_readable)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.input
            .as_mut()
            .map_or(Input::Blocked, |input| input.read(buffer))
    }

    fn is_writable(&self) -> bool {
        self.output
            .as_ref()
            .is_some_and(|output| output.is_writable() || output.source().is_always_ready())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output
            .as_mut()
            .map_or(Ok(0), |output| output.write(bytes))
    }
}
