//! What a restarted server is told although the client says nothing: the handshake, and what a legacy client had set up.

use crate::common::connect::INITIALIZED;
use crate::common::{Client, Connect, Proxy, Scratch, processes, servers};
use serde_json::{Value, json};

/// A server that insists on the handshake, and agrees to whatever is set up.
fn agreeing(scratch: &Scratch) -> Vec<String> {
    let mut command = servers::legacy(scratch);
    let script = command.pop().unwrap();
    let script = script.replace(
        r#"*'"method":"pid"'*"#,
        r#"*'"method":"resources/'* | *'"method":"logging/'* | *'"method":"pid"'*"#,
    );
    assert!(script.contains("resources/"), "the script has changed");
    command.push(script);
    command
}

/// The methods and parameters of what a server has got, without ids.
fn told(lines: &[String]) -> Vec<(Value, Value)> {
    let json = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    json.map(|line: Value| (line["method"].clone(), line["params"].clone()))
        .collect()
}

#[test]
fn behind_connect_a_crash_loses_neither_subscriptions_nor_the_log_level() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &agreeing(&scratch));
    let mut connect = Connect::start(&[], proxy.address());
    connect.initialize();
    connect.send_line(INITIALIZED);
    for (id, method, params) in [
        (1, "resources/subscribe", json!({"uri": "a:/b"})),
        (2, "logging/setLevel", json!({"level": "debug"})),
    ] {
        assert_eq!(connect.request(id, method, &params)["id"], id);
    }
    let server = scratch.wait_for_server(1);
    processes::kill_and_wait(server);
    // The application says nothing.
    let next = scratch.wait_for_server(2);
    let got = told(&scratch.wait_for_lines(next, 4));
    assert_eq!(got[0].0, "initialize");
    assert_eq!(got[1].0, "notifications/initialized");
    assert_eq!(
        got[2],
        (json!("resources/subscribe"), json!({"uri": "a:/b"}))
    );
    assert_eq!(
        got[3],
        (json!("logging/setLevel"), json!({"level": "debug"}))
    );
    connect.wait_for_log("the server was restarted");
    // It gets no answers to what it has not asked.
    let answer = connect.request(3, "pid", &json!({}));
    assert_eq!(answer["result"]["pid"], next, "{answer}");
}

/// Initializes a client, and has its server replaced. Returns the number of the new one.
fn lose_server(client: &mut Client, scratch: &Scratch) -> i32 {
    client.send_line(
        r#"{"jsonrpc":"2.0","id":"i","method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#,
    );
    client.recv_line();
    client.send_line(INITIALIZED);
    processes::kill_and_wait(client.pid_of_server());
    scratch.wait_for_server(2)
}

#[test]
fn a_client_that_does_not_ask_for_it_has_two_seconds_to_begin_anew() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::legacy(&scratch));
    let mut client = proxy.connect();
    scratch.write("on-initialize", "date +%s.%N > \"$dir/at.$$\"; initialized");
    let next = lose_server(&mut client, &scratch);
    let notice = client.recv_json();
    assert_eq!(notice["method"], "$/mcp/serverRestarted");
    let got = told(&scratch.wait_for_lines(next, 2));
    assert_eq!(got[0].0, "initialize");
    assert_eq!(got[1].0, "notifications/initialized");
    let told_at = notice["params"]["timestamp"].as_f64().unwrap();
    let at = scratch.read(&format!("at.{next}"));
    let time = at.trim().parse::<f64>().unwrap() - told_at;
    // A hundredth for clocks that are being adjusted.
    assert!(time > 1.99, "{time} s");
}

#[test]
fn nothing_is_replayed_if_that_is_not_wanted() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--no-replay"], &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.send_line(r#"{"type":"handshake","replay":"eager"}"#);
    let next = lose_server(&mut client, &scratch);
    assert_eq!(client.recv_json()["method"], "$/mcp/serverRestarted");
    let id = client.send_request("pid", &json!({}));
    assert_eq!(client.answer_to(id)["error"]["code"], -32002);
    assert_eq!(scratch.methods(next), ["pid"]);
}
