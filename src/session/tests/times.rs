//! Heartbeats, both ways.

use super::*;

const HEARTBEAT: &str = r#"{"type":"heartbeat"}"#;

#[test]
fn heartbeats_come_at_whole_intervals_since_the_session_began() {
    let mut world = World::up();
    world.pass(47 * SECOND);
    world.client(HEARTBEAT);
    world.pass(12 * SECOND);
    assert_eq!(world.client_got(), Vec::<String>::new());
    for _ in 0..5 {
        world.pass(SECOND);
        let got = world.client_got_json();
        assert_eq!(got.len(), 1, "{got:?}");
        assert_eq!(
            got[0],
            json!({"type": "heartbeat_response", "timestamp": 1.0, "mcp_alive": true})
        );
        world.pass(29 * SECOND);
        assert_eq!(world.client_got(), Vec::<String>::new());
    }
}

#[test]
fn one_heartbeat_waits_at_most() {
    let mut world = World::up();
    world.client(HEARTBEAT);
    world.pass(1000 * SECOND);
    assert_eq!(world.client_got().len(), 1);
    world.pass(30 * SECOND);
    assert_eq!(world.client_got().len(), 1);
}

#[test]
fn heartbeats_tell_that_there_is_no_server() {
    let mut world = World::new();
    world.client(HEARTBEAT);
    let beat = |world: &mut World| {
        world.pass(30 * SECOND);
        world.client_got_json().remove(0)["mcp_alive"].take()
    };
    assert_eq!(beat(&mut world), false);
    world.start();
    assert_eq!(beat(&mut world), true);
}

#[test]
fn a_connector_sends_heartbeats_of_its_own_while_nothing_happens() {
    let mut world = World::with(|settings| {
        settings.role = Role::Connector {
            max_delay: SECOND,
            max_attempts: None,
        };
    });
    world.start();
    let got = world.server_got();
    assert!(got.len() == 1 && got[0].contains("handshake"), "{got:?}");
    for _ in 0..3 {
        world.pass(30 * SECOND);
        let got = world.server_got();
        assert!(
            got.len() == 1 && got[0].contains("\"heartbeat\""),
            "{got:?}"
        );
    }
    // Its interval is known by the second of these; it is silent for two and a half of them.
    let response = r#"{"type":"heartbeat_response","timestamp":1.0,"mcp_alive":true}"#;
    world.server(response);
    world.pass(10 * SECOND);
    world.server(response);
    world.pass(24 * SECOND);
    assert_eq!(world.took_actions(), []);
    world.pass(2 * SECOND);
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
}

#[test]
fn a_connector_that_ends_its_connection_has_no_more_to_say() {
    let mut world = World::with(|settings| {
        settings.heartbeat_interval = 5 * SECOND;
        settings.role = Role::Connector {
            max_delay: SECOND,
            max_attempts: None,
        };
    });
    world.start();
    world.server_got();
    world.client_ends();
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    world.pass(9 * SECOND);
    world.server_output_ends();
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::CloseClient]
    );
    assert!(world.session.is_finished() && world.session.failure().is_none());
}
