//! Real MCP servers and a real client, driven through the running proxy over TCP: the official Python SDK in both roles,
//! `mcp-server-time`, and `@modelcontextprotocol/server-everything`.
//!
//! `.ci/interop-setup` installs them below `target/interop`; `MCP_TCP_PROXY_INTEROP` names another place.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use common::client::{modern_meta, result_of};
use common::installed::{everything_server, installed, sdk_server};
use common::{Client, Proxy, eventually, processes, skip_on_reference};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Twenty interpreters that start at the same time on two cores take their while.
const DEADLINE: Duration = Duration::from_secs(90);

const RESTART_NOTICE: &str = "$/mcp/serverRestarted";

/// A server, and a call whose answer is known.
struct RealServer {
    command: Vec<String>,
    tool: &'static str,
    arguments: Value,
    /// What stands in the text of the answer.
    answer: &'static str,
}

impl RealServer {
    #[track_caller]
    fn list_tools(&self, client: &mut Client) {
        let tools =
            result_of(client.request_within("tools/list", &json!({}), DEADLINE))["tools"].take();
        let listed = tools
            .as_array()
            .unwrap()
            .iter()
            .any(|tool| tool["name"] == self.tool);
        assert!(listed, "{} is missing in {tools}", self.tool);
    }

    #[track_caller]
    fn call(&self, client: &mut Client) {
        self.call_with(
            client,
            &json!({"name": self.tool, "arguments": self.arguments}),
        );
    }

    #[track_caller]
    fn call_modern(&self, client: &mut Client) {
        let params =
            json!({"name": self.tool, "arguments": self.arguments, "_meta": modern_meta()});
        self.call_with(client, &params);
    }

    #[track_caller]
    fn call_with(&self, client: &mut Client, params: &Value) {
        let result = result_of(client.request_within("tools/call", params, DEADLINE));
        assert!(
            text_of(&result).contains(self.answer),
            "{} is missing in {result}",
            self.answer
        );
    }
}

/// A server on the Python SDK, in this repository.
fn sdk() -> RealServer {
    RealServer {
        command: sdk_server(),
        tool: "add",
        arguments: json!({"a": 19, "b": 23}),
        answer: "42",
    }
}

fn time() -> RealServer {
    RealServer {
        command: vec![
            installed("venv/bin/mcp-server-time"),
            "--local-timezone".to_owned(),
            "UTC".to_owned(),
        ],
        tool: "convert_time",
        arguments: json!({"source_timezone": "UTC", "time": "16:30", "target_timezone": "Asia/Tokyo"}),
        answer: "+9.0h",
    }
}

fn everything() -> RealServer {
    RealServer {
        command: everything_server(),
        tool: "get-sum",
        arguments: json!({"a": 19, "b": 23}),
        answer: "42",
    }
}

/// Keeps the tests of this file apart: each starts interpreters by the dozen, and a restarted server should find a
/// processor to answer on before the proxy gives it up.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text_of(result: &Value) -> String {
    let content = result["content"].as_array().unwrap();
    content
        .iter()
        .filter_map(|part| part["text"].as_str())
        .collect()
}

/// The legacy handshake.
#[track_caller]
fn initialize(client: &mut Client) {
    let result = client.initialize_with(&json!({}), DEADLINE);
    assert_eq!(result["protocolVersion"], common::client::LEGACY_VERSION);
}

#[track_caller]
fn wait_for_restart_notice(client: &mut Client) {
    let notice = client.message_of(RESTART_NOTICE);
    assert!(notice.get("id").is_none(), "{notice}");
    assert_eq!(notice["params"]["reason"], "process_terminated");
    assert!(notice["params"]["timestamp"].is_number(), "{notice}");
}

// What each server has to pass.

fn initialises_lists_and_calls(server: &RealServer) {
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &server.command);
    let mut client = proxy.connect();
    initialize(&mut client);
    server.list_tools(&mut client);
    server.call(&mut client);
    client.close();
    proxy.wait_until_childless();
}

fn serves_twenty_clients_at_once(server: &RealServer) {
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &server.command);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let mut client = proxy.connect();
                initialize(&mut client);
                server.list_tools(&mut client);
                server.call(&mut client);
            });
        }
    });
    proxy.wait_until_childless();
}

