//! What other processes of the same user can see of the proxy.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::unistd::geteuid;
use serde_json::json;

use crate::common::proxy::{as_another_user, untraceable};
use crate::common::{Proxy, TempFolder, servers};

/// As many processes as any of these tests needs.
const PROCESSES: usize = 100;

/// Tells whether the server can read the environment and the descriptors of the proxy.
const SPY: &str = r#"spy() { if "$@" >/dev/null 2>&1; then echo seen; else echo hidden; fi; }
printf '["%s","%s"]\n' "$(spy cat /proc/$PPID/environ)" "$(spy ls /proc/$PPID/fd)"; exec cat"#;

/// As somebody from whom the system hides something.
fn as_a_user(command: &mut Command) {
    if geteuid().is_root() {
        as_another_user(command, PROCESSES);
    }
}

#[test]
fn a_server_can_not_look_into_the_proxy() {
    let proxy = Proxy::start_configured(&[], &servers::sh(SPY), |command| {
        untraceable(command);
        as_a_user(command);
    });
    assert_eq!(proxy.connect().recv_json(), json!(["hidden", "hidden"]));
    let open = Proxy::start_configured(&["--traceable"], &servers::sh(SPY), as_a_user);
    assert_eq!(open.connect().recv_json(), json!(["seen", "seen"]));
}

#[test]
fn a_proxy_that_hides_itself_still_finds_out_what_a_server_left_unread() {
    let folder = TempFolder::new();
    let path = folder.path().to_str().unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    let server = servers::sh(&format!(
        "cd '{path}' && mkdir first 2>/dev/null || exec cat; while [ ! -e go ]; do sleep 0.02; done; exit 3"
    ));
    let proxy = Proxy::start_configured(&["--debug"], &server, |command| {
        untraceable(command);
        as_a_user(command);
    });
    let mut client = proxy.connect();
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"unread"}"#;
    client.send_line(request);
    proxy.wait_for_log(r#""method":"unread""#);
    fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(client.recv_line(), request, "it went to the next server");
}
