//! What there is for sessions that can be resumed, as it is written down. Which sessions there are, and what is kept of each,
//! is with the sessions.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Resuming;
use crate::buffers::budget::BufferBudget;
use crate::resume::{Ended, Fingerprint};
use crate::scheduler::SessionKey;
use crate::serve::ClientSession;
use crate::serve::newcomers::NewcomersState;
use crate::serve::server::Reactor;
use crate::serve::state::Sources;
use crate::serve::system::System;
use crate::util::time::Time;

/// All of that.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct ResumingState {
    timeout: Duration,
    ended: Vec<(Fingerprint, Ended, Time)>,
    newcomers: NewcomersState,
    lost: VecDeque<(SessionKey, Time)>,
    detached: usize,
    lingering: usize,
    results: Vec<u64>,
}

impl ResumingState {
    /// How many connections are no sessions yet.
    pub(in crate::serve) fn newcomers(&self) -> usize {
        self.newcomers.len()
    }
}

impl<C> Resuming<C> {
    pub(in crate::serve) fn state(&self) -> ResumingState {
        ResumingState {
            timeout: self.timeout,
            ended: self.registry.ended().collect(),
            newcomers: self.newcomers.state(),
            lost: self.lost.clone(),
            detached: self.detached,
            lingering: self.lingering,
            results: self.results.to_vec(),
        }
    }

    /// Goes on with it. Sessions are still to be added.
    pub(in crate::serve) fn restore<S: System<Client = C>>(
        &mut self,
        state: ResumingState,
        sources: &mut Sources<S>,
        reactor: &mut Reactor<S>,
    ) -> io::Result<()> {
        self.timeout = state.timeout;
        self.registry.remember(state.ended);
        self.newcomers = state.newcomers.restore(sources, reactor)?;
        self.lost = state.lost;
        // Who is detached follows from the sessions.
        self.lingering = state.lingering;
        for (own, count) in self.results.iter_mut().zip(state.results) {
            *own = count;
        }
        Ok(())
    }

    /// One of these sessions.
    pub(in crate::serve) fn add<S: System<Client = C>>(
        &mut self,
        key: SessionKey,
        place: &mut ClientSession<S>,
        memory: &mut BufferBudget,
    ) {
        if let Some(server) = &mut place.resume {
            self.registry.begin(server.id(), key.0);
            server.recharge(&mut self.totals, memory);
        }
    }
}
