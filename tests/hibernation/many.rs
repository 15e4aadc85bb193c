//! Many sessions that cost no process, and shared ones.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::client::{modern_meta, result_of};
use crate::common::processes::{fd_count, rss_kib, sessions_that_fit};
use crate::common::{Client, DEADLINE, Proxy, Scratch, eventually, servers, skip_on_reference};
use crate::{OPTIONS, wait_until_asleep};

const SESSIONS: usize = 200;

#[test]
fn many_idle_sessions_hold_no_process_and_the_next_request_of_each_is_answered() {
    skip_on_reference!("keeps servers");
    let sessions = sessions_that_fit(SESSIONS);
    let proxy = Proxy::start(&OPTIONS, &servers::demo());
    let mut clients: Vec<Client> = (0..sessions).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.initialize();
    }
    wait_until_asleep(&proxy, sessions);
    assert_eq!(proxy.descendants(), []);
    for (number, client) in clients.iter_mut().enumerate() {
        let text = format!("client {number}");
        let result = client.call_tool("echo", &json!({"text": text}));
        assert_eq!(result["content"][0]["text"], text);
        assert!(client.aside.is_empty(), "{:?}", client.aside);
    }
}

#[test]
fn shared_servers_go_with_the_last_idle_session_and_come_with_the_next_request() {
    skip_on_reference!("has nothing shared");
    let options = [&OPTIONS[..], &["--share", "2", "--demo"]].concat();
    let proxy = Proxy::start(&options, &[]);
    let mut clients: Vec<Client> = (0..10).map(|_| proxy.connect()).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            let text = format!("{number} in {round}");
            let arguments = json!({"text": text});
            let call = json!({"name": "echo", "arguments": arguments, "_meta": modern_meta()});
            let result = result_of(client.request("tools/call", &call));
            assert_eq!(result["content"][0]["text"], text);
            assert!(client.aside.is_empty(), "{:?}", client.aside);
        }
        eventually("the servers to be gone", DEADLINE, || {
            proxy.descendants().is_empty()
        });
    }
    proxy.wait_for_logs("hibernates, as no session uses it", 3);
    let log = proxy.log();
    assert!(!log.iter().any(|line| line.contains(" closed: ")));
    // The last one that leaves takes its server with it, too.
    let mut last = clients.remove(0);
    drop(clients);
    let call = json!({"name": "echo", "arguments": {"text": "x"}, "_meta": modern_meta()});
    last.request("tools/call", &call);
    last.close();
    proxy.wait_until_childless();
}

/// A server in Python that keeps nothing, as most are written: some 10 MB, and some 30 ms to start.
const PYTHON: &str = r#"
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    result = {"echo": message.get("params")}
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "p", "version": "1"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"#;

/// Prints what a README can tell.
#[test]
#[ignore = "starts 2000 processes of Python"]
fn a_thousand_sessions_of_a_python_server_hold_no_process() {
    let scratch = Scratch::new();
    scratch.write("server.py", PYTHON);
    let server = ["python3", scratch.file("server.py").to_str().unwrap()].map(str::to_owned);
    let sessions = sessions_that_fit(1000);
    let options = ["--hibernate-after", "5", "--prespawn", "4"];
    let proxy = Proxy::start(&options, &server);
    let mut clients = Vec::new();
    for _ in 0..sessions {
        let mut client = proxy.connect();
        client.initialize();
        clients.push(client);
    }
    eventually("all to hibernate", 10 * DEADLINE, || {
        proxy.servers().len() == 4
    });
    println!(
        "{sessions} idle sessions: {} KiB, {} descriptors, 4 spares",
        rss_kib(proxy.pid()),
        fd_count(proxy.pid())
    );
    let mut times = Vec::new();
    for client in &mut clients {
        // There is a spare for each.
        eventually("the spares", DEADLINE, || proxy.servers().len() >= 4);
        let begin = Instant::now();
        let answer = client.request("tools/call", &json!({"name": "x"}));
        times.push(begin.elapsed());
        assert_eq!(answer["result"]["echo"]["name"], "x", "{answer}");
        assert!(client.aside.is_empty(), "{:?}", client.aside);
        thread::sleep(Duration::from_millis(1));
    }
    times.sort_unstable();
    let of = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "to the answer: median {:?}, 90 % {:?}, most {:?}",
        of(50),
        of(90),
        of(100)
    );
}
