//! Processes that are replaced in good order.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::{World, cancelled, limits, listen, request};
use crate::share::{Limits, ProcessKey};

const ONE: ProcessKey = ProcessKey(0);
/// Where the next one has its place.
const NEXT: ProcessKey = ProcessKey(3);

const AGE: Duration = Duration::from_secs(100);

/// What the first process was asked to begin with counts no more.
fn world(limits: Limits) -> World {
    let mut world = World::new(limits);
    world.pass(Duration::from_secs(10));
    world.stopped.clear();
    world
}

fn aging() -> World {
    world(Limits {
        processes: 1,
        max_age: Some(AGE + Duration::from_secs(10)),
        ..limits()
    })
}

fn call(id: u64) -> Value {
    request(json!(id), "tools/call", json!({}))
}

fn result(number: &Value) -> Value {
    json!({"id": number, "result": {}})
}

#[test]
fn an_old_process_answers_what_it_has_and_a_new_one_what_follows() {
    let mut world = aging();
    let (a, b) = (world.seat(1), world.seat(2));
    world.client(a, &call(1));
    world.client(b, &call(1));
    world.client(b, &listen(json!("l"), "toolsListChanged"));
    let got = world.get(ONE);
    world.pass(AGE);
    let told = world.get(ONE);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["params"]["requestId"], got[2]["id"], "the listen");
    let closed = world.read(b);
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["id"], "l");
    assert!(closed[0]["result"].is_object());
    world.client(a, &call(2));
    assert_eq!(world.get(NEXT).len(), 1);
    assert!(world.get(ONE).is_empty());
    world.client(b, &cancelled(&json!(1)));
    assert_eq!(world.get(ONE)[0]["params"]["requestId"], got[1]["id"]);
    world.server(ONE, &result(&got[0]["id"]));
    assert_eq!(world.read(a), [result(&json!(1))]);
    assert!(!world.stopped.contains(&ONE), "a request still counts");
    world.server(ONE, &result(&got[1]["id"]));
    assert!(world.stopped.contains(&ONE));
    world.end(ONE, "exit code 0");
    world.client(b, &call(3));
    assert_eq!(world.get(NEXT).len(), 1, "it was no loss");
}

#[test]
fn what_an_old_process_does_not_answer_in_time_is_lost() {
    let mut world = aging();
    let a = world.seat(1);
    world.client(a, &call(1));
    world.get(ONE);
    world.pass(AGE + Duration::from_secs(29));
    assert!(!world.stopped.contains(&ONE));
    world.pass(Duration::from_secs(1));
    assert!(world.stopped.contains(&ONE));
    assert!(world.read(a).is_empty(), "it may answer until it is gone");
    world.end(ONE, "signal 15 (SIGTERM)");
    let read = world.read(a);
    assert_eq!(read[0]["error"]["data"]["reason"], "process_terminated");
    assert_eq!(world.share.next_deadline(), None);
}

#[test]
fn an_old_process_with_nothing_to_do_goes_at_once_and_none_takes_its_place() {
    let mut world = aging();
    let a = world.seat(1);
    world.client(a, &call(1));
    let got = world.get(ONE);
    world.server(ONE, &result(&got[0]["id"]));
    world.pass(AGE);
    assert!(world.stopped.contains(&ONE));
    assert!(!world.processes.contains_key(&NEXT));
    world.end(ONE, "exit code 0");
    assert_eq!(world.share.next_deadline(), None);
}

#[test]
fn a_process_serves_so_many_requests_and_places_are_used_again() {
    let mut world = world(Limits {
        processes: 1,
        max_requests: Some(3),
        ..limits()
    });
    let a = world.seat(1);
    let mut served = Vec::new();
    for id in 0..12 {
        world.client(a, &call(id));
        let all: Vec<ProcessKey> = world.processes.keys().copied().collect();
        for process in all {
            for line in world.get(process) {
                served.push(process.0);
                world.server(process, &result(&line["id"]));
            }
        }
        for process in std::mem::take(&mut world.stopped) {
            world.end(process, "exit code 0");
        }
    }
    // One request was there before.
    assert_eq!(served, [0, 0, 3, 3, 3, 0, 0, 0, 3, 3, 3, 0]);
    assert_eq!(world.read(a).len(), 12);
}

#[test]
fn what_waits_goes_to_the_next_when_a_process_has_had_enough() {
    let mut world = world(Limits {
        processes: 1,
        in_flight: 8,
        max_requests: Some(2),
        ..limits()
    });
    let a = world.seat(1);
    for id in 0..5 {
        world.client(a, &call(id));
    }
    assert_eq!(world.get(ONE).len(), 1, "one was there before");
    assert_eq!(world.get(NEXT).len(), 2);
    assert_eq!(world.get(ProcessKey(4)).len(), 2);
}

#[test]
fn losses_are_remembered_beyond_a_replacement() {
    let mut world = world(Limits {
        processes: 1,
        max_restarts: 1,
        max_age: Some(Duration::from_secs(15)),
        ..limits()
    });
    let a = world.seat(1);
    let mut process = ONE;
    for (id, next) in [(1, ONE), (2, NEXT)] {
        world.client(a, &call(id));
        let got = world.get(process);
        world.server(process, &result(&got[0]["id"]));
        if id == 1 {
            world.pass(Duration::from_secs(2));
            world.end(process, "exit code 1");
        } else {
            world.pass(Duration::from_secs(15));
            world.end(process, "exit code 0");
        }
        process = next;
    }
    world.client(a, &call(3));
    let got = world.get(NEXT);
    world.server(NEXT, &result(&got[0]["id"]));
    world.end(NEXT, "exit code 1");
    world.client(a, &call(4));
    let read = world.read(a);
    assert_eq!(
        read.last().unwrap()["error"]["data"]["reason"],
        "restart_limit"
    );
}

#[test]
fn all_processes_may_be_renewed_and_the_server_is_asked_again() {
    let mut world = world(limits());
    let a = world.seat(1);
    world.client(a, &call(1));
    let got = world.get(ONE);
    world.with(super::super::Share::renew);
    world.client(a, &call(2));
    let probe = ProcessKey(2);
    assert_eq!(world.get(probe)[0]["method"], "server/discover");
    world.server(
        probe,
        &json!({"id": 0, "result": {"supportedVersions": ["2026-07-28"]}}),
    );
    assert!(world.get(ONE).is_empty());
    assert_eq!(world.get(ProcessKey(1)).len(), 1);
    world.server(ONE, &result(&got[0]["id"]));
    assert_eq!(world.read(a), [result(&json!(1))]);
    assert!(world.stopped.contains(&ONE));
}
