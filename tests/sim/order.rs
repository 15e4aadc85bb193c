//! Whose turn it was to get a server, and whether one could be started: the model that the start queue and the waiting
//! servers are checked against.

use std::time::Duration;

use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::session::Session;
use mcp_tcp_proxy::util::time::Time;

use crate::below::Below;
use crate::server::{Kind, Server};

/// A server that writes nothing counts as starting up for this long.
const START_UP_TIME: Duration = Duration::from_secs(1);

/// After something has run out, nothing is tried for this long, and a tick.
const PAUSE: Duration = Duration::from_millis(202);

#[derive(Debug, Default)]
pub struct Order {
    asked: u64,
    /// Who waits for a server.
    waiting: Vec<Question>,
    /// Who got one in this iteration, or should have.
    assigned: Vec<Question>,
    /// A server was started for a session in this iteration.
    has_spawned: bool,
    /// Of the servers that have waited and were handed out in it, the one that was started last.
    pub taken: Option<i32>,
    /// When something last ran out.
    pub exhausted_at: Option<Time>,
}

/// A session's question for a server.
#[derive(Debug, Clone, Copy)]
struct Question {
    slot: usize,
    number: u64,
    /// It has had a server before.
    recovers: bool,
}

impl Order {
    pub fn asks(&mut self, slot: usize, recovers: bool) {
        self.leaves(slot);
        self.asked += 1;
        self.waiting.push(Question {
            slot,
            number: self.asked,
            recovers,
        });
    }

    pub fn leaves(&mut self, slot: usize) {
        self.waiting.retain(|other| other.slot != slot);
        self.assigned.retain(|other| other.slot != slot);
    }

    pub fn assigned(&mut self, slot: usize) {
        if let Some(at) = self.waiting.iter().position(|other| other.slot == slot) {
            self.assigned.push(self.waiting.remove(at));
        }
    }
}

impl Server {
    /// Whether it waits for someone to serve, and can be handed out.
    fn is_waiting(&self) -> bool {
        let pipes = self.pipes.borrow();
        self.is_spare && self.slot.is_none() && self.is_running() && pipes.writes
    }
}

impl Below {
    /// The pids of the servers that wait for someone to serve.
    pub fn waiting(&self) -> Vec<i32> {
        let servers = self.servers.iter().map(|(_, server)| server);
        let waiting = servers.filter(|server| server.is_waiting());
        waiting.map(|server| server.pid).collect()
    }

    fn starting_up(&self) -> usize {
        let servers = self.servers.iter().map(|(_, server)| server);
        let is_starting = |server: &&Server| {
            server.kind == Kind::Process
                && !server.was_heard
                && !server.reaped
                && server.started + START_UP_TIME > self.now
        };
        servers.filter(is_starting).count()
    }

    /// A server is about to be started for this session, or for none yet.
    pub fn check_spawn(&mut self, user: Option<usize>, is_spare: bool) {
        assert!(
            self.starting_up() < self.limits.max_starting,
            "more servers start up at the same time than may"
        );
        assert!(
            !is_spare || !self.stopping,
            "a server is to wait for nobody"
        );
        self.order.has_spawned |= user.is_some();
    }

    /// At the end of an iteration: not too many servers wait, and none was started for a session although others did.
    fn check_waiting(&mut self) {
        let servers = self.servers.iter().map(|(_, server)| server);
        let waiting: Vec<&Server> = servers.filter(|server| server.is_waiting()).collect();
        assert!(waiting.len() <= self.spares, "too many wait");
        let taken = std::mem::take(&mut self.order.taken);
        assert!(
            waiting.iter().all(|server| Some(server.pid) > taken),
            "one is handed out before another that has waited longer"
        );
        let is_able = |server: &&Server| server.pipes.borrow().input.end.is_none();
        assert!(
            !std::mem::take(&mut self.order.has_spawned) || !waiting.iter().any(is_able),
            "a server is started although others wait"
        );
    }

    /// At the end of an iteration: nobody was passed over.
    pub fn check_order<'a>(&mut self, session: impl Fn(SessionKey) -> Option<&'a Session>) {
        for waiting in &self.order.waiting {
            let key = self.places.get(waiting.slot).and_then(|place| place.key);
            let Some(session) = key.and_then(&session).filter(|it| it.wants_start()) else {
                continue;
            };
            let speaks = session.waits_for_upstream();
            for assigned in &self.order.assigned {
                let Some(place) = self.places.get(assigned.slot) else {
                    continue;
                };
                let is_silent = !place.journal.has_message(place.heard);
                let is_later = assigned.number > waiting.number;
                let is_passed_over = match (assigned.recovers, waiting.recovers) {
                    (true, false) => false,
                    (false, true) => true,
                    (true, true) => is_later,
                    (false, false) if speaks => is_later || is_silent,
                    (false, false) => is_later && is_silent,
                };
                assert!(
                    !is_passed_over || assigned.slot == waiting.slot,
                    "session {} gets its server before {}",
                    place.number,
                    self.places[waiting.slot].number
                );
            }
        }
        self.order.assigned.clear();
        self.check_waiting();
    }

    /// Nothing happens any more before time passes: nobody waits for a server who could have one.
    pub fn check_starts<'a>(&self, session: impl Fn(SessionKey) -> Option<&'a Session>) {
        let paused = self.order.exhausted_at;
        if paused.is_some_and(|at| self.now < at + PAUSE)
            || self.starting_up() >= self.limits.max_starting
        {
            return;
        }
        for Question { slot, .. } in &self.order.waiting {
            let key = self.places.get(*slot).and_then(|place| place.key);
            assert!(
                !key.and_then(&session).is_some_and(Session::wants_start),
                "session {} waits for its server, and none is started",
                self.places[*slot].number
            );
        }
    }
}
