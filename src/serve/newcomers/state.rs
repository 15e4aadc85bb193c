//! Connections of which the first line has not come, as they are written down: all but the connections themselves.

use std::collections::VecDeque;
use std::io;

use serde::{Deserialize, Serialize};
use slab::Slab;

use super::{Arrival, Newcomer, NewcomerKey, Newcomers};
use crate::reactor::io::Readiness;
use crate::reactor::timers::Deadline;
use crate::reactor::token::Target;
use crate::resume::first_look::FirstLook;
use crate::serve::server::Reactor;
use crate::serve::state::Sources;
use crate::serve::system::System;
use crate::serve::{Channel, Due};
use crate::util::time::Time;

/// All of them.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct NewcomersState {
    all: Vec<NewcomerState>,
    ready: VecDeque<NewcomerKey>,
    waiting: VecDeque<NewcomerKey>,
}

#[derive(Debug, Serialize, Deserialize)]
struct NewcomerState {
    key: NewcomerKey,
    known: Readiness,
    arrival: Arrival,
    look: FirstLook,
    at: Time,
    queued: bool,
    waits: bool,
}

impl NewcomersState {
    /// How many there are.
    pub(in crate::serve) fn len(&self) -> usize {
        self.all.len()
    }

    /// The same, with the connections.
    pub(in crate::serve) fn restore<S: System>(
        self,
        sources: &mut Sources<S>,
        reactor: &mut Reactor<S>,
    ) -> io::Result<Newcomers<S::Client>> {
        let mut all = Vec::new();
        for state in self.all {
            let NewcomerKey(key) = state.key;
            all.push((key, state.restore(sources, reactor)?));
        }
        Ok(Newcomers {
            all: all.into_iter().collect::<Slab<Newcomer<S::Client>>>(),
            ready: self.ready,
            waiting: self.waiting,
        })
    }
}

impl NewcomerState {
    fn restore<S: System>(
        self,
        sources: &mut Sources<S>,
        reactor: &mut Reactor<S>,
    ) -> io::Result<Newcomer<S::Client>> {
        let target = Target {
            key: self.key.0,
            channel: Channel::Newcomer,
        };
        let io = sources.client(target, self.known, reactor)?;
        let mut deadline = Deadline::default();
        deadline.set(Some(self.at), Due::Newcomer(self.key), &mut reactor.timers);
        Ok(Newcomer {
            io,
            arrival: self.arrival,
            look: self.look,
            deadline,
            at: self.at,
            queued: self.queued,
            waits: self.waits,
        })
    }
}

impl<C> Newcomers<C> {
    pub(in crate::serve) fn state(&self) -> NewcomersState {
        let all = self.all.iter().map(|(key, newcomer)| NewcomerState {
            key: NewcomerKey(key),
            known: newcomer.io.readiness(),
            arrival: newcomer.arrival.clone(),
            look: newcomer.look.clone(),
            at: newcomer.at,
            queued: newcomer.queued,
            waits: newcomer.waits,
        });
        NewcomersState {
            all: all.collect(),
            ready: self.ready.clone(),
            waiting: self.waiting.clone(),
        }
    }

    /// The connections, in the order of their keys.
    pub(in crate::serve) fn sources(&self) -> impl Iterator<Item = &C> {
        self.all.iter().map(|(_, newcomer)| newcomer.io.source())
    }

    /// The same, out of the loop.
    pub(in crate::serve) fn into_sources(self) -> impl Iterator<Item = C> {
        let all = self.all.into_iter();
        all.map(|(_, newcomer)| newcomer.io.into_source())
    }
}
