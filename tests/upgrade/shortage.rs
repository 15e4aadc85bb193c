//! An upgrade for which there is no room: nothing has changed then, and the next one comes about once there is.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::{Proxy, servers};
use crate::refused::{REFUSED, assert_serves};
use crate::upgrade;

/// Sets how long files may become that a running process writes.
#[track_caller]
fn limit_files(proxy: &Proxy, limit: &str) {
    let pid = proxy.pid().to_string();
    let limit = format!("--fsize={limit}:");
    let status = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(status.unwrap().success(), "{limit}");
}

#[test]
fn where_there_is_no_room_for_the_state_nothing_changes() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    assert_serves(&mut client);
    limit_files(&proxy, "100");
    proxy.signal(Signal::SIGUSR2);
    let line = proxy.wait_for_log(REFUSED);
    assert!(line.contains("no file for the state"), "{line}");
    assert_serves(&mut client);
    limit_files(&proxy, "unlimited");
    upgrade(&proxy);
    assert_serves(&mut client);
}
