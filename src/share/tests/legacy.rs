//! Clients that open with `initialize`, and processes that the proxy initialises.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::{World, cancelled, limits, request};
use crate::share::{Limits, ProcessKey, SeatKey};

/// The first two places that legacy processes get: those before are for modern clients, the probe and suspects.
const ONE: ProcessKey = ProcessKey(3);
const TWO: ProcessKey = ProcessKey(4);
const SOLO: ProcessKey = ProcessKey(2);

fn with_processes(processes: usize) -> World {
    World::unprobed(Limits {
        processes,
        legacy: true,
        ..limits()
    })
}

fn world() -> World {
    with_processes(1)
}

fn initialize(id: &Value, version: &str) -> Value {
    let params = json!({"protocolVersion": version, "capabilities": {"sampling": {}}});
    json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": params})
}

fn call(id: &Value, method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn about(id: u64, what: &str, uri: &str) -> Value {
    call(
        &json!(id),
        &format!("resources/{what}"),
        &json!({"uri": uri}),
    )
}

fn answer(number: &Value, version: &str) -> Value {
    let capabilities = json!({"logging": {}, "tools": {"listChanged": true}, "tasks": {}});
    let result = json!({"protocolVersion": version, "capabilities": capabilities});
    json!({"id": number, "result": result})
}

fn result(number: &Value) -> Value {
    json!({"id": number, "result": {}})
}

const NEWEST: &str = "2025-11-25";

/// The process agrees to what it is asked for.
fn agree(world: &mut World, process: ProcessKey) {
    let got = world.get(process);
    assert_eq!(got[0]["method"], "initialize", "{got:?}");
    let version = got[0]["params"]["protocolVersion"].as_str().unwrap();
    world.server(process, &answer(&got[0]["id"], version));
}

/// A session that has been initialised.
fn opened(world: &mut World, identity: u32) -> SeatKey {
    let seat = world.seat(identity);
    world.client(seat, &initialize(&json!("i"), NEWEST));
    seat
}

/// One process, and a session of each of two clients.
fn two_at_one() -> (World, SeatKey, SeatKey) {
    let mut world = world();
    let (a, b) = (opened(&mut world, 1), opened(&mut world, 2));
    agree(&mut world, ONE);
    world.get(ONE);
    world.read(a);
    world.read(b);
    (world, a, b)
}

fn error(line: &Value) -> (&Value, i64, &str) {
    let reason = line["error"]["data"]["reason"].as_str().unwrap_or_default();
    (&line["id"], line["error"]["code"].as_i64().unwrap(), reason)
}

#[test]
fn a_process_that_takes_longer_to_start_than_one_may_serve_serves_what_waits_for_it() {
    let mut world = World::unprobed(Limits {
        processes: 1,
        legacy: true,
        max_age: Some(Duration::from_secs(1)),
        ..limits()
    });
    let seat = opened(&mut world, 1);
    agree(&mut world, ONE);
    world.get(ONE);
    world.pass(Duration::from_secs(1));
    assert!(world.stopped.contains(&ONE));
    world.client(seat, &call(&json!(1), "tools/list", &json!({})));
    world.pass(Duration::from_secs(5));
    agree(&mut world, TWO);
    let got = world.get(TWO);
    assert_eq!(got.last().unwrap()["method"], "tools/list", "{got:?}");
}

#[test]
fn a_process_is_initialised_once_and_all_get_its_answer() {
    let mut world = world();
    let a = world.seat(1);
    world.client(a, &initialize(&json!("a"), NEWEST));
    world.client(a, &json!({"method": "notifications/initialized"}));
    world.client(a, &call(&json!(1), "tools/list", &json!({})));
    let b = world.seat(2);
    world.client(b, &initialize(&json!(0), NEWEST));
    let got = world.get(ONE);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0]["params"]["capabilities"], json!({}));
    assert_eq!(got[0]["params"]["protocolVersion"], NEWEST);
    assert_eq!(got[0]["params"]["clientInfo"]["name"], "mcp-tcp-proxy");
    world.server(ONE, &answer(&got[0]["id"], NEWEST));
    for (seat, id) in [(a, json!("a")), (b, json!(0))] {
        let read = world.read(seat);
        assert_eq!(read.len(), 1);
        assert_eq!(read[0]["id"], id);
        let result = &read[0]["result"];
        assert_eq!(result["protocolVersion"], NEWEST);
        assert_eq!(
            result["capabilities"],
            json!({"tools": {"listChanged": true}})
        );
    }
    let methods: Vec<Value> = world
        .get(ONE)
        .iter()
        .map(|line| line["method"].clone())
        .collect();
    assert_eq!(methods, ["notifications/initialized", "tools/list"]);
    let late = opened(&mut world, 3);
    assert_eq!(world.read(late)[0]["id"], "i");
    assert!(world.get(ONE).is_empty(), "it is known");
    assert!(!world.share.drops().is_any(), "{}", world.share.drops());
}

