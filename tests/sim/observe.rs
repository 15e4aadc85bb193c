//! What is seen of the sessions while the loop runs: what they want done, which servers they get, how they end.

use std::time::Duration;

use mcp_tcp_proxy::session::report::EndReason;
use mcp_tcp_proxy::session::{Action, Backend, Session, VANISH_TIME};

use crate::below::Below;
use crate::journal::{Swap, is_unused};
use crate::place::{Place, Route};
use crate::server::{Kind, Server};
use crate::stats::Fault;
use crate::trace;

/// After this time without anything taken, a client may be given up.
const STALL_TIME: Duration = Duration::from_secs(30);

/// Between two starts of a session's servers is this at least, unless the first one died of a probe.
const COOLDOWN: Duration = Duration::from_secs(1);

impl Below {
    /// A place and its server.
    pub fn sides(&mut self, slot: usize) -> (&mut Place, Option<&mut Server>) {
        let place = &mut self.places[slot];
        let server = place.server.and_then(|key| self.servers.get_mut(key));
        (place, server)
    }

    pub fn note(&mut self, slot: usize) {
        let now = self.now;
        let (place, server) = self.sides(slot);
        place.note(server, now);
        let place = &mut self.places[slot];
        if let Some(successor) = place.successor {
            place.note_sent(&mut self.servers[successor]);
        }
    }

    /// A session wants something done, which is done next.
    pub fn action_taken(&mut self, slot: usize, action: Action, session: &Session) {
        self.note(slot);
        self.check_unused(slot, session);
        let place = &mut self.places[slot];
        trace::note(|| format!("{}: {action:?}", place.number));
        match action {
            Action::StartUpstream => {
                assert!(
                    place.server.is_none(),
                    "a server is asked for while there is one"
                );
                assert!(!place.asks, "a server is asked for twice");
                place.asks = true;
                let is_early = place.started.is_some_and(|at| self.now < at + COOLDOWN);
                assert!(
                    !is_early
                        || place.may_start_at_once
                        || place.is_replaced_at_once
                        || place.kind == Kind::Connection
                        || place.journal.was_probed(),
                    "a server is replaced without a pause"
                );
                if place.kind == Kind::Process {
                    self.order.asks(slot, !place.journal.servers.is_empty());
                }
                self.check_demand(&self.places[slot]);
            }
            Action::BeginSwap => place.journal.was_swapped = true,
            Action::MoveUpstream if session.wants_move() => self.moved(slot),
            Action::EndSwap(end) => self.swap_ended(slot, end),
            Action::StopUpstream if session.is_swapped_in_place() => {
                if let (place, Some(server)) = self.sides(slot) {
                    place.journal.replaced(server.index);
                    place.is_replaced_at_once = true;
                }
            }
            Action::StopUpstream
            | Action::QueueSwap
            | Action::MoveUpstream
            | Action::CheckClient
            | Action::CheckUpstream
            | Action::ResumeAsked
            | Action::LinkSilent
            | Action::MeasureClient => {}
            Action::HibernateUpstream => self.hibernates(slot, session),
            Action::ReleaseUpstream => self.released(slot),
            Action::ShutdownClient => {
                let mut socket = place.socket.borrow_mut();
                assert!(
                    session.to_client().is_empty(),
                    "the client is shut down before it has everything"
                );
                assert!(
                    !socket.output.is_mid_line(),
                    "the client is shut down in the middle of a line"
                );
                assert!(
                    !session.failure().is_some_and(is_unused) || !socket.input.is_neglected(),
                    "the end of a session that is not used, while its client says something"
                );
                place.fate = Route::ShutDown;
                place.heard = place.heard_before_turn;
                // It sees the end, and goes.
                place.client.sees_end(&mut socket);
            }
            Action::CloseClient => {
                self.check_close(slot, session);
                let place = &mut self.places[slot];
                place.fate = Route::Closed;
                place.client.gone = true;
            }
        }
    }

    /// A client is closed when it has everything, or is gone, or takes nothing.
    fn check_close(&self, slot: usize, session: &Session) {
        let place = &self.places[slot];
        let socket = place.socket.borrow();
        let has_everything = session.to_client().is_empty() && !socket.output.is_mid_line();
        // Without a word of the system it is not known what the client has taken, and it gets a second.
        let tells = self.tells_queues && place.kind == Kind::Process;
        let takes_nothing = self.now.saturating_since(place.last_consumed) >= STALL_TIME;
        let was_waited_for =
            !tells || socket.output.unconsumed() == 0 || takes_nothing || socket.input.end_read;
        let is_done = (place.fate == Route::ShutDown && was_waited_for)
            || (socket.input.end_read && has_everything);
        let stalled =
            self.now.saturating_since(place.last_taken) >= STALL_TIME && (!tells || takes_nothing);
        let vanished = place.is_silent_for(VANISH_TIME, self.now);
        assert!(
            is_done || socket.output.broken.is_some() || stalled || vanished,
            "session {} closes a client that is there: {:?}",
            place.number,
            session.failure()
        );
    }

