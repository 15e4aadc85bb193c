//! Moves bytes between the two sides of a session and its state machine, within a budget.
//!
//! What a side is made of, one descriptor or several, is the business of whoever owns it.

#![allow(
    clippy::inline_always,
    reason = "most questions whether something can be moved are answered with no, and a call costs more than that"
)]

use std::io::{self, Read, Write};

use crate::buffers::budget::BufferBudget;
use crate::reactor::io::{Input, Io};
use crate::session::{Context, Event, Session};

/// What is read at once, in bytes: as much as a pipe holds by default (pipe(7)).
pub const READ_BYTES: usize = 64 * 1024;

/// What is read of each direction in one run, in bytes, whatever the bytes are: no line is so long that its sender is served
/// more than others. The read that reaches it may go beyond it.
const RUN_BYTES: usize = READS_PER_RUN * READ_BYTES;

/// What is read at once of a line that is longer than a usual read, in bytes: all that may be read in a run.
const LONG_READ_BYTES: usize = RUN_BYTES;

/// What a buffer to read to has to hold, in bytes.
pub const SCRATCH_BYTES: usize = LONG_READ_BYTES;

/// Reads of each direction in one run, so that a busy session does not delay the others: the second one finds what came
/// while the first was passed on.
pub const READS_PER_RUN: usize = 2;

/// One side of a session: what can be read from it, and written to it.
pub trait Transport {
    /// Whether a read may find something.
    fn is_readable(&self) -> bool;

    /// Reads once. Call it only if [`Self::is_readable`].
    fn read(&mut self, buffer: &mut [u8]) -> Input;

    /// Whether a write may take something.
    fn is_writable(&self) -> bool;

    /// Writes once. Returns how much was taken, which is nothing if there was no room.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// What may be read for it in one run of the other side, in bytes.
    fn run_bytes(&self) -> usize {
        RUN_BYTES
    }

    /// Writes one behind the other, at once if it can: fewer writes are fewer wake-ups at the other end.
    fn write_pair(&mut self, [first, second]: [&[u8]; 2]) -> io::Result<usize> {
        self.write(if first.is_empty() { second } else { first })
    }

