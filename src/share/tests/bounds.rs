//! What there may be at most, and what becomes of what is more.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::{SUBSCRIPTION, World, cancelled, limits, listen, notification, request};
use crate::share::{Limits, ProcessKey, SeatKey};

const ONE: ProcessKey = ProcessKey(0);

/// Where suspects are tried if one process is shared.
const SOLO: ProcessKey = ProcessKey(2);

const SECOND: Duration = Duration::from_secs(1);

/// One process, at which nothing counts any more of what it took to get there.
fn single(in_flight: usize) -> World {
    let mut world = World::new(Limits {
        processes: 1,
        in_flight,
        ..limits()
    });
    world.pass(10 * SECOND);
    world
}

fn call(id: u64) -> Value {
    request(json!(id), "tools/call", json!({}))
}

fn result(number: &Value) -> Value {
    json!({"id": number, "result": {}})
}

fn reason(line: &Value) -> (i64, &str) {
    let reason = line["error"]["data"]["reason"].as_str().unwrap();
    (line["error"]["code"].as_i64().unwrap(), reason)
}

/// A process that has crashed twice within a minute while these had requests there.
fn suspected(world: &mut World, seats: &[SeatKey]) {
    for _ in 0..2 {
        for seat in seats {
            world.client(*seat, &call(1));
        }
        world.pass(6 * SECOND);
        assert_eq!(world.get(ONE).len(), seats.len());
        world.end(ONE, "exit code 1");
        for seat in seats {
            assert_eq!(reason(&world.read(*seat)[0]).1, "process_terminated");
        }
    }
}

#[test]
fn a_process_has_1024_requests_and_the_others_wait() {
    let mut world = single(8);
    let seats: Vec<SeatKey> = (0..150).map(|identity| world.seat(identity)).collect();
    for seat in &seats {
        for id in 0..8 {
            world.client(*seat, &call(id));
        }
    }
    let got = world.get(ONE);
    assert_eq!(got.len(), 1024);
    assert_eq!(world.share.load(ONE, world.now).in_flight, 1024);
    world.server(ONE, &result(&got[0]["id"]));
    world.server(ONE, &result(&got[1]["id"]));
    assert_eq!(world.get(ONE).len(), 2);
    // Nobody was refused anything.
    let read: usize = seats.iter().map(|seat| world.read(*seat).len()).sum();
    assert_eq!(read, 2);
}

#[test]
fn a_process_has_512_listens_and_more_are_refused() {
    let mut world = single(8);
    let seats: Vec<SeatKey> = (0..33).map(|identity| world.seat(identity)).collect();
    for (at, seat) in seats.iter().enumerate() {
        for id in 0..16 {
            world.client(*seat, &listen(json!(id), &format!("{at} {id}")));
        }
    }
    let got = world.get(ONE);
    assert_eq!(got.len(), 512);
    let (last, others) = seats.split_last().unwrap();
    assert!(others.iter().all(|seat| world.read(*seat).is_empty()));
    let refused = world.read(*last);
    assert_eq!(refused.len(), 16);
    let expected = (429, "in_flight_limit");
    assert!(refused.iter().all(|line| reason(line) == expected));
    // One that is there is shared all the same.
    world.client(*last, &listen(json!("same"), "0 0"));
    assert!(world.get(ONE).is_empty() && world.read(*last).is_empty());
    world.client(seats[1], &cancelled(&json!(0)));
    assert_eq!(world.get(ONE).len(), 1);
    world.client(*last, &listen(json!("new"), "new"));
    assert_eq!(world.get(ONE).len(), 1);
}

#[test]
fn a_line_that_was_begun_is_written_to_its_end_whoever_leaves() {
    let mut world = single(8);
    let (a, b) = (world.seat(1), world.seat(2));
    world.client(a, &call(1));
    let begun = world.share.to_process(ONE).len();
    world.take(ONE, 10);
    world.leave(a);
    world.client(b, &call(1));
    world.take(ONE, begun - 10);
    let [whole] = &world.take_lines(ONE)[..] else {
        panic!("a line is not whole");
    };
    let rest = world.get(ONE);
    assert_eq!(rest[0]["method"], "notifications/cancelled");
    assert_eq!(rest[0]["params"]["requestId"], whole["id"]);
    assert_eq!(rest[1]["method"], "tools/call");
    world.server(ONE, &result(&whole["id"]));
    assert!(world.read(b).is_empty());
}

