//! From processes to clients: each line goes to the one whose number it bears, under what that one wrote in its place.

use std::ops::Range;

use log::debug;

use super::edit::Edits;
use super::process::Owner;
use super::seat::{Asks, State};
use super::server_line::{self, ServerLine, Unattributed};
use super::{Context, Effect, ProcessKey, SeatKey, Share};
use crate::buffers::budget::UNCHARGED_BYTES;
use crate::protocol::envelope::Message;
use crate::protocol::lines::{Line, LineLimits};
use crate::protocol::own_messages::{self, Delivered, ErrorReason, Loss};
use crate::protocol::skip::Skipped;

/// A line of a process may be longer by this than one of a client may: our numbers may be longer than its ids.
const LONGER_BYTES: usize = 32;

/// With as many bytes waiting, a client that takes nothing is not waited for for ever.
pub const STALL_BYTES: usize = 1024 * 1024;

/// A process that reads nothing is told nothing that nobody waits for once as many bytes wait for it.
const MAX_UNREAD_BYTES: usize = 1024 * 1024;

impl Share {
    /// A process has written these bytes. It is always read.
    pub fn process_bytes(&mut self, key: ProcessKey, bytes: &[u8], cx: &mut Context<'_>) {
        self.processes[key.0].moved(cx.now);
        let mut input = bytes;
        while !input.is_empty() {
            let limits = LineLimits {
                max_bytes: self.limits.max_message_bytes + LONGER_BYTES,
                room: cx.memory.available(),
            };
            let line = self.processes[key.0].splitter.next(&mut input, limits);
            match line {
                None => {}
                Some(Line::Borrowed(line)) => self.process_line(key, line, cx),
                Some(Line::Buffered { bytes, len }) => {
                    self.process_line(key, &bytes[..len], cx);
                    cx.memory.give_back(bytes);
                }
                Some(Line::Skipped(skipped, _)) => self.too_long(key, &skipped, cx),
            }
        }
        self.dispatch(key, cx);
        self.stop_if_done(key);
        self.recharge_process(key, cx);
        self.house_homeless(cx);
    }

