//! The loop as it is written down, and taken up again: by another program in the same process, or by the simulation.
//!
//! All of it is data but the descriptors ([`Sources`]), which go beside it in an order that follows from the data:
//! listening sockets, connections, what servers read, what they write. The loop is written down between two iterations,
//! when there is nothing that sessions want done. Deadlines of sessions and servers are not written down, as they follow
//! from these.

use std::collections::VecDeque;
use std::io;

use mio::Interest;
use serde::{Deserialize, Serialize};

use super::accept::{ListenerKey, Listeners, ListenersState};
use super::client::PlaceState;
use super::counts::ProxyCounts;
use super::newcomers::INTEREST;
use super::resuming::ResumingState;
use super::server::Reactor;
use super::servers::{ServerKey, ServersState};
use super::services::{Plan, ServicesState};
use super::sharing::Sharing;
use super::start_queue::StartQueueState;
use super::status::{About, StatusState};
use super::system::System;
use super::vanished::Looks;
use super::{Channel, Due, Proxy};
use crate::entrance::EntranceState;
use crate::entrance::tokens::Tokens;
use crate::reactor::io::{Io, Readiness};
use crate::reactor::poller::Register;
use crate::reactor::token::Target;
use crate::resume::Server as KeptSession;
use crate::scheduler::SchedulerState;
use crate::session::Session;
use crate::util::service_key::ServiceKey;
use crate::util::time::Time;

/// A loop. `S` is a session, `K` what is kept of it, and `H` what is shared, or where they are.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProxyState<S = Session, K = Box<KeptSession>, H = Sharing> {
    listeners: ListenersState,
    status: Option<StatusState>,
    entrance: Option<EntranceState>,
    sessions: SchedulerState<S>,
    /// What is around each session, in the same order.
    places: Vec<PlaceState<K>>,
    resuming: Option<ResumingState>,
    servers: ServersState,
    start_queue: StartQueueState,
    services: ServicesState<H>,
    talking_spares: Vec<ServerKey>,
    counts: ProxyCounts,
    sessions_so_far: u64,
    next_look: Time,
    pause: Option<Time>,
    exhaustion_logged: bool,
}

/// The descriptors of a loop, of each kind in order.
#[derive(Debug)]
pub struct Sources<S: System> {
    /// Where connections come in.
    pub listeners: VecDeque<S::Listener>,
    /// Where those connect who ask how things are.
    pub status: VecDeque<S::Listener>,
    /// Connections.
    pub clients: VecDeque<S::Client>,
    /// What servers read.
    pub stdins: VecDeque<S::Stdin>,
    /// What servers write, to stdout and to stderr.
    pub outputs: VecDeque<S::Output>,
}

/// How many descriptors there are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceCounts {
    pub(super) listeners: usize,
    pub(super) status: usize,
    pub(super) clients: usize,
    pub(super) stdins: usize,
    pub(super) outputs: usize,
}

