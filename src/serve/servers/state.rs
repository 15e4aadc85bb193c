//! The servers as they are written down.

use std::io;

use serde::{Deserialize, Serialize};

use super::{ProcessCounts, ServerKey, Servers};
use crate::serve::server::{Life, Reactor, Server, ServerState};
use crate::serve::state::Sources;
use crate::serve::system::System;

/// The servers without their pipes.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct ServersState {
    all: Vec<(ServerKey, ServerState)>,
    counts: Vec<ProcessCounts>,
}

/// A pid as a number.
pub(in crate::serve) mod carried_pid {
    use nix::unistd::Pid;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "so serde calls it")]
    pub(in crate::serve) fn serialize<S: Serializer>(
        pid: &Pid,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        pid.as_raw().serialize(serializer)
    }

    pub(in crate::serve) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Pid, D::Error> {
        i32::deserialize(deserializer).map(Pid::from_raw)
    }
}

impl ServersState {
    /// How many of their pipes are written to and read from.
    pub(in crate::serve) fn pipes(&self) -> (usize, usize) {
        let all = self.all.iter().map(|(_, server)| server.pipes());
        all.fold((0, 0), |(ins, outs), (more_ins, more_outs)| {
            (ins + more_ins, outs + more_outs)
        })
    }
}

impl<S: System> Servers<S> {
    pub(in crate::serve) fn state(&self) -> ServersState {
        let all = self.iter().map(|(key, it)| (key, ServerState::of(it)));
        ServersState {
            all: all.collect(),
            counts: self.counts.clone(),
        }
    }

    pub(in crate::serve) fn into_all(self) -> impl Iterator<Item = Server<S>> {
        self.all.into_iter().map(|(_, server)| server)
    }

    /// Goes on with these servers. Groups of which something may be left are looked at anew.
    pub(in crate::serve) fn restore(
        &mut self,
        state: ServersState,
        sources: &mut Sources<S>,
        reactor: &mut Reactor<S>,
    ) -> io::Result<()> {
        let ServersState { all, counts } = state;
        let mut servers = Vec::new();
        for (key, state) in all {
            match state.life() {
                Life::Running => {
                    self.by_pid.insert(state.pid(), key);
                }
                Life::Reaped => self.remnants.insert(key),
                Life::Gone => {}
            }
            servers.push((key.index(), state.restore::<S>(key, sources, reactor)?));
        }
        self.all = servers.into_iter().collect::<slab::Slab<Server<S>>>();
        self.counts = counts;
        self.look_at_all_groups();
        Ok(())
    }
}
