//! Sessions that have lost their connections.

use serde_json::json as value;

use crate::common::servers;
use crate::{get, json, start};

#[test]
fn a_session_that_is_away_is_told_with_the_time_that_is_left_and_who_comes_back_is_counted() {
    let (proxy, asked) = start(&[], &servers::mirror());
    let first = |session: &str| value!({"version": 1, "session": session, "heartbeat": 30});
    let line = |resume| value!({"type": "handshake", "resume": resume});
    let mut client = proxy.connect();
    client.send_json(&line(first(&"1".repeat(32))));
    assert_eq!(client.recv_json()["type"], "resumable");
    client.send_line("[1]");
    client.recv_line();
    assert!(json(asked, "/status.json")["sessions"][0]["kept_for"].is_null());
    client.close();
    proxy.wait_for_log("it is kept");
    let status = json(asked, "/status.json");
    let session = &status["sessions"][0];
    assert_eq!(session["state"], "detached");
    let kept_for = session["kept_for"].as_f64().unwrap();
    assert!(kept_for > 0.0 && kept_for <= 120.0, "{kept_for}");
    assert_eq!(status["servers"][0]["detached"], 1);
    let away = r#"mcp_tcp_proxy_sessions_detached{server="default"}"#;
    assert_eq!(get(asked, "/metrics").count(away), 1);
    for (id, attempt, verdict) in [('1', 1, "resumed"), ('3', 1, "not_resumed")] {
        let mut again = first(&"2".repeat(32));
        again["previous"] =
            value!({"session": id.to_string().repeat(32), "attempt": attempt, "lines": 1});
        let mut client = proxy.connect();
        client.send_json(&line(again));
        assert_eq!(client.recv_json()["type"], verdict);
    }
    let metrics = get(asked, "/metrics");
    for (result, count) in [("resumed", 1), ("unknown", 1), ("stale", 0)] {
        let name = format!(r#"mcp_tcp_proxy_resumes_total{{result="{result}"}}"#);
        assert_eq!(metrics.count(&name), count);
    }
}
