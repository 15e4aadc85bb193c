//! What sessions want done: an action at a time, after all of them have run. What has come to its end is freed here.

use super::start_queue::Rank;
use super::system::System;
use super::{ClientSession, Proxy};
use crate::scheduler::SessionKey;
use crate::session::{Action, Event, Session};
use crate::util::service_key::ServiceKey;

impl<S: System> Proxy<S> {
    /// Hands an event to a session, and has the session run for what follows from it.
    pub(super) fn tell(&mut self, key: SessionKey, event: Event<'_>) {
        let told = self.scheduler.handle(key, event, &mut self.reactor.timers);
        if told.is_some_and(Session::waits_for_upstream) {
            self.start_queue.speaks(key);
        }
    }

    /// Does what sessions want done, until none wants anything more.
    pub(super) fn apply_actions(&mut self) {
        while let Some((key, action)) = self.scheduler.next_action() {
            self.apply(key, action);
            if self.resuming.is_some() {
                self.note_lingering(key);
            }
            let timers = &mut self.reactor.timers;
            if let Some((session, place)) = self.scheduler.free_if_finished(key, timers) {
                debug_assert!(place.server().is_none() && place.successor().is_none());
                if place.gave_up_place {
                    if let Some(resuming) = &mut self.resuming {
                        resuming.lingering -= 1;
                    }
                } else if !session.was_refused() {
                    let service = self.services.get_mut(place.service());
                    service.sessions -= 1;
                    service.counts.closed(&session);
                    let client = session.label().client();
                    self.quotas.free(client, place.identity());
                }
                self.start_queue.leave(key);
                self.refused -= usize::from(session.was_refused());
                self.system.session_freed(key, &session);
                self.scheduler.log_end(&session, self.reactor.now());
                self.place_is_free();
            }
        }
    }

    fn apply(&mut self, key: SessionKey, action: Action) {
        if let Some(session) = self.scheduler.session(key) {
            self.system.action_taken(key, action, session);
        }
        match action {
            Action::StartUpstream => self.ask_for_start(key),
            Action::StopUpstream => self.stop_upstream(key),
            Action::HibernateUpstream => self.hibernate_upstream(key),
            Action::ReleaseUpstream => {
                let place = self.scheduler.place_mut(key);
                if let Some(server) = place.and_then(|place| place.server.take()) {
                    self.servers.release(server);
                }
            }
            Action::ShutdownClient => self.shut_down_client(key),
            Action::CloseClient => {
                self.forget_kept(key);
                if let Some(place) = self.scheduler.place_mut(key) {
                    place.close_client();
                }
            }
            Action::CheckClient => self.check_clients(),
            Action::MeasureClient => self.measure_client(key),
            Action::ResumeAsked => self.answer_ask(key),
            Action::BeginSwap | Action::QueueSwap | Action::MoveUpstream | Action::EndSwap(_) => {
                self.apply_swap(key, action);
            }
            Action::LinkSilent | Action::CheckUpstream => {}
        }
    }

    fn stop_upstream(&mut self, key: SessionKey) {
        let Some(place) = self.scheduler.place(key) else {
            return;
        };
        if place.seat.is_some() {
            self.leave_seat(key);
        } else if let Some(server) = place.server() {
            self.servers.stop(server, &mut self.reactor.timers);
        }
    }

    fn hibernate_upstream(&mut self, key: SessionKey) {
        let Some(place) = self.scheduler.place(key) else {
            return;
        };
        if place.seat.is_some() {
            self.note_idle_seat(key);
        } else if let Some(server) = place.server() {
            self.servers.stop_idle(server, &mut self.reactor.timers);
        }
    }

    fn shut_down_client(&mut self, key: SessionKey) {
        let session = self.scheduler.session(key);
        let why = session.map_or("", Session::end_reason_name);
        if let Some(place) = self.scheduler.place_mut(key) {
            place.end_client(why);
            self.scheduler.enqueue(key);
        }
    }

    /// The session wants a server: a seat at one that is shared, or one of its own when its turn comes.
    fn ask_for_start(&mut self, key: SessionKey) {
        let Some(session) = self.scheduler.session(key) else {
            return;
        };
        let place = self.scheduler.place(key);
        let service = place.map_or(ServiceKey::ONLY, ClientSession::service);
        if self.is_to_share(service, session) {
            return self.take_seat(key);
        }
        let rank = if session.had_upstream() {
            Rank::Recovering
        } else if session.waits_for_upstream() {
            Rank::Speaking
        } else {
            Rank::Silent
        };
        let client = session.label().client().origin();
        self.start_queue.ask(key, service, client, rank);
    }
}
