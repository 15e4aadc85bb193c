//! Clients that share servers, and notice nothing of each other.

use std::io::Write as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::client::modern_meta;
use crate::common::processes;
use crate::common::servers;
use crate::common::{Client, DEADLINE, Proxy, Scratch, eventually, skip_on_reference};
use crate::{call, echo, got, silent, text_of, wait_for_servers};

#[test]
fn many_clients_are_served_by_few_servers() {
    skip_on_reference!("has nothing shared");
    let mut proxy = Proxy::start(&["--share", "2", "--demo"], &[]);
    let mut clients: Vec<Client> = (0..30).map(|_| proxy.connect()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            let arguments = json!({"text": format!("{number} in {round}")});
            client.send_request("tools/call", &call("echo", &arguments));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            // All of them count their requests alike.
            let answer = client.answer_to(round + 1);
            assert_eq!(text_of(&answer), format!("{number} in {round}"));
        }
    }
    wait_for_servers(&proxy, 2);
    drop(clients);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn who_takes_long_keeps_nobody_waiting() {
    skip_on_reference!("has nothing shared");
    let proxy = Proxy::start(&["--share", "1", "--demo"], &[]);
    let (mut slow, mut quick) = (proxy.connect(), proxy.connect());
    let sleep = call("sleep", &json!({"seconds": 3600}));
    slow.send_request("tools/call", &sleep);
    for count in 0..20 {
        echo(&mut quick, &count.to_string());
        echo(&mut slow, &count.to_string());
    }
    wait_for_servers(&proxy, 1);
}

#[test]
fn a_server_is_told_that_a_client_has_left() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--share", "1"], &silent(&scratch));
    let (mut client, mut other) = (proxy.connect(), proxy.connect());
    let params = json!({"_meta": modern_meta(), "notifications": {"toolsListChanged": true}});
    client.send_request("tools/list", &params);
    client.send_request("subscriptions/listen", &params);
    other.send_request("tools/list", &params);
    eventually("the requests to arrive", DEADLINE, || {
        got(&scratch).len() == 3
    });
    client.reset();
    eventually("two cancellations", DEADLINE, || got(&scratch).len() == 5);
    let lines = got(&scratch);
    let id_of = |method: &str| {
        let mut lines = lines.iter().filter(|line| line["method"] == method);
        lines.next().unwrap()["id"].clone()
    };
    let cancelled: Vec<_> = lines[3..]
        .iter()
        .map(|line| &line["params"]["requestId"])
        .collect();
    assert_eq!(
        cancelled,
        [&id_of("tools/list"), &id_of("subscriptions/listen")]
    );
}

#[test]
fn a_stop_waits_for_what_is_under_way() {
    skip_on_reference!("has nothing shared");
    let mut proxy = Proxy::start(&["--share", "1", "--demo"], &[]);
    let mut client = proxy.connect();
    echo(&mut client, "there");
    let id = client.send_request("tools/call", &call("sleep", &json!({"seconds": 0.5})));
    // It is at the server before what is sent after it.
    echo(&mut client, "it is under way");
    proxy.signal(Signal::SIGTERM);
    let answer = client.answer_to(id);
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn a_client_that_ends_its_side_gets_its_answers() {
    skip_on_reference!("has nothing shared");
    let proxy = Proxy::start(&["--share", "1", "--demo"], &[]);
    let mut client = proxy.connect();
    let id = client.send_request("tools/call", &call("sleep", &json!({"seconds": 0.2})));
    client.shutdown_write();
    assert!(client.answer_to(id)["result"].is_object());
    assert!(client.read_to_end().is_empty());
}

#[test]
fn a_client_that_does_not_read_delays_nobody() {
    skip_on_reference!("has nothing shared");
    let proxy = Proxy::start(&["--share", "1", "--demo"], &[]);
    let mut lazy = Client::connect_with_receive_buffer(proxy.address(), 32 * 1024);
    let mut other = proxy.connect();
    // More than the sockets hold, and less than may wait.
    let text = "x".repeat(15_000);
    for _ in 0..60 {
        lazy.send_request("tools/call", &call("echo", &json!({"text": text})));
        echo(&mut other, "meanwhile");
    }
    for id in 1..=60 {
        let answer = lazy.answer_to_within(id, Duration::from_mins(1));
        assert_eq!(text_of(&answer).len(), text.len());
    }
}

#[test]
fn beyond_what_may_wait_requests_are_refused_and_cancellations_get_through() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let options = ["--share", "1", "--share-in-flight", "1"];
    let proxy = Proxy::start(&options, &silent(&scratch));
    let mut client = proxy.connect();
    client.send_request("tools/list", &json!({"_meta": modern_meta()}));
    eventually("the first request", DEADLINE, || got(&scratch).len() == 1);
    let params = json!({"_meta": modern_meta(), "filler": "x".repeat(600_000)});
    for _ in 0..2 {
        client.send_request("tools/list", &params);
    }
    let (id, _) = client.recv_error(429, "in_flight_limit");
    assert_eq!(id, 3, "one is at the server, and one waits");
    client.notify("notifications/cancelled", &json!({"requestId": 2}));
    client.notify("notifications/cancelled", &json!({"requestId": 1}));
    eventually("the cancellation of the first", DEADLINE, || {
        got(&scratch).len() == 2
    });
    let lines = got(&scratch);
    assert_eq!(lines[1]["params"]["requestId"], lines[0]["id"]);
}

