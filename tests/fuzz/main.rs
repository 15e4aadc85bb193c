//! Fuzz tests: hostile inputs made at random from a corpus, and properties over inputs made by rule.
//!
//! Both call the same functions, one for each part of the program, which hold that part against a plain model. See
//! README.md beside this file for how to run more of them, and for coverage-guided fuzzers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod campaign;
mod json;
mod mutator;
mod program;
mod properties;
#[path = "../common/split_mix.rs"]
mod split_mix;

mod targets;

use crate::campaign::Target;

const TARGETS: [Target; 9] = [
    target("configuration", targets::configuration, 2),
    target("entrance", targets::entrance, 2),
    target("envelope", targets::envelope, 1),
    target("http", targets::http, 2),
    target("id", targets::id, 1),
    target("outbox", targets::outbox, 10),
    target("session", targets::session, 2),
    target("splitter", targets::splitter, 10),
    target("wheel", targets::wheel, 1),
];

const fn target(name: &'static str, run: fn(&[u8]), cost: usize) -> Target {
    Target { name, run, cost }
}

fn named(name: &str) -> Target {
    let target = TARGETS.into_iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("there is no target {name:?}"))
}

#[test]
fn configuration() {
    named("configuration").fuzz();
}

#[test]
fn entrance() {
    named("entrance").fuzz();
}

#[test]
fn envelope() {
    named("envelope").fuzz();
}

#[test]
fn http() {
    named("http").fuzz();
}

#[test]
fn id() {
    named("id").fuzz();
}

#[test]
fn outbox() {
    named("outbox").fuzz();
}

#[test]
fn session() {
    named("session").fuzz();
}

#[test]
fn splitter() {
    named("splitter").fuzz();
}

#[test]
fn wheel() {
    named("wheel").fuzz();
}

/// Runs one target on one file, for whoever wants to see why it fails, and for fuzzers that write files.
#[test]
fn one_input() {
    let variable = |name: &str| std::env::var(format!("MCP_TCP_PROXY_FUZZ_{name}")).ok();
    if let (Some(target), Some(path)) = (variable("TARGET"), variable("INPUT")) {
        (named(&target).run)(&std::fs::read(path).unwrap());
    }
}
