//! One rule each.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::{
    ACKNOWLEDGED, CHANGED, SUBSCRIPTION, World, cancelled, limits, listen, notification, request,
};
use crate::share::{Limits, ProcessKey};

const ONE: ProcessKey = ProcessKey(0);

fn single() -> World {
    World::new(Limits {
        processes: 1,
        ..limits()
    })
}

fn call(id: Value) -> Value {
    request(id, "tools/call", json!({}))
}

fn result(number: &Value) -> Value {
    json!({"id": number, "result": {}})
}

fn reason(line: &Value) -> (&Value, i64, &str) {
    let reason = line["error"]["data"]["reason"].as_str().unwrap();
    (&line["id"], line["error"]["code"].as_i64().unwrap(), reason)
}

#[test]
fn the_same_ids_of_two_clients_are_told_apart() {
    let mut world = single();
    let (a, b) = (world.seat(1), world.seat(2));
    world.client(a, &call(json!(0)));
    world.client(b, &call(json!("0")));
    let got = world.get(ONE);
    assert_ne!(got[0]["id"], got[1]["id"]);
    world.server(ONE, &json!({"id": got[1]["id"].to_string(), "result": "b"}));
    world.server(ONE, &json!({"id": got[0]["id"], "result": "a"}));
    world.server(ONE, &json!({"id": got[0]["id"], "result": "again"}));
    assert_eq!(world.read(a), [json!({"id": 0, "result": "a"})]);
    assert_eq!(world.read(b), [json!({"id": "0", "result": "b"})]);
    assert_eq!(world.share.drops().unknown_responses, 1);
}

#[test]
fn an_id_is_refused_while_it_is_open_and_only_then() {
    let mut world = single();
    let a = world.seat(1);
    world.client(a, &call(json!(1)));
    world.client(a, &call(json!(1.0)));
    let got = world.get(ONE);
    assert_eq!(got.len(), 1);
    let refusal = &world.read(a)[0];
    assert_eq!(reason(refusal).1, -32600);
    world.server(ONE, &result(&got[0]["id"]));
    world.client(a, &call(json!(1)));
    assert_eq!(world.get(ONE).len(), 1);
}

#[test]
fn progress_reaches_whoever_asked_until_the_response() {
    let mut world = single();
    let (a, b) = (world.seat(1), world.seat(2));
    for seat in [a, b] {
        let params = json!({"_meta": {"progressToken": "t"}});
        world.client(seat, &request(json!(1), "tools/call", params));
    }
    let got = world.get(ONE);
    let token = &got[1]["params"]["_meta"]["progressToken"];
    assert_eq!(*token, got[1]["id"]);
    let progress = json!({"method": "notifications/progress", "params": {"progressToken": token}});
    world.server(ONE, &progress);
    assert_eq!(world.read(b)[0]["params"]["progressToken"], "t");
    assert!(world.read(a).is_empty());
    world.server(ONE, &result(&got[1]["id"]));
    world.read(b);
    world.server(ONE, &progress);
    assert!(world.read(b).is_empty());
    let unknown = json!({"method": "notifications/progress", "params": {"progressToken": "t"}});
    world.server(ONE, &unknown);
    assert!(world.read(a).is_empty());
}

#[test]
fn what_a_server_logs_or_tells_everybody_reaches_nobody() {
    let mut world = single();
    let a = world.seat(1);
    let level = json!({"_meta": {"io.modelcontextprotocol/logLevel": "debug"}});
    world.client(a, &request(json!(1), "tools/call", level));
    let got = world.get(ONE);
    assert_eq!(got[0]["params"]["_meta"].as_object().unwrap().len(), 1);
    let log = json!({"method": "notifications/message", "params": {"data": "secret", "progressToken": got[0]["id"]}});
    world.server(ONE, &log);
    world.server(ONE, &json!({"method": CHANGED}));
    world.server(ONE, &json!([{"id": got[0]["id"], "result": {}}]));
    assert!(world.read(a).is_empty());
    let drops = world.share.drops();
    assert_eq!(
        (
            drops.server_logs,
            drops.server_notifications,
            drops.unreadable
        ),
        (1, 1, 1)
    );
}

