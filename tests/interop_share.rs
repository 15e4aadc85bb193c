//! Real servers that many real clients share: the official Python SDK in both roles, the official TypeScript SDKs as
//! clients, and `server-everything`, which is not to be shared.
//!
//! `.ci/interop-setup` installs them below `target/interop`; `MCP_TCP_PROXY_INTEROP` names another place.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use common::client::{modern_meta, result_of};
use common::installed::{everything_server, installed, script, sdk_server};
use common::{Client, Proxy, eventually, eventually_some};
use serde_json::{Value, json};

/// Interpreters that start at the same time on two cores take their while.
const DEADLINE: Duration = Duration::from_secs(90);

/// As many clients at a time.
const CLIENTS: usize = 50;

/// What each client of the script does.
const ROUNDS: u64 = 3;

/// Keeps the tests of this file apart: each starts many interpreters.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A proxy of which the SDK's server is known to be modern. One that says nothing for ten seconds is taken for older, and on
/// a machine that is busy enough this one may need longer.
fn share_sdk_server(options: &[&str]) -> Proxy {
    eventually_some("the server to say in time what it is", 3 * DEADLINE, || {
        let proxy = Proxy::start(options, &sdk_server());
        let list = json!({"_meta": modern_meta()});
        let listed = proxy
            .connect()
            .request_within("tools/list", &list, DEADLINE);
        listed["error"].is_null().then_some(proxy)
    })
}

/// Waits until there are that many servers: others, like the one that was asked for its era, may still be on their way out.
#[track_caller]
fn wait_for_servers(proxy: &Proxy, count: usize) {
    eventually(&format!("{count} servers"), DEADLINE, || {
        proxy.servers().len() == count
    });
}

/// Whose clients are run.
#[derive(Debug, Clone, Copy)]
enum Sdk {
    Python,
    /// Version 2 for modern clients, version 1 for legacy ones.
    TypeScript,
}

impl Sdk {
    fn command(self) -> Command {
        let (program, name) = match self {
            Self::Python => (installed("venv/bin/python"), "sharing_clients.py"),
            Self::TypeScript => ("node".to_owned(), "sharing_clients.mjs"),
        };
        let mut command = Command::new(program);
        command.arg(script(name));
        command.env("MCP_NODE_MODULES", installed("npm/node_modules"));
        command
    }
}