#[test]
fn a_version_that_is_not_known_is_asked_for_as_the_newest() {
    let mut world = world();
    let a = world.seat(1);
    world.client(a, &initialize(&json!(1), "2031-01-01"));
    assert_eq!(world.get(ONE)[0]["params"]["protocolVersion"], NEWEST);
}

#[test]
fn groups_that_agreed_on_one_version_are_one() {
    let mut world = world();
    let old = "2024-11-05";
    let (a, b) = (world.seat(1), world.seat(2));
    world.client(a, &initialize(&json!(1), old));
    agree(&mut world, ONE);
    world.client(b, &initialize(&json!(1), NEWEST));
    let got = world.get(TWO);
    assert_eq!(got[0]["params"]["protocolVersion"], NEWEST);
    world.server(TWO, &answer(&got[0]["id"], old));
    assert_eq!(world.read(b)[0]["result"]["protocolVersion"], old);
    world.get(TWO);
    assert_eq!(world.stopped, [TWO], "one process is all there may be");
    world.end(TWO, "exit code 0");
    world.get(ONE);
    world.client(b, &call(&json!(2), "tools/list", &json!({})));
    assert_eq!(world.get(ONE)[0]["method"], "tools/list");
    let c = world.seat(3);
    world.client(c, &initialize(&json!(1), NEWEST));
    assert_eq!(world.read(c)[0]["result"]["protocolVersion"], old);
}

#[test]
fn groups_that_agreed_on_different_versions_have_processes_of_their_own() {
    let mut world = world();
    let (a, b) = (world.seat(1), world.seat(2));
    for (seat, process, version) in [(a, ONE, "2025-03-26"), (b, TWO, NEWEST)] {
        world.client(seat, &initialize(&json!(1), version));
        agree(&mut world, process);
        assert_eq!(world.read(seat)[0]["result"]["protocolVersion"], version);
        world.client(seat, &call(&json!(2), "tools/list", &json!({})));
        assert_eq!(world.get(process).len(), 2);
    }
    assert!(world.stopped.is_empty());
}

#[test]
fn ids_and_tokens_are_told_apart_as_those_of_modern_clients() {
    let (mut world, a, b) = two_at_one();
    for seat in [a, b] {
        let params = json!({"_meta": {"progressToken": "t"}});
        world.client(seat, &call(&json!(1), "tools/call", &params));
    }
    let got = world.get(ONE);
    let number = &got[1]["id"];
    assert_eq!(got[1]["params"]["_meta"]["progressToken"], *number);
    let progress = json!({"method": "notifications/progress", "params": {"progressToken": number}});
    world.server(ONE, &progress);
    world.server(ONE, &result(number));
    let read = world.read(b);
    assert_eq!(read[0]["params"]["progressToken"], "t");
    assert_eq!(read[1], result(&json!(1)));
    assert!(world.read(a).is_empty());
    world.client(a, &cancelled(&json!(1)));
    assert_eq!(world.get(ONE)[0]["params"]["requestId"], got[0]["id"]);
}