#[test]
fn a_server_that_asks_is_answered_by_the_proxy() {
    let mut world = single();
    let a = world.seat(1);
    world.client(a, &call(json!(1)));
    world.get(ONE);
    world.server(ONE, &json!({"id": "p", "method": "ping"}));
    world.server(ONE, &json!({"id": 2, "method": "roots/list"}));
    let got = world.get(ONE);
    assert_eq!(got[0], json!({"jsonrpc": "2.0", "id": "p", "result": {}}));
    assert_eq!(reason(&got[1]), (&json!(2), -32601, "method_not_found"));
    assert!(world.read(a).is_empty());
}

#[test]
fn a_cancellation_names_the_request_at_the_server_and_the_late_response_is_swallowed() {
    let mut world = single();
    let (a, b) = (world.seat(1), world.seat(2));
    world.client(a, &call(json!(7)));
    let got = world.get(ONE);
    world.client(b, &cancelled(&json!(7)));
    assert!(world.get(ONE).is_empty(), "it is another's");
    world.client(a, &cancelled(&json!(7)));
    world.client(a, &cancelled(&json!(7)));
    let told = world.get(ONE);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["params"]["requestId"], got[0]["id"]);
    world.client(a, &call(json!(7)));
    world.server(ONE, &result(&got[0]["id"]));
    assert!(world.read(a).is_empty());
    let again = world.get(ONE);
    world.server(ONE, &json!({"id": again[0]["id"], "result": "new"}));
    assert_eq!(world.read(a), [json!({"id": 7, "result": "new"})]);
}

#[test]
fn what_is_beyond_the_limit_waits_and_what_is_cancelled_counts_for_ten_seconds() {
    let mut world = single();
    let a = world.seat(1);
    for id in 0..6 {
        world.client(a, &call(json!(id)));
    }
    let got = world.get(ONE);
    assert_eq!(got.len(), 3);
    world.client(a, &cancelled(&json!(4)));
    world.client(a, &cancelled(&json!(0)));
    let told = world.get(ONE);
    assert_eq!(told.len(), 1, "what waited is just gone: {told:?}");
    world.pass(Duration::from_secs(9));
    assert!(world.get(ONE).is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.get(ONE).len(), 1);
    world.server(ONE, &result(&got[0]["id"]));
    assert!(world.read(a).is_empty(), "it came too late");
    world.server(ONE, &result(&got[1]["id"]));
    assert_eq!(world.get(ONE).len(), 1);
    assert_eq!(world.read(a)[0]["id"], 1);
}

#[test]
fn too_much_that_waits_is_refused() {
    let mut world = single();
    let a = world.seat(1);
    for id in 0..1100 {
        world.client(a, &call(json!(id)));
        world.get(ONE);
    }
    let refused = world.read(a);
    assert_eq!(refused.len(), 1100 - 3 - 1024);
    assert_eq!(reason(&refused[0]), (&json!(1027), 429, "in_flight_limit"));
    let b = world.seat(2);
    let filler = "x".repeat(60_000);
    for id in 0..30 {
        world.client(b, &request(json!(id), "x", json!({"a": filler})));
    }
    assert!(world.read(b).len() >= 30 - 3 - 17);
}

#[test]
fn who_leaves_has_its_requests_cancelled_and_its_key_may_be_anothers() {
    let mut world = single();
    let a = world.seat(1);
    world.client(a, &call(json!(1)));
    let got = world.get(ONE);
    world.client(a, &listen(json!(2), "toolsListChanged"));
    let listening = world.get(ONE);
    world.leave(a);
    let told = world.get(ONE);
    let named: Vec<&Value> = told
        .iter()
        .map(|line| &line["params"]["requestId"])
        .collect();
    assert_eq!(named, [&got[0]["id"], &listening[0]["id"]]);
    let b = world.seat(2);
    assert_eq!(a, b);
    world.client(b, &call(json!(1)));
    world.server(ONE, &result(&got[0]["id"]));
    world.server(ONE, &notification(CHANGED, &listening[0]["id"]));
    assert!(world.read(b).is_empty());
    assert_eq!(world.share.drops().late, 1);
}

