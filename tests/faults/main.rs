//! Faults: whatever servers, clients and the system do, nothing is leaked and other sessions take no notice.
//!
//! What the faulty session itself is owed is the matter of `crashes`, `restarts`, `teardown`, `limits` and `load`; here
//! the proxy and the others are watched. Each test opens a [`Scene`], does harm, and ends it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod bad_clients;
mod bad_servers;
mod heavy_input;
mod killed_proxy;
mod random_kills;
mod shortage;
mod strangers;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::{env, thread};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::{Bystander, Client, DEADLINE, Footprint, Proxy, Scratch, servers};

/// A connection and three pipes.
const DESCRIPTORS_PER_SESSION: usize = 4;

/// A proxy with servers that do what they are told, and a session that must not notice what is done to others.
struct Scene {
    proxy: Proxy,
    scratch: Scratch,
    bystander: Bystander,
    /// What the proxy held before the first of the sessions.
    before: Footprint,
}

impl Scene {
    fn open(options: &[&str]) -> Self {
        Self::open_configured(options, |_| {})
    }

    /// Like [`open`](Self::open); `configure` has the last word on how the proxy is run.
    fn open_configured(options: &[&str], configure: impl FnOnce(&mut Command)) -> Self {
        Self::set(options, servers::scripted, configure)
    }

    /// Like [`open`](Self::open), with other servers.
    fn open_with(options: &[&str], server: impl FnOnce(&Scratch) -> Vec<String>) -> Self {
        Self::set(options, server, |_| {})
    }

    fn set(
        options: &[&str],
        server: impl FnOnce(&Scratch) -> Vec<String>,
        configure: impl FnOnce(&mut Command),
    ) -> Self {
        let scratch = Scratch::new();
        // The proxy may be run as another user.
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o777)).unwrap();
        let proxy = Proxy::start_configured(options, &server(&scratch), configure);
        proxy.connect().request("pid", &json!({}));
        proxy.wait_until_childless();
        let before = Footprint::of(proxy.pid());
        let bystander = Bystander::start(proxy.address());
        Self {
            proxy,
            scratch,
            bystander,
            before,
        }
    }

    /// A session, with the process id of its server.
    #[track_caller]
    fn session(&self) -> (Client, i32) {
        let mut client = self.proxy.connect();
        let server = client.pid_of_server();
        (client, server)
    }

    /// What the proxy that has ended says of the time that its loop took for others. It depends on the machine, and on
    /// whether the build is optimised; how much is done in a turn is the matter of `pump` and of the simulation.
    fn longest_iteration(proxy: &Proxy) -> String {
        if env::var_os("MCP_TCP_PROXY_COMMAND").is_some() {
            return "another proxy".to_owned();
        }
        let line = proxy.wait_for_log("the longest iteration of the loop took");
        let (_, text) = line.split_once("the longest").unwrap();
        format!("the longest{text}")
    }

    /// When all other clients have gone: the bystander has taken no notice, and nothing is left of the harm.
    #[track_caller]
    fn end(self) {
        self.end_with(Footprint::wait_until_restored);
    }

    /// The same after a flood.
    #[track_caller]
    fn end_after_much(self) {
        self.end_with(Footprint::wait_until_restored_after_much);
    }

    #[track_caller]
    fn end_with(mut self, wait_until_restored: fn(&Footprint) -> Footprint) {
        let waits = self.bystander.end();
        let after = wait_until_restored(&self.before);
        self.proxy.signal(Signal::SIGTERM);
        assert_eq!(self.proxy.wait_exit(DEADLINE).code(), Some(0));
        let test = thread::current().name().unwrap_or_default().to_owned();
        eprintln!(
            "{test}: {waits}; {}; RSS was {} KiB, is {} KiB",
            Self::longest_iteration(&self.proxy),
            self.before.rss_kib,
            after.rss_kib
        );
    }
}
