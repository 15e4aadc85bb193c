//! The stdio side: one poll loop over our own stdin and stdout, the signals, and one connection to a proxy.
//!
//! The same session state machine as on the serving side, with a connection in the place of the server process.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use log::{debug, error};
use mio::net::TcpStream;
use mio::{Events, Interest};
use nix::errno::Errno;

use crate::buffers::budget::{BufferBudget, DEFAULT_BUDGET_BYTES};
use crate::options::ConnectOptions;
use crate::pump::{Transport, pump};
use crate::reactor::Reactor;
use crate::reactor::io::{Input, Io, Readiness};
use crate::reactor::poller::Poller;
use crate::reactor::signals::Signals;
use crate::reactor::stdio::Stdio;
use crate::reactor::tcp;
use crate::reactor::timers::{self, Deadline, unix_time};
use crate::reactor::token::{self, Target};
use crate::scheduler::{Driver, Scheduler, SessionKey};
use crate::session::idle::IdleLimits;
use crate::session::report::Label;
use crate::session::{Action, Backend, Context, Event, Session, Settings, Spawn};

/// Events taken from the system at once; there are few descriptors.
const EVENTS_PER_WAIT: usize = 16;

/// After the end of our side of the connection, the other side has this long to end its own. It takes its server down
/// in that time, by force if need be, which is over in seven seconds.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// After a signal, what is left to be delivered has this long: whoever stops a program does not wait much longer before
/// it is killed.
const STOP_TIME: Duration = Duration::from_secs(1);

/// The stdio side of the program.
pub struct Connector {
    reactor: Reactor<Channel, Due>,
    signals: Signals,
    host: String,
    port: u16,
    connect_timeout: Duration,
    scheduler: Scheduler<()>,
    session: SessionKey,
    sides: Sides,
    /// When the other side must have ended its side of the connection.
    close_deadline: Deadline,
    /// After a signal, when there was time enough to deliver what is left.
    stop_deadline: Deadline,
    /// Whether all that was to be delivered was delivered.
    done: bool,
}

/// The descriptors that this loop watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Signals,
    Stdin,
    Stdout,
    Upstream,
}

impl token::Channel for Channel {
    const ALL: &'static [Self] = &[Self::Signals, Self::Stdin, Self::Stdout, Self::Upstream];

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
    /// The other side did not end its side of the connection.
    Close,
    /// What is left after a signal is not delivered any more.
    Stop,
}

impl From<SessionKey> for Due {
    fn from(_: SessionKey) -> Self {
        Self::Session
    }
}

/// What is around the session.
struct Sides {
    stdio: StdioPair,
    connection: Option<Io<TcpStream>>,
    connecting: Option<Connecting>,
}

/// An attempt to connect: the addresses that have not been tried, and the deadline.
struct Connecting {
    addresses: std::vec::IntoIter<SocketAddr>,
    deadline: Deadline,
}

/// The program that started this one.
struct StdioPair {
    input: Option<Io<Stdio>>,
    output: Option<Io<Stdio>>,
}

impl Connector {
    /// Takes stdin and stdout. Nothing is connected yet.
    pub fn new(options: ConnectOptions, input: Stdio, output: Stdio) -> io::Result<Self> {
        let mut reactor = Reactor::new(Poller::new()?);
        let token = reactor.next_token(Target {
            key: 0,
            channel: Channel::Signals,
        });
        let signals = Signals::register(reactor.poller().registry(), token)?;
        let stdio = StdioPair::register(input, output, &mut reactor)?;
        let address = tcp::address_text(&options.host, options.port);
        let memory = BufferBudget::new(DEFAULT_BUDGET_BYTES);
        let mut scheduler = Scheduler::new(settings(&options), memory);
        let label = Label::Connection(address.into());
        let session = scheduler.open(label, (), &mut reactor.timers);
        Ok(Self {
            reactor,
            signals,
            host: options.host,
            port: options.port,
            connect_timeout: options.connect_timeout,
            scheduler,
            session,
            sides: Sides {
                stdio,
                connection: None,
                connecting: None,
            },
            close_deadline: Deadline::default(),
            stop_deadline: Deadline::default(),
            done: false,
        })
    }

