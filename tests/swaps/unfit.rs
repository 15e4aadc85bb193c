//! New servers that are not fit harm nobody.

use super::*;
use serde_json::json;

/// What is told of swaps.
fn swaps(asked: std::net::SocketAddr) -> Value {
    let body = ask(asked, "/status.json");
    let status: Value = serde_json::from_str(&body).unwrap();
    status["servers"][0]["swaps"].clone()
}

fn ask(asked: std::net::SocketAddr, path: &str) -> String {
    let mut client = Client::connect(asked);
    client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: {asked}\r\n\r\n").as_bytes());
    let lines = client.read_to_end();
    let head = lines.iter().take_while(|line| !line.trim().is_empty());
    lines[head.count()..].join("\n")
}

fn asked(proxy: &Proxy) -> std::net::SocketAddr {
    let line = proxy.wait_for_log("status at http://");
    let (_, address) = line.split_once("http://").unwrap();
    address.trim_end_matches('/').parse().unwrap()
}

/// What a new server does that is not fit.
fn not_fit_by(on_start: &str, on_initialize: &str, words: &str) {
    let scratch = Scratch::new();
    let options = ["--replay-timeout", "1", "--status", "127.0.0.1:0"];
    let proxy = legacy(&scratch, &options);
    let asked = asked(&proxy);
    let mut clients: Vec<Client> = (0..3).map(|_| opened(&proxy)).collect();
    let pids: Vec<i32> = clients.iter_mut().map(Client::pid_of_server).collect();
    if !on_start.is_empty() {
        scratch.write("on-start", on_start);
    }
    if !on_initialize.is_empty() {
        scratch.write("on-initialize", on_initialize);
    }
    proxy.signal(Signal::SIGUSR1);
    let line = proxy.wait_for_log(NOT_FIT);
    assert!(line.contains(words), "{line}");
    for (client, pid) in clients.iter_mut().zip(&pids) {
        assert_eq!(client.pid_of_server(), *pid);
        assert!(client.aside.is_empty(), "{:?}", client.aside);
    }
    only_left(&proxy, &pids);
    let told = swaps(asked);
    assert_eq!(
        (&told["left"], &told["succeeded"]),
        (&json!(0), &json!(0)),
        "{told}"
    );
    assert!(told["failure"].as_str().unwrap().contains(words), "{told}");
    let failed = r#"mcp_tcp_proxy_swaps_total{server="default",result="failed"} 1"#;
    let metrics = ask(asked, "/metrics");
    assert!(metrics.contains(failed), "{metrics}");
    // The next attempt is another one.
    for file in ["on-start", "on-initialize"] {
        let _ = std::fs::remove_file(scratch.file(file));
    }
    swap(&proxy, 1);
    for (client, pid) in clients.iter_mut().zip(&pids) {
        assert_ne!(client.pid_of_server(), *pid);
    }
    let told = swaps(asked);
    assert_eq!(
        (&told["succeeded"], &told["failure"]),
        (&json!(3), &Value::Null),
        "{told}"
    );
}

#[test]
fn one_that_dies() {
    not_fit_by("echo 'no such module' >&2; exit 3", "", "no such module");
}

#[test]
fn one_that_answers_an_error() {
    let error = r#"printf '{"jsonrpc":"2.0","id":%s,"error":{"code":1,"message":"no"}}\n' "$id""#;
    not_fit_by("", error, "the same version of MCP");
}

#[test]
fn one_that_speaks_another_version() {
    let other = r#"printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2024-11-05","capabilities":{"tools":{}}}}\n' "$id""#;
    not_fit_by("", other, "the same version of MCP");
}

#[test]
fn one_that_is_silent() {
    not_fit_by("", ":", "not answered within 1 s");
}

#[test]
fn one_that_can_not_be_started() {
    let scratch = Scratch::new();
    let command = servers::removable(&scratch);
    let proxy = Proxy::start(&[], &command);
    let mut client = opened(&proxy);
    let pid = client.pid_of_server();
    scratch.remove("server");
    proxy.signal(Signal::SIGUSR1);
    let line = proxy.wait_for_log(NOT_FIT);
    assert!(line.contains("could not be started"), "{line}");
    assert_eq!(client.pid_of_server(), pid);
    only_left(&proxy, &[pid]);
}

#[test]
fn other_capabilities_are_no_obstacle_and_count_from_then_on() {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &[]);
    let mut client = opened(&proxy);
    client.pid_of_server();
    let other = r#"printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}\n' "$id"; strict="#;
    scratch.write("on-initialize", other);
    swap(&proxy, 1);
    let second = client.pid_of_server();
    client.send_code("kill -9 $$");
    let third = eventually_some("the next server", DEADLINE, || {
        scratch.servers().get(2).copied()
    });
    client.recv_but_notice();
    assert_eq!(client.pid_of_server(), third);
    assert_ne!(second, third);
}