/// One of them, where it is.
pub(super) enum SourceRef<'a, S: System> {
    Listener(&'a S::Listener),
    Client(&'a S::Client),
    Stdin(&'a S::Stdin),
    Output(&'a S::Output),
}

impl<S: System> Default for Sources<S> {
    fn default() -> Self {
        Self {
            listeners: VecDeque::new(),
            status: VecDeque::new(),
            clients: VecDeque::new(),
            stdins: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }
}

/// Takes the next one and watches it, with what was known of it.
fn watch<S: System, D>(
    next: Option<D>,
    target: Target<Channel>,
    interest: Interest,
    known: Readiness,
    reactor: &mut Reactor<S>,
) -> io::Result<Io<D>>
where
    S::Poller: Register<D>,
{
    let next = next.ok_or_else(|| io::Error::other("descriptors are missing"))?;
    let mut io = reactor.register(next, target, interest)?;
    io.recall(known);
    Ok(io)
}

impl<S: System> Sources<S> {
    pub(super) fn listener(
        &mut self,
        key: ListenerKey,
        known: Readiness,
        reactor: &mut Reactor<S>,
    ) -> io::Result<Io<S::Listener>> {
        let target = Target {
            key: key.0,
            channel: Channel::Listener,
        };
        let next = self.listeners.pop_front();
        watch::<S, _>(next, target, Interest::READABLE, known, reactor)
    }

    pub(super) fn status_listener(
        &mut self,
        key: usize,
        known: Readiness,
        reactor: &mut Reactor<S>,
    ) -> io::Result<Io<S::Listener>> {
        let channel = Channel::StatusListener;
        let target = Target { key, channel };
        let next = self.status.pop_front();
        watch::<S, _>(next, target, Interest::READABLE, known, reactor)
    }

    pub(super) fn client(
        &mut self,
        target: Target<Channel>,
        known: Readiness,
        reactor: &mut Reactor<S>,
    ) -> io::Result<Io<S::Client>> {
        let next = self.clients.pop_front();
        watch::<S, _>(next, target, INTEREST, known, reactor)
    }

    pub(super) fn stdin(
        &mut self,
        target: Target<Channel>,
        known: Readiness,
        reactor: &mut Reactor<S>,
    ) -> io::Result<Io<S::Stdin>> {
        let next = self.stdins.pop_front();
        watch::<S, _>(next, target, Interest::WRITABLE, known, reactor)
    }

    pub(super) fn output(
        &mut self,
        target: Target<Channel>,
        known: Readiness,
        reactor: &mut Reactor<S>,
    ) -> io::Result<Io<S::Output>> {
        let next = self.outputs.pop_front();
        watch::<S, _>(next, target, Interest::READABLE, known, reactor)
    }
}

impl<S, K, H> ProxyState<S, K, H> {
    pub(super) fn sources(&self) -> SourceCounts {
        let (stdins, outputs) = self.servers.pipes();
        let clients = self.places.iter().filter(|place| place.has_client());
        let newcomers = self.resuming.as_ref().map_or(0, ResumingState::newcomers);
        SourceCounts {
            listeners: self.listeners.len(),
            status: self.status.as_ref().map_or(0, StatusState::listeners),
            clients: clients.count() + newcomers,
            stdins,
            outputs,
        }
    }

    /// How each service is served.
    pub(super) fn plans(&self) -> Vec<Plan> {
        self.services.plans()
    }

    /// The services that somebody gets.
    pub(super) fn served(&self) -> impl Iterator<Item = (ServiceKey, &Plan)> {
        self.services.served()
    }

    /// Whether something is, or was, asked of connections.
    pub(super) fn has_entrance(&self) -> bool {
        self.entrance.is_some()
    }

    /// Who may come in, if tokens are asked for.
    pub(super) fn tokens(&self) -> Option<&Tokens> {
        self.entrance.as_ref().and_then(EntranceState::tokens)
    }

    /// Where the program was told to listen, if those are told who ask.
    pub(super) fn addresses(&self) -> Option<&str> {
        self.status.as_ref().map(StatusState::addresses)
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

impl<S: System> Proxy<S> {
    /// The loop as it is.
    pub fn snapshot(&self) -> ProxyState<&Session, &KeptSession, &Sharing> {
        let places = self.scheduler.iter();
        ProxyState {
            listeners: self.listeners.state(),
            status: self
                .status
                .as_ref()
                .map(|status| StatusState::of(status, &self.reactor)),
            entrance: self.visitors.as_ref().map(|it| it.entrance.state()),
            sessions: self.scheduler.state(),
            places: places.map(|(.., place)| PlaceState::of(place)).collect(),
            resuming: self.resuming.as_ref().map(|it| it.state()),
            servers: self.servers.state(),
            start_queue: self.start_queue.state(),
            services: self.services.state(self.scheduler.all_settings()),
            talking_spares: self.talking_spares.clone(),
            counts: self.counts.clone(),
            sessions_so_far: self.sessions_so_far,
            next_look: self.looks.next(),
            pause: self.pause.at(),
            exhaustion_logged: self.exhaustion_logged,
        }
    }

    /// Where connections come in, and then where those connect who ask how things are.
    pub(super) fn all_listeners(&self) -> impl Iterator<Item = &S::Listener> {
        let status = self.status.iter().flat_map(|status| status.sources());
        self.listeners.sources().chain(status)
    }

    /// The same, to be changed.
    pub(super) fn all_listeners_mut(&mut self) -> impl Iterator<Item = &mut S::Listener> {
        let status = self.status.iter_mut();
        let status = status.flat_map(|status| status.sources_mut());
        self.listeners.sources_mut().chain(status)
    }

    /// Its descriptors, in the order in which they go beside the state.
    pub(super) fn each_source<'a>(&'a self, mut take: impl FnMut(SourceRef<'a, S>)) {
        for listener in self.all_listeners() {
            take(SourceRef::Listener(listener));
        }
        for (_, _, place) in self.scheduler.iter() {
            if let Some(client) = place.client() {
                take(SourceRef::Client(client.source()));
            }
        }
        if let Some(resuming) = &self.resuming {
            for client in resuming.newcomers.sources() {
                take(SourceRef::Client(client));
            }
        }
        for (_, server) in self.servers.iter() {
            if let Some(stdin) = &server.stdin {
                take(SourceRef::Stdin(stdin.source()));
            }
        }
        for (_, server) in self.servers.iter() {
            for output in [&server.stdout, &server.stderr].into_iter().flatten() {
                take(SourceRef::Output(output.source()));
            }
        }
    }

    /// Ends the loop and leaves its descriptors as they are.
    pub fn into_sources(self) -> Sources<S> {
        let mut sources = Sources::default();
        sources.listeners.extend(self.listeners.into_sources());
        let status = self.status.map(|status| status.into_sources());
        sources.status.extend(status.into_iter().flatten());
        for place in self.scheduler.into_places() {
            sources.clients.extend(place.into_source());
        }
        if let Some(resuming) = self.resuming {
            sources.clients.extend(resuming.newcomers.into_sources());
        }
        for server in self.servers.into_all() {
            sources.stdins.extend(server.stdin.map(Io::into_source));
            let outputs = [server.stdout, server.stderr].into_iter().flatten();
            sources.outputs.extend(outputs.map(Io::into_source));
        }
        sources
    }

    /// Goes on where a loop was that served the same services. It must not have done anything yet. `about` is for those who
    /// ask, if anybody may.
    ///
    /// # Errors
    /// Something can't be watched, or is not there.
    pub fn restore(
        &mut self,
        state: ProxyState,
        mut sources: Sources<S>,
        about: Option<About>,
    ) -> io::Result<()> {
        if state.services.len() != self.services.keys().count() {
            return Err(io::Error::other("other services were served"));
        }
        let keeps_alike = state.resuming.is_some() == self.resuming.is_some();
        if state.entrance.is_some() != self.visitors.is_some() || !keeps_alike {
            return Err(io::Error::other("other things were asked of connections"));
        }
        let (sources, reactor) = (&mut sources, &mut self.reactor);
        self.listeners = Listeners::restore(state.listeners, sources, reactor)?;
        if let Some((status, about)) = state.status.zip(about) {
            self.status = Some(Box::new(status.restore(about, sources, reactor)?));
        }
        let mut places = Vec::new();
        for ((key, _), place) in state.sessions.services().zip(state.places) {
            places.push(place.restore(key, sources, reactor)?);
        }
        if let Some((resuming, kept)) = self.resuming.as_mut().zip(state.resuming) {
            resuming.restore(kept, sources, reactor)?;
            for ((key, _), place) in state.sessions.services().zip(&mut places) {
                resuming.add(key, place, self.scheduler.memory_mut());
            }
        }
        self.servers.restore(state.servers, sources, reactor)?;
        if let Some((visitors, entrance)) = self.visitors.as_mut().zip(state.entrance) {
            visitors.entrance.restore(entrance);
        }
        let timers = &mut self.reactor.timers;
        self.scheduler.restore(state.sessions, places, timers);
        let (_, memory) = self.scheduler.scratch_and_memory();
        self.services.restore(state.services, memory, timers);
        self.start_queue.restore(state.start_queue, timers);
        self.pause.set(state.pause, Due::Accept, timers);
        self.talking_spares = state.talking_spares;
        self.counts = state.counts;
        self.sessions_so_far = state.sessions_so_far;
        self.looks = Looks::new(state.next_look);
        self.exhaustion_logged = state.exhaustion_logged;
        self.count_restored();
        Ok(())
    }

    /// What is counted of sessions follows from them.
    fn count_restored(&mut self) {
        let Self {
            scheduler,
            services,
            quotas,
            refused,
            resuming,
            ..
        } = self;
        for (_, session, place) in scheduler.iter() {
            if let Some(resuming) = resuming.as_mut().filter(|_| place.is_detached()) {
                resuming.is_away(session.label().client().origin(), !place.gave_up_place);
            }
            if session.was_refused() {
                *refused += 1;
            } else if !place.gave_up_place {
                services.get_mut(place.service()).sessions += 1;
                quotas.open(session.label().client(), place.identity());
            }
        }
    }
}
