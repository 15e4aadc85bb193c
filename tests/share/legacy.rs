//! Clients that open with `initialize`, with `--share-legacy`.

use serde_json::{Value, json};

use crate::common::client::{assert_own_error, modern_meta};
use crate::common::{Client, DEADLINE, Proxy, Scratch, eventually, servers, skip_on_reference};
use crate::echo;

const ONE: [&str; 3] = ["--share", "1", "--share-legacy"];

/// A server of [`servers::scripted`] for all, which dies when it is told to.
fn scripted() -> (Proxy, Scratch) {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&ONE, &servers::scripted(&scratch));
    (proxy, scratch)
}

fn opened(proxy: &Proxy) -> Client {
    let mut client = proxy.connect();
    client.initialize();
    client
}

#[track_caller]
fn crash(client: &mut Client) {
    let id = client.send_code("exit 3");
    assert_own_error(&client.answer_to(id), 502, "process_terminated");
}

#[test]
fn legacy_clients_share_servers_that_are_initialised_once() {
    skip_on_reference!("has nothing shared");
    let (proxy, scratch) = scripted();
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        let result = client.initialize();
        assert_eq!(result["serverInfo"]["name"], "scripted");
        assert_eq!(result["capabilities"], json!({"tools": {}}));
    }
    for client in &mut clients {
        client.send_request("pid", &json!({}));
    }
    let pid = proxy.only_server();
    for client in &mut clients {
        // All of them count their requests alike.
        assert_eq!(client.answer_to(2)["result"]["pid"], pid);
    }
    assert_eq!(scratch.servers(), [pid], "none was asked for its era");
    let methods = scratch.methods(pid);
    assert_eq!(methods[..2], ["initialize", "notifications/initialized"]);
    assert!(
        methods[2..].iter().all(|method| method == "pid"),
        "{methods:?}"
    );
    let first: Value = serde_json::from_str(&scratch.got(pid)[0]).unwrap();
    assert_eq!(first["params"]["clientInfo"]["name"], "mcp-tcp-proxy");
    assert_eq!(first["params"]["protocolVersion"], "2025-06-18");
    assert_eq!(first["params"]["capabilities"], json!({}));
}

#[test]
fn both_eras_are_served_by_one_proxy() {
    skip_on_reference!("has nothing shared");
    let options = ["--share", "2", "--share-legacy", "--demo"];
    let proxy = Proxy::start(&options, &[]);
    let mut legacy: Vec<Client> = (0..6).map(|_| opened(&proxy)).collect();
    let mut modern: Vec<Client> = (0..6).map(|_| proxy.connect()).collect();
    for round in 0..3 {
        for (number, client) in legacy.iter_mut().enumerate() {
            let text = format!("legacy {number} in {round}");
            let result = client.call_tool("echo", &json!({"text": text}));
            assert_eq!(result["content"][0]["text"], text.as_str());
        }
        for (number, client) in modern.iter_mut().enumerate() {
            echo(client, &format!("modern {number} in {round}"));
        }
    }
    eventually("the one that was asked to be gone", DEADLINE, || {
        proxy.servers().len() == 4
    });
    let refused = legacy[0].request("tools/list", &json!({"_meta": modern_meta()}));
    assert_own_error(&refused, -32600, "wrong_era");
    let refused = modern[0].request("initialize", &json!({}));
    assert_own_error(&refused, -32022, "wrong_era");
}

#[test]
fn a_client_of_both_eras_shares_after_it_has_asked() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&ONE, &servers::legacy(&scratch));
    let mut clients = [proxy.connect(), proxy.connect()];
    for client in &mut clients {
        let answer = client.request("server/discover", &json!({"_meta": modern_meta()}));
        assert_own_error(&answer, -32601, "method_not_found");
        client.initialize();
    }
    assert_eq!(clients[0].pid_of_server(), clients[1].pid_of_server());
    assert_eq!(
        scratch.servers().len(),
        2,
        "one of them was asked for its era"
    );
}

#[test]
fn who_does_not_open_with_initialize_has_a_server_of_its_own() {
    skip_on_reference!("has nothing shared");
    let (proxy, scratch) = scripted();
    let mut shared = opened(&proxy);
    let mut own = proxy.connect();
    assert_ne!(own.pid_of_server(), shared.pid_of_server());
    assert_eq!(scratch.servers().len(), 2);
}

#[test]
fn what_is_one_clients_alone_is_answered_by_the_proxy() {
    skip_on_reference!("has nothing shared");
    let (proxy, scratch) = scripted();
    let mut client = opened(&proxy);
    let set = client.request("logging/setLevel", &json!({"level": "debug"}));
    assert_eq!(set["result"], json!({}));
    let refused = client.request("tasks/list", &json!({}));
    assert_own_error(&refused, -32601, "method_not_found");
    let refused = client.request("tools/call", &json!({"name": "x", "task": {"ttl": 1}}));
    assert_own_error(&refused, -32601, "method_not_found");
    let pid = client.pid_of_server();
    let methods = scratch.methods(pid);
    assert_eq!(methods, ["initialize", "notifications/initialized", "pid"]);
}

