//! Prometheus's own check of metrics, which Debian has as `prometheus`.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::common::client::modern_meta;
use crate::common::servers;
use crate::{get, start};

#[test]
#[ignore = "needs promtool"]
fn promtool_has_no_complaint() {
    let (proxy, asked) = start(&[], &servers::mirror());
    let mut client = proxy.connect();
    client.send_line("[1]");
    client.recv_line();
    assert_sound(&get(asked, "/metrics").body);
}

#[test]
#[ignore = "needs promtool"]
fn promtool_has_no_complaint_about_shared_processes() {
    let (proxy, asked) = start(&["--share", "2", "--demo"], &[]);
    let mut client = proxy.connect();
    client.request("tools/list", &json!({"_meta": modern_meta()}));
    let metrics = get(asked, "/metrics").body;
    assert!(metrics.contains("share_process_sessions{"), "{metrics}");
    assert_sound(&metrics);
}

/// Asks promtool.
#[track_caller]
fn assert_sound(metrics: &str) {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = tool.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
