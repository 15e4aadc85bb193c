//! Which process a session gets, and what needs none.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::{World, limits, request};
use crate::share::{Identity, Limits, ProcessKey, SeatKey};
use crate::util::client_address::Origin;

const ONE: ProcessKey = ProcessKey(0);
const TWO: ProcessKey = ProcessKey(1);

fn call(id: u64) -> Value {
    request(json!(id), "tools/call", json!({}))
}

fn named(world: &mut World, name: &str) -> SeatKey {
    let identity = Identity::new(Origin::Ipv4(1), Some(name));
    world.share.take_seat(identity)
}

/// Has a session ask something. Returns the process that it has.
fn asks(world: &mut World, seat: SeatKey) -> ProcessKey {
    world.client(seat, &call(1));
    for process in [ONE, TWO] {
        if let [line] = &world.get(process)[..] {
            world.server(process, &json!({"id": line["id"], "result": {}}));
            return process;
        }
    }
    panic!("it is at no process");
}

#[test]
fn a_named_client_goes_back_to_the_process_that_it_used_last() {
    let mut world = World::new(limits());
    let crowd: Vec<SeatKey> = (0..2).map(|identity| world.seat(identity)).collect();
    for seat in &crowd {
        asks(&mut world, *seat);
    }
    let ann = named(&mut world, "ann");
    let used = asks(&mut world, ann);
    assert_eq!(used, ONE);
    world.leave(ann);
    for identity in 0..2 {
        let seat = world.seat(identity);
        asks(&mut world, seat);
    }
    let more = world.seat(3);
    assert_eq!(asks(&mut world, more), ONE);
    let bob = named(&mut world, "bob");
    assert_eq!(asks(&mut world, bob), TWO, "few are there");
    let ann = named(&mut world, "ann");
    world.hand_over();
    assert_eq!(asks(&mut world, ann), ONE);
    let second = named(&mut world, "ann");
    assert_eq!(asks(&mut world, second), TWO, "she has another session");
    world.leave(ann);
    world.leave(second);
    world.pass(Duration::from_mins(10));
    let ann = named(&mut world, "ann");
    asks(&mut world, ann);
}

#[test]
fn a_process_that_is_gone_is_not_gone_back_to() {
    let mut world = World::new(limits());
    let ann = named(&mut world, "ann");
    assert_eq!(asks(&mut world, ann), ONE);
    world.leave(ann);
    world.pass(Duration::from_secs(2));
    world.end(ONE, "exit code 1");
    let other = world.seat(2);
    assert_eq!(asks(&mut world, other), ONE, "the next one in its place");
    let ann = named(&mut world, "ann");
    assert_eq!(asks(&mut world, ann), TWO);
}

#[test]
fn names_have_limits_of_their_own_wherever_they_come_from() {
    let mut world = World::new(Limits {
        processes: 1,
        in_flight: 1000,
        ..limits()
    });
    let (ann, bob) = (named(&mut world, "ann"), named(&mut world, "bob"));
    for id in 0..300 {
        world.client(ann, &call(id));
    }
    assert_eq!(world.get(ONE).len(), 300, "nobody else waits");
    let filler = json!({"a": "x".repeat(60_000)});
    for id in 300..304 {
        world.client(ann, &request(json!(id), "long", filler.clone()));
    }
    world.client(bob, &call(1));
    let got = world.get(ONE);
    let methods: Vec<&str> = got
        .iter()
        .map(|line| line["method"].as_str().unwrap())
        .collect();
    let of_bob = methods.iter().position(|method| *method == "tools/call");
    assert!(of_bob.is_some_and(|at| at <= 3), "{methods:?}");
}

#[test]
fn nobody_gets_a_process_that_takes_nothing_until_it_does() {
    let mut world = World::new(Limits {
        processes: 1,
        ..limits()
    });
    let a = world.seat(1);
    world.client(a, &call(1));
    world.pass(Duration::from_secs(10));
    let b = world.seat(2);
    world.client(b, &call(1));
    assert_eq!(world.share.load(ONE, world.now).seats, 1);
    world.take(ONE, 1);
    assert_eq!(world.share.load(ONE, world.now).seats, 2);
    assert_eq!(world.get(ONE).len(), 2);
}

#[test]
fn a_process_that_works_for_long_is_used_if_there_is_no_other() {
    let mut world = World::new(Limits {
        processes: 1,
        ..limits()
    });
    let a = world.seat(1);
    world.client(a, &call(1));
    assert_eq!(world.get(ONE).len(), 1);
    world.pass(Duration::from_mins(1));
    let b = world.seat(2);
    world.client(b, &call(1));
    assert_eq!(world.get(ONE).len(), 1);
}

fn discover(id: u64, version: &str) -> Value {
    let mut line = request(json!(id), "server/discover", json!({}));
    line["params"]["_meta"][super::world::VERSION] = json!(version);
    line
}

#[test]
fn what_a_server_is_may_be_told_by_the_proxy_while_it_lasts() {
    let mut world = World::new(limits());
    let a = world.seat(1);
    world.client(a, &discover(1, "v1"));
    let number = world.get(ONE)[0]["id"].clone();
    let what = json!({"ttlMs": 5000, "cacheScope": "public", "supportedVersions": []});
    world.server(ONE, &json!({"id": number, "result": what}));
    world.read(a);
    let b = world.seat(2);
    world.client(b, &discover(7, "v1"));
    assert_eq!(world.read(b), [json!({"id": 7, "result": what})]);
    world.client(b, &discover(8, "v2"));
    assert!(world.read(b).is_empty());
    let second = world.get(TWO);
    assert_eq!(second.len(), 1, "another version");
    world.server(
        TWO,
        &json!({"id": second[0]["id"], "error": {"code": -32022}}),
    );
    world.read(b);
    world.client(b, &discover(9, "v2"));
    assert_eq!(world.get(TWO).len(), 1, "errors are not kept");
    world.pass(Duration::from_secs(5));
    world.client(b, &discover(10, "v1"));
    assert_eq!(world.get(TWO).len(), 1, "its time is over");
}

#[test]
fn what_a_server_was_is_forgotten_with_its_process() {
    let mut world = World::new(limits());
    let a = world.seat(1);
    world.client(a, &discover(1, "v1"));
    let number = world.get(ONE)[0]["id"].clone();
    let what = json!({"ttlMs": 500_000, "cacheScope": "public"});
    world.server(ONE, &json!({"id": number, "result": what}));
    world.pass(Duration::from_secs(2));
    world.end(ONE, "exit code 1");
    world.read(a);
    world.client(a, &discover(2, "v1"));
    assert_eq!(world.get(ONE).len(), 1);
}
