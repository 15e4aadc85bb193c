//! A server as a random program: a process with its pipes, or a proxy at the other end of a connection.

mod end;
mod manners;
mod speech;

use std::collections::VecDeque;

use mcp_tcp_proxy::reactor::timers::Deadline;
use mcp_tcp_proxy::session::report::Exit;
use mcp_tcp_proxy::util::time::Time;
use mio::Token;

use self::manners::{Manners, Probe, Replay};
use crate::journal::{ClientSays, Journal, Received, ServerSays};
use crate::outgoing::Outgoing;
use crate::rng::Rng;
use crate::stats::{Fault, Stats};
use crate::transport::{Duplex, Events, Inflow, Shared, arrived, shared};

/// Lines that may be longer fill a direction by one.
const LARGE_LINE_BYTES: usize = 64 * 1024;

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Process,
    Connection,
}

impl Kind {
    /// What is right for it.
    pub fn choose<T>(self, for_process: T, for_connection: T) -> T {
        match self {
            Self::Process => for_process,
            Self::Connection => for_connection,
        }
    }
}

/// What it still has to do for its client.
#[derive(Debug)]
enum Job {
    Answer(usize),
    AnswerReplay(String),
    AnswerRestored(String),
    AnswerQuestion(String),
}

#[derive(Debug)]
pub struct Server {
    pub kind: Kind,
    /// The number of the process, or of the connection.
    pub pid: i32,
    pub started: Time,
    /// When it last took what there was to read.
    pub read_at: Time,
    /// It was started for nobody.
    pub is_spare: bool,
    /// The slot of the session that it serves.
    pub slot: Option<usize>,
    /// Which one of the session's servers it is.
    pub index: usize,
    pub pipes: Shared<Duplex>,
    pub stderr: Shared<Inflow>,
    pub exit: Option<Exit>,
    pub reaped: bool,
    /// The loop was told that it can't kill it.
    pub kill_refused: bool,
    /// The loop was told that it has written something.
    pub was_heard: bool,
    /// When the other side of a connection has to be done, or an attempt to connect is.
    pub deadline: Deadline,
    /// Its child, which holds its output open, lasts until then unless it is killed.
    pub held_open_until: Option<Time>,
    /// It will, and nothing ends that.
    leaves_child_until: Option<Time>,
    pub stalls: bool,
    /// When its session gave it back.
    pub given_back: Option<Time>,
    /// Another one has taken its place.
    pub replaced: bool,
    /// When it then got SIGTERM.
    pub asked_to_go: Option<Time>,
    /// The version that it says to be of.
    pub version: usize,
    /// It talks, and reads nothing.
    is_deaf: bool,
    manners: Manners,
    max_line: usize,
    jobs: Vec<Job>,
    /// Lines that have begun to come, with where they end.
    coming: VecDeque<(u64, Received)>,
    out: Outgoing,
    said: u64,
    asked: usize,
    rng: Rng,
}

impl Server {
    pub fn new(
        kind: Kind,
        pid: i32,
        now: Time,
        calm: bool,
        max_line: usize,
        stats: &mut Stats,
        rng: &mut Rng,
    ) -> Self {
        let mut rng = rng.fork();
        let capacity = rng.pick(&[700, 4096, 8192, 65_536]);
        // Where lines are long, so that both directions fill up, and the loop is short of memory.
        let is_large = max_line > LARGE_LINE_BYTES;
        let is_deaf = !calm && rng.percent(if is_large { 60 } else { 3 });
        let manners = Manners::choose(kind, calm, is_deaf, &mut rng);
        let stalls = !calm && rng.percent(3);
        stats.fault_if(stalls, Fault::ServerStalls);
        Self {
            kind,
            pid,
            started: now,
            read_at: now,
            is_spare: false,
            slot: None,
            index: 0,
            pipes: shared(Duplex::new(capacity, &mut rng)),
            stderr: shared(Inflow::new(4096, rng.fork())),
            exit: None,
            reaped: false,
            kill_refused: false,
            was_heard: false,
            deadline: Deadline::default(),
            held_open_until: None,
            leaves_child_until: None,
            stalls,
            given_back: None,
            replaced: false,
            asked_to_go: None,
            version: usize::from(pid % 4 == 0),
            is_deaf,
            manners,
            max_line,
            jobs: Vec::new(),
            coming: VecDeque::new(),
            out: Outgoing::default(),
            said: 0,
            asked: 0,
            rng,
        }
    }

    /// It is of a kind that does not live.
    pub fn is_stillborn(&mut self) {
        self.manners.dies_at_once = true;
    }

    /// It reads again.
    pub fn hears(&mut self) {
        self.is_deaf = false;
    }

    /// Whether it has begun to say a line.
    pub fn is_mid_line(&self) -> bool {
        self.out.is_part_written()
    }

    pub fn is_running(&self) -> bool {
        self.exit.is_none()
    }

    /// Notes a line that the session has begun to send.
    pub fn expect(&mut self, end: u64, received: Received) {
        if !matches!(received, Received::Nothing) {
            self.coming.push_back((end, received));
        }
    }

    /// Events tell of whatever has happened.
    pub fn notify(&mut self, events: &mut Events) {
        let begin = events.len();
        let mut pipes = self.pipes.borrow_mut();
        pipes.input.notify(events);
        self.stderr.borrow_mut().notify(events);
        self.was_heard |= events.len() > begin;
        pipes.output.notify(events);
    }

