//! A loop and the system below it, of which a test says what happens. Time passes when the test says so.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use mio::{Interest, Token};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::wire::{LoopEnd, TestEnd, Wire, wire};
use crate::buffers::budget::BufferBudget;
use crate::entrance::Rules;
use crate::entrance::tokens::Tokens;
use crate::process::Spawned;
use crate::process::reap::Reaped;
use crate::reactor::Reactor;
use crate::reactor::io::{Io, Readiness};
use crate::reactor::poller::{Poll, Register, Reregister};
use crate::reactor::signals::Pending;
use crate::reactor::token::Target;
use crate::scheduler::SessionKey;
use crate::serve::change::{Change, Placed};
use crate::serve::reload::Contents;
use crate::serve::status::About;
use crate::serve::system::{ServerUser, System};
use crate::serve::{Channel, Limits, Plan, Proxy, SessionsOfOne};
use crate::session::idle::IdleLimits;
use crate::session::report::Exit;
use crate::session::stderr::ServerLogging;
use crate::session::{Backend, Settings, Spawn};
use crate::status::request::Hosts;
use crate::util::client_address::ClientAddress;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// Turns in which the loop has to come to rest if nothing more happens.
const MAX_TURNS: usize = 1000;

/// Processes have greater numbers than the system gives: states of other programs may have those in them.
const FIRST_PID: i32 = 1 << 23;

/// A listening socket, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Door(pub(super) usize);

/// Where clients of sessions come in.
pub(super) const DOOR: Door = Door(0);

/// Where those come in who ask how things are.
pub(super) const STATUS: Door = Door(100);

/// A server process, as the test sees it.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) pid: Pid,
    pub(super) service: ServiceKey,
    pub(super) stdin: TestEnd,
    pub(super) stdout: TestEnd,
    pub(super) stderr: TestEnd,
}

/// What a process is, as the system sees it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Process {
    is_reaped: bool,
    /// No signal ends it.
    is_deaf: bool,
    /// It has left somebody in its group.
    leaves_child: bool,
}

/// The system.
pub(super) struct Below {
    pub(super) now: Time,
    wires: Vec<Rc<RefCell<Wire>>>,
    events: Vec<(Token, Readiness)>,
    backlog: HashMap<Door, VecDeque<(LoopEnd, ClientAddress)>>,
    doors: HashMap<Door, Token>,
    signal_token: Token,
    signals: Pending,
    pub(super) programs: Vec<Program>,
    processes: HashMap<Pid, Process>,
    exited: VecDeque<(Pid, Exit)>,
    pub(super) sent: Vec<(Pid, Signal)>,
    /// What the next accepts, starts or registrations of clients come to.
    pub(super) accept_errors: VecDeque<Errno>,
    pub(super) spawn_errors: VecDeque<Errno>,
    pub(super) watch_errors: VecDeque<Errno>,
    /// So many can be watched, and the next one can't.
    pub(super) watches_before_error: Option<usize>,
    /// What is in the token file, or what is wrong with it.
    pub(super) tokens: Result<Option<Tokens>, String>,
    pub(super) change: Option<Result<Change<Door>, String>>,
    pub(super) have_files_changed: bool,
    /// What the service manager was told.
    pub(super) told: Vec<String>,
    pub(super) watchdog: Option<Duration>,
    pub(super) refuses_tls: bool,
    /// How long the loop would have slept after the last turn.
    sleeps: bool,
}

#[derive(Clone)]
pub(super) struct Stage(Rc<RefCell<Below>>);

impl Stage {
    fn watch(&self, source: LoopEnd, token: Token, interest: Interest) -> io::Result<Io<LoopEnd>> {
        let mut below = self.0.borrow_mut();
        below.fail_to_watch()?;
        source.0.borrow_mut().watched(token, interest);
        let wire = Rc::clone(&source.0);
        below.wires.retain(|other| !Rc::ptr_eq(other, &wire));
        below.wires.push(wire);
        Ok(Io::new(source, token, interest))
    }

    fn signal(&self, pid: Pid, signal: Signal) -> nix::Result<()> {
        let mut below = self.0.borrow_mut();
        below.sent.push((pid, signal));
        let process = below.processes.get_mut(&pid).ok_or(Errno::ESRCH)?;
        if process.is_deaf {
            return Ok(());
        }
        process.leaves_child = false;
        if !process.is_reaped && !below.exited.iter().any(|(other, _)| *other == pid) {
            below.exits(pid, Exit::Signal(signal as i32));
        }
        Ok(())
    }
}

impl Below {
    fn fail_to_watch(&mut self) -> io::Result<()> {
        if let Some(error) = self.watch_errors.pop_front() {
            return Err(error.into());
        }
        if self.watches_before_error == Some(0) {
            self.watches_before_error = None;
            return Err(Errno::ENOMEM.into());
        }
        self.watches_before_error = self.watches_before_error.map(|left| left - 1);
        Ok(())
    }

