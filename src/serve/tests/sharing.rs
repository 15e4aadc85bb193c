//! Servers that many sessions share, at the ends: of a session, of a server, and of the program.

use std::time::Duration;

use nix::errno::Errno;

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
    is_asked(&mut world, 0);
    is_modern(&mut world, 0);
    world.servers_obey();
    assert_eq!(world.started(), 2);
    let number = number(&world.program(1).stdin.got());
    (world, client, number)
}

/// A server was asked what it speaks.
fn is_asked(world: &mut World, at: usize) {
    let got = world.program(at).stdin.got();
    assert!(got.contains("server/discover"), "{got}");
}

/// It answers that it is a modern one.
fn is_modern(world: &mut World, at: usize) {
    let line = "{\"id\":0,\"result\":{\"supportedVersions\":[\"2026-07-28\"]}}\n";
    world.program(at).stdout.says(line);
    world.run();
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
fn when_processes_have_run_out_a_shared_server_is_waited_for() {
    let mut world = World::of(choice());
    world
        .below
        .borrow_mut()
        .spawn_errors
        .push_back(Errno::EAGAIN);
    let client = world.comes();
    client.says(&request(7));
    world.pass(SECOND / 10);
    assert_eq!((world.started(), client.got()), (0, String::new()));
    world.pass(SECOND / 5);
    assert_eq!((world.started(), client.got()), (1, String::new()));
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
    // Not the one that waits.
    is_asked(&mut world, 1);
    is_modern(&mut world, 1);
    answer_next(&mut world, 0);
    assert!(client.got().contains("\"id\":7,\"result\""));
}

#[test]
fn a_server_that_was_silent_is_asked_again_and_shared_once_it_answers() {
    let mut world = World::of(choice());
    let first = world.comes();
    first.says(&request(7));
    world.run();
    is_asked(&mut world, 0);
    world.pass(10 * SECOND);
    let got = first.got();
    assert!(
        got.contains("\"id\":7,\"error\"") && got.contains("-32601"),
        "{got}"
    );
    assert!(world.program(0).stdin.is_closed());
    world.servers_obey();
    // While it is taken for an old one, each session gets a process of its own.
    let second = world.comes();
    second.says(&request(8));
    world.run();
    assert_eq!(world.started(), 2);
    assert_eq!(number(&world.program(1).stdin.got()), 8);
    world.pass(60 * SECOND);
    let third = world.comes();
    third.says(&request(9));
    world.run();
    assert_eq!(world.started(), 3);
    is_asked(&mut world, 2);
    is_modern(&mut world, 2);
    world.servers_obey();
    assert_eq!(world.started(), 4);
    answer_next(&mut world, 3);
    assert!(third.got().contains("\"id\":9,\"result\""));
    // The one that was there first shares it, too; the one with a process of its own keeps that.
    first.says(&request(10));
    second.says(&request(11));
    world.run();
    answer_next(&mut world, 3);
    assert!(first.got().contains("\"id\":10,\"result\""));
    assert_eq!(number(&world.program(1).stdin.got()), 11);
    assert_eq!(world.started(), 4);
}

#[test]
fn a_server_that_dies_of_the_question_is_an_old_one_and_that_was_no_crash() {
    let mut choice = choice();
    choice.plan.share = Some(share::Limits {
        restarts: false,
        ..limits()
    });
    let mut world = World::of(choice).with_status();
    let first = world.comes();
    first.says(&request(7));
    world.run();
    is_asked(&mut world, 0);
    world.exits(0, 1);
    world.run();
    assert!(first.got().contains("method_not_found"));
    // It is started for the next one, although none is to be started again.
    let second = world.comes();
    second.says(&request(8));
    world.run();
    assert_eq!(world.started(), 2);
    assert_eq!(number(&world.program(1).stdin.got()), 8);
    let (_, metrics) = world.get("/metrics");
    let restarts = "mcp_tcp_proxy_server_restarts_total{server=\"default\"} 0";
    assert!(metrics.contains(restarts), "{metrics}");
}

/// A client that listens and has asked something else, and the numbers of both.
fn listening() -> (World, TestEnd, u64, u64) {
    let (mut world, client, call) = asked(choice());
    let listen = request(8).replace("tools/call", "subscriptions/listen");
    client.says(&listen.replace("\"name\":\"x\"", "\"notifications\":{\"x\":true}"));
    world.run();
    let listen = number(&world.program(1).stdin.got());
    (world, client, call, listen)
}

#[test]
fn a_client_that_ends_its_side_listens_no_more_and_has_half_a_minute_for_the_rest() {
    let (mut world, client, call, listen) = listening();
    client.leaves();
    world.run();
    let got = world.program(1).stdin.got();
    assert!(
        got.contains("notifications/cancelled") && number_of(&got) == listen,
        "{got}"
    );
    assert!(client.got().contains("\"id\":8,\"result\""));
    world.pass(29 * SECOND);
    assert_eq!(world.program(1).stdin.got(), "");
    assert!(!client.is_closed());
    world.pass(2 * SECOND);
    assert_eq!(number_of(&world.program(1).stdin.got()), call);
    assert!(client.got().contains("\"id\":7,\"error\""));
}

/// The request that a cancellation is about.
fn number_of(line: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(line).unwrap();
    value["params"]["requestId"].as_u64().unwrap()
}

#[test]
fn a_client_that_takes_nothing_of_a_lot_for_half_a_minute_is_closed_and_counted() {
    let (world, client, _, listen) = listening();
    let mut world = world.with_status();
    client.stalls();
    let subscription = format!("{{\"io.modelcontextprotocol/subscriptionId\":{listen}}}");
    let filler = "x".repeat(60_000);
    let changed = format!(
        "{{\"method\":\"notifications/x\",\"params\":{{\"_meta\":{subscription},\"filler\":\"{filler}\"}}}}\n"
    );
    for _ in 0..40 {
        world.program(1).stdout.says(&changed);
        world.run();
    }
    let failed = |world: &mut World| {
        let (_, metrics) = world.get("/metrics");
        let mut lines = metrics
            .lines()
            .filter(|line| line.contains("reason=\"client_gone\""));
        lines.next().unwrap().ends_with(" 1")
    };
    world.pass(29 * SECOND);
    assert!(!failed(&mut world) && !client.is_closed());
    world.pass(2 * SECOND);
    assert!(failed(&mut world));
    // The process was read all the time, and hears that nobody listens any more.
    assert!(world.program(1).stdout.is_read());
    let got = world.program(1).stdin.got();
    assert!(got.contains("notifications/cancelled"), "{got}");
}

#[test]
fn a_server_that_waits_becomes_one_of_legacy_clients() {
    let mut choice = choice();
    choice.plan.spares = 1;
    choice.plan.share = Some(share::Limits {
        legacy: true,
        ..limits()
    });
    let mut world = World::of(choice);
    world.run();
    assert_eq!(world.started(), 1);
    let client = world.comes();
    client.says(
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{}}}\n",
    );
    world.run();
    let got = world.program(0).stdin.got();
    assert!(
        got.contains("\"method\":\"initialize\"") && got.contains("mcp-tcp-proxy"),
        "{got}"
    );
    let number = number(&got);
    world.program(0).stdout.says(&format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{number},\"result\":{{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{{}}}}}}\n"
    ));
    world.run();
    assert!(client.got().contains("\"id\":1,\"result\""));
}

