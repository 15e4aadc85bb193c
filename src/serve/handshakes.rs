//! The TLS handshakes of connections in the entrance: one step after the other, in turns, and never so many that sessions
//! have to wait for them.

use log::debug;

use super::Proxy;
use super::system::{ClientSocket, Shake, System};
use super::visitors::{Visit, Visitors};
use crate::entrance::VisitorKey;
use crate::reactor::poller::Poll;
use crate::transport::tls::handshake::Share;

impl<S: System> Proxy<S> {
    /// From here on, this connection is TLS. This was read of it already.
    pub(super) fn start_tls(&mut self, key: VisitorKey, early: Vec<u8>) {
        let Some(visitors) = &mut self.visitors else {
            return;
        };
        let Some(visit) = visitors.entrance.place_mut(key) else {
            return;
        };
        if let Err(error) = self.system.start_tls(visit.io.source_mut(), early) {
            debug!("no TLS session can begin: {error}");
            visitors.leave(key, &mut self.reactor.timers);
            return;
        }
        visit.is_shaking = true;
        if !std::mem::replace(&mut visit.queued, true) {
            visitors.shaking.push_back(key);
        }
    }

    /// Takes handshakes further that can go on, as long as there is time for it.
    pub(super) fn shake_hands(&mut self) {
        let mut share = Share::default();
        while share.is_left() {
            let Some(visitors) = &mut self.visitors else {
                return;
            };
            let Some(key) = visitors.shaking.pop_front() else {
                return;
            };
            let began = self.reactor.poller().now();
            let Some(step) = visitors.shake(key) else {
                continue;
            };
            let took = self.reactor.poller().now().saturating_since(began);
            share.use_up(took);
            self.has_shaken(key, step);
        }
    }

    /// A step of a handshake was done.
    fn has_shaken(&mut self, key: VisitorKey, step: Shake) {
        let now = self.now();
        let Some(visitors) = &mut self.visitors else {
            return;
        };
        let step = match step {
            Shake::Waits => return,
            Shake::Done { name } => visitors.entrance.tls_done(key, name.as_deref(), now),
            Shake::Failed(why) => visitors.entrance.tls_failed(key, &why, now),
        };
        self.follow(key, step);
    }
}

impl<C: ClientSocket> Visitors<C> {
    /// Takes one handshake further; `None` if there is none any more, as its visitor is gone, and its key another's.
    fn shake(&mut self, key: VisitorKey) -> Option<Shake> {
        let visit = self.entrance.place_mut(key);
        let visit = visit.filter(|visit| visit.is_shaking && visit.queued)?;
        visit.queued = false;
        Some(visit.shake())
    }
}

impl<C: ClientSocket> Visit<C> {
    fn shake(&mut self) -> Shake {
        let step = self.io.source_mut().shake();
        match step {
            // It has read all that there was.
            Shake::Waits => self.io.clear_readable(),
            // What came with the last of it is there to be read.
            Shake::Done { .. } | Shake::Failed(_) => {
                self.is_shaking = false;
                self.io.note_readable();
            }
        }
        step
    }
}