#[test]
fn listens_to_the_same_share_one_and_each_hears_under_its_own_id() {
    let mut world = single();
    let (a, b, c) = (world.seat(1), world.seat(2), world.seat(3));
    world.client(a, &listen(json!("l"), "toolsListChanged"));
    world.client(c, &listen(json!("l"), "promptsListChanged"));
    let got = world.get(ONE);
    assert_eq!(got.len(), 2);
    let number = got[0]["id"].clone();
    world.server(ONE, &notification(ACKNOWLEDGED, &number));
    world.client(b, &listen(json!(5), "toolsListChanged"));
    assert!(world.get(ONE).is_empty());
    world.server(ONE, &notification(CHANGED, &number));
    let heard = |lines: Vec<Value>| -> Vec<(String, Value)> {
        let pair = |line: &Value| {
            let method = line["method"].as_str().unwrap_or("result").to_owned();
            let params = if line["params"].is_null() {
                &line["result"]
            } else {
                &line["params"]
            };
            (method, params["_meta"][SUBSCRIPTION].clone())
        };
        lines.iter().map(pair).collect()
    };
    let expected = |id: Value| {
        let methods = [ACKNOWLEDGED, CHANGED];
        methods.map(|method| (method.to_owned(), id.clone()))
    };
    assert_eq!(heard(world.read(a)), expected(json!("l")));
    assert_eq!(heard(world.read(b)), expected(json!(5)));
    assert!(world.read(c).is_empty());

    world.client(a, &cancelled(&json!("l")));
    assert!(world.get(ONE).is_empty(), "another still listens");
    world.server(ONE, &notification(CHANGED, &number));
    assert!(world.read(a).is_empty());
    assert_eq!(world.read(b).len(), 1);
    world.server(
        ONE,
        &json!({"id": number, "result": {"_meta": {SUBSCRIPTION: number}}}),
    );
    let last = world.read(b);
    assert_eq!(last[0]["id"], 5);
    assert_eq!(heard(last), [("result".to_owned(), json!(5))]);

    world.client(b, &listen(json!(6), "promptsListChanged"));
    world.client(c, &cancelled(&json!("l")));
    assert!(world.get(ONE).is_empty());
    world.client(b, &cancelled(&json!(6)));
    assert_eq!(world.get(ONE)[0]["params"]["requestId"], got[1]["id"]);
}

#[test]
fn listens_are_no_requests_but_there_is_a_limit_of_their_own() {
    let mut world = single();
    let a = world.seat(1);
    for id in 0..3 {
        world.client(a, &call(json!(id)));
    }
    for id in 10..27 {
        world.client(a, &listen(json!(id), &format!("x{id}")));
    }
    assert_eq!(world.get(ONE).len(), 3 + 16);
    assert_eq!(
        reason(&world.read(a)[0]),
        (&json!(26), 429, "in_flight_limit")
    );
}

#[test]
fn identities_take_turns_and_long_lines_of_one_keep_nobody_waiting() {
    let mut world = World::new(Limits {
        processes: 1,
        in_flight: 8,
        ..limits()
    });
    let (a, b) = (world.seat(1), world.seat(2));
    let filler = "x".repeat(60_000);
    for id in 0..5 {
        world.client(a, &request(json!(id), "long", json!({"a": filler})));
    }
    world.client(b, &call(json!(1)));
    let methods: Vec<Value> = world
        .get(ONE)
        .iter()
        .map(|line| line["method"].clone())
        .collect();
    // Two fit into the pipe before anybody else came, and the next one had its turn already.
    let expected = ["long", "long", "long", "tools/call", "long", "long"];
    assert_eq!(methods, expected);
}

#[test]
fn an_identity_has_more_than_its_share_only_while_no_other_waits() {
    let mut world = single();
    let seats: Vec<_> = (0..400).map(|_| world.seat(1)).collect();
    for seat in &seats {
        world.client(*seat, &call(json!(1)));
    }
    assert_eq!(world.get(ONE).len(), 400, "nobody else is there");
    world.hand_over();
    let b = world.seat(2);
    for id in 2..5 {
        world.client(seats[0], &call(json!(id)));
        world.client(b, &call(json!(id)));
    }
    assert_eq!(world.get(ONE).len(), 2 + 3);
}

