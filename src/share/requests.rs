//! From clients to processes: what is asked gets a number, waits for its turn, and is sent; what is taken back goes.

use super::client_line::{self, ClientLine, Dropped, Refused, Request, What};
use super::edit::Edits;
use super::era::ServerEra;
use super::process::{Life, Owner};
use super::resources::Passes;
use super::seat::{Asks, MAX_LISTENS, Open, SeatEra, State, Waiting};
use super::{Context, ProcessKey, SeatKey, Share, listens};
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::protocol::envelope::Message;
use crate::protocol::id::RequestId;
use crate::protocol::own_messages::{self, Delivered, ErrorReason, Loss};

/// What a seat may send in its turn, in bytes, unless a single line is longer: a pipe's worth.
const TURN_BYTES: usize = 64 * 1024;

/// A cancellation that is longer is written anew, without what the client has added: what it may add has no limit of its own.
const MAX_CANCELLATION_BYTES: usize = 4096;

impl Share {
    /// The client of a seat has sent these lines, which are messages.
    pub fn client_lines(&mut self, seat: SeatKey, lines: &[u8], cx: &mut Context<'_>) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', lines).chain([lines.len()]) {
            let line = &lines[start..end];
            start = end + 1;
            if self.seats.contains(seat.0)
                && let Ok(message) = Message::read(line)
            {
                self.client_line(seat, line, &message, cx);
            }
        }
        self.recharge_seat(seat, cx);
    }

    fn client_line(
        &mut self,
        seat: SeatKey,
        line: &[u8],
        message: &Message<'_>,
        cx: &mut Context<'_>,
    ) {
        match client_line::read(line, message) {
            ClientLine::Dropped(what) => self.drops.client(what),
            ClientLine::Initialized => {
                if !matches!(self.seats[seat.0].era, SeatEra::Legacy(_)) {
                    self.drops.client(Dropped::Notification);
                }
            }
            ClientLine::Refused(refused) => self.refuse_all(seat, &refused, cx),
            ClientLine::Cancelled(id, at) => {
                let id = RequestId::of(id);
                if !self.cancel(seat, &id, line, at, cx) {
                    self.drops.unknown_cancellations += 1;
                }
            }
            ClientLine::Request(request) => {
                if let Err((reason, text)) = self.request(seat, line, &request, cx) {
                    self.refuse(seat, Some(request.id.as_ref()), reason, text, cx);
                }
            }
        }
    }

    fn refuse_all(&mut self, seat: SeatKey, refused: &Refused<'_>, cx: &mut Context<'_>) {
        if refused.ids.is_empty() {
            self.refuse(seat, None, refused.reason, refused.text, cx);
        }
        for id in &refused.ids {
            self.refuse(seat, Some(id.as_ref()), refused.reason, refused.text, cx);
        }
    }

    /// Answers with an error what reached no process.
    pub(super) fn refuse(
        &mut self,
        seat: SeatKey,
        id: Option<&[u8]>,
        reason: ErrorReason,
        text: &str,
        cx: &mut Context<'_>,
    ) {
        let supported = match (&self.era, reason) {
            (ServerEra::Modern { supported }, ErrorReason::UnsupportedVersion) => {
                Some(supported.clone())
            }
            _ => None,
        };
        let loss = Loss {
            supported: supported.as_deref(),
            status: None,
            delivered: matches!(reason.code(), 502 | 503).then_some(Delivered::No),
        };
        let id = id.map(|id| String::from_utf8_lossy(id));
        let id = id.as_ref().map(|id| id as &dyn std::fmt::Display);
        self.errors.note(reason);
        let line = own_messages::error(id, reason, text, loss);
        self.deliver(seat, (line + "\n").into_bytes(), cx);
    }

    /// Takes a request in, or says why not.
    fn request(
        &mut self,
        key: SeatKey,
        line: &[u8],
        request: &Request<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), (ErrorReason, &'static str)> {
        let id = RequestId::new(request.id);
        let seat = &self.seats[key.0];
        if seat.open.wanted(&id).is_some() {
            let text = "the id is that of a request that was not answered yet";
            return Err((ErrorReason::InvalidRequest, text));
        }
        self.admit(key, request, cx)?;
        let seat = &self.seats[key.0];
        if self.suspects.is_quarantined(&seat.identity, cx.now) {
            let text = "servers died of requests from there: for a while none is served";
            return Err((ErrorReason::Quarantined, text));
        }
        if self.answer_at_once(key, line, request, cx) {
            return Ok(());
        }
        let seat = &self.seats[key.0];
        let is_listen = request.is_listen();
        if is_listen && seat.listens >= MAX_LISTENS {
            let text = "16 requests to listen are open already";
            return Err((ErrorReason::InFlightLimit, text));
        }
        if seat.is_full(line.len()) {
            let text = "too much waits to be sent already: the limits are 1024 requests and 1 MiB";
            return Err((ErrorReason::InFlightLimit, text));
        }
        let waiting = self.renumber(line, request);
        let seat = &mut self.seats[key.0];
        let is_free = seat.waiting_bytes + waiting.line.len() <= UNCHARGED_BYTES;
        if waiting.line.len() > self.limits.max_message_bytes + 1 {
            let text = "the line is too long once the server's form of the id is in it";
            return Err((ErrorReason::TooLarge, text));
        }
        if !is_free && waiting.line.len() > cx.memory.available() {
            let text = "there is no memory left for the line";
            return Err((ErrorReason::TooLarge, text));
        }
        let token = request.token.clone().map(|token| &line[token]);
        let open = Open::new(id, waiting.number, State::Waiting);
        seat.open.push(open.with(token, Asks::of(line, request)));
        seat.listens += usize::from(is_listen);
        seat.push_waiting(waiting);
        self.seek_turn(key, cx);
        Ok(())
    }

    /// Answers a request that no process has to be asked for. Returns whether it was one.
    fn answer_at_once(
        &mut self,
        key: SeatKey,
        line: &[u8],
        request: &Request<'_>,
        cx: &mut Context<'_>,
    ) -> bool {
        if let SeatEra::Legacy(_) = self.seats[key.0].era {
            return self.answer_legacy(key, request, cx);
        }
        if request.what != What::Discover {
            return false;
        }
        let version = request.version(line);
        let Some((answer, at)) = self.discovered.find(&version, cx.now) else {
            return false;
        };
        let id = request.id.to_string();
        let mut edits = Edits::default();
        edits.replace(at, id.as_bytes());
        let answer = edits.apply(answer);
        self.respond(key, &id, answer, cx);
        true
    }

    /// The line as a process is to get it.
    fn renumber(&mut self, line: &[u8], request: &Request<'_>) -> Waiting {
        self.last_number += 1;
        let number = self.last_number;
        let text = number.to_string();
        let mut edits = Edits::default();
        edits.replace(request.id_at.clone(), text.as_bytes());
        if let Some(token) = &request.token {
            edits.replace(token.clone(), text.as_bytes());
        }
        if let Some(log_level) = &request.log_level {
            edits.remove(line, log_level);
        }
        let is_listen = request.is_listen();
        Waiting {
            number,
            line: edits.apply(line),
            listens_to: is_listen.then(|| request.listens_to(line).into()),
        }
    }

    /// Has a seat take its turn, if it has something to send. That it may send nothing now is found out then.
    pub(super) fn seek_turn(&mut self, key: SeatKey, cx: &mut Context<'_>) {
        let Some(seat) = self.seats.get(key.0) else {
            return;
        };
        if seat.waiting.is_empty() && !seat.needs_process() {
            return;
        }
        let Some(process) = self.pin(key, cx) else {
            return;
        };
        self.join_turns(process, key);
        self.dispatch(process, cx);
    }

    /// A request of a seat is over at this process, which sends what it can after that.
    pub(super) fn may_send_more(&mut self, key: SeatKey, at: ProcessKey, cx: &mut Context<'_>) {
        if self.seats[key.0].process == Some(at) {
            self.join_turns(at, key);
        } else {
            self.seek_turn(key, cx);
        }
    }

    pub(super) fn join_turns(&mut self, process: ProcessKey, key: SeatKey) {
        let seat = &mut self.seats[key.0];
        if !seat.has_turn && !seat.waiting.is_empty() {
            seat.has_turn = true;
            let turns = &mut self.processes[process.0].turns;
            turns.join(&seat.identity, key);
        }
    }

    /// Sends to a process what there is room for.
    pub(super) fn dispatch(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        loop {
            let process = &mut self.processes[key.0];
            if process.life != Life::Up || process.is_stopped {
                return;
            }
            if process.is_worn(&self.limits, cx.now) {
                return self.retire(key, cx);
            }
            if !process.has_room() {
                return;
            }
            let turns = std::mem::take(&mut process.turns);
            let mut turns = turns;
            let next = turns.next(|identity| process.has_its_share(identity));
            process.turns = turns;
            let Some(seat) = next else {
                return;
            };
            self.take_turn(key, seat, cx);
        }
    }

    fn take_turn(&mut self, process: ProcessKey, key: SeatKey, cx: &mut Context<'_>) {
        let mut used = 0;
        let is_solo = process == self.solo();
        self.seats[key.0].has_turn = false;
        while used < TURN_BYTES {
            let (seat, at) = (&mut self.seats[key.0], &self.processes[process.0]);
            let is_held_back =
                || at.has_its_share(&seat.identity) && at.turns.has_others(&seat.identity);
            let is_worn = at.is_worn(&self.limits, cx.now);
            if is_worn || !at.has_room() || is_held_back() {
                break;
            }
            let most = if seat.is_suspect {
                1
            } else {
                self.limits.in_flight
            };
            let Some(next) = seat.next_to_send(most, !is_solo) else {
                self.recharge_seat(key, cx);
                return;
            };
            let len = seat.waiting[next].line.len();
            if used > 0 && used + len > TURN_BYTES {
                break;
            }
            used += len;
            let Some(waiting) = seat.take_next(next) else {
                return;
            };
            self.send(process, key, waiting, cx);
        }
        self.recharge_seat(key, cx);
        self.join_turns(process, key);
    }

    fn send(&mut self, to: ProcessKey, key: SeatKey, waiting: Waiting, cx: &mut Context<'_>) {
        let Waiting {
            number,
            line,
            listens_to,
        } = waiting;
        let Some(at) = self.seats[key.0].open.numbered(number) else {
            return;
        };
        let passes = self.note_resource(key, at, to);
        if passes != Passes::Yes {
            return self.not_sent(key, at, &passes, cx);
        }
        let (process, seat) = (&mut self.processes[to.0], &mut self.seats[key.0]);
        seat.open[at].process = Some(to);
        if let Some(content) = listens_to {
            if let Some(listen) = process.listens.find(&content) {
                seat.open[at].state = State::Listening(listen);
                if let Some(agreed) = process.listens.join(listen, number, key) {
                    self.notify(key, number, &agreed.line, agreed.at, cx);
                }
                return;
            }
            if process.listens.len() >= listens::MAX_LISTENS {
                let open = seat.close(at);
                seat.listens -= 1;
                let text = "the server has as many subscriptions as it may have";
                let id = open.id.to_string();
                return self.refuse(
                    key,
                    Some(id.as_bytes()),
                    ErrorReason::InFlightLimit,
                    text,
                    cx,
                );
            }
            seat.open[at].state = State::Listening(number);
            process.listens.open(number, content, key);
            process.owners.insert(number, Owner::Listen);
        } else {
            seat.open[at].state = State::Sent;
            seat.at_process += 1;
            process.begin(number, key, seat.identity.clone(), cx.now);
            if seat.is_suspect {
                self.suspects.begin(key, cx.now);
            }
        }
        process.outbox.push_buffer(line, Some(number), cx.memory);
        self.wake_process(to, cx);
    }

    /// A request is answered that was about to be sent.
    fn not_sent(&mut self, key: SeatKey, at: usize, passes: &Passes, cx: &mut Context<'_>) {
        let id = self.seats[key.0].close(at).id.to_string();
        if *passes == Passes::TooMany {
            return self.refuse_subscription(key, &id, cx);
        }
        let line = own_messages::empty_result(&id) + "\n";
        self.deliver(key, line.into_bytes(), cx);
    }

    /// The client takes a request back. Returns whether there was one.
    fn cancel(
        &mut self,
        key: SeatKey,
        id: &RequestId,
        line: &[u8],
        at: std::ops::Range<usize>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(found) = self.seats[key.0].open.wanted(id) else {
            return false;
        };
        if let Some((process, number)) = self.withdraw(key, found, false, cx) {
            let text = number.to_string();
            let mut edits = Edits::default();
            edits.replace(at, text.as_bytes());
            if line.len() <= MAX_CANCELLATION_BYTES {
                self.tell(process, edits.apply(line), cx);
            } else {
                self.tell_cancelled(process, number, "the client has taken it back", cx);
            }
        }
        true
    }

    /// Nobody waits for a request any more. Returns its process and its number there if that is to be told.
    pub(super) fn withdraw(
        &mut self,
        key: SeatKey,
        at: usize,
        leaves: bool,
        cx: &mut Context<'_>,
    ) -> Option<(ProcessKey, u64)> {
        let seat = &mut self.seats[key.0];
        let (number, state) = (seat.open[at].number, seat.open[at].state);
        let process = seat.open[at].process;
        match state {
            State::Initializing => {
                seat.close(at);
                None
            }
            State::Waiting => {
                seat.close(at);
                if seat.take_waiting(number)?.listens_to.is_some() {
                    seat.listens -= 1;
                }
                None
            }
            State::Sent | State::Cancelled => {
                seat.open[at].state = State::Cancelled;
                let process = process?;
                self.processes[process.0].give_up(number, leaves, cx.now);
                (state == State::Sent).then_some((process, number))
            }
            State::Listening(listen) => {
                seat.close(at);
                seat.listens -= 1;
                let key = process?;
                let process = &mut self.processes[key.0];
                if !process.listens.part(listen, number) {
                    return None;
                }
                process.end(listen);
                Some((key, listen))
            }
        }
    }

    pub(super) fn tell_cancelled(
        &mut self,
        process: ProcessKey,
        number: u64,
        why: &str,
        cx: &mut Context<'_>,
    ) {
        let line = own_messages::cancelled(&number, why) + "\n";
        self.tell(process, line.into_bytes(), cx);
    }

    /// Sends a process a line that nobody waits for.
    pub(super) fn tell(&mut self, to: ProcessKey, line: Vec<u8>, cx: &mut Context<'_>) {
        let process = &mut self.processes[to.0];
        if process.is_running() {
            process.outbox.push_buffer(line, None, cx.memory);
            self.wake_process(to, cx);
        }
    }
}
