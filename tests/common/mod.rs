//! What the end-to-end tests share: the proxy under test, a client for it, servers to put behind it, and a look at `/proc`.
//!
//! The proxy under test is this crate's binary. The same tests can be pointed at the Python script that this proxy stands
//! in for, by its path; `MCP_TCP_PROXY_COMMAND` can name any other command (words separated by blanks):
//!
//! ```text
//! MCP_TCP_PROXY_REFERENCE=path/of/tcp_proxy.py cargo test --test relay
//! ```
//!
//! Tests wait for what they expect to see, with a deadline that only a broken proxy reaches; none of them sleeps for a
//! time in which something should have happened.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "every test file has its own copy of this module, and none needs all of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

pub(crate) mod browser;
mod bystander;
pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod counting;
pub(crate) mod crowd;
pub(crate) mod footprint;
pub(crate) mod installed;
pub(crate) mod log_stream;
pub(crate) mod pki;
pub(crate) mod processes;
mod program_file;
pub(crate) mod proxy;
mod random;
mod read_more;
pub(crate) mod scratch;
pub(crate) mod servers;
mod split_mix;
mod temp_folder;
pub(crate) mod tls;
pub(crate) mod upgrades;
pub(crate) mod visitor;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use bystander::Bystander;
pub(crate) use client::{Client, NoLine};
pub(crate) use connect::{Connect, FakeServer};
pub(crate) use footprint::Footprint;
pub(crate) use program_file::write_program;
pub(crate) use proxy::Proxy;
pub(crate) use random::Random;
pub(crate) use scratch::Scratch;
pub(crate) use temp_folder::TempFolder;

/// How long a test waits for something that should happen soon: long enough for a busy machine with two cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How often [`eventually`] looks.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The path of the Python script, if that is the proxy under test.
fn reference() -> Option<String> {
    std::env::var("MCP_TCP_PROXY_REFERENCE")
        .ok()
        .filter(|path| !path.is_empty())
}

/// Whether the proxy under test is the Python script.
pub(crate) fn is_reference() -> bool {
    reference().is_some()
}

/// Ends the test, as passed and with a note, when the proxy under test is the Python script.
///
/// For tests of what we do otherwise; the argument completes the sentence "the reference …".
macro_rules! skip_on_reference {
    ($difference:expr) => {
        if $crate::common::is_reference() {
            eprintln!("skipped: the reference {}", $difference);
            return;
        }
    };
}
pub(crate) use skip_on_reference;

/// Looks again and again until `look` finds something, and returns it.
///
/// # Panics
/// At the deadline, naming `what` was waited for.
#[track_caller]
pub(crate) fn eventually_some<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < deadline,
            "waited {deadline:?} in vain for: {what}"
        );
        thread::sleep(POLL_INTERVAL);
    }
}

/// Looks again and again until `condition` holds; panics at the deadline, naming `what` was waited for.
#[track_caller]
pub(crate) fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    eventually_some(what, deadline, || condition().then_some(()));
}

/// Sets a flag at the end of a test, however that comes, so that other threads end too.
pub(crate) struct Finally<'a>(pub(crate) &'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
