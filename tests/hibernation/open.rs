//! What keeps a session awake: one test each. In all of them the same server has to be there after a time in which it would
//! have been given back.

use serde_json::json;

use crate::common::processes::wait_until_dead;
use crate::common::{Client, NoLine, Proxy, Scratch, servers, skip_on_reference};
use crate::{LONG, OPTIONS, modern, modern_pid, pid_in};

#[track_caller]
fn nothing_passes(client: &mut Client) {
    assert_eq!(client.try_recv(LONG), Err(NoLine::Deadline));
}

#[test]
fn a_request_of_the_client() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    let id = client.send_code("sleep 2; answer");
    let pid = pid_in(&client.answer_to(id));
    let mut asked = scratch.methods(pid);
    asked.truncate(3);
    assert_eq!(asked.last().map(String::as_str), Some("sh"));
    wait_until_dead(pid);
}

#[test]
fn a_request_of_the_server() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    // The session stays awake until the answer, which comes after the question.
    client.send_code("ask 7; answer");
    assert_eq!(client.recv_json()["method"], "roots/list");
    let pid = client.pid_of_server();
    nothing_passes(&mut client);
    assert_eq!(client.pid_of_server(), pid);
    client.send_json(&json!({"jsonrpc": "2.0", "id": 7, "result": {"roots": []}}));
    wait_until_dead(pid);
}

#[test]
fn listening() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let params = modern(&json!({"notifications": {"toolsListChanged": true}}));
    let id = client.send_request("subscriptions/listen", &params);
    let pid = modern_pid(&mut client);
    nothing_passes(&mut client);
    assert_eq!(modern_pid(&mut client), pid);
    client.notify("notifications/cancelled", &json!({"requestId": id}));
    wait_until_dead(pid);
}

#[test]
fn a_subscription_to_a_resource() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    let resource = json!({"uri": "test:/1"});
    let id = client.send_request("resources/subscribe", &resource);
    client.notify("sh", &json!({"code": format!("reply {id}")}));
    let pid = pid_in(&client.answer_to(id));
    nothing_passes(&mut client);
    assert_eq!(client.pid_of_server(), pid);
    let id = client.send_request("resources/unsubscribe", &resource);
    client.notify("sh", &json!({"code": format!("reply {id}")}));
    assert_eq!(pid_in(&client.answer_to(id)), pid);
    wait_until_dead(pid);
}

/// A modern server that asks its user something, and works on a task.
fn asking() -> Vec<String> {
    servers::sh(
        r#"while IFS= read -r line; do
    id=${line#*\"id\":}; id=${id%%[,\}]*}
    case $line in
    *'"requestState"'* | *'"method":"pid"'*) more= ;;
    *'"method":"tools/call"'*'"ask"'*) more='"resultType":"input_required","requestState":"s","inputRequests":{},' ;;
    *'"method":"tools/call"'*) more='"resultType":"task","taskId":"t","status":"working","ttlMs":3600000,' ;;
    *) more='"resultType":"complete","taskId":"t","status":"completed","ttlMs":3600000,' ;;
    esac
    printf '{"jsonrpc":"2.0","id":%s,"result":{%s"pid":%d}}\n' "$id" "$more" $$
done"#,
    )
}

#[test]
fn a_question_to_the_user() {
    skip_on_reference!("keeps servers");
    let proxy = Proxy::start(&OPTIONS, &asking());
    let mut client = proxy.connect();
    let call = modern(&json!({"name": "ask"}));
    let pid = pid_in(&client.request("tools/call", &call));
    nothing_passes(&mut client);
    assert_eq!(modern_pid(&mut client), pid);
    let retry = modern(&json!({"name": "ask", "requestState": "s"}));
    assert_eq!(pid_in(&client.request("tools/call", &retry)), pid);
    wait_until_dead(pid);
}

#[test]
fn a_task() {
    skip_on_reference!("keeps servers");
    let proxy = Proxy::start(&OPTIONS, &asking());
    let mut client = proxy.connect();
    let call = modern(&json!({"name": "work"}));
    let pid = pid_in(&client.request("tools/call", &call));
    nothing_passes(&mut client);
    assert_eq!(modern_pid(&mut client), pid);
    let get = modern(&json!({"taskId": "t"}));
    assert_eq!(pid_in(&client.request("tasks/get", &get)), pid);
    wait_until_dead(pid);
}

#[test]
fn a_client_that_was_never_introduced() {
    skip_on_reference!("keeps servers");
    let scratch = Scratch::new();
    let proxy = Proxy::start(&OPTIONS, &servers::scripted(&scratch));
    let mut client = proxy.connect();
    let pid = client.pid_of_server();
    nothing_passes(&mut client);
    assert_eq!(client.pid_of_server(), pid);
}

#[test]
fn nothing_without_the_option() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    let pid = client.pid_of_server();
    nothing_passes(&mut client);
    assert_eq!(client.pid_of_server(), pid);
}