/// Runs this many clients of the SDK, of either era. Returns what they have seen.
fn run_clients(sdk: Sdk, address: SocketAddr, modern: usize, legacy: usize) -> Value {
    let output = sdk
        .command()
        .args([address.ip().to_string(), address.port().to_string()])
        .args([modern.to_string(), legacy.to_string()])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What this many clients see, of which so many are legacy ones: each counts to another number.
#[track_caller]
fn check(seen: &Value, clients: usize, legacy: usize) {
    let (clients, modern) = (clients as u64, (clients - legacy) as u64);
    let steps: u64 = (0..clients).map(|number| 3 + number).sum();
    assert_eq!(seen["answers"], clients * ROUNDS);
    assert_eq!(seen["progress"], steps * ROUNDS);
    assert_eq!(seen["cancelled"], clients * ROUNDS);
    assert_eq!(seen["asked"], modern * ROUNDS);
    assert_eq!(seen["heard"], modern * ROUNDS);
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn fifty_sdk_clients_share_two_sdk_servers() {
    let _alone = one_at_a_time();
    let proxy = share_sdk_server(&["--share", "2"]);
    let seen = run_clients(Sdk::Python, proxy.address(), CLIENTS, 0);
    check(&seen, CLIENTS, 0);
    assert_eq!(seen["versions"], json!(["2026-07-28"]));
    wait_for_servers(&proxy, 2);
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn fifty_clients_of_the_typescript_sdk_share_two_servers() {
    let _alone = one_at_a_time();
    let proxy = share_sdk_server(&["--share", "2"]);
    let seen = run_clients(Sdk::TypeScript, proxy.address(), CLIENTS, 0);
    check(&seen, CLIENTS, 0);
    assert_eq!(seen["versions"], json!(["2026-07-28"]));
    wait_for_servers(&proxy, 2);
}

/// Each era has its own two, and clients of both SDKs are at them at the same time.
#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn legacy_clients_of_the_python_and_typescript_sdks_share_servers_beside_modern_ones() {
    let _alone = one_at_a_time();
    let proxy = share_sdk_server(&["--share", "2", "--share-legacy"]);
    let half = CLIENTS / 2;
    thread::scope(|scope| {
        for sdk in [Sdk::Python, Sdk::TypeScript] {
            let address = proxy.address();
            scope.spawn(move || {
                let seen = run_clients(sdk, address, half - 10, 10);
                check(&seen, half, 10);
                assert_eq!(seen["versions"].as_array().unwrap().len(), 2, "{seen}");
            });
        }
    });
    wait_for_servers(&proxy, 4);
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn sdk_clients_of_both_eras_do_not_disturb_each_other() {
    let _alone = one_at_a_time();
    let proxy = share_sdk_server(&["--share", "2"]);
    let seen = run_clients(Sdk::Python, proxy.address(), CLIENTS - 10, 10);
    check(&seen, CLIENTS, 10);
    assert_eq!(seen["versions"].as_array().unwrap().len(), 2);
    wait_for_servers(&proxy, 2);
}

/// Each of these clients of an older server adds up other numbers.
fn add_up(clients: &mut [Client], before: impl Fn(&mut Client) + Sync) {
    thread::scope(|scope| {
        for (number, client) in clients.iter_mut().enumerate() {
            let before = &before;
            scope.spawn(move || {
                before(client);
                let initialize = json!({
                    "protocolVersion": "2025-06-18",
                    "capabilities": {},
                    "clientInfo": {"name": "test", "version": "1"},
                });
                result_of(client.request_within("initialize", &initialize, DEADLINE));
                client.send_json(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
                let call = json!({"name": "get-sum", "arguments": {"a": number, "b": 100}});
                let sum = result_of(client.request_within("tools/call", &call, DEADLINE));
                assert!(
                    sum.to_string().contains(&(100 + number).to_string()),
                    "{sum}"
                );
            });
        }
    });
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn a_server_that_is_older_serves_each_client_alone() {
    let _alone = one_at_a_time();
    let proxy = Proxy::start(&["--share", "2"], &everything_server());
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.connect()).collect();
    add_up(&mut clients, |client| {
        let discover = json!({"_meta": modern_meta()});
        let refused = client.request_within("server/discover", &discover, DEADLINE);
        assert_eq!(refused["error"]["code"], -32601, "{refused}");
    });
    wait_for_servers(&proxy, 3);
}

#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn a_server_that_is_older_is_shared_if_the_user_wants_that() {
    let _alone = one_at_a_time();
    let proxy = Proxy::start(&["--share", "2", "--share-legacy"], &everything_server());
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.connect()).collect();
    add_up(&mut clients, |_| {});
    wait_for_servers(&proxy, 2);
}

/// What goes wrong with a server that keeps something of a client in memory: the README shows it.
#[test]
#[ignore = "needs the Python and npm servers that .ci/interop-setup installs"]
fn what_a_shared_server_remembers_of_one_client_it_tells_another() {
    let _alone = one_at_a_time();
    let call = |client: &mut Client, name: &str, arguments: Value| {
        let params = json!({"name": name, "arguments": arguments, "_meta": modern_meta()});
        let result = result_of(client.request_within("tools/call", &params, DEADLINE));
        result["structuredContent"]["result"].clone()
    };
    for (options, told) in [
        (&["--share", "1"][..], "the plans of one"),
        (&[], "nothing"),
    ] {
        let proxy = share_sdk_server(options);
        let (mut one, mut other) = (proxy.connect(), proxy.connect());
        call(&mut one, "remember", json!({"text": "the plans of one"}));
        assert_eq!(call(&mut other, "recall", json!({})), told);
    }
}