fn survives_a_kill_when_the_client_initialises_again(server: &RealServer) {
    skip_on_reference!("closes the session instead of restarting the server");
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &server.command);
    let mut client = proxy.connect();
    initialize(&mut client);
    server.call(&mut client);
    processes::kill_and_wait(proxy.only_server());
    wait_for_restart_notice(&mut client);
    initialize(&mut client);
    server.list_tools(&mut client);
    server.call(&mut client);
}

fn survives_a_kill_unnoticed_by_the_client(server: &RealServer) {
    skip_on_reference!("closes the session instead of restarting the server");
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &server.command);
    let mut client = proxy.connect();
    initialize(&mut client);
    server.call(&mut client);
    processes::kill_and_wait(proxy.only_server());
    // No new handshake by the client: the proxy has to repeat the first one.
    server.call(&mut client);
    wait_for_restart_notice(&mut client);
    server.list_tools(&mut client);
}

macro_rules! tests_of {
    ($($server:ident: $($test:ident),+;)+) => {$(
        mod $server {
            $(
                #[test]
                #[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
                fn $test() {
                    super::$test(&super::$server());
                }
            )+
        }
    )+};
}

tests_of! {
    sdk: initialises_lists_and_calls, serves_twenty_clients_at_once,
        survives_a_kill_when_the_client_initialises_again, survives_a_kill_unnoticed_by_the_client,
        answers_modern_requests, survives_a_kill_in_the_modern_era;
    time: initialises_lists_and_calls, serves_twenty_clients_at_once,
        survives_a_kill_when_the_client_initialises_again, survives_a_kill_unnoticed_by_the_client,
        answers_modern_requests, survives_a_kill_in_the_modern_era;
    everything: initialises_lists_and_calls, serves_twenty_clients_at_once,
        survives_a_kill_when_the_client_initialises_again, survives_a_kill_unnoticed_by_the_client;
}

// What only some can: the modern era, without a handshake.

fn answers_modern_requests(server: &RealServer) {
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &server.command);
    let mut client = proxy.connect();
    discover(&mut client);
    server.call_modern(&mut client);
}

fn survives_a_kill_in_the_modern_era(server: &RealServer) {
    skip_on_reference!("closes the session instead of restarting the server");
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &server.command);
    let mut client = proxy.connect();
    // Only a modern client that has announced itself is told of restarts.
    client.send_json(&json!({"type": "handshake", "supports_heartbeat": true}));
    discover(&mut client);
    server.call_modern(&mut client);
    processes::kill_and_wait(proxy.only_server());
    server.call_modern(&mut client);
    wait_for_restart_notice(&mut client);
}

#[track_caller]
fn discover(client: &mut Client) {
    let answer = client.request_within(
        "server/discover",
        &json!({"_meta": modern_meta()}),
        DEADLINE,
    );
    let versions = result_of(answer)["supportedVersions"].take();
    assert!(
        versions
            .as_array()
            .unwrap()
            .contains(&json!(common::client::MODERN_VERSION)),
        "{versions}"
    );
}

