//! What has to hold after every turn, and when all has come to rest.

use std::time::Duration;

use mcp_tcp_proxy::buffers::budget::BufferBudget;
use mcp_tcp_proxy::pump::{READ_BYTES, SCRATCH_BYTES};
use mcp_tcp_proxy::scheduler::{Scheduler, SessionKey};
use mcp_tcp_proxy::serve::ClientSession;
use mcp_tcp_proxy::session::backlog::LINES_PER_RUN;
use mcp_tcp_proxy::session::{Session, Settings};

use crate::below::Below;
use crate::place::Route;
use crate::server::Kind;
use crate::stats::Fault;
use crate::world::World;

/// What may wait in one direction before its source is not read any more.
const OUTBOX_BYTES: usize = 64 * 1024;

/// The same of the proxy's own lines.
const OWN_LINES_BYTES: usize = 64 * 1024;

/// No line of the proxy's own is longer, but for an id.
const OWN_LINE_BYTES: usize = 500;

/// The largest pipe of a server, and what is kept of what a proxy may refuse.
const PIPE_BYTES: usize = 64 * 1024;

/// The longest handshake that is replayed, with what is restored after it.
const RESTORED_BYTES: usize = 128 * 1024;

/// After the time of a stop, the loop ends within this.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// Groups that are asked for in an iteration without a reason of their own.
const GROUPS_PER_ITERATION: usize = 32;

/// The wheel counts in these, and is never early.
const TICK: Duration = Duration::from_millis(1);

impl World {
    /// Looks at all sessions after an iteration of the loops.
    pub fn look(&mut self) {
        let below = &mut *self.below.borrow_mut();
        if !self.is_over {
            let sessions = self.proxy.sessions();
            for (key, session, _) in sessions.iter() {
                let slot = below.slot_of(key);
                below.look_at(slot, session, sessions.memory());
                let is_refused = session.was_refused();
                assert_eq!(is_refused, below.places[slot].is_refused);
            }
            for (server_key, server) in self.proxy.servers().iter() {
                if let Some(user) = server.user() {
                    let (slot, key) = (below.slot_of(user), below.key_of(server.pid()));
                    let successor = sessions.place(user).and_then(ClientSession::successor);
                    if successor == Some(server_key) {
                        below.attached_beside(slot, key);
                    } else if below.places[slot].server != Some(key) {
                        below.attached(slot, key);
                        if sessions
                            .session(user)
                            .is_some_and(Session::is_tried_in_place)
                        {
                            below.attached_in_place(slot);
                        }
                    }
                }
            }
            below.check_order(|key| sessions.session(key));
            below.check_memory(sessions.memory());
            below.check_group_questions();
            self.proxy.check();
        }
        let sessions = &self.connectors.scheduler;
        for (_, session, link) in sessions.iter() {
            below.look_at(link.slot, session, sessions.memory());
        }
        below.check_memory(sessions.memory());
        self.connectors.check(below);
    }

    /// The same of those who are not in.
    pub fn look_at_entrance(&self) {
        if !self.is_over {
            self.check_entrance();
        }
    }

    /// Nothing can go on before time passes: no deadline has come, and nothing waits that could be moved.
    pub fn check_rest(&mut self) {
        if !self.is_over {
            self.check_entrance_rests();
        }
        let below = &*self.below.borrow();
        if !self.is_over {
            let sessions = self.proxy.sessions();
            for (key, session, place) in sessions.iter() {
                let slot = below.slot_of(key);
                let has_client = place.client().is_some();
                let settings = sessions.settings();
                below.check_session_rests(slot, session, settings, has_client, sessions.memory());
                below.check_waits_for_memory(slot, session, key, sessions);
            }
            below.check_starts(|key| sessions.session(key));
            below.check_given_back();
            let is_late = self
                .late_since
                .is_some_and(|since| since + LAST_WORDS_TIME <= below.now);
            if below.stop_until.is_some_and(|until| until <= below.now) {
                self.late_since.get_or_insert(below.now);
            }
            assert!(
                !is_late || self.proxy.is_done(),
                "a stop takes longer than it may"
            );
        }
        let sessions = &self.connectors.scheduler;
        for (_, session, link) in sessions.iter() {
            let settings = sessions.settings();
            below.check_session_rests(link.slot, session, settings, true, sessions.memory());
        }
        for (_, server) in &below.servers {
            let stderr = server.stderr.borrow();
            assert!(
                stderr.token.is_none() || !stderr.has_something(),
                "the stderr of pid {} is not read",
                server.pid
            );
        }
    }

