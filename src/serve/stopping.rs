//! How the program comes to its end: what a signal leads to, how long anything is waited for, and what is given up.

use std::time::Duration;

use log::{info, warn};

use super::system::System;
use super::{Due, Proxy};
use crate::reactor::timers::Deadline;
use crate::scheduler::SessionKey;
use crate::session::Event;
use crate::util::plural::{Counted, are};
use crate::util::time::Time;

/// After a second signal, killed processes are waited for this long: SIGKILL takes effect at once, unless the kernel is
/// in the middle of something for the process.
const FORCED_REAP_TIME: Duration = Duration::from_secs(1);

/// After the time to stop, clients have this long to take what they are told, and killed processes to be reaped. Whoever
/// stops the program counts on its end within a second.
const LAST_WORDS_TIME: Duration = Duration::from_millis(800);

/// Of two signals this close to each other, the second is the first once more: wrappers forward ^C, and the terminal sends
/// it, too.
const ECHO_TIME: Duration = Duration::from_millis(500);

/// How often it is said what a stop waits for.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Whether the program is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopping {
    No,
    /// Sessions come to their ends.
    Gently,
    /// They had their time. Processes were killed, and clients are told.
    Late,
    /// By a second signal, processes were killed, and are reaped for a while.
    Forced,
    /// They were waited for long enough.
    Over,
}

/// The deadlines of a stop.
#[derive(Debug, Default)]
pub(super) struct StopTimers {
    /// Until when new sessions are served although the program is to stop.
    drain: Deadline,
    /// For how long that is.
    pub(super) drain_delay: Duration,
    /// When the last signal or the end of that time was heeded, if there is such a time.
    heeded: Option<Time>,
    /// When it has taken long enough.
    timeout: Deadline,
    /// When it is next said what is waited for.
    pub(super) report: Deadline,
    /// When nothing is waited for any more.
    give_up: Deadline,
}

impl StopTimers {
    /// How many are set.
    pub(super) fn deadlines(&self) -> usize {
        let all = [&self.drain, &self.timeout, &self.report, &self.give_up];
        all.iter().filter(|timer| timer.at().is_some()).count()
    }
}