#[test]
fn what_is_one_clients_alone_is_answered_by_the_proxy() {
    let (mut world, a, _) = two_at_one();
    world.client(
        a,
        &call(&json!(1), "logging/setLevel", &json!({"level": "debug"})),
    );
    assert_eq!(world.read(a)[0]["result"], json!({}));
    world.client(a, &call(&json!(2), "tasks/list", &json!({})));
    world.client(
        a,
        &call(&json!(3), "tools/call", &json!({"task": {"ttl": 1}})),
    );
    world.client(a, &call(&json!(4), "server/discover", &json!({})));
    for (line, id) in world.read(a).iter().zip(2..) {
        assert_eq!(error(line), (&json!(id), -32601, "method_not_found"));
    }
    world.client(a, &request(json!(5), "tools/list", json!({})));
    assert_eq!(error(&world.read(a)[0]), (&json!(5), -32600, "wrong_era"));
    assert!(world.get(ONE).is_empty());
}

#[test]
fn a_second_initialize_is_answered_alike() {
    let (mut world, a, _) = two_at_one();
    world.client(a, &initialize(&json!(9), "2024-11-05"));
    assert_eq!(world.read(a)[0]["result"]["protocolVersion"], NEWEST);
    assert!(world.get(ONE).is_empty());
}

#[test]
fn what_such_a_server_cancels_is_its_own() {
    let (mut world, a, _) = two_at_one();
    world.client(a, &call(&json!(1), "tools/list", &json!({})));
    let number = world.get(ONE)[0]["id"].clone();
    world.server(
        ONE,
        &json!({"id": number, "method": "sampling/createMessage"}),
    );
    assert_eq!(error(&world.get(ONE)[0]).1, -32601);
    world.server(ONE, &cancelled(&number));
    assert!(world.read(a).is_empty());
    world.server(ONE, &result(&number));
    assert_eq!(world.read(a), [result(&json!(1))]);
}

#[test]
fn a_resource_is_subscribed_to_by_all_and_unsubscribed_from_by_the_last() {
    let (mut world, a, b) = two_at_one();
    let uri = "file:///a/b";
    for seat in [a, b] {
        world.client(seat, &about(1, "subscribe", uri));
        let got = world.get(ONE);
        assert_eq!(got[0]["params"]["uri"], uri);
        world.server(ONE, &result(&got[0]["id"]));
        world.read(seat);
    }
    let c = opened(&mut world, 3);
    world.client(c, &about(1, "subscribe", "file:///a/"));
    world.client(c, &about(2, "subscribe", "file:///c"));
    world.get(ONE);
    world.read(c);
    let updated =
        |uri| json!({"method": "notifications/resources/updated", "params": {"uri": uri}});
    world.server(ONE, &updated(uri));
    world.server(ONE, &updated("file:///a"));
    world.server(ONE, &updated("file:///c/d"));
    assert_eq!(world.read(a), [updated(uri)]);
    assert_eq!(world.read(b), [updated(uri)]);
    assert_eq!(world.read(c), [updated(uri), updated("file:///c/d")]);

    world.client(a, &about(2, "unsubscribe", uri));
    assert!(world.get(ONE).is_empty());
    assert_eq!(world.read(a)[0]["result"], json!({}));
    world.server(ONE, &updated(uri));
    assert!(world.read(a).is_empty());
    assert_eq!(world.read(b).len(), 1);
    world.client(b, &about(2, "unsubscribe", uri));
    let got = world.get(ONE);
    assert_eq!(got[0]["method"], "resources/unsubscribe");
    world.server(ONE, &result(&got[0]["id"]));
    assert_eq!(world.read(b).len(), 1);
}