    /// At the end nothing is left.
    pub fn check_all_gone(&self) {
        let below = self.below.borrow();
        assert!(below.places.is_empty() && self.proxy.visitors() == 0);
        assert!(
            below
                .strangers
                .iter()
                .all(|(_, it)| !it.socket.borrow().reads)
        );
        // What the loop has given up on may end at any time.
        let mut unreaped = below.exited.iter();
        assert!(unreaped.all(|key| below.servers[*key].kill_refused));
        let connectors = &self.connectors;
        assert!(connectors.scheduler.is_empty() && connectors.reactor.timers.is_empty());
        assert_eq!(connectors.scheduler.memory().used(), 0);
        if !self.is_over {
            assert!(self.proxy.only_own_timers_are_left(), "timers are left");
            assert_eq!(self.proxy.sessions().memory().used(), 0, "memory is left");
            assert_eq!(self.proxy.servers().iter().count(), 0, "servers are left");
        }
    }
}

impl Below {
    fn look_at(&mut self, slot: usize, session: &Session, memory: &BufferBudget) {
        self.note(slot);
        let place = &self.places[slot];
        assert!(
            place.fate != Route::ShutDown || !place.socket.borrow().writes,
            "the client is not told of the end"
        );
        let waits = session.waits_for_memory(memory);
        self.stats.fault_if(waits, Fault::WaitsForMemory);
        let (of_client, of_upstream) = session.lines_of_run();
        assert!(
            of_client.max(of_upstream) <= LINES_PER_RUN,
            "{of_client} and {of_upstream} lines are handled in one run"
        );
        self.check_unused(slot, session);
        self.check_lost_initialize(slot, session);
        self.check_buffers(slot, session, memory);
    }

    /// An `initialize` is lost only with the session, or with its client: the next server gets it otherwise.
    fn check_lost_initialize(&mut self, slot: usize, session: &Session) {
        let place = &mut self.places[slot];
        let is_lost = std::mem::take(&mut place.journal.lost_initialize);
        let has_left = place.socket.borrow().input.end.is_some();
        assert!(
            !is_lost || has_left || session.failure().is_some() || !self.proxy.restarts_upstream,
            "session {} loses an 'initialize' and goes on",
            place.number
        );
    }

    /// Everything that waits for a session is within its limits.
    fn check_buffers(&mut self, slot: usize, session: &Session, memory: &BufferBudget) {
        let read_bytes = self.read_bytes();
        let place = &mut self.places[slot];
        let line = self.proxy.max_message_bytes + "\r\n".len();
        let to_client = session.to_client().len();
        let own_lines = OWN_LINES_BYTES + place.journal.unanswered() * OWN_LINE_BYTES;
        // With both sides at a standstill the server is read as long as there is memory, and what was read then may wait
        // on after it.
        let limit = OUTBOX_BYTES + read_bytes + line + own_lines;
        let is_stuck = !session.wants_client_input();
        place.was_stuck = is_stuck || (place.was_stuck && to_client > limit);
        let most = if place.was_stuck {
            limit + memory.limit() / 2
        } else {
            limit
        };
        assert!(
            to_client <= most,
            "{to_client} bytes wait for the client of session {}",
            place.number
        );
        let to_upstream = session.to_upstream().len();
        let journal = &place.journal;
        // Nothing is accepted beyond the limit, but what was in the pipe of a server that died, or was refused by a proxy
        // that is being stopped, comes back on top of it, and what the client had set up is restored before it.
        let comes_back = if journal.unread > 0 || journal.is_connector {
            PIPE_BYTES
        } else {
            0
        };
        let restored = if journal.replays > 0 {
            RESTORED_BYTES
        } else {
            0
        };
        let most = OUTBOX_BYTES + 2 * line + OWN_LINE_BYTES + comes_back + restored;
        assert!(
            to_upstream <= most,
            "{to_upstream} bytes wait for the server of session {}",
            place.number
        );
    }

