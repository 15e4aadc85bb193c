//! Real host applications: the stdio clients of the official SDKs drive `connect`, a proxy behind it, and real servers
//! behind that.
//!
//! `.ci/interop-setup` installs them below `target/interop`; `MCP_TCP_PROXY_INTEROP` names another place.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use common::connect::{Output, Reserved, write_all};
use common::installed::{everything_server, installed, script, sdk_server};
use common::pki::Pki;
use common::proxy::Log;
use common::{Proxy, eventually_some, processes};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// An interpreter and a server that start on a busy machine take their while.
const DEADLINE: Duration = Duration::from_secs(90);

/// The program that an application is told to start, in front of that address.
fn connect_command(options: &[&str], address: SocketAddr) -> Vec<String> {
    let program = [
        env!("CARGO_BIN_EXE_mcp-tcp-proxy"),
        "connect",
        "--reconnect-delay",
        "0.1",
        "--max-reconnect-attempts",
        "0",
    ];
    let address = address.to_string();
    let mut words = [&program, options].concat();
    words.push(&address);
    words.into_iter().map(str::to_owned).collect()
}

/// A real server, and calls whose answers are known.
struct Server {
    command: Vec<String>,
    /// Its tool that repeats the argument of that name.
    repeats: &'static str,
    /// A call in the course of which three notifications of progress come, and what its answer says.
    progress: (&'static str, Value, &'static str),
    /// A call that takes far longer than a test.
    slow: (&'static str, Value),
}

fn sdk() -> Server {
    Server {
        command: sdk_server(),
        repeats: "text",
        progress: ("count", json!({"steps": 3}), "counted"),
        slow: ("slow", json!({"seconds": 60})),
    }
}

fn everything() -> Server {
    let long = "trigger-long-running-operation";
    Server {
        command: everything_server(),
        repeats: "message",
        progress: (long, json!({"duration": 0.3, "steps": 3}), "completed"),
        slow: (long, json!({"duration": 60, "steps": 2})),
    }
}

/// How an SDK's client is started; the server's command follows.
struct Sdk {
    command: Vec<String>,
    mode: Option<&'static str>,
}

fn python() -> Sdk {
    Sdk {
        command: vec![installed("venv/bin/python"), script("stdio_client.py")],
        mode: Some("legacy"),
    }
}

fn python_finding_out() -> Sdk {
    Sdk {
        mode: Some("auto"),
        ..python()
    }
}

fn typescript() -> Sdk {
    Sdk {
        command: vec!["node".to_owned(), script("stdio_client.mjs")],
        mode: None,
    }
}

/// An application that has `connect` in its list of servers; it is killed when this is dropped.
struct Host {
    child: Child,
    orders: Option<ChildStdin>,
    output: Output<ChildStdout>,
    log: Arc<Log>,
}

impl Host {
    fn start(sdk: &Sdk, address: SocketAddr) -> Self {
        Self::start_with(sdk, &[], address)
    }

    /// With these options of `connect`.
    fn start_with(sdk: &Sdk, options: &[&str], address: SocketAddr) -> Self {
        let mut child = Command::new(&sdk.command[0])
            .args(&sdk.command[1..])
            .args(sdk.mode)
            .args(connect_command(options, address))
            .env(
                "MCP_SDK",
                installed("npm/node_modules/@modelcontextprotocol/sdk"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        Log::collect(&log, child.stderr.take().unwrap());
        Self {
            orders: child.stdin.take(),
            output: Output::new(child.stdout.take().unwrap()),
            child,
            log,
        }
    }

    /// The next thing that it says.
    #[track_caller]
    fn says(&mut self) -> Value {
        let line = self.output.next_line(DEADLINE);
        serde_json::from_str(&line.unwrap_or_else(|| panic!("the client ended"))).unwrap()
    }

    #[track_caller]
    fn order(&mut self, order: &Value) {
        let line = format!("{order}\n");
        write_all(self.orders.as_mut().unwrap(), line.as_bytes());
    }

    #[track_caller]
    fn order_call(&mut self, name: &str, arguments: &Value) {
        self.order(&json!({"do": "call", "name": name, "arguments": arguments}));
    }

    #[track_caller]
    fn is_initialized(&mut self) {
        let said = self.says();
        assert!(said.get("version").is_some(), "{said}");
    }

    /// Has the server repeat something, which has to work.
    #[track_caller]
    fn echo(&mut self, server: &Server, text: &str) {
        self.order_call("echo", &json!({server.repeats: text}));
        let said = self.says();
        let echoed = said["text"].as_str().unwrap_or_else(|| panic!("{said}"));
        assert!(echoed.ends_with(text), "{} bytes came", echoed.len());
    }

    /// Ends it as an application ends: it takes down the server that it has started.
    #[track_caller]
    fn end(&mut self) {
        let pid = self.child.id().try_into().unwrap();
        let connect = processes::children(pid);
        assert_eq!(connect.len(), 1, "{connect:?}");
        self.orders = None;
        let status = eventually_some("the client's end", DEADLINE, || {
            self.child.try_wait().unwrap()
        });
        assert!(status.success(), "{status}");
        assert!(!processes::process_exists(connect[0].pid));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let below = processes::descendants(self.child.id().try_into().unwrap());
        // All fail only when they have gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for process in below {
            processes::send_signal(process.pid, Signal::SIGKILL);
        }
        if thread::panicking() {
            eprintln!("the client's stderr:\n{}", self.log.tail());
        }
    }
}

/// Keeps the tests of this file apart: each starts several interpreters, which two cores have enough to do with.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn initialises_lists_and_calls(sdk: &Sdk, server: &Server) {
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &server.command);
    let mut host = Host::start(sdk, proxy.address());
    host.is_initialized();
    host.order(&json!({"do": "list"}));
    let tools = host.says()["tools"].take();
    assert!(
        tools.as_array().unwrap().contains(&json!("echo")),
        "{tools}"
    );
    host.echo(server, "hello");
    let (name, arguments, answer) = &server.progress;
    host.order_call(name, arguments);
    let said = host.says();
    assert_eq!(said["progress"], 3, "{said}");
    assert!(said["text"].as_str().unwrap().contains(answer), "{said}");
    // The Python SDK's server says a text twice, as content and as structured content.
    host.echo(server, &"ten bytes.".repeat(260 * 1024));
    host.end();
    proxy.wait_until_childless();
}