#[test]
fn a_client_that_does_not_read_gets_nothing_more_done_and_is_closed() {
    let mut world = single();
    let (a, b) = (world.seat(1), world.seat(2));
    let filler = "x".repeat(40_000);
    let mut rounds = 0;
    world.client(a, &call(json!(0)));
    while let Some(line) = world.get(ONE).first() {
        rounds += 1;
        world.server(ONE, &json!({"id": line["id"], "result": filler}));
        world.client(a, &call(json!(rounds)));
        assert!(rounds < 10, "it gets on and on");
    }
    world.client(b, &call(json!(0)));
    assert_eq!(world.get(ONE).len(), 1, "others are served");
    world.read(a);
    assert_eq!(world.get(ONE).len(), 1, "it goes on once it reads");

    world.client(b, &listen(json!("l"), "toolsListChanged"));
    let number = world.get(ONE)[0]["id"].clone();
    for _ in 0..60 {
        let mut line = notification(CHANGED, &number);
        line["params"]["filler"] = json!(filler);
        world.server(ONE, &line);
    }
    assert!(world.memory.used() > 1024 * 1024);
    world.pass(Duration::from_secs(20));
    world.with(|share, cx| share.client_took(b, 1, cx));
    world.pass(Duration::from_secs(29));
    assert!(world.closed.is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.closed, [b]);
    world.leave(a);
    world.leave(b);
    assert_eq!(world.memory.used(), 0);
}

#[test]
fn when_memory_is_spent_whoever_holds_most_is_closed() {
    let mut world = single();
    world.memory = crate::buffers::budget::BufferBudget::new(1024 * 1024);
    let seats = [world.seat(1), world.seat(2)];
    for (seat, what) in seats.iter().zip(["a", "b"]) {
        world.client(*seat, &listen(json!(1), what));
    }
    let got = world.get(ONE);
    for count in 0..40 {
        let number = &got[usize::from(count % 4 == 0)]["id"];
        let mut line = notification(CHANGED, number);
        line["params"]["filler"] = json!("x".repeat(60_000));
        world.server(ONE, &line);
        if !world.closed.is_empty() {
            break;
        }
    }
    assert_eq!(world.closed, [seats[0]]);
}

#[test]
fn what_a_process_had_is_lost_with_it_and_what_it_never_read_is_not() {
    let mut world = single();
    let a = world.seat(1);
    world.client(a, &call(json!("read")));
    world.get(ONE);
    world.client(a, &listen(json!("l"), "x"));
    world.get(ONE);
    world.client(a, &call(json!("unread")));
    let before = world.share.to_process(ONE).to_vec();
    world.take(ONE, usize::MAX);
    world.client(a, &call(json!("half")));
    world.take(ONE, 10);
    world.client(a, &call(json!("waits")));
    let unread = [b"{}]}\n", &before[..], b"{\"id\""].concat();
    world.end_with(ONE, "signal 9 (SIGKILL)", &unread);
    let lost = world.read(a);
    let ids: Vec<&Value> = lost.iter().map(|line| &line["id"]).collect();
    assert_eq!(ids, ["read", "half", "l"]);
    assert_eq!(reason(&lost[0]).1, 502);
    assert_eq!(lost[0]["error"]["data"]["status"], "signal 9 (SIGKILL)");
    world.pass(Duration::from_secs(10));
    let again = world.get(ONE);
    assert_eq!(again.len(), 2);
    world.server(ONE, &result(&again[0]["id"]));
    world.server(ONE, &result(&again[1]["id"]));
    let ids: Vec<Value> = world
        .read(a)
        .iter()
        .map(|line| line["id"].clone())
        .collect();
    assert_eq!(ids, ["unread", "waits"]);
}