    /// Groups are asked for when there is a reason, and few of the others in an iteration.
    fn check_group_questions(&mut self) {
        let asked = self.group_questions.take();
        let reasons = std::mem::take(&mut self.group_reasons);
        assert!(
            asked <= reasons + GROUPS_PER_ITERATION,
            "{asked} groups are asked for in an iteration, and {reasons} are at hand"
        );
    }

    /// The shared memory is within its budget.
    fn check_memory(&self, memory: &BufferBudget) {
        let per_session = 4 * (OUTBOX_BYTES + self.read_bytes() + self.proxy.max_message_bytes);
        let most = memory.limit() + self.places.len() * per_session;
        let used = memory.used();
        assert!(used <= most, "{used} bytes of memory are held");
    }

    /// What may be read at once: more, if there are lines that one read does not hold.
    fn read_bytes(&self) -> usize {
        if self.proxy.max_message_bytes > READ_BYTES / 2 {
            SCRATCH_BYTES
        } else {
            READ_BYTES
        }
    }

    /// Whoever could read if there were memory is told when there is.
    fn check_waits_for_memory<P>(
        &self,
        slot: usize,
        session: &Session,
        key: SessionKey,
        sessions: &Scheduler<P>,
    ) {
        let Some(server) = self.places[slot].server.map(|key| &self.servers[key]) else {
            return;
        };
        let pipes = server.pipes.borrow();
        let may_read = pipes.reads && pipes.input.has_something();
        let waits = may_read && session.waits_for_memory(sessions.memory());
        assert!(
            !waits || sessions.is_told_of_memory(key),
            "nobody tells {key:?} of memory"
        );
    }

    fn check_session_rests(
        &self,
        slot: usize,
        session: &Session,
        settings: &Settings,
        has_client: bool,
        memory: &BufferBudget,
    ) {
        let place = &self.places[slot];
        let number = place.number;
        let deadline = session.next_deadline(settings);
        assert!(
            deadline.is_none_or(|at| at + TICK > self.now),
            "session {number} waits for a time that has come"
        );
        assert!(
            !session.has_more_lines(),
            "session {number} could go on with what it has read, and is not run"
        );
        let socket = place.socket.borrow();
        let may_read = has_client && socket.input.has_something();
        assert!(
            !may_read || !session.wants_client_input(),
            "session {number} could read its client, and is not run"
        );
        let may_write = has_client && socket.output.has_room();
        assert!(
            !may_write || session.to_client().is_empty(),
            "session {number} could write to its client, and is not run"
        );
        if let Some(server) = place.server.map(|key| &self.servers[key]) {
            let pipes = server.pipes.borrow();
            let may_read = pipes.reads && pipes.input.has_something();
            assert!(
                !may_read || !session.wants_upstream_output(memory),
                "session {number} could read its server, and is not run"
            );
            let is_deaf = server.kind == Kind::Process && pipes.output.broken.is_some();
            assert!(
                !is_deaf || !pipes.writes,
                "session {number} keeps a broken stdin"
            );
            let may_write = pipes.writes && pipes.output.has_room();
            assert!(
                !may_write || session.to_upstream().is_empty(),
                "session {number} could write to its server, and is not run"
            );
        }
        self.check_successor_rests(place, session);
        if place.kind == Kind::Process {
            let is_deaf = has_client && socket.output.broken.is_some();
            assert!(!is_deaf, "session {number} keeps a broken connection");
            self.check_use(place, session);
        }
    }
}