#[test]
fn who_leaves_is_unsubscribed() {
    let (mut world, a, b) = two_at_one();
    for (seat, uris) in [(a, ["x", "y"]), (b, ["y", "z"])] {
        for (id, uri) in uris.iter().enumerate() {
            world.client(seat, &about(id as u64, "subscribe", uri));
        }
    }
    for line in world.get(ONE) {
        world.server(ONE, &result(&line["id"]));
    }
    world.leave(a);
    let got = world.get(ONE);
    assert_eq!(got.len(), 1);
    assert_eq!(got[0]["method"], "resources/unsubscribe");
    assert_eq!(got[0]["params"]["uri"], "x");
    let before = world.share.drops().unknown_responses;
    world.server(ONE, &result(&got[0]["id"]));
    assert_eq!(world.share.drops().unknown_responses, before);
}

#[test]
fn a_subscription_that_is_refused_is_none() {
    let (mut world, a, b) = two_at_one();
    world.client(a, &about(1, "subscribe", "x"));
    let got = world.get(ONE);
    world.server(ONE, &json!({"id": got[0]["id"], "error": {"code": -32002}}));
    assert_eq!(error(&world.read(a)[0]).1, -32002);
    world.server(
        ONE,
        &json!({"method": "notifications/resources/updated", "params": {"uri": "x"}}),
    );
    assert!(world.read(a).is_empty() && world.read(b).is_empty());
    world.leave(a);
    assert!(world.get(ONE).is_empty());
}

#[test]
fn a_session_has_so_many_subscriptions_and_no_more() {
    let (mut world, a, _) = two_at_one();
    for id in 0..1025 {
        world.client(a, &about(id, "subscribe", &format!("x{id}")));
        for line in world.get(ONE) {
            world.server(ONE, &result(&line["id"]));
        }
    }
    let read = world.read(a);
    assert_eq!(error(&read[1024]), (&json!(1024), 429, "in_flight_limit"));
    world.client(a, &about(1, "subscribe", "x7"));
    assert_eq!(world.get(ONE).len(), 1, "it has that one");
    world.client(a, &about(2, "unsubscribe", "x7"));
    assert_eq!(world.get(ONE).len(), 1);
    world.client(a, &about(3, "subscribe", "y"));
    assert_eq!(world.get(ONE).len(), 1);
}

#[test]
fn subscriptions_hold_memory() {
    let (mut world, a, _) = two_at_one();
    let before = world.memory.used();
    for id in 0..10 {
        let uri = format!("{id}{}", "x".repeat(30_000));
        world.client(a, &about(id, "subscribe", &uri));
        for line in world.get(ONE) {
            world.server(ONE, &result(&line["id"]));
        }
    }
    world.read(a);
    assert!(world.memory.used() >= before + 200_000);
    world.leave(a);
    world.get(ONE);
    assert!(world.memory.used() <= before + 500_000);
}

#[test]
fn changed_lists_are_told_to_all_of_the_group() {
    let (mut world, a, b) = two_at_one();
    let old = world.seat(3);
    world.client(old, &initialize(&json!(1), "2024-11-05"));
    agree(&mut world, TWO);
    world.read(old);
    world.client(a, &call(&json!(1), "tools/list", &json!({})));
    let changed = json!({"method": "notifications/tools/list_changed"});
    world.server(ONE, &changed);
    let told = [changed];
    assert_eq!(world.read(a), told);
    assert_eq!(world.read(b), told, "it has not asked for anything");
    assert!(world.read(old).is_empty());
    let log = json!({"method": "notifications/message", "params": {"data": "secret"}});
    world.server(ONE, &log);
    assert!(world.read(a).is_empty());
}

