//! Clients that come back to their sessions all at once, from one address, as after an upgrade over TLS.

use std::time::Duration;

use super::wire::TestEnd;
use super::world::{Choice, DOOR, World};
use crate::entrance::{Capacity, Rules};
use crate::serve::Limits;
use crate::serve::system::Shake;
use crate::session::backlog::LINES_PER_RUN;

/// More than one address may have in the entrance.
const CLIENTS: usize = Capacity::MAX_OF_ONE_ORIGIN + 20;

fn world() -> World {
    let default = Choice::default();
    World::of(Choice {
        limits: Limits {
            places: Capacity::MAX_PLACES,
            resume_timeout: Some(Duration::from_mins(2)),
            ..default.limits
        },
        rules: Rules {
            tls: true,
            timeout: Duration::from_secs(10),
            ..Rules::default()
        },
        ..default
    })
}

/// Somebody from the same address as all others, in the entrance.
fn comes(world: &mut World) -> TestEnd {
    let client = world.comes_from("192.0.2.1:1", DOOR);
    client.says("\u{16}hello");
    world.run();
    client
}

fn shakes(world: &mut World, client: &TestEnd) {
    client.shakes(Shake::Done { name: None });
    world.run();
}

/// A first line that asks for the session to be kept, as a client that was `previous`.
fn first_line(number: usize, previous: Option<usize>) -> String {
    let previous = previous.map_or_else(String::new, |previous| {
        format!(r#","previous":{{"session":"{previous:032x}","attempt":1,"lines":0}}"#)
    });
    format!(
        r#"{{"type":"handshake","resume":{{"version":1,"session":"{number:032x}","heartbeat":30{previous}}}}}"#
    )
}

/// Sessions that have lost their connections.
fn lost(world: &mut World) {
    for number in 0..CLIENTS {
        let client = comes(world);
        shakes(world, &client);
        let first = first_line(number, None);
        client.says(&format!(
            "{first}\n{{\"jsonrpc\":\"2.0\",\"method\":\"x\"}}\n"
        ));
        world.run();
        client.leaves();
        world.run();
    }
    assert_eq!(world.proxy.sessions().len(), CLIENTS);
    assert_eq!(world.proxy.visitors(), 0);
}

#[test]
fn a_run_of_a_kept_session_handles_no_more_lines_than_any_other() {
    const LINE: &str = "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n";
    let mut world = world();
    let client = comes(&mut world);
    shakes(&mut world, &client);
    client.says(&format!("{}\n{LINE}", first_line(1, None)));
    world.run();
    let server = world.program(0).stdin;
    assert_eq!(server.got(), LINE);
    let lines = 3 * LINES_PER_RUN;
    client.says(&LINE.repeat(lines));
    let mut handled = 0;
    for _ in 0..10 {
        world.turn();
        let now = server.got().lines().count();
        assert!(now <= LINES_PER_RUN, "{handled}, then {now}");
        handled += now;
    }
    assert_eq!(handled, lines);
}

#[test]
fn all_clients_of_an_address_may_come_back_at_once_and_strangers_gain_nothing() {
    let mut world = world();
    lost(&mut world);
    let strangers: Vec<TestEnd> = (0..Capacity::MAX_OF_ONE_ORIGIN)
        .map(|_| comes(&mut world))
        .collect();
    let clients: Vec<TestEnd> = (0..CLIENTS).map(|_| comes(&mut world)).collect();
    let all = strangers.iter().chain(&clients);
    assert_eq!(all.filter(|client| client.is_closed()).count(), 0);
    // One more is one too many.
    let _stranger = comes(&mut world);
    let closed = strangers.iter().filter(|stranger| stranger.is_closed());
    assert_eq!(closed.count(), 1);
    assert!(strangers[0].is_closed(), "the oldest makes room");
    for (number, client) in clients.iter().enumerate() {
        shakes(&mut world, client);
        client.says(&format!("{}\n", first_line(CLIENTS + number, Some(number))));
        world.run();
        assert!(client.got().contains("\"resumed\""), "client {number}");
    }
    assert_eq!(world.proxy.sessions().len(), CLIENTS);
    // All are back, and there are as many places as ever.
    let _stranger = comes(&mut world);
    assert_eq!(world.proxy.visitors(), Capacity::MAX_OF_ONE_ORIGIN);
}

#[test]
fn whoever_does_not_come_back_leaves_no_place() {
    let mut world = world();
    lost(&mut world);
    world.pass(Duration::from_secs(200));
    world.servers_obey();
    assert_eq!(world.proxy.sessions().len(), 0);
    for _ in 0..CLIENTS {
        comes(&mut world);
    }
    assert_eq!(world.proxy.visitors(), Capacity::MAX_OF_ONE_ORIGIN);
}