#[test]
fn what_a_client_has_left_behind_counts_for_ten_seconds() {
    let mut world = single(8);
    let a = world.seat(1);
    for id in 0..3 {
        world.client(a, &call(id));
    }
    let got = world.get(ONE);
    world.leave(a);
    let in_flight = |world: &World| world.share.load(ONE, world.now).in_flight;
    assert_eq!(in_flight(&world), 3);
    world.server(ONE, &result(&got[0]["id"]));
    assert_eq!(in_flight(&world), 2);
    world.pass(10 * SECOND);
    assert_eq!(in_flight(&world), 0);
    world.server(ONE, &result(&got[1]["id"]));
    let drops = world.share.drops();
    assert_eq!((drops.late, drops.unknown_responses), (1, 1));
}

#[test]
fn what_is_too_long_for_its_receiver_is_refused_or_dropped() {
    let mut world = World::new(Limits {
        processes: 1,
        max_message_bytes: 200,
        ..limits()
    });
    let a = world.seat(1);
    // Numbers of two digits are longer than this id.
    for _ in 0..10 {
        world.client(a, &call(1));
        let number = world.get(ONE)[0]["id"].clone();
        world.server(ONE, &result(&number));
        assert!(world.read(a)[0]["result"].is_object());
    }
    let line = |bytes: usize| {
        let empty = request(json!(1), "x", json!({"a": ""})).to_string().len();
        request(json!(1), "x", json!({"a": "x".repeat(bytes - empty)}))
    };
    world.client(a, &line(200));
    assert!(world.get(ONE).is_empty());
    assert_eq!(reason(&world.read(a)[0]), (-32600, "too_large"));
    world.client(a, &line(199));
    assert_eq!(world.get(ONE).len(), 1);

    let id = "i".repeat(60);
    world.client(a, &listen(json!(id), "x"));
    let number = world.get(ONE)[0]["id"].clone();
    let mut changed = notification("x", &number);
    changed["filler"] = json!("");
    let empty = changed.to_string().len();
    changed["filler"] = json!("x".repeat(199 - empty));
    world.server(ONE, &changed);
    assert!(world.read(a).is_empty());
    changed["filler"] = json!("x".repeat(300));
    world.server(ONE, &changed);
    assert!(world.read(a).is_empty());
    assert_eq!(world.share.drops().unreadable, 2);
    changed["filler"] = json!("");
    world.server(ONE, &changed);
    assert_eq!(world.read(a)[0]["params"]["_meta"][SUBSCRIPTION], json!(id));
}

#[test]
fn what_a_server_gives_up_is_over_and_its_client_is_told_by_its_own_id() {
    let mut world = single(1);
    let (a, b) = (world.seat(1), world.seat(2));
    world.client(a, &call(7));
    let number = world.get(ONE)[0]["id"].clone();
    world.client(a, &call(8));
    assert!(world.get(ONE).is_empty());
    world.client(b, &call(7));
    world.get(ONE);
    world.server(ONE, &cancelled(&number));
    assert_eq!(world.read(a), [cancelled(&json!(7))]);
    assert!(world.read(b).is_empty());
    assert_eq!(world.get(ONE).len(), 1, "the next one has its place");
    world.server(ONE, &result(&number));
    world.server(ONE, &cancelled(&json!(12345)));
    assert!(world.read(a).is_empty() && world.read(b).is_empty());
}