    /// One step of the program while nobody uses it, or not any more. It can't say anything that is for a session.
    pub fn wait(&mut self, now: Time, stats: &mut Stats) {
        let mut nobody = Journal::default();
        for _ in 0..=self.index {
            nobody.server_started();
        }
        if !self.is_running() {
            return self.let_go(now);
        }
        if self.rng.percent(5) {
            self.stderr.borrow_mut().write(b"waits\nand");
        }
        if !self.pipes.borrow().writes {
            self.input_ended(now, &mut nobody, stats);
        } else if !self.manners.calm {
            self.misbehave(now, &mut nobody, stats);
        }
    }

    /// One step of the program.
    pub fn act(&mut self, now: Time, journal: &mut Journal, stats: &mut Stats) {
        if !self.is_running() {
            return self.let_go(now);
        }
        if self.manners.dies_at_once {
            stats.fault(Fault::ServerExits);
            self.stderr.borrow_mut().write(b"no such module\n");
            return self.ends(Exit::Code(3), now, journal, stats);
        }
        if !self.stalls {
            if !self.is_deaf {
                self.read(now, journal);
                if self.manners.probe == Probe::Dies && self.is_probed(journal) {
                    stats.fault(Fault::ServerDiesOfProbe);
                    return self.ends(Exit::Code(1), now, journal, stats);
                }
            }
            self.work(journal, stats);
            if self.out.len() < 100_000 {
                self.chat(journal, stats);
            }
            self.flush(journal);
        }
        let at_end = {
            let pipes = self.pipes.borrow();
            !pipes.writes && pipes.output.consumed == pipes.output.taken
        };
        if at_end && !self.stalls {
            self.input_ended(now, journal, stats);
        } else if !self.manners.calm {
            self.misbehave(now, journal, stats);
        }
    }

    /// One step in which it does nothing of its own accord.
    pub fn obey(&mut self, now: Time, journal: &mut Journal, stats: &mut Stats) {
        if !self.is_running() || self.manners.dies_at_once || self.stalls {
            return self.act(now, journal, stats);
        }
        if !self.is_deaf {
            self.read(now, journal);
        }
        let dies = self.manners.probe == Probe::Dies && self.is_probed(journal);
        if !dies {
            self.work(journal, stats);
        }
        self.flush(journal);
        let at_end = {
            let pipes = self.pipes.borrow();
            !pipes.writes && pipes.output.consumed == pipes.output.taken
        };
        if at_end || dies {
            self.act(now, journal, stats);
        }
    }

    fn read(&mut self, now: Time, journal: &mut Journal) {
        let most = if self.rng.percent(30) {
            self.rng.below(300)
        } else {
            usize::MAX
        };
        self.pipes.borrow_mut().output.consume(most);
        self.read_at = now;
        let consumed = self.pipes.borrow().output.consumed;
        while let Some((_, received)) = arrived(&mut self.coming, consumed) {
            match received {
                Received::Line(line) => {
                    if journal.lines[line].what == ClientSays::Listen && self.rng.percent(70) {
                        continue;
                    }
                    let requests = journal.lines[line].requests.clone();
                    let requests = requests.filter(|at| !journal.requests[*at].taken_out);
                    self.jobs.extend(requests.map(Job::Answer));
                }
                Received::Replay(id) => self.jobs.push(Job::AnswerReplay(id)),
                Received::Question(id) => self.jobs.push(Job::AnswerQuestion(id)),
                Received::Restored(id) => self.jobs.push(Job::AnswerRestored(id)),
                Received::Heartbeat if !self.manners.calm && self.rng.percent(90) => {
                    self.say(
                        br#"{"type":"heartbeat_response","timestamp":1.5,"mcp_alive":true}"#
                            .to_vec(),
                        ServerSays::Swallowed,
                        journal,
                    );
                }
                Received::Heartbeat | Received::Nothing => {}
            }
        }
    }

    /// Whether a probe is among what it has to do.
    fn is_probed(&self, journal: &Journal) -> bool {
        let is_probe =
            |job: &Job| matches!(job, Job::Answer(request) if journal.is_probe(*request));
        self.jobs.iter().any(is_probe)
    }

    fn work(&mut self, journal: &mut Journal, stats: &mut Stats) {
        let most = if self.rng.percent(50) {
            self.rng.below(4)
        } else {
            30
        };
        for _ in 0..most {
            if self.jobs.is_empty() {
                return;
            }
            let at = if self.rng.percent(70) {
                0
            } else {
                self.rng.below(self.jobs.len())
            };
            match self.jobs.remove(at) {
                Job::Answer(request) => self.answer(request, journal),
                Job::AnswerReplay(id) => self.answer_replay(&id, journal, stats),
                Job::AnswerRestored(id) => self.answer_restored(&id, journal),
                Job::AnswerQuestion(id) => self.answer_question(&id, journal),
            }
        }
    }

    fn flush(&mut self, journal: &mut Journal) {
        let input = &mut self.pipes.borrow_mut().input;
        self.out.write_to(input, &mut self.rng);
        journal.servers[self.index].written = input.written;
    }

    pub fn has_token(&self, token: Token) -> bool {
        let pipes = self.pipes.borrow();
        let tokens = [
            pipes.input.token,
            pipes.output.token,
            self.stderr.borrow().token,
        ];
        tokens.contains(&Some(token))
    }
}
