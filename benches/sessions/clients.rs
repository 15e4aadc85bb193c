//! The clients of all sessions, in one thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::common::messages::{self, FIRST_ID, INITIALIZE, INITIALIZED};
use crate::common::stats::micros;

/// How many sessions are opened at a time.
const OPENED_AT_A_TIME: usize = 64;

/// How long a response may take.
const PATIENCE: Duration = Duration::from_secs(20);

const REQUEST_BYTES: usize = 200;
const READ_BYTES: usize = 16 * 1024;
const EVENTS: usize = 1024;

/// Has a session get heartbeats.
const ANNOUNCEMENT: &[u8] = b"{\"type\":\"handshake\",\"supports_heartbeat\":true}\n";

/// A heartbeat of the client.
const HEARTBEAT: &[u8] = b"{\"type\":\"heartbeat\",\"timestamp\":1795361499.25}\n";

/// Open sessions, each after a handshake and one response.
pub(crate) struct Clients {
    address: SocketAddr,
    sessions: Vec<TcpStream>,
    call: Vec<u8>,
    buffer: Vec<u8>,
}

/// How far the opening of a session has come.
enum Step {
    /// `initialize` was sent.
    Initialize(Vec<u8>),
    /// The first request was sent.
    Call(Vec<u8>),
    Open,
}

impl Clients {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            sessions: Vec::new(),
            call: messages::call(FIRST_ID, REQUEST_BYTES),
            buffer: vec![0; READ_BYTES],
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Opens more sessions, some at a time, until there are this many.
    pub(crate) fn open(&mut self, count: usize) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(EVENTS);
        let mut steps: Vec<Step> = self.sessions.iter().map(|_| Step::Open).collect();
        let mut under_way = 0;
        while under_way > 0 || self.sessions.len() < count {
            while under_way < OPENED_AT_A_TIME && self.sessions.len() < count {
                let session = self.connect()?;
                register(&poll, &session, self.sessions.len())?;
                self.sessions.push(session);
                steps.push(Step::Initialize(Vec::new()));
                under_way += 1;
            }
            wait(&mut poll, &mut events, PATIENCE)?;
            if events.is_empty() {
                return Err(io::Error::other(format!(
                    "{under_way} sessions get no response"
                )));
            }
            for event in &events {
                let at = event.token().0;
                if !matches!(steps[at], Step::Open) && self.advance(at, &mut steps[at])? {
                    under_way -= 1;
                }
            }
        }
        self.set_nonblocking(false)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut session = TcpStream::connect(self.address)?;
        session.set_nodelay(true)?;
        session.set_read_timeout(Some(PATIENCE))?;
        // A new connection has room for this.
        session.write_all(INITIALIZE)?;
        session.set_nonblocking(true)?;
        Ok(session)
    }

    /// Reads what is there; returns whether the session is open now.
    fn advance(&mut self, at: usize, step: &mut Step) -> io::Result<bool> {
        let mut session = &self.sessions[at];
        let (Step::Initialize(line) | Step::Call(line)) = step else {
            return Ok(false);
        };
        match session.read(&mut self.buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => line.extend_from_slice(&self.buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        if line.last() != Some(&b'\n') {
            return Ok(false);
        }
        messages::check_answer(line)?;
        if matches!(step, Step::Call(_)) {
            *step = Step::Open;
            return Ok(true);
        }
        session.write_all(&[INITIALIZED, &self.call].concat())?;
        *step = Step::Call(Vec::new());
        Ok(false)
    }

    /// One request of each session in turn, as many times as told; returns the round trips in µs.
    pub(crate) fn ask_each(&mut self, times: usize) -> io::Result<Vec<f64>> {
        let all = (0..self.count()).cycle().take(times * self.count());
        all.map(|at| self.ask(at)).collect()
    }

    /// This many requests of one session; returns the round trips in µs.
    pub(crate) fn ask_one(&mut self, times: usize) -> io::Result<Vec<f64>> {
        (0..times).map(|_| self.ask(0)).collect()
    }

    fn ask(&mut self, at: usize) -> io::Result<f64> {
        let mut session = &self.sessions[at];
        let begin = Instant::now();
        session.write_all(&self.call)?;
        loop {
            let count = session.read(&mut self.buffer)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if self.buffer[count - 1] == b'\n' {
                return Ok(micros(begin.elapsed()));
            }
        }
    }

    /// Has every session get heartbeats from now on.
    pub(crate) fn announce_heartbeats(&mut self) -> io::Result<()> {
        self.sessions
            .iter_mut()
            .try_for_each(|session| session.write_all(ANNOUNCEMENT))
    }

    /// Receives heartbeats for this time, and sends one for each. Returns how many arrived.
    pub(crate) fn exchange_heartbeats(&mut self, window: Duration) -> io::Result<usize> {
        self.set_nonblocking(true)?;
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(EVENTS);
        for (at, session) in self.sessions.iter().enumerate() {
            register(&poll, session, at)?;
        }
        let mut heartbeats = 0;
        let end = Instant::now() + window;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wait(&mut poll, &mut events, left)?;
            for event in &events {
                let mut session = &self.sessions[event.token().0];
                match session.read(&mut self.buffer) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(_) => {
                        heartbeats += 1;
                        session.write_all(HEARTBEAT)?;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
        drop(poll);
        self.set_nonblocking(false)?;
        Ok(heartbeats)
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.sessions
            .iter()
            .try_for_each(|session| session.set_nonblocking(nonblocking))
    }
}

fn register(poll: &Poll, session: &TcpStream, at: usize) -> io::Result<()> {
    let mut source = SourceFd(&session.as_raw_fd());
    poll.registry()
        .register(&mut source, Token(at), Interest::READABLE)
}

fn wait(poll: &mut Poll, events: &mut Events, limit: Duration) -> io::Result<()> {
    match poll.poll(events, Some(limit)) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}
