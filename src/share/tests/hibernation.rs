//! Processes that nobody uses.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::{ACKNOWLEDGED, World, cancelled, limits, listen, notification, request};
use crate::share::{Limits, ProcessKey, SeatKey};

const ONE: ProcessKey = ProcessKey(0);
const AFTER: Duration = Duration::from_secs(30);

/// One process, which nobody uses, and which is given back if that stays so.
fn single() -> World {
    let mut world = World::new(Limits {
        processes: 1,
        hibernate_after: Some(AFTER),
        ..limits()
    });
    pass(&mut world, AFTER);
    assert_eq!(std::mem::take(&mut world.given_back), [ONE]);
    world
}

fn pass(world: &mut World, time: Duration) {
    world.now += time;
    world.with(|share, cx| {
        if share.next_deadline().is_some_and(|at| at <= cx.now) {
            share.timeout(cx);
        }
    });
}

fn idle(world: &mut World, seat: SeatKey) {
    world.with(|share, cx| share.seat_idle(seat, cx));
}

fn call(id: u64) -> Value {
    request(json!(id), "tools/call", json!({}))
}

/// Calls something, and gets the response.
#[track_caller]
fn exchange(world: &mut World, seat: SeatKey, id: u64) {
    world.client(seat, &call(id));
    let got = world.get(ONE);
    assert_eq!(got.len(), 1, "{got:?}");
    world.server(ONE, &json!({"id": got[0]["id"], "result": {}}));
    assert_eq!(world.read(seat), [json!({"id": id, "result": {}})]);
}

#[test]
fn the_last_session_that_becomes_idle_takes_its_process_with_it_and_the_next_request_starts_one() {
    let mut world = single();
    let (a, b) = (world.seat(1), world.seat(2));
    for id in 0..3 {
        exchange(&mut world, a, id);
        exchange(&mut world, b, id);
        idle(&mut world, a);
        pass(&mut world, 10 * AFTER);
        assert_eq!(world.given_back, [], "b is not idle");
        idle(&mut world, b);
        assert_eq!(std::mem::take(&mut world.given_back), [ONE]);
        assert!(!world.processes.contains_key(&ONE));
    }
    exchange(&mut world, a, 9);
    assert!(!world.stopped.contains(&ONE));
}

#[test]
fn a_session_that_leaves_takes_it_some_time_later_unless_another_comes() {
    let mut world = single();
    let a = world.seat(1);
    exchange(&mut world, a, 1);
    world.leave(a);
    pass(&mut world, AFTER / 2);
    let b = world.seat(2);
    exchange(&mut world, b, 1);
    pass(&mut world, AFTER);
    assert_eq!(world.given_back, [], "b uses it");
    world.leave(b);
    pass(&mut world, AFTER.saturating_sub(Duration::from_millis(1)));
    assert_eq!(world.given_back, []);
    pass(&mut world, Duration::from_millis(1));
    assert_eq!(world.given_back, [ONE]);
}

#[test]
fn one_at_which_something_is_left_is_waited_for() {
    let mut world = single();
    let a = world.seat(1);
    world.client(a, &call(1));
    world.get(ONE);
    world.leave(a);
    world.get(ONE);
    pass(&mut world, AFTER);
    // It has counted for ten seconds, and is forgotten.
    pass(&mut world, Duration::from_secs(1));
    assert_eq!(world.given_back, [ONE]);
    let b = world.seat(2);
    world.client(b, &call(1));
    world.get(ONE);
    idle(&mut world, b);
    assert_eq!(world.given_back, [ONE], "b waits for a response");
}

#[test]
fn a_listen_keeps_it() {
    let mut world = single();
    let (a, b) = (world.seat(1), world.seat(2));
    world.client(a, &listen(json!("s"), "toolsListChanged"));
    let got = world.get(ONE);
    world.server(ONE, &notification(ACKNOWLEDGED, &got[0]["id"]));
    exchange(&mut world, b, 1);
    idle(&mut world, a);
    idle(&mut world, b);
    pass(&mut world, 10 * AFTER);
    assert_eq!(world.given_back, []);
    world.client(a, &cancelled(&json!("s")));
    world.get(ONE);
    idle(&mut world, a);
    pass(&mut world, Duration::from_secs(1));
    assert_eq!(world.given_back, [ONE]);
}

#[test]
fn without_the_option_none_goes() {
    let mut world = World::new(Limits {
        processes: 1,
        ..limits()
    });
    let a = world.seat(1);
    exchange(&mut world, a, 1);
    world.leave(a);
    pass(&mut world, 1000 * AFTER);
    assert_eq!(world.given_back, []);
    let b = world.seat(2);
    exchange(&mut world, b, 2);
}