#[test]
fn there_are_no_more_processes_than_the_limits_say() {
    let limits = Limits {
        legacy: true,
        ..limits()
    };
    let mut world = World::new(limits);
    for identity in 0..10 {
        let seat = world.seat(identity);
        world.client(seat, &call(1));
    }
    let versions = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
    for (at, version) in versions.iter().cycle().take(40).enumerate() {
        let seat = world.seat(at as u32);
        let params = json!({"protocolVersion": version, "capabilities": {}});
        let initialize = json!({"id": 1, "method": "initialize", "params": params});
        world.client(seat, &initialize);
        let all: Vec<ProcessKey> = world.processes.keys().copied().collect();
        for process in all {
            for line in world.get(process) {
                if line["method"] == "initialize" {
                    let version = &line["params"]["protocolVersion"];
                    let agreed = json!({"protocolVersion": version, "capabilities": {}});
                    world.server(process, &json!({"id": line["id"], "result": agreed}));
                }
            }
        }
        world.client(seat, &json!({"id": 2, "method": "tools/list"}));
    }
    // The one that was asked for the era is gone, and nobody is suspected of anything.
    assert_eq!(world.processes.len(), limits.most_processes() - 2);
    assert_eq!(world.processes.len(), 2 + 4 * 2);
}

#[test]
fn deaths_of_those_who_are_tried_cost_no_restarts() {
    let mut world = World::new(Limits {
        processes: 1,
        max_restarts: 3,
        ..limits()
    });
    let culprits = [world.seat(1), world.seat(2), world.seat(3)];
    suspected(&mut world, &culprits);
    for seat in culprits {
        world.client(seat, &call(2));
        assert_eq!(world.get(SOLO).len(), 1);
        world.end(SOLO, "exit code 1");
        assert_eq!(reason(&world.read(seat)[0]).1, "process_terminated");
        world.client(seat, &call(3));
        assert_eq!(reason(&world.read(seat)[0]).1, "quarantined");
    }
    // Two of three restarts were needed: the third one is left.
    let other = world.seat(9);
    for is_left in [true, false] {
        world.client(other, &call(1));
        world.pass(6 * SECOND);
        assert_eq!(world.get(ONE).len(), 1);
        // It is nobody's request that kills it.
        world.client(other, &cancelled(&json!(1)));
        let told = world.get(ONE);
        world.server(ONE, &result(&told[0]["params"]["requestId"]));
        world.end(ONE, "exit code 1");
        if !is_left {
            world.client(other, &call(2));
            assert_eq!(reason(&world.read(other)[0]).1, "restart_limit");
        }
    }
}

#[test]
fn only_those_are_suspects_whose_requests_were_at_the_process() {
    let mut world = single(1);
    let (culprit, idle) = (world.seat(1), world.seat(2));
    world.client(idle, &call(1));
    let number = world.get(ONE)[0]["id"].clone();
    world.server(ONE, &result(&number));
    world.read(idle);
    suspected(&mut world, &[culprit]);
    world.client(idle, &call(2));
    world.pass(6 * SECOND);
    assert_eq!(world.get(ONE).len(), 1, "as if nothing had happened");
    assert!(world.get(SOLO).is_empty());
    world.client(culprit, &call(2));
    assert_eq!(world.get(SOLO).len(), 1);
}

#[test]
fn crashes_that_are_more_than_a_minute_apart_make_nobody_a_suspect() {
    let mut world = single(1);
    let a = world.seat(1);
    for crash in 0..3 {
        world.client(a, &call(crash));
        world.pass(6 * SECOND);
        assert_eq!(world.get(ONE).len(), 1, "{crash}");
        world.end(ONE, "exit code 1");
        assert_eq!(reason(&world.read(a)[0]).1, "process_terminated");
        world.pass(60 * SECOND);
    }
    assert!(world.get(SOLO).is_empty());
}

#[test]
fn a_process_that_was_silent_serves_new_sessions_again_once_it_speaks() {
    let mut world = World::new(limits());
    let (a, b) = (world.seat(1), world.seat(2));
    world.client(a, &call(1));
    let number = world.get(ONE)[0]["id"].clone();
    world.client(b, &call(1));
    let other = world.get(ProcessKey(1))[0]["id"].clone();
    world.pass(10 * SECOND);
    world.server(ProcessKey(1), &result(&other));
    assert!(world.share.load(ONE, world.now).is_silent);
    assert!(!world.share.load(ProcessKey(1), world.now).is_silent);
    let c = world.seat(3);
    world.client(c, &call(1));
    assert_eq!(world.get(ProcessKey(1)).len(), 1);
    world.server(ONE, &result(&number));
    assert!(!world.share.load(ONE, world.now).is_silent);
    let d = world.seat(4);
    world.client(d, &call(1));
    assert_eq!(world.get(ONE).len(), 1);
}
