//! Processes whose sessions are over: they are asked to end, with more and more force, and reaped.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::process::escalation::{Escalation, Step};
use crate::process::reap::{Reaped, reap, signal_group, signal_process};
use crate::util::time::Time;

/// All processes that were started and are not reaped.
#[derive(Debug, Default)]
pub(super) struct Children(BTreeMap<Pid, Option<Escalation>>);

impl Children {
    /// One was started.
    pub(super) fn add(&mut self, pid: Pid) {
        self.0.insert(pid, None);
    }

    /// Its input has ended, so it should.
    pub(super) fn dismiss(&mut self, pid: Pid, now: Time) {
        if let Some(child) = self.0.get_mut(&pid) {
            child.get_or_insert_with(|| Escalation::new(now));
        }
    }

    /// Reaps those that have ended.
    pub(super) fn reap(&mut self) {
        loop {
            match reap() {
                Reaped::Process(pid, _) => {
                    if self.0.remove(&pid).is_some() {
                        // What it has started has nobody to serve any more.
                        let _ = signal_group(pid, Signal::SIGTERM);
                    }
                }
                Reaped::Unknown => {}
                Reaped::Nothing => return,
            }
        }
    }

    /// Uses force on those that were asked to end, and have had their time.
    pub(super) fn escalate(&mut self, now: Time) {
        self.0.retain(|pid, escalation| {
            let step = escalation.as_mut().and_then(|steps| steps.escalate(now));
            let signal = match step {
                Some(Step::Terminate) => Signal::SIGTERM,
                Some(Step::Kill) => Signal::SIGKILL,
                Some(Step::Abandon) => return false,
                None => return true,
            };
            // It may have ended just now.
            let _ = signal_process(*pid, signal);
            true
        });
    }

    /// Whether none is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
