//! Long lines of which the end does not come.

use super::*;

/// More than a session holds without asking.
const LONG: usize = 100_000;

fn world() -> World {
    let mut world = World::with(|settings| settings.max_message_bytes = 10 * LONG);
    world.start();
    world
}

fn client_begins(world: &mut World, bytes: usize) {
    let part = format!("{{\"id\":1,\"method\":\"{}", "x".repeat(bytes));
    world.event(|session, cx| session.handle(Event::ClientBytes(part.as_bytes()), cx));
}

#[test]
fn a_long_line_that_stalls_is_dropped_a_minute_after_its_last_byte_and_refused_at_its_end() {
    let mut world = world();
    client_begins(&mut world, LONG);
    world.pass(59 * SECOND);
    assert!(world.memory.used() > 0);
    world.event(|session, cx| session.handle(Event::ClientBytes(b"x"), cx));
    world.pass(59 * SECOND);
    assert!(world.memory.used() > 0, "a byte has come");
    world.pass(SECOND);
    assert_eq!(world.memory.used(), 0);
    assert_eq!(world.client_got(), [""; 0], "its end may tell its id");
    world.client("\"}");
    world.client_got_error(&json!(1), -32600, "too_large");
    world.client(&request(2));
    assert_eq!(world.server_got(), [request(2)]);
}

#[test]
fn a_short_line_may_stall_for_ever() {
    let mut world = world();
    client_begins(&mut world, 60_000);
    world.pass(600 * SECOND);
    world.client("\"}");
    assert_eq!(world.server_got().len(), 1);
}

#[test]
fn a_line_of_the_server_that_stalls_is_dropped_and_whoever_waits_for_it_is_told() {
    let mut world = world();
    world.client(&request(1));
    world.server_got();
    let part = format!("{{\"id\":1,\"result\":\"{}", "x".repeat(LONG));
    world.event(|session, cx| session.handle(Event::UpstreamBytes(part.as_bytes()), cx));
    world.pass(60 * SECOND);
    assert_eq!(world.memory.used(), 0);
    world.server("\"}");
    world.client_got_error(&json!(1), 502, "response_too_large");
}

#[test]
fn a_line_that_is_not_read_does_not_stall() {
    let mut world = world();
    let line = format!("{{\"method\":\"{}\"}}\n", "x".repeat(LONG));
    world.event(|session, cx| session.handle(Event::ClientBytes(line.as_bytes()), cx));
    assert!(!world.session.wants_client_input());
    let part = format!("{{\"method\":\"{}", "x".repeat(LONG));
    let mut all = line.clone();
    all += &part;
    world.server_got();
    world.event(|session, cx| session.handle(Event::ClientBytes(all.as_bytes()), cx));
    world.pass(600 * SECOND);
    assert_eq!(world.server_got().len(), 1);
    world.client("\"}");
    assert_eq!(world.server_got().len(), 1);
}
