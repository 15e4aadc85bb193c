//! What holds for servers that are started on demand, and for sessions that are ended because they are not used.

use std::time::Duration;

use mcp_tcp_proxy::session::idle::IdleLimits;
use mcp_tcp_proxy::session::report::EndReason;
use mcp_tcp_proxy::session::{Session, Spawn};

use crate::below::Below;
use crate::journal::is_unused;
use crate::place::{Place, Route};
use crate::rng::Rng;
use crate::server::{Kind, Server};
use crate::stats::Fault;
use crate::trace;
use mcp_tcp_proxy::util::time::Time;

/// What may wait for a client before it is not heard any more.
const OWN_LINES_BYTES: usize = 64 * 1024;

/// The wheel counts in these, and is never early.
const TICK: Duration = Duration::from_millis(1);

pub fn spawn(rng: &mut Rng) -> Spawn {
    rng.pick(&[Spawn::Eager, Spawn::Lazy])
}

pub fn idle_limits(rng: &mut Rng) -> IdleLimits {
    let mut limit = |millis: [u64; 3]| {
        let limited = rng.percent(35);
        limited.then(|| Duration::from_millis(rng.pick(&millis)))
    };
    IdleLimits {
        exempts_heartbeats: false,
        first_message: limit([10, 300, 20_000]),
        idle: limit([15, 400, 25_000]),
        // That is for worlds that sleep much.
        hibernate: None,
    }
}

/// When something last happened in a session.
#[derive(Debug)]
pub struct Activity {
    opened: Time,
    /// When a message surely passed, and when one may have.
    message: Time,
    anything: Time,
    /// Lines of the client that a server is to get.
    heard: usize,
    moved: [u64; 4],
    /// It was seen that the session is ended because it is not used.
    is_told: bool,
}

impl Activity {
    pub fn new(now: Time) -> Self {
        Self {
            opened: now,
            message: now,
            anything: now,
            heard: 0,
            moved: [0; 4],
            is_told: false,
        }
    }

    pub fn message(&self) -> Time {
        self.message
    }

    pub fn anything(&self) -> Time {
        self.anything
    }

    /// Another server takes the place of the one that was there, of which so many bytes were read, and written to it, before.
    pub fn goes_on_with(&mut self, read: u64, written: u64) {
        [self.moved[2], self.moved[3]] = [read, written];
    }

    /// Notes what a run of the session has brought: so many bytes were read from and written to the client, and the
    /// server; so many messages of the client have come, and lines other than heartbeats and such have begun to go to it.
    pub fn note(&mut self, now: Time, moved: [u64; 4], heard: usize, begun: usize, told: usize) {
        let has_moved = |way: usize| moved[way] != self.moved[way];
        // Another server begins to count anew.
        if heard > 0 || told > 0 || moved[3] > self.moved[3] {
            self.message = now;
        }
        let went_on = has_moved(1) && begun == 0;
        if has_moved(0) || has_moved(2) || has_moved(3) || told > 0 || went_on {
            self.anything = now;
        }
        self.heard += heard;
        self.moved = moved;
    }
}

impl Below {
    /// Nobody has a server started for nothing.
    pub fn check_demand(&self, place: &Place) {
        assert!(
            !place.is_refused,
            "a session that was turned away asks for a server"
        );
        let is_lazy = place.kind == Kind::Process && self.proxy.spawn == Spawn::Lazy;
        assert!(
            !is_lazy || place.journal.has_message(place.heard),
            "session {} asks for a server before there is anything for it",
            place.number
        );
    }

    /// A session that ends because it is not used was not used.
    pub fn check_unused(&mut self, slot: usize, session: &Session) {
        let memory_is_short = self.memory_is_short;
        let place = &mut self.places[slot];
        let Some(reason) = session.failure().filter(|reason| is_unused(reason)) else {
            // It may be used after all.
            place.activity.is_told = false;
            return;
        };
        if std::mem::replace(&mut place.activity.is_told, true) {
            return;
        }
        trace::note(|| format!("{}: {reason}", place.number));
        let activity = &place.activity;
        let limits = &self.proxy.idle_limits;
        let (limit, since, fault) = match reason {
            EndReason::IdleTimeout(_) => (limits.idle, activity.message, Fault::Idle),
            _ => (limits.first_message, activity.opened, Fault::NoFirstMessage),
        };
        assert!(
            place.kind == Kind::Process && limit.is_some_and(|limit| since + limit <= self.now),
            "session {} ends too early: {reason}",
            place.number
        );
        if fault == Fault::Idle {
            let server = place.server.and_then(|key| self.servers.get(key));
            let is_up = server.is_some_and(Server::is_running);
            let waits = place.journal.surely_waits(place.heard, is_up);
            assert_eq!(waits, None, "session {} is not idle", place.number);
            assert!(
                session.to_client().is_empty() && session.to_upstream().is_empty(),
                "session {} ends although lines wait",
                place.number
            );
        } else {
            let is_deaf = session.to_client().len() > OWN_LINES_BYTES;
            assert!(
                is_deaf || memory_is_short || activity.heard == 0,
                "session {} ends although its client has said something",
                place.number
            );
        }
        self.stats.fault(fault);
    }

    /// A session that is not used is ended in time.
    pub fn check_use(&self, place: &Place, session: &Session) {
        let serves = place.fate == Route::Open
            && session.failure().is_none()
            && place.socket.borrow().input.end.is_none()
            && !place.is_refused
            && !self.stopping;
        if !serves || place.kind != Kind::Process {
            return;
        }
        let limits = &self.proxy.idle_limits;
        let is_over = |since: Time, limit: Option<Duration>| {
            limit.is_some_and(|limit| since + limit + TICK <= self.now)
        };
        assert!(
            !is_over(place.activity.opened, limits.first_message)
                || place.journal.has_message(place.heard),
            "session {} goes on although its client has never said anything",
            place.number
        );
        let nothing_waits = session.to_client().is_empty() && session.to_upstream().is_empty();
        assert!(
            !is_over(place.activity.anything, limits.idle)
                || !nothing_waits
                || !place.journal.surely_done(place.heard),
            "session {} goes on although it is idle",
            place.number
        );
        self.check_hibernates(place, session);
    }
}