    /// Relays until stdin or stdout ends, a signal comes, or there is no connection to be had. Returns whether it ended
    /// well; if not, the reason was logged.
    pub fn run(mut self) -> io::Result<bool> {
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        self.apply_actions();
        while !self.done {
            self.reactor.wait(&mut events, self.scheduler.is_busy())?;
            self.dispatch(&events);
            // Input before timers: what arrived in time must not be declared late.
            self.scheduler
                .run_ready(&mut self.sides, &mut self.reactor.timers);
            self.fire_timers();
            self.apply_actions();
            self.scheduler.wake_for_memory();
        }
        let session = self.scheduler.session(self.session);
        match session.and_then(|session| Some((session.label(), session.failure()?))) {
            None => Ok(true),
            Some((label, reason)) => {
                error!("{label}: {reason}");
                Ok(false)
            }
        }
    }

    fn dispatch(&mut self, events: &Events) {
        for event in events {
            let Some(target) = self.reactor.target(event.token()) else {
                continue;
            };
            let Sides {
                stdio, connection, ..
            } = &mut self.sides;
            let is_news = match target.channel {
                Channel::Signals => {
                    self.handle_signals();
                    false
                }
                Channel::Stdin => latch(&mut stdio.input, event),
                Channel::Stdout => latch(&mut stdio.output, event),
                Channel::Upstream => latch(connection, event),
            };
            if is_news {
                self.scheduler.enqueue(self.session);
            }
        }
        if self.sides.connecting.is_some() && self.scheduler.is_busy() {
            self.check_connection();
        }
    }

    /// Whoever stops this program does not wait long: it ends as soon as what is there is delivered.
    fn handle_signals(&mut self) {
        if !self.signals.take().stop {
            return;
        }
        if self.stop_deadline.at().is_some() {
            self.done = true;
            return;
        }
        let timers = &mut self.reactor.timers;
        let at = timers.now() + STOP_TIME;
        self.stop_deadline.set(Some(at), Due::Stop, timers);
        self.tell(Event::ShutDown);
    }

