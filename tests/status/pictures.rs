//! Makes the pictures of the page that the README shows.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::browser::Browser;
use crate::common::processes::send_signal;
use crate::common::{
    Client, DEADLINE, Finally, Proxy, TempFolder, eventually, servers, write_program,
};
use crate::{json, status_address};

/// As long as the charts go back.
const TIME: Duration = Duration::from_mins(10);

const USERS: [(&str, &str); 7] = [
    ("ann", "git"),
    ("ben", "git"),
    ("ann", "files"),
    ("cleo", "files"),
    ("dan", "search"),
    ("eve", "search"),
    ("eve", "git"),
];

/// What users of whom each asks now and then for something that takes a while.
fn works(mut client: Client, number: u32, start: Instant, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let share = (f64::from(number)
            + start.elapsed().as_secs_f64() / (60.0 + f64::from(7 * number)))
        .sin()
        .abs();
        let call = if number.is_multiple_of(3) {
            json!({"name": "sleep", "arguments": {"seconds": 0.02 + 0.2 * share}})
        } else {
            json!({"name": "echo", "arguments": {"text": "x".repeat(200)}})
        };
        client.request_within("tools/call", &call, 3 * DEADLINE);
        thread::sleep(Duration::from_secs_f64(0.02 + 0.4 * share));
    }
}

fn configuration(folder: &Path) -> String {
    let users: Vec<String> = ["ann", "ben", "cleo", "dan", "eve"]
        .map(|name| format!("{name} {}\n", token(name)))
        .to_vec();
    let tokens = folder.join("tokens");
    write_program(&tokens, users.concat(), 0o600);
    let mut all = serde_json::Map::new();
    for name in ["git", "files", "search"] {
        let program = folder.join(format!("mcp-server-{name}"));
        let text = format!("#!/bin/sh\nexec {}\n", servers::demo().join(" "));
        write_program(&program, text, 0o755);
        let entry = json!({"command": format!("mcp-server-{name}"), "prespawn": u32::from(name == "search")});
        all.insert(name.to_owned(), entry);
    }
    let text = json!({"listen": ["127.0.0.1:9000"], "tokenFile": tokens, "mcpServers": all});
    let path = folder.join("config.json");
    fs::write(&path, text.to_string()).unwrap();
    path.display().to_string()
}

fn token(name: &str) -> String {
    format!("{name}-{}", "0123456789abcdef".repeat(2))
}

#[test]
#[ignore = "needs chromium and ten minutes, and writes docs/status-*.png"]
fn the_pictures_of_the_readme_are_made() {
    let folder = TempFolder::new();
    let config = configuration(folder.path());
    let options = ["--config", &config, "--status", "127.0.0.1:0"];
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let proxy = Proxy::start_with_config(&options, |command| {
        command.env("PATH", path);
    });
    let asked = status_address(&proxy);
    let start = Instant::now();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = Finally(&is_over);
        for (number, (user, server)) in (0..).zip(USERS) {
            let mut client = proxy.connect();
            let hello = json!({"type": "handshake", "token": token(user), "server": server});
            client.send_json(&hello);
            client.initialize();
            let is_over = &is_over;
            scope.spawn(move || works(client, number, start, is_over));
        }
        let left = |share: u32| (TIME * share / 4).saturating_sub(start.elapsed());
        thread::sleep(left(2));
        proxy.signal(Signal::SIGUSR1);
        thread::sleep(left(3));
        send_signal(proxy.servers()[1], Signal::SIGKILL);
        thread::sleep(left(4));
        let mut browser = Browser::start();
        for (name, is_dark) in [("light", false), ("dark", true)] {
            browser.resize(1300, 800);
            browser.prefers_dark(is_dark);
            browser.open(&format!("http://{asked}/"));
            browser
                .eventually("document.getElementById('shown').textContent === '7 shown, 7 open'");
            let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
            fs::write(docs.join(format!("status-{name}.png")), browser.picture()).unwrap();
        }
    });
    eventually("the sessions to be moved", DEADLINE, || {
        json(asked, "/status.json")["servers"][0]["swaps"]["succeeded"] != 0
    });
}
