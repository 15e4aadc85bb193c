//! Upstreams as the loop sees them: started, stopped by the ladder, reaped, let go of.

use std::time::Duration;

use mcp_tcp_proxy::process::escalation::Escalation;
use mcp_tcp_proxy::session::Event;

use crate::server::{Kind, Server};
use crate::stats::Fault;
use crate::trace;
use crate::world::{Due, World};

/// How long nothing is started after something has run out.
const PAUSE: Duration = Duration::from_millis(100);

/// An attempt to connect has this long.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// After the end of our side of a connection, the other side has this long.
const CLOSE_TIME: Duration = Duration::from_secs(10);

impl World {
    pub fn fire_server_timer(&mut self, key: usize) {
        let server = self
            .servers
            .get_mut(key)
            .expect("a timer of a server that was freed");
        server.timer = None;
        let slot = server.slot;
        if self
            .places
            .get(slot)
            .is_some_and(|place| place.connecting == Some(key))
        {
            self.stats.fault(Fault::ConnectTimesOut);
            self.connection_failed(slot, key);
        } else if server.kind == Kind::Connection {
            self.close_overdue(slot, key);
        } else if let Some(ladder) = &mut server.ladder
            && let Some(rung) = ladder.escalate(self.now)
        {
            server.timer = ladder
                .deadline()
                .map(|at| self.timers.set(at, Due::Server(key)));
            let was_running = server.is_running();
            let place = self
                .places
                .get_mut(slot)
                .filter(|place| place.number == server.owner);
            let place = place.expect("a session is freed before its server is gone");
            server.escalate(rung, self.now, &mut place.journal, &mut self.stats);
            if was_running && !server.is_running() {
                self.has_ended(key);
            }
        }
    }

    pub fn stop_server(&mut self, slot: usize) {
        let Some(key) = self.places[slot].server else {
            return;
        };
        let server = &mut self.servers[key];
        server.pipes.writes = false;
        if server.kind == Kind::Process && server.ladder.is_none() {
            let ladder = Escalation::new(self.now);
            server.timer = ladder
                .deadline()
                .map(|at| self.timers.set(at, Due::Server(key)));
            server.ladder = Some(ladder);
        } else if server.kind == Kind::Connection && server.timer.is_none() {
            server.timer = Some(self.timers.set(self.now + CLOSE_TIME, Due::Server(key)));
        }
    }

    pub fn release_server(&mut self, slot: usize) {
        let place = &mut self.places[slot];
        let Some(key) = place.server.take() else {
            return;
        };
        let server = &mut self.servers[key];
        assert!(
            server.kind == Kind::Connection || server.exit.is_some(),
            "a server is let go of before it has ended"
        );
        place.journal.losses += 1;
        place.journal.servers[server.index].read_at_release = Some(server.pipes.input.read);
        server.released = true;
        self.forget_server(key);
    }

    /// A connection that is not closed by its other side in time is closed by this one, unless it can't be read.
    fn close_overdue(&mut self, slot: usize, key: usize) {
        let place = &self.places[slot];
        if place.session.wants_upstream_output(&self.memory) {
            self.with_session(slot, |session, cx| {
                session.handle(Event::UpstreamEof(None), cx);
            });
        } else {
            self.servers[key].timer =
                Some(self.timers.set(self.now + CLOSE_TIME, Due::Server(key)));
        }
    }

    /// Frees what is no longer anyone's: a connection that was let go of, a process that was reaped.
    fn forget_server(&mut self, key: usize) {
        let server = &self.servers[key];
        let is_over = match server.kind {
            Kind::Connection => true,
            Kind::Process => !self.exited.contains(&key) && server.exit.is_some(),
        };
        if server.released && is_over {
            let server = self.servers.remove(key);
            if let Some(timer) = server.timer {
                self.timers.cancel(timer);
            }
        }
    }

