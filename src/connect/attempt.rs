//! An attempt to connect: the look-up of the name, then one address after the other.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;

use log::debug;
use mio::Interest;
use nix::errno::Errno;

use super::link::{Attempt, Link};
use super::resolve::{Outcome, literal};
use super::{Channel, Connector, Due};
use crate::protocol::own_messages::ErrorReason;
use crate::reactor::io::Io;
use crate::reactor::timers::Deadline;
use crate::reactor::token::Target;
use crate::session::{Backend, Event};
use crate::transport::address::Address;
use crate::transport::connection::Connection;
use crate::transport::socket::Socket;

/// Why there is no connection.
pub(super) struct Failure {
    pub(super) words: String,
    /// What a request is told, if another attempt would come to the same.
    pub(super) refusal: Option<ErrorReason>,
}

impl Failure {
    /// Another attempt may do better.
    pub(super) fn of(words: &dyn Display) -> Self {
        Self {
            words: words.to_string(),
            refusal: None,
        }
    }
}

impl Connector {
    /// Begins to connect. All of it, from the look-up to the last address, has one deadline.
    pub(super) fn connect(&mut self) {
        self.renew_token();
        let timers = &mut self.reactor.timers;
        let mut deadline = Deadline::default();
        let at = timers.now() + self.connect_timeout;
        deadline.set(Some(at), Due::Connect, timers);
        let (host, port) = match &self.address {
            Address::Tcp { host, port } => (host, *port),
            Address::Unix(path) => {
                debug!("connecting to {}", self.address);
                let socket = Socket::connect_unix(path);
                return self.try_unix_socket(socket, deadline);
            }
        };
        if let Some(address) = literal(host, port) {
            return self.try_addresses(vec![address], deadline);
        }
        match self.resolver.start(host, port, &mut self.reactor) {
            Ok(look_up) => self.sides.link.resolve(look_up, deadline),
            Err(error) => {
                deadline.clear(&mut self.reactor.timers);
                self.connect_failed(&error);
            }
        }
    }

    /// A token that was replaced in its file is good from the next attempt on.
    fn renew_token(&mut self) {
        if let Some(token) = self.token_source.read_again()
            && let Backend::Proxy { token: shown, .. } = &mut self.scheduler.settings_mut().role
        {
            *shown = Some(token);
        }
    }

    /// Goes on with an attempt to connect, if something was heard of it.
    pub(super) fn advance_attempt(&mut self) {
        // A signal may just have come.
        self.drop_unwanted_attempt();
        match &mut self.sides.link {
            Link::Resolving { look_up, .. } => {
                if let Some(outcome) = look_up.read() {
                    self.resolved(outcome);
                }
            }
            Link::Connecting { has_answer, .. } => {
                if std::mem::take(has_answer) {
                    self.check_connection();
                }
            }
            Link::Down | Link::Up { .. } | Link::HalfClosed { .. } => {}
        }
    }

    fn resolved(&mut self, outcome: Outcome) {
        let Some(mut deadline) = self.sides.link.end_look_up() else {
            return;
        };
        match outcome {
            Ok(addresses) => self.try_addresses(addresses, deadline),
            Err(reason) => {
                deadline.clear(&mut self.reactor.timers);
                self.connect_failed(&reason);
            }
        }
    }

    fn try_addresses(&mut self, mut addresses: Vec<SocketAddr>, mut deadline: Deadline) {
        let first = addresses.first().copied();
        if self.tls.is_none() {
            addresses.retain(|address| self.token_source.may_go_to(*address));
        }
        if let Some(refused) = first.filter(|_| addresses.is_empty()) {
            deadline.clear(&mut self.reactor.timers);
            return self.keep_token_from(refused);
        }
        let addresses = addresses.into_iter();
        let attempt = Attempt {
            addresses,
            deadline,
        };
        self.try_next_address(attempt, Failure::of(&"the name has no address"));
    }

    /// No further attempt would be any better.
    fn keep_token_from(&mut self, address: SocketAddr) {
        self.forget_kept();
        let why = format!(
            "the token would pass to {address} in plain text, where others can read it (a tunnel to a loopback address keeps \
             it secret; --insecure-token sends it all the same)"
        );
        self.tell(Event::UpstreamDenied(&why));
    }

