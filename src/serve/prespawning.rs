//! The pool of waiting servers and the rest of the proxy: servers are started for it, taken from it, and lost.

use std::io;

use log::{debug, info};
use mio::Token;

use super::accept::Accepting;
use super::pipes::Pipes;
use super::{Proxy, Stopping, spares};
use crate::process::Owner;
use crate::reactor::io::Readiness;
use crate::reactor::token::Target;
use crate::session::report::Exit;

impl Proxy {
    /// Whether a server may be started for the pool. Sessions come first.
    pub(super) fn can_prespawn(&mut self) -> bool {
        let now = self.now();
        self.pool.wants_server()
            && self.starting.is_empty()
            && self.accepting == Accepting::Yes
            && self.stopping == Stopping::No
            && self.starting.has_room(now)
    }

    pub(super) fn prespawn(&mut self) {
        let now = self.now();
        self.pool.started(now, &mut self.reactor.timers);
        if let Err(error) = self.start_for_pool() {
            self.pool
                .lost(&error.to_string(), now, &mut self.reactor.timers);
        }
    }

    fn start_for_pool(&mut self) -> io::Result<()> {
        let now = self.now();
        let spawned = self.spawner.spawn()?;
        let slot = self.pool.next_slot();
        let pid = spawned.pid;
        let process = self.processes.add(pid, Owner::Spares(slot));
        self.starting.started(process, now);
        let target = |channel| spares::address(slot, channel);
        let pipes = Pipes::register(spawned, &mut self.reactor, target)
            .inspect_err(|_| self.processes.stop(process, now, &mut self.reactor.timers))?;
        let pid = u32::try_from(pid.as_raw()).unwrap_or_default();
        debug!("pool: server pid {pid} was started");
        self.pool.add(process, pid, pipes);
        Ok(())
    }

    /// Gives a session a server that waits, if there is one.
    pub(super) fn take_from_pool(&mut self, slot: usize) -> bool {
        let now = self.now();
        if !self.pool.has_waiting() {
            return false;
        }
        // One that has ended may not have been reaped yet.
        self.reap();
        while let Some(mut server) = self.pool.take(now, &mut self.reactor.timers) {
            self.processes
                .set_owner(server.process, Owner::Session(slot));
            let target = |channel| Target { key: slot, channel };
            let handed_over = server.pipes.hand_over(&mut self.reactor, target);
            if let Err(error) = handed_over {
                info!("pool: server pid {} can't be used: {error}", server.pid);
                self.processes
                    .stop(server.process, now, &mut self.reactor.timers);
                continue;
            }
            self.connect_server(slot, server.pipes, server.process, Some(server.pid));
            return true;
        }
        false
    }

    /// An event is about the pipe of this number.
    pub(super) fn pool_event(&mut self, number: usize, event: (Token, Readiness)) {
        let now = self.now();
        let Some((process, is_useless)) = self.pool.latch(number, event) else {
            return;
        };
        self.starting.has_started_up(process);
        if is_useless {
            self.pool.retire(process);
            self.processes.stop(process, now, &mut self.reactor.timers);
        }
    }

    pub(super) fn pool_server_ended(&mut self, slot: usize, process: usize, exit: Exit) {
        let now = self.now();
        if self
            .pool
            .ended(slot, process, self.scheduler.scratch(), now)
        {
            self.pool
                .lost(&exit.to_string(), now, &mut self.reactor.timers);
        }
    }

    /// Stops the servers in the pool.
    pub(super) fn close_pool(&mut self) {
        let now = self.now();
        for process in self.pool.close(&mut self.reactor.timers) {
            self.processes.stop(process, now, &mut self.reactor.timers);
        }
    }
}
