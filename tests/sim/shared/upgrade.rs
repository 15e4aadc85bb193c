//! Another loop takes over from the one that serves, between two of its iterations.

use mcp_tcp_proxy::reactor::io::Readiness;

use super::{Below, World, proxy};
use crate::upgrade::take_over;

impl World {
    /// A world in which that happens often.
    pub fn upgrading(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.upgrades = 5;
        world
    }

    /// Another loop goes on. A stop is not passed on.
    pub fn upgrade(&mut self) {
        if self.below.borrow().is_stopping {
            return;
        }
        self.below.borrow_mut().events.clear();
        let new = proxy(&self.below, &self.serves);
        take_over(&mut self.proxy, new);
        self.below.borrow_mut().end_upgrade();
    }
}

impl Below {
    /// What is watched anew is told of at once, if there is something to tell.
    fn end_upgrade(&mut self) {
        self.upgrades += 1;
        self.notify_all();
        if !self.backlog.is_empty() {
            let event = (self.listener_token, Readiness::READABLE);
            self.events.push(event);
        }
        self.raise();
    }
}