    /// Tries the next address; without one the attempt has failed, for the reason that the last one failed.
    fn try_next_address(&mut self, mut attempt: Attempt, mut failure: Failure) {
        while let Some(address) = attempt.addresses.next() {
            debug!("connecting to {address}");
            let socket = Socket::connect(address);
            match socket.and_then(|socket| self.watch(socket)) {
                Ok(connection) => return self.sides.link.connect(connection, attempt),
                Err(error) => failure = Failure::of(&error),
            }
        }
        attempt.deadline.clear(&mut self.reactor.timers);
        match failure.refusal.filter(|_| !self.sides.is_lost()) {
            None => self.connect_failed(&failure.words),
            Some(reason) => self.tell(Event::UpstreamRefused {
                reason,
                words: &failure.words,
            }),
        }
    }

    fn try_unix_socket(&mut self, socket: io::Result<Socket>, mut deadline: Deadline) {
        match socket.and_then(|socket| self.watch(socket)) {
            Ok(connection) => {
                let attempt = Attempt {
                    addresses: Vec::new().into_iter(),
                    deadline,
                };
                self.sides.link.connect(connection, attempt);
            }
            Err(error) => {
                deadline.clear(&mut self.reactor.timers);
                self.connect_failed(&about_unix_socket(&error));
            }
        }
    }

    /// Sets a connection up, of which events tell from now on.
    pub(super) fn watch(&mut self, socket: Socket) -> io::Result<Io<Connection>> {
        socket.configure()?;
        let target = Target {
            key: 0,
            channel: Channel::Upstream,
        };
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        self.reactor
            .register(Connection::from(socket), target, interest)
    }

    /// Checks what became of an attempt (connect(2), EINPROGRESS).
    fn check_connection(&mut self) {
        let Link::Connecting { io, .. } = &self.sides.link else {
            return;
        };
        if io.source().is_tls() {
            return self.go_on_with_handshake();
        }
        match io.source().socket().is_connected() {
            Ok(true) if self.tls.is_some() => self.begin_handshake(),
            Ok(true) => self.link_is_up(),
            Ok(false) => {}
            Err(error) => self.address_failed(Failure::of(&error)),
        }
    }

    pub(super) fn link_is_up(&mut self) {
        self.sides.link.accepted(&mut self.reactor.timers);
        if self.sides.is_lost() {
            return self.ask_again();
        }
        self.ask();
        self.tell(Event::UpstreamStarted { pid: None });
    }

    pub(super) fn address_failed(&mut self, failure: Failure) {
        if let Some(attempt) = self.sides.link.give_up_address() {
            self.try_next_address(attempt, failure);
        }
    }

    /// The time for an attempt is over, wherever it is.
    pub(super) fn attempt_overdue(&mut self) {
        // A deadline of the session may just have come, too.
        self.drop_unwanted_attempt();
        let what = match self.sides.link {
            Link::Resolving { .. } => "the name was not resolved",
            Link::Connecting { ref io, .. } if io.source().is_tls() => {
                "the TLS handshake was not done"
            }
            Link::Connecting { .. } => "no answer",
            Link::Down | Link::Up { .. } | Link::HalfClosed { .. } => return,
        };
        self.sides.link.deadline_fired();
        self.sides.link.bring_down(&mut self.reactor.timers);
        let timeout = self.connect_timeout.as_secs_f64();
        self.connect_failed(&format!("{what} within {timeout} s (--connect-timeout)"));
    }

    fn connect_failed(&mut self, reason: &dyn Display) {
        if self.sides.is_lost() {
            debug!("not resumed yet: {reason}");
            return self.try_again();
        }
        self.tell(Event::UpstreamFailed(&reason.to_string()));
    }

    /// Nobody is told what becomes of an attempt that the session has no use for any more.
    pub(super) fn drop_unwanted_attempt(&mut self) {
        if self.sides.link.is_attempt() && !self.wants_start() && !self.sides.is_lost() {
            self.sides.link.bring_down(&mut self.reactor.timers);
        }
    }
}

/// Why there is no connection, and what to do about it.
pub(crate) fn about_unix_socket(error: &io::Error) -> String {
    let advice = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => "no proxy listens there, or it listens elsewhere",
        Some(Errno::ECONNREFUSED) => "nobody listens there any more",
        Some(Errno::EACCES) => "the proxy's --unix-mode says who may connect",
        Some(Errno::EAGAIN) => "the proxy does not take its connections",
        _ => return error.to_string(),
    };
    format!("{advice} ({error})")
}
