//! Processes come and go: what follows when one was started, and what is lost with one.

use std::collections::BTreeSet;

use log::warn;

use super::process::{Life, Owner, Pool, Process};
use super::seat::{State, Waiting};
use super::server_line::{self, ServerLine};
use super::{Context, Effect, ProcessKey, SeatKey, Share};
use crate::protocol::envelope::Message;
use crate::protocol::own_messages::ErrorReason;
use crate::session::restart::Decision;
use crate::util::plural::Counted;

impl Share {
    /// A process was started.
    pub fn process_started(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        self.last_serial += 1;
        let process = &mut self.processes[key.0];
        process.start(self.last_serial, cx.now);
        if process.pool == Pool::Probe {
            return self.probe_started(cx);
        }
        if matches!(process.pool, Pool::Modern | Pool::Legacy(_)) {
            process.policy.started(cx.now);
        }
        let pool = process.pool;
        if let Some(group) = process.group() {
            self.greet(key, group, cx);
        }
        if let Pool::Solo(_) = pool {
            self.solo_started(cx);
        }
        self.dispatch(key, cx);
        self.note_unused(key, cx);
        self.recharge_process(key, cx);
    }

    /// A process could not be started. That counts as a loss.
    pub fn process_failed(&mut self, key: ProcessKey, error: &str, cx: &mut Context<'_>) {
        if key == self.probe() {
            return self.probe_failed(error, cx);
        }
        let text = format!("the server could not be started: {error}");
        if key == self.solo() {
            return self.solo_failed(&text, cx);
        }
        self.processes[key.0].policy.started(cx.now);
        self.greeting_missed(key, &text, cx);
        self.after_loss(key, cx);
    }

    /// A process is gone, and all that it said was read. `status` is how it ended. Its input ends with `unread`, if it is known
    /// what it has not read: lines that are wholly in there are for the next.
    pub fn process_ended(
        &mut self,
        key: ProcessKey,
        status: &str,
        unread: &[u8],
        cx: &mut Context<'_>,
    ) {
        if key == self.probe() {
            return self.probe_ended(cx);
        }
        let back = self.take_back(key, unread);
        let process = &mut self.processes[key.0];
        let ended = Ended::of(process);
        // It takes nothing more, whatever is found out below.
        process.life = Life::Retiring(cx.now);
        let lost = process.forget();
        let listening = process.listens.end_all();
        let text = format!("the MCP server went away before it answered ({status})");
        let requests = lost.into_iter().filter_map(|(number, owner)| match owner {
            Owner::Request { seat, .. } => seat.map(|seat| (number, seat)),
            Owner::Listen | Owner::Proxy => None,
        });
        let requests: Vec<(u64, SeatKey)> = requests.collect();
        if ended.is_crash() {
            self.blame(ended.pool, &requests, cx);
        }
        for (number, seat) in requests.into_iter().chain(listening) {
            self.lose_request(seat, number, &text, status, cx);
        }
        let mut again = BTreeSet::new();
        for (seat, waiting) in back.into_iter().rev() {
            self.seats[seat.0].push_waiting_front(waiting);
            again.insert(seat);
        }
        self.discovered.forget();
        self.processes[key.0].outbox.clear();
        // Its place may be another's soon.
        self.recharge_process(key, cx);
        self.succeed(key, &ended, &text, cx);
        for seat in again {
            self.seek_turn(seat, cx);
        }
        self.house_homeless(cx);
    }

    /// Who made a process crash?
    fn blame(&mut self, pool: Pool, lost: &[(u64, SeatKey)], cx: &mut Context<'_>) {
        match pool {
            Pool::Solo(_) => self.convict(lost, cx),
            Pool::Modern | Pool::Legacy(_) => {
                if self.suspects.note_crash(pool, cx.now) {
                    for (_, seat) in lost {
                        self.suspect(*seat, cx);
                    }
                }
            }
            Pool::Probe | Pool::Retired | Pool::None => {}
        }
    }

