//! Servers that were started ahead of time and wait for someone to serve (`--prespawn`).
//!
//! Nothing is said to a waiting server, and what it writes to stdout is left for whoever takes it. Its stderr is read
//! and logged. This file keeps the servers and decides when there are to be more; starting them is the business of
//! `prespawning`.

use std::collections::VecDeque;
use std::time::Duration;

use log::warn;
use mio::Token;
use slab::Slab;

use super::pipes::Pipes;
use super::{Channel, Due};
use crate::pump::READS_PER_RUN;
use crate::reactor::io::{Input, Readiness};
use crate::reactor::timers::{Deadline, Timers};
use crate::reactor::token::Target;
use crate::session::restart::{Decision, RestartPolicy};
use crate::session::stderr::StderrLines;
use crate::util::log_rate_limit::LogRateLimit;
use crate::util::time::Time;

/// After a server was taken, the next one is started this much later: a start takes longer than the first answer to
/// whoever took it, which it would delay.
const REFILL_DELAY: Duration = Duration::from_millis(10);

/// After a loss, one server must wait for this long without ending before more are started.
const WATCH_TIME: Duration = Duration::from_secs(1);

/// The descriptors of a server in the pool, in the numbers that their tokens bear.
const PIPES: [Channel; 3] = [Channel::Stdin, Channel::Stdout, Channel::Stderr];

/// The waiting servers.
#[derive(Debug)]
pub(super) struct Spares {
    size: usize,
    /// Those that wait, and those that do no more but have not been reaped.
    servers: Slab<Server>,
    /// The slots of those that wait, the one that has waited longest first.
    waiting: VecDeque<usize>,
    /// The slots of those of which stderr is to be read.
    readable: Vec<usize>,
    policy: RestartPolicy,
    refill: Refill,
    /// The deadline of [`Self::refill`].
    deadline: Deadline,
    log_rate_limit: LogRateLimit,
    hits: u64,
    misses: u64,
}

/// A server in the pool.
#[derive(Debug)]
pub(super) struct Server {
    /// The number of its process.
    pub(super) process: usize,
    /// Its pid.
    pub(super) pid: u32,
    /// Its pipes.
    pub(super) pipes: Pipes,
    stderr: StderrLines,
}

/// Whether servers may be started for the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refill {
    /// As many as are lacking.
    Freely,
    /// The same after the deadline.
    Soon,
    /// After a loss: none before the deadline, then one.
    Held,
    One,
    /// That one was started. If it lasts to the deadline, others may follow.
    Watched,
    /// The program is being stopped.
    Never,
}

/// Where the pipe of a server in the pool is kept, as far as tokens go.
pub(super) fn address(slot: usize, port: Channel) -> Target<Channel> {
    let pipe = PIPES.iter().position(|pipe| *pipe == port).unwrap_or(0);
    Target {
        key: slot * PIPES.len() + pipe,
        channel: Channel::Spares,
    }
}

impl Spares {
    /// A pool that is to have `size` servers waiting. Those that end by themselves are replaced under the policy of
    /// sessions with at most `max_restarts`.
    pub(super) fn new(size: usize, max_restarts: u32, now: Time) -> Self {
        Self {
            size,
            servers: Slab::new(),
            waiting: VecDeque::new(),
            readable: Vec::new(),
            policy: RestartPolicy::new(max_restarts),
            refill: Refill::Freely,
            deadline: Deadline::default(),
            log_rate_limit: LogRateLimit::new(now),
            hits: 0,
            misses: 0,
        }
    }

    /// Whether one more server is to be started for the pool.
    pub(super) fn wants_server(&self) -> bool {
        self.servers.len() < self.size && matches!(self.refill, Refill::Freely | Refill::One)
    }

    /// Whether a server waits.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether there is something to read although no event will tell.
    pub(super) fn is_busy(&self) -> bool {
        !self.readable.is_empty()
    }

    /// Where the next server will be kept.
    pub(super) fn next_slot(&self) -> usize {
        self.servers.vacant_key()
    }

    /// Takes a server in that was started for the pool.
    pub(super) fn add(&mut self, process: usize, pid: u32, pipes: Pipes) {
        let slot = self.servers.insert(Server {
            process,
            pid,
            pipes,
            stderr: StderrLines::default(),
        });
        self.waiting.push_back(slot);
    }