    fn process_line(&mut self, key: ProcessKey, line: &[u8], cx: &mut Context<'_>) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let Ok(message) = Message::read(line) else {
            self.effects.push_back(Effect::NoMessage(key, line.into()));
            return;
        };
        if self.probe_line(key, line, &message, cx) || self.greeting_line(key, line, &message, cx) {
            return;
        }
        let read = if self.processes[key.0].is_legacy() {
            server_line::read_legacy
        } else {
            server_line::read
        };
        match read(line, &message) {
            ServerLine::Response(number, at) => self.response(key, number, line, &at, cx),
            ServerLine::Progress(number, at) => self.progress(key, number, line, at, cx),
            ServerLine::Cancelled(number, at) => self.cancelled(key, number, line, &at, cx),
            ServerLine::Subscribed {
                number,
                at,
                is_acknowledgment,
            } => {
                if is_acknowledgment {
                    let listens = &mut self.processes[key.0].listens;
                    listens.acknowledge(number, line, at.clone());
                }
                self.subscribed(key, number, line, &at, cx);
            }
            ServerLine::ListChanged => self.list_changed(key, line, cx),
            ServerLine::Updated(uri) => self.updated(key, &uri, line, cx),
            ServerLine::Request { id, is_ping } => self.asked(key, id, is_ping, cx),
            ServerLine::Unattributed(what) => self.unattributed(key, what),
        }
    }

    pub(super) fn unattributed(&mut self, key: ProcessKey, what: Unattributed) {
        self.drops.server(what);
        debug!(
            "shared server {}: dropped, as nobody can tell for whom it is ({what:?})",
            key.0
        );
    }

    /// A server that is shared can't ask anybody.
    fn asked(&mut self, key: ProcessKey, id: &[u8], is_ping: bool, cx: &mut Context<'_>) {
        let id = String::from_utf8_lossy(id);
        let line = if is_ping {
            own_messages::empty_result(&id)
        } else {
            let text = "this server has many clients, and can ask none of them";
            let (reason, loss) = (ErrorReason::MethodNotFound, Loss::default());
            own_messages::error(Some(&id), reason, text, loss)
        };
        if self.processes[key.0].outbox.len() < MAX_UNREAD_BYTES {
            self.tell(key, (line + "\n").into_bytes(), cx);
        }
    }

    fn response(
        &mut self,
        key: ProcessKey,
        number: u64,
        line: &[u8],
        at: &Range<usize>,
        cx: &mut Context<'_>,
    ) {
        match self.processes[key.0].end(number) {
            None => self.unattributed(key, Unattributed::Response),
            Some(Owner::Proxy) => {}
            Some(Owner::Request { seat: None, .. }) => self.drops.late += 1,
            Some(Owner::Request {
                seat: Some(seat), ..
            }) => {
                self.note_answer(key, seat, number, line, at, cx);
                if let Some(id) = self.close(seat, number, cx) {
                    let mut edits = Edits::default();
                    edits.replace(at.clone(), id.as_bytes());
                    self.respond(seat, &id, edits.apply(line), cx);
                }
            }
            Some(Owner::Listen) => {
                let inner = server_line::subscription_in_result(line);
                let members = self.processes[key.0].listens.end(number);
                for (member, seat) in members {
                    let Some(id) = self.close(seat, member, cx) else {
                        continue;
                    };
                    let mut edits = Edits::default();
                    edits.replace(at.clone(), id.as_bytes());
                    if let Some(inner) = &inner {
                        edits.replace(inner.clone(), id.as_bytes());
                    }
                    self.respond(seat, &id, edits.apply(line), cx);
                }
            }
        }
    }

    /// Notes what the answer to a request means, besides for the client.
    fn note_answer(
        &mut self,
        key: ProcessKey,
        seat: SeatKey,
        number: u64,
        line: &[u8],
        at: &Range<usize>,
        cx: &Context<'_>,
    ) {
        let place = self.seats.get(seat.0);
        let open = place.and_then(|seat| Some(&seat.open[seat.open.numbered(number)?]));
        match open.map(|open| open.asks().clone()) {
            Some(Asks::Discover(version)) => self.discovered.note(&version, line, at, cx.now),
            Some(asks @ Asks::Subscribe { .. }) if server_line::is_error(line) => {
                self.undo_subscription(seat, &asks, key);
            }
            _ => {}
        }
    }

    /// A request is over. Returns its id as the client wrote it, unless the client does not wait for the response.
    pub(super) fn close(
        &mut self,
        key: SeatKey,
        number: u64,
        cx: &mut Context<'_>,
    ) -> Option<String> {
        let seat = self.seats.get_mut(key.0)?;
        let at = seat.open.numbered(number)?;
        let open = seat.close(at);
        if let State::Listening(_) = open.state {
            seat.listens -= 1;
        }
        let is_wanted = open.state != State::Cancelled;
        if let Some(process) = open.process {
            self.may_send_more(key, process, cx);
        }
        self.recharge_seat(key, cx);
        self.note_over(key, cx);
        if !is_wanted {
            self.drops.late += 1;
        }
        is_wanted.then(|| open.id.to_string())
    }

    /// Delivers a response, unless it is too long with the client's id in it.
    pub(super) fn respond(&mut self, seat: SeatKey, id: &str, line: Vec<u8>, cx: &mut Context<'_>) {
        if line.len() > self.limits.max_message_bytes + 1 {
            self.lose(seat, id, ErrorReason::ResponseTooLarge, TOO_LONG, None, cx);
        } else {
            self.deliver(seat, line, cx);
        }
    }

    /// Tells a client that the response to a request which was sent won't come.
    pub(super) fn lose(
        &mut self,
        seat: SeatKey,
        id: &str,
        reason: ErrorReason,
        text: &str,
        status: Option<&str>,
        cx: &mut Context<'_>,
    ) {
        let loss = Loss {
            supported: None,
            status,
            delivered: Some(Delivered::Yes),
        };
        self.errors.note(reason);
        let line = own_messages::error(Some(&id), reason, text, loss) + "\n";
        self.deliver(seat, line.into_bytes(), cx);
    }

    fn too_long(&mut self, key: ProcessKey, skipped: &Skipped, cx: &mut Context<'_>) {
        self.effects.push_back(Effect::TooLong(key, skipped.len));
        let number = skipped.id.as_ref().filter(|_| !skipped.has_method);
        let Some(number) = number.and_then(|id| server_line::number(id.to_string().as_bytes()))
        else {
            return self.unattributed(key, Unattributed::TooLong);
        };
        let members = match self.processes[key.0].end(number) {
            Some(Owner::Request { seat, .. }) => {
                seat.map(|seat| (number, seat)).into_iter().collect()
            }
            Some(Owner::Listen) => self.processes[key.0].listens.end(number),
            Some(Owner::Proxy) | None => Vec::new(),
        };
        for (member, seat) in members {
            if let Some(id) = self.close(seat, member, cx) {
                self.lose(seat, &id, ErrorReason::ResponseTooLarge, TOO_LONG, None, cx);
            }
        }
    }

    fn progress(
        &mut self,
        key: ProcessKey,
        number: u64,
        line: &[u8],
        at: Range<usize>,
        cx: &mut Context<'_>,
    ) {
        let process = &self.processes[key.0];
        let seat = match process.owners.get(&number) {
            Some(Owner::Request { seat, .. }) => *seat,
            Some(Owner::Listen) => {
                let members = process.listens.members(number);
                let opener = members.into_iter().find(|(member, _)| *member == number);
                opener.map(|(_, seat)| seat)
            }
            Some(Owner::Proxy) | None => None,
        };
        let token = seat.and_then(|seat| {
            let seat = self.seats.get(seat.0)?;
            let open = &seat.open[seat.open.numbered(number)?];
            let is_wanted = open.state != State::Cancelled;
            open.token().filter(|_| is_wanted).map(<[u8]>::to_vec)
        });
        let (Some(seat), Some(token)) = (seat, token) else {
            return self.unattributed(key, Unattributed::Notification);
        };
        let mut edits = Edits::default();
        edits.replace(at, &token);
        self.deliver_notification(seat, edits.apply(line), cx);
    }

    /// The process does not go on with a request, which is over by that.
    fn cancelled(
        &mut self,
        key: ProcessKey,
        number: u64,
        line: &[u8],
        at: &Range<usize>,
        cx: &mut Context<'_>,
    ) {
        let members = match self.processes[key.0].end(number) {
            Some(Owner::Request { seat, .. }) => {
                seat.map(|seat| (number, seat)).into_iter().collect()
            }
            Some(Owner::Listen) => self.processes[key.0].listens.end(number),
            Some(Owner::Proxy) | None => {
                self.unattributed(key, Unattributed::Notification);
                Vec::new()
            }
        };
        for (member, seat) in members {
            if let Some(id) = self.close(seat, member, cx) {
                let mut edits = Edits::default();
                edits.replace(at.clone(), id.as_bytes());
                self.deliver_notification(seat, edits.apply(line), cx);
            }
        }
    }

    fn subscribed(
        &mut self,
        key: ProcessKey,
        number: u64,
        line: &[u8],
        at: &Range<usize>,
        cx: &mut Context<'_>,
    ) {
        let members = self.processes[key.0].listens.members(number);
        if members.is_empty() {
            self.unattributed(key, Unattributed::Notification);
        }
        for (member, seat) in members {
            self.notify(seat, member, line, at.clone(), cx);
        }
    }

    /// Delivers a notification of a subscription under the id of the request `member`.
    pub(super) fn notify(
        &mut self,
        key: SeatKey,
        member: u64,
        line: &[u8],
        at: Range<usize>,
        cx: &mut Context<'_>,
    ) {
        let Some(seat) = self.seats.get(key.0) else {
            return;
        };
        let Some(found) = seat.open.numbered(member) else {
            return;
        };
        let id = seat.open[found].id.to_string();
        let mut edits = Edits::default();
        edits.replace(at, id.as_bytes());
        self.deliver_notification(key, edits.apply(line), cx);
    }

    pub(super) fn deliver_notification(
        &mut self,
        seat: SeatKey,
        line: Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        if line.len() > self.limits.max_message_bytes + 1 {
            self.drops.server(Unattributed::TooLong);
        } else {
            self.deliver(seat, line, cx);
        }
    }

    /// Has a line wait for the client of a seat.
    pub(super) fn deliver(&mut self, key: SeatKey, line: Vec<u8>, cx: &mut Context<'_>) {
        let Some(seat) = self.seats.get_mut(key.0).filter(|seat| !seat.is_closing) else {
            return;
        };
        seat.to_client.push(line, cx.memory);
        if seat.to_client.len() >= STALL_BYTES && seat.stalled_since.is_none() {
            seat.stalled_since = Some(cx.now);
            self.stalled.push(key);
        }
        self.wake_seat(key);
        self.recharge_seat(key, cx);
        if cx.memory.available() == 0 {
            self.close_heaviest(cx);
        }
    }

    /// The memory is spent: the client for which most waits is closed.
    fn close_heaviest(&mut self, cx: &mut Context<'_>) {
        let seats = self.seats.iter().filter(|(_, seat)| !seat.is_closing);
        let heaviest = seats.max_by_key(|(_, seat)| seat.to_client.capacity());
        if let Some((key, seat)) = heaviest
            && seat.to_client.len() > UNCHARGED_BYTES
        {
            self.close_seat(SeatKey(key), "no memory is left for what waits for it", cx);
        }
    }

    /// The session of a seat is to be ended: its client does not take what it gets.
    pub(super) fn close_seat(&mut self, key: SeatKey, why: &'static str, cx: &mut Context<'_>) {
        let Some(seat) = self.seats.get_mut(key.0).filter(|seat| !seat.is_closing) else {
            return;
        };
        seat.is_closing = true;
        seat.to_client.clear();
        self.effects.push_back(Effect::Close(key, why.into()));
        self.recharge_seat(key, cx);
    }
}

const TOO_LONG: &str = "the server's response is too long";