impl<S: System> Proxy<S> {
    /// Whether the program has been told to stop, and nothing is left to be served.
    pub fn is_done(&self) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::Gently | Stopping::Late => {
                self.scheduler.is_empty() && self.servers.left() == 0
            }
            Stopping::Forced => self.servers.left() == 0,
            Stopping::Over => true,
        }
    }

    /// Once all sessions and servers have come to their ends, no deadline of one is left.
    pub fn only_own_timers_are_left(&self) -> bool {
        let monitor = 1;
        let others = [
            self.status.as_ref().and_then(|status| status.deadline()),
            self.watchdog.deadline(),
            self.file_watch.at(),
        ];
        let others = others.iter().flatten().count();
        let own = monitor + usize::from(self.is_paused()) + self.stop_timers.deadlines() + others;
        self.stopping != Stopping::Gently || self.reactor.timers.len() == own
    }

    /// Whether the program is about to be stopped, and still serves.
    pub(super) fn is_draining(&self) -> bool {
        self.stop_timers.drain.at().is_some()
    }

    /// The first signal lets sessions come to their ends, after the time in which new ones are still served; the next one ends
    /// that time, or the sessions.
    pub(super) fn stop(&mut self) {
        if self.stop_timers.drain_delay > Duration::ZERO {
            let now = self.now();
            let heeded = self.stop_timers.heeded.replace(now);
            if heeded.is_some_and(|heeded| now < heeded + ECHO_TIME) {
                self.stop_timers.heeded = heeded;
                return;
            }
        }
        match self.stopping {
            Stopping::No if self.stop_timers.drain_delay.is_zero() || self.is_draining() => {
                self.stop_gently();
            }
            Stopping::No => self.drain(),
            Stopping::Gently | Stopping::Late => {
                warn!(
                    "second signal: killing {}",
                    Counted(self.servers.left(), "server")
                );
                self.servers.kill_all(&mut self.system);
                self.stopping = Stopping::Forced;
                self.give_up_after(FORCED_REAP_TIME);
            }
            Stopping::Forced | Stopping::Over => {}
        }
    }

    /// Whoever asks is told that no new sessions are welcome, and those that come all the same are served.
    fn drain(&mut self) {
        self.tell_stopping();
        let delay = self.stop_timers.drain_delay;
        info!(
            "not ready any more; new sessions are served for another {} s (--drain-delay)",
            delay.as_secs_f64()
        );
        let at = Some(self.now() + delay);
        let timers = &mut self.reactor.timers;
        self.stop_timers.drain.set(at, Due::DrainDelay, timers);
    }

    /// The time in which new sessions were served is over.
    pub(super) fn drain_timeout(&mut self) {
        self.stop_timers.drain.fired();
        self.stop_timers.heeded = Some(self.now());
        if self.stopping == Stopping::No {
            self.stop_gently();
        }
    }

    fn stop_gently(&mut self) {
        self.tell_stopping();
        let timers = &mut self.reactor.timers;
        self.stop_timers.drain.clear(timers);
        let open = self.scheduler.len();
        info!(
            "shutting down; {} {} open",
            Counted(open, "session"),
            are(open)
        );
        self.stopping = Stopping::Gently;
        self.listeners.close();
        if let Some(visitors) = &mut self.visitors {
            visitors.close(&mut self.reactor.timers);
        }
        if let Some(resuming) = &mut self.resuming {
            resuming.newcomers.close(&mut self.reactor.timers);
        }
        self.close_spares();
        let (now, timeout) = (self.now(), self.scheduler.settings().stop_timeout);
        let timers = &mut self.reactor.timers;
        self.stop_timers
            .timeout
            .set(Some(now + timeout), Due::StopTimeout, timers);
        let report = Some(now + REPORT_INTERVAL);
        self.stop_timers.report.set(report, Due::StopReport, timers);
        let keys: Vec<SessionKey> = self.scheduler.iter().map(|(key, ..)| key).collect();
        for key in keys {
            if self.stop_detached(key, "the proxy was stopped") {
                continue;
            }
            self.tell(key, Event::ShutDown);
        }
    }

    pub(super) fn report_stop(&mut self) {
        self.stop_timers.report.fired();
        if self.stopping != Stopping::Gently {
            return;
        }
        let now = self.now();
        let sessions = Counted(self.scheduler.len(), "session");
        let servers = Counted(self.servers.left(), "server");
        let left = self
            .stop_timers
            .timeout
            .at()
            .map_or(Duration::ZERO, |at| at.saturating_since(now));
        info!(
            "shutting down; waiting for {sessions} and {servers}, for {} s at most",
            left.as_secs_f64().ceil()
        );
        let at = Some(now + REPORT_INTERVAL);
        let timers = &mut self.reactor.timers;
        self.stop_timers.report.set(at, Due::StopReport, timers);
    }

    /// The sessions have the same deadline: they answer what is in flight.
    pub(super) fn stop_timeout(&mut self) {
        self.stop_timers.timeout.fired();
        if self.stopping != Stopping::Gently {
            return;
        }
        let timeout = self.scheduler.settings().stop_timeout.as_secs_f64();
        warn!(
            "not everything has ended within {timeout} s (--stop-timeout): ending {}, killing {}",
            Counted(self.scheduler.len(), "session"),
            Counted(self.servers.left(), "server")
        );
        self.servers.kill_all(&mut self.system);
        self.stopping = Stopping::Late;
        self.give_up_after(LAST_WORDS_TIME);
    }

    fn give_up_after(&mut self, time: Duration) {
        let at = Some(self.now() + time);
        let timers = &mut self.reactor.timers;
        self.stop_timers.give_up.set(at, Due::GiveUp, timers);
    }

    pub(super) fn give_up(&mut self) {
        self.stop_timers.give_up.fired();
        self.stopping = Stopping::Over;
        let waiting = self
            .scheduler
            .iter()
            .map(|(_, session, _)| session.to_client().len());
        let (sessions, bytes) = waiting
            .filter(|bytes| *bytes > 0)
            .fold((0, 0), |(sessions, sum), bytes| (sessions + 1, sum + bytes));
        if sessions > 0 {
            warn!(
                "{} for the clients of {} could not be delivered",
                Counted(bytes, "byte"),
                Counted(sessions, "session")
            );
        }
    }
}