    /// A server is being started for the pool.
    pub(super) fn started(&mut self, now: Time, timers: &mut Timers<Due>) {
        self.policy.started(now);
        if self.refill == Refill::One {
            self.set(Refill::Watched, Some(now + WATCH_TIME), timers);
        }
    }

    /// Hands out the server that has waited longest, for a session.
    pub(super) fn take(&mut self, now: Time, timers: &mut Timers<Due>) -> Option<Server> {
        let slot = self.waiting.pop_front()?;
        let mut server = self.servers.remove(slot);
        self.hits += 1;
        self.log_rest(&mut server, now);
        if self.refill == Refill::Freely {
            self.set(Refill::Soon, Some(now + REFILL_DELAY), timers);
        }
        Some(server)
    }

    /// A session had a server started because none waited.
    pub(super) fn missed(&mut self) {
        self.misses += 1;
    }

    /// Latches what an event says of the pipe with this number. Returns the process that it is about, if it has written
    /// something or has ended, and whether it is of no more use.
    pub(super) fn latch(
        &mut self,
        number: usize,
        event: (Token, Readiness),
    ) -> Option<(usize, bool)> {
        let slot = number / PIPES.len();
        let server = self.servers.get_mut(slot)?;
        let Pipes {
            stdin,
            stdout,
            stderr,
        } = &mut server.pipes;
        match PIPES[number % PIPES.len()] {
            Channel::Stdin => {
                let stdin = stdin.as_mut()?;
                let broke = stdin.latch(event.0, event.1) && stdin.is_write_closed();
                broke.then_some((server.process, true))
            }
            Channel::Stdout => stdout
                .latch(event.0, event.1)
                .then_some((server.process, stdout.is_read_closed())),
            _ => {
                if !stderr.latch(event.0, event.1) {
                    return None;
                }
                if !self.readable.contains(&slot) {
                    self.readable.push(slot);
                }
                Some((server.process, false))
            }
        }
    }

    /// Ends the input of a server, which is not handed out any more. Its process is to be stopped.
    pub(super) fn retire(&mut self, process: usize) {
        for (slot, server) in &mut self.servers {
            if server.process == process {
                server.pipes.stdin = None;
                self.waiting.retain(|other| *other != slot);
            }
        }
    }

    /// Reads and logs what servers have written to stderr, within a budget.
    pub(super) fn read_stderr(&mut self, scratch: &mut [u8], now: Time) {
        for slot in std::mem::take(&mut self.readable) {
            let Some(server) = self.servers.get_mut(slot) else {
                continue;
            };
            let log_rate_limit = &mut self.log_rate_limit;
            for _ in 0..READS_PER_RUN {
                if !server.pipes.stderr.is_readable() {
                    break;
                }
                if let Input::Bytes(count) = server.pipes.stderr.read(scratch) {
                    let pid = server.pid;
                    server.stderr.push(&scratch[..count], |line| {
                        log_stderr(log_rate_limit, pid, line, now);
                    });
                }
            }
            if server.pipes.stderr.is_readable() {
                self.readable.push(slot);
            }
        }
    }

    /// A server has ended, and was reaped. Returns whether it is a loss. It may never have been taken in, and then another
    /// may be in its slot.
    pub(super) fn ended(
        &mut self,
        slot: usize,
        process: usize,
        scratch: &mut [u8],
        now: Time,
    ) -> bool {
        let server = self.servers.get_mut(slot);
        let Some(server) = server.filter(|server| server.process == process) else {
            return false;
        };
        // What it has written is there, whether or not an event has told of it.
        server.pipes.stderr.assume_readable();
        self.readable.push(slot);
        self.read_stderr(scratch, now);
        self.readable.retain(|other| *other != slot);
        self.waiting.retain(|other| *other != slot);
        let mut server = self.servers.remove(slot);
        self.log_rest(&mut server, now);
        self.refill != Refill::Never
    }

    /// A server ended while it waited, or could not be started: decides when there are to be others.
    pub(super) fn lost(&mut self, why: &str, now: Time, timers: &mut Timers<Due>) {
        if matches!(self.refill, Refill::Held | Refill::One | Refill::Never) {
            // It is one of several since the last start, and counts as one with them.
            return;
        }
        let (at, next) = match self.policy.lost(now) {
            Decision::RetryAt(at) => {
                let wait = at.saturating_since(now).as_secs_f64();
                (at, format!("the next one is started in {wait:.3} s"))
            }
            Decision::GiveUp { restarts } => {
                let pause = self.policy.window();
                let text = format!(
                    "after {restarts} restarts, the limit (--max-restarts); for {} s sessions start their servers themselves",
                    pause.as_secs()
                );
                (now + pause, text)
            }
        };
        warn!("pool: a waiting server was lost ({why}); {next}");
        if at <= now {
            self.set(Refill::One, None, timers);
        } else {
            self.set(Refill::Held, Some(at), timers);
        }
    }

