//! Puts a new configuration in force, in one turn: what was read, checked and bound before takes the place of what was there.
//!
//! A server is known by its name. If it is only served in another way, it keeps its key, and so do its sessions; if it is
//! changed how it is shared, those that come get another key, and the one of those that are there is retired. A key is
//! used again when nothing is left of what it named.

use std::collections::HashSet;
use std::time::Duration;

use log::info;
use mio::Interest;

use super::accept::ListenerKey;
use super::change::{Change, Placed, Wanted, WantedDoor, WantedSocket};
use super::newcomers::Arrival;
use super::quotas::Quotas;
use super::system::System;
use super::visitors::Visitors;
use super::{Channel, ClientSession, Plan, Proxy};
use crate::entrance::tokens::{DEFAULT_SERVER, Tokens};
use crate::entrance::{Directory, Name, Rules};
use crate::reactor::token::Target;
use crate::scheduler::SessionKey;
use crate::session::{Backend, Event};
use crate::transport::listener::{AcceptError, classify_accept_error};
use crate::util::plural::Counted;
use crate::util::service_key::ServiceKey;

/// Connections that are taken from a listener before it goes: as many as can wait there (listen(2)).
const MAX_WAITING: usize = 4096;

impl<S: System> Proxy<S> {
    /// Changes everything, or nothing: then the error says why.
    pub(super) fn change(&mut self, change: Change<S::Listener>) -> Result<(), String> {
        let Change {
            contents,
            rules,
            limits,
            buffer_bytes,
            log_level,
            drain_delay,
            about,
            services,
            doors,
        } = change;
        let (listeners, owners) = self.watch_doors(doors)?;
        self.empty_others(&listeners);
        log::set_max_level(log_level);
        let stop_timeout = services.first().map(|it| it.plan.settings.stop_timeout);
        let (keys, older) = self.place_services(services);
        self.retire_all_but(
            &keys.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
            &older,
        );
        self.set_stop_timeout(stop_timeout);
        let directory = self.new_directory(&keys);
        self.services.fallback = directory.fallback().unwrap_or(ServiceKey::ONLY);
        contents.log(&directory);
        self.limits = limits;
        self.start_queue.set_limit(limits.max_starting);
        self.scheduler.memory_mut().set_limit(buffer_bytes);
        self.stop_timers.drain_delay = drain_delay;
        self.count_anew();
        self.change_rules(Rules {
            servers: directory.clone(),
            tokens: contents.tokens.clone(),
            ..rules
        });
        if let Some(status) = &mut self.status {
            if !about.addresses.is_empty() {
                status.about.addresses = about.addresses;
            }
            let last = keys.iter().map(|(key, _)| key.0).max().unwrap_or(0);
            status.about.commands.resize(last + 1, String::new());
            for ((key, _), command) in keys.iter().zip(about.commands) {
                status.about.commands[key.0] = command;
            }
        }
        let keys: Vec<ServiceKey> = keys.into_iter().map(|(key, _)| key).collect();
        let placed = Placed {
            services: keys.clone(),
            older,
            listeners: listeners.iter().map(|(key, _)| *key).collect(),
        };
        self.system.configured(&contents, placed);
        self.set_doors(&listeners, &owners, &keys, &directory);
        self.move_newcomers(contents.tokens.as_ref());
        self.end_unserved();
        self.end_revoked(contents.tokens.as_ref());
        Ok(())
    }

    /// Watches what was bound. Returns the keys of all, with whether each is new, and whose they are. If one can't be
    /// watched, none is.
    #[allow(clippy::type_complexity, reason = "two lists that belong together")]
    fn watch_doors(
        &mut self,
        doors: Vec<WantedDoor<S::Listener>>,
    ) -> Result<(Vec<(ListenerKey, bool)>, Vec<Option<usize>>), String> {
        let mut listeners: Vec<(ListenerKey, bool)> = Vec::new();
        let mut owners = Vec::new();
        for door in doors {
            owners.push(door.of);
            let socket = match door.socket {
                WantedSocket::Kept(key) => {
                    listeners.push((key, false));
                    continue;
                }
                WantedSocket::New(socket) => socket,
            };
            let key = self.listeners.next_key();
            let target = Target {
                key: key.0,
                channel: Channel::Listener,
            };
            match self.reactor.register(socket, target, Interest::READABLE) {
                Ok(socket) => {
                    self.listeners.add(socket);
                    listeners.push((key, true));
                }
                Err(error) => {
                    let new = listeners.iter().filter(|(_, is_new)| *is_new);
                    for (key, _) in new {
                        self.listeners.remove(*key);
                    }
                    return Err(format!("cannot watch a listening socket: {error}"));
                }
            }
        }
        Ok((listeners, owners))
    }

    /// Takes what waits where nobody will listen any more, and listens there no more. It came in while the old configuration
    /// was in force.
    fn empty_others(&mut self, kept: &[(ListenerKey, bool)]) {
        for key in self.listeners.keys() {
            if kept.iter().all(|(other, _)| *other != key) {
                self.empty(key);
                if let Some((listener, _)) = self.listeners.get(key) {
                    self.system.log_closed(listener.source());
                }
                self.listeners.remove(key);
            }
        }
    }