    /// Processes that have exited are reaped.
    pub fn reap(&mut self) {
        for key in std::mem::take(&mut self.exited) {
            let server = &mut self.servers[key];
            if let Some(timer) = server.timer.take() {
                self.timers.cancel(timer);
            }
            server.ladder = None;
            let (slot, owner) = (server.slot, server.owner);
            let place = self
                .places
                .get_mut(slot)
                .filter(|place| place.number == owner);
            let place = place.expect("a session is freed before its server is reaped");
            if place.server == Some(key) {
                place.exit = server.exit;
                server.pipes.input.assume_readable();
                server.stderr.assume_readable();
                self.enqueue(slot);
            }
            self.forget_server(key);
        }
    }

    pub fn can_start(&self) -> bool {
        self.paused.at().is_none() && !self.starting.is_empty()
    }

    pub fn start_servers(&mut self) {
        while self.can_start() {
            let Some(slot) = self.starting.pop_front() else {
                return;
            };
            // The session that has asked may be gone, and its slot another's that has asked, too.
            let is_wanted = self
                .places
                .get(slot)
                .is_some_and(|place| place.session.wants_start() && place.connecting.is_none());
            if is_wanted && !self.start_server(slot) {
                self.starting.push_front(slot);
            }
            self.apply_actions();
        }
    }

    /// Returns whether it is settled, for better or worse.
    fn start_server(&mut self, slot: usize) -> bool {
        if !self.calm && self.rng.percent(3) && self.places[slot].kind == Kind::Process {
            self.stats.fault(Fault::StartExhausted);
            let timers = &mut self.timers;
            self.paused.set(Some(self.now + PAUSE), Due::Start, timers);
            return false;
        }
        let place = &mut self.places[slot];
        assert!(
            place.server.is_none(),
            "a server is started while there is one"
        );
        let max_line = self.proxy.max_message_bytes;
        if place.kind == Kind::Process && !self.calm && self.rng.percent(5) {
            self.stats.fault(Fault::StartRefused);
            place.journal.spawn_failures += 1;
            self.with_session(slot, |session, cx| {
                session.handle(Event::UpstreamFailed("no such file"), cx);
            });
            return true;
        }
        let server = Server::new(
            place.kind,
            slot,
            place.number,
            self.calm,
            max_line,
            &mut self.stats,
            &mut self.rng,
        );
        let key = self.servers.insert(server);
        if place.kind == Kind::Connection {
            assert!(
                place.connecting.is_none(),
                "an attempt to connect is made while there is one"
            );
            place.connecting = Some(key);
            self.servers[key].timer =
                Some(self.timers.set(self.now + CONNECT_TIME, Due::Server(key)));
        } else {
            self.attach(slot, key);
        }
        true
    }

    fn attach(&mut self, slot: usize, key: usize) {
        let place = &mut self.places[slot];
        place.server = Some(key);
        self.stats.servers += 1;
        let index = place.journal.server_started();
        self.servers[key].index = index;
        place.journal.servers[index].may_be_cut_off = place.kind == Kind::Connection;
        let pid = (place.kind == Kind::Process).then_some(key as u32 + 1);
        trace::note(|| format!("{}: server {index} starts", place.number));
        self.with_session(slot, |session, cx| {
            session.handle(Event::UpstreamStarted { pid }, cx);
        });
    }

    /// Something comes of an attempt to connect.
    pub fn connection_made(&mut self, slot: usize, key: usize) {
        if !self.calm && self.rng.percent(10) {
            return self.connection_failed(slot, key);
        }
        if self.rng.percent(20) {
            return;
        }
        let place = &mut self.places[slot];
        place.connecting = None;
        if let Some(timer) = self.servers[key].timer.take() {
            self.timers.cancel(timer);
        }
        if place.session.wants_start() {
            self.attach(slot, key);
        } else {
            self.servers.remove(key);
        }
    }

    fn connection_failed(&mut self, slot: usize, key: usize) {
        self.stats.fault(Fault::StartRefused);
        self.drop_attempt(slot, key);
        self.places[slot].journal.spawn_failures += 1;
        self.with_session(slot, |session, cx| {
            session.handle(Event::UpstreamFailed("refused"), cx);
        });
    }

    pub fn drop_attempt(&mut self, slot: usize, key: usize) {
        self.places[slot].connecting = None;
        if let Some(timer) = self.servers.remove(key).timer {
            self.timers.cancel(timer);
        }
    }
}
