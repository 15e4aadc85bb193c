//! All server processes, in use or not: from their start until nothing is left of them and of their groups.
//!
//! Tokens and deadlines name a server by its key, whoever uses it, so a server that changes hands stays registered as it
//! is. Which server serves whom is decided elsewhere.

mod state;

use std::collections::HashMap;
use std::io;

use log::{debug, warn};
use mio::Interest;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use slab::Slab;

pub(super) use self::state::{ServersState, carried_pid};
use super::counts::ProcessCounts;
use super::remnants::Remnants;
use super::server::{Life, Reactor, Server, Stopping};
use super::system::System;
use super::{Channel, Due};
use crate::process::Spawned;
use crate::process::escalation::{Escalation, Step};
use crate::process::reap::Reaped;
use crate::reactor::timers::{Deadline, Timers};
use crate::reactor::token::Target;
use crate::session::report::Exit;
use crate::util::large_slab;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// Names a server. It is used again when nothing is left of the server, and no session uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerKey(pub u32);

impl ServerKey {
    /// The one at this place.
    pub(super) fn at(index: usize) -> Self {
        Self(index as u32)
    }

    /// Its place among all.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What events about a pipe of a server name.
pub(super) fn server_target(key: ServerKey, channel: Channel) -> Target<Channel> {
    Target {
        key: key.index(),
        channel,
    }
}

/// The servers.
pub struct Servers<S: System> {
    all: Slab<Server<S>>,
    /// Those that were not reaped.
    by_pid: HashMap<Pid, ServerKey>,
    /// Those that were, but there may be more in their groups.
    remnants: Remnants,
    /// Those of each service.
    counts: Vec<ProcessCounts>,
    /// A process that is no server, until it was reaped.
    pub(super) guest: Option<Pid>,
}

impl<S: System> Default for Servers<S> {
    fn default() -> Self {
        Self {
            all: large_slab::new(),
            by_pid: HashMap::new(),
            remnants: Remnants::default(),
            counts: Vec::new(),
            guest: None,
        }
    }
}

impl<S: System> Servers<S> {
    /// Takes in a process that was started. It is kept in any case; an error tells that its pipes can't be watched, and
    /// then it is of no use and to be stopped.
    pub(super) fn add(
        &mut self,
        service: ServiceKey,
        spawned: Spawned<S::Stdin, S::Output>,
        reactor: &mut Reactor<S>,
    ) -> (ServerKey, io::Result<()>) {
        let Spawned {
            pid,
            stdin,
            stdout,
            stderr,
        } = spawned;
        let mut server = Server::new(service, pid);
        server.unheard_since = Some(reactor.now());
        let key = ServerKey::at(self.all.insert(server));
        self.by_pid.insert(pid, key);
        if self.counts.len() <= service.0 {
            self.counts.resize(service.0 + 1, ProcessCounts::default());
        }
        self.counts[service.0].running += 1;
        let server = &mut self.all[key.index()];
        let target = |channel| server_target(key, channel);
        let watch = || {
            let (write, read) = (Interest::WRITABLE, Interest::READABLE);
            server.stdin = Some(reactor.register(stdin, target(Channel::Stdin), write)?);
            server.stdout = Some(reactor.register(stdout, target(Channel::Stdout), read)?);
            server.stderr = Some(reactor.register(stderr, target(Channel::Stderr), read)?);
            Ok(())
        };
        (key, watch())
    }

    /// A server, if it is there.
    pub fn get(&self, key: ServerKey) -> Option<&Server<S>> {
        self.all.get(key.index())
    }

    pub(super) fn get_mut(&mut self, key: ServerKey) -> Option<&mut Server<S>> {
        self.all.get_mut(key.index())
    }

    /// All that are there.
    pub fn iter(&self) -> impl Iterator<Item = (ServerKey, &Server<S>)> {
        self.all
            .iter()
            .map(|(key, server)| (ServerKey::at(key), server))
    }

    /// Begins to count anew for a service of which there are no servers.
    pub(super) fn reset_counts(&mut self, service: ServiceKey) {
        if let Some(counts) = self.counts.get_mut(service.0) {
            *counts = ProcessCounts::default();
        }
    }

    /// How many processes of a service there are, and how the others have ended.
    pub(super) fn counts_of(&self, service: ServiceKey) -> ProcessCounts {
        self.counts.get(service.0).copied().unwrap_or_default()
    }