#[test]
fn after_a_crash_the_next_process_is_initialised_and_subscribed() {
    let (mut world, a, b) = two_at_one();
    for seat in [a, b] {
        world.client(seat, &about(1, "subscribe", "x"));
    }
    for line in world.get(ONE) {
        world.server(ONE, &result(&line["id"]));
    }
    world.read(a);
    world.read(b);
    world.client(a, &call(&json!(2), "tools/list", &json!({})));
    world.get(ONE);
    world.pass(Duration::from_secs(2));
    world.end(ONE, "exit code 1");
    assert_eq!(
        error(&world.read(a)[0]),
        (&json!(2), 502, "process_terminated")
    );
    assert!(world.read(b).is_empty());
    agree(&mut world, ONE);
    let got = world.get(ONE);
    let methods: Vec<&str> = got
        .iter()
        .map(|line| line["method"].as_str().unwrap())
        .collect();
    assert_eq!(
        methods,
        ["notifications/initialized", "resources/subscribe"]
    );
    world.server(ONE, &result(&got[1]["id"]));
    assert!(world.read(a).is_empty(), "nobody hears of the handshake");
    let updated = json!({"method": "notifications/resources/updated", "params": {"uri": "x"}});
    world.server(ONE, &updated);
    let told = [updated];
    assert_eq!(world.read(a), told);
    assert_eq!(world.read(b), told);
}

#[test]
fn a_subscription_that_was_lost_under_way_is_none() {
    let (mut world, a, _) = two_at_one();
    world.client(a, &about(1, "subscribe", "x"));
    world.get(ONE);
    world.pass(Duration::from_secs(2));
    world.end(ONE, "exit code 1");
    assert_eq!(error(&world.read(a)[0]).1, 502);
    world.client(a, &call(&json!(2), "tools/list", &json!({})));
    agree(&mut world, ONE);
    assert_eq!(
        world.get(ONE).len(),
        2,
        "the client was told that it failed"
    );
}

#[test]
fn a_process_that_agrees_to_something_else_ends_the_sessions() {
    let (mut world, a, b) = two_at_one();
    world.pass(Duration::from_secs(2));
    world.end(ONE, "exit code 1");
    world.client(a, &call(&json!(1), "tools/list", &json!({})));
    let got = world.get(ONE);
    let other = json!({"protocolVersion": NEWEST, "capabilities": {}});
    world.server(ONE, &json!({"id": got[0]["id"], "result": other}));
    assert_eq!(world.changed, [a, b]);
    assert_eq!(world.stopped, [ONE]);
    world.leave(a);
    world.leave(b);
    world.end(ONE, "exit code 0");
    let c = opened(&mut world, 3);
    let got = world.get(ONE);
    world.server(ONE, &json!({"id": got[0]["id"], "result": other}));
    assert_eq!(world.read(c)[0]["result"], other, "it is the server now");
    assert_eq!(world.changed.len(), 2);
}

#[test]
fn an_error_goes_to_those_who_asked_and_the_next_one_has_it_tried_again() {
    let mut world = world();
    let (a, b) = (opened(&mut world, 1), opened(&mut world, 2));
    world.client(b, &call(&json!(2), "tools/list", &json!({})));
    let number = world.get(ONE)[0]["id"].clone();
    world.server(
        ONE,
        &json!({"id": number, "error": {"code": -32603, "message": "no"}}),
    );
    for seat in [a, b] {
        let read = world.read(seat);
        assert_eq!(
            read[0],
            json!({"id": "i", "error": {"code": -32603, "message": "no"}})
        );
    }
    world.client(a, &call(&json!(3), "tools/list", &json!({})));
    assert_eq!(
        error(&world.read(a)[0]),
        (&json!(3), -32600, "invalid_request")
    );
    assert_eq!(world.stopped, [ONE]);
    world.end(ONE, "exit code 0");
    world.client(a, &initialize(&json!("again"), NEWEST));
    agree(&mut world, ONE);
    assert!(world.read(a)[0]["result"].is_object());
}