#[test]
fn changed_lists_are_told_to_all_and_log_messages_to_nobody() {
    skip_on_reference!("has nothing shared");
    let (proxy, _scratch) = scripted();
    let mut clients = [opened(&proxy), opened(&proxy)];
    let code = "note notifications/message; note notifications/tools/list_changed; answer";
    let id = clients[0].send_code(code);
    for client in &mut clients {
        let told = client.message_of("notifications/tools/list_changed");
        assert_eq!(told["jsonrpc"], "2.0");
        assert!(client.aside.is_empty(), "{:?}", client.aside);
    }
    assert!(clients[0].answer_to(id)["result"].is_object());
}

#[test]
fn after_a_crash_sessions_go_on_with_a_server_that_the_proxy_has_initialised() {
    skip_on_reference!("has nothing shared");
    let (proxy, scratch) = scripted();
    let (mut a, mut b) = (opened(&proxy), opened(&proxy));
    let before = a.pid_of_server();
    assert_eq!(b.pid_of_server(), before);
    crash(&mut a);
    let after = b.pid_of_server();
    assert_ne!(after, before);
    assert_eq!(a.pid_of_server(), after);
    let methods = scratch.methods(after);
    assert_eq!(methods[..2], ["initialize", "notifications/initialized"]);
    assert!(a.aside.is_empty() && b.aside.is_empty());
}

#[test]
fn a_server_that_has_changed_ends_the_sessions() {
    skip_on_reference!("has nothing shared");
    let (proxy, scratch) = scripted();
    let (mut a, mut b) = (opened(&proxy), opened(&proxy));
    let other = r#"printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"x":{}}}}\n' "$id""#;
    scratch.write("on-initialize", other);
    crash(&mut a);
    let id = a.send_request("pid", &json!({}));
    assert_own_error(&a.answer_to(id), 503, "server_changed");
    assert!(a.read_to_end().is_empty());
    assert!(b.read_to_end().is_empty());
    let result = proxy.connect().initialize();
    assert_eq!(result["capabilities"], json!({"x": {}}));
}

#[test]
fn an_error_of_initialize_is_the_clients_and_the_next_one_tries_again() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let no = r#"printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32603,"message":"no"}}\n' "$id""#;
    scratch.write("on-initialize", no);
    let proxy = Proxy::start(&ONE, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let refused = client.request("initialize", &json!({"protocolVersion": "2025-06-18"}));
    let expected = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no"}});
    assert_eq!(refused, expected);
    scratch.remove("on-initialize");
    client.initialize();
    let pid = client.pid_of_server();
    assert_eq!(pid, scratch.servers()[1]);
}

#[test]
fn a_server_that_can_not_be_started_is_told_to_those_who_ask() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let command = servers::removable(&scratch);
    let proxy = Proxy::start(&ONE, &command);
    scratch.remove("server");
    let mut client = proxy.connect();
    let refused = client.request("initialize", &json!({"protocolVersion": "2025-06-18"}));
    assert_own_error(&refused, 503, "spawn_failed");
}

/// A server with resources: it says that `params.uri` has changed when it is asked to `touch` it.
fn resources(scratch: &Scratch) -> Vec<String> {
    let directory = scratch.path();
    servers::sh(&format!(
        r#"echo $$ >> '{directory}/starts'
while IFS= read -r line; do
    printf '%s\n' "$line" >> '{directory}'/got.$$
    id=${{line#*\"id\":}}; id=${{id%%[,\}}]*}}
    result='{{}}'
    case $line in
    *'"notifications/'*) continue ;;
    *'"initialize"'*) result='{{"protocolVersion":"2025-06-18","capabilities":{{"resources":{{"subscribe":true}}}}}}' ;;
    *'"touch"'*)
        uri=${{line#*\"uri\":}}; uri=${{uri%%\}}*}}
        printf '{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":%s}}}}\n' "$uri" ;;
    *'"die"'*) exit 3 ;;
    esac
    printf '{{"jsonrpc":"2.0","id":%s,"result":%s}}\n' "$id" "$result"
done"#
    ))
}

const UPDATED: &str = "notifications/resources/updated";

#[test]
fn subscriptions_are_counted_restored_and_given_up() {
    skip_on_reference!("has nothing shared");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&ONE, &resources(&scratch));
    let (mut a, mut b, mut none) = (opened(&proxy), opened(&proxy), opened(&proxy));
    let uri = json!({"uri": "file:///a/b"});
    for (client, uri) in [(&mut a, "file:///a/b"), (&mut b, "file:///a/")] {
        let answer = client.request("resources/subscribe", &json!({"uri": uri}));
        assert_eq!(answer["result"], json!({}));
    }
    none.request("touch", &uri);
    for client in [&mut a, &mut b] {
        assert_eq!(client.message_of(UPDATED)["params"], uri);
    }
    let answer = none.request("die", &json!({}));
    assert_own_error(&answer, 502, "process_terminated");
    let second = scratch.wait_for_server(2);
    let lines = scratch.wait_for_lines(second, 4);
    assert!(lines[2].contains("resources/subscribe"), "{lines:?}");
    assert!(lines[3].contains("resources/subscribe"), "{lines:?}");
    none.request("touch", &uri);
    for client in [&mut a, &mut b] {
        assert_eq!(client.message_of(UPDATED)["params"], uri);
    }
    assert!(none.aside.is_empty(), "{:?}", none.aside);
    b.reset();
    let lines = scratch.wait_for_lines(second, 6);
    let last: Value = serde_json::from_str(&lines[5]).unwrap();
    assert_eq!(last["method"], "resources/unsubscribe");
    assert_eq!(last["params"]["uri"], "file:///a/");
}
