//! What events are about, which is only noted: none can free what another is about.

use mio::Token;

use super::accept::ListenerKey;
use super::newcomers::NewcomerKey;
use super::server::User;
use super::servers::ServerKey;
use super::system::System;
use super::{Channel, ClientSession, Proxy};
use crate::entrance::VisitorKey;
use crate::reactor::io::Readiness;
use crate::reactor::poller::Poll;
use crate::reactor::token::Target;
use crate::scheduler::SessionKey;

impl<S: System> Proxy<S> {
    /// Notes what events say. Returns whether all of them were about sessions and their servers.
    pub(super) fn dispatch(&mut self, events: &<S::Poller as Poll>::Events) -> bool {
        let (mut is_signalled, mut only_sessions) = (false, true);
        for (token, readiness) in S::Poller::iter(events) {
            let Some(Target { key, channel }) = self.reactor.target(token) else {
                continue;
            };
            match channel {
                Channel::Client => {
                    let latch = |place: &mut ClientSession<S>| place.latch(token, readiness);
                    self.scheduler.note(SessionKey(key), latch);
                    continue;
                }
                Channel::Stdin | Channel::Stdout | Channel::Stderr => {
                    if self.latch_server(ServerKey::at(key), channel, token, readiness) {
                        continue;
                    }
                }
                Channel::Visitor => {
                    if let Some(visitors) = &mut self.visitors {
                        visitors.latch(VisitorKey(key), token, readiness);
                    }
                }
                Channel::Newcomer => {
                    if let Some(resuming) = &mut self.resuming {
                        let key = NewcomerKey(key);
                        resuming.newcomers.latch(key, token, readiness);
                    }
                }
                Channel::Listener => {
                    self.listeners.latch(ListenerKey(key), token, readiness);
                }
                Channel::Signals => is_signalled = true,
                Channel::Rehearsal => {
                    if let Some(upgrade) = &mut self.upgrade {
                        upgrade.latch(key, token, readiness);
                    }
                }
                Channel::StatusListener | Channel::StatusClient => {
                    self.latch_status(channel, key, token, readiness);
                }
            }
            only_sessions = false;
        }
        if is_signalled {
            self.handle_signals();
        }
        only_sessions
    }

    /// Returns whether it concerns nobody but a session.
    fn latch_server(
        &mut self,
        key: ServerKey,
        channel: Channel,
        token: Token,
        readiness: Readiness,
    ) -> bool {
        let Some(server) = self.servers.get_mut(key) else {
            return true;
        };
        if !server.latch(channel, token, readiness) {
            return true;
        }
        let (user, service) = (server.user, server.service);
        if channel == Channel::Stdout
            && let Some(started) = server.unheard_since.take()
        {
            let now = self.reactor.now();
            let counts = &mut self.services.get_mut(service).counts;
            counts.start_times.note(now.saturating_since(started));
        }
        if channel != Channel::Stdin {
            self.start_queue.has_started_up(key);
        }
        match user {
            Some(User::Session(session)) => {
                self.scheduler.enqueue(session);
                return true;
            }
            Some(User::Share(process)) => self.note_shared(service, process),
            None => self.spare_latched(key),
        }
        false
    }

    #[inline(never)]
    fn handle_signals(&mut self) {
        let pending = self.system.take_signals();
        if pending.child {
            self.reap();
        }
        if pending.hangup {
            self.reload("SIGHUP");
        }
        if pending.swap {
            self.swap_servers();
        }
        if pending.upgrade {
            self.upgrade_wanted();
        }
        if pending.stop {
            self.stop();
        }
    }
}