    fn empty(&mut self, key: ListenerKey) {
        for _ in 0..MAX_WAITING {
            if self.refused >= super::accept::MAX_REFUSED || self.is_paused() {
                return;
            }
            let Some((listener, door)) = self.listeners.get(key) else {
                return;
            };
            match self.system.accept(listener.source()) {
                Ok((client, address)) => {
                    let door = *door;
                    self.accepted(door, client, address);
                    self.apply_actions();
                }
                Err(error) => match classify_accept_error(&error) {
                    AcceptError::Connection => {}
                    AcceptError::Blocked | AcceptError::Exhausted => return,
                },
            }
        }
    }

    /// Gives each a key. Returns these, with whether it is the default, and the keys of those that go on as they were for the
    /// sessions that they have.
    #[allow(clippy::type_complexity, reason = "two lists that belong together")]
    fn place_services(
        &mut self,
        wanted: Vec<Wanted>,
    ) -> (Vec<(ServiceKey, bool)>, Vec<(ServiceKey, Name)>) {
        let mut keys = Vec::new();
        let mut older: Vec<(ServiceKey, Name)> = self.retired_of(&wanted);
        for Wanted {
            plan,
            is_default,
            starts_alike,
        } in wanted
        {
            let old = self.services.called(plan.name.as_ref());
            let key = match old {
                Some(key) if self.is_shared_alike(key, &plan, starts_alike) => {
                    self.change_service(key, &plan, starts_alike);
                    key
                }
                Some(key) => {
                    self.retire(key);
                    older.extend(plan.name.clone().map(|name| (key, name)));
                    self.place_service(plan)
                }
                None => self.place_service(plan),
            };
            keys.push((key, is_default));
        }
        (keys, older)
    }

    /// Those that were retired before, and have sessions of names that are still served.
    fn retired_of(&self, wanted: &[Wanted]) -> Vec<(ServiceKey, Name)> {
        let keys = self.services.keys();
        keys.filter_map(|key| {
            let service = self.services.get(key);
            let name = service.name.as_deref().filter(|_| service.is_retired)?;
            let is_wanted = wanted.iter().any(|it| it.plan.name.as_ref() == Some(name));
            let is_used = is_wanted && service.sessions > 0;
            is_used.then(|| (key, name.clone()))
        })
        .collect()
    }

    /// Whether sessions may go on at the processes that there are, beside those that come.
    fn is_shared_alike(&self, key: ServiceKey, plan: &Plan, starts_alike: bool) -> bool {
        match (&self.services.get(key).shared_by, &plan.share) {
            (None, None) => true,
            (Some(old), Some(new)) => starts_alike && old == new,
            _ => false,
        }
    }

    fn place_service(&mut self, plan: Plan) -> ServiceKey {
        let Some(key) = self.free_key() else {
            let key = self.scheduler.add_service(plan.settings.clone());
            let added = self.services.add(plan);
            debug_assert_eq!(key, added);
            return key;
        };
        self.scheduler.replace_service(key, plan.settings.clone());
        self.servers.reset_counts(key);
        if let Some(status) = &mut self.status {
            status.forget(key);
        }
        self.services.replace(key, plan);
        key
    }

    /// A key of which nothing is left that it named.
    fn free_key(&self) -> Option<ServiceKey> {
        let servers = self.servers.iter();
        let used: HashSet<ServiceKey> = servers.map(|(_, server)| server.service).collect();
        self.services.keys().find(|key| {
            let service = self.services.get(*key);
            service.is_retired
                && service.sessions == 0
                && !used.contains(key)
                && service.is_without_deadlines()
        })
    }

    /// The same server, served in another way.
    fn change_service(&mut self, key: ServiceKey, plan: &Plan, starts_alike: bool) {
        let old = self.scheduler.settings_of(key).role.clone();
        let max_restarts = max_restarts(&plan.settings.role);
        let timers = &mut self.reactor.timers;
        let service = self.services.get_mut(key);
        service.max_sessions = plan.max_sessions;
        service.swaps_in_place = plan.swaps_in_place;
        let mut unwanted = service.spares.resize(plan.spares, plan.settings.server_log);
        if !starts_alike || self::max_restarts(&old) != max_restarts {
            unwanted.extend(service.spares.renew(max_restarts, !starts_alike, timers));
        }
        for server in unwanted {
            self.servers.stop(server, timers);
        }
        self.scheduler
            .set_settings(key, plan.settings.clone(), timers);
    }

    /// Nobody gets it any more.
    fn retire(&mut self, key: ServiceKey) {
        let timers = &mut self.reactor.timers;
        let service = self.services.get_mut(key);
        service.is_retired = true;
        for server in service.spares.close(timers) {
            self.servers.stop(server, timers);
        }
    }

    fn retire_all_but(&mut self, served: &[ServiceKey], older: &[(ServiceKey, Name)]) {
        for key in self.services.keys() {
            let goes_on = older.iter().any(|(other, _)| *other == key);
            if !served.contains(&key) && !self.services.get(key).is_retired {
                self.retire(key);
            }
            self.services.get_mut(key).goes_on = goes_on || served.contains(&key);
        }
    }

