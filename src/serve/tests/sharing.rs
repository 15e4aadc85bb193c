//! Servers that many sessions share, at the ends: of a session, of a server, and of the program.

use std::time::Duration;

use super::wire::TestEnd;
use super::world::{Choice, World};
use crate::session::Spawn;
use crate::share;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn request(id: u32) -> String {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"x\",\"_meta\":{meta}}}}}\n"
    )
}

fn choice() -> Choice {
    let mut choice = Choice::default();
    choice.plan.settings.spawn = Spawn::Lazy;
    choice.plan.share = Some(limits());
    choice
}

pub(super) fn limits() -> share::Limits {
    share::Limits {
        processes: 1,
        in_flight: 8,
        max_restarts: 5,
        restarts: true,
        max_message_bytes: 1_000_000,
        legacy: false,
        handshake_time: 10 * SECOND,
        max_age: None,
        max_requests: None,
        hibernate_after: None,
    }
}

/// The number by which a request went to a shared server.
fn number(line: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    value["id"].as_u64().unwrap()
}

/// A world in which a client has asked a shared server, which is the second that was started: the first one was asked what it
/// speaks. Returns the number of the request, too.
fn asked(choice: Choice) -> (World, TestEnd, u64) {
    let mut world = World::of(choice);
    let client = world.comes();
    client.says(&request(7));
    world.run();
    let probe = world.program(0);
    assert!(probe.stdin.got().contains("server/discover"));
    probe
        .stdout
        .says("{\"id\":0,\"result\":{\"supportedVersions\":[\"2026-07-28\"]}}\n");
    world.run();
    world.servers_obey();
    assert_eq!(world.started(), 2);
    let number = number(&world.program(1).stdin.got());
    (world, client, number)
}

fn answer(world: &mut World, at: usize, number: u64) {
    let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{number},\"result\":{{}}}}\n");
    world.program(at).stdout.says(&line);
    world.run();
}

/// The same to what it was asked last.
fn answer_next(world: &mut World, at: usize) {
    let number = number(&world.program(at).stdin.got());
    answer(world, at, number);
}

#[test]
fn a_client_gets_the_answer_of_a_shared_server_under_its_own_id() {
    let (mut world, client, number) = asked(choice());
    answer(&mut world, 1, number);
    let got = client.got();
    assert!(got.contains("\"id\":7,\"result\""), "{got}");
    let other = world.comes();
    other.says(&request(7));
    world.run();
    assert_eq!(world.started(), 2);
    let next = self::number(&world.program(1).stdin.got());
    assert!(next > number);
    answer(&mut world, 1, next);
    assert!(other.got().contains("\"id\":7,\"result\"") && client.got().is_empty());
}

#[test]
fn at_a_stop_shared_servers_go_when_nobody_waits_for_them_any_more() {
    let (mut world, client, number) = asked(choice());
    world.stop();
    world.pass(5 * SECOND);
    assert!(!world.program(1).stdin.is_closed());
    answer(&mut world, 1, number);
    assert!(client.got().contains("\"id\":7,\"result\"") && client.is_ended());
    client.leaves();
    world.run();
    assert!(world.program(1).stdin.is_closed() && !world.proxy.is_done());
    world.servers_obey();
    assert!(world.proxy.is_done() && world.proxy.only_own_timers_are_left());
}

#[test]
fn without_a_stop_shared_servers_stay_when_nobody_uses_them() {
    let (mut world, client, number) = asked(choice());
    answer(&mut world, 1, number);
    client.leaves();
    world.pass(100 * SECOND);
    assert!(client.is_closed() && !world.program(1).stdin.is_closed());
}

#[test]
fn a_shared_server_that_nobody_uses_is_given_back_if_that_is_wanted() {
    let mut choice = choice();
    let mut share = choice.plan.share.unwrap();
    share.hibernate_after = Some(5 * SECOND);
    choice.plan.share = Some(share);
    let (mut world, client, number) = asked(choice);
    answer(&mut world, 1, number);
    client.leaves();
    world.pass(4 * SECOND);
    assert!(!world.program(1).stdin.is_closed());
    world.pass(2 * SECOND);
    assert!(world.program(1).stdin.is_closed());
    world.servers_obey();
    let client = world.comes();
    client.says(&request(8));
    world.run();
    assert_eq!(world.started(), 3);
    answer_next(&mut world, 2);
    assert!(client.got().contains("\"id\":8,\"result\""));
}

#[test]
fn a_shared_server_that_is_lost_is_replaced_and_its_clients_are_told() {
    let (mut world, client, _) = asked(choice());
    world.exits(1, 1);
    world.run();
    let got = client.got();
    assert!(
        got.contains("\"id\":7,\"error\"") && got.contains("process_terminated"),
        "{got}"
    );
    client.says(&request(8));
    world.pass(2 * SECOND);
    assert_eq!(world.started(), 3);
    answer_next(&mut world, 2);
    assert!(client.got().contains("\"id\":8,\"result\""));
}

#[test]
fn a_shared_server_that_closes_its_output_is_stopped() {
    let (mut world, _client, _) = asked(choice());
    world.program(1).stdout.leaves();
    world.run();
    assert!(world.program(1).stdin.is_closed());
}

#[test]
fn what_a_session_has_asked_a_shared_server_is_taken_back_when_its_client_goes() {
    let (mut world, client, number) = asked(choice());
    client.leaves();
    world.pass(31 * SECOND);
    let got = world.program(1).stdin.got();
    assert!(
        got.contains("notifications/cancelled") && got.contains(&number.to_string()),
        "{got}"
    );
}

#[test]
fn a_server_that_waits_becomes_a_shared_one() {
    let mut choice = choice();
    choice.plan.spares = 1;
    let mut world = World::of(choice);
    world.run();
    assert_eq!(world.started(), 1);
    let client = world.comes();
    client.says(&request(7));
    world.run();
    let probe = world.program(1);
    assert!(
        probe.stdin.got().contains("server/discover"),
        "the one that waits is not asked"
    );
    probe
        .stdout
        .says("{\"id\":0,\"result\":{\"supportedVersions\":[\"2026-07-28\"]}}\n");
    world.run();
    answer_next(&mut world, 0);
    assert!(client.got().contains("\"id\":7,\"result\""));
}
