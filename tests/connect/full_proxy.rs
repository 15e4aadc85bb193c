//! A proxy that has as many sessions as it may have.

use serde_json::json;

use crate::common::connect::{IN_HASTE, initialize_line};
use crate::common::{Connect, Proxy, servers};

#[test]
fn the_host_notices_nothing_of_a_full_proxy_but_the_wait() {
    let proxy = Proxy::start(&["--max-sessions", "1"], &servers::demo());
    let mut other = proxy.connect();
    other.initialize();
    let mut connect = Connect::start(&IN_HASTE, proxy.address());
    connect.send_line(&initialize_line(0));
    connect.wait_for_logs("(session_limit)", 3);
    assert!(!connect.has_output());
    other.close();
    assert_eq!(connect.recv_json()["id"], 0);
    let answer = connect.request(1, "tools/list", &json!({}));
    assert!(answer["result"].is_object(), "{answer}");
}
