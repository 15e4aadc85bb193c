//! A turn of the simulated loop, in the phases of the real ones.

use std::time::Duration;

use mcp_tcp_proxy::session::report::EndReason;
use mcp_tcp_proxy::session::{Action, Context, Event, Session};

use crate::journal::is_unused;
use crate::place::{Place, Route};
use crate::server::Kind;
use crate::stats::Fault;
use crate::trace;
use crate::world::{Due, World};

/// Deadlines of one turn. A session that sets one that it does not see to is stopped here.
const MAX_TIMEOUTS: usize = 1000;

/// After this time without anything taken, a client may be given up.
const STALL_TIME: Duration = Duration::from_secs(30);

/// The server of a place, while the place itself is held.
macro_rules! server_of {
    ($world:expr, $place:expr) => {
        $place.server.and_then(|key| $world.servers.get_mut(key))
    };
}

impl World {
    pub fn cx(&mut self) {
        self.stats.steps += 1;
        for (_, place) in &mut self.places {
            place.heard_before_turn = place.heard;
        }
        self.run_ready();
        self.fire_timers();
        self.apply_actions();
        self.start_servers();
        self.wake_for_memory();
        self.check_totals();
    }

    fn run_ready(&mut self) {
        for _ in 0..self.run_queue.len() {
            let Some(slot) = self.run_queue.pop_front() else {
                return;
            };
            let Some(place) = self.places.get_mut(slot) else {
                continue;
            };
            place.queued = false;
            let mut cx = Context {
                now: self.now,
                settings: place.kind.choose(&self.proxy, &self.connector),
                memory: &mut self.memory,
                actions: &mut self.actions,
            };
            place.run(server_of!(self, place), &mut self.scratch, &mut cx);
            let ready = place.is_ready(server_of!(self, place), &cx);
            if place.session.waits_for_memory(cx.memory) && !self.waiting_for_memory.contains(&slot)
            {
                self.waiting_for_memory.push(slot);
            }
            self.after_event(slot);
            if ready {
                self.enqueue(slot);
            }
            self.check_buffers(slot);
        }
    }

    fn wake_for_memory(&mut self) {
        if self.memory.has_headroom() {
            for slot in std::mem::take(&mut self.waiting_for_memory) {
                self.enqueue(slot);
            }
        }
    }

    fn fire_timers(&mut self) {
        let mut fired = 0;
        while let Some(timer) = self.timers.pop() {
            fired += 1;
            assert!(
                fired <= MAX_TIMEOUTS,
                "a deadline is not seen to: {timer:?}"
            );
            match timer {
                Due::Session(slot) => {
                    let place = self
                        .places
                        .get_mut(slot)
                        .expect("a timer of a session that was freed");
                    let at = place.deadline.at();
                    place.deadline.fired();
                    assert!(
                        at.is_some_and(|at| at <= self.now),
                        "a timer that the session has not set: {at:?}"
                    );
                    let time = Duration::from_secs(1) + self.now.saturating_since(self.began);
                    self.with_session(slot, |session, cx| {
                        session.handle(Event::Deadline { unix_time: time }, cx);
                    });
                }
                Due::Server(key) => self.fire_server_timer(key),
                Due::Start => self.paused.fired(),
            }
        }
    }