    /// The deadline has come.
    pub(super) fn timer_fired(&mut self) {
        self.deadline.fired();
        self.refill = match self.refill {
            Refill::Soon | Refill::Watched => Refill::Freely,
            Refill::Held => Refill::One,
            same => same,
        };
    }

    /// Lets no server come any more, and ends the input of all. Returns the processes that are to be stopped.
    pub(super) fn close(&mut self, timers: &mut Timers<Due>) -> Vec<usize> {
        self.set(Refill::Never, None, timers);
        self.waiting.clear();
        let servers = self.servers.iter_mut();
        servers
            .map(|(_, server)| {
                server.pipes.stdin = None;
                server.process
            })
            .collect()
    }

    /// What there is to say at the end, if there was a pool.
    pub(super) fn summary(&self) -> Option<String> {
        let Self {
            size, hits, misses, ..
        } = self;
        (*size > 0).then(|| format!("pool: size {size}, {hits} hits, {misses} misses"))
    }

    fn set(&mut self, refill: Refill, at: Option<Time>, timers: &mut Timers<Due>) {
        self.refill = refill;
        self.deadline.set(at, Due::Spares, timers);
    }

    /// Logs what has no line end.
    fn log_rest(&mut self, server: &mut Server, now: Time) {
        let log_rate_limit = &mut self.log_rate_limit;
        let pid = server.pid;
        server
            .stderr
            .end(|line| log_stderr(log_rate_limit, pid, line, now));
    }
}

fn log_stderr(limit: &mut LogRateLimit, pid: u32, line: &str, now: Time) {
    if limit.admit(now) {
        let left_out = limit.take_left_out();
        if left_out > 0 {
            warn!("pool: {left_out} lines of the servers' output were left out of the log");
        }
        warn!("pool (pid {pid}) stderr: {line}");
    }
}

#[cfg(test)]
mod tests {
    use mio::unix::pipe;
    use nix::unistd::Pid;

    use super::*;
    use crate::process::Spawned;
    use crate::reactor::Reactor;
    use crate::reactor::poller::Poller;

    const SIZE: usize = 8;

    /// A pool with one server, started now, and its time.
    fn started() -> (Spares, Timers<Due>, Time) {
        let now = Time::from_nanos(1 << 40);
        let (mut pool, mut timers) = (Spares::new(SIZE, 5, now), Timers::new(now));
        pool.started(now, &mut timers);
        (pool, timers, now)
    }

    #[test]
    fn servers_that_are_lost_together_are_one_loss() {
        let (mut pool, mut timers, start) = started();
        let later = start + Duration::from_mins(10);
        for _ in 0..SIZE {
            pool.lost("killed", later, &mut timers);
        }
        assert!(pool.wants_server(), "{pool:?}");
        pool.started(later, &mut timers);
        assert!(!pool.wants_server(), "that one is watched");
        for _ in 0..SIZE {
            pool.lost("killed", later, &mut timers);
        }
        assert_eq!(timers.next(), Some(later + Duration::from_secs(5)));
        pool.timer_fired();
        assert!(pool.wants_server(), "{pool:?}");
    }

    #[test]
    fn the_end_of_a_server_that_was_never_taken_in_is_not_that_of_another_in_its_slot() {
        let (mut pool, _, now) = started();
        let mut reactor = Reactor::new(Poller::new().unwrap());
        let (slot, process) = (pool.next_slot(), 2);
        let spawned = Spawned {
            pid: Pid::from_raw(0),
            stdin: pipe::new().unwrap().0,
            stdout: pipe::new().unwrap().1,
            stderr: pipe::new().unwrap().1,
        };
        let target = |channel| address(slot, channel);
        let pipes = Pipes::register(spawned, &mut reactor, target).unwrap();
        pool.add(process, 0, pipes);
        assert!(!pool.ended(slot, process - 1, &mut [0; 64], now) && pool.has_waiting());
        assert!(pool.ended(slot, process, &mut [0; 64], now) && !pool.has_waiting());
        assert!(!pool.ended(slot, process, &mut [0; 64], now));
    }
}