#[test]
fn sessions_are_pinned_to_the_process_with_the_fewest_and_stay_until_it_is_lost() {
    let mut world = World::new(limits());
    let seats: Vec<_> = (0..4).map(|identity| world.seat(identity)).collect();
    for seat in &seats {
        world.client(*seat, &call(json!(1)));
    }
    let got = [world.get(ProcessKey(0)), world.get(ProcessKey(1))];
    assert_eq!((got[0].len(), got[1].len()), (2, 2));
    world.server(ONE, &result(&got[0][0]["id"]));
    world.client(seats[0], &call(json!(2)));
    assert_eq!(world.get(ONE).len(), 1);
    world.end(ONE, "exit code 1");
    world.client(seats[0], &call(json!(3)));
    assert_eq!(world.get(ProcessKey(1)).len(), 1, "the other one is there");
}

#[test]
fn a_process_that_dies_too_often_is_left_alone_for_a_while() {
    let mut world = single();
    let a = world.seat(1);
    let mut crashes = 0;
    loop {
        world.client(a, &call(json!(crashes)));
        world.pass(Duration::from_secs(6));
        let got = world.get(ONE);
        let Some(request) = got.first() else {
            break;
        };
        crashes += 1;
        // It is nobody's request that kills it.
        world.server(ONE, &result(&request["id"]));
        world.end(ONE, "exit code 1");
        assert!(world.read(a)[0]["result"].is_object());
        assert!(crashes < 20);
    }
    assert_eq!(crashes, 6);
    assert_eq!(reason(&world.read(a)[0]).1, 503);
    world.client(a, &call(json!("x")));
    assert_eq!(reason(&world.read(a)[0]).2, "restart_limit");
    world.pass(Duration::from_mins(1));
    world.client(a, &call(json!("y")));
    assert_eq!(world.get(ONE).len(), 1);
}

#[test]
fn a_silent_process_with_work_gets_no_more_sessions() {
    let mut world = World::new(limits());
    let a = world.seat(1);
    world.client(a, &call(json!(1)));
    world.get(ONE);
    let b = world.seat(2);
    world.client(b, &call(json!(1)));
    let got = world.get(ProcessKey(1));
    world.pass(Duration::from_secs(10));
    world.server(ProcessKey(1), &result(&got[0]["id"]));
    for identity in 3..6 {
        let seat = world.seat(identity);
        world.client(seat, &call(json!(1)));
    }
    assert_eq!(world.get(ProcessKey(1)).len(), 3);
}

#[test]
fn the_server_is_asked_for_its_era_before_it_gets_anything() {
    let mut world = World::unprobed(limits());
    let a = world.seat(1);
    let probe = ProcessKey(2);
    world.client(a, &request(json!("d"), "server/discover", json!({})));
    assert_eq!(world.get(probe)[0]["method"], "server/discover");
    assert!(world.get(ONE).is_empty());
    let unsupported =
        json!({"id": 0, "error": {"code": -32022, "data": {"supported": ["2027-01-01"]}}});
    world.server(probe, &unsupported);
    assert_eq!(world.get(ONE)[0]["method"], "server/discover");
    world.client(a, &json!({"id": 1, "method": "initialize", "params": {}}));
    let refused = world.read(a);
    assert_eq!(reason(&refused[0]), (&json!(1), -32022, "wrong_era"));
    assert_eq!(
        refused[0]["error"]["data"]["supported"],
        json!(["2027-01-01"])
    );
    world.client(a, &json!({"id": 2, "method": "tools/list"}));
    assert_eq!(reason(&world.read(a)[0]), (&json!(2), -32602, "wrong_era"));
}

#[test]
fn a_server_that_does_not_know_the_question_is_older() {
    for ending in ["death", "silence", "error"] {
        let mut world = World::unprobed(limits());
        let a = world.seat(1);
        let probe = ProcessKey(2);
        world.client(a, &request(json!("d"), "server/discover", json!({})));
        world.get(probe);
        match ending {
            "death" => world.end(probe, "exit code 1"),
            "silence" => world.pass(Duration::from_secs(10)),
            _ => world.server(probe, &json!({"id": 0, "error": {"code": -32601}})),
        }
        assert_eq!(
            reason(&world.read(a)[0]),
            (&json!("d"), -32601, "method_not_found")
        );
        assert!(world.share.is_legacy(world.now));
        assert!(world.get(ONE).is_empty());
    }
}

