//! Heartbeats, both ways.

use super::*;
use crate::session::Event;

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
    let mut world = World::connector();
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
    // The third of these tells its interval; then it is silent for two and a half of them.
    let response = r#"{"type":"heartbeat_response","timestamp":1.0,"mcp_alive":true}"#;
    world.server(response);
    world.pass(10 * SECOND);
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
        settings.role = CONNECTOR;
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

/// A minute in the life of a session whose server dies now and then. Returns what the session did and when, and apart
/// from that the time stamps that it sent. `clock` is the wall clock, by tenths of a second.
fn life_by(clock: impl Fn(u32) -> Duration) -> (Vec<String>, Vec<Value>) {
    let mut world = World::with(|settings| settings.heartbeat_interval = SECOND);
    let start = world.now;
    let (mut deeds, mut stamps) = (Vec::new(), Vec::new());
    for tenth in 0..600 {
        world.unix_time = clock(tenth);
        match tenth {
            1 => world.client(HEARTBEAT),
            2 => world.client(INITIALIZE),
            3 => world.client(INITIALIZED),
            50 | 90 | 150 => world.server_dies(Exit::Code(3)),
            51 | 91 => world.client(&request(u64::from(tenth))),
            500 => world.client_ends(),
            _ => {}
        }
        for action in world.took_actions() {
            deeds.push(format!("{tenth}: {action:?}"));
            if action == Action::StartUpstream {
                world.event(|session, cx| {
                    session.handle(Event::UpstreamStarted { pid: Some(7) }, cx);
                });
            }
        }
        for line in world.server_got() {
            let message: Value = serde_json::from_str(&line).unwrap();
            if message["method"] == "initialize" {
                world.server(&AGREED.replace("\"id\":1", &format!("\"id\":{}", message["id"])));
            }
            deeds.push(format!("{tenth}: to the server: {line}"));
        }
        for mut message in world.client_got_json() {
            for stamp in ["/timestamp", "/params/timestamp"] {
                stamps.extend(message.pointer_mut(stamp).map(Value::take));
            }
            deeds.push(format!("{tenth}: to the client: {message}"));
        }
        world.pass(100 * MILLISECOND);
        let deadline = world.session.next_deadline(&world.settings);
        deeds.push(format!("{tenth}: {:?}", deadline.map(|at| at - start)));
    }
    (deeds, stamps)
}

#[test]
fn a_jump_of_the_wall_clock_changes_time_stamps_only() {
    let year = 365 * 24 * 60 * 60 * SECOND;
    let (deeds, stamps) = life_by(|_| SECOND);
    assert!(stamps.len() > 30 && stamps.iter().all(|stamp| stamp == 1.0));
    let restarted = |deed: &&String| deed.contains("serverRestarted");
    assert_eq!(deeds.iter().filter(restarted).count(), 3, "{deeds:#?}");
    let clocks: [&dyn Fn(u32) -> Duration; 4] = [
        &|tenth| 50 * year + tenth * 100 * MILLISECOND,
        &|tenth| if tenth < 70 { 50 * year } else { 90 * year },
        &|tenth| {
            if tenth < 70 {
                50 * year
            } else {
                Duration::ZERO
            }
        },
        &|tenth| (tenth % 7) * year,
    ];
    for clock in clocks {
        let (same_deeds, other_stamps) = life_by(clock);
        assert_eq!(same_deeds, deeds);
        assert!(other_stamps.len() == stamps.len() && other_stamps != stamps);
    }
}