    /// Hands an event to a session.
    pub fn with_session(
        &mut self,
        slot: usize,
        event: impl FnOnce(&mut Session, &mut Context<'_>),
    ) {
        let place = &mut self.places[slot];
        let mut cx = Context {
            now: self.now,
            settings: place.kind.choose(&self.proxy, &self.connector),
            memory: &mut self.memory,
            actions: &mut self.actions,
        };
        event(&mut place.session, &mut cx);
        self.after_event(slot);
        self.enqueue(slot);
    }

    pub fn after_event(&mut self, slot: usize) {
        self.pending_actions
            .extend(self.actions.drain(..).map(|action| (slot, action)));
        if let Some(place) = self.places.get_mut(slot) {
            let settings = place.kind.choose(&self.proxy, &self.connector);
            let deadline = place.session.next_deadline(settings);
            let timers = &mut self.timers;
            place.deadline.set(deadline, Due::Session(slot), timers);
            self.check_unused(slot);
        }
    }

    pub fn enqueue(&mut self, slot: usize) {
        if let Some(place) = self.places.get_mut(slot).filter(|place| !place.queued) {
            place.queued = true;
            self.run_queue.push_back(slot);
        }
    }

    pub fn apply_actions(&mut self) {
        while let Some((slot, action)) = self.pending_actions.pop_front() {
            self.apply(slot, action);
            let is_finished = self.places.get(slot).is_some_and(|place| {
                // The stdio side ends as soon as its client is done with.
                let is_done = place.kind == Kind::Connection && place.fate != Route::Open;
                place.session.is_finished() || is_done
            });
            if is_finished && !self.pending_actions.iter().any(|(other, _)| *other == slot) {
                self.free(slot);
            }
        }
    }

    fn apply(&mut self, slot: usize, action: Action) {
        let Some(place) = self.places.get_mut(slot) else {
            panic!("an action of a session that was freed: {action:?}");
        };
        trace::note(|| format!("{}: {action:?}", place.number));
        match action {
            Action::StartUpstream => {
                self.starting.push_back(slot);
                self.check_demand(&self.places[slot]);
            }
            Action::StopUpstream => self.stop_server(slot),
            Action::ReleaseUpstream => self.release_server(slot),
            Action::ShutdownClient => {
                assert!(
                    place.session.to_client().is_empty(),
                    "the client is shut down before it has everything"
                );
                assert!(
                    !place.socket.output.is_mid_line(),
                    "the client is shut down in the middle of a line"
                );
                let is_unused = place.session.failure().is_some_and(is_unused);
                let is_neglected = place.socket.input.is_neglected();
                assert!(
                    !is_unused || !is_neglected,
                    "the end of a session that is not used, while its client says something"
                );
                place.fate = Route::ShutDown;
                place.heard = place.heard_before_turn;
                // It sees the end, and goes.
                place.socket.writes = false;
                place.client.sees_end(&mut place.socket);
                self.enqueue(slot);
            }
            Action::CloseClient => {
                self.check_close(slot);
                let place = &mut self.places[slot];
                place.fate = Route::Closed;
                place.socket.reads = false;
                place.socket.writes = false;
                place.client.gone = true;
            }
        }
    }

    /// A client is closed when it has everything, or is gone, or takes nothing.
    fn check_close(&self, slot: usize) {
        let place = &self.places[slot];
        let has_everything =
            place.session.to_client().is_empty() && !place.socket.output.is_mid_line();
        let is_done =
            place.fate == Route::ShutDown || (place.socket.input.end_read && has_everything);
        let stalled = self.now.saturating_since(place.last_taken) >= STALL_TIME;
        assert!(
            is_done || place.socket.output.broken.is_some() || stalled,
            "session {} closes a client that is there: {:?}",
            place.number,
            place.session.failure()
        );
    }

    /// Frees a session, as the proxy does.
    fn free(&mut self, slot: usize) {
        if let Some(key) = self.places[slot].connecting {
            self.drop_attempt(slot, key);
        }
        if self.places[slot].kind == Kind::Connection {
            self.release_server(slot);
        }
        let mut place = self.places.remove(slot);
        place.deadline.clear(&mut self.timers);
        place.session.release_memory(&mut self.memory);
        trace::note(|| format!("{}", place.session.summary(self.now)));
        self.check_freed(&place);
    }

    fn check_freed(&mut self, place: &Place) {
        assert!(
            place.server.is_none(),
            "a session is freed before it has let go of its server"
        );
        let journal = &place.journal;
        let reason = place.session.failure();
        if let Some(reason) = reason
            && place.kind == Kind::Process
        {
            let mcp_tcp_proxy::session::Backend::Process { max_restarts } = self.proxy.role else {
                return;
            };
            journal.check_reason(reason, self.proxy.restarts_upstream, max_restarts);
        }
        if place.is_refused {
            journal.check_refused(place.heard);
        }
        let was_there = place.socket.output.broken.is_none() && !place.broke;
        let stalled = matches!(reason, Some(EndReason::Stalled(_)))
            || self.now.saturating_since(place.last_taken) >= STALL_TIME;
        if was_there && !stalled {
            journal.check_end(place.heard, reason, self.calm && !place.is_refused);
        }
        self.stats.client_lines += journal.lines.len() as u64;
        self.stats.server_lines += journal.said.len() as u64;
        self.stats.requests += journal.requests.len() as u64;
        self.stats.proxy_errors += journal.proxy_errors;
        self.stats.resent += journal.resent;
        self.stats.replays += journal.replays;
        self.stats
            .faults(Fault::ShortWrite, place.socket.output.short_writes);
    }
}
