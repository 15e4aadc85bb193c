//! A program that panics when it takes over makes way for the one before. It is this test, with a log that panics.

use std::process::Command;

use log::{LevelFilter, Log, Metadata, Record};
use mcp_tcp_proxy::cli;
use mcp_tcp_proxy::config::Configuration;
use mcp_tcp_proxy::serve::{Beginning, TakeOver};
use nix::sys::signal::Signal;

use crate::common::{Client, DEADLINE, Proxy, Scratch, servers, write_program};
use crate::generation;

/// What is in the line of the log at which the next program panics.
const PANIC_AT: &str = "MCP_TCP_PROXY_PANIC_AT";

/// What the next program is told, a word a line.
const WORDS: &str = "MCP_TCP_PROXY_WORDS";

struct Fragile(String);

impl Log for Fragile {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        eprintln!("{text}");
        assert!(!text.contains(&self.0), "it was to panic here");
    }

    fn flush(&self) {}
}

#[test]
#[ignore = "the tests below have a proxy replaced by it"]
fn the_next_program_panics() {
    let Ok(at) = std::env::var(PANIC_AT) else {
        return;
    };
    log::set_boxed_logger(Box::new(Fragile(at))).unwrap();
    log::set_max_level(LevelFilter::Info);
    let words = std::env::var(WORDS).unwrap();
    let parsed = cli::parse(words.lines().map(Into::into).collect());
    let Ok(cli::Command::TakeOver {
        generation,
        options,
        given,
    }) = parsed
    else {
        panic!("{words}");
    };
    let mut left = TakeOver::receive(generation).unwrap();
    let beginning = Beginning::new(given.clone(), None);
    let configuration = left.configuration(*options, &given).unwrap();
    let Configuration {
        options,
        servers,
        text,
        ..
    } = configuration;
    let went_on = left.proxy(&options, &servers, beginning.with_text(text));
    let why = went_on.err().unwrap();
    panic!("{}", left.give_back(&why));
}

/// Has a proxy upgraded to a program that panics at this line.
#[track_caller]
fn assert_one_before_goes_on(at: &str, before: impl FnOnce(&Scratch)) {
    let scratch = Scratch::new();
    let test = std::env::current_exe().unwrap();
    let test = test.display();
    let next = format!(
        "#!/bin/sh\nif [ \"$1\" = rehearse-upgrade ]; then cat > /dev/null; echo able; exit; fi\n\
         {WORDS}=$(printf '%s\\n' \"$@\") {PANIC_AT}='{at}' exec '{test}' --ignored --nocapture \
         --exact panics::the_next_program_panics\n"
    );
    let next = write_program(&scratch.file("next"), next, 0o755);
    let path = scratch.file("socket");
    let unix = format!("unix:{}", path.display());
    let options = ["--upgrade-from", &next, "--listen", &unix];
    let server = servers::removable(&scratch);
    let mut proxy = Proxy::start_listening(&options, &server, |_: &mut Command| {});
    let mut client = Client::connect_unix(&path);
    let pid = client.pid_of_server();
    before(&scratch);
    for round in 1..=2 {
        proxy.signal(Signal::SIGUSR2);
        proxy.wait_for_logs("the one before does: this program has panicked", round);
        assert_eq!(client.pid_of_server(), pid);
        assert_eq!(generation(&proxy), 0);
    }
    let mut new = Client::connect_unix(&path);
    if scratch.file("server").exists() {
        assert_ne!(new.pid_of_server(), pid);
    } else {
        new.send_request("pid", &serde_json::json!({}));
        proxy.wait_for_log("could not be started");
    }
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_program_that_panics_once_all_is_there_makes_way_for_the_one_before() {
    assert_one_before_goes_on(crate::GOES_ON, |_| {});
}

#[test]
fn a_program_that_panics_before_that_makes_way_too() {
    assert_one_before_goes_on("no server can be started for now", |scratch| {
        scratch.remove("server");
    });
}