    /// A session has got this server.
    pub fn attached(&mut self, slot: usize, key: usize) {
        let place = &mut self.places[slot];
        assert!(place.server.is_none(), "a second server for a session");
        let server = &mut self.servers[key];
        assert!(server.slot.is_none(), "a server for two sessions");
        if server.is_spare {
            self.stats.fault(Fault::Handed);
            self.order.taken = self.order.taken.max(Some(server.pid));
        }
        self.stats.servers += 1;
        place.server = Some(key);
        server.slot = Some(slot);
        server.is_spare = false;
        server.index = place.journal.server_started();
        place.journal.servers[server.index].wakes = place.may_start_at_once;
        place.start_ended(self.now);
        let is_other = place.versions.iter().any(|it| *it != server.version);
        place.journal.servers[server.index].is_other_version = is_other;
        place.versions.push(server.version);
        place.journal.servers[server.index].may_be_cut_off =
            place.kind == Kind::Connection || server.held_open_until.is_some();
        trace::note(|| {
            let (index, pid) = (server.index, server.pid);
            format!("{}: server {index} starts, pid {pid}", place.number)
        });
        self.order.assigned(slot);
    }

    /// The server that the session has just got is tried in the place of one that was there.
    pub fn attached_in_place(&mut self, slot: usize) {
        if let (place, Some(server)) = self.sides(slot) {
            place.journal.servers[server.index].swap = Swap::InPlace;
        }
    }

    pub fn released(&mut self, slot: usize) {
        let place = &mut self.places[slot];
        let Some(key) = place.server.take() else {
            return;
        };
        let server = &mut self.servers[key];
        let record = &mut place.journal.servers[server.index];
        let hibernated = record.hibernated;
        record.may_be_cut_off |= hibernated;
        assert!(
            server.kind == Kind::Connection || server.reaped || server.kill_refused || hibernated,
            "a server is let go of before it has ended"
        );
        if hibernated {
            place.journal.server_ended(None);
        } else {
            place.journal.losses += 1;
            place.journal.server_ended(server.exit);
        }
        let pipes = server.pipes.borrow();
        assert!(
            !pipes.writes || pipes.output.broken.is_none() || server.kind == Kind::Connection,
            "nobody looks at what a server has left unread"
        );
        let read = pipes.input.read;
        drop(pipes);
        place.journal.servers[server.index].read_at_release = Some(read);
        server.slot = None;
        if server.kind == Kind::Connection {
            self.servers.remove(key);
        }
    }

    /// A session is over, and is forgotten.
    pub fn session_freed(&mut self, slot: usize, session: &Session) {
        self.note(slot);
        self.check_unused(slot, session);
        self.order.leaves(slot);
        let place = self.forget(slot);
        trace::note(|| format!("{} {}", session.label(), session.summary(self.now)));
        self.check_freed(&place, session);
    }

    fn check_freed(&mut self, place: &Place, session: &Session) {
        assert!(
            place.server.is_none() && place.successor.is_none(),
            "a session is freed before it has let go of its server"
        );
        let journal = &place.journal;
        let reason = session.failure();
        if let Some(reason) = reason
            && place.kind == Kind::Process
            && let Backend::Process { max_restarts } = self.proxy.role
        {
            journal.check_reason(reason, self.proxy.restarts_upstream, max_restarts);
        }
        assert!(
            !matches!(reason, Some(EndReason::Unauthorized)) || place.is_revoked,
            "session {} is turned out, and its token is good",
            place.number
        );
        if place.is_refused {
            journal.check_refused(place.heard, self.asks.anything());
        }
        let socket = place.socket.borrow();
        let stalled = matches!(reason, Some(EndReason::Stalled(_)))
            || self.now.saturating_since(place.last_taken) >= STALL_TIME;
        let is_given_up = stalled || place.is_cut_off;
        // Of those that were turned away, the entrance may have heard some.
        let was_served = !place.is_refused && !is_given_up;
        if was_served && socket.output.broken.is_none() && place.vanished_at.is_none() {
            let is_late = self.stop_until.is_some_and(|until| until <= self.now);
            let is_cut_off = is_late || place.is_revoked;
            journal.check_end(place.heard, reason, self.calm, is_cut_off);
        }
        self.stats.client_lines += journal.lines.len() as u64;
        self.stats.server_lines += journal.said.len() as u64;
        self.stats.requests += journal.requests.len() as u64;
        self.stats.proxy_errors += journal.proxy_errors;
        self.stats.resent += journal.resent;
        self.stats.unread += journal.unread;
        self.stats.replays += journal.replays;
        self.stats
            .faults(Fault::ShortWrite, socket.output.short_writes);
    }
}