    /// After a write has failed: takes what was written before and nobody has read, up to its end, if that can be told.
    fn take_unread(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// A connection, if there is one.
impl<S: Read + Write> Transport for Option<Io<S>> {
    fn is_readable(&self) -> bool {
        self.as_ref().is_some_and(Io::is_readable)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Input {
        self.as_mut().map_or(Input::Blocked, |io| io.read(buffer))
    }

    fn is_writable(&self) -> bool {
        self.as_ref().is_some_and(Io::is_writable)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.as_mut().map_or(Ok(0), |io| io.write(bytes))
    }
}

/// Begins a run, in which what can be moved now is moved between a session and its two sides, within a budget. `scratch` is
/// where bytes are read to. Returns whether there is more to be moved although no event will tell.
#[inline(always)]
pub fn pump(
    session: &mut Session,
    client: &mut impl Transport,
    upstream: &mut impl Transport,
    scratch: &mut [u8],
    cx: &mut Context<'_>,
) -> bool {
    session.begin_run(cx);
    pump_on(session, client, upstream, scratch, cx)
}

/// The same in a run that has begun.
///
/// It is a function of its own wherever it is used, so that it has the registers for what it moves.
#[inline(never)]
pub fn pump_on(
    session: &mut Session,
    client: &mut impl Transport,
    upstream: &mut impl Transport,
    scratch: &mut [u8],
    cx: &mut Context<'_>,
) -> bool {
    if session.has_output() {
        flush_upstream(session, upstream, cx);
        flush_client(session, client, cx);
    }
    let (mut from_upstream_left, mut from_client_left) = (RUN_BYTES, upstream.run_bytes());
    for _ in 0..READS_PER_RUN {
        let from_upstream = poll_upstream(session, upstream, scratch, &mut from_upstream_left, cx);
        if from_upstream {
            flush_client(session, client, cx);
            flush_upstream(session, upstream, cx);
        }
        let from_client = poll_client(session, client, scratch, &mut from_client_left, cx);
        if from_client {
            flush_upstream(session, upstream, cx);
            flush_client(session, client, cx);
        }
        // Most runs end here, after one read.
        let is_done = !upstream.is_readable() && !client.is_readable();
        if is_done || (!from_upstream && !from_client) {
            break;
        }
    }
    has_more(session, client, upstream, cx.memory)
}

/// Whether something can be moved now.
pub fn has_more(
    session: &Session,
    client: &impl Transport,
    upstream: &impl Transport,
    memory: &BufferBudget,
) -> bool {
    session.has_more_lines()
        || (client.is_readable() && session.wants_client_input())
        || (upstream.is_readable() && session.wants_upstream_output(memory))
        || (session.has_output()
            && ((client.is_writable() && session.has_output_for_client())
                || (upstream.is_writable() && session.has_output_for_upstream())))
}

#[inline(always)]
fn flush_client(session: &mut Session, client: &mut impl Transport, cx: &mut Context<'_>) {
    if session.has_output_for_client() && client.is_writable() {
        write_client(session, client, cx);
    }
}

#[inline(never)]
fn write_client(session: &mut Session, client: &mut impl Transport, cx: &mut Context<'_>) {
    match client.write(session.to_client()) {
        Ok(0) => {}
        Ok(count) => session.handle_client_written(count, cx),
        Err(error) => session.handle(Event::ClientFailed(&error), cx),
    }
}

#[inline(always)]
fn flush_upstream(session: &mut Session, upstream: &mut impl Transport, cx: &mut Context<'_>) {
    if session.has_output_for_upstream() && upstream.is_writable() {
        write_upstream(session, upstream, cx);
    }
}

#[inline(never)]
fn write_upstream(session: &mut Session, upstream: &mut impl Transport, cx: &mut Context<'_>) {
    match upstream.write(session.to_upstream()) {
        Ok(0) => {}
        Ok(count) => session.handle_upstream_written(count, cx),
        Err(_) => match upstream.take_unread() {
            Some(unread) => session.handle(Event::UpstreamLeftUnread(&unread), cx),
            None => session.handle(Event::UpstreamInputBroke, cx),
        },
    }
}

/// Reads from the upstream what is wanted, unless `left` bytes are none. Returns whether it has read anything, an end
/// included.
#[inline(always)]
fn poll_upstream(
    session: &mut Session,
    upstream: &mut impl Transport,
    scratch: &mut [u8],
    left: &mut usize,
    cx: &mut Context<'_>,
) -> bool {
    *left > 0
        && upstream.is_readable()
        && session.wants_upstream_output(cx.memory)
        && read_upstream(session, upstream, scratch, left, cx)
}

#[inline(never)]
fn read_upstream(
    session: &mut Session,
    upstream: &mut impl Transport,
    scratch: &mut [u8],
    left: &mut usize,
    cx: &mut Context<'_>,
) -> bool {
    let size = read_bytes(session.is_within_long_line_of_upstream());
    match upstream.read(&mut scratch[..size]) {
        Input::Bytes(count) => {
            *left = left.saturating_sub(count);
            session.handle_upstream_bytes(&scratch[..count], cx);
        }
        Input::End => session.handle(Event::UpstreamEof(None), cx),
        Input::Broken(error) => session.handle(Event::UpstreamEof(Some(&error)), cx),
        Input::Blocked => return false,
    }
    true
}

/// Reads from the client what is wanted, unless `left` bytes are none. Returns whether it has read anything, an end
/// included.
#[inline(always)]
fn poll_client(
    session: &mut Session,
    client: &mut impl Transport,
    scratch: &mut [u8],
    left: &mut usize,
    cx: &mut Context<'_>,
) -> bool {
    *left > 0
        && client.is_readable()
        && session.wants_client_input()
        && read_client(session, client, scratch, left, cx)
}

#[inline(never)]
fn read_client(
    session: &mut Session,
    client: &mut impl Transport,
    scratch: &mut [u8],
    left: &mut usize,
    cx: &mut Context<'_>,
) -> bool {
    let size = read_bytes(session.is_within_long_line_of_client());
    match client.read(&mut scratch[..size]) {
        Input::Bytes(count) => {
            *left = left.saturating_sub(count);
            session.handle_client_bytes(&scratch[..count], cx);
        }
        Input::End => session.handle(Event::ClientEof, cx),
        Input::Broken(error) => session.handle(Event::ClientFailed(&error), cx),
        Input::Blocked => return false,
    }
    true
}

/// How much is read at once, in bytes.
pub fn read_bytes(is_within_long_line: bool) -> usize {
    if is_within_long_line {
        LONG_READ_BYTES
    } else {
        READ_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::ErrorKind;
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::session::backlog::LINES_PER_RUN;
    use crate::session::counts::Counts;
    use crate::session::idle::IdleLimits;
    use crate::session::log_limits::LogLimits;
    use crate::session::records::Records;
    use crate::session::report::Label;
    use crate::session::stderr::ServerLogging;
    use crate::session::{Action, Backend, Settings, Spawn};
    use crate::util::time::Time;

    /// A side that says what it is scripted to, and takes as much at once as it is scripted to.
    #[derive(Default)]
    struct Side {
        says: VecDeque<io::Result<Vec<u8>>>,
        /// How large the buffers were.
        asked: Vec<usize>,
        takes: VecDeque<io::Result<usize>>,
        took: String,
    }

    impl Transport for Side {
        fn is_readable(&self) -> bool {
            !self.says.is_empty()
        }

        fn read(&mut self, buffer: &mut [u8]) -> Input {
            self.asked.push(buffer.len());
            match self.says.pop_front().expect("a read without need") {
                Ok(bytes) if bytes.is_empty() => Input::End,
                Ok(bytes) => {
                    buffer[..bytes.len()].copy_from_slice(&bytes);
                    Input::Bytes(bytes.len())
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => Input::Blocked,
                Err(error) => Input::Broken(error),
            }
        }

        fn is_writable(&self) -> bool {
            !self.takes.is_empty()
        }

        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            assert!(!bytes.is_empty(), "a write without need");
            let count = self.takes.pop_front().expect("a write without room")?;
            let count = count.min(bytes.len());
            self.took += std::str::from_utf8(&bytes[..count]).unwrap();
            Ok(count)
        }
    }

    /// A session whose server is up, between two sides.
    struct Between {
        session: Session,
        client: Side,
        server: Side,
        settings: Settings,
        memory: BufferBudget,
        logs: LogLimits,
        actions: Vec<Action>,
    }

    const LINE: &str = "{\"method\":\"m\"}\n";

    fn says(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    impl Between {
        fn new() -> Self {
            let settings = Settings {
                role: Backend::Process { max_restarts: 5 },
                heartbeat_interval: Duration::from_secs(30),
                restarts_upstream: true,
                max_message_bytes: 1_000_000,
                replays: true,
                replay_timeout: Duration::from_secs(30),
                stop_timeout: Duration::from_secs(30),
                spawn: Spawn::Eager,
                idle_limits: IdleLimits::default(),
                server_log: ServerLogging::Limited,
            };
            let (mut memory, mut actions) = (BufferBudget::new(1 << 20), Vec::new());
            let mut cx = Context {
                now: Time::from_nanos(1 << 40),
                settings: &settings,
                memory: &mut memory,
                logs: &mut LogLimits::default(),
                records: &mut Records::default(),
                counts: &mut Counts::default(),
                actions: &mut actions,
            };
            let label = Label::Session {
                number: 1,
                server: None,
                client: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
                pid: None,
            };
            let mut session = Session::open(label, &mut cx);
            session.handle(Event::UpstreamStarted { pid: Some(1) }, &mut cx);
            actions.clear();
            Self {
                session,
                client: Side::default(),
                server: Side::default(),
                settings,
                memory,
                logs: LogLimits::default(),
                actions,
            }
        }

        fn run(&mut self) -> bool {
            let mut cx = Context {
                now: Time::from_nanos(1 << 40),
                settings: &self.settings,
                memory: &mut self.memory,
                logs: &mut self.logs,
                records: &mut Records::default(),
                counts: &mut Counts::default(),
                actions: &mut self.actions,
            };
            let mut scratch = vec![0; SCRATCH_BYTES];
            let (client, server) = (&mut self.client, &mut self.server);
            pump(&mut self.session, client, server, &mut scratch, &mut cx)
        }

        fn has_more(&self) -> bool {
            has_more(&self.session, &self.client, &self.server, &self.memory)
        }
    }

    #[test]
    fn what_one_side_says_the_other_gets_in_the_same_run() {
        let mut between = Between::new();
        between.client.says.push_back(Ok(says(LINE)));
        between
            .server
            .says
            .push_back(Ok(says("{\"method\":\"s\"}\n")));
        between.client.takes.push_back(Ok(100));
        between.server.takes.push_back(Ok(100));
        assert!(!between.run());
        assert_eq!(between.client.took, "{\"method\":\"s\"}\n");
        assert_eq!(between.server.took, LINE);
        assert_eq!(between.client.asked, [READ_BYTES]);
    }

    #[test]
    fn a_run_has_a_budget_and_tells_that_there_is_more() {
        let mut between = Between::new();
        for _ in 0..=READS_PER_RUN {
            between.client.says.push_back(Ok(says(LINE)));
            between.server.takes.push_back(Ok(100));
        }
        assert!(between.run() && between.has_more());
        assert_eq!(between.server.took, LINE.repeat(READS_PER_RUN));
        assert!(!between.run() && !between.has_more());
        assert_eq!(between.server.took, LINE.repeat(READS_PER_RUN + 1));
    }

    #[test]
    fn short_lines_have_a_budget_of_their_own_on_either_side() {
        const LINES: usize = 3 * LINES_PER_RUN + 1;
        let mut between = Between::new();
        let flood = || says(&LINE.repeat(LINES));
        between.client.says.push_back(Ok(flood()));
        between.server.says.push_back(Ok(flood()));
        for run in 1..=4 {
            for side in [&mut between.client, &mut between.server] {
                side.takes.push_back(Ok(usize::MAX));
            }
            let has_more = between.run();
            assert_eq!(has_more, run < 4);
            let lines = LINES.min(run * LINES_PER_RUN);
            for side in [&between.client, &between.server] {
                assert_eq!(side.took, LINE.repeat(lines), "run {run}");
                assert_eq!(side.asked.len(), 1, "it is not read before that is handled");
            }
        }
        assert!(!between.has_more());
    }

    #[test]
    fn what_was_not_taken_is_written_when_there_is_room() {
        let mut between = Between::new();
        between.client.says.push_back(Ok(says(LINE)));
        between.server.takes.push_back(Ok(4));
        between.server.says.push_back(Ok(says(LINE)));
        assert!(!between.run(), "there is no room");
        assert_eq!(
            (between.server.took.as_str(), between.client.took.as_str()),
            (&LINE[..4], "")
        );
        between.server.takes.push_back(Ok(100));
        between.client.takes.push_back(Ok(100));
        assert!(between.has_more());
        assert!(!between.run());
        assert_eq!(
            (between.server.took.as_str(), between.client.took.as_str()),
            (LINE, LINE)
        );
    }

    #[test]
    fn more_room_on_either_side_is_more_to_do() {
        for is_client in [true, false] {
            let mut between = Between::new();
            between.client.says.push_back(Ok(says(LINE)));
            between.server.says.push_back(Ok(says(LINE)));
            between.run();
            assert!(!between.has_more());
            let side = if is_client {
                &mut between.client
            } else {
                &mut between.server
            };
            side.takes.push_back(Ok(1));
            assert!(between.has_more());
        }
    }

    #[test]
    fn a_side_that_is_not_wanted_is_not_read() {
        let mut between = Between::new();
        between.memory = BufferBudget::new(0);
        let long = format!("{{\"method\":\"{}\"}}\n", "x".repeat(60_000));
        for _ in 0..4 {
            between.client.says.push_back(Ok(says(&long)));
            between.server.says.push_back(Ok(says(&long)));
        }
        for _ in 0..3 {
            assert!(!between.run(), "as nobody takes anything");
        }
        assert_eq!(
            (between.client.says.len(), between.server.says.len()),
            (2, 2)
        );
    }

    #[test]
    fn a_long_line_is_read_in_larger_pieces() {
        let mut between = Between::new();
        for side in [&mut between.client, &mut between.server] {
            side.says.push_back(Ok(says(&"x".repeat(READ_BYTES))));
            side.says.push_back(Ok(says(&"x".repeat(LONG_READ_BYTES))));
        }
        between.run();
        assert_eq!(between.client.asked, [READ_BYTES, LONG_READ_BYTES]);
        assert_eq!(between.server.asked, [READ_BYTES, LONG_READ_BYTES]);
    }

    /// One that is skipped, one that is kept, and short ones.
    #[test]
    fn a_run_reads_no_more_of_a_long_line_than_of_short_ones() {
        for (max_message_bytes, is_long) in [(1000, true), (1 << 30, true), (1000, false)] {
            let mut between = Between::new();
            between.settings.max_message_bytes = max_message_bytes;
            let piece = if is_long {
                says(&"x".repeat(READ_BYTES))
            } else {
                // So many of them that their number is no bound.
                says(&(" ".repeat(511) + "\n").repeat(READ_BYTES / 512))
            };
            for _ in 0..64 {
                between.client.says.push_back(Ok(piece.clone()));
                between.server.says.push_back(Ok(piece.clone()));
            }
            for runs in 1..=32 {
                assert_eq!(between.run(), runs < 32);
                let left = 64 - runs * RUN_BYTES / READ_BYTES;
                let lens = (between.client.says.len(), between.server.says.len());
                assert_eq!(lens, (left, left), "{max_message_bytes}, {is_long}");
            }
        }
    }

    #[test]
    fn a_read_that_finds_nothing_ends_the_run() {
        let mut between = Between::new();
        for side in [&mut between.client, &mut between.server] {
            side.says.push_back(Err(ErrorKind::WouldBlock.into()));
            side.says.push_back(Ok(says(LINE)));
        }
        assert!(between.run());
        assert_eq!(
            (between.client.asked.len(), between.server.asked.len()),
            (1, 1)
        );
    }

    #[test]
    fn ends_and_errors_of_the_server_are_told() {
        for result in [Ok(says("")), Err(ErrorKind::ConnectionReset.into())] {
            let mut between = Between::new();
            between.server.says.push_back(result);
            between.run();
            assert!(!between.session.wants_upstream_output(&between.memory));
        }
        let mut between = Between::new();
        between
            .server
            .takes
            .push_back(Err(ErrorKind::BrokenPipe.into()));
        between.client.says.push_back(Ok(says(LINE)));
        between.run();
        assert!(
            between.session.to_upstream().is_empty(),
            "it waits for another"
        );
        assert!(between.session.waits_for_upstream());
    }

    #[test]
    fn ends_and_errors_of_the_client_are_told() {
        let mut between = Between::new();
        between.client.says.push_back(Ok(says("")));
        between.run();
        assert!(!between.session.wants_client_input());
        assert_eq!(between.actions, [Action::StopUpstream]);
        let mut between = Between::new();
        between
            .client
            .says
            .push_back(Err(ErrorKind::ConnectionReset.into()));
        between.run();
        assert!(between.actions.contains(&Action::CloseClient));
        let mut between = Between::new();
        between.server.says.push_back(Ok(says(LINE)));
        between
            .client
            .takes
            .push_back(Err(ErrorKind::BrokenPipe.into()));
        between.run();
        assert!(between.actions.contains(&Action::CloseClient));
    }

    #[test]
    fn a_connection_that_is_not_there_neither_reads_nor_writes() {
        let mut nothing: Option<Io<mio::net::TcpStream>> = None;
        assert!(!nothing.is_readable() && !nothing.is_writable());
        assert!(matches!(nothing.read(&mut [0; 4]), Input::Blocked));
        assert!(matches!(nothing.write(b"x"), Ok(0)));
    }
}
