//! Many clients, few servers (`--share`).

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "../common/mod.rs"]
mod common;

mod chaos;
mod ends;
mod eras;
mod legacy;
mod losses;
mod replaced;
mod together;

use common::client::modern_meta;
use common::{Client, DEADLINE, Proxy, Scratch, eventually, servers};
use serde_json::{Value, json};

/// A modern request of the tool of the demo server.
fn call(tool: &str, arguments: &Value) -> Value {
    json!({"name": tool, "arguments": arguments, "_meta": modern_meta()})
}

fn text_of(answer: &Value) -> &str {
    let text = answer["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("{answer}"))
}

#[track_caller]
fn echo(client: &mut Client, text: &str) {
    let answer = client.request("tools/call", &call("echo", &json!({"text": text})));
    assert_eq!(text_of(&answer), text);
}

/// Waits until there are that many servers: the one that was asked for its era may still be on its way out.
#[track_caller]
fn wait_for_servers(proxy: &Proxy, count: usize) {
    eventually(&format!("{count} servers"), DEADLINE, || {
        proxy.servers().len() == count
    });
}

/// A modern server that puts what it reads into `got.PID` and answers nothing but what it has to.
fn silent(scratch: &Scratch) -> Vec<String> {
    let directory = scratch.path();
    servers::sh(&format!(
        r#"while IFS= read -r line; do
    case $line in
    *discover*) printf '{{"id":0,"result":{{"supportedVersions":["2026-07-28"]}}}}\n' ;;
    *) printf '%s\n' "$line" >> '{directory}'/got.$$ ;;
    esac
done"#
    ))
}

/// What such servers have read.
fn got(scratch: &Scratch) -> Vec<Value> {
    let files = std::fs::read_dir(scratch.path()).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let text: String = files
        .filter(|path| path.to_string_lossy().contains("got."))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let lines = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