#[test]
fn a_process_that_ends_or_is_silent_before_it_answers_is_no_server() {
    for ending in ["death", "silence", "no start"] {
        let mut world = world();
        world.starts = ending != "no start";
        let a = opened(&mut world, 1);
        match ending {
            "death" => world.end(ONE, "exit code 1"),
            "silence" => world.pass(Duration::from_secs(30)),
            _ => world.with(|share, cx| share.process_failed(ONE, "no such file", cx)),
        }
        assert_eq!(
            error(&world.read(a)[0]),
            (&json!("i"), 503, "spawn_failed"),
            "{ending}"
        );
        if ending == "silence" {
            assert_eq!(world.stopped, [ONE]);
            world.end(ONE, "signal 9 (SIGKILL)");
        }
        world.starts = true;
        world.client(a, &initialize(&json!("again"), NEWEST));
        world.pass(Duration::from_secs(5));
        agree(&mut world, ONE);
        assert!(world.read(a)[0]["result"].is_object(), "{ending}");
    }
}

#[test]
fn who_leaves_or_takes_it_back_is_not_waited_for() {
    let mut world = world();
    let (a, b) = (opened(&mut world, 1), opened(&mut world, 2));
    world.client(a, &cancelled(&json!("i")));
    world.leave(b);
    let c = world.seat(3);
    assert_eq!(b, c);
    agree(&mut world, ONE);
    assert!(world.read(a).is_empty() && world.read(c).is_empty());
    world.client(a, &call(&json!(1), "tools/list", &json!({})));
    assert_eq!(world.get(ONE).len(), 2);
}

#[test]
fn a_client_of_both_eras_that_asks_first_is_legacy_once_it_opens_so() {
    let mut world = world();
    let a = world.seat(1);
    world.client(a, &request(json!("d"), "server/discover", json!({})));
    let probe = ProcessKey(1);
    let number = world.get(probe)[0]["id"].clone();
    world.server(probe, &json!({"id": number, "error": {"code": -32601}}));
    assert_eq!(error(&world.read(a)[0]).1, -32601);
    world.client(a, &initialize(&json!(1), NEWEST));
    agree(&mut world, ONE);
    assert!(world.read(a)[0]["result"].is_object());
}

#[test]
fn an_initialize_that_does_not_wait_takes_the_question_back() {
    let mut world = world();
    let a = world.seat(1);
    world.client(a, &request(json!("d"), "server/discover", json!({})));
    world.client(a, &initialize(&json!(1), NEWEST));
    assert_eq!(
        error(&world.read(a)[0]),
        (&json!("d"), -32601, "method_not_found")
    );
    agree(&mut world, ONE);
    assert_eq!(world.get(ONE).len(), 1, "the handshake alone");
    let probe = ProcessKey(1);
    world.server(
        probe,
        &json!({"id": 0, "result": {"supportedVersions": ["2026-07-28"]}}),
    );
    assert_eq!(world.read(a).len(), 1);
    assert!(world.get(ProcessKey(0)).is_empty());
}

#[test]
fn both_eras_are_served_side_by_side() {
    let (mut world, a, _) = two_at_one();
    let modern = world.seat(4);
    world.client(modern, &request(json!(1), "tools/list", json!({})));
    let probe = ProcessKey(1);
    world.get(probe);
    world.server(
        probe,
        &json!({"id": 0, "result": {"supportedVersions": ["2026-07-28"]}}),
    );
    let got = world.get(ProcessKey(0));
    assert_eq!(got.len(), 1, "no handshake");
    world.client(modern, &initialize(&json!(2), NEWEST));
    assert_eq!(error(&world.read(modern)[0]).1, -32022);
    world.client(a, &call(&json!(1), "tools/list", &json!({})));
    assert_eq!(world.get(ONE).len(), 1);
}

#[test]
fn sessions_of_a_group_share_several_processes() {
    let mut world = with_processes(2);
    let (one, two) = (ProcessKey(4), ProcessKey(5));
    let seats: Vec<SeatKey> = (0..4)
        .map(|identity| opened(&mut world, identity))
        .collect();
    agree(&mut world, one);
    for seat in &seats {
        world.client(*seat, &call(&json!(1), "tools/list", &json!({})));
    }
    assert_eq!(world.get(one).len(), 1 + 2);
    agree(&mut world, two);
    assert_eq!(world.get(two).len(), 1 + 2);
}