    fn raise(&mut self) {
        self.events.push((self.signal_token, Readiness::READABLE));
    }

    fn exits(&mut self, pid: Pid, exit: Exit) {
        self.exited.push_back((pid, exit));
        let program = self.programs.iter().find(|program| program.pid == pid);
        if let Some(program) = program {
            program.stdout.leaves();
            program.stderr.leaves();
        }
        self.signals.child = true;
        self.raise();
    }
}

impl Poll for Stage {
    type Events = Vec<(Token, Readiness)>;

    fn wait(
        &mut self,
        events: &mut Self::Events,
        deadline: Option<Time>,
        now: Time,
    ) -> io::Result<()> {
        let mut below = self.0.borrow_mut();
        *events = std::mem::take(&mut below.events);
        below.wires.retain(|wire| !wire.borrow().is_closed);
        events.extend(
            below
                .wires
                .iter()
                .filter_map(|wire| wire.borrow_mut().take_news()),
        );
        let is_due = deadline.is_some_and(|at| at <= now.max(below.now));
        below.sleeps = events.is_empty() && !is_due;
        Ok(())
    }

    fn iter(events: &Self::Events) -> impl Iterator<Item = (Token, Readiness)> {
        events.iter().copied()
    }

    fn now(&self) -> Time {
        self.0.borrow().now
    }
}

impl Register<LoopEnd> for Stage {
    fn register(
        &mut self,
        source: LoopEnd,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<LoopEnd>> {
        self.watch(source, token, interest)
    }
}

impl Reregister<LoopEnd> for Stage {
    fn reregister(
        &mut self,
        io: Io<LoopEnd>,
        token: Token,
        interest: Interest,
    ) -> io::Result<Io<LoopEnd>> {
        self.watch(io.into_source(), token, interest)
    }
}

impl Register<Door> for Stage {
    fn register(&mut self, door: Door, token: Token, interest: Interest) -> io::Result<Io<Door>> {
        let mut below = self.0.borrow_mut();
        below.fail_to_watch()?;
        below.doors.insert(door, token);
        Ok(Io::new(door, token, interest))
    }
}

impl System for Stage {
    type Poller = Self;
    type Listener = Door;
    type Client = LoopEnd;
    type Stdin = LoopEnd;
    type Output = LoopEnd;

    fn take_signals(&mut self) -> Pending {
        std::mem::take(&mut self.0.borrow_mut().signals)
    }

    fn accept(&mut self, door: &Door) -> io::Result<(LoopEnd, ClientAddress)> {
        let mut below = self.0.borrow_mut();
        if let Some(error) = below.accept_errors.pop_front() {
            return Err(error.into());
        }
        let backlog = below.backlog.get_mut(door);
        let next = backlog.and_then(VecDeque::pop_front);
        Ok(next.ok_or(Errno::EAGAIN)?)
    }

    fn spawn(
        &mut self,
        service: ServiceKey,
        _: Option<ServerUser<'_, LoopEnd>>,
    ) -> io::Result<Spawned<LoopEnd, LoopEnd>> {
        let mut below = self.0.borrow_mut();
        if let Some(error) = below.spawn_errors.pop_front() {
            return Err(error.into());
        }
        let pid = Pid::from_raw(FIRST_PID + i32::try_from(below.programs.len()).unwrap());
        let [(stdin, in_end), (stdout, out_end), (stderr, error_end)] = [wire(), wire(), wire()];
        below.programs.push(Program {
            pid,
            service,
            stdin: in_end,
            stdout: out_end,
            stderr: error_end,
        });
        below.processes.insert(pid, Process::default());
        Ok(Spawned {
            pid,
            stdin,
            stdout,
            stderr,
        })
    }

    fn reap(&mut self) -> Reaped {
        let mut below = self.0.borrow_mut();
        let Some((pid, exit)) = below.exited.pop_front() else {
            return Reaped::Nothing;
        };
        if let Some(process) = below.processes.get_mut(&pid) {
            process.is_reaped = true;
        }
        Reaped::Process(pid, exit)
    }

    fn process_exists(&self, pid: Pid) -> bool {
        let below = self.0.borrow();
        below.processes.get(&pid).is_some_and(|it| !it.is_reaped)
    }

    fn group_exists(&self, leader: Pid) -> bool {
        let below = self.0.borrow();
        let process = below.processes.get(&leader);
        process.is_some_and(|it| !it.is_reaped || it.leaves_child)
    }

    fn signal_process(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        self.signal(leader, signal)
    }

    fn signal_group(&mut self, leader: Pid, signal: Signal) -> nix::Result<()> {
        self.signal(leader, signal)
    }

