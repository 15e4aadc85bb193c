//! Sessions of every kind go on with their new servers.

use super::*;
use serde_json::json;

use crate::common::client::modern_meta;

#[test]
fn a_legacy_session_goes_on_with_a_new_server_and_hears_of_nothing_but_its_lists() {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &[]);
    let mut client = opened(&proxy);
    let mut pids = vec![client.pid_of_server()];
    for count in 1..=3 {
        swap(&proxy, count);
        let pid = client.pid_of_server();
        assert!(!pids.contains(&pid));
        pids.push(pid);
        only_left(&proxy, &[pid]);
        assert_eq!(handshakes(&scratch, pid), 1);
    }
    assert_eq!(scratch.servers(), pids, "one for each");
    assert!(client.aside.is_empty(), "{:?}", client.aside);
    let log = proxy.log();
    assert!(
        !log.iter().any(|line| line.contains("] restart")),
        "{log:?}"
    );
}

#[test]
fn clients_are_told_of_lists_that_may_have_changed() {
    let proxy = Proxy::start(&[], &servers::demo());
    let mut client = opened(&proxy);
    let before = client.call_tool("echo", &json!({"text": "a"}));
    swap(&proxy, 1);
    let after = client.call_tool("echo", &json!({"text": "a"}));
    assert_eq!(before["result"], after["result"]);
    let told: Vec<&Value> = client.aside.iter().collect();
    let is_told = |line: &&Value| line["method"] == "notifications/tools/list_changed";
    assert!(told.iter().all(is_told), "{told:?}");
}

#[test]
fn what_is_in_flight_is_finished_by_the_old_server_and_what_is_new_waits_for_the_new_one() {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &[]);
    let mut client = opened(&proxy);
    let old = client.pid_of_server();
    let gate = scratch.file("gate");
    let gate = gate.display();
    let held = client.send_code(&format!(
        "until [ -e '{gate}' ]; do sleep 0.01; done; answer"
    ));
    scratch.wait_for_lines(old, 4);
    proxy.signal(Signal::SIGUSR1);
    let new = scratch.wait_for_server(2);
    scratch.wait_for_lines(new, 1);
    let waiting = client.send_request("pid", &json!({}));
    assert_eq!(scratch.got(new).len(), 1, "the handshake");
    scratch.write("gate", "");
    assert_eq!(pid_in(&client.answer_to(held)), old);
    assert_eq!(pid_in(&client.answer_to(waiting)), new);
    proxy.wait_for_log(DONE);
    only_left(&proxy, &[new]);
    assert_eq!(handshakes(&scratch, new), 1);
}

#[test]
fn answers_and_cancellations_still_reach_the_old_server() {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &[]);
    let mut client = opened(&proxy);
    let old = client.pid_of_server();
    // It asks, and answers once it has got something more.
    let held = client.send_code(r#"ask 71; held=$id; while read -r line; do printf '%s\n' "$line" >> "$dir/got.$$"; case $line in *cancelled*) reply "$held"; break;; esac; done"#);
    let cancelled = client.send_request("never", &json!({}));
    client.message_of("roots/list");
    scratch.wait_for_lines(old, 5);
    proxy.signal(Signal::SIGUSR1);
    let new = scratch.wait_for_server(2);
    scratch.wait_for_lines(new, 1);
    // The handshake is answered, and sooner or later whatever is new waits.
    eventually("new requests to wait", DEADLINE, || {
        let seen = scratch.got(old).len();
        client.notify("saw", &json!({}));
        client.wait_until_read();
        scratch.got(old).len() == seen
    });
    client.send_json(&json!({"jsonrpc": "2.0", "id": 71, "result": {}}));
    client.notify("notifications/cancelled", &json!({"requestId": cancelled}));
    assert_eq!(pid_in(&client.answer_to(held)), old);
    proxy.wait_for_log(DONE);
    assert_eq!(client.pid_of_server(), new);
}

#[test]
fn a_modern_session_moves_and_its_subscription_ends_with_its_result() {
    let proxy = Proxy::start(&[], &servers::demo());
    let mut client = proxy.connect();
    let list = json!({"_meta": modern_meta()});
    client.request("tools/list", &list);
    let filter = json!({"_meta": modern_meta(), "notifications": {"toolsListChanged": true}});
    let listen = client.send_request("subscriptions/listen", &filter);
    client.request("tools/list", &list);
    let old = proxy.servers();
    swap(&proxy, 1);
    let closed = client.answer_to(listen);
    assert_eq!(closed["result"]["resultType"], "complete", "{closed}");
    client.request("tools/list", &list);
    eventually("the new server to be alone", DEADLINE, || {
        let servers = proxy.servers();
        servers.len() == 1 && servers != old
    });
}

#[test]
fn a_session_that_has_said_nothing_moves_too() {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &[]);
    let mut client = proxy.connect();
    let old = scratch.wait_for_server(1);
    swap(&proxy, 1);
    let new = scratch.servers()[1];
    only_left(&proxy, &[new]);
    client.initialize();
    assert_eq!(client.pid_of_server(), new);
    assert_ne!(new, old);
}

#[test]
fn what_was_set_up_is_set_up_at_the_new_server() {
    let scratch = Scratch::new();
    scratch.write(
        "on-initialize",
        r#"printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"resources":{"subscribe":true}},"serverInfo":{"name":"s","version":"1"}}}\n' "$id"; strict="#,
    );
    let proxy = legacy(&scratch, &[]);
    let mut client = opened(&proxy);
    let subscribe = client.send_request("resources/subscribe", &json!({"uri": "a"}));
    // It answers what it does not know by nothing.
    client.send_code(&format!("reply {subscribe}; answer"));
    client.answer_to(subscribe);
    swap(&proxy, 1);
    let new = scratch.servers()[1];
    scratch.wait_for_lines(new, 3);
    let methods = scratch.methods(new);
    let expected = [
        "initialize",
        "notifications/initialized",
        "resources/subscribe",
    ];
    assert_eq!(methods[..3], expected);
}

#[test]
#[ignore = "it waits for half a minute"]
fn a_call_that_the_old_server_never_answers_does_not_keep_the_session() {
    let scratch = Scratch::new();
    let proxy = legacy(&scratch, &[]);
    let mut client = opened(&proxy);
    let old = client.pid_of_server();
    let never = client.send_request("never", &json!({}));
    scratch.wait_for_lines(old, 4);
    proxy.signal(Signal::SIGUSR1);
    let new = scratch.wait_for_server(2);
    scratch.wait_for_lines(new, 1);
    let answer = client.answer_to_within(never, 3 * DEADLINE);
    assert_eq!(answer["error"]["data"]["reason"], "process_terminated");
    assert_eq!(answer["error"]["data"]["delivered"], true);
    assert_eq!(client.pid_of_server(), new);
    only_left(&proxy, &[new]);
}
