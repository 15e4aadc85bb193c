//! The link to the proxy: not there, being made, up, or ended on our side and not yet on the other.
//!
//! ```text
//!           begin, with a name      addresses found
//!   Down ──────────────────────▶ Resolving ─────────▶ Connecting ◀─┐ next address
//!    ▲ └─────────────────────────────────────────────▶    │  └─────┘
//!    │          begin, with an address                    ▼ accepted, and shaken hands if it is TLS
//!    │◀────────────────────────────────────────────────── Up
//!    │                    lost                            │ our side has ended
//!    └──────────────────────────────────────────────── HalfClosed
//!                 the other side has ended too, or had the time to
//! ```
//!
//! Each state holds what it needs, its deadline too: a state that is left takes its deadline with it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::vec;

use mio::Token;

use super::Due;
use super::kept_run::Carrier;
use super::resolve::LookUp;
use crate::pump::Transport;
use crate::reactor::io::{Input, Io, Readiness};
use crate::reactor::timers::{Deadline, Timers, boot_time};
use crate::transport::connection::Connection;
use crate::util::time::Time;

/// The link to the proxy. `S` is a [`Connection`], except in tests.
#[derive(Debug, Default)]
pub(super) enum Link<S = Connection> {
    /// There is none.
    #[default]
    Down,
    /// The name is being looked up.
    Resolving {
        look_up: LookUp,
        /// [`Due::Connect`]
        deadline: Deadline,
    },
    /// One of the addresses is being tried.
    Connecting {
        io: Io<S>,
        attempt: Attempt,
        /// Whether an event has told that the address accepted or refused, or that the handshake can go on.
        has_answer: bool,
    },
    /// It carries lines.
    Up { io: Io<S> },
    /// Our side has ended. The other side may still say something, and then ends its own.
    HalfClosed {
        io: Io<S>,
        /// [`Due::Close`]
        deadline: Deadline,
    },
}

/// What is left of an attempt to connect.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The addresses that have not been tried.
    pub(super) addresses: vec::IntoIter<SocketAddr>,
    /// [`Due::Connect`]
    pub(super) deadline: Deadline,
}

impl<S> Link<S> {
    /// Begins to look up a name.
    pub(super) fn resolve(&mut self, look_up: LookUp, deadline: Deadline) {
        debug_assert!(matches!(self, Self::Down));
        *self = Self::Resolving { look_up, deadline };
    }

    /// Begins to try an address.
    pub(super) fn connect(&mut self, io: Io<S>, attempt: Attempt) {
        debug_assert!(matches!(self, Self::Down));
        *self = Self::Connecting {
            io,
            attempt,
            has_answer: false,
        };
    }

    /// Whether a connection is being made.
    pub(super) fn is_attempt(&self) -> bool {
        matches!(self, Self::Resolving { .. } | Self::Connecting { .. })
    }

    /// The look-up is over: what is to be tried now is the caller's to add.
    pub(super) fn end_look_up(&mut self) -> Option<Deadline> {
        match std::mem::take(self) {
            Self::Resolving { deadline, .. } => Some(deadline),
            other => {
                *self = other;
                None
            }
        }
    }

    /// The address that was tried failed. What is left of the attempt goes on with the next one.
    pub(super) fn give_up_address(&mut self) -> Option<Attempt> {
        match std::mem::take(self) {
            Self::Connecting { attempt, .. } => Some(attempt),
            other => {
                *self = other;
                None
            }
        }
    }

    /// The connection can be used.
    pub(super) fn accepted(&mut self, timers: &mut Timers<Due>) {
        *self = match std::mem::take(self) {
            Self::Connecting {
                io, mut attempt, ..
            } => {
                attempt.deadline.clear(timers);
                Self::Up { io }
            }
            other => other,
        };
    }

    /// Our side has ended; the other one has until `at` to end too.
    pub(super) fn half_close(&mut self, at: Time, timers: &mut Timers<Due>) {
        *self = match std::mem::take(self) {
            Self::Up { io } => {
                let mut deadline = Deadline::default();
                deadline.set(Some(at), Due::Close, timers);
                Self::HalfClosed { io, deadline }
            }
            other => other,
        };
    }