    fn fire_timers(&mut self) {
        while let Some(due) = self.reactor.timers.pop() {
            match due {
                Due::Session => {
                    self.scheduler.trim_memory();
                    self.tell(Event::Deadline {
                        unix_time: unix_time(),
                    });
                }
                Due::Connect => {
                    self.sides.connecting = None;
                    self.sides.connection = None;
                    let timeout = self.connect_timeout.as_secs_f64();
                    self.connect_failed(&format!(
                        "no answer within {timeout} s (--connect-timeout)"
                    ));
                }
                Due::Close => self.close_overdue(),
                Due::Stop => self.done = true,
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
            Action::StartUpstream if self.wants_start() => self.connect(),
            Action::StartUpstream => {}
            Action::StopUpstream => self.end_connection(),
            Action::ReleaseUpstream => self.release_connection(),
            // Nothing more is to be delivered, and nothing that stdin still brings would be heard.
            Action::ShutdownClient | Action::CloseClient => self.done = true,
        }
    }

    fn wants_start(&self) -> bool {
        let session = self.scheduler.session(self.session);
        session.is_some_and(Session::wants_start)
    }

    /// Ends our side of the connection; the other side ends its own when it has said everything.
    fn end_connection(&mut self) {
        let Some(connection) = &self.sides.connection else {
            return self.drop_connection();
        };
        // It may be gone already, which the next read tells.
        let _ = connection.source().shutdown(Shutdown::Write);
        self.set_close_deadline();
    }

    fn set_close_deadline(&mut self) {
        let timers = &mut self.reactor.timers;
        let at = timers.now() + CLOSE_TIME;
        self.close_deadline.set(Some(at), Due::Close, timers);
    }

    /// The time is for the other side, not for a program that is slow to read our stdout.
    fn close_overdue(&mut self) {
        self.close_deadline.fired();
        let memory = self.scheduler.memory();
        let session = self.scheduler.session(self.session);
        if session.is_some_and(|session| session.wants_upstream_output(memory)) {
            self.drop_connection();
        } else {
            self.set_close_deadline();
        }
    }

    fn release_connection(&mut self) {
        self.sides.connection = None;
        self.close_deadline.clear(&mut self.reactor.timers);
    }

    fn drop_connection(&mut self) {
        self.sides.connection = None;
        self.tell(Event::UpstreamEof(None));
    }

    /// Begins to connect. A name is looked up anew each time, as its addresses may have changed. The look-up of a name
    /// blocks, signals included; that of an address does not.
    fn connect(&mut self) {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let timers = &mut self.reactor.timers;
        timers.advance(timers::now());
        match found {
            Ok(addresses) => {
                let mut deadline = Deadline::default();
                let at = timers.now() + self.connect_timeout;
                deadline.set(Some(at), Due::Connect, timers);
                self.sides.connecting = Some(Connecting {
                    addresses: addresses.collect::<Vec<_>>().into_iter(),
                    deadline,
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
            .sides
            .connecting
            .as_mut()
            .and_then(|connecting| connecting.addresses.next())
        {
            debug!("connecting to {address}");
            match self.begin_connecting(address) {
                Ok(connection) => {
                    self.sides.connection = Some(connection);
                    return;
                }
                Err(error) => reason = error.to_string(),
            }
        }
        self.end_attempt();
        self.connect_failed(&reason);
    }

    fn end_attempt(&mut self) {
        if let Some(mut attempt) = self.sides.connecting.take() {
            attempt.deadline.clear(&mut self.reactor.timers);
        }
    }

    fn begin_connecting(&mut self, address: SocketAddr) -> io::Result<Io<TcpStream>> {
        let stream = TcpStream::connect(address)?;
        tcp::configure(&stream)?;
        let target = Target {
            key: 0,
            channel: Channel::Upstream,
        };
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.reactor.register(stream, target, interest)
    }

    /// Checks what became of an attempt (connect(2), EINPROGRESS).
    fn check_connection(&mut self) {
        let Some(stream) = self.sides.connection.as_ref().map(Io::source) else {
            return;
        };
        let attempt = stream
            .take_error()
            .and_then(|error| error.map_or(Ok(()), Err));
        match attempt.and_then(|()| Ok((stream.peer_addr()?, stream.local_addr()?))) {
            // With nobody listening, a port out of the range of our own can be connected to itself (RFC 9293, 3.5).
            Ok((peer, own)) if peer == own => {
                self.sides.connection = None;
                self.try_next_address(&"nobody listens there");
            }
            Ok(_) => self.connected(),
            Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => {}
            Err(error) => {
                self.sides.connection = None;
                self.try_next_address(&error);
            }
        }
    }

    fn connected(&mut self) {
        self.end_attempt();
        if self.wants_start() {
            self.tell(Event::UpstreamStarted { pid: None });
        } else {
            self.sides.connection = None;
        }
    }

    fn connect_failed(&mut self, reason: &dyn Display) {
        self.tell(Event::UpstreamFailed(&reason.to_string()));
    }
}

fn settings(options: &ConnectOptions) -> Settings {
    Settings {
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
    }
}

fn latch<S>(io: &mut Option<Io<S>>, event: &mio::event::Event) -> bool {
    io.as_mut()
        .is_some_and(|io| io.latch(event.token(), Readiness::of(event)))
}

impl Driver for Sides {
    type Place = ();

    fn run(
        &mut self,
        _: SessionKey,
        session: &mut Session,
        (): &mut (),
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let Self {
            stdio,
            connection,
            connecting,
        } = self;
        if stdio.output.as_ref().is_some_and(Io::is_write_closed) {
            session.handle(Event::ClientFailed(&ErrorKind::BrokenPipe.into()), cx);
        }
        if stdio.input.as_ref().is_some_and(Io::is_read_closed) {
            session.handle(Event::ClientHup, cx);
        }
        let mut nothing = None;
        let upstream = if connecting.is_some() {
            &mut nothing
        } else {
            connection
        };
        pump(session, stdio, upstream, scratch, cx)
    }
}

impl StdioPair {
    fn register(
        input: Stdio,
        output: Stdio,
        reactor: &mut Reactor<Channel, Due>,
    ) -> io::Result<Self> {
        let input = register(reactor, input, Channel::Stdin, Interest::READABLE)?;
        let output = register(reactor, output, Channel::Stdout, Interest::WRITABLE)?;
        Ok(Self {
            input: Some(input),
            output: Some(output),
        })
    }
}

/// What no event tells of is read at once.
fn register(
    reactor: &mut Reactor<Channel, Due>,
    stdio: Stdio,
    channel: Channel,
    interest: Interest,
) -> io::Result<Io<Stdio>> {
    let mut io = reactor.register(stdio, Target { key: 0, channel }, interest)?;
    if interest.is_readable() && io.source().reads_in_pieces() {
        io.assume_readable();
    }
    Ok(io)
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
