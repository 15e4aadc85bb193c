//! Clients that end their side while the servers that they share still work for them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::client::{assert_own_error, modern_meta};
use crate::common::{DEADLINE, Proxy, Scratch, eventually, skip_on_reference};
use crate::{got, silent};

/// For so long a client that has ended its side is served.
const FINISH_TIME: Duration = Duration::from_secs(30);

/// What the servers were told to take back.
fn taken_back(scratch: &Scratch) -> Vec<Value> {
    let lines = got(scratch).into_iter();
    let cancelled = lines.filter(|line| line["method"] == "notifications/cancelled");
    cancelled
        .map(|line| line["params"]["requestId"].clone())
        .collect()
}

#[test]
#[ignore = "it waits for half a minute"]
fn subscriptions_end_at_once_and_the_rest_has_half_a_minute() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--share", "1"], &silent(&scratch));
    let (mut client, mut other) = (proxy.connect(), proxy.connect());
    let params = json!({"_meta": modern_meta(), "notifications": {"toolsListChanged": true}});
    let listen = client.send_request("subscriptions/listen", &params);
    let call = client.send_request("tools/list", &params);
    other.send_request("tools/call", &params);
    eventually("the requests to arrive", DEADLINE, || {
        got(&scratch).len() == 3
    });
    let lines = got(&scratch);
    let number_of = |method: &str| {
        let mut lines = lines.iter().filter(|line| line["method"] == method);
        lines.next().unwrap()["id"].clone()
    };
    let began = Instant::now();
    client.shutdown_write();
    let closed = client.answer_to(listen);
    let subscription = &closed["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
    assert_eq!(*subscription, listen, "{closed}");
    eventually("the listen to be taken back", DEADLINE, || {
        taken_back(&scratch) == [number_of("subscriptions/listen")]
    });
    let answer = client.answer_to_within(call, FINISH_TIME + DEADLINE);
    // A clock that ticks may be a little ahead of itself.
    let waited = began.elapsed() + Duration::from_millis(50);
    assert!(waited >= FINISH_TIME, "{waited:?}");
    assert_own_error(&answer, 502, "process_terminated");
    assert!(client.read_to_end().is_empty());
    eventually("the rest to be taken back", DEADLINE, || {
        taken_back(&scratch) == [number_of("subscriptions/listen"), number_of("tools/list")]
    });
    proxy.only_server();
}
