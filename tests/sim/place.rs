//! One session of the simulated loop, between its transports: what `Connection` is in the proxy.

use std::io::{Error, ErrorKind};

use mcp_tcp_proxy::pump::{READS_PER_RUN, has_more, pump};
use mcp_tcp_proxy::reactor::io::Input;
use mcp_tcp_proxy::reactor::timers::Deadline;
use mcp_tcp_proxy::session::report::Exit;
use mcp_tcp_proxy::session::{Context, Event, Session};

use crate::client::Client;
use crate::journal::{Heard, Journal};
use crate::server::{Kind, Server};
use crate::transport::{Begun, Duplex, End, Pipes};
use crate::unused::Activity;
use mcp_tcp_proxy::util::time::Time;

/// How a client's connection came to its end, as the world has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Open,
    /// The session has ended its side.
    ShutDown,
    Closed,
}

#[derive(Debug)]
pub struct Place {
    pub number: u64,
    pub kind: Kind,
    pub session: Session,
    pub socket: Duplex,
    pub client: Client,
    pub journal: Journal,
    /// The server in use, by its key.
    pub server: Option<usize>,
    /// An attempt to connect, by the key of what may become the server.
    pub connecting: Option<usize>,
    /// The server was reaped, and the session has not been told.
    pub exit: Option<Exit>,
    pub deadline: Deadline,
    pub queued: bool,
    pub fate: Route,
    /// The connection broke, or was seen to be broken.
    pub broke: bool,
    /// What the session has to answer for.
    pub heard: Heard,
    pub heard_before_turn: Heard,
    /// When either side last took something.
    pub last_taken: Time,
    pub activity: Activity,
    /// There was no place for it.
    pub is_refused: bool,
}

impl Place {
    /// Does what can be done now, as `Connection::run` does it.
    pub fn run(
        &mut self,
        mut server: Option<&mut Server>,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) {
        let taken = self.taken(server.as_deref());
        if let Some(server) = server.as_deref_mut() {
            self.read_stderr(server, scratch, cx);
        }
        if let Some(exit) = self.exit.take() {
            self.session.handle(Event::UpstreamExited(exit), cx);
        }
        self.notice_failures(server.as_deref_mut(), cx);
        let mut pipes = Pipes(server.as_deref_mut().map(|server| &mut server.pipes));
        pump(&mut self.session, &mut self.socket, &mut pipes, scratch, cx);
        if self.taken(server.as_deref()) != taken {
            self.last_taken = cx.now;
        }
        self.note_lines(server, cx.now);
    }

    pub fn is_ready(&mut self, server: Option<&mut Server>, cx: &Context<'_>) -> bool {
        let stderr = server
            .as_ref()
            .is_some_and(|server| server.kind == Kind::Process && server.stderr.is_readable());
        let pipes = Pipes(server.map(|server| &mut server.pipes));
        stderr || has_more(&self.session, &self.socket, &pipes, cx.memory)
    }

    fn taken(&self, server: Option<&Server>) -> (u64, u64) {
        (
            self.socket.output.taken,
            server.map_or(0, |server| server.pipes.output.taken),
        )
    }

    fn read_stderr(&mut self, server: &mut Server, scratch: &mut [u8], cx: &mut Context<'_>) {
        for _ in 0..READS_PER_RUN {
            if !server.stderr.is_readable() {
                return;
            }
            match server.stderr.read(scratch) {
                Input::Bytes(count) => self
                    .session
                    .handle(Event::UpstreamStderr(&scratch[..count]), cx),
                Input::End | Input::Broken(_) | Input::Blocked => return,
            }
        }
    }

    fn notice_failures(&mut self, server: Option<&mut Server>, cx: &mut Context<'_>) {
        if self.socket.reads && self.socket.input.end_told {
            self.session.handle(Event::ClientHup, cx);
            if self.socket.input.end == Some(End::Reset) {
                self.broke = true;
                self.session.handle(
                    Event::ClientFailed(&Error::from(ErrorKind::ConnectionReset)),
                    cx,
                );
            }
        }
        if let Some(server) = server.filter(|server| server.kind == Kind::Process)
            && server.pipes.writes
            && server.pipes.output.broken_told
        {
            server.pipes.writes = false;
            self.session.handle(Event::UpstreamInputBroke, cx);
        }
    }

    /// Looks at the lines that have begun in this turn, and lets the programs expect them.
    fn note_lines(&mut self, mut server: Option<&mut Server>, now: Time) {
        if let Some(server) = &mut server {
            for line in std::mem::take(&mut server.pipes.output.begun) {
                let received = self.journal.sent_to_server(server.index, &line.text);
                crate::trace::note(|| {
                    format!(
                        "{}: server {} gets {}",
                        self.number,
                        server.index,
                        crate::text::show(&line.text)
                    )
                });
                server.expect(line.end, received);
            }
        }
        let begun = std::mem::take(&mut self.socket.output.begun);
        self.note_activity(server.as_deref(), &begun, now);
        for line in begun {
            crate::trace::note(|| {
                format!(
                    "{}: the client gets {}",
                    self.number,
                    crate::text::show(&line.text)
                )
            });
            let comes = self.journal.sent_to_client(&line.text);
            self.client.expect(line.end, comes);
        }
    }

    fn note_activity(&mut self, server: Option<&Server>, begun: &[Begun], now: Time) {
        if self.fate == Route::Open {
            self.heard = Heard {
                bytes: self.socket.input.read,
                end: self.socket.input.end_read,
            };
        }
        let (read, written) = server.map_or((0, 0), |server| {
            (server.pipes.input.read, server.pipes.output.taken)
        });
        let (client_read, client_written) = (self.socket.input.read, self.socket.output.taken);
        let messages = self.journal.hear(self.heard);
        let is_message = |line: &&Begun| !line.text.starts_with(br#"{"type":"heartbeat_response""#);
        self.activity.note(
            now,
            [client_read, client_written, read, written],
            messages,
            begun.len(),
            begun.iter().filter(is_message).count(),
        );
    }
}