    /// The end of the program is not the business of one server.
    fn set_stop_timeout(&mut self, timeout: Option<Duration>) {
        let timers = &mut self.reactor.timers;
        for key in self.services.keys() {
            let mut settings = self.scheduler.settings_of(key).clone();
            if let Some(timeout) = timeout.filter(|timeout| *timeout != settings.stop_timeout) {
                settings.stop_timeout = timeout;
                self.scheduler.set_settings(key, settings, timers);
            }
        }
    }

    fn new_directory(&self, keys: &[(ServiceKey, bool)]) -> Directory {
        let served = |key: ServiceKey| keys.iter().any(|(other, _)| *other == key);
        let name = |key| self.services.get(key).name.as_deref().cloned();
        let names = self.services.keys();
        let names = names.map(|key| name(key).filter(|_| served(key)));
        let default = keys.iter().find(|(_, is_default)| *is_default);
        Directory::new(names.collect(), default.map(|(key, _)| *key))
    }

    /// Sessions are counted where there is a limit, and it may be a new one.
    fn count_anew(&mut self) {
        let mut quotas = Quotas::new(self.limits.sessions_of_one);
        for (_, session, place) in self.scheduler.iter() {
            if !session.was_refused() && !place.gave_up_place {
                quotas.open(session.label().client(), place.identity());
            }
        }
        self.quotas = quotas;
    }

    /// What is asked of connections from now on. Those that were let in up to here by other rules have to come again.
    fn change_rules(&mut self, rules: Rules) {
        let Some(visitors) = &mut self.visitors else {
            self.visitors = Visitors::new(rules, self.limits.places).map(Box::new);
            return;
        };
        let timers = &mut self.reactor.timers;
        let old = visitors.entrance.rules();
        let asks_alike = old.allow == rules.allow
            && old.balancers == rules.balancers
            && old.tls == rules.tls
            && old.tokens.is_some() == rules.tokens.is_some()
            && old.exempts_unix == rules.exempts_unix;
        visitors.set_rules(rules, self.limits.places);
        if !asks_alike {
            visitors.close(timers);
        }
        let services = &self.services;
        let left = visitors.entrance.move_doors(|key| {
            let service = services.get(key);
            if service.is_retired {
                services.called(service.name.as_deref())
            } else {
                Some(key)
            }
        });
        for key in left {
            visitors.leave(key, timers);
        }
    }

    fn set_doors(
        &mut self,
        listeners: &[(ListenerKey, bool)],
        owners: &[Option<usize>],
        keys: &[ServiceKey],
        directory: &Directory,
    ) {
        for ((key, is_new), owner) in listeners.iter().zip(owners) {
            let door = owner.and_then(|at| keys.get(at).copied());
            self.listeners.set_door(*key, door);
            if let Some((listener, _)) = self.listeners.get(*key).filter(|_| *is_new) {
                let owner = door.map(|door| directory.name(door));
                self.system.log_listener(listener.source(), owner);
            }
        }
    }

    /// Those that are about to be sessions are so by what counts from now on.
    fn move_newcomers(&mut self, tokens: Option<&Tokens>) {
        let services = &self.services;
        let Some(resuming) = &mut self.resuming else {
            return;
        };
        let new = |arrival: &Arrival| {
            let name = services.get(arrival.service).name.as_deref();
            let server = name.map_or(DEFAULT_SERVER, Name::as_str);
            let shown = tokens.zip(arrival.identity.as_ref());
            let is_good =
                shown.is_none_or(|(tokens, identity)| tokens.are_still_good_for(identity, server));
            services.called(name).filter(|_| is_good)
        };
        let timers = &mut self.reactor.timers;
        resuming.newcomers.move_on(new, timers);
    }

    /// Ends the sessions of servers that are not served any more, as at a stop.
    fn end_unserved(&mut self) {
        let is_left = |place: &ClientSession<S>| !self.services.get(place.service()).goes_on;
        let all = self.scheduler.iter();
        let left = all.filter(|(_, session, place)| !session.was_refused() && is_left(place));
        let left: Vec<SessionKey> = left.map(|(key, ..)| key).collect();
        if !left.is_empty() {
            info!(
                "ending {} of servers that are not served any more",
                Counted(left.len(), "session")
            );
        }
        for key in left {
            self.tell(key, Event::ShutDown);
            self.stop_detached(key, "its server was taken away");
        }
    }
}

pub(super) fn max_restarts(role: &Backend) -> u32 {
    match role {
        Backend::Process { max_restarts } => *max_restarts,
        Backend::Proxy { .. } => 0,
    }
}

impl<S: System> Proxy<S> {
    /// Reads the configuration again, if there is one. Returns whether there is.
    pub(super) fn reload_configuration(&mut self, why: &str) -> Option<Result<(), String>> {
        let read = self.system.read_configuration()?;
        let done = read.and_then(|change| self.change(change));
        if done.is_ok() {
            info!("{why}: the configuration was read again");
        }
        Some(done)
    }
}