/// The lines about one of the metrics of shared processes.
fn metric(world: &mut World, name: &str) -> Vec<String> {
    let name = format!("mcp_tcp_proxy_share_process_{name}{{");
    let (_, text) = world.get("/metrics");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&name));
    lines.map(str::to_owned).collect()
}

#[test]
fn metrics_tell_what_each_shared_process_has_to_do() {
    let mut choice = choice();
    choice.plan.share = Some(share::Limits {
        processes: 2,
        ..limits()
    });
    let mut world = World::of(choice).with_status();
    assert!(metric(&mut world, "sessions").is_empty());
    let client = world.comes();
    client.says(&request(1));
    world.run();
    let of = |process: u32, kind: &str, value: u32| {
        format!("server=\"default\",process=\"{process}\",kind=\"{kind}\"}} {value}")
    };
    assert_eq!(metric(&mut world, "sessions"), [of(2, "probe", 0)]);
    is_modern(&mut world, 0);
    world.servers_obey();
    let other = world.comes();
    other.says(&(request(1) + &request(2)));
    world.run();
    let all = |values: [u32; 2]| [of(0, "shared", values[0]), of(1, "shared", values[1])];
    assert_eq!(metric(&mut world, "sessions"), all([1, 1]));
    assert_eq!(metric(&mut world, "requests_in_flight"), all([1, 2]));
    assert_eq!(metric(&mut world, "silent"), all([0, 0]));
    answer_next(&mut world, 1);
    assert_eq!(metric(&mut world, "requests_in_flight"), all([0, 2]));
    world.pass(11 * SECOND);
    assert_eq!(metric(&mut world, "silent"), all([0, 1]));
    let (_, status) = world.get("/status.json");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let second = &status["servers"][0]["shared"][1];
    let expected = serde_json::json!({
        "process": 1, "pid": second["pid"], "sessions": 1, "in_flight": 2, "kind": "shared", "silent": true,
    });
    assert_eq!(*second, expected);
    // The next one has the place of the one that is gone.
    world.exits(1, 1);
    world.pass(2 * SECOND);
    client.says(&request(2));
    let third = world.comes();
    third.says(&request(1));
    world.run();
    assert_eq!(metric(&mut world, "sessions").len(), 2);
}
