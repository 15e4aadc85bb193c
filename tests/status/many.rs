//! Several servers: each has numbers of its own, and one that can't be started makes no other one less ready.

use std::fs;

use crate::common::{DEADLINE, Proxy, TempFolder, eventually};
use crate::{get, json, status_address};

#[test]
fn each_server_of_a_configuration_is_told_of() {
    let folder = TempFolder::new();
    let path = folder.path().join("config.json");
    let configuration = r#"{
        "listen": ["127.0.0.1:0"],
        "mcpServers": {
            "good": {"command": "cat", "default": true},
            "bad": {"command": "/no/such/program"}
        }
    }"#;
    fs::write(&path, configuration).unwrap();
    let config = path.display().to_string();
    let proxy = Proxy::start_with_config(&["--config", &config, "--status", "127.0.0.1:0"], |_| {});
    let asked = status_address(&proxy);
    let mut client = proxy.connect();
    client.send_line("[1]");
    client.recv_line();
    let mut other = proxy.connect();
    other.send_line(r#"{"type":"handshake","server":"bad"}"#);
    other.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#);
    other.read_to_end();
    let count = |name: &str, labels: &str| {
        get(asked, "/metrics").count(&format!("mcp_tcp_proxy_{name}{{{labels}}}"))
    };
    eventually("the failed start to be counted", DEADLINE, || {
        count("server_exits_total", r#"server="bad",how="start_failed""#) >= 1
    });
    assert_eq!(
        count("messages_total", r#"server="good",direction="to_client""#),
        1
    );
    assert_eq!(
        count("messages_total", r#"server="bad",direction="to_client""#),
        0
    );
    assert_eq!(count("sessions", r#"server="good""#), 1);
    assert_eq!(count("server_processes", r#"server="good""#), 1);
    assert_eq!(count("server_processes", r#"server="bad""#), 0);
    let status = json(asked, "/status.json");
    let names = status["servers"].as_array().unwrap().iter();
    let names: Vec<&str> = names
        .map(|server| server["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["good", "bad"]);
    assert_eq!(status["sessions"][0]["server"], "good");
    assert_eq!(get(asked, "/readyz").status, 200);
    assert_eq!(get(asked, "/readyz?server=good").status, 200);
    assert_eq!(get(asked, "/readyz?server=none").status, 404);
}
