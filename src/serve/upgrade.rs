//! SIGUSR2: another program goes on in this process, with every session as it is.
//!
//! First the other program is asked whether it could ([`rehearsal`]), while everything goes on. If it could, the state is
//! written down between two iterations, sent to ourselves with all descriptors, and execve(2) starts the other program,
//! which takes it up ([`take_over`]). Whatever fails before that changes nothing, and the log has the reason. If the
//! other program fails to take it up, it sends it on to this one.

mod rehearsal;
#[cfg(test)]
mod states;
mod take_over;
mod tls;
mod whole;

use std::convert::Infallible;
use std::env;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use log::{info, warn};
use mio::Token;
use nix::sys::signal::Signal;

use self::rehearsal::{Rehearsal, Verdict};
pub use self::take_over::{TakeOver, rehearse};
use super::state::SourceRef;
use super::system::{Linux, System};
use super::{Due, Proxy, Stopping};
use crate::process::memory_limit::free_in_groups;
use crate::process::reap;
use crate::reactor::io::Readiness;
use crate::reactor::timers::Deadline;
use crate::upgrade::parcel;
use crate::util::plural::Counted;
use crate::util::side_bytes::Written;

/// The other program has to say by then whether it could go on: it starts and reads a few megabytes.
const REHEARSAL_TIME: Duration = Duration::from_secs(10);

/// What has run out may be there again after this, as when another proxy is being upgraded at the same time.
const RETRY_TIME: Duration = Duration::from_secs(1);

const ATTEMPTS: u8 = 3;

/// So long, nobody new comes in, and those have time who are in the entrance. The others are closed: most have nothing to
/// say.
const ENTRANCE_TIME: Duration = Duration::from_secs(1);

/// So long, those have time for their responses who are connected over TLS and do not come back by themselves.
const TLS_TIME: Duration = Duration::from_secs(10);

/// This program itself, whatever lies at its path by now.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// An upgrade that is under way.
pub(super) struct Upgrade<S: System> {
    stage: Stage<S>,
    deadline: Deadline,
    attempts: u8,
}

enum Stage<S: System> {
    /// A signal has come.
    Wanted,
    /// The other program is asked.
    Rehearsing(Box<Rehearsal<S>>),
    /// It could. Sessions over TLS that can't be passed on have until the deadline.
    EndingTls,
    /// It is its turn, once whoever is in the entrance has come in, or after the deadline.
    Agreed,
    /// Something has run out. It is its turn after the deadline.
    Waiting,
}

/// Why it is not done.
enum Failure {
    /// It may be possible a little later.
    ForNow(String),
    ForGood(String),
}

impl<S: System> Upgrade<S> {
    fn new() -> Self {
        Self {
            stage: Stage::Wanted,
            deadline: Deadline::default(),
            attempts: 0,
        }
    }

    /// Whether nobody new is to come in.
    pub(super) fn keeps_newcomers_waiting(&self) -> bool {
        matches!(self.stage, Stage::Agreed)
    }

    /// Latches what an event says of the other program.
    pub(super) fn latch(&mut self, key: usize, token: Token, readiness: Readiness) {
        if let Stage::Rehearsing(rehearsal) = &mut self.stage {
            rehearsal.latch(key, token, readiness);
        }
    }
}

impl<S: System> Proxy<S> {
    /// A signal asks for it. It is begun once this iteration is over.
    pub(super) fn upgrade_wanted(&mut self) {
        if self.is_to_stop() {
            return info!("SIGUSR2 is ignored, as the program is being stopped");
        }
        if self.upgrade.is_some() {
            return info!("SIGUSR2 is ignored, as an upgrade is under way");
        }
        self.upgrade = Some(Box::new(Upgrade::new()));
    }

    fn is_to_stop(&self) -> bool {
        self.stopping != Stopping::No || self.is_draining()
    }

    /// Its deadline has come.
    pub(super) fn upgrade_timeout(&mut self) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.deadline.fired();
            if matches!(upgrade.stage, Stage::Waiting) {
                upgrade.stage = Stage::Agreed;
            }
        }
    }

    fn set_stage(&mut self, stage: Stage<S>, time: Duration) {
        let at = Some(self.now() + time);
        if let Some(upgrade) = &mut self.upgrade {
            upgrade
                .deadline
                .set(at, Due::Upgrade, &mut self.reactor.timers);
            upgrade.stage = stage;
        }
    }
}

impl Proxy<Linux> {
    /// Does what there is to be done for an upgrade. It does not return from a successful one.
    #[inline(never)]
    pub(super) fn go_on_with_upgrade(&mut self) {
        if self.is_to_stop() {
            return self.upgrade_failed("the program is being stopped");
        }
        let Some(upgrade) = &mut self.upgrade else {
            return;
        };
        match &mut upgrade.stage {
            Stage::Wanted => self.begin_rehearsal(),
            Stage::Rehearsing(rehearsal) => match rehearsal.go_on() {
                Some(Verdict::Able) => self.rehearsed(),
                Some(Verdict::Unable(why)) => self.upgrade_failed(&why),
                None if upgrade.deadline.at().is_none() => {
                    let seconds = REHEARSAL_TIME.as_secs();
                    self.upgrade_failed(&format!("it has not answered within {seconds} s"));
                }
                None => {}
            },
            Stage::EndingTls => self.go_on_ending_tls(),
            Stage::Agreed => self.attempt_upgrade(),
            Stage::Waiting => {}
        }
    }

