//! A proxy with sessions of all kinds, each in the middle of something.

use std::process::Command;

use serde_json::json;

use crate::common::client::modern_meta;
use crate::common::{Client, Proxy, Scratch, servers, write_program};

const TOKEN: &str = "a-long-enough-secret";

/// Sends lines back, but for those with a word in them.
const ECHO: &str = "while read -r line; do case $line in *wait*) ;; *) echo \"$line\";; esac; done";

/// Begins a line at once, and does not go when it is told to.
const STUBBORN: &str = "trap '' TERM; printf '{\"half\":'; echo half >&2; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done";

/// Answers a handshake, and crashes of what follows. Those that are started later do not answer.
const FRAGILE: &str = r#"if [ -e again ]; then while read -r line; do :; done; fi
touch again
read -r initialize
echo '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"x","version":"1"}}}'
read -r initialized
read -r more
exit 1"#;

/// It, and its clients.
pub(crate) struct Scene {
    pub(crate) proxy: Proxy,
    clients: Vec<Client>,
}

impl Scene {
    /// This program is to go on.
    pub(crate) fn new(scratch: &Scratch, next: &str) -> Self {
        write_configuration(scratch);
        let file = |name: &str| scratch.file(name).to_str().unwrap().to_owned();
        let options = ["--config", &file("servers.json"), "--upgrade-from", next];
        let options = [&options[..], &["--status", "127.0.0.1:0"]].concat();
        let proxy = Proxy::start_with_config(&options, |command: &mut Command| {
            // What servers get stands in the state.
            command.env_clear();
            command
                .env("PATH", "/usr/bin:/bin")
                .current_dir(scratch.path());
        });
        let mut scene = Self {
            proxy,
            clients: Vec::new(),
        };
        scene.refuse_one();
        scene.lose_and_keep();
        scene.share();
        scene.crash();
        scene.hibernate();
        scene.stop();
        scene.begin_halves();
        scene
    }

    /// A client of this server.
    fn client(&self, server: &str) -> Client {
        let mut client = self.proxy.connect();
        client.send_json(&json!({"type": "handshake", "token": TOKEN, "server": server}));
        client
    }

    /// A client of this server whose session is kept.
    fn kept(&self, server: &str, digit: &str) -> Client {
        let mut client = self.proxy.connect();
        let resume = json!({"version": 1, "session": digit.repeat(32), "heartbeat": 30});
        let first =
            json!({"type": "handshake", "token": TOKEN, "server": server, "resume": resume});
        client.send_json(&first);
        assert_eq!(client.recv_json()["type"], "resumable");
        client
    }

    fn refuse_one(&self) {
        let mut stranger = self.proxy.connect();
        stranger.send_json(&json!({"type": "handshake", "token": "not-the-secret-at-all"}));
        stranger.read_to_end();
    }

    /// Requests in flight over connections that are there, lost, and given up.
    fn lose_and_keep(&mut self) {
        let request = |id: u64, method: &str| json!({"jsonrpc": "2.0", "id": id, "method": method});
        let mut sessions = ["1", "2", "3"].map(|digit| self.kept("one", digit));
        for client in &mut sessions {
            client.send_json(&request(1, "m"));
            client.recv_json();
            client.send_json(&request(2, "wait"));
        }
        let [live, lost, mut gone] = sessions;
        drop(lost);
        gone.send_line(r#"{"type":"heartbeat","bye":true}"#);
        self.proxy.wait_for_log("lost its connection");
        drop(gone);
        // What is over is remembered, too.
        let mut over = self.kept("one", "5");
        over.send_json(&json!({"jsonrpc": "2.0", "method": "m"}));
        over.recv_json();
        over.send_line(r#"{"type":"heartbeat","bye":true}"#);
        over.close();
        self.proxy.wait_for_log("] closed: ");
        // It has said nothing, and has no server.
        self.clients.extend([live, self.proxy.connect()]);
        let lazy = self.client("lazy");
        self.clients.push(lazy);
    }

    fn share(&mut self) {
        let mut legacy = self.client("shared");
        legacy.initialize();
        legacy.request("resources/subscribe", &json!({"uri": "demo://note"}));
        let mut modern = self.client("shared");
        let wanted = json!({"resourceSubscriptions": ["demo://note"]});
        let params = json!({"_meta": modern_meta(), "notifications": wanted});
        modern.send_request("subscriptions/listen", &params);
        modern.message_of("notifications/subscriptions/acknowledged");
        let mut params = json!({"name": "sleep", "arguments": {"seconds": 1000}});
        params["_meta"] = modern_meta();
        params["_meta"]["progressToken"] = json!("how far");
        modern.send_request("tools/call", &params);
        modern.message_of("notifications/progress");
        self.clients.extend([legacy, modern]);
    }

    /// The server of a session is started again, and its handshake replayed.
    fn crash(&mut self) {
        let mut client = self.client("fragile");
        client.initialize();
        client.notify("notifications/x", &json!({}));
        self.proxy.wait_for_log("goes on with a new server");
        client.send_request("held", &json!({"why": "the handshake is replayed"}));
        self.clients.push(client);
    }

    fn hibernate(&mut self) {
        let mut client = self.client("sleepy");
        client.initialize();
        self.proxy.wait_for_log("] hibernates, ");
        self.clients.push(client);
    }

    /// A server is on its way out.
    fn stop(&self) {
        let mut client = self.client("stubborn");
        client.send_raw(b"[1]\n");
        self.proxy.wait_for_log("half");
        client.close();
        self.proxy.wait_for_log("SIGTERM to its process group");
    }

    /// Both sides are in the middle of a line.
    fn begin_halves(&mut self) {
        let mut client = self.kept("stubborn", "4");
        client.send_raw(b"{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n{\"jsonrpc\":");
        self.proxy.wait_for_logs("half", 2);
        self.clients.push(client);
    }
}

fn write_configuration(scratch: &Scratch) {
    std::fs::write(scratch.file("words.env"), "WORD=first\n").unwrap();
    write_program(&scratch.file("tokens"), format!("ann {TOKEN}\n"), 0o600);
    let demo = scratch.file("program");
    std::os::unix::fs::symlink(&servers::demo()[0], &demo).unwrap();
    let sh = |script: &str| json!({"command": "/bin/sh", "args": ["-c", script]});
    let mut one = sh(ECHO);
    one["envFile"] = json!("words.env");
    one["prespawn"] = json!(1);
    let demo = json!({"command": demo, "args": ["demo-server"]});
    let mut shared = demo.clone();
    shared["share"] = json!(2);
    shared["shareLegacy"] = json!(true);
    let mut sleepy = demo;
    sleepy["hibernateAfter"] = json!(0.1);

    let servers = json!({
        "one": one,
        "lazy": {"command": "cat", "spawn": "lazy", "maxSessions": 3},
        "shared": shared,
        "sleepy": sleepy,
        "fragile": sh(FRAGILE),
        "stubborn": sh(STUBBORN),
    });
    let listen = ["127.0.0.1:0", "unix:socket"];
    let config = json!({"listen": listen, "tokenFile": "tokens", "mcpServers": servers});
    scratch.write("servers.json", &config.to_string());
}