#[test]
fn a_server_that_was_silent_is_asked_again_after_a_while() {
    let mut world = World::unprobed(limits());
    let probe = ProcessKey(2);
    for minutes in [1, 2, 4] {
        let a = world.seat(1);
        world.client(a, &call(json!("early")));
        assert_eq!(world.get(probe)[0]["method"], "server/discover");
        world.pass(Duration::from_secs(10));
        assert_eq!(
            reason(&world.read(a)[0]),
            (&json!("early"), -32601, "method_not_found")
        );
        assert_eq!(world.stopped.pop(), Some(probe));
        world.end(probe, "signal 15");
        world.pass(Duration::from_secs(60 * minutes - 1));
        world.client(a, &call(json!("still")));
        assert_eq!(reason(&world.read(a)[0]).2, "method_not_found");
        assert!(world.share.is_legacy(world.now));
        world.pass(Duration::from_secs(1));
        assert!(!world.share.is_legacy(world.now));
    }
    let a = world.seat(1);
    world.client(a, &call(json!("late")));
    world.get(probe);
    let modern = json!({"id": 0, "result": {"supportedVersions": ["2026-07-28"]}});
    world.server(probe, &modern);
    assert!(world.read(a).is_empty());
    assert_eq!(world.get(ONE).len(), 1, "it is shared");
}

#[test]
fn a_client_may_leave_while_the_server_is_asked() {
    let mut world = World::unprobed(limits());
    world.starts = false;
    let a = world.seat(1);
    world.client(a, &call(json!(1)));
    world.leave(a);
    let b = world.seat(2);
    world.client(b, &call(json!(1)));
    assert_eq!(world.asked, [ProcessKey(2)]);
    world.with(|share, cx| share.process_failed(ProcessKey(2), "no such file", cx));
    assert_eq!(reason(&world.read(b)[0]), (&json!(1), 503, "spawn_failed"));
    world.client(b, &call(json!(2)));
    assert_eq!(
        world.asked,
        [ProcessKey(2), ProcessKey(2)],
        "it is tried again"
    );
}

#[test]
fn whoever_makes_servers_crash_is_found_and_the_others_go_on() {
    let mut world = single();
    let (culprit, other) = (world.seat(1), world.seat(2));
    let solo = ProcessKey(2);
    for crash in 0..2 {
        world.client(culprit, &call(json!("kill")));
        world.client(other, &call(json!(crash)));
        world.pass(Duration::from_secs(6));
        assert_eq!(world.get(ONE).len(), 2);
        world.end(ONE, "exit code 1");
        assert_eq!(reason(&world.read(culprit)[0]).1, 502);
        assert_eq!(reason(&world.read(other)[0]).1, 502);
    }
    world.client(other, &call(json!("harmless")));
    world.client(other, &call(json!("too")));
    world.client(culprit, &call(json!("kill")));
    let tried = world.get(solo);
    assert_eq!(tried.len(), 1, "one request of one suspect");
    world.server(solo, &result(&tried[0]["id"]));
    assert_eq!(world.read(other)[0]["id"], "harmless");
    assert_eq!(world.get(solo).len(), 1);
    world.end(solo, "exit code 1");
    world.pass(Duration::from_secs(6));
    assert_eq!(world.get(ONE).len(), 1, "the other is free again");
    assert_eq!(reason(&world.read(culprit)[0]).2, "process_terminated");
    world.client(culprit, &call(json!("kill")));
    let refused = world.read(culprit);
    assert_eq!(reason(&refused[0]), (&json!("kill"), 503, "quarantined"));
    world.client(other, &call(json!("well")));
    assert_eq!(world.get(ONE).len(), 1);
    world.pass(Duration::from_mins(1));
    world.client(culprit, &call(json!("again")));
    assert_eq!(world.get(ONE).len(), 1, "its time is over");
}

