//! What the service manager is told, if one has started the program: that it serves, reads its files again, stops, and lives.

use std::time::Duration;

use super::system::System;
use super::{Due, Proxy};
use crate::reactor::timers::Deadline;
use crate::util::time::Time;

/// Says at times that the program lives.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    interval: Option<Duration>,
    deadline: Deadline,
}

impl Watchdog {
    /// When it is said next, if anybody wants to know.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline.at()
    }
}

impl<S: System> Proxy<S> {
    /// The program serves.
    pub(super) fn tell_ready(&mut self) {
        self.system.tell_manager("READY=1\nSTATUS=serving");
        self.watchdog.interval = self.system.watchdog();
        self.pat_watchdog();
    }

    /// Its files are about to be read again.
    pub(super) fn tell_reloading(&self) {
        let micros = self.reactor.now().as_nanos() / 1000;
        let state = format!("RELOADING=1\nMONOTONIC_USEC={micros}");
        self.system.tell_manager(&state);
    }

    /// They were, or there was something wrong with them. It serves in any case.
    pub(super) fn tell_reloaded(&self, error: Option<&str>) {
        let status = error.map_or_else(
            || "serving".to_owned(),
            |error| format!("serving; nothing was changed by SIGHUP: {error}"),
        );
        let status = status.replace('\n', " ");
        self.system
            .tell_manager(&format!("READY=1\nSTATUS={status}"));
    }

    /// It is about to end.
    pub(super) fn tell_stopping(&self) {
        self.system.tell_manager("STOPPING=1\nSTATUS=stopping");
    }

    /// The time has come to say that it lives.
    pub(super) fn watchdog_timeout(&mut self) {
        self.watchdog.deadline.fired();
        self.system.tell_manager("WATCHDOG=1");
        self.pat_watchdog();
    }

    fn pat_watchdog(&mut self) {
        let now = self.now();
        let at = self.watchdog.interval.map(|interval| now + interval);
        let timers = &mut self.reactor.timers;
        self.watchdog.deadline.set(at, Due::Watchdog, timers);
    }
}
