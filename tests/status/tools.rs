//! Real tools: Prometheus's own check of metrics, and a browser. Debian has them as `prometheus` and `chromium`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde_json::json as value;

use crate::common::client::modern_meta;
use crate::common::{Client, DEADLINE, browser, eventually, servers};
use crate::{get, json, start};

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
    client.request("tools/list", &value!({"_meta": modern_meta()}));
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

/// The page as a browser has it after some seconds, and what it had to say to its console.
fn browse(asked: SocketAddr, target: &str) -> (String, String) {
    let page = browser::open(&format!("http://{asked}{target}"));
    (page.html, page.console)
}

fn rows(page: &str) -> Vec<&str> {
    let (_, sessions) = page.split_once("id=\"sessions\"").unwrap();
    let (_, body) = sessions.split_once("<tbody>").unwrap();
    let (body, _) = body.split_once("</tbody>").unwrap();
    body.split("<tr>").skip(1).collect()
}

#[test]
#[ignore = "needs chromium"]
fn a_browser_shows_two_hundred_sessions_filters_and_sorts_them() {
    let (proxy, asked) = start(&["--spawn", "lazy"], &servers::mirror());
    let clients: Vec<Client> = (0..200).map(|_| proxy.connect()).collect();
    eventually("all sessions", DEADLINE, || {
        json(asked, "/status.json")["proxy"]["sessions"] == 200
    });
    let (page, console) = browse(asked, "/");
    assert_eq!(console, "");
    assert!(page.contains("200 shown, 200 open"), "{page:.3000}");
    assert_eq!(rows(&page).len(), 200);
    let one = clients[17].local_address().to_string();
    let (page, console) = browse(asked, &format!("/#filter={one}"));
    assert_eq!((rows(&page).len(), console.as_str()), (1, ""));
    assert!(rows(&page)[0].contains(&one));
    let (page, console) = browse(asked, "/#sort=session&descending=1");
    assert_eq!(console, "");
    assert!(rows(&page)[0].contains(">200</td>"), "{}", rows(&page)[0]);
    assert_eq!(rows(&get(asked, "/").body).len(), 200, "without its script");
}
