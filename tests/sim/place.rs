//! One session as the world sees it: its client, what was said in it, and the server that it uses.

use std::time::Duration;

use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::util::time::Time;

use crate::client::Client;
use crate::journal::{Heard, Journal};
use crate::server::{Kind, Server};
use crate::transport::{Begun, Duplex, Events, Shared};
use crate::unused::Activity;

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
    /// The session, once the connection was accepted.
    pub key: Option<SessionKey>,
    pub socket: Shared<Duplex>,
    pub client: Client,
    pub journal: Journal,
    /// The server in use, by its key.
    pub server: Option<usize>,
    /// One that is tried, and may take its place.
    pub successor: Option<usize>,
    /// An attempt to connect, by the key of what may become the server.
    pub connecting: Option<usize>,
    pub fate: Route,
    /// What the session has to answer for.
    pub heard: Heard,
    pub heard_before_turn: Heard,
    /// What both sides had taken.
    taken: (u64, u64),
    /// When either side last took something.
    pub last_taken: Time,
    /// What the client had taken, and when it last took something.
    consumed: u64,
    pub last_consumed: Time,
    pub activity: Activity,
    /// Whether both sides were at a standstill, since as much waited for the client as may otherwise.
    pub was_stuck: bool,
    /// When the client vanished.
    pub vanished_at: Option<Time>,
    /// A server was asked for, and there was neither one nor an error since.
    pub asks: bool,
    /// When it last got one, or an error.
    pub started: Option<Time>,
    /// The last server was given back, and the next one needs no pause.
    pub may_start_at_once: bool,
    /// The last server was to go so that another one can take its place.
    pub is_replaced_at_once: bool,
    /// What versions its servers were of.
    pub versions: Vec<usize>,
    /// There was no place for it.
    pub is_refused: bool,
    /// It spoke at once, and has what is asked for.
    pub must_get_in: bool,
    /// It has the token of somebody who may not be known for ever, and was in when he was known no longer.
    pub is_ben: bool,
    pub is_revoked: bool,
    /// Its time was over with something left to deliver.
    pub is_cut_off: bool,
}

impl Place {
    pub fn new(
        number: u64,
        kind: Kind,
        socket: Shared<Duplex>,
        client: Client,
        journal: Journal,
        now: Time,
    ) -> Self {
        let nothing = Heard {
            bytes: 0,
            end: false,
        };
        Self {
            number,
            kind,
            key: None,
            socket,
            client,
            journal,
            server: None,
            successor: None,
            connecting: None,
            fate: Route::Open,
            heard: nothing,
            heard_before_turn: nothing,
            taken: (0, 0),
            last_taken: now,
            consumed: 0,
            last_consumed: now,
            activity: Activity::new(now),
            was_stuck: false,
            vanished_at: None,
            asks: false,
            started: None,
            may_start_at_once: false,
            is_replaced_at_once: false,
            versions: Vec::new(),
            is_refused: false,
            must_get_in: false,
            is_ben: false,
            is_revoked: false,
            is_cut_off: false,
        }
    }

    /// Events tell of whatever has happened at its client: those for sessions of processes, or of connections.
    pub fn notify(&self, (for_processes, for_connections): (&mut Events, &mut Events)) {
        let events = self.kind.choose(for_processes, for_connections);
        self.socket.borrow_mut().notify(events);
    }

    pub fn start_failed(&mut self, now: Time) {
        self.journal.spawn_failures += 1;
        self.start_ended(now);
    }

    /// A start has come to its end.
    pub fn start_ended(&mut self, now: Time) {
        self.asks = false;
        (self.may_start_at_once, self.is_replaced_at_once) = (false, false);
        self.started = Some(now);
    }

    /// Looks at what has passed since the last look, and lets the programs expect the lines that have begun.
    pub fn note(&mut self, mut server: Option<&mut Server>, now: Time) {
        let of_server = server
            .as_ref()
            .map_or(0, |it| it.pipes.borrow().output.taken);
        let taken = (self.socket.borrow().output.taken, of_server);
        let before = std::mem::replace(&mut self.taken, taken);
        let consumed = self.socket.borrow().output.consumed;
        if consumed > std::mem::replace(&mut self.consumed, consumed) {
            self.last_consumed = now;
        }
        // Another server begins to count anew.
        if taken.0 > before.0 || taken.1 > before.1 {
            self.last_taken = now;
        }
        if let Some(server) = &mut server {
            self.note_sent(server);
            let unread_from = server.pipes.borrow().output.unread_from;
            self.journal.left_unread(server.index, unread_from);
        }
        let begun = std::mem::take(&mut self.socket.borrow_mut().output.begun);
        self.note_activity(server.as_deref(), &begun, now);
        for line in begun {
            self.client.gets_heartbeats |= is_heartbeat(&line) && self.kind == Kind::Process;
            crate::trace::note(|| {
                let text = crate::text::show(&line.text);
                format!("{}: the client gets {text}", self.number)
            });
            let comes = self.journal.sent_to_client(&line.text);
            self.client.expect(line.end, comes);
        }
    }

    /// Lets a server expect the lines that have begun to go there.
    pub fn note_sent(&mut self, server: &mut Server) {
        let begun = std::mem::take(&mut server.pipes.borrow_mut().output.begun);
        for line in begun {
            let journal = &mut self.journal;
            let received = journal.sent_to_server(server.index, &line.text, line.end);
            crate::trace::note(|| {
                let text = crate::text::show(&line.text);
                format!("{}: server {} gets {text}", self.number, server.index)
            });
            server.expect(line.end, received);
        }
    }

    /// Whether the system knows that the client has vanished: it has owed acknowledgements for longer than this.
    pub fn is_silent_for(&self, time: Duration, now: Time) -> bool {
        let socket = self.socket.borrow();
        let owes = socket.output.taken > socket.output.consumed;
        owes && self.vanished_at.is_some_and(|at| at + time < now)
    }

    fn note_activity(&mut self, server: Option<&Server>, begun: &[Begun], now: Time) {
        let socket = self.socket.borrow();
        if self.fate == Route::Open {
            self.heard = Heard {
                bytes: socket.input.read,
                end: socket.input.end_read,
            };
        }
        let (read, written) = server.map_or((0, 0), |server| {
            let pipes = server.pipes.borrow();
            (pipes.input.read, pipes.output.taken)
        });
        let (client_read, client_written) = (socket.input.read, socket.output.taken);
        let messages = self.journal.hear(self.heard);
        self.activity.note(
            now,
            [client_read, client_written, read, written],
            messages,
            begun.len(),
            begun.iter().filter(|line| !is_heartbeat(line)).count(),
        );
    }
}

fn is_heartbeat(line: &Begun) -> bool {
    line.text.starts_with(br#"{"type":"heartbeat_response""#)
}