    /// The other side gets until `at`, as it is not the one that is slow.
    pub(super) fn extend_close(&mut self, at: Time, timers: &mut Timers<Due>) {
        if let Self::HalfClosed { deadline, .. } = self {
            deadline.set(Some(at), Due::Close, timers);
        }
    }

    /// The deadline of this state was taken from the timers.
    pub(super) fn deadline_fired(&mut self) {
        if let Some(deadline) = self.deadline() {
            deadline.fired();
        }
    }

    /// Lets go of everything. A look-up that is under way is killed.
    pub(super) fn bring_down(&mut self, timers: &mut Timers<Due>) {
        if let Some(deadline) = self.deadline() {
            deadline.clear(timers);
        }
        *self = Self::Down;
    }

    fn deadline(&mut self) -> Option<&mut Deadline> {
        match self {
            Self::Resolving { deadline, .. } | Self::HalfClosed { deadline, .. } => Some(deadline),
            Self::Connecting { attempt, .. } => Some(&mut attempt.deadline),
            Self::Down | Self::Up { .. } => None,
        }
    }

    /// Latches what an event says. Returns whether the session can do something about it.
    pub(super) fn latch(&mut self, token: Token, readiness: Readiness) -> bool {
        match self {
            Self::Down => false,
            Self::Resolving { look_up, .. } => {
                look_up.latch(token, readiness);
                false
            }
            Self::Connecting { io, has_answer, .. } => {
                *has_answer |= io.latch(token, readiness);
                false
            }
            Self::Up { io } | Self::HalfClosed { io, .. } => io.latch(token, readiness),
        }
    }

    /// The connection, once it carries lines.
    pub(super) fn io(&self) -> Option<&Io<S>> {
        match self {
            Self::Up { io } | Self::HalfClosed { io, .. } => Some(io),
            Self::Down | Self::Resolving { .. } | Self::Connecting { .. } => None,
        }
    }

    pub(super) fn io_mut(&mut self) -> Option<&mut Io<S>> {
        match self {
            Self::Up { io } | Self::HalfClosed { io, .. } => Some(io),
            Self::Down | Self::Resolving { .. } | Self::Connecting { .. } => None,
        }
    }
}

impl Carrier for Link {
    fn is_half_closed(&self) -> bool {
        matches!(self, Self::HalfClosed { .. })
    }

    fn end(&mut self) {
        if let Some(io) = self.io_mut() {
            io.source_mut().end();
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.io_mut() {
            Some(io) if io.source().unsent() > 0 && io.is_writable() => io.flush(),
            _ => Ok(()),
        }
    }

    fn note_held_input(&mut self) -> bool {
        let io = self.io_mut().filter(|io| io.source().holds_input());
        io.map(Io::note_readable).is_some()
    }

    fn boot_time(&self) -> Time {
        boot_time()
    }
}

impl<S: Read + Write> Transport for Link<S> {
    fn is_readable(&self) -> bool {
        self.io().is_some_and(Io::is_readable)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.io_mut().map_or(Input::Blocked, |io| io.read(buffer))
    }

    fn is_writable(&self) -> bool {
        self.io().is_some_and(Io::is_writable)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.io_mut().map_or(Ok(0), |io| io.write(bytes))
    }

