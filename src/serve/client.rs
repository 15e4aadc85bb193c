//! One session with its descriptors: the connection to a client, and the pipes of a server.

use std::io;
use std::net::Shutdown;

use mio::Token;
use mio::net::TcpStream;
use mio::unix::pipe;

use super::Channel;
use super::pipes::{PipeWidener, Pipes};
use crate::pump::{READS_PER_RUN, Transport, pump};
use crate::reactor::io::{Input, Io, Readiness};
use crate::session::report::Exit;
use crate::session::{Context, Event, Session};

/// A session and its descriptors.
#[derive(Debug)]
pub(super) struct ClientSession {
    client: Option<Io<TcpStream>>,
    server: Option<Server>,
}

/// A server process as the connection sees it.
#[derive(Debug)]
struct Server {
    process: usize,
    stdin: Option<Io<pipe::Sender>>,
    stdout: Option<Io<pipe::Receiver>>,
    stderr: Option<Io<pipe::Receiver>>,
    stdin_room: PipeWidener,
    stdout_room: PipeWidener,
    /// It was reaped, and the session has not been told.
    exit: Option<Exit>,
}

impl ClientSession {
    /// A session over a client's connection.
    pub(super) fn new(client: Io<TcpStream>) -> Self {
        Self {
            client: Some(client),
            server: None,
        }
    }

    /// Connects the session with its server. `process` is the number under which the process is known.
    pub(super) fn attach(&mut self, pipes: Pipes, process: usize) {
        self.server = Some(Server {
            process,
            stdin: pipes.stdin,
            stdout: Some(pipes.stdout),
            stderr: Some(pipes.stderr),
            stdin_room: PipeWidener::default(),
            stdout_room: PipeWidener::default(),
            exit: None,
        });
    }

    /// Latches what an event says. Returns whether it was about a descriptor that is here.
    pub(super) fn latch(&mut self, port: Channel, event: (Token, Readiness)) -> bool {
        match (port, &mut self.client, &mut self.server) {
            (Channel::Client, Some(client), _) => client.latch(event.0, event.1),
            (
                Channel::Stdin,
                _,
                Some(Server {
                    stdin: Some(stdin), ..
                }),
            ) => stdin.latch(event.0, event.1),
            (
                Channel::Stdout,
                _,
                Some(Server {
                    stdout: Some(stdout),
                    ..
                }),
            ) => stdout.latch(event.0, event.1),
            (
                Channel::Stderr,
                _,
                Some(Server {
                    stderr: Some(stderr),
                    ..
                }),
            ) => stderr.latch(event.0, event.1),
            _ => false,
        }
    }

    /// The server was reaped. All that it had written is in its pipes, whether or not an event has told of it.
    pub(super) fn server_exited(&mut self, process: usize, exit: Exit) {
        if let Some(server) = self
            .server
            .as_mut()
            .filter(|server| server.process == process)
        {
            server.exit = Some(exit);
            for output in [&mut server.stdout, &mut server.stderr]
                .into_iter()
                .flatten()
            {
                output.assume_readable();
            }
        }
    }

    /// The number of the server's process.
    pub(super) fn process(&self) -> Option<usize> {
        self.server.as_ref().map(|server| server.process)
    }

    /// Ends the server's input. Returns the number of its process.
    pub(super) fn end_server_input(&mut self) -> Option<usize> {
        let server = self.server.as_mut()?;
        server.stdin = None;
        Some(server.process)
    }

    /// Lets go of the server.
    pub(super) fn release_server(&mut self) {
        self.server = None;
    }

    /// Sends the client the end of our side.
    pub(super) fn shutdown_client(&mut self) {
        if let Some(client) = &self.client {
            // It may be gone already, which the next read tells.
            let _ = client.source().shutdown(Shutdown::Write);
        }
    }

    /// Closes the connection to the client.
    pub(super) fn close_client(&mut self) {
        self.client = None;
    }

    /// Does what can be done now, within the budget. Returns whether there is more to be done although no event will tell.
    pub(super) fn run(
        &mut self,
        session: &mut Session,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> bool {
        self.read_stderr(session, scratch, cx);
        self.report_exit(session, cx);
        self.notice_failures(session, cx);
        let has_more = pump(session, &mut self.client, &mut self.server, scratch, cx);
        let server = self.server.as_ref();
        let stderr = server.and_then(|server| server.stderr.as_ref());
        has_more || stderr.is_some_and(Io::is_readable)
    }

    /// Stderr comes first, so that a dying server's last words are in the log before its end is.
    fn read_stderr(&mut self, session: &mut Session, scratch: &mut [u8], cx: &mut Context<'_>) {
        let Some(server) = &mut self.server else {
            return;
        };
        for _ in 0..READS_PER_RUN {
            let Some(stderr) = server.stderr.as_mut().filter(|stderr| stderr.is_readable()) else {
                return;
            };
            match stderr.read(scratch) {
                Input::Bytes(count) => session.handle(Event::UpstreamStderr(&scratch[..count]), cx),
                Input::End | Input::Broken(_) => server.stderr = None,
                Input::Blocked => return,
            }
        }
    }

    fn report_exit(&mut self, session: &mut Session, cx: &mut Context<'_>) {
        if let Some(exit) = self.server.as_mut().and_then(|server| server.exit.take()) {
            session.handle(Event::UpstreamExited(exit), cx);
        }
    }

    /// What events tell although nothing is read or written at the moment.
    fn notice_failures(&mut self, session: &mut Session, cx: &mut Context<'_>) {
        if let Some(client) = self
            .client
            .as_ref()
            .filter(|client| client.is_read_closed())
        {
            session.handle(Event::ClientHup, cx);
            let error = if client.is_write_closed() {
                client.source().take_error().ok().flatten()
            } else {
                None
            };
            if let Some(error) = error {
                session.handle(Event::ClientFailed(&error), cx);
            }
        }
        let Some(server) = &mut self.server else {
            return;
        };
        if server.stdin.as_ref().is_some_and(Io::is_write_closed) {
            server.stdin = None;
            session.handle(Event::UpstreamInputBroke, cx);
        }
    }
}

/// The stdout and the stdin of a server. A pipe that has ended is closed.
impl Transport for Option<Server> {
    fn is_readable(&self) -> bool {
        self.as_ref()
            .and_then(|server| server.stdout.as_ref())
            .is_some_and(Io::is_readable)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        let Some(server) = self else {
            return Input::Blocked;
        };
        let Some(stdout) = &mut server.stdout else {
            return Input::Blocked;
        };
        let input = stdout.read(buffer);
        match &input {
            Input::Bytes(count) => {
                let wanted = buffer.len();
                server.stdout_room.was_read(*count, wanted, stdout.source());
            }
            Input::End | Input::Broken(_) => server.stdout = None,
            Input::Blocked => {}
        }
        input
    }

    fn is_writable(&self) -> bool {
        self.as_ref()
            .and_then(|server| server.stdin.as_ref())
            .is_some_and(Io::is_writable)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(server) = self else {
            return Ok(0);
        };
        let Some(stdin) = &mut server.stdin else {
            return Ok(0);
        };
        let taken = stdin.write(bytes);
        match &taken {
            Ok(count) => server
                .stdin_room
                .was_left(bytes.len() - count, stdin.source()),
            Err(_) => server.stdin = None,
        }
        taken
    }
}