#[test]
fn a_legacy_client_that_makes_servers_crash_is_found() {
    let (mut world, culprit, other) = two_at_one();
    for crash in 0..2 {
        world.client(culprit, &call(&json!("kill"), "tools/call", &json!({})));
        world.client(other, &call(&json!(crash), "tools/call", &json!({})));
        world.pass(Duration::from_secs(6));
        if crash > 0 {
            agree(&mut world, ONE);
        }
        assert!(world.get(ONE).len() >= 2);
        world.end(ONE, "exit code 1");
        world.read(culprit);
        world.read(other);
    }
    world.client(culprit, &call(&json!("kill"), "tools/call", &json!({})));
    world.client(other, &call(&json!(9), "tools/call", &json!({})));
    agree(&mut world, SOLO);
    assert_eq!(world.get(SOLO).len(), 2, "initialized, and one request");
    world.end(SOLO, "exit code 1");
    assert_eq!(error(&world.read(culprit)[0]).1, 502);
    world.client(culprit, &call(&json!("kill"), "tools/call", &json!({})));
    assert_eq!(
        error(&world.read(culprit)[0]),
        (&json!("kill"), 503, "quarantined")
    );
    agree(&mut world, SOLO);
    let got = world.get(SOLO);
    world.server(SOLO, &result(&got[1]["id"]));
    assert_eq!(world.read(other), [result(&json!(9))]);
    assert_eq!(world.stopped, [SOLO]);
}

#[test]
fn crashes_of_one_group_make_nobody_of_another_a_suspect() {
    let (mut world, a, _) = two_at_one();
    let old = world.seat(7);
    world.client(old, &initialize(&json!(1), "2024-11-05"));
    agree(&mut world, TWO);
    world.get(TWO);
    for (seat, process) in [(a, ONE), (old, TWO)] {
        world.client(seat, &call(&json!(2), "tools/call", &json!({})));
        world.pass(Duration::from_secs(2));
        world.get(process);
        world.end(process, "exit code 1");
    }
    world.client(old, &call(&json!(3), "tools/call", &json!({})));
    assert!(!world.processes.contains_key(&SOLO));
    agree(&mut world, TWO);
}

/// It says which of its own requests it takes back, and counts them as the proxy does.
#[test]
fn what_a_process_takes_back_is_its_own_even_when_it_is_replaced() {
    for is_replaced in [false, true] {
        let (mut world, a, _) = two_at_one();
        world.client(a, &call(&json!(1), "tools/call", &json!({})));
        let number = world.get(ONE)[0]["id"].clone();
        if is_replaced {
            world.with(super::super::Share::renew);
        }
        world.server(ONE, &cancelled(&number));
        assert!(world.read(a).is_empty());
        world.server(ONE, &result(&number));
        assert_eq!(world.read(a), [result(&json!(1))]);
    }
}

#[test]
fn who_asks_again_is_answered_although_the_server_that_has_refused_takes_long_to_go() {
    let age = Duration::from_secs(100);
    let mut world = World::unprobed(Limits {
        processes: 1,
        legacy: true,
        max_age: Some(age),
        ..limits()
    });
    let a = opened(&mut world, 1);
    let number = world.get(ONE)[0]["id"].clone();
    world.server(
        ONE,
        &json!({"id": number, "error": {"code": 1, "message": "no"}}),
    );
    assert_eq!(world.read(a).len(), 1);
    assert!(world.stopped.contains(&ONE));
    world.client(a, &initialize(&json!("again"), NEWEST));
    world.pass(age);
    world.end(ONE, "signal 15 (SIGTERM)");
    agree(&mut world, ONE);
    assert_eq!(world.read(a)[0]["id"], "again");
}