    fn vanished<'a>(
        &mut self,
        clients: impl Iterator<Item = (SessionKey, &'a LoopEnd)>,
        _: Duration,
    ) -> Vec<SessionKey> {
        let vanished = clients.filter(|(_, client)| client.0.borrow().has_vanished);
        vanished.map(|(key, _)| key).collect()
    }

    fn unsent(&mut self, client: &LoopEnd) -> Option<u32> {
        client.0.borrow().unsent
    }

    fn unix_time(&self) -> Duration {
        Duration::from_nanos(self.0.borrow().now.as_nanos())
    }

    fn start_tls(&mut self, client: &mut LoopEnd, _: Vec<u8>) -> io::Result<()> {
        if self.0.borrow().refuses_tls {
            return Err(io::ErrorKind::Unsupported.into());
        }
        client.0.borrow_mut().is_tls = true;
        Ok(())
    }

    fn read_files(&mut self) -> Result<Contents, String> {
        let tokens = self.0.borrow().tokens.clone()?;
        Ok(Contents { tokens, tls: None })
    }

    fn read_configuration(&mut self) -> Option<Result<Change<Door>, String>> {
        self.0.borrow_mut().change.take()
    }

    fn configured(&mut self, _: &Contents, placed: Placed) {
        let keys = placed.services.iter().map(|key| key.0.to_string());
        let keys: Vec<String> = keys.collect();
        let listeners = placed.listeners.len();
        let told = format!("services {}, {listeners} listeners", keys.join(" "));
        self.0.borrow_mut().told.push(told);
    }

    fn have_files_changed(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().have_files_changed)
    }

    fn tell_manager(&self, state: &str) {
        self.0.borrow_mut().told.push(state.to_owned());
    }

    fn watchdog(&self) -> Option<Duration> {
        self.0.borrow().watchdog
    }
}

/// What there is to choose about a world.
pub(in crate::serve) struct Choice {
    pub(in crate::serve) limits: Limits,
    pub(super) plan: Plan,
    pub(super) rules: Rules,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            limits: Limits {
                max_sessions: 1000,
                possible_sessions: 1000,
                max_starting: 64,
                sessions_of_one: SessionsOfOne::default(),
                places: 16,
                resume_timeout: None,
            },
            plan: plan(None),
            rules: Rules::default(),
        }
    }
}

/// What is to be served under this name.
pub(in crate::serve) fn plan(name: Option<&str>) -> Plan {
    Plan {
        name: name.and_then(crate::entrance::Name::new),
        settings: Settings {
            role: Backend::Process { max_restarts: 5 },
            heartbeat_interval: Duration::from_hours(1),
            restarts_upstream: true,
            max_message_bytes: 1_000_000,
            replays: true,
            replay_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(30),
            spawn: Spawn::Eager,
            idle_limits: IdleLimits::default(),
            server_log: ServerLogging::Limited,
        },
        max_sessions: None,
        spares: 0,
        share: None,
        swaps_in_place: false,
    }
}

pub(super) fn about() -> About {
    About {
        addresses: "127.0.0.1:1".to_owned(),
        commands: vec!["server".to_owned()],
        started: START,
        started_unix: Duration::from_secs(1),
        hosts: Hosts::default(),
        is_public: false,
    }
}

/// When a world begins.
pub(super) const START: Time = Time::from_nanos(1 << 40);

