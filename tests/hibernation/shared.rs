//! Servers that many sessions share: they go once none of those uses them, and come back for any of them.

use serde_json::json;

use crate::LONG;
use crate::common::processes::{process_exists, wait_until_dead};
use crate::common::{
    Client, DEADLINE, NoLine, Proxy, Scratch, eventually, servers, skip_on_reference,
};

const LEGACY: [&str; 5] = ["--share", "1", "--share-legacy", "--hibernate-after", "0.5"];

fn opened(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    client.initialize();
    client
}

/// Whether a server has ended by itself, as far as the log says.
fn was_lost(proxy: &Proxy) -> bool {
    proxy.log().iter().any(|line| line.contains("ended ("))
}

#[test]
fn a_server_of_legacy_clients_is_another_when_they_go_on() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&LEGACY, &servers::scripted(&scratch));
    let (mut one, mut other) = (opened(&proxy), opened(&proxy));
    let first = one.pid_of_server();
    wait_until_dead(first);
    for client in [&mut one, &mut other] {
        let next = client.pid_of_server();
        assert_ne!(next, first);
        let methods = scratch.methods(next);
        assert_eq!(methods[..2], ["initialize", "notifications/initialized"]);
        assert!(client.aside.is_empty(), "{:?}", client.aside);
    }
    assert!(!was_lost(&proxy), "{:?}", proxy.log());
    proxy.wait_for_log("hibernates, as no session uses it");
}

/// A legacy server that answers whatever it is asked.
fn agreeable() -> Vec<String> {
    servers::sh(
        r#"while IFS= read -r line; do
    id=${line#*\"id\":}; id=${id%%[,\}]*}
    case $line in
    *'"method":"notifications/'*) continue ;;
    *'"method":"initialize"'*) result='{"protocolVersion":"2025-06-18","capabilities":{"resources":{"subscribe":true}}}' ;;
    *) result="{\"pid\":$$}" ;;
    esac
    printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done"#,
    )
}

#[test]
fn a_server_stays_that_has_a_subscription_to_a_resource() {
    skip_on_reference!("keeps servers");
    let proxy = Proxy::start(&LEGACY, &agreeable());
    let (mut one, mut other) = (opened(&proxy), opened(&proxy));
    let resource = json!({"uri": "test:/1"});
    let answer = one.request("resources/subscribe", &resource);
    assert!(answer["error"].is_null(), "{answer}");
    let pid = one.pid_of_server();
    assert_eq!(one.try_recv(LONG), Err(NoLine::Deadline));
    assert!(process_exists(pid));
    assert_eq!(other.pid_of_server(), pid);
    let answer = one.request("resources/unsubscribe", &resource);
    assert!(answer["error"].is_null(), "{answer}");
    eventually("the server to go", DEADLINE, || !process_exists(pid));
}
