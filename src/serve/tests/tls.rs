//! Connections on which TLS is to be spoken: the handshake itself is the business of whoever speaks it.

use std::time::Duration;

use super::wire::TestEnd;
use super::world::{Choice, DOOR, World};
use crate::entrance::Rules;
use crate::serve::system::Shake;

const HELLO: &str = "\u{16}hello";

/// A world in which TLS is spoken, and somebody who has just begun to.
fn shaking() -> (World, TestEnd) {
    let rules = Rules {
        tls: true,
        timeout: Duration::from_secs(10),
        ..Rules::default()
    };
    let mut world = World::of(Choice {
        rules,
        ..Choice::default()
    });
    let client = world.comes_from("192.0.2.1:1", DOOR);
    world.run();
    assert_eq!((world.proxy.visitors(), world.started()), (1, 0));
    client.says(HELLO);
    (world, client)
}

#[test]
fn whoever_has_shaken_hands_gets_a_session() {
    let (mut world, client) = shaking();
    world.run();
    client.shakes(Shake::Waits);
    world.run();
    assert_eq!((world.proxy.visitors(), world.started()), (1, 0));
    client.shakes(Shake::Done { name: None });
    world.run();
    assert_eq!((world.proxy.visitors(), world.started()), (0, 1));
    client.says("{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n");
    world.run();
    assert!(world.program(0).stdin.got().contains("\"x\""));
}

#[test]
fn whoever_fails_to_is_closed() {
    let (mut world, client) = shaking();
    world.run();
    client.shakes(Shake::Failed("no cipher in common".to_owned()));
    world.run();
    assert!(
        client.is_ended() && !client.is_closed(),
        "what TLS has said of it is to arrive"
    );
    client.leaves();
    world.run();
    assert!(client.is_closed());
    assert_eq!((world.proxy.visitors(), world.started()), (0, 0));
}

#[test]
fn whoever_takes_too_long_is_closed() {
    let (mut world, client) = shaking();
    world.pass(Duration::from_secs(9));
    assert!(!client.is_closed());
    world.pass(Duration::from_secs(2));
    assert!(client.is_closed());
    assert_eq!(world.proxy.visitors(), 0);
}

#[test]
fn when_no_tls_can_be_spoken_the_connection_is_closed() {
    let (mut world, client) = shaking();
    world.below.borrow_mut().refuses_tls = true;
    world.run();
    assert!(client.is_closed());
    assert_eq!(world.proxy.visitors(), 0);
}

#[test]
fn handshakes_of_many_go_on_side_by_side() {
    let (mut world, first) = shaking();
    let second = world.comes_from("192.0.2.2:1", DOOR);
    second.says(HELLO);
    world.run();
    for client in [&second, &first] {
        client.shakes(Shake::Done { name: None });
        world.run();
    }
    assert_eq!((world.proxy.visitors(), world.started()), (0, 2));
}

#[test]
fn at_the_end_of_a_session_tls_says_that_this_is_the_end() {
    let (mut world, client) = shaking();
    world.run();
    client.shakes(Shake::Done { name: None });
    world.run();
    assert!(!client.is_ended());
    client.leaves();
    world.run();
    world.servers_obey();
    assert!(client.is_ended() && client.is_closed());
}
