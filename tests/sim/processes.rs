//! The processes of servers that are looked at from outside: what the loop sees of them, and what the system keeps of them.

use std::collections::HashMap;

use mcp_tcp_proxy::process::Spawned;
use mcp_tcp_proxy::process::reap::Reaped;
use mcp_tcp_proxy::scheduler::SessionKey;
use mcp_tcp_proxy::session::report::Exit;
use nix::unistd::Pid;
use slab::Slab;

use crate::rng::Rng;
use crate::trace;
use crate::transport::{Duplex, Events, Inflow, Output, Shared, Stdin, shared};

/// A server as a process.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    pub pipes: Shared<Duplex>,
    pub stderr: Shared<Inflow>,
    pub exit: Option<Exit>,
    pub reaped: bool,
}

impl Process {
    pub fn new(pid: i32, rng: &mut Rng) -> Self {
        let capacity = rng.pick(&[700, 4096, 65_536]);
        Self {
            pid,
            pipes: shared(Duplex::new(capacity, rng)),
            stderr: shared(Inflow::new(4096, rng.fork())),
            exit: None,
            reaped: false,
        }
    }

    pub fn is_running(&self) -> bool {
        self.exit.is_none()
    }

    pub fn notify(&self, events: &mut Events) {
        self.pipes.borrow_mut().notify(events);
        self.stderr.borrow_mut().notify(events);
    }

    /// What the loop gets of it.
    fn spawned(&self, user: Option<SessionKey>) -> Spawned<Stdin, Output> {
        trace::note(|| format!("pid {} starts for {user:?}", self.pid));
        Spawned {
            pid: Pid::from_raw(self.pid),
            stdin: Stdin(self.pipes.clone()),
            stdout: Output::Stdout(self.pipes.clone()),
            stderr: Output::Stderr(self.stderr.clone()),
        }
    }
}

/// The servers of a world.
#[derive(Debug)]
pub struct Processes<P> {
    pub all: Slab<P>,
    by_pid: HashMap<i32, usize>,
    last_pid: i32,
    /// Of those that have ended, the ones that were not reaped.
    exited: Vec<usize>,
}

impl<P> Default for Processes<P> {
    fn default() -> Self {
        Self {
            all: Slab::new(),
            by_pid: HashMap::new(),
            last_pid: 0,
            exited: Vec::new(),
        }
    }
}

impl<P: AsRef<Process> + AsMut<Process>> Processes<P> {
    /// Starts the server that is made with this pid.
    pub fn start(
        &mut self,
        user: Option<SessionKey>,
        make: impl FnOnce(i32) -> P,
    ) -> Spawned<Stdin, Output> {
        self.last_pid += 1;
        let server = make(self.last_pid);
        let spawned = server.as_ref().spawned(user);
        self.by_pid.insert(self.last_pid, self.all.insert(server));
        spawned
    }

    pub fn reap(&mut self) -> Reaped {
        let Some(key) = self.exited.pop() else {
            return Reaped::Nothing;
        };
        let process = self.all[key].as_mut();
        process.reaped = true;
        Reaped::Process(Pid::from_raw(process.pid), process.exit.unwrap())
    }

    /// The key of one that was not reaped.
    pub fn key(&self, pid: Pid) -> Option<usize> {
        let key = *self.by_pid.get(&pid.as_raw())?;
        let server = self.all.get(key)?;
        (!server.as_ref().reaped).then_some(key)
    }

    /// Lets one act, which may be its end.
    pub fn act(&mut self, key: usize, act: impl FnOnce(&mut P)) {
        let server = &mut self.all[key];
        let was_running = server.as_ref().is_running();
        act(server);
        if was_running && !server.as_ref().is_running() {
            self.exited.push(key);
        }
    }

    /// Those that have ended and were not reaped.
    pub fn exited(&self) -> &[usize] {
        &self.exited
    }

    /// How many there have been.
    pub fn so_far(&self) -> i32 {
        self.last_pid
    }

    /// Forgets those of which nobody reads any more.
    pub fn forget(&mut self) {
        self.all.retain(|_, server| {
            let process = server.as_ref();
            !process.reaped || process.pipes.borrow().reads
        });
    }
}