    /// Of how many servers something is left.
    pub fn left(&self) -> usize {
        self.by_pid.len() + self.remnants.len()
    }

    /// Ends the input of a server: it is to go. [`Due::Server`] tells when force is due.
    pub(super) fn stop(&mut self, key: ServerKey, timers: &mut Timers<Due>) {
        if let Some(server) = self.all.get_mut(key.index()) {
            server.stdin = None;
            self.urge(key, Escalation::new, timers);
        }
    }

    /// The same for one that is not used for now.
    pub(super) fn stop_idle(&mut self, key: ServerKey, timers: &mut Timers<Due>) {
        if let Some(server) = self.all.get_mut(key.index()) {
            server.stdin = None;
            self.urge(key, Escalation::of_idle, timers);
        }
    }

    /// Has force used when it is due.
    fn urge(
        &mut self,
        key: ServerKey,
        begin: impl FnOnce(Time) -> Escalation,
        timers: &mut Timers<Due>,
    ) {
        let Some(server) = self.all.get_mut(key.index()) else {
            return;
        };
        if server.stopping.is_none() && server.life != Life::Gone {
            let escalation = begin(timers.now());
            let mut deadline = Deadline::default();
            deadline.set(escalation.deadline(), Due::Server(key), timers);
            server.stopping = Some(Box::new(Stopping {
                escalation,
                deadline,
            }));
        }
    }

    /// Uses force, as it is due. Returns whether the server was given up although it was not reaped: it counts as ended,
    /// and [`Self::free_if_gone`] is to be told once it was looked at.
    pub(super) fn escalate(
        &mut self,
        key: ServerKey,
        system: &mut S,
        timers: &mut Timers<Due>,
    ) -> bool {
        let Some(server) = self.all.get_mut(key.index()) else {
            return false;
        };
        let (pid, life) = (server.pid, server.life);
        let Some(stopping) = server.stopping.as_deref_mut() else {
            return false;
        };
        stopping.deadline.fired();
        match stopping.escalation.escalate(timers.now()) {
            Some(Step::Terminate) => {
                use_force(system, pid, life, Signal::SIGTERM);
            }
            Some(Step::Kill) => {
                let is_sent = use_force(system, pid, life, Signal::SIGKILL);
                if !is_sent {
                    stopping.escalation.give_up();
                }
            }
            Some(Step::Abandon) => {
                warn!("server pid {pid}: its process group outlived SIGKILL and is left alone");
            }
            None => {}
        }
        let next = stopping.escalation.deadline();
        stopping.deadline.set(next, Due::Server(key), timers);
        let is_abandoned = next.is_none() && life == Life::Running;
        if is_abandoned {
            server.life = Life::Gone;
            server.exit = Some(Box::new(Exit::Unstoppable));
            self.counts[server.service.0].running -= 1;
            self.by_pid.remove(&pid);
        }
        self.forget_if_empty(key, system, timers);
        is_abandoned
    }

    /// Sends SIGKILL to every server and every group.
    pub(super) fn kill_all(&self, system: &mut S) {
        for (_, server) in &self.all {
            let _ = signal(system, server.pid, server.life, Signal::SIGKILL);
        }
    }

    /// Reaps all that have ended, orphans of servers included: an orphan may have been the last of its group. Returns the servers among them, of which
    /// [`Self::stop_remnants`] is to be told once they were looked at.
    pub(super) fn reap(&mut self, system: &mut S) -> Vec<ServerKey> {
        let mut ended = Vec::new();
        loop {
            match system.reap() {
                Reaped::Process(pid, exit) => {
                    let server = self.reaped(pid, exit);
                    if server.is_none() {
                        self.guest = self.guest.filter(|guest| *guest != pid);
                        self.remnants.begin_round();
                    }
                    ended.extend(server);
                }
                Reaped::Unknown => {
                    let pids = self.by_pid.keys().copied();
                    let gone: Vec<Pid> = pids.filter(|pid| !system.process_exists(*pid)).collect();
                    let gone = gone.into_iter();
                    ended.extend(gone.filter_map(|pid| self.reaped(pid, Exit::Unknown)));
                }
                Reaped::Nothing => return ended,
            }
        }
    }

