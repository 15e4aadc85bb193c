//! The least that a relay in user space can do: for each connection it starts a server, and moves bytes both ways without
//! looking at them. What another relay takes beyond this is what it does besides.
//!
//! It is the benchmark's own program, started with a word that nobody would type. One thread waits with epoll,
//! edge-triggered, and reads into one buffer; only what the other side did not take is copied.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::{Errno, ioctl_fionbio};
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level::pipe;
use slab::Slab;

/// The argument that makes a benchmark this relay; the command of the server follows.
const WORD: &str = "benchmark-bare-relay";

/// What is read at once: as much as a pipe holds.
const BUFFER_BYTES: usize = 64 * 1024;

/// How many events are asked for at once.
const EVENTS: usize = 256;

/// What an event is about: the channel in the lowest bits, the key of the session above them.
const LISTENER: u64 = 0;
const DEATHS: u64 = 1;
const SOCKET: u64 = 2;
const STDIN: u64 = 3;
const STDOUT: u64 = 4;
const CHANNEL_BITS: u32 = 3;

/// The command that starts this relay for this server.
pub(crate) fn command(server: impl IntoIterator<Item = String>) -> Command {
    let program = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.arg(WORD).args(server);
    command
}

/// Becomes this relay if the first argument says so; returns whether it did.
pub(crate) fn run_if_asked() -> bool {
    let mut words = std::env::args().skip(1);
    let asked = words.next().is_some_and(|word| word == WORD);
    if asked && let Err(error) = Relay::new(words.collect()).and_then(Relay::run) {
        eprintln!("bare relay: {error}");
    }
    asked
}

struct Relay {
    server: Vec<String>,
    epoll: OwnedFd,
    listener: TcpListener,
    /// Has a byte when a server has ended.
    deaths: UnixStream,
    sessions: Slab<Session>,
    buffer: Vec<u8>,
}

impl Relay {
    fn new(server: Vec<String>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (deaths, sender) = UnixStream::pair()?;
        pipe::register(SIGCHLD, sender)?;
        let relay = Self {
            server,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            listener,
            deaths,
            sessions: Slab::new(),
            buffer: vec![0; BUFFER_BYTES],
        };
        watch(&relay.epoll, &relay.listener, LISTENER, EventFlags::IN)?;
        watch(&relay.epoll, &relay.deaths, DEATHS, EventFlags::IN)?;
        Ok(relay)
    }

    fn run(mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Err(Errno::INTR) => continue,
                outcome => outcome?,
            };
            for event in &events {
                let (token, flags) = (event.data.u64(), event.flags);
                let key = usize::try_from(token >> CHANNEL_BITS).unwrap_or_default();
                match token & !(u64::MAX << CHANNEL_BITS) {
                    LISTENER => self.accept()?,
                    DEATHS => self.reap()?,
                    channel => self.serve(key, channel, flags),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => self.open(socket)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // It was gone before it could be accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn open(&mut self, socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut command = Command::new(&self.server[0]);
        command.args(&self.server[1..]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ErrorKind::BrokenPipe.into());
        };
        let entry = self.sessions.vacant_entry();
        let token = |channel| (entry.key() as u64) << CHANNEL_BITS | channel;
        let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        watch(&self.epoll, &socket, token(SOCKET), both)?;
        watch(&self.epoll, &stdin, token(STDIN), EventFlags::OUT)?;
        watch(&self.epoll, &stdout, token(STDOUT), EventFlags::IN)?;
        entry.insert(Session {
            socket,
            stdin: Some(stdin),
            stdout,
            to_server: Way::default(),
            to_client: Way::default(),
        });
        Ok(())
    }

    /// An event may be about an earlier session with this key. Then there is just nothing to be done.
    fn serve(&mut self, key: usize, channel: u64, flags: EventFlags) {
        if let Some(session) = self.sessions.get_mut(key)
            && !session.go_on(channel, flags, &mut self.buffer)
        {
            self.sessions.remove(key);
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            match self.deaths.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                outcome => outcome?,
            };
        }
        // An error says that there are no servers.
        while waitpid(None, Some(WaitPidFlag::WNOHANG))
            .is_ok_and(|status| status != WaitStatus::StillAlive)
        {}
        Ok(())
    }
}

/// Has changes of this descriptor reported, and has no call wait for it.
fn watch(
    epoll: &OwnedFd,
    descriptor: impl AsFd,
    token: u64,
    flags: EventFlags,
) -> rustix::io::Result<()> {
    ioctl_fionbio(&descriptor, true)?;
    epoll::add(
        epoll,
        &descriptor,
        EventData::new_u64(token),
        flags | EventFlags::ET,
    )
}

/// A connection and the server that was started for it.
struct Session {
    socket: TcpStream,
    /// `None` if the client has ended its side, or the server does not read any more.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    to_server: Way,
    to_client: Way,
}

impl Session {
    /// Does what an event makes possible; returns whether the session goes on.
    fn go_on(&mut self, channel: u64, flags: EventFlags, buffer: &mut [u8]) -> bool {
        let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let is_readable = ends || flags.contains(EventFlags::IN);
        let is_writable = ends || flags.contains(EventFlags::OUT);
        match channel {
            SOCKET => {
                self.to_server.is_ending |= ends;
                if is_readable {
                    self.serve_server(buffer);
                }
                !(is_writable && self.to_client.is_blocked()) || self.serve_client(buffer)
            }
            STDIN => {
                if is_writable && self.to_server.is_blocked() {
                    self.serve_server(buffer);
                }
                true
            }
            _ => {
                self.to_client.is_ending |= ends;
                self.serve_client(buffer)
            }
        }
    }

    /// If there is nobody to speak or to listen any more, the server's stdin is closed.
    fn serve_server(&mut self, buffer: &mut [u8]) {
        if let Some(stdin) = &mut self.stdin
            && !self.to_server.go_on(&mut self.socket, stdin, buffer)
        {
            self.stdin = None;
        }
    }

    fn serve_client(&mut self, buffer: &mut [u8]) -> bool {
        self.to_client
            .go_on(&mut self.stdout, &mut self.socket, buffer)
    }
}

/// One of the two directions.
#[derive(Default)]
struct Way {
    /// What was read, and not taken at once.
    unsent: Vec<u8>,
    /// How much of it was taken later.
    taken: usize,
    /// The end was announced: it is not announced again, so it has to be read.
    is_ending: bool,
}

impl Way {
    fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Moves what can be moved; returns whether there may be more some time.
    fn go_on(&mut self, from: &mut impl Read, to: &mut impl Write, buffer: &mut [u8]) -> bool {
        match self.move_all(from, to, buffer) {
            Ok(()) => false,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    /// Moves everything to the end. Fails with `WouldBlock` if it has to be called again.
    fn move_all(
        &mut self,
        from: &mut impl Read,
        to: &mut impl Write,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        while self.is_blocked() {
            self.taken += to.write(&self.unsent[self.taken..])?;
            if self.taken == self.unsent.len() {
                self.unsent.clear();
                self.taken = 0;
            }
        }
        loop {
            let count = from.read(buffer)?;
            if count == 0 {
                return Ok(());
            }
            let mut taken = 0;
            while taken < count {
                match to.write(&buffer[taken..count]) {
                    Ok(more) => taken += more,
                    Err(error) => {
                        self.unsent.extend_from_slice(&buffer[taken..count]);
                        return Err(error);
                    }
                }
            }
            if count < buffer.len() && !self.is_ending {
                // That was all: more is reported when it comes (epoll(7)).
                return Err(ErrorKind::WouldBlock.into());
            }
        }
    }
}