// Single traits of single servers.

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn a_call_that_the_server_dies_on_is_answered_with_an_error() {
    skip_on_reference!("forgets what is in flight");
    let _turn = one_at_a_time();
    let server = sdk();
    let proxy = Proxy::start(&[], &server.command);
    let mut client = proxy.connect();
    initialize(&mut client);
    let id = client.send_request(
        "tools/call",
        &json!({"name": "slow", "arguments": {"seconds": 60}}),
    );
    // The answer to a later request says that the server has read the slow one, too.
    server.call(&mut client);
    processes::kill_and_wait(proxy.only_server());
    let error = client.answer_to(id)["error"].take();
    assert_eq!(error["code"], 502, "{error}");
    assert_eq!(error["data"]["source"], "mcp-tcp-proxy", "{error}");
    assert_eq!(error["data"]["reason"], "process_terminated", "{error}");
    assert_eq!(error["data"]["status"], "signal 9 (SIGKILL)", "{error}");
    server.call(&mut client);
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn a_client_that_ends_its_side_gets_the_answer_of_a_running_call() {
    skip_on_reference!("closes the session at once");
    let _turn = one_at_a_time();
    let server = sdk();
    let proxy = Proxy::start(&[], &server.command);
    let mut client = proxy.connect();
    initialize(&mut client);
    let id = client.send_request(
        "tools/call",
        &json!({"name": "slow", "arguments": {"seconds": 1}}),
    );
    client.shutdown_write();
    assert_eq!(text_of(&result_of(client.answer_to(id))), "done");
    client.read_to_end();
    proxy.wait_until_childless();
}

/// The capability to answer the server's wish for a completion, which `server-everything` has a tool for.
fn sampling() -> Value {
    json!({"sampling": {}})
}

/// Has the server ask the client for a completion, in the course of a call of the client's.
#[track_caller]
fn be_asked_for_a_sample(client: &mut Client) {
    let arguments = json!({"prompt": "What is six times seven?", "maxTokens": 5});
    let id = client.send_request(
        "tools/call",
        &json!({"name": "trigger-sampling-request", "arguments": arguments}),
    );
    let wish = client.message_of("sampling/createMessage");
    let content = json!({"type": "text", "text": "forty-two, says the client"});
    let sample = json!({"model": "none", "role": "assistant", "content": content});
    client.send_json(&json!({"jsonrpc": "2.0", "id": wish["id"], "result": sample}));
    let text = text_of(&result_of(client.answer_to(id)));
    assert!(text.contains("forty-two, says the client"), "{text}");
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn a_server_can_ask_the_client() {
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &everything().command);
    let mut client = proxy.connect();
    client.initialize_with(&sampling(), DEADLINE);
    be_asked_for_a_sample(&mut client);
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn a_restarted_server_knows_what_the_client_is_capable_of() {
    skip_on_reference!("closes the session instead of restarting the server");
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &everything().command);
    let mut client = proxy.connect();
    client.initialize_with(&sampling(), DEADLINE);
    be_asked_for_a_sample(&mut client);
    processes::kill_and_wait(proxy.only_server());
    // The tool is there only after `notifications/initialized` of a client that can give samples.
    be_asked_for_a_sample(&mut client);
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn a_killed_wrapper_leaves_no_server_behind() {
    skip_on_reference!(
        "closes the session instead of restarting the server, and leaves what its wrapper started"
    );
    let _turn = one_at_a_time();
    let directory = installed("npm");
    // npm starts a shell, and that one starts the server: three processes deep.
    let words = [
        "npm",
        "exec",
        "--offline",
        "--prefix",
        &directory,
        "--",
        "mcp-server-everything",
    ];
    let proxy = Proxy::start(&[], &words.map(str::to_owned));
    let mut client = proxy.connect();
    let server = everything();
    initialize(&mut client);
    server.call(&mut client);
    let before = proxy.descendants();
    assert!(
        before.len() > 1,
        "npm has become the server itself: {before:?}"
    );
    processes::send_signal(proxy.only_server(), Signal::SIGKILL);
    wait_for_restart_notice(&mut client);
    server.call(&mut client);
    eventually(
        "the processes of the first server to be gone",
        DEADLINE,
        || {
            let now = proxy.descendants();
            !before
                .iter()
                .any(|old| now.iter().any(|process| process.pid == old.pid))
                && !before.iter().any(|old| processes::process_exists(old.pid))
        },
    );
    client.close();
    proxy.wait_until_childless();
}

// The SDK's client.

fn run_sdk_client(mode: &str) -> Value {
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &sdk().command);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/sdk_client.py");
    let address = proxy.address();
    let output = Command::new(installed("venv/bin/python"))
        .arg(script)
        .args([
            address.ip().to_string(),
            address.port().to_string(),
            mode.to_owned(),
        ])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    proxy.wait_until_childless();
    serde_json::from_str(&stdout).unwrap()
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn the_sdk_client_works_with_the_handshake() {
    let seen = run_sdk_client("legacy");
    assert_eq!(
        seen,
        json!({"tools": ["echo", "add", "slow", "count", "ask", "touch", "remember", "recall"], "sum": 42, "version": "2025-11-25"})
    );
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn the_sdk_client_works_without_a_handshake() {
    let seen = run_sdk_client("auto");
    assert_eq!(
        seen,
        json!({"tools": ["echo", "add", "slow", "count", "ask", "touch", "remember", "recall"], "sum": 42, "version": "2026-07-28"})
    );
}
