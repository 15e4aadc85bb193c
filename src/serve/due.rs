//! Whose time has come, and what is looked at now and then because no event may tell of it.

use std::time::Duration;

use log::debug;

use super::system::System;
use super::{Due, MONITOR_INTERVAL, Proxy};

/// An iteration of the loop that takes longer is logged: others feel it.
const LONG_ITERATION: Duration = Duration::from_millis(50);

impl<S: System> Proxy<S> {
    pub(super) fn fire_timers(&mut self) {
        while let Some(due) = self.reactor.timers.pop() {
            match due {
                Due::Session(key) => self.session_due(key),
                Due::Visitor(key) => self.visitor_timeout(key),
                Due::Newcomer(key) => self.newcomer_timeout(key),
                Due::Server(key) => self.escalate(key),
                Due::Accept => self.pause.fired(),
                Due::Starting => self.start_queue.timer_fired(),
                Due::Spares(service) => self.services.get_mut(service).spares.timer_fired(),
                Due::Share(service) => self.share_timeout(service),
                Due::Files => self.look_at_files(),
                Due::Monitor => self.look_around(),
                Due::Status => self.status_timeout(),
                Due::DrainDelay => self.drain_timeout(),
                Due::Watchdog => self.watchdog_timeout(),
                Due::StopTimeout => self.stop_timeout(),
                Due::StopReport => self.report_stop(),
                Due::GiveUp => self.give_up(),
                Due::Upgrade => self.upgrade_timeout(),
            }
        }
    }

    fn look_around(&mut self) {
        self.reap();
        self.servers.look_at_all_groups();
        let longest = self.reactor.take_longest_iteration();
        if longest > LONG_ITERATION {
            let millis = longest.as_millis();
            debug!("of late, an iteration of the loop took {millis} ms");
        }
        if let Some(status) = &mut self.status {
            let scheduler = &self.scheduler;
            let counts = self.services.keys().map(|key| scheduler.counts_of(key));
            status.note_history(counts);
        }
        self.scheduler.trim_memory();
        self.scheduler.report_left_out();
        if let Some(visitors) = &mut self.visitors {
            visitors.report_left_out();
        }
        log::logger().flush();
        let at = self.now() + MONITOR_INTERVAL;
        self.reactor.timers.set(at, Due::Monitor);
    }

    pub(super) fn look_at_groups(&mut self) {
        let timers = &mut self.reactor.timers;
        self.servers.look_at_groups(&self.system, timers);
    }
}