#[test]
fn waiting_servers_become_shared_ones() {
    skip_on_reference!("has nothing shared");
    let mut proxy = Proxy::start(&["--share", "1", "--prespawn", "1", "--demo"], &[]);
    eventually("the spare", DEADLINE, || proxy.servers().len() == 1);
    let spare = proxy.only_server();
    let mut client = proxy.connect();
    echo(&mut client, "shared");
    proxy.wait_for_log(&format!("shared server 0 is pid {spare}"));
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

/// Why only the operator can know whether to share: what a server keeps for its client, it keeps for all.
#[test]
fn a_server_that_keeps_something_keeps_it_for_all() {
    skip_on_reference!("has nothing shared");
    let counting = servers::sh(
        r#"count=0
while IFS= read -r line; do
    id=${line#*\"id\":}; id=${id%%[,\}]*}
    case $line in
    *discover*) result='{"supportedVersions":["2026-07-28"]}' ;;
    *) count=$((count + 1)); result=$count ;;
    esac
    printf '{"id":%s,"result":%s}\n' "$id" "$result"
done"#,
    );
    let params = json!({"_meta": modern_meta()});
    for (options, second) in [(vec![], 1), (vec!["--share", "1"], 2)] {
        let proxy = Proxy::start(&options, &counting);
        let (mut one, mut two) = (proxy.connect(), proxy.connect());
        assert_eq!(one.request("tools/call", &params)["result"], 1);
        assert_eq!(two.request("tools/call", &params)["result"], second);
    }
}

#[test]
fn a_proxy_with_idle_shared_sessions_sleeps() {
    skip_on_reference!("has nothing shared");
    let proxy = Proxy::start(&["--share", "1", "--demo"], &[]);
    let mut clients: Vec<Client> = (0..10).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        echo(client, "here");
    }
    processes::wait_until_quiet(&[proxy.pid()]);
}

#[test]
fn subscriptions_are_shared_and_end_with_their_clients() {
    skip_on_reference!("has nothing shared");
    let proxy = Proxy::start(&["--share", "1", "--demo"], &[]);
    let mut clients = [proxy.connect(), proxy.connect()];
    let params = json!({"_meta": modern_meta(), "notifications": {"toolsListChanged": true}});
    for (number, client) in clients.iter_mut().enumerate() {
        let id = format!("listen {number}");
        let listen =
            json!({"jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": params});
        client.send_json(&listen);
        let acknowledged = client.recv_json();
        let method = "notifications/subscriptions/acknowledged";
        assert_eq!(acknowledged["method"], method);
        let meta = &acknowledged["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/subscriptionId"], id.as_str());
        assert_eq!(
            acknowledged["params"]["notifications"]["toolsListChanged"],
            true
        );
    }
    let [one, two] = &mut clients;
    one.shutdown_write();
    let closed = one.recv_json();
    assert_eq!(closed["id"], "listen 0");
    assert_eq!(closed["result"]["resultType"], "complete");
    assert!(one.read_to_end().is_empty());
    echo(two, "it is still served");
}

#[test]
fn the_demo_server_answers_out_of_order_tells_of_progress_and_notifies_those_who_listen() {
    skip_on_reference!("has nothing shared");
    let proxy = Proxy::start(&["--share", "1", "--demo"], &[]);
    let (mut writer, mut reader) = (proxy.connect(), proxy.connect());
    let listen = json!({"_meta": modern_meta(), "notifications": {"resourceSubscriptions": ["demo://note"]}});
    let listen = reader.send_request("subscriptions/listen", &listen);
    let subscription =
        |line: &Value| line["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].clone();
    assert_eq!(subscription(&reader.recv_json()), listen);
    let mut sleep = call("sleep", &json!({"seconds": 3600}));
    sleep["_meta"]["progressToken"] = json!("mine");
    let sleep = writer.send_request("tools/call", &sleep);
    let begun = writer.recv_json();
    assert_eq!(begun["params"]["progressToken"], "mine", "{begun}");
    // What was asked later is answered sooner.
    let note = writer.send_request("tools/call", &call("note", &json!({"text": "new"})));
    assert_eq!(writer.recv_json()["id"], note);
    let updated = reader.recv_json();
    assert_eq!(updated["method"], "notifications/resources/updated");
    assert_eq!(updated["params"]["uri"], "demo://note");
    assert_eq!(subscription(&updated), listen);
    writer.notify("notifications/cancelled", &json!({"requestId": sleep}));
    echo(&mut writer, "it is not waited for");
    echo(&mut reader, "nor is anything else there");
}

/// What no buffers hold, in bytes.
const LOTS: usize = 100 * 1024 * 1024;

#[test]
fn a_client_that_asks_for_errors_and_does_not_read_them_is_not_read_for_ever() {
    skip_on_reference!("has nothing shared");
    let proxy = Proxy::start(&["--share", "1", "--demo"], &[]);
    let mut client = proxy.connect();
    echo(&mut client, "modern");
    let mut writer = client.writer();
    writer
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let lines = "[{\"id\":1,\"method\":\"a\"}]\n".repeat(1000);
    let mut sent = 0;
    while sent < LOTS {
        match writer.write(lines.as_bytes()) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    assert!(sent < LOTS, "all was read");
    echo(&mut proxy.connect(), "others are served");
}
