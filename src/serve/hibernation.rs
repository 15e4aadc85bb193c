//! Servers that would be given back because nothing passes, although they have not read yet what they were sent.

use super::Proxy;
use super::server::Server;
use super::system::System;
use crate::scheduler::SessionKey;
use crate::session::Event;

impl<S: System> Proxy<S> {
    /// The time has come for which a session has waited.
    pub(super) fn session_due(&mut self, key: SessionKey) {
        if self.keeps_server_busy(key) {
            // Whatever else is due comes again.
            return self.tell(key, Event::UpstreamReadsLate);
        }
        let unix_time = self.system.unix_time();
        self.tell(key, Event::Deadline { unix_time });
    }

    /// Whether a session is about to give its server back, and that has something to read. Only the system knows.
    fn keeps_server_busy(&self, key: SessionKey) -> bool {
        let (Some(session), Some(place)) = (self.scheduler.session(key), self.scheduler.place(key))
        else {
            return false;
        };
        let settings = self.scheduler.settings_of(place.service());
        let server = place.server().and_then(|server| self.servers.get(server));
        session.would_hibernate(settings, self.now())
            && server.is_some_and(Server::has_unread_input)
    }
}
