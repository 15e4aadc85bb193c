//! One session with its descriptors: moves bytes between them and the state machine, within a budget.

use std::io::{self, Read};
use std::net::Shutdown;
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::pipe;
use mio::{Interest, Registry};

use crate::process::Spawned;
use crate::reactor::endpoint::{Endpoint, Input};
use crate::reactor::token::{Address, Port, Registrations};
use crate::session::report::Exit;
use crate::session::{Session, Turn};
use crate::timer_wheel::TimerId;

/// What is read at once, in bytes: as much as a pipe holds by default (pipe(7)).
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Reads of each descriptor in one turn, so that a busy session does not delay the others.
const READS_PER_TURN: usize = 4;

/// A session and its descriptors.
#[derive(Debug)]
pub(super) struct Connection {
    /// The state machine.
    pub(super) session: Session,
    client: Option<Endpoint<TcpStream>>,
    server: Option<Server>,
    /// The deadline that is set for the session.
    pub(super) timer: Option<(Instant, TimerId)>,
    /// Whether the session is in the run queue.
    pub(super) queued: bool,
}

/// A server process as the connection sees it.
#[derive(Debug)]
struct Server {
    process: usize,
    stdin: Option<Endpoint<pipe::Sender>>,
    stdout: Option<Endpoint<pipe::Receiver>>,
    stderr: Option<Endpoint<pipe::Receiver>>,
    /// It was reaped, and the session has not been told.
    exit: Option<Exit>,
}

impl Connection {
    /// A session over a client's connection.
    pub(super) fn new(session: Session, client: Endpoint<TcpStream>) -> Self {
        Self {
            session,
            client: Some(client),
            server: None,
            timer: None,
            queued: false,
        }
    }

    /// Connects the session with its server. `process` is the number under which the process is known.
    pub(super) fn attach(
        &mut self,
        spawned: Spawned,
        process: usize,
        slot: usize,
        registry: &Registry,
        registrations: &mut Registrations,
    ) -> io::Result<()> {
        let mut token = |port| registrations.next(Address { slot, port });
        let stdin = Endpoint::register(
            spawned.stdin,
            registry,
            token(Port::Stdin),
            Interest::WRITABLE,
        )?;
        let stdout = Endpoint::register(
            spawned.stdout,
            registry,
            token(Port::Stdout),
            Interest::READABLE,
        )?;
        let stderr = Endpoint::register(
            spawned.stderr,
            registry,
            token(Port::Stderr),
            Interest::READABLE,
        )?;
        self.server = Some(Server {
            process,
            stdin: Some(stdin),
            stdout: Some(stdout),
            stderr: Some(stderr),
            exit: None,
        });
        Ok(())
    }