    fn reaped(&mut self, pid: Pid, exit: Exit) -> Option<ServerKey> {
        let key = self.by_pid.remove(&pid)?;
        let server = self.all.get_mut(key.index())?;
        server.reaped(exit);
        let counts = &mut self.counts[server.service.0];
        counts.running -= 1;
        counts.exits.note(exit);
        self.remnants.insert(key);
        Some(key)
    }

    /// Stops what is left of the groups of servers that have ended.
    pub(super) fn stop_remnants(
        &mut self,
        ended: &[ServerKey],
        system: &mut S,
        timers: &mut Timers<Due>,
    ) {
        for key in ended {
            self.forget_if_empty(*key, system, timers);
            if self.remnants.contains(*key) {
                self.urge(*key, Escalation::new, timers);
            }
        }
    }

    /// Any group may have become empty.
    pub(super) fn look_at_all_groups(&mut self) {
        self.remnants.begin_round();
    }

    /// Whether groups are to be looked at that may have become empty.
    pub(super) fn has_groups_to_look_at(&self) -> bool {
        self.remnants.is_under_way()
    }

    /// Looks at some of them.
    pub(super) fn look_at_groups(&mut self, system: &S, timers: &mut Timers<Due>) {
        for key in self.remnants.next_slice() {
            self.forget_if_empty(key, system, timers);
        }
    }

    /// Lets go of a reaped server that has left nothing behind in its group, or nothing that any signal can end.
    fn forget_if_empty(&mut self, key: ServerKey, system: &S, timers: &mut Timers<Due>) {
        let server = self.all.get_mut(key.index());
        let Some(server) = server.filter(|server| server.life == Life::Reaped) else {
            return;
        };
        let stopping = server.stopping.as_deref_mut();
        let is_abandoned = stopping
            .as_ref()
            .is_some_and(|stopping| stopping.escalation.deadline().is_none());
        if !is_abandoned && system.group_exists(server.pid) {
            return;
        }
        if let Some(stopping) = stopping {
            stopping.deadline.clear(timers);
        }
        server.life = Life::Gone;
        self.remnants.remove(key);
        self.free_if_gone(key);
    }

    /// How many deadlines are set.
    pub(super) fn deadlines(&self) -> usize {
        let stopping = self.all.iter().filter_map(|(_, it)| it.stopping.as_deref());
        stopping
            .filter(|stopping| stopping.deadline.at().is_some())
            .count()
    }

    /// What holds between two iterations of the loop; it panics if it does not.
    pub(super) fn check(&self) {
        for (key, server) in &self.all {
            let key = ServerKey::at(key);
            let is_running = self.by_pid.get(&server.pid) == Some(&key);
            assert_eq!(is_running, server.life == Life::Running, "{key:?}");
            let is_remnant = self.remnants.contains(key);
            assert_eq!(is_remnant, server.life == Life::Reaped, "{key:?}");
            let is_over = server.life == Life::Gone && server.user.is_none();
            assert!(!is_over, "{key:?} is kept for nothing");
        }
    }

    /// Its user lets go of a server.
    pub(super) fn release(&mut self, key: ServerKey) {
        if let Some(server) = self.all.get_mut(key.index()) {
            server.user = None;
            server.close();
            self.free_if_gone(key);
        }
    }

    /// Frees what nothing is left of, and nobody uses.
    pub(super) fn free_if_gone(&mut self, key: ServerKey) {
        let server = self.all.get(key.index());
        if server.is_some_and(|server| server.life == Life::Gone && server.user.is_none()) {
            self.all.remove(key.index());
        }
    }
}

/// Sends a signal to a server and its group, or to what is left of the group.
fn signal<S: System>(system: &mut S, pid: Pid, life: Life, signal: Signal) -> nix::Result<()> {
    match life {
        Life::Running => system.signal_process(pid, signal),
        Life::Reaped => system.signal_group(pid, signal),
        Life::Gone => Ok(()),
    }
}

/// The same, with what the log says of it. Returns whether that may end it.
fn use_force<S: System>(system: &mut S, pid: Pid, life: Life, number: Signal) -> bool {
    match signal(system, pid, life, number) {
        Ok(()) => {
            warn!("server pid {pid} did not go by itself: {number} to its process group");
        }
        Err(Errno::EPERM) => {
            warn!(
                "server pid {pid} did not go by itself, and {number} is refused: {}",
                Errno::EPERM.desc()
            );
            return false;
        }
        Err(error) => debug!("server pid {pid}: {number}: {error}"),
    }
    true
}