    /// What comes after a process that is gone?
    fn succeed(&mut self, key: ProcessKey, ended: &Ended, text: &str, cx: &mut Context<'_>) {
        match ended.pool {
            Pool::Solo(_) if ended.was_greeting => self.solo_failed(text, cx),
            Pool::Solo(_) => self.solo_ended(cx),
            Pool::Retired | Pool::None => {
                self.processes[key.0].pool = Pool::None;
                self.processes[key.0].life = Life::Absent;
            }
            Pool::Modern | Pool::Legacy(_) | Pool::Probe => {
                if ended.was_greeting {
                    self.greeting_missed(key, text, cx);
                }
                if ended.is_loss() {
                    self.after_loss(key, cx);
                } else {
                    self.processes[key.0].life = Life::Absent;
                    self.release_seats(key, cx);
                    self.start_if_needed(key);
                }
            }
        }
        if let Pool::Legacy(group) = ended.pool {
            self.forget_unused(group);
        }
    }

    fn start_if_needed(&mut self, key: ProcessKey) {
        if self.is_needed(key) {
            self.want(key);
        }
    }

    fn lose_request(
        &mut self,
        key: SeatKey,
        number: u64,
        text: &str,
        status: &str,
        cx: &mut Context<'_>,
    ) {
        let Some(seat) = self.seats.get_mut(key.0) else {
            return;
        };
        let Some(at) = seat.open.numbered(number) else {
            return;
        };
        let open = seat.close(at);
        if let State::Listening(_) = open.state {
            seat.listens -= 1;
        }
        if let Some(process) = open.process {
            self.undo_subscription(key, open.asks(), process);
            self.may_send_more(key, process, cx);
        }
        if open.state != State::Cancelled {
            let (id, reason) = (open.id.to_string(), ErrorReason::ProcessTerminated);
            self.lose(key, &id, reason, text, Some(status), cx);
        }
    }

    /// Takes back the requests of which a process can have seen nothing. They wait again, in the order in which they were
    /// sent; no other request will ever have their numbers.
    fn take_back(&mut self, key: ProcessKey, unread: &[u8]) -> Vec<(SeatKey, Waiting)> {
        let process = &mut self.processes[key.0];
        let outbox = std::mem::take(&mut process.outbox);
        let mut lines: Vec<(u64, Vec<u8>)> = unread_requests(unread);
        lines.extend(outbox.into_unstarted());
        let mut back = Vec::new();
        for (number, line) in lines {
            let process = &mut self.processes[key.0];
            let Some(Owner::Request {
                seat: Some(seat),
                given_up: None,
                ..
            }) = process.owners.get(&number)
            else {
                continue;
            };
            let seat = *seat;
            process.end(number);
            let place = &mut self.seats[seat.0];
            if let Some(at) = place.open.numbered(number) {
                place.open[at].state = State::Waiting;
                place.open[at].process = None;
                place.at_process -= 1;
                let asks = place.open[at].asks().clone();
                self.undo_subscription(seat, &asks, key);
                let listens_to = None;
                back.push((
                    seat,
                    Waiting {
                        number,
                        line,
                        listens_to,
                    },
                ));
            }
        }
        back
    }

    /// A process is gone: is there to be another, and who uses it?
    fn after_loss(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        let process = &mut self.processes[key.0];
        let barred = Life::Barred(cx.now + process.policy.window());
        process.life = if self.limits.restarts {
            match process.policy.lost(cx.now) {
                Decision::RetryAt(at) if at > cx.now => Life::Cooling(at),
                Decision::RetryAt(_) => Life::Absent,
                Decision::GiveUp { restarts } => {
                    let (restarts, pause) = (Counted(restarts, "restart"), process.policy.window());
                    warn!(
                        "shared server {}: after {restarts}, the limit (--max-restarts); not started again for {} s",
                        key.0,
                        pause.as_secs()
                    );
                    barred
                }
            }
        } else {
            barred
        };
        self.release_seats(key, cx);
    }

