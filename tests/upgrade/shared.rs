//! What clients have under way at servers that they share when another program goes on.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::common::client::modern_meta;
use crate::common::processes::kill_and_wait;
use crate::common::{Client, DEADLINE, Proxy, Scratch, eventually, servers};
use crate::upgrade;

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

const UPDATED: &str = "notifications/resources/updated";

/// A modern request of a tool of the demo server.
fn call(tool: &str, arguments: &Value) -> Value {
    json!({"name": tool, "arguments": arguments, "_meta": modern_meta()})
}

/// Begins to listen for changes of the note, under this id, and waits until that is agreed to.
#[track_caller]
fn listen(client: &mut Client, id: &Value) {
    let wanted = json!({"resourceSubscriptions": ["demo://note"]});
    let params = json!({"_meta": modern_meta(), "notifications": wanted});
    client.send_json(
        &json!({"jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": params}),
    );
    let agreed = client.message_of("notifications/subscriptions/acknowledged");
    assert_eq!(agreed["params"]["_meta"][SUBSCRIPTION], *id, "{agreed}");
}

#[test]
fn listens_subscriptions_and_progress_reach_whoever_asked_for_them() {
    let options = ["--share", "1", "--share-legacy"];
    let proxy = Proxy::start(&options, &servers::demo());
    let mut listeners = [(proxy.connect(), json!("l")), (proxy.connect(), json!(7))];
    for (client, id) in &mut listeners {
        listen(client, id);
    }
    let (mut legacy, mut other) = (proxy.connect(), proxy.connect());
    legacy.initialize();
    legacy.request("resources/subscribe", &json!({"uri": "demo://note"}));
    let mut slow = proxy.connect();
    let mut params = call("sleep", &json!({"seconds": 1}));
    params["_meta"]["progressToken"] = json!("how far");
    let slept = slow.send_request("tools/call", &params);
    let begun = slow.message_of("notifications/progress");
    assert_eq!(begun["params"]["progressToken"], "how far");
    eventually("the one that was asked to be gone", DEADLINE, || {
        proxy.servers().len() == 2
    });
    let before = proxy.servers();
    for _ in 0..2 {
        upgrade(&proxy);
    }
    // Whoever comes later is told what was agreed to before.
    let mut late = (proxy.connect(), json!("late"));
    listen(&mut late.0, &late.1);
    let note = call("note", &json!({"text": "x"}));
    late.0.request("tools/call", &note);
    for (client, id) in listeners.iter_mut().chain([&mut late]) {
        let told = client.message_of(UPDATED);
        assert_eq!(told["params"]["_meta"][SUBSCRIPTION], *id, "{told}");
    }
    other.initialize();
    other.call_tool("note", &json!({"text": "y"}));
    assert_eq!(legacy.message_of(UPDATED)["params"]["uri"], "demo://note");
    let done = slow.message_of("notifications/progress");
    assert_eq!(done["params"]["progressToken"], "how far");
    assert!(slow.answer_to(slept)["result"].is_object());
    assert_eq!(proxy.servers(), before);
}

/// Two legacy clients of one server that does what they say.
fn with_two_clients(scratch: &Scratch) -> (Proxy, [Client; 2]) {
    let options = ["--share", "1", "--share-legacy"];
    let proxy = Proxy::start(&options, &servers::scripted(scratch));
    let mut clients = [proxy.connect(), proxy.connect()];
    for client in &mut clients {
        client.initialize();
    }
    (proxy, clients)
}

#[test]
fn a_shared_server_that_dies_meanwhile_is_replaced() {
    let scratch = Scratch::new();
    let (proxy, mut clients) = with_two_clients(&scratch);
    let server = clients[0].pid_of_server();
    let held = clients[1].send_code("");
    // The handshake, the question above, and this one.
    scratch.wait_for_lines(server, 4);
    proxy.signal(Signal::SIGUSR2);
    kill_and_wait(server);
    let (id, _) = clients[1].recv_error(502, "process_terminated");
    assert_eq!(id, held);
    proxy.wait_for_log(crate::GOES_ON);
    let next = clients[0].pid_of_server();
    assert_ne!(next, server);
    assert_eq!(clients[1].pid_of_server(), next);
    let methods = scratch.methods(next);
    assert_eq!(methods[..2], ["initialize", "notifications/initialized"]);
}

#[test]
fn a_swap_that_is_under_way_comes_to_its_end() {
    let scratch = Scratch::new();
    let (proxy, mut clients) = with_two_clients(&scratch);
    let old = clients[0].pid_of_server();
    let until = |name: &str| {
        let file = scratch.file(name);
        format!("until [ -e '{}' ]; do sleep 0.01; done", file.display())
    };
    let held = clients[1].send_code(&format!("{}; answer", until("released")));
    scratch.wait_for_lines(old, 4);
    // The new server is not ready before another program goes on.
    scratch.write("on-initialize", &format!("{}; initialized", until("ready")));
    proxy.signal(Signal::SIGUSR1);
    proxy.wait_for_log("it is retired");
    let asked = clients[0].send_request("pid", &json!({}));
    eventually("the new server", DEADLINE, || scratch.servers().len() == 2);
    let new = scratch.servers()[1];
    scratch.wait_for_lines(new, 1);
    upgrade(&proxy);
    scratch.write("ready", "");
    assert_eq!(clients[0].answer_to(asked)["result"]["pid"], new);
    upgrade(&proxy);
    assert_eq!(clients[0].pid_of_server(), new);
    scratch.write("released", "");
    assert_eq!(clients[1].answer_to(held)["result"]["pid"], old);
    assert_eq!(clients[1].pid_of_server(), new);
    eventually("the old one to be gone", DEADLINE, || {
        proxy.servers() == [new]
    });
    assert!(!proxy.log().join("\n").contains("ended ("));
}