fn speaks_tls(sdk: &Sdk, server: &Server) {
    let _turn = one_at_a_time();
    let pki = Pki::new();
    let options = pki.serve("server");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let proxy = Proxy::start(&options, &server.command);
    let ca = pki.path("ca.pem");
    let mut host = Host::start_with(sdk, &["--tls-ca", &ca], proxy.address());
    host.is_initialized();
    host.echo(server, "hello");
    host.echo(server, &"ten bytes.".repeat(260 * 1024));
    host.end();
    proxy.wait_until_childless();
}

fn survives_a_new_proxy(sdk: &Sdk, server: &Server) {
    let _turn = one_at_a_time();
    let mut proxy = Proxy::start(&["--debug"], &server.command);
    let address = proxy.address();
    let mut host = Host::start(sdk, address);
    host.is_initialized();
    host.echo(server, "before");
    let (name, arguments) = &server.slow;
    host.order_call(name, arguments);
    // With --debug the proxy logs what passes; the first call was the echo.
    proxy.wait_for_logs("\"tools/call\"", 2);
    proxy.signal(Signal::SIGKILL);
    proxy.wait_exit(DEADLINE);
    drop(proxy);
    let proxy = Proxy::start(&["--port", &address.port().to_string()], &server.command);
    let said = host.says();
    assert_eq!(
        said["error"],
        json!({"code": 502, "reason": "connection_lost"}),
        "{said}"
    );
    host.echo(server, "after");
    host.end();
    proxy.wait_until_childless();
}

fn survives_a_kill_of_the_server(sdk: &Sdk, server: &Server) {
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &server.command);
    let mut host = Host::start(sdk, proxy.address());
    host.is_initialized();
    host.echo(server, "before");
    processes::kill_and_wait(proxy.only_server());
    host.echo(server, "after");
    host.end();
    proxy.wait_until_childless();
}

fn may_be_started_before_the_proxy(sdk: &Sdk, server: &Server) {
    let _turn = one_at_a_time();
    let reserved = Reserved::new();
    let address = reserved.address();
    let mut host = Host::start(sdk, address);
    host.log.wait_for("no connection to", 1, DEADLINE);
    drop(reserved);
    let proxy = Proxy::start(&["--port", &address.port().to_string()], &server.command);
    host.is_initialized();
    host.echo(server, "hello");
    host.end();
    proxy.wait_until_childless();
}

/// The inspector on its command line: one session for one question. Its first major version, as the second does not run
/// on the Node.js of most distributions.
fn inspector_lists_tools(server: &Server) {
    let _turn = one_at_a_time();
    let proxy = Proxy::start(&[], &server.command);
    // It would take options before the address for its own.
    let output = Command::new("node")
        .arg(installed("npm/node_modules/.bin/mcp-inspector"))
        .args(["--cli", env!("CARGO_BIN_EXE_mcp-tcp-proxy"), "connect"])
        .arg(proxy.address().to_string())
        .args(["--method", "tools/list"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tools = listed["tools"].as_array().unwrap();
    assert!(tools.iter().any(|tool| tool["name"] == "echo"), "{listed}");
    proxy.wait_until_childless();
}

#[test]
#[ignore = "needs the Python and npm packages that .ci/interop-setup installs"]
fn the_inspector_lists_the_tools_of_the_sdks_server() {
    inspector_lists_tools(&sdk());
}

#[test]
#[ignore = "needs the Python and npm packages that .ci/interop-setup installs"]
fn the_inspector_lists_the_tools_of_server_everything() {
    inspector_lists_tools(&everything());
}

#[test]
#[ignore = "needs the Python and npm packages that .ci/interop-setup installs"]
fn the_python_sdk_reaches_a_server_over_tls() {
    speaks_tls(&python(), &sdk());
}

macro_rules! tests_of {
    ($($name:ident: $sdk:ident, $server:ident;)+) => {$(
        mod $name {
            tests_of!(@each $sdk, $server, initialises_lists_and_calls, survives_a_new_proxy,
                survives_a_kill_of_the_server, may_be_started_before_the_proxy);
        }
    )+};
    (@each $sdk:ident, $server:ident, $($test:ident),+) => {$(
        #[test]
        #[ignore = "needs the Python and npm packages that .ci/interop-setup installs"]
        fn $test() {
            super::$test(&super::$sdk(), &super::$server());
        }
    )+};
}

tests_of! {
    python_sdk: python, sdk;
    python_everything: python, everything;
    python_finds_out_sdk: python_finding_out, sdk;
    typescript_sdk: typescript, sdk;
    typescript_everything: typescript, everything;
}