    /// The seats of a process that is gone look for others.
    pub(super) fn release_seats(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        let process = &mut self.processes[key.0];
        process.turns.take_all();
        process.seats = 0;
        let seats: Vec<SeatKey> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.process == Some(key))
            .map(|(seat, _)| SeatKey(seat))
            .collect();
        for seat in &seats {
            let seat = &mut self.seats[seat.0];
            seat.process = None;
            seat.has_turn = false;
        }
        for seat in seats {
            self.seek_turn(seat, cx);
        }
    }

    /// Answers all that a seat has not sent.
    pub(super) fn refuse_waiting(
        &mut self,
        key: SeatKey,
        reason: ErrorReason,
        text: &str,
        cx: &mut Context<'_>,
    ) {
        let Some(seat) = self.seats.get_mut(key.0) else {
            return;
        };
        seat.waiting_bytes = 0;
        for waiting in std::mem::take(&mut seat.waiting) {
            let seat = &mut self.seats[key.0];
            if waiting.listens_to.is_some() {
                seat.listens -= 1;
            }
            if let Some(at) = seat.open.numbered(waiting.number) {
                let id = seat.close(at).id.to_string();
                self.refuse(key, Some(id.as_bytes()), reason, text, cx);
            }
        }
        self.recharge_seat(key, cx);
    }

    /// Does what is due.
    pub fn timeout(&mut self, cx: &mut Context<'_>) {
        self.probe_timeout(cx);
        self.trial_timeout(cx);
        self.close_stalled(cx);
        for key in (0..self.processes.len()).map(ProcessKey) {
            self.forget_overdue(key, cx);
            self.unused_timeout(key, cx);
            self.process_timeout(key, cx);
        }
    }

    fn process_timeout(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        let process = &mut self.processes[key.0];
        match process.life {
            Life::Cooling(until) | Life::Barred(until) if until <= cx.now => {
                process.life = Life::Absent;
                let pool = process.pool;
                self.start_if_needed(key);
                self.wake_subscribers(pool, cx);
            }
            Life::Greeting(until) if until <= cx.now && !process.is_stopped => {
                warn!(
                    "shared server {}: it has not answered initialize in time",
                    key.0
                );
                self.greeting_missed(key, "the server has not answered initialize in time", cx);
                self.stop_process(key);
            }
            Life::Retiring(until) if until <= cx.now && !process.is_stopped => {
                self.stop_process(key);
            }
            Life::Up if process.worn_at(&self.limits).is_some_and(|at| at <= cx.now) => {
                self.retire(key, cx);
            }
            _ => self.stop_if_done(key),
        }
    }

    /// Requests that were given up long ago count no more; what comes for them still reaches nobody.
    fn forget_overdue(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        let mut is_any = false;
        while let Some(number) = self.processes[key.0].next_overdue(cx.now) {
            let owner = self.processes[key.0].end(number);
            if let Some(Owner::Request {
                seat: Some(seat), ..
            }) = owner
                && let Some(at) = self.seats[seat.0].open.numbered(number)
            {
                self.seats[seat.0].close(at);
                self.may_send_more(seat, key, cx);
                self.note_over(seat, cx);
            }
            is_any = true;
        }
        if is_any {
            self.dispatch(key, cx);
        }
    }

    /// Has a process ended.
    pub(super) fn stop_process(&mut self, key: ProcessKey) {
        let process = &mut self.processes[key.0];
        if process.is_running() && !process.is_stopped {
            process.is_stopped = true;
            self.effects.push_back(Effect::Stop(key));
        }
    }

    /// Whether a process ends because it was told to.
    pub fn is_stopped(&self, key: ProcessKey) -> bool {
        self.processes[key.0].is_stopped
    }

    /// How legacy clients' processes are counted.
    pub fn serves_legacy(&self) -> bool {
        self.limits.legacy
    }
}

/// A process that is gone, as it was.
struct Ended {
    pool: Pool,
    was_stopped: bool,
    was_greeting: bool,
}

impl Ended {
    fn of(process: &Process) -> Self {
        Self {
            pool: process.pool,
            was_stopped: process.is_stopped,
            was_greeting: matches!(process.life, Life::Greeting(_)),
        }
    }

    /// Whether it may have been somebody's fault.
    fn is_crash(&self) -> bool {
        !self.was_stopped && !self.was_greeting
    }

    /// Whether the next one is to wait.
    fn is_loss(&self) -> bool {
        !self.was_stopped || self.was_greeting
    }
}

/// The requests in what a process has not read, which may begin inside of a line.
fn unread_requests(unread: &[u8]) -> Vec<(u64, Vec<u8>)> {
    // A line of which the beginning was read is no JSON: it closes more than it opens.
    let lines = unread.split_inclusive(|byte| *byte == b'\n');
    lines
        .filter(|line| line.ends_with(b"\n"))
        .filter_map(|line| {
            let message = Message::read(line.trim_ascii_end()).ok()?;
            match server_line::read(line.trim_ascii_end(), &message) {
                ServerLine::Request { id, .. } => Some((server_line::number(id)?, line.to_vec())),
                _ => None,
            }
        })
        .collect()
}
