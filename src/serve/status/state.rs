//! The service for those who ask, as it is written down. Whoever is being answered is not passed on, and asks again.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{About, History, StatusService};
use crate::reactor::io::{Io, Readiness};
use crate::serve::server::Reactor;
use crate::serve::state::Sources;
use crate::serve::system::System;
use crate::util::histogram::Histogram;
use crate::util::time::Time;

/// What those are told who ask, as far as the options do not say it.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::serve) struct StatusState {
    listeners: Vec<Readiness>,
    addresses: String,
    started: Time,
    started_unix: Duration,
    history: Vec<History>,
    iterations: Option<Histogram>,
}

impl StatusState {
    pub(in crate::serve) fn of<S: System>(status: &StatusService<S>, reactor: &Reactor<S>) -> Self {
        Self {
            listeners: status.listeners.iter().map(Io::readiness).collect(),
            addresses: status.about.addresses.clone(),
            started: status.about.started,
            started_unix: status.about.started_unix,
            history: status.history.clone(),
            iterations: reactor.iterations().cloned(),
        }
    }

    /// Where the program was told to listen.
    pub(in crate::serve) fn addresses(&self) -> &str {
        &self.addresses
    }

    /// How many sockets there are.
    pub(in crate::serve) fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Goes on with this, and with `about` for the rest.
    pub(in crate::serve) fn restore<S: System>(
        self,
        about: About,
        sources: &mut Sources<S>,
        reactor: &mut Reactor<S>,
    ) -> io::Result<StatusService<S>> {
        reactor.count_iterations_from(self.iterations.unwrap_or_default());
        let known = self.listeners.into_iter().enumerate();
        let listeners = known.map(|(key, known)| sources.status_listener(key, known, reactor));
        let about = About {
            started: self.started,
            started_unix: self.started_unix,
            ..about
        };
        let mut status = StatusService::new(listeners.collect::<io::Result<_>>()?, about);
        status.history = self.history;
        Ok(status)
    }
}

impl<S: System> StatusService<S> {
    /// Where those connect who ask.
    pub(in crate::serve) fn sources(&self) -> impl Iterator<Item = &S::Listener> {
        self.listeners.iter().map(Io::source)
    }

    /// The same, to be changed.
    pub(in crate::serve) fn sources_mut(&mut self) -> impl Iterator<Item = &mut S::Listener> {
        self.listeners.iter_mut().map(Io::source_mut)
    }

    /// The same, out of the loop.
    pub(in crate::serve) fn into_sources(self) -> impl Iterator<Item = S::Listener> {
        self.listeners.into_iter().map(Io::into_source)
    }
}
