//! One session with its descriptors: the connection to a client, and the pipes of a server.

use std::io;
use std::net::Shutdown;

use mio::event;
use mio::net::TcpStream;
use mio::unix::pipe;

use super::pipes::{PipeWidener, Pipes};
use crate::pump::{Pump, READS_PER_TURN, Transport};
use crate::reactor::io::{Input, Io};
use crate::reactor::token::Channel;
use crate::session::report::Exit;
use crate::session::{Context, Event, Session};
use crate::util::time::Time;
use crate::util::timer_wheel::TimerId;

/// A session and its descriptors.
#[derive(Debug)]
pub(super) struct Connection {
    /// The state machine.
    pub(super) session: Session,
    client: Option<Io<TcpStream>>,
    server: Option<Server>,
    /// The deadline that is set for the session.
    pub(super) timer: Option<(Time, TimerId)>,
    /// Whether the session is in the run queue.
    pub(super) queued: bool,
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

impl Connection {
    /// A session over a client's connection.
    pub(super) fn new(session: Session, client: Io<TcpStream>) -> Self {
        Self {
            session,
            client: Some(client),
            server: None,
            timer: None,
            queued: false,
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
    pub(super) fn latch(&mut self, port: Channel, event: &event::Event) -> bool {
        match (port, &mut self.client, &mut self.server) {
            (Channel::Client, Some(client), _) => client.latch(event),
            (
                Channel::Stdin,
                _,
                Some(Server {
                    stdin: Some(stdin), ..
                }),
            ) => stdin.latch(event),
            (
                Channel::Stdout,
                _,
                Some(Server {
                    stdout: Some(stdout),
                    ..
                }),
            ) => stdout.latch(event),
            (
                Channel::Stderr,
                _,
                Some(Server {
                    stderr: Some(stderr),
                    ..
                }),
            ) => stderr.latch(event),
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

    /// Does what can be done now, within the budget.
    pub(super) fn run(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) {
        self.read_stderr(scratch, cx);
        self.report_exit(cx);
        self.notice_failures(cx);
        let Self {
            session,
            client,
            server,
            ..
        } = self;
        Pump {
            session,
            client,
            upstream: server,
        }
        .run(scratch, cx);
    }

    /// Whether there is more to be done although no event will tell.
    pub(super) fn is_ready(&mut self, cx: &Context<'_>) -> bool {
        let Self {
            session,
            client,
            server,
            ..
        } = self;
        let stderr = server.as_ref().and_then(|server| server.stderr.as_ref());
        stderr.is_some_and(Io::is_readable)
            || Pump {
                session,
                client,
                upstream: server,
            }
            .is_ready(cx)
    }

    /// Stderr comes first, so that a dying server's last words are in the log before its end is.
    fn read_stderr(&mut self, scratch: &mut [u8], cx: &mut Context<'_>) {
        let Some(server) = &mut self.server else {
            return;
        };
        for _ in 0..READS_PER_TURN {
            let Some(stderr) = server.stderr.as_mut().filter(|stderr| stderr.is_readable()) else {
                return;
            };
            match stderr.read(scratch) {
                Input::Bytes(count) => self
                    .session
                    .handle(Event::UpstreamStderr(&scratch[..count]), cx),
                Input::End | Input::Broken(_) => server.stderr = None,
                Input::Blocked => return,
            }
        }
    }

    fn report_exit(&mut self, cx: &mut Context<'_>) {
        if let Some(exit) = self.server.as_mut().and_then(|server| server.exit.take()) {
            self.session.handle(Event::UpstreamExited(exit), cx);
        }
    }

    /// What events tell although nothing is read or written at the moment.
    fn notice_failures(&mut self, cx: &mut Context<'_>) {
        if let Some(client) = self
            .client
            .as_ref()
            .filter(|client| client.is_read_closed())
        {
            self.session.handle(Event::ClientHup, cx);
            let error = if client.is_write_closed() {
                client.source().take_error().ok().flatten()
            } else {
                None
            };
            if let Some(error) = error {
                self.session.handle(Event::ClientFailed(&error), cx);
            }
        }
        let Some(server) = &mut self.server else {
            return;
        };
        if server.stdin.as_ref().is_some_and(Io::is_write_closed) {
            server.stdin = None;
            self.session.handle(Event::UpstreamInputBroke, cx);
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
