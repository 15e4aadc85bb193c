//! A network that is really down: in a namespace of its own, so it needs the rights for that, which not every machine gives.

use std::process::Command;

use serde_json::json;

use crate::common::connect::IN_HASTE;
use crate::common::servers::demo;
use crate::common::{Connect, Proxy};

/// Set in the namespace, where nobody listens to the tests outside.
const INSIDE: &str = "MCP_TCP_PROXY_TEST_NAMESPACE";

const TEST: &str = "network::a_network_that_is_down_for_a_while_loses_nothing";

fn link(state: &str) {
    let set = ["link", "set", "dev", "lo", state];
    let status = Command::new("ip").args(set).status().unwrap();
    assert!(status.success(), "ip link set dev lo {state}");
}

#[test]
#[ignore = "needs a network namespace (unshare, ip), which needs rights that not every machine gives"]
fn a_network_that_is_down_for_a_while_loses_nothing() {
    if std::env::var_os(INSIDE).is_some() {
        return within_namespace();
    }
    let program = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--map-root-user"])
        .arg(program)
        .args(["--exact", TEST, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

fn within_namespace() {
    link("up");
    let proxy = Proxy::start(&[], &demo());
    // A link that is down says nothing: what is lost is known by the heartbeats.
    let options = [&IN_HASTE[..], &["--heartbeat-interval", "0.5"]].concat();
    let mut connect = Connect::start(&options, proxy.address());
    connect.initialize();
    connect.request(1, "ping", &json!({}));
    let server = proxy.only_server();
    for id in [2, 3] {
        link("down");
        connect.send_request(id, "ping", &json!({}));
        proxy.wait_for_logs("no sign of life", (id - 1) as usize);
        link("up");
        assert_eq!(connect.recv_json()["id"], id);
        assert_eq!(proxy.only_server(), server);
    }
    connect.end_input();
    connect.wait_exit(0);
    proxy.wait_until_childless();
}
