//! Peers that say nothing any more, and what the system is asked about them.

use std::io;

use nix::errno::Errno;

use super::*;

const ANNOUNCEMENT: &str = r#"{"type":"handshake","supports_heartbeat":true}"#;

fn took_checks(world: &mut World) -> usize {
    let actions = world.took_actions();
    assert!(actions.iter().all(|it| *it == Action::CheckClient));
    actions.len()
}

#[test]
fn a_client_that_says_nothing_for_long_may_have_vanished() {
    let mut world = World::up();
    world.client(ANNOUNCEMENT);
    world.pass(119 * SECOND);
    assert_eq!(took_checks(&mut world), 0);
    world.pass(31 * SECOND);
    assert_eq!(took_checks(&mut world), 2, "at each heartbeat");
    world.client(ANNOUNCEMENT);
    world.pass(119 * SECOND);
    assert_eq!(took_checks(&mut world), 0, "it was heard");
    world.pass(11 * SECOND);
    assert_eq!(took_checks(&mut world), 1);
    let vanished = io::Error::from(Errno::ETIMEDOUT);
    world.event(|session, cx| session.handle(Event::ClientFailed(&vanished), cx));
    assert_eq!(
        world.took_actions(),
        [Action::CloseClient, Action::StopUpstream]
    );
    assert!(world.reason().contains("timed out"), "{}", world.reason());
}

#[test]
fn a_client_that_is_not_read_may_have_vanished_too() {
    let mut world = World::up();
    world.client(ANNOUNCEMENT);
    while world.session.wants_client_input() {
        world.client(&format!(
            r#"{{"method":"m","params":"{}"}}"#,
            "x".repeat(900)
        ));
    }
    world.pass(130 * SECOND);
    assert_eq!(took_checks(&mut world), 1);
}

#[test]
fn a_client_without_heartbeats_is_not_asked_about() {
    let mut world = World::up();
    world.client(&request(1));
    world.pass(1000 * SECOND);
    assert_eq!(took_checks(&mut world), 0);
}

#[test]
fn a_proxy_that_says_nothing_for_long_may_have_vanished() {
    let mut world = World::connector();
    world.start();
    world.pass(119 * SECOND);
    assert_eq!(world.took_actions(), []);
    world.pass(2 * SECOND);
    assert_eq!(world.took_actions(), [Action::CheckUpstream]);
    world.server(r#"{"method":"progress"}"#);
    world.pass(100 * SECOND);
    assert_eq!(world.took_actions(), []);
}
