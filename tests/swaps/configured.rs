//! Many servers: each moves its sessions, whatever becomes of the others.

use super::*;
use serde_json::json;

use crate::common::TempFolder;

#[test]
fn a_server_that_is_not_fit_keeps_no_other_from_being_replaced() {
    let (good, bad) = (Scratch::new(), Scratch::new());
    let folder = TempFolder::for_sockets();
    let path = folder.path().join("servers.json");
    let served = |scratch: &Scratch| {
        let command = servers::legacy(scratch);
        let args: Vec<String> = command[1..]
            .iter()
            .map(|it| it.replace("${", "$${"))
            .collect();
        json!({"command": command[0], "args": args})
    };
    let config = json!({"listen": "127.0.0.1:0", "mcpServers": {"good": served(&good), "bad": served(&bad)}});
    std::fs::write(&path, config.to_string()).unwrap();
    let proxy = Proxy::start_with_config(&["--config", path.to_str().unwrap()], |_| {});
    let opened = |name: &str| {
        let mut client = proxy.connect();
        client.send_json(&json!({"type": "handshake", "server": name}));
        client.initialize();
        client
    };
    let mut at_good = opened("good");
    let mut at_bad = opened("bad");
    let (first_good, first_bad) = (at_good.pid_of_server(), at_bad.pid_of_server());
    bad.write("on-start", "exit 3");
    proxy.signal(Signal::SIGUSR1);
    let line = proxy.wait_for_log(NOT_FIT);
    assert!(line.contains("the servers of bad "), "{line}");
    proxy.wait_for_log("the servers of good are replaced: 1 session");
    assert_eq!(at_bad.pid_of_server(), first_bad);
    assert_ne!(at_good.pid_of_server(), first_good);
}
