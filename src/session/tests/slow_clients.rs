//! Clients that take what they are sent, but slowly: what was written to them waits in the send queue.

use super::*;

/// A session that is about to end, of which the client has not everything.
fn ends_with_unsent(unsent: u32) -> World {
    let mut world = World::up();
    world.unsent = Some(unsent);
    world.shut_down();
    world.pass(SECOND);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    world.server_dies(Exit::Code(0));
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::ShutdownClient]
    );
    world
}

fn flooded() -> World {
    let mut world = World::up();
    world.client(&request(1));
    world.server_got();
    world.server_floods();
    world.unsent = Some(1_000_000);
    world.client_ends();
    world
}

fn is_closed(world: &mut World) -> bool {
    world.took_actions().contains(&Action::CloseClient)
}

#[test]
fn a_client_is_not_cut_off_before_it_has_everything() {
    let mut world = ends_with_unsent(1_000_000);
    for unsent in (100..1000).rev() {
        world.unsent = Some(unsent * 1000);
        world.client("heartbeat");
        world.pass(100 * MILLISECOND);
        assert!(!is_closed(&mut world));
    }
    // Nothing is left but the end of our side.
    world.unsent = Some(1);
    world.pass(900 * MILLISECOND);
    assert!(!is_closed(&mut world), "it has a second from then on");
    world.pass(1200 * MILLISECOND);
    assert!(is_closed(&mut world) && world.session.is_finished());
    assert_eq!(world.session.rare.undelivered, 0);
}

#[test]
fn what_a_client_sends_counts_once_it_has_everything() {
    let mut world = ends_with_unsent(1000);
    let heartbeats = "x".repeat(400_000);
    for _ in 0..10 {
        world.client(&heartbeats);
    }
    assert!(!is_closed(&mut world));
    world.unsent = Some(0);
    world.pass(100 * MILLISECOND);
    world.client(&heartbeats);
    assert!(!is_closed(&mut world));
    world.client(&heartbeats);
    world.client(&heartbeats);
    assert!(is_closed(&mut world));
}

#[test]
fn a_client_that_stops_taking_what_it_was_sent_is_cut_off() {
    let mut world = ends_with_unsent(5001);
    world.pass(29 * SECOND);
    assert!(!is_closed(&mut world));
    world.pass(3 * SECOND);
    assert!(is_closed(&mut world) && world.session.is_finished());
    assert_eq!(world.session.rare.undelivered, 5000);
}

#[test]
fn a_client_that_everything_was_sent_to_is_looked_at_seldom() {
    let mut world = ends_with_unsent(1_000_000);
    let mut looks = 0;
    let end = world.now + 20 * SECOND;
    while let Some(at) = world.session.next_deadline(&world.settings)
        && at < end
    {
        world.pass(at - world.now);
        looks += 1;
    }
    assert!((20..40).contains(&looks), "{looks}");
}

#[test]
fn a_client_to_which_nothing_can_be_written_is_not_given_up_as_long_as_it_takes_what_was() {
    let mut world = flooded();
    for second in 0..200 {
        world.unsent = Some(1_000_000 - second);
        world.pass(SECOND);
    }
    assert!(!is_closed(&mut world));
    world.pass(29 * SECOND);
    assert!(!is_closed(&mut world));
    world.pass(7 * SECOND);
    assert!(is_closed(&mut world));
    let waiting = world.session.rare.undelivered - u64::from(world.unsent.unwrap());
    assert!(waiting >= OUTBOX_BYTES as u64);
    let summary = world.session.summary(world.now).to_string();
    assert!(summary.contains("(0 bytes) to the client"), "{summary}");
}

#[test]
fn a_client_that_takes_nothing_from_the_first_is_given_up() {
    let mut world = flooded();
    world.pass(29 * SECOND);
    assert!(!is_closed(&mut world));
    world.pass(3 * SECOND);
    assert!(is_closed(&mut world));
    assert_eq!(world.reason(), "the client closed the connection");
}
