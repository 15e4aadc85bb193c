//! Another loop takes over from the one that serves, between two of its iterations: what that one has written down says it
//! all.

use mcp_tcp_proxy::buffers::budget::BufferBudget;
use mcp_tcp_proxy::reactor::io::Readiness;
use mcp_tcp_proxy::serve::system::System;
use mcp_tcp_proxy::serve::{Proxy, ProxyState};
use mcp_tcp_proxy::util::side_bytes::Written;

use crate::below::Below;
use crate::server::Kind;
use crate::stats::Fault;
use crate::world::{World, proxy};

impl World {
    /// A world in which that happens often.
    pub fn upgrading(seed: u64) -> Self {
        let mut world = match seed % 4 {
            0 => Self::sleepy(seed),
            1 => Self::restless(seed),
            _ => Self::new(seed),
        };
        world.upgrades = 15;
        world
    }

    /// Another loop goes on. What connections have to show at the entrance, and a stop, are not passed on.
    pub fn upgrade(&mut self) {
        let is_fit = {
            let below = self.below.borrow();
            !below.asks.anything() && !below.stopping && !self.is_over
        };
        if !is_fit {
            return;
        }
        self.below.borrow_mut().begin_upgrade();
        let memory = self.proxy.sessions().memory().limit();
        let new = proxy(&self.below, BufferBudget::new(memory));
        take_over(&mut self.proxy, new);
        self.below.borrow_mut().end_upgrade();
    }
}

/// Another loop over the same system takes over. What it would write down is what it has read.
pub fn take_over<S: System>(proxy: &mut Proxy<S>, new: Proxy<S>) {
    let written = Written::new(&proxy.snapshot()).unwrap();
    let old = std::mem::replace(proxy, new);
    let state: ProxyState = written.clone().read().unwrap();
    proxy.restore(state, old.into_sources(), None).unwrap();
    let again = Written::new(&proxy.snapshot()).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&again.json),
        String::from_utf8_lossy(&written.json)
    );
    assert!(again.bytes == written.bytes, "other bytes are buffered");
}

impl Below {
    fn begin_upgrade(&mut self) {
        self.stats.fault(Fault::Upgraded);
        self.events(Kind::Process).clear();
        self.is_upgrading = true;
    }

    /// What is watched anew is told of at once, if there is something to tell.
    fn end_upgrade(&mut self) {
        self.is_upgrading = false;
        self.notify_all();
        if !self.backlog.is_empty() {
            let event = (self.listener_token, Readiness::READABLE);
            self.events(Kind::Process).push(event);
        }
        self.raise();
    }
}