    /// For a moment there are the buffers, and the file in which they are passed on.
    fn lacks_memory(&self) -> Option<String> {
        let held = self.scheduler.memory().used() as u64;
        let free = free_in_groups()?;
        (held > free / 2).then(|| {
            format!(
                "buffers hold {}, which is more than half of what the control group has free ({})",
                Counted(held, "byte"),
                Counted(free, "byte")
            )
        })
    }

    fn begin_rehearsal(&mut self) {
        if let Some(why) = self.lacks_memory() {
            return self.upgrade_failed(&why);
        }
        let program = &self.system.program;
        info!(
            "SIGUSR2: asking {} whether it can go on with {}",
            program.path().display(),
            Counted(self.scheduler.len(), "session")
        );
        let begun = Written::without_bytes(&self.whole())
            .map_err(|error| format!("the state can't be written down: {error}"))
            .and_then(|written| {
                let spawned = self.system.spawn_rehearsal()?;
                self.servers.guest = Some(spawned.pid);
                Rehearsal::begin(spawned, &written, &mut self.reactor)
                    .map_err(|error| error.to_string())
            });
        match begun {
            Err(why) => self.upgrade_failed(&why),
            Ok(rehearsal) => {
                self.set_stage(Stage::Rehearsing(Box::new(rehearsal)), REHEARSAL_TIME);
            }
        }
    }

    /// The other program could go on.
    fn rehearsed(&mut self) {
        self.end_rehearsal();
        if self.begin_end_of_tls() {
            return self.set_stage(Stage::EndingTls, TLS_TIME);
        }
        self.set_stage(Stage::Agreed, ENTRANCE_TIME);
        self.attempt_upgrade();
    }

    fn go_on_ending_tls(&mut self) {
        let upgrade = self.upgrade.as_ref();
        let is_over = upgrade.is_some_and(|upgrade| upgrade.deadline.at().is_none());
        if is_over {
            self.end_tls_sessions();
        }
        if is_over || self.ending_tls_sessions().is_empty() {
            self.set_stage(Stage::Agreed, ENTRANCE_TIME);
            self.attempt_upgrade();
        }
    }

    fn attempt_upgrade(&mut self) {
        let visitors = self.visitors.as_ref();
        let is_empty = visitors.is_none_or(|visitors| visitors.entrance.is_empty());
        let upgrade = self.upgrade.as_ref();
        let is_over = upgrade.is_some_and(|upgrade| upgrade.deadline.at().is_none());
        // What sessions want done is not written down.
        if self.scheduler.has_actions() || !(is_empty || is_over) {
            return;
        }
        if self.leave_tls() {
            return;
        }
        self.tell_reloading();
        let failed = match self.upgrade() {
            Ok(never) => match never {},
            Err(failed) => failed,
        };
        self.tell_reloaded(None);
        let Some(upgrade) = &mut self.upgrade else {
            return;
        };
        upgrade.attempts += 1;
        match failed {
            Failure::ForNow(why) if upgrade.attempts < ATTEMPTS => {
                info!("the upgrade has to wait: {why}");
                upgrade.stage = Stage::Waiting;
                let at = Some(self.reactor.now() + RETRY_TIME);
                let timers = &mut self.reactor.timers;
                upgrade.deadline.set(at, Due::Upgrade, timers);
            }
            Failure::ForNow(why) | Failure::ForGood(why) => self.upgrade_failed(&why),
        }
    }

    /// Nothing has changed, and nothing is left of the attempt.
    fn upgrade_failed(&mut self, why: &str) {
        if let Some(mut upgrade) = self.upgrade.take() {
            upgrade.deadline.clear(&mut self.reactor.timers);
            self.counts.note_upgrade(false);
            warn!(
                "no upgrade to {}, and nothing has changed: {why}",
                self.system.program.path().display()
            );
        }
        self.listeners.go_on();
        self.end_rehearsal();
        // Whoever has come meanwhile was kept waiting.
        self.has_rest = true;
    }

    /// The other program has nothing more to do. If it was reaped, its number may be another's.
    fn end_rehearsal(&mut self) {
        if let Some(pid) = self.servers.guest {
            let _ = reap::signal_process(pid, Signal::SIGKILL);
        }
    }

    /// The other program goes on. Returns only if it does not: then all is as it was.
    fn upgrade(&self) -> Result<Infallible, Failure> {
        let for_good = |why: String| Failure::ForGood(why);
        let state = parcel::file_of(&self.whole())
            .map_err(|error| for_good(format!("there is no file for the state: {error}")))?;
        let sender = File::open(OWN_PROGRAM)
            .map_err(|error| for_good(format!("{OWN_PROGRAM} can't be opened: {error}")))?;
        let words = parcel::words_in_file(env::args_os())
            .map_err(|error| for_good(format!("there is no file for the arguments: {error}")))?;
        let stdin = parcel::send([&state, &sender, &words], &self.descriptors())
            .map_err(|error| Failure::ForNow(format!("descriptors can't be sent: {error}")))?;
        log::logger().flush();
        let program = self.system.program.next();
        let error = match program.start(&stdin) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let path = program.path().display();
        Err(for_good(format!("{path} can't be started: {error}")))
    }

    /// All descriptors that the state speaks of, in order.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = Vec::new();
        self.each_source(|source| all.push(source.into_fd()));
        all.extend(self.locks());
        all
    }
}

/// Of one kind or another.
impl<'a> SourceRef<'a, Linux> {
    fn into_fd(self) -> BorrowedFd<'a> {
        match self {
            Self::Listener(listener) => listener.as_fd(),
            Self::Client(client) => client.socket().as_fd(),
            Self::Stdin(stdin) => stdin.as_fd(),
            Self::Output(output) => output.as_fd(),
        }
    }
}
