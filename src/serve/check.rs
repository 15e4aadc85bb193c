//! What holds between two iterations of the loop. The simulation asks after each.

use super::sharing::Sharing;
use super::system::System;
use super::{ClientSession, Proxy, Server};

impl<S: System> Proxy<S> {
    /// Looks at all that can be seen between two iterations.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn check(&self) {
        self.scheduler.check();
        for (key, _, place) in self.scheduler.iter() {
            for server in place.server().into_iter().chain(place.successor()) {
                let user = self.servers.get(server).and_then(Server::user);
                assert!(user == Some(key), "{key:?} uses another's server");
            }
        }
        for (key, server) in self.servers.iter() {
            let Some(user) = server.user() else { continue };
            let place = self.scheduler.place(user);
            let both = [ClientSession::server, ClientSession::successor];
            let has = |place| both.iter().any(|of| of(place) == Some(key));
            assert!(place.is_some_and(has), "{key:?} is another's");
        }
        self.servers.check();
        let is_spare = |key| {
            self.servers
                .get(key)
                .is_some_and(|server| server.user.is_none())
        };
        let mut spares = self
            .services
            .iter()
            .flat_map(|service| service.spares.keys());
        assert!(spares.all(is_spare), "a server that waits has a user");
        let monitor = 1;
        let own = [
            self.pause.at(),
            self.start_queue.deadline(),
            self.status.as_ref().and_then(|status| status.deadline()),
            self.watchdog.deadline(),
            self.file_watch.at(),
        ];
        let of_services = self.services.iter().flat_map(|service| {
            let shared = service.sharing.as_ref().and_then(Sharing::deadline);
            [service.spares.deadline(), shared]
        });
        let own = own.into_iter().chain(of_services).flatten().count();
        let own = own + self.stop_timers.deadlines();
        if let Some(resuming) = &self.resuming {
            let places = self.scheduler.iter();
            resuming.check(places.map(|(.., place)| place));
        }
        let visitors = self.visitors.as_ref();
        let visitors = visitors.map_or(0, |visitors| visitors.check());
        let visitors = visitors + self.check_newcomers();
        let all = monitor + own + self.scheduler.deadlines() + self.servers.deadlines() + visitors;
        assert_eq!(
            self.reactor.timers.len(),
            all,
            "deadlines that are nobody\'s"
        );
        let refused = self
            .scheduler
            .iter()
            .filter(|(_, session, _)| session.was_refused());
        assert_eq!(refused.count(), self.refused);
        let served: usize = self.services.iter().map(|service| service.sessions).sum();
        // Those that only wait for their clients to take the end take no place any more.
        let resuming = self.resuming.as_ref();
        let lingering = resuming.map_or(0, |resuming| resuming.lingering);
        assert_eq!(served + self.refused + lingering, self.scheduler.len());
    }
}
