//! A session whose server is started once there is something for it.

use super::*;
use crate::session::Event;

const HEARTBEAT: &str = r#"{"type":"heartbeat"}"#;
const HANDSHAKE: &str = r#"{"type":"handshake"}"#;

fn lazy() -> World {
    let world = World::with(|settings| settings.spawn = Spawn::Lazy);
    assert_eq!(world.actions, []);
    world
}

#[test]
fn the_first_message_asks_for_the_server_and_waits_for_it() {
    let mut world = lazy();
    world.client(INITIALIZE);
    world.client(INITIALIZED);
    assert!(world.session.wants_start() && world.session.waits_for_upstream());
    world.start();
    assert_eq!(world.server_got(), [INITIALIZE, INITIALIZED]);
    assert_eq!(world.took_actions(), []);
}

#[test]
fn what_is_not_for_a_server_asks_for_none() {
    let mut world = lazy();
    let long = format!(r#"{{"id":1,"method":"{}"}}"#, "x".repeat(1000));
    let long_id = format!(r#"{{"id":"{}","method":"m"}}"#, "x".repeat(1025));
    world.settings.max_message_bytes = 2000;
    world.client(&long_id);
    world.settings.max_message_bytes = 1000;
    for line in [HEARTBEAT, HANDSHAKE, "", "  \t", "no JSON", "7", &long] {
        world.client(line);
    }
    world.pass(100 * SECOND);
    assert_eq!(world.took_actions(), []);
    assert!(!world.session.wants_start());
}

#[test]
fn a_client_that_leaves_without_a_message_never_had_a_server() {
    let orderly = [Action::ShutdownClient];
    let mut ended = lazy();
    ended.client(HEARTBEAT);
    ended.client_ends();
    assert_eq!(ended.took_actions(), [Action::CloseClient]);
    let mut gone = lazy();
    gone.event(|session, cx| {
        session.handle(
            Event::ClientFailed(&std::io::ErrorKind::ConnectionReset.into()),
            cx,
        );
    });
    assert_eq!(gone.took_actions(), [Action::CloseClient]);
    let mut stopped = lazy();
    stopped.shut_down();
    stopped.pass(SECOND);
    assert_eq!(stopped.took_actions(), orderly);
    stopped.client_ends();
    for world in [&ended, &gone, &stopped] {
        assert!(world.session.is_finished());
    }
    assert_eq!(ended.reason(), "the client closed the connection");
}

#[test]
fn an_unfinished_last_line_is_served_too() {
    let mut world = lazy();
    let request = request(1);
    world.event(|session, cx| session.handle(Event::ClientBytes(request.as_bytes()), cx));
    assert_eq!(world.took_actions(), []);
    world.client_ends();
    world.start();
    assert_eq!(world.server_got(), [request]);
    world.server(&response(1));
    assert_eq!(world.client_got(), [response(1)]);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
}

#[test]
fn what_comes_while_the_proxy_is_stopped_starts_nothing() {
    let mut world = lazy();
    world.shut_down();
    world.client(&request(1));
    world.client_got_error(&json!(1), 503, "shutdown");
    world.pass(SECOND);
    assert_eq!(world.took_actions(), [Action::ShutdownClient]);
}

#[test]
fn a_lost_server_is_started_again_as_ever() {
    let mut world = lazy();
    world.client(&request(1));
    world.start();
    world.server_got();
    world.server(&response(1));
    world.client_got();
    world.pass(2 * SECOND);
    world.server_dies(Exit::Code(1));
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
}

#[test]
fn heartbeats_tell_that_there_is_no_server_yet() {
    let mut world = lazy();
    world.client(HEARTBEAT);
    let beat = |world: &mut World| {
        world.pass(30 * SECOND);
        world.client_got_json().remove(0)["mcp_alive"].take()
    };
    assert_eq!(beat(&mut world), false);
    world.client(&request(1));
    world.start();
    assert_eq!(beat(&mut world), true);
}

#[test]
fn what_is_not_for_a_server_leaves_nothing_that_waits_for_one() {
    let mut world = lazy();
    world.client(HANDSHAKE);
    assert!(world.session.held.is_none());
    world.client(INITIALIZE);
    world.start();
    assert_eq!(world.server_got(), [INITIALIZE]);
    assert!(world.session.held.is_none());
}
