//! The clients of all sessions, in one thread, for what no load generator does: they get heartbeats, and answer them.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::common::messages::{self, INITIALIZE, INITIALIZED};

/// How many sessions are opened at a time.
const OPENED_AT_A_TIME: usize = 64;

/// How long a response may take.
const PATIENCE: Duration = Duration::from_secs(20);

const READ_BYTES: usize = 16 * 1024;
const EVENTS: usize = 1024;

/// Has a session get heartbeats.
const ANNOUNCEMENT: &[u8] = b"{\"type\":\"handshake\",\"supports_heartbeat\":true}\n";

/// A heartbeat of the client.
const HEARTBEAT: &[u8] = b"{\"type\":\"heartbeat\",\"timestamp\":1795361499.25}\n";

/// Open sessions, each after a handshake, which get heartbeats from now on.
pub(crate) struct Clients(Vec<TcpStream>);

impl Clients {
    /// Opens this many sessions, some at a time.
    pub(crate) fn open(address: SocketAddr, count: usize) -> io::Result<Self> {
        let mut sessions = Vec::with_capacity(count);
        while sessions.len() < count {
            let from = sessions.len();
            for _ in 0..OPENED_AT_A_TIME.min(count - from) {
                let mut session = TcpStream::connect(address)?;
                session.set_nodelay(true)?;
                session.set_read_timeout(Some(PATIENCE))?;
                session.write_all(INITIALIZE)?;
                sessions.push(session);
            }
            for session in &mut sessions[from..] {
                let mut line = Vec::new();
                BufReader::new(&*session).read_until(b'\n', &mut line)?;
                messages::check_answer(&line)?;
                session.write_all(INITIALIZED)?;
            }
        }
        for session in &mut sessions {
            session.write_all(ANNOUNCEMENT)?;
            session.set_nonblocking(true)?;
        }
        Ok(Self(sessions))
    }

    /// Receives heartbeats for this time, and sends one for each. Returns how many arrived.
    pub(crate) fn exchange_heartbeats(&mut self, window: Duration) -> io::Result<usize> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(EVENTS);
        for (at, session) in self.0.iter().enumerate() {
            let mut source = SourceFd(&session.as_raw_fd());
            poll.registry()
                .register(&mut source, Token(at), Interest::READABLE)?;
        }
        let mut buffer = vec![0; READ_BYTES];
        let mut heartbeats = 0;
        let end = Instant::now() + window;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(heartbeats);
            }
            wait(&mut poll, &mut events, left)?;
            for event in &events {
                let mut session = &self.0[event.token().0];
                match session.read(&mut buffer) {
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
    }
}

fn wait(poll: &mut Poll, events: &mut Events, limit: Duration) -> io::Result<()> {
    match poll.poll(events, Some(limit)) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}