/// The loop and what is around it.
pub(super) struct World {
    pub(super) proxy: Proxy<Stage>,
    pub(super) below: Rc<RefCell<Below>>,
    events: Vec<(Token, Readiness)>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::of(Choice::default())
    }

    pub(super) fn of(choice: Choice) -> Self {
        let below = Rc::new(RefCell::new(Below {
            now: START,
            wires: Vec::new(),
            events: Vec::new(),
            backlog: HashMap::new(),
            doors: HashMap::new(),
            signal_token: Token(0),
            signals: Pending::default(),
            programs: Vec::new(),
            processes: HashMap::new(),
            exited: VecDeque::new(),
            sent: Vec::new(),
            accept_errors: VecDeque::new(),
            spawn_errors: VecDeque::new(),
            watch_errors: VecDeque::new(),
            watches_before_error: None,
            tokens: Ok(None),
            change: None,
            have_files_changed: false,
            told: Vec::new(),
            watchdog: None,
            refuses_tls: false,
            sleeps: false,
        }));
        let stage = Stage(Rc::clone(&below));
        let mut reactor = Reactor::new(stage.clone());
        let target = |channel| Target { key: 0, channel };
        below.borrow_mut().signal_token = reactor.next_token(target(Channel::Signals));
        let door = reactor.register(DOOR, target(Channel::Listener), Interest::READABLE);
        let Choice {
            limits,
            plan,
            rules,
        } = choice;
        let memory = BufferBudget::new(1 << 26);
        let doors = vec![(door.unwrap(), None)];
        Self {
            proxy: Proxy::new(stage, reactor, doors, limits, rules, plan, memory),
            below,
            events: Vec::new(),
        }
    }

    /// Those who ask how things are may do so.
    pub(super) fn with_status(mut self) -> Self {
        let target = Target {
            key: 0,
            channel: Channel::StatusListener,
        };
        let reactor = &mut self.proxy.reactor;
        let listener = reactor.register(STATUS, target, Interest::READABLE);
        self.proxy.serve_status(vec![listener.unwrap()], about());
        self
    }

    /// Somebody comes from this address.
    pub(super) fn comes_from(&mut self, address: &str, door: Door) -> TestEnd {
        let address = ClientAddress::of_tcp(address.parse().unwrap());
        let (client, end) = wire();
        let mut below = self.below.borrow_mut();
        below
            .backlog
            .entry(door)
            .or_default()
            .push_back((client, address));
        if let Some(token) = below.doors.get(&door).copied() {
            below.events.push((token, Readiness::READABLE));
        }
        end
    }

    /// Somebody on this machine comes.
    pub(super) fn comes(&mut self) -> TestEnd {
        self.comes_from("127.0.0.1:7", DOOR)
    }

    /// How many wait to be accepted.
    pub(super) fn waiting(&self, door: Door) -> usize {
        self.below
            .borrow()
            .backlog
            .get(&door)
            .map_or(0, VecDeque::len)
    }

    /// One iteration.
    pub(super) fn turn(&mut self) {
        self.proxy.iterate(&mut self.events).unwrap();
        self.proxy.check();
    }

    /// As many iterations as there is something to do for.
    pub(super) fn run(&mut self) {
        for _ in 0..MAX_TURNS {
            self.turn();
            if self.below.borrow().sleeps && !self.proxy.is_busy() {
                return;
            }
        }
        panic!("the loop does not come to rest");
    }

    /// This time passes, and what is due is done when it is.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.below.borrow().now + time;
        loop {
            self.run();
            let next = self.proxy.reactor.timers.next().filter(|at| *at <= end);
            self.below.borrow_mut().now = next.unwrap_or(end);
            if next.is_none() {
                return self.run();
            }
        }
    }

    /// The server that was started at this place.
    pub(super) fn program(&self, at: usize) -> Program {
        self.below.borrow().programs[at].clone()
    }

    /// How many were started.
    pub(super) fn started(&self) -> usize {
        self.below.borrow().programs.len()
    }

    /// A server exits by itself.
    pub(super) fn exits(&mut self, at: usize, code: i32) {
        let pid = self.program(at).pid;
        self.below.borrow_mut().exits(pid, Exit::Code(code));
    }

    /// Servers whose input has ended exit.
    pub(super) fn servers_obey(&mut self) {
        for at in 0..self.started() {
            let program = self.program(at);
            let is_running = {
                let below = self.below.borrow();
                below
                    .processes
                    .get(&program.pid)
                    .is_some_and(|it| !it.is_reaped)
            };
            if is_running && program.stdin.is_closed() {
                self.exits(at, 0);
            }
        }
        self.run();
    }

    /// This server leaves somebody behind in its group.
    pub(super) fn leaves_child(&mut self, at: usize) {
        let pid = self.program(at).pid;
        let mut below = self.below.borrow_mut();
        below.processes.entry(pid).or_default().leaves_child = true;
    }

    /// No signal ends this server.
    pub(super) fn is_deaf(&mut self, at: usize) {
        let pid = self.program(at).pid;
        let mut below = self.below.borrow_mut();
        below.processes.entry(pid).or_default().is_deaf = true;
    }

    /// Signals come.
    pub(super) fn signal(&mut self, signals: Pending) {
        let mut below = self.below.borrow_mut();
        below.signals = signals;
        below.raise();
    }

    pub(super) fn stop(&mut self) {
        self.signal(Pending {
            stop: true,
            ..Pending::default()
        });
        self.run();
    }

    pub(super) fn hang_up(&mut self) {
        self.signal(Pending {
            hangup: true,
            ..Pending::default()
        });
        self.run();
    }

    /// Somebody on this machine asks how things are. Returns the code and the body of the response.
    pub(super) fn get(&mut self, target: &str) -> (u16, String) {
        self.get_from("127.0.0.1:9", target)
    }

    /// The same from another address.
    pub(super) fn get_from(&mut self, address: &str, target: &str) -> (u16, String) {
        let client = self.comes_from(address, STATUS);
        client.says(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.run();
        let response = client.got();
        assert!(client.is_ended(), "the response has no end: {response}");
        client.leaves();
        self.run();
        assert!(client.is_closed());
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap();
        (code.parse().unwrap(), body.to_owned())
    }

    /// What the service manager was told since the last call.
    pub(super) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.below.borrow_mut().told)
    }
}
