//! A server as it is written down: all but its pipes themselves.

use std::io;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{Life, PipeWidener, Reactor, Server, Stopping, User};
use crate::process::escalation::Escalation;
use crate::reactor::io::{Io, Readiness};
use crate::reactor::timers::Deadline;
use crate::serve::servers::{ServerKey, carried_pid, server_target};
use crate::serve::state::Sources;
use crate::serve::system::System;
use crate::serve::{Channel, Due};
use crate::session::report::Exit;
use crate::util::defaults::is_default;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// Everything about a server but its pipes.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct ServerState {
    #[serde(with = "carried_pid")]
    pid: Pid,
    service: ServiceKey,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User>,
    life: Life,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<Exit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopping: Option<Escalation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unheard_since: Option<Time>,
    /// What is known of each pipe that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdin: Option<Readiness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<Readiness>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<Readiness>,
    #[serde(default, skip_serializing_if = "is_default")]
    stdin_widener: PipeWidener,
    #[serde(default, skip_serializing_if = "is_default")]
    stdout_widener: PipeWidener,
}

impl ServerState {
    pub(in crate::serve) fn of<S: System>(server: &Server<S>) -> Self {
        Self {
            pid: server.pid,
            service: server.service,
            user: server.user,
            life: server.life,
            exit: server.exit.as_deref().copied(),
            stopping: server.stopping.as_ref().map(|it| it.escalation),
            unheard_since: server.unheard_since,
            stdin: server.stdin.as_ref().map(Io::readiness),
            stdout: server.stdout.as_ref().map(Io::readiness),
            stderr: server.stderr.as_ref().map(Io::readiness),
            stdin_widener: server.stdin_widener,
            stdout_widener: server.stdout_widener,
        }
    }

    pub(in crate::serve) fn pid(&self) -> Pid {
        self.pid
    }

    pub(in crate::serve) fn life(&self) -> Life {
        self.life
    }

    /// How many of its pipes are written to and read from.
    pub(in crate::serve) fn pipes(&self) -> (usize, usize) {
        let outputs = [self.stdout, self.stderr];
        let outputs = outputs.iter().flatten().count();
        (usize::from(self.stdin.is_some()), outputs)
    }

    /// The server, with its pipes.
    pub(in crate::serve) fn restore<S: System>(
        self,
        key: ServerKey,
        sources: &mut Sources<S>,
        reactor: &mut Reactor<S>,
    ) -> io::Result<Server<S>> {
        let watch = |channel| server_target(key, channel);
        let stdin = self.stdin;
        let stdin = stdin.map(|known| sources.stdin(watch(Channel::Stdin), known, reactor));
        let stdout = self.stdout;
        let stdout = stdout.map(|known| sources.output(watch(Channel::Stdout), known, reactor));
        let stderr = self.stderr;
        let stderr = stderr.map(|known| sources.output(watch(Channel::Stderr), known, reactor));
        let stopping = self.stopping.map(|escalation| {
            let mut deadline = Deadline::default();
            // Nothing is done any more about one of which nothing is left.
            let at = escalation.deadline().filter(|_| self.life != Life::Gone);
            deadline.set(at, Due::Server(key), &mut reactor.timers);
            Box::new(Stopping {
                escalation,
                deadline,
            })
        });
        Ok(Server {
            user: self.user,
            life: self.life,
            exit: self.exit.map(Box::new),
            stopping,
            unheard_since: self.unheard_since,
            stdin: stdin.transpose()?,
            stdout: stdout.transpose()?,
            stderr: stderr.transpose()?,
            stdin_widener: self.stdin_widener,
            stdout_widener: self.stdout_widener,
            ..Server::new(self.service, self.pid)
        })
    }
}