    /// Latches what an event says. Returns whether it was about a descriptor that is here.
    pub(super) fn latch(&mut self, port: Port, event: &Event) -> bool {
        match (port, &mut self.client, &mut self.server) {
            (Port::Client, Some(client), _) => client.latch(event),
            (
                Port::Stdin,
                _,
                Some(Server {
                    stdin: Some(stdin), ..
                }),
            ) => stdin.latch(event),
            (
                Port::Stdout,
                _,
                Some(Server {
                    stdout: Some(stdout),
                    ..
                }),
            ) => stdout.latch(event),
            (
                Port::Stderr,
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
    pub(super) fn run(&mut self, scratch: &mut [u8], turn: &mut Turn<'_>) {
        self.read_stderr(scratch, turn);
        self.report_exit(turn);
        self.notice_failures(turn);
        self.flush(turn);
        for _ in 0..READS_PER_TURN {
            let read_server = self.read_stdout(scratch, turn);
            let read_client = self.read_client(scratch, turn);
            if !read_server && !read_client {
                break;
            }
        }
        self.flush(turn);
    }

    /// Whether there is more to be done although no event will tell.
    pub(super) fn is_ready(&self, turn: &Turn<'_>) -> bool {
        let reads_client =
            self.client.as_ref().is_some_and(Endpoint::is_readable) && self.session.wants_client();
        let writes_client = self.client.as_ref().is_some_and(Endpoint::is_writable)
            && !self.session.to_client().is_empty();
        let Some(server) = &self.server else {
            return reads_client || writes_client;
        };
        let reads_stdout = server.stdout.as_ref().is_some_and(Endpoint::is_readable)
            && self.session.wants_upstream(turn.memory);
        let reads_stderr = server.stderr.as_ref().is_some_and(Endpoint::is_readable);
        let writes_stdin = server.stdin.as_ref().is_some_and(Endpoint::is_writable)
            && !self.session.to_upstream().is_empty();
        reads_client || writes_client || reads_stdout || reads_stderr || writes_stdin
    }

    fn flush(&mut self, turn: &mut Turn<'_>) {
        self.flush_server(turn);
        self.flush_client(turn);
    }

    fn flush_client(&mut self, turn: &mut Turn<'_>) {
        let Some(client) = &mut self.client else {
            return;
        };
        if !client.is_writable() || self.session.to_client().is_empty() {
            return;
        }
        match client.write(self.session.to_client()) {
            Ok(0) => {}
            Ok(count) => self.session.client_took(count, turn),
            Err(error) => self.session.client_gone(&error.to_string(), turn),
        }
    }

    fn flush_server(&mut self, turn: &mut Turn<'_>) {
        let Some(Server {
            stdin: Some(stdin), ..
        }) = &mut self.server
        else {
            return;
        };
        if !stdin.is_writable() || self.session.to_upstream().is_empty() {
            return;
        }
        match stdin.write(self.session.to_upstream()) {
            Ok(0) => {}
            Ok(count) => self.session.upstream_took(count, turn),
            Err(_) => self.stdin_broke(turn),
        }
    }

    fn stdin_broke(&mut self, turn: &mut Turn<'_>) {
        if let Some(server) = &mut self.server {
            server.stdin = None;
        }
        self.session.upstream_input_broke(turn);
    }

    /// Stderr comes first, so that a dying server's last words are in the log before its end is.
    fn read_stderr(&mut self, scratch: &mut [u8], turn: &mut Turn<'_>) {
        let Some(server) = &mut self.server else {
            return;
        };
        for _ in 0..READS_PER_TURN {
            match read(&mut server.stderr, scratch) {
                Some(Input::Bytes(count)) => self.session.upstream_logged(&scratch[..count], turn),
                Some(Input::End | Input::Broken(_)) => server.stderr = None,
                Some(Input::Blocked) | None => return,
            }
        }
    }

    fn report_exit(&mut self, turn: &mut Turn<'_>) {
        if let Some(exit) = self.server.as_mut().and_then(|server| server.exit.take()) {
            self.session.upstream_exited(exit, turn);
        }
    }

    /// What events tell although nothing is read or written at the moment.
    fn notice_failures(&mut self, turn: &mut Turn<'_>) {
        if let Some(client) = &self.client
            && client.is_read_closed()
        {
            self.session.client_hung_up(turn);
            let error = if client.has_failed() {
                client.source().take_error().ok().flatten()
            } else {
                None
            };
            if let Some(error) = error {
                self.session.client_gone(&error.to_string(), turn);
            }
        }
        if let Some(Server {
            stdin: Some(stdin), ..
        }) = &self.server
            && stdin.has_failed()
        {
            self.stdin_broke(turn);
        }
    }

    /// Returns whether more may be there.
    fn read_stdout(&mut self, scratch: &mut [u8], turn: &mut Turn<'_>) -> bool {
        if !self.session.wants_upstream(turn.memory) {
            return false;
        }
        let Some(server) = &mut self.server else {
            return false;
        };
        match read(&mut server.stdout, scratch) {
            Some(Input::Bytes(count)) => self.session.upstream_sent(&scratch[..count], turn),
            Some(Input::End | Input::Broken(_)) => {
                server.stdout = None;
                self.session.upstream_output_ended(turn);
            }
            Some(Input::Blocked) | None => return false,
        }
        self.flush_client(turn);
        true
    }

    /// Returns whether more may be there.
    fn read_client(&mut self, scratch: &mut [u8], turn: &mut Turn<'_>) -> bool {
        if !self.session.wants_client() {
            return false;
        }
        match read(&mut self.client, scratch) {
            Some(Input::Bytes(count)) => self.session.client_sent(&scratch[..count], turn),
            Some(Input::End) => self.session.client_ended(turn),
            Some(Input::Broken(error)) => self.session.client_gone(&error.to_string(), turn),
            Some(Input::Blocked) | None => return false,
        }
        self.flush(turn);
        true
    }
}

/// Reads once, if something may be there.
fn read<S: Read>(endpoint: &mut Option<Endpoint<S>>, scratch: &mut [u8]) -> Option<Input> {
    endpoint
        .as_mut()
        .filter(|endpoint| endpoint.is_readable())
        .map(|endpoint| endpoint.read(scratch))
}
