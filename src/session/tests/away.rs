//! A session whose connection is lost for a while: it is not its client's time that passes meanwhile.

use super::*;
use crate::session::Event;

const IDLE: Duration = Duration::from_mins(1);
const FIRST: Duration = Duration::from_secs(10);

fn kept(first_message: Option<Duration>, idle: Option<Duration>) -> World {
    let mut world = World::with(|settings| {
        settings.idle_limits = IdleLimits {
            exempts_heartbeats: false,
            first_message,
            idle,
            hibernate: None,
        };
    });
    world.start();
    world.event(|session, cx| session.handle(Event::Kept, cx));
    world
}

fn is_away(world: &mut World, time: Duration) {
    world.event(|session, cx| session.handle(Event::Detached, cx));
    world.pass(time);
    world.event(|session, cx| session.handle(Event::Attached, cx));
}

/// The session has not begun to end, and does so when this time is over.
#[track_caller]
fn ends_after(world: &mut World, time: Duration, reason: &str) {
    world.pass(time.saturating_sub(MILLISECOND));
    assert!(world.session.goal.reason().is_none(), "too early");
    world.pass(MILLISECOND + SECOND);
    assert!(world.reason().starts_with(reason), "{}", world.reason());
}

#[test]
fn the_time_without_a_connection_is_no_idle_time() {
    let mut world = kept(None, Some(IDLE));
    world.client(INITIALIZED);
    assert_eq!(world.server_got(), [INITIALIZED]);
    world.pass(IDLE / 3);
    is_away(&mut world, 3 * IDLE);
    is_away(&mut world, 2 * IDLE);
    ends_after(&mut world, 2 * (IDLE / 3), "idle_timeout: ");
}

#[test]
fn nor_does_it_count_until_the_first_message() {
    let mut world = kept(Some(FIRST), None);
    world.pass(FIRST / 2);
    is_away(&mut world, 5 * FIRST);
    ends_after(&mut world, FIRST / 2, "first_message_timeout: ");
}

#[test]
fn half_a_line_is_forgotten_with_its_connection() {
    let mut world = kept(None, None);
    let half = br#"{"jsonrpc":"2.0","method":"x","#;
    world.event(|session, cx| session.handle(Event::ClientBytes(half), cx));
    is_away(&mut world, SECOND);
    world.client(INITIALIZED);
    assert_eq!(world.server_got(), [INITIALIZED]);
}
