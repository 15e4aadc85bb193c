//! Processes are replaced in good order: because they have served long enough, or because the user wants new ones.
//!
//! A process that is retired gets no more requests. It has some time for those that it has, and hears of their
//! cancellations; what is asked meanwhile goes to others.

use std::time::Duration;

use log::info;

use super::process::{Life, Owner, Pool};
use super::resources::Resources;
use super::{Context, ProcessKey, Share};
use crate::protocol::own_messages;
use crate::session::restart::RestartPolicy;

/// For so long a process that is retired may work on what it has.
const RETIREMENT: Duration = Duration::from_secs(30);

impl Share {
    /// Has a process end once it has answered what it was asked. Another takes its place when somebody needs one.
    pub(super) fn retire(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        let pool = self.processes[key.0].pool;
        // One that is ending anyway is followed by another in its own place, for whom it may be waited for.
        let is_ending = self.processes[key.0].is_stopped;
        if is_ending || !matches!(pool, Pool::Modern | Pool::Legacy(_)) {
            return;
        }
        match self.processes[key.0].life {
            Life::Up => {}
            // Nobody has asked it anything.
            Life::Greeting(_) if !self.is_asked(key) => return self.dismiss(key),
            Life::Greeting(_) => return,
            Life::Absent | Life::Asked | Life::Retiring(_) | Life::Cooling(_) | Life::Barred(_) => {
                return;
            }
        }
        info!("shared server {}: it is retired", key.0);
        let process = &mut self.processes[key.0];
        process.pool = Pool::Retired;
        process.life = Life::Retiring(cx.now + RETIREMENT);
        process.resources = Resources::default();
        self.discovered.forget();
        self.hand_over_policy(key, pool);
        self.end_listens(key, cx);
        self.release_seats(key, cx);
        self.stop_if_done(key);
        self.recharge_process(key, cx);
    }

    /// What the next process has to know of the losses of those before it.
    fn hand_over_policy(&mut self, key: ProcessKey, pool: Pool) {
        if self.places_of(pool).len() < self.limits.processes {
            let next = self.add_place(pool);
            let none = RestartPolicy::new(self.limits.max_restarts);
            let policy = std::mem::replace(&mut self.processes[key.0].policy, none);
            self.processes[next.0].policy = policy;
        }
    }

    /// Ends the listens of a process with their results.
    fn end_listens(&mut self, key: ProcessKey, cx: &mut Context<'_>) {
        for listen in self.processes[key.0].listens.numbers() {
            let process = &mut self.processes[key.0];
            let members = process.listens.end(listen);
            if process.end(listen) == Some(Owner::Listen) {
                self.tell_cancelled(key, listen, "the server is replaced", cx);
            }
            for (member, seat) in members {
                if let Some(id) = self.close(seat, member, cx) {
                    let line = own_messages::subscription_closed(&id) + "\n";
                    self.deliver(seat, line.into_bytes(), cx);
                }
            }
        }
    }

    /// Ends a process that is retired, if it has done all.
    pub(super) fn stop_if_done(&mut self, key: ProcessKey) {
        let process = &self.processes[key.0];
        let is_retiring = matches!(process.life, Life::Retiring(_)) && !process.is_stopped;
        if is_retiring && process.in_flight == 0 && process.outbox.is_empty() {
            self.stop_process(key);
        }
    }

    /// Replaces all processes, each once somebody needs it: the server may be another by now.
    pub fn renew(&mut self, cx: &mut Context<'_>) {
        self.forget_era();
        for key in (0..self.processes.len()).map(ProcessKey) {
            self.retire(key, cx);
        }
    }
}
