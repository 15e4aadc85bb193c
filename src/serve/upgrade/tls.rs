//! TLS connections are not passed on: their keys are not known here. Those of sessions that can be resumed are closed, and
//! the clients come back by themselves; others have some time for their responses. Meanwhile nobody comes in over TLS.

use std::io::{self, ErrorKind};

use log::info;

use super::super::Proxy;
use super::super::system::{ClientSocket, System};
use crate::scheduler::SessionKey;
use crate::session::Event;
use crate::util::plural::Counted;

/// What the log says of a session that had its time.
const CLOSED: &str = "a TLS connection can't go on with another program";

impl<S: System> Proxy<S> {
    /// The sessions over TLS, and whether each comes back by itself.
    fn tls_sessions(&self) -> Vec<(SessionKey, bool)> {
        let all = self.scheduler.iter();
        let all = all.filter(|(_, _, place)| {
            let client = place.client();
            client.is_some_and(|client| client.source().is_tls())
        });
        all.map(|(key, session, place)| {
            let kept = place.resume.as_deref();
            let comes_back = kept.is_some_and(|server| {
                server.channel.is_used() && !server.has_left && !server.has_ended
            });
            (key, comes_back && !session.is_ending())
        })
        .collect()
    }

    /// Those that do not come back have time for their responses, and nobody new comes. Returns whether there are any.
    pub(super) fn begin_end_of_tls(&mut self) -> bool {
        let ending = self.ending_tls_sessions();
        if ending.is_empty() {
            return false;
        }
        let system = &self.system;
        self.listeners.rest(|listener| system.speaks_tls(listener));
        info!(
            "{} over TLS can't be passed on, and {} for what is in flight",
            Counted(ending.len(), "session"),
            if ending.len() == 1 {
                "has 10 s"
            } else {
                "have 10 s"
            }
        );
        for key in ending {
            self.tell(key, Event::ShutDown);
        }
        true
    }

    /// Those that do not come back.
    pub(super) fn ending_tls_sessions(&self) -> Vec<SessionKey> {
        let all = self.tls_sessions().into_iter();
        all.filter(|(_, comes_back)| !comes_back)
            .map(|(key, _)| key)
            .collect()
    }

    /// The others have had their time.
    pub(super) fn end_tls_sessions(&mut self) {
        for key in self.ending_tls_sessions() {
            self.end_tls_session(key);
        }
    }

    fn end_tls_session(&mut self, key: SessionKey) {
        let error = io::Error::new(ErrorKind::TimedOut, CLOSED);
        self.tell(key, Event::ClientFailed(&error));
    }

    /// Closes what is left of TLS connections. Returns whether there were any: then it is not done before the next
    /// iteration.
    pub(super) fn leave_tls(&mut self) -> bool {
        let all = self.tls_sessions();
        for (key, comes_back) in &all {
            let place = self.scheduler.place_mut(*key);
            let kept = place.and_then(|place| place.resume.as_mut());
            if let Some(server) = kept.filter(|_| *comes_back) {
                server.give_connection_up();
                self.scheduler.enqueue(*key);
            } else {
                self.end_tls_session(*key);
            }
        }
        let timers = &mut self.reactor.timers;
        let newcomers = self.resuming.as_mut();
        if let Some(resuming) = newcomers {
            resuming.newcomers.leave_if(ClientSocket::is_tls, timers);
        }
        !all.is_empty()
    }
}
