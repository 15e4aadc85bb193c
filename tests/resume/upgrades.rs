//! Another program goes on in the proxy's process while sessions have connections, have none, or are about to be.

use serde_json::json;

use super::{Counting, assert_granted, first_line, id, line, resumed};
use crate::common::Proxy;
use crate::common::servers::mirror;
use crate::common::upgrades::upgrade;

#[test]
fn sessions_go_on_with_a_connection_or_without_one() {
    let proxy = Proxy::start(&[], &mirror());
    let (mut kept, mut lost) = (Counting::ask(&proxy, '1'), Counting::ask(&proxy, '2'));
    let mut gone = Counting::ask(&proxy, '3');
    for client in [&mut kept, &mut lost, &mut gone] {
        client.send(1);
        client.expect(1);
    }
    gone.client.send_line(r#"{"type":"heartbeat","bye":true}"#);
    gone.client.shutdown_write();
    gone.client.read_to_end();
    // What it has got it has not acknowledged, and half a line is no line.
    lost.client.send_raw(br#"{"jsonrpc":"#);
    lost.client = proxy.connect();
    proxy.wait_for_log("lost its connection");
    let mut late = proxy.connect();
    let first = format!("{}\n", first_line(&id('4'), None));
    late.send_raw(&first.as_bytes()[..20]);
    for round in 1..=2 {
        upgrade(&proxy);
        kept.send(1 + round);
        kept.expect(1 + round);
        lost.taken = 0;
        assert_eq!(lost.come_back(&proxy, round), resumed(round));
        for number in 1..=round {
            lost.expect(number);
        }
        lost.send(1 + round);
        lost.expect(1 + round);
    }
    let verdict = gone.come_back(&proxy, 1);
    let expected = json!({"type": "not_resumed", "reason": "ended", "lines": 1});
    assert_eq!(verdict, expected);
    late.send_raw(&first.as_bytes()[20..]);
    assert_granted(&late.recv_json());
    late.send_json(&line(1));
    assert_eq!(late.recv_json(), line(1));
}
