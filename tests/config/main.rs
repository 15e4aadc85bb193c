//! Configurations: many servers behind one proxy, each its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod checking;
mod faults;
mod options;
mod reload;
mod routing;
mod upgrades;

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::common::proxy::command_under_test;
use crate::common::{Client, Proxy, TempFolder};

/// A configuration in a folder of its own.
pub(crate) struct Config(TempFolder);

impl Config {
    pub(crate) fn new(text: &str) -> Self {
        let config = Self(TempFolder::for_sockets());
        config.write(text);
        config
    }

    /// One of these servers, and of what else stands beside them.
    pub(crate) fn of(top: &Value, servers: &Value) -> Self {
        let mut all = top.clone();
        all["mcpServers"] = servers.clone();
        Self::new(&all.to_string())
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    pub(crate) fn path(&self) -> String {
        self.file("servers.json")
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts the proxy with it.
    pub(crate) fn start(&self, options: &[&str]) -> Proxy {
        self.start_configured(options, |_| {})
    }

    pub(crate) fn start_configured(
        &self,
        options: &[&str],
        configure: impl FnOnce(&mut Command),
    ) -> Proxy {
        let path = self.path();
        let options = [&["--config", &path], options].concat();
        Proxy::start_with_config(&options, configure)
    }

    /// What `check` says of it.
    pub(crate) fn check(&self) -> Output {
        let mut command = command_under_test();
        command.args(["check", &self.path()]).output().unwrap()
    }
}

/// A server that runs this command.
pub(crate) fn served(command: &[String]) -> Value {
    let words = command.iter().map(|word| word.replace("${", "$${"));
    let words: Vec<String> = words.collect();
    json!({"command": words[0], "args": words[1..]})
}

/// A server that answers each line with a word, as a request of the id 1.
pub(crate) fn called(name: &str) -> Value {
    let script = format!(
        r#"while read -r line; do echo "{{\"id\":1,\"result\":{{}},\"called\":\"{name}\"}}"; done"#
    );
    served(&common::servers::sh(&script))
}

/// A common address that the system chooses.
pub(crate) fn anywhere() -> Value {
    json!({"listen": "127.0.0.1:0"})
}

/// Where a server alone is served.
#[track_caller]
pub(crate) fn address_of(proxy: &Proxy, name: &str) -> SocketAddr {
    let line = proxy.wait_for_log(&format!(" for {name}"));
    let (_, rest) = line.split_once("listening on ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// A client whose first line asks for a server.
pub(crate) fn asking(address: SocketAddr, name: &str) -> Client {
    let mut client = Client::connect(address);
    client.send_line(&json!({"type": "handshake", "server": name}).to_string());
    client
}

/// Which of [`called`] answers a client.
#[track_caller]
pub(crate) fn who_answers(client: &mut Client) -> String {
    client.send_line(r#"{"jsonrpc":"2.0","id":1,"method":"who"}"#);
    let answer = loop {
        let answer = client.recv_json();
        // Of a session that is long on a slow machine, the proxy tells that its server is there.
        if answer["type"] != "heartbeat_response" {
            break answer;
        }
    };
    answer["called"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
        .to_owned()
}

/// The error that a client is told, after which its connection ends.
#[track_caller]
pub(crate) fn refused(mut client: Client) -> (i64, String) {
    let lines = client.read_to_end();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let answer: Value = serde_json::from_str(&lines[0]).unwrap();
    let error = &answer["error"];
    assert_eq!(error["data"]["source"], "mcp-tcp-proxy", "{answer}");
    (
        error["code"].as_i64().unwrap(),
        error["data"]["reason"].as_str().unwrap().to_owned(),
    )
}
