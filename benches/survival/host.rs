//! An application that calls its server over `connect`, one call after the other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::end_to_end::Connect;

/// What every server can do, and what wakes one that hibernates.
const METHOD: &str = "tools/list";

pub(crate) struct Host {
    connect: Connect,
    last_id: u64,
}

impl Host {
    /// With its handshake made, and one call.
    pub(crate) fn start(options: &[&str], address: SocketAddr) -> Self {
        let mut connect = Connect::start(options, address);
        connect.initialize();
        let mut host = Self {
            connect,
            last_id: 0,
        };
        assert!(host.call(), "the server works");
        host
    }

    /// Whether one call has a result, and not an error.
    pub(crate) fn call(&mut self) -> bool {
        self.last_id += 1;
        self.connect.send_request(self.last_id, METHOD, &json!({}));
        loop {
            let line = self.connect.recv_json();
            // What else may come are notifications.
            if line["id"] == self.last_id {
                return line.get("result").is_some();
            }
        }
    }

    /// The longest time between two results from now on, until there is one and it is over.
    pub(crate) fn longest_wait(&mut self, mut is_over: impl FnMut() -> bool) -> Duration {
        let mut longest = Duration::ZERO;
        let mut last = Instant::now();
        loop {
            // Asked before, so that there is a result after it is over.
            let is_last = is_over();
            while !self.call() {}
            longest = longest.max(last.elapsed());
            if is_last {
                return longest;
            }
            last = Instant::now();
        }
    }

    /// The time to the next result.
    pub(crate) fn next_result(&mut self) -> Duration {
        self.longest_wait(|| true)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.connect.signal(signal);
    }
}
