//! Processes come and go: which of them a session uses, when one is started, what is lost with one.

use log::warn;

use super::era::ServerEra;
use super::process::{Life, Owner};
use super::seat::{State, Waiting};
use super::server_line::{self, ServerLine};
use super::{Context, Effect, ProcessKey, SeatKey, Share};
use crate::protocol::envelope::Message;
use crate::protocol::own_messages::ErrorReason;
use crate::session::restart::Decision;
use crate::util::plural::Counted;
use crate::util::time::Time;

const BARRED: &str = "the server was lost too often and is not started again for now";

impl Share {
    /// The process that a seat is to use, if there is any. It stays the same until it is lost: what a server has handed out,
    /// only its process may know.
    pub(super) fn pin(&mut self, key: SeatKey, cx: &mut Context<'_>) -> Option<ProcessKey> {
        if !self.knows_era(key) {
            return None;
        }
        if self.seats[key.0].is_suspect {
            return self.try_suspect(key, cx);
        }
        if let Some(process) = self.seats[key.0].process {
            return Some(process);
        }
        let Some(process) = self.least_used(cx.now) else {
            self.refuse_waiting(key, ErrorReason::RestartLimit, BARRED, cx);
            return None;
        };
        self.seats[key.0].process = Some(process);
        self.processes[process.0].seats += 1;
        self.want(process);
        Some(process)
    }

    /// The process that the fewest seats use, of those that can be had soonest.
    fn least_used(&self, now: Time) -> Option<ProcessKey> {
        let shared = &self.processes[..self.limits.processes];
        let rank = |life| match life {
            Life::Up | Life::Asked | Life::Absent => Some(0),
            Life::Cooling(_) => Some(1),
            Life::Barred(_) => None,
        };
        let candidates = shared.iter().enumerate().filter_map(|(key, process)| {
            let rank = rank(process.life)?;
            Some(((process.is_silent(now), rank, process.seats, key), key))
        });
        candidates.min().map(|(_, key)| ProcessKey(key))
    }

    /// Something waits for a process.
    pub(super) fn want(&mut self, key: ProcessKey) {
        let process = &mut self.processes[key.0];
        if process.life == Life::Absent {
            process.life = Life::Asked;
            self.effects.push_back(Effect::Start(key));
        }
    }

    /// A process was started.
    pub fn process_started(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        let is_probe = key == self.probe();
        let process = &mut self.processes[key.0];
        process.life = Life::Up;
        process.last_moved = cx.now;
        if is_probe {
            return self.probe_started(cx);
        }
        if key.0 < self.limits.processes {
            process.policy.started(cx.now);
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
        if key == self.solo() {
            return self.solo_failed(error, cx);
        }
        self.processes[key.0].policy.started(cx.now);
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
        let lost = process.forget();
        let listening = process.listens.end_all();
        let text = format!("the MCP server went away before it answered ({status})");
        let requests = lost.into_iter().filter_map(|(number, owner)| match owner {
            Owner::Request { seat, .. } => seat.map(|seat| (number, seat)),
            Owner::Listen => None,
        });
        let requests: Vec<(u64, SeatKey)> = requests.collect();
        let is_solo = key == self.solo();
        if is_solo {
            self.convict(&requests, cx);
        } else if self.suspects.note_crash(cx.now) {
            for (_, seat) in &requests {
                self.suspect(*seat, cx);
            }
        }
        for (number, seat) in requests.into_iter().chain(listening) {
            self.lose_request(seat, number, &text, status, cx);
        }
        for (seat, waiting) in back.into_iter().rev() {
            self.seats[seat.0].push_waiting_front(waiting);
        }
        if is_solo {
            self.solo_ended(cx);
        } else {
            self.after_loss(key, cx);
        }
        self.recharge_process(key, cx);
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
        let Some(at) = seat.numbered(number) else {
            return;
        };
        let open = seat.close(at);
        if let State::Listening(_) = open.state {
            seat.listens -= 1;
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
            if let Some(at) = place.numbered(number) {
                place.open[at].state = State::Waiting;
                place.at_process -= 1;
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
            if let Some(at) = seat.numbered(waiting.number) {
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
        for key in (0..self.limits.places()).map(ProcessKey) {
            self.forget_overdue(key, cx);
            self.unused_timeout(key, cx);
            let process = &mut self.processes[key.0];
            match process.life {
                Life::Cooling(until) | Life::Barred(until) if until <= cx.now => {
                    process.life = Life::Absent;
                    if !process.turns.is_empty() {
                        self.want(key);
                    }
                }
                _ => {}
            }
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
                && let Some(at) = self.seats[seat.0].numbered(number)
            {
                self.seats[seat.0].close(at);
                self.join_turns(key, seat);
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
        self.effects.push_back(Effect::Stop(key));
    }

    /// Whether the server is known to need a session for each client.
    pub fn is_legacy(&self) -> bool {
        self.era == ServerEra::Legacy
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
