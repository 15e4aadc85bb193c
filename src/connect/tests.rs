//! The deadlines of the loop, with its clock put forward.

use std::io::{PipeReader, PipeWriter, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, fcntl};

use super::end::CLOSE_TIME;
use super::link::Attempt;
use super::*;
use crate::pump::Transport;
use crate::reactor::stdio::Direction;
use crate::session::backlog::LINES_PER_RUN;
use crate::transport::address::Address;
use crate::transport::socket::Socket;
use crate::util::time::Time;

/// The smallest pipe that there is (fcntl(2), `F_SETPIPE_SZ`).
const STDOUT_BYTES: i32 = 4096;

/// Room for what the host says at once.
const STDIN_BYTES: i32 = 1024 * 1024;

/// Much more than stdout holds, but not so much that the proxy is not read any more.
const LINE_BYTES: usize = 40 * 1024;

/// A loop with pipes, connected to a proxy that the test plays.
struct Loop {
    connector: Connector,
    events: Events,
    proxy: TcpStream,
    stdin: Option<PipeWriter>,
    _stdout: PipeReader,
}

impl Loop {
    fn connected() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (input, stdin) = std::io::pipe().unwrap();
        let (stdout, output) = std::io::pipe().unwrap();
        fcntl(&output, FcntlArg::F_SETPIPE_SZ(STDOUT_BYTES)).unwrap();
        let options = ConnectOptions {
            address: Address::Tcp {
                host: address.ip().to_string(),
                port: address.port(),
            },
            ..ConnectOptions::default()
        };
        let input = Stdio::open(input.as_fd(), Direction::In);
        let output = Stdio::open(output.as_fd(), Direction::Out);
        let mut connector = Connector::new(options, input, output).unwrap();
        connector.apply_actions();
        let mut all = Self {
            proxy: listener.accept().unwrap().0,
            connector,
            events: Events::with_capacity(EVENTS_PER_WAIT),
            stdin: Some(stdin),
            _stdout: stdout,
        };
        all.turn_until(|connector| matches!(connector.sides.link, Link::Up { .. }));
        all
    }

    /// Each turn waits for an event, or for a deadline.
    fn turn_until(&mut self, condition: impl Fn(&Connector) -> bool) {
        while !condition(&self.connector) {
            self.connector.turn(&mut self.events).unwrap();
        }
    }

    /// The proxy says more than stdout takes.
    fn fill_stdout(&mut self) {
        let line = format!("{{\"method\":\"{}\"}}\n", "x".repeat(LINE_BYTES));
        self.proxy.write_all(line.as_bytes()).unwrap();
        self.turn_until(|connector| {
            let session = connector.scheduler.session(connector.session).unwrap();
            !session.to_client().is_empty() && !connector.sides.stdio.is_writable()
        });
    }

    /// The proxy goes, and none comes in its place.
    fn lose_proxy(&mut self) {
        self.proxy.shutdown(std::net::Shutdown::Both).unwrap();
        self.turn_until(|connector| !matches!(connector.sides.link, Link::Up { .. }));
    }

    /// The host says more than is held, and closes stdin.
    fn say_much_and_leave(&mut self, line: &str) {
        let mut stdin = self.stdin.take().unwrap();
        fcntl(&stdin, FcntlArg::F_SETPIPE_SZ(STDIN_BYTES)).unwrap();
        for _ in 0..3 * 64 * 1024 / line.len() {
            stdin.write_all(line.as_bytes()).unwrap();
        }
        drop(stdin);
        self.turn_until(|connector| connector.end_deadline.at().is_some());
    }

    fn end_stdin(&mut self) {
        self.stdin = None;
        self.turn_until(|connector| matches!(connector.sides.link, Link::HalfClosed { .. }));
    }

    fn now(&self) -> Time {
        self.connector.reactor.now()
    }

    /// It is this time. Returns whether the loop has come to its end.
    fn is_done_at(&mut self, time: Time) -> bool {
        let connector = &mut self.connector;
        connector.reactor.timers.advance(time);
        connector
            .scheduler
            .run_ready(&mut connector.sides, &mut connector.reactor.timers);
        self.connector.fire_timers();
        self.connector.apply_actions();
        self.connector.done
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn the_time_to_close_ends_the_connection_and_not_the_delivery() {
    let mut all = Loop::connected();
    all.fill_stdout();
    all.end_stdin();
    let begin = all.now();
    assert!(!all.is_done_at(begin + CLOSE_TIME - millis(100)));
    assert!(matches!(all.connector.sides.link, Link::HalfClosed { .. }));
    assert!(!all.is_done_at(begin + CLOSE_TIME + millis(1)));
    assert!(matches!(all.connector.sides.link, Link::Down));
}

#[test]
fn the_time_to_close_does_not_cut_short_the_time_to_stop() {
    let mut all = Loop::connected();
    all.fill_stdout();
    all.end_stdin();
    let close = all.now() + CLOSE_TIME;
    let stop = close - millis(500);
    assert!(!all.is_done_at(stop));
    all.connector.stop();
    assert!(!all.is_done_at(close + millis(1)));
    assert!(matches!(all.connector.sides.link, Link::Down));
    assert!(!all.is_done_at(stop + STOP_TIME - millis(100)));
    assert!(all.is_done_at(stop + STOP_TIME + millis(1)));
}

#[test]
fn the_time_to_stop_does_not_wait_for_the_time_to_close() {
    for ends_stdin in [true, false] {
        let mut all = Loop::connected();
        all.fill_stdout();
        if ends_stdin {
            all.end_stdin();
        }
        let begin = all.now();
        all.connector.stop();
        assert!(!all.is_done_at(begin + STOP_TIME - millis(100)));
        assert!(matches!(all.connector.sides.link, Link::HalfClosed { .. }));
        assert!(all.is_done_at(begin + STOP_TIME + millis(1)));
    }
}

#[test]
fn a_run_over_a_link_that_may_come_back_handles_no_more_lines_than_any_other() {
    const LINE: &str = "{\"method\":\"m\"}\n";
    let mut all = Loop::connected();
    let granted = "{\"type\":\"resumable\",\"version\":1,\"timeout\":120,\"window\":1048576}\n";
    all.proxy.write_all(granted.as_bytes()).unwrap();
    all.fill_stdout();
    let waiting = |all: &Loop| {
        let session = all.connector.scheduler.session(all.connector.session);
        session.unwrap().to_client().len()
    };
    let begin = waiting(&all);
    let lines = 3 * LINES_PER_RUN;
    all.proxy.write_all(LINE.repeat(lines).as_bytes()).unwrap();
    let mut handled = 0;
    while handled < lines {
        all.connector.turn(&mut all.events).unwrap();
        let now = (waiting(&all) - begin) / LINE.len();
        assert!(now - handled <= LINES_PER_RUN, "{handled}, then {now}");
        handled = now;
    }
}

/// A host that does not read has not got everything, but it is not waited for either.
#[test]
fn the_end_of_stdin_is_the_end_although_the_host_does_not_read() {
    let mut all = Loop::connected();
    all.fill_stdout();
    all.end_stdin();
    let begin = all.now();
    assert!(!all.is_done_at(begin + END_TIME - millis(100)));
    assert!(all.is_done_at(begin + END_TIME + millis(2)));
    assert!(all.connector.is_cut_off);
}

#[test]
fn the_end_of_stdin_is_the_end_although_more_is_to_be_said_than_is_held() {
    // With the second, the host does not read what it is answered.
    for (begin, latest) in [("{", millis(35_000)), ("{\"id\":1,", END_TIME)] {
        let mut all = Loop::connected();
        all.lose_proxy();
        all.say_much_and_leave(&format!("{begin}\"method\":\"{}\"}}\n", "m".repeat(1000)));
        let begin = all.now();
        assert!(!all.is_done_at(begin + millis(29_000)));
        // It reads what is left, and refuses it, for a moment.
        let mut steps = (0..200_u32).map(|step| millis(29_500) + millis(100) * step);
        let done = steps.find(|after| all.is_done_at(begin + *after));
        assert!(done.unwrap() <= latest + millis(100), "{done:?}");
    }
}

#[test]
fn a_second_signal_is_the_end() {
    let mut all = Loop::connected();
    all.fill_stdout();
    all.connector.stop();
    assert!(!all.connector.done);
    all.connector.stop();
    assert!(all.connector.done);
}

#[test]
fn an_attempt_that_nobody_wants_any_more_is_not_declared_overdue() {
    let mut all = Loop::connected();
    all.fill_stdout();
    let connector = &mut all.connector;
    let timers = &mut connector.reactor.timers;
    connector.sides.link.bring_down(timers);
    let mut deadline = Deadline::default();
    deadline.set(Some(timers.now()), Due::Connect, timers);
    let socket = Socket::connect(([127, 0, 0, 1], 1).into()).unwrap();
    let socket = connector.watch(socket);
    let attempt = Attempt {
        addresses: Vec::new().into_iter(),
        deadline,
    };
    connector.sides.link.connect(socket.unwrap(), attempt);
    let now = all.now();
    assert!(!all.is_done_at(now + millis(1)));
    assert!(matches!(all.connector.sides.link, Link::Down));
    let scheduler = &all.connector.scheduler;
    let session = scheduler.session(all.connector.session).unwrap();
    // What it had been told before still holds.
    assert!(session.wants_upstream_output(scheduler.memory()));
}