    fn write_pair(&mut self, pieces: [&[u8]; 2]) -> io::Result<usize> {
        self.io_mut().map_or(Ok(0), |io| io.write_pair(pieces))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::Interest;

    use super::*;

    const BEGIN: Time = Time::from_nanos(1 << 40);
    const TOKEN: Token = Token(5);

    fn io() -> Io<()> {
        Io::new((), TOKEN, Interest::READABLE | Interest::WRITABLE)
    }

    fn timers() -> Timers<Due> {
        Timers::new(BEGIN)
    }

    fn in_seconds(seconds: u64) -> Time {
        BEGIN + Duration::from_secs(seconds)
    }

    fn attempt(ports: &[u16], timers: &mut Timers<Due>) -> Attempt {
        let addresses = ports.iter().map(|port| ([127, 0, 0, 1], *port).into());
        let addresses: Vec<SocketAddr> = addresses.collect();
        let mut deadline = Deadline::default();
        deadline.set(Some(in_seconds(3)), Due::Connect, timers);
        Attempt {
            addresses: addresses.into_iter(),
            deadline,
        }
    }

    fn connecting(ports: &[u16], timers: &mut Timers<Due>) -> Link<()> {
        let mut link = Link::Down;
        link.connect(io(), attempt(ports, timers));
        link
    }

    fn up(timers: &mut Timers<Due>) -> Link<()> {
        let mut link = connecting(&[], timers);
        link.accepted(timers);
        link
    }

    #[test]
    fn an_attempt_has_one_deadline_for_all_addresses_and_success_ends_it() {
        let mut timers = timers();
        let mut link = connecting(&[2, 3], &mut timers);
        for port in [2, 3] {
            let mut attempt = link.give_up_address().unwrap();
            assert!(matches!(link, Link::Down));
            assert_eq!(attempt.addresses.next().unwrap().port(), port);
            assert_eq!(attempt.deadline.at(), Some(in_seconds(3)));
            link.connect(io(), attempt);
            assert!(link.is_attempt() && link.io().is_none());
        }
        assert_eq!(timers.len(), 1);
        link.accepted(&mut timers);
        assert!(matches!(link, Link::Up { .. }) && !link.is_attempt());
        assert!(timers.is_empty());
        assert!(link.give_up_address().is_none() && matches!(link, Link::Up { .. }));
    }

    #[test]
    fn an_event_about_a_connection_that_is_being_made_is_not_for_the_session() {
        let mut timers = timers();
        let mut link = connecting(&[], &mut timers);
        assert!(!link.latch(Token(9), Readiness::WRITABLE));
        assert!(matches!(
            link,
            Link::Connecting {
                has_answer: false,
                ..
            }
        ));
        assert!(!link.latch(TOKEN, Readiness::WRITABLE));
        assert!(matches!(
            link,
            Link::Connecting {
                has_answer: true,
                ..
            }
        ));
        link.accepted(&mut timers);
        assert!(link.latch(TOKEN, Readiness::READABLE));
        assert!(!link.latch(Token(9), Readiness::READABLE));
        link.half_close(in_seconds(10), &mut timers);
        assert!(link.latch(TOKEN, Readiness::READ_CLOSED));
        assert!(link.io().unwrap().is_read_closed());
        link.bring_down(&mut timers);
        assert!(!link.latch(TOKEN, Readiness::READABLE));
    }

    #[test]
    fn only_what_is_up_is_half_closed_and_only_once() {
        let mut timers = timers();
        let mut link = connecting(&[], &mut timers);
        link.half_close(in_seconds(10), &mut timers);
        assert!(matches!(link, Link::Connecting { .. }));
        let mut timers = self::timers();
        let mut link = up(&mut timers);
        for at in [10, 20] {
            link.half_close(in_seconds(at), &mut timers);
            assert!(matches!(&link, Link::HalfClosed { deadline, .. }
                if deadline.at() == Some(in_seconds(10))));
        }
        assert_eq!(timers.len(), 1);
    }

    #[test]
    fn the_time_to_close_can_begin_anew() {
        let mut timers = timers();
        let mut link = up(&mut timers);
        link.half_close(in_seconds(10), &mut timers);
        timers.advance(in_seconds(10));
        assert_eq!(timers.pop(), Some(Due::Close));
        link.deadline_fired();
        link.extend_close(in_seconds(20), &mut timers);
        assert_eq!((timers.pop(), timers.len()), (None, 1));
        link.bring_down(&mut timers);
        assert!(matches!(link, Link::Down) && timers.is_empty());
    }

    #[test]
    fn whatever_is_brought_down_leaves_no_deadline() {
        let mut timers = timers();
        for mut link in [
            Link::Down,
            connecting(&[1], &mut timers),
            up(&mut timers),
            {
                let mut link = up(&mut timers);
                link.half_close(in_seconds(1), &mut timers);
                link
            },
        ] {
            link.bring_down(&mut timers);
            assert!(matches!(link, Link::Down));
        }
        assert!(timers.is_empty());
    }
}
