//! How a world comes to its end: clients leave, the program is stopped, once or twice, and everything has to be gone.

use std::time::Duration;

use super::World;
use crate::server::Kind;
use crate::stats::Fault;
use crate::strangers::Comer;
use crate::trace;

/// Rounds in which everything has to have come to its end, once no client says anything new.
const MAX_ROUNDS: usize = 60_000;

/// Rounds after which a client no longer waits to get rid of what it wants to say.
const PATIENCE: usize = 300;

impl World {
    pub(super) fn shut_down(&mut self) {
        trace::note(|| "shutdown".to_owned());
        let mut below = self.below.borrow_mut();
        below.stats.fault(Fault::Shutdown);
        below.stopping = true;
        below.stop_until = Some(below.now + below.proxy.stop_timeout);
        below.raise_stop();
        for (_, place) in &mut below.places {
            place.journal.is_stopping = true;
        }
        // Clients that were not accepted are gone with the listening socket.
        for comer in std::mem::take(&mut below.backlog) {
            match comer {
                Comer::Client(slot) => drop(below.places.remove(slot)),
                Comer::Stranger(key) => drop(below.strangers.remove(key)),
            }
        }
        drop(below);
        self.connectors.shut_down();
    }

    /// Clients come to their ends, and everything has to go.
    pub(super) fn wind_up(&mut self) {
        trace::note(|| "winding up".to_owned());
        for round in 0..MAX_ROUNDS {
            let (is_empty, stopping) = {
                let below = self.below.borrow();
                (below.places.is_empty(), below.stopping)
            };
            let is_done = self.is_over || self.proxy.is_done();
            let is_left = self.proxy.servers().left() > 0 || !self.proxy.sessions().is_empty();
            if is_done && stopping && !self.is_over && is_left {
                self.cut_off();
                continue;
            }
            if stopping && is_done && self.connectors.scheduler.is_empty() {
                return;
            }
            if is_empty && !stopping {
                self.shut_down();
            }
            if stopping && self.is_forced && self.rng.percent(5) {
                self.force();
            }
            self.clients_wind_up(round);
            self.turn();
            self.let_time_pass();
        }
        let below = self.below.borrow();
        panic!(
            "not all comes to its end: {} sessions, {} servers are left",
            below.places.len(),
            below.servers.len()
        );
    }

    fn clients_wind_up(&mut self, round: usize) {
        let mut inner = self.below.borrow_mut();
        let below = &mut *inner;
        let mut attempts = Vec::new();
        for (slot, place) in &mut below.places {
            let patient = round < PATIENCE || below.calm;
            let mut socket = place.socket.borrow_mut();
            let (journal, stats) = (&mut place.journal, &mut below.stats);
            place.client.wind_up(patient, &mut socket, journal, stats);
            if place.connecting.is_some() {
                attempts.push(slot);
            }
        }
        let keys: Vec<usize> = below.servers.iter().map(|(key, _)| key).collect();
        for key in keys {
            let server = &mut below.servers[key];
            // A peer that says nothing and takes nothing is waited for without end.
            server.stalls &= server.kind == Kind::Process;
            server.hears();
            below.server_acts(key);
        }
        drop(inner);
        for slot in attempts {
            self.connectors.connection_made(slot);
        }
    }

    /// A second signal: it is over at once, and nobody is asked.
    fn force(&mut self) {
        trace::note(|| "second signal".to_owned());
        self.is_forced = false;
        let mut below = self.below.borrow_mut();
        below.stats.fault(Fault::Killed);
        below.raise_stop();
        let at = below.now;
        drop(below);
        while !self.proxy.is_done() {
            self.turn();
            let mut below = self.below.borrow_mut();
            assert!(
                below.now < at + Duration::from_millis(1010),
                "killed servers are waited for without end"
            );
            assert!(
                below
                    .servers
                    .iter()
                    .filter(|(_, server)| server.kind == Kind::Process)
                    .all(|(_, server)| !server.is_running() || server.is_untouchable()),
                "a server outlives a second signal"
            );
            if self.rng.percent(50) {
                below.raise_child();
            }
            below.now += Duration::from_millis(self.rng.below(10) as u64);
            below.let_go();
        }
        self.cut_off();
    }

    /// The serving loop is over, and whatever it had not done is not done any more.
    fn cut_off(&mut self) {
        let mut below = self.below.borrow_mut();
        self.is_over = true;
        below
            .places
            .retain(|_, place| place.kind == Kind::Connection);
        below
            .servers
            .retain(|_, server| server.kind == Kind::Connection);
        below.exited.clear();
    }
}