#[test]
fn a_trial_ends_after_a_second_without_harm() {
    let mut world = single();
    let (a, b) = (world.seat(1), world.seat(2));
    let solo = ProcessKey(2);
    for _ in 0..2 {
        for seat in [a, b] {
            world.client(seat, &call(json!(1)));
        }
        world.pass(Duration::from_secs(6));
        assert_eq!(world.get(ONE).len(), 2);
        world.end(ONE, "exit code 1");
    }
    world.read(a);
    world.read(b);
    world.client(a, &call(json!("long")));
    world.client(b, &listen(json!("l"), "x"));
    world.client(b, &call(json!(2)));
    let long = world.get(solo);
    assert_eq!(long.len(), 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.get(solo).len(), 1, "the next one");
    world.leave(b);
    let told = world.get(solo);
    assert_eq!(told[0]["method"], "notifications/cancelled");
    assert_eq!(world.stopped, [ProcessKey(1)], "it was asked for its era");
    world.server(solo, &result(&long[0]["id"]));
    assert_eq!(world.read(a)[0]["id"], "long");
    assert_eq!(
        world.stopped,
        [ProcessKey(1), solo],
        "nobody needs it any more"
    );
}

#[test]
fn whoever_is_convicted_three_times_waits_longer() {
    let mut world = single();
    let a = world.seat(1);
    let solo = ProcessKey(2);
    for _ in 0..2 {
        world.client(a, &call(json!(1)));
        world.pass(Duration::from_secs(6));
        world.get(ONE);
        world.end(ONE, "exit code 1");
    }
    for conviction in 0..3 {
        world.client(a, &call(json!(2)));
        if world.get(solo).is_empty() {
            // It begins with a clean slate, and is a suspect again at once.
            world.pass(Duration::from_secs(6));
            assert_eq!(world.get(ONE).len(), 1, "{conviction}");
            world.end(ONE, "exit code 1");
            world.pass(Duration::from_secs(6));
            world.client(a, &call(json!(3)));
            if world.get(solo).is_empty() {
                assert_eq!(world.get(ONE).len(), 1);
                world.end(ONE, "exit code 1");
                world.client(a, &call(json!(4)));
                assert_eq!(world.get(solo).len(), 1);
            }
        }
        world.end(solo, "exit code 1");
        world.read(a);
        world.client(a, &call(json!("q")));
        assert_eq!(reason(&world.read(a)[0]).2, "quarantined");
        world.pass(Duration::from_mins(1));
    }
    world.client(a, &call(json!("q")));
    assert_eq!(reason(&world.read(a)[0]).2, "quarantined");
    world.pass(Duration::from_mins(9));
    world.client(a, &call(json!("free")));
    assert_eq!(world.get(ONE).len(), 1);
}

#[test]
fn a_suspect_that_only_listens_is_not_tried_and_does_not_wait_for_ever() {
    let mut world = single();
    let a = world.seat(1);
    let solo = ProcessKey(2);
    for _ in 0..2 {
        world.client(a, &call(json!(1)));
        world.pass(Duration::from_secs(6));
        world.get(ONE);
        world.end(ONE, "exit code 1");
    }
    world.client(a, &listen(json!("l"), "x"));
    world.pass(Duration::from_secs(59));
    assert!(world.get(solo).is_empty() && world.get(ONE).is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.get(ONE).len(), 1);
}

#[test]
fn a_trial_of_what_was_taken_back_keeps_nobody_waiting() {
    let mut world = single();
    let (a, b) = (world.seat(1), world.seat(2));
    let solo = ProcessKey(2);
    for _ in 0..2 {
        for seat in [a, b] {
            world.client(seat, &call(json!(1)));
        }
        world.pass(Duration::from_secs(6));
        world.get(ONE);
        world.end(ONE, "exit code 1");
    }
    world.starts = false;
    world.client(a, &call(json!(2)));
    world.client(b, &call(json!(2)));
    world.client(a, &cancelled(&json!(2)));
    assert_eq!(world.asked, [solo]);
    world.starts = true;
    world.processes.insert(solo, Vec::new());
    world.with(|share, cx| share.process_started(solo, cx));
    assert!(world.get(solo).is_empty());
    world.pass(Duration::from_secs(10));
    assert_eq!(world.get(solo).len(), 1, "the other's");
}
