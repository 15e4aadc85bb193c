//! Prometheus's own check of metrics, which Debian has as `prometheus`.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::servers;
use crate::{get, start};

#[test]
#[ignore = "needs promtool"]
fn promtool_has_no_complaint() {
    let (proxy, asked) = start(&[], &servers::mirror());
    let mut client = proxy.connect();
    client.send_line("[1]");
    client.recv_line();
    let metrics = get(asked, "/metrics").body;
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
