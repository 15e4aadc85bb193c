//! What is counted, seen through `/metrics`.

use crate::common::{DEADLINE, eventually, servers};
use crate::{get, start};

const PREFIX: &str = "mcp_tcp_proxy_";

fn named(name: &str, labels: &str) -> String {
    let comma = if labels.is_empty() { "" } else { "," };
    format!("{PREFIX}{name}{{server=\"default\"{comma}{labels}}}")
}

#[test]
fn messages_responses_and_errors_are_counted() {
    let (proxy, asked) = start(&[], &servers::echo());
    let mut client = proxy.connect();
    let request = r#"{"jsonrpc":"2","id":1,"method":"x"}"#;
    client.send_line(request);
    client.recv_line();
    client.send_line("junk");
    client.recv_line();
    let metrics = get(asked, "/metrics");
    let to_server = r#"direction="to_server""#;
    let to_client = r#"direction="to_client""#;
    assert_eq!(metrics.count(&named("messages_total", to_server)), 1);
    assert_eq!(metrics.count(&named("messages_total", to_client)), 1);
    let bytes = request.len() as u64 + 1;
    assert_eq!(
        metrics.count(&named("message_bytes_total", to_server)),
        bytes
    );
    assert_eq!(metrics.count(&named("errors_total", r#"code="-32700""#)), 1);
    assert_eq!(metrics.count(&named("sessions", "")), 1);
    assert_eq!(metrics.count(&named("server_processes", "")), 1);
    assert_eq!(metrics.count(&named("server_starts_total", "")), 1);
    assert_eq!(metrics.count(&named("server_ready", "")), 1);
    assert!(metrics.count("process_open_fds") > 5);
    assert!(metrics.metric("process_start_time_seconds") > 1.7e9);
    assert!(metrics.count(&format!("{PREFIX}loop_seconds_count")) > 3);
    client.shutdown_write();
    client.read_to_end();
    let closed = named("sessions_closed_total", r#"reason="client_ended""#);
    eventually("the end to be counted", DEADLINE, || {
        get(asked, "/metrics").count(&closed) == 1
    });
    let metrics = get(asked, "/metrics");
    assert_eq!(metrics.count(&named("sessions", "")), 0);
    assert_eq!(metrics.count(&named("sessions_opened_total", "")), 1);
    assert_eq!(metrics.count(&named("messages_total", to_server)), 1);
    // The process may take longer than its output.
    eventually("the exit to be counted", DEADLINE, || {
        let metrics = get(asked, "/metrics");
        let exits = ["exit_0", "exit_other", "signal"]
            .map(|how| metrics.count(&named("server_exits_total", &format!("how=\"{how}\""))));
        exits.iter().sum::<u64>() == 1
    });
}

#[test]
fn requests_in_flight_and_response_times_are_told() {
    let server =
        servers::sh(r#"read line; read gate; echo '{"jsonrpc":"2","id":1,"result":{}}'; exec cat"#);
    let (proxy, asked) = start(&[], &server);
    let mut client = proxy.connect();
    client.send_line(r#"{"jsonrpc":"2","id":1,"method":"x"}"#);
    let in_flight = named("requests_in_flight", "");
    eventually("the request to be in flight", DEADLINE, || {
        get(asked, "/metrics").count(&in_flight) == 1
    });
    client.send_line(r#"{"jsonrpc":"2","method":"gate"}"#);
    client.recv_line();
    let metrics = get(asked, "/metrics");
    assert_eq!(metrics.count(&in_flight), 0);
    let times = |end: &str| named(&format!("response_seconds_{end}"), "");
    assert_eq!(metrics.count(&times("count")), 1);
    assert!(metrics.metric(&times("sum")) > 0.0);
    let all = named("response_seconds_bucket", r#"le="+Inf""#);
    assert_eq!(metrics.count(&all), 1);
    let starts = named("server_start_seconds_count", "");
    assert_eq!(metrics.count(&starts), 1);
}

#[test]
fn crashes_restarts_and_refusals_are_counted() {
    let options = ["--max-sessions", "1", "--prespawn", "1"];
    let (proxy, asked) = start(&options, &servers::sh("read line; exit 3"));
    let mut client = proxy.connect();
    client.send_line(r#"{"jsonrpc":"2","id":1,"method":"x"}"#);
    let error = client.recv_line();
    assert!(error.contains("502"), "{error}");
    proxy.connect().read_to_end();
    let refused = format!("{PREFIX}connections_refused_total{{reason=\"session_limit\"}}");
    let exits = named("server_exits_total", r#"how="exit_other""#);
    let restarts = named("server_restarts_total", "");
    eventually("all to be counted", DEADLINE, || {
        let metrics = get(asked, "/metrics");
        metrics.count(&restarts) >= 1 && metrics.count(&refused) == 1 && metrics.count(&exits) >= 1
    });
    let metrics = get(asked, "/metrics");
    assert_eq!(metrics.count(&named("errors_total", r#"code="502""#)), 1);
    assert_eq!(metrics.count(&named("errors_total", r#"code="503""#)), 1);
}

#[test]
fn refusals_at_the_entrance_are_counted_by_their_reasons() {
    let folder = crate::common::TempFolder::new();
    let path = folder.path().join("tokens");
    std::fs::write(&path, "ann a-long-enough-secret\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).unwrap();
    let file = path.display().to_string();
    let (proxy, asked) = start(&["--token-file", &file], &servers::mirror());
    let mut client = proxy.connect();
    client.send_line(r#"{"type":"handshake","token":"not-the-right-secret"}"#);
    let error = client.recv_line();
    assert!(error.contains("401"), "{error}");
    let metrics = get(asked, "/metrics");
    for family in ["connections_refused_total", "auth_failures_total"] {
        let name = format!("{PREFIX}{family}{{reason=\"wrong_token\"}}");
        assert_eq!(metrics.count(&name), 1);
    }
    let errors = format!("{PREFIX}errors_total{{code=\"401\"}}");
    assert_eq!(metrics.count(&errors), 1);
    assert_eq!(metrics.count(&format!("{PREFIX}config_reload_success")), 1);
    std::fs::write(&path, "nonsense\n").unwrap();
    proxy.signal(nix::sys::signal::Signal::SIGHUP);
    proxy.wait_for_log("nothing was changed");
    let metrics = get(asked, "/metrics");
    assert_eq!(metrics.count(&format!("{PREFIX}config_reload_success")), 0);
}

/// Lines of the histogram of how long the loop took: how many iterations there were, and how many of them took longer than a
/// millisecond.
fn iterations(metrics: &crate::Answer) -> (u64, u64) {
    let all = metrics.count(&format!("{PREFIX}loop_seconds_count"));
    let bound = format!("{PREFIX}loop_seconds_bucket{{le=\"0.001\"}}");
    (all, all - metrics.count(&bound))
}

#[test]
#[ignore = "a measurement: cargo test --release --test status -- --ignored --nocapture scrape"]
fn a_scrape_with_4500_sessions_holds_the_loop_for_a_millisecond_at_most() {
    const SCRAPES: u64 = 100;
    let (proxy, asked) = start(&["--spawn", "lazy"], &servers::mirror());
    let clients: Vec<_> = (0..4500).map(|_| proxy.connect()).collect();
    eventually("all sessions", 3 * DEADLINE, || {
        get(asked, "/metrics").count(&named("sessions", "")) == 4500
    });
    let before = iterations(&get(asked, "/metrics"));
    for _ in 0..SCRAPES {
        get(asked, "/metrics");
    }
    let after = iterations(&get(asked, "/metrics"));
    let (all, long) = (after.0 - before.0, after.1 - before.1);
    println!("{SCRAPES} scrapes: {all} iterations, {long} of them longer than 1 ms");
    assert_eq!(long, 0);
    drop(clients);
}
