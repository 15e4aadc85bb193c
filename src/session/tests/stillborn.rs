//! A server that dies at its start, again and again.

use super::*;
use crate::session::Event;

/// The server says this on stderr, and is gone at once.
fn dies(world: &mut World, words: &str, exit: Exit) {
    world.event(|session, cx| session.handle(Event::UpstreamStderr(words.as_bytes()), cx));
    world.server_dies(exit);
}

#[test]
fn a_server_that_dies_at_once_is_given_up_within_seconds_and_the_client_is_told_why() {
    let mut world = World::up();
    world.client(INITIALIZE);
    let begin = world.now;
    for attempt in 1..=3 {
        dies(&mut world, "starting\nno such module\n", Exit::Code(3));
        if attempt < 3 {
            world.pass(5 * SECOND);
            assert_eq!(
                world.took_actions(),
                [Action::ReleaseUpstream, Action::StartUpstream]
            );
            world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
        }
    }
    assert!(world.now - begin <= 10 * SECOND);
    let error = world.client_got_error(&json!(1), 503, "spawn_failed");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("3 times in a row (exit code 3)")
            && message.ends_with("stderr: no such module"),
        "{message}"
    );
    assert_eq!(error["error"]["data"]["delivered"], false);
}

#[test]
fn a_server_that_has_said_anything_or_ends_in_another_way_gets_all_its_restarts() {
    let lives: [fn(&mut World, i32); 3] = [
        |world, _| {
            world.server("no message");
            world.server_dies(Exit::Code(3));
        },
        |world, attempt| world.server_dies(Exit::Code(attempt)),
        |world, _| {
            world.pass(SECOND);
            world.server_dies(Exit::Code(3));
        },
    ];
    for life in lives {
        let mut world = World::up();
        world.client(&request(1));
        for attempt in 0..5 {
            life(&mut world, attempt);
            world.pass(6 * SECOND);
            assert_eq!(
                world.took_actions(),
                [Action::ReleaseUpstream, Action::StartUpstream]
            );
            world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
        }
        life(&mut world, 5);
        // Those that lasted a while were told of.
        let got = world.client_got_json();
        assert_error(got.last().unwrap(), &json!(1), 503, "restart_limit");
    }
}

#[test]
fn a_death_of_a_probe_begins_the_row_anew() {
    let mut world = World::up();
    let start_next = |world: &mut World| {
        world.pass(6 * SECOND);
        assert_eq!(
            world.took_actions(),
            [Action::ReleaseUpstream, Action::StartUpstream]
        );
        world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
    };
    for _ in 0..2 {
        world.server_dies(Exit::Code(3));
        start_next(&mut world);
    }
    world.client(r#"{"id":"d","method":"server/discover"}"#);
    world.server_got();
    world.server_dies(Exit::Code(1));
    start_next(&mut world);
    for _ in 0..2 {
        world.server_dies(Exit::Code(3));
        start_next(&mut world);
    }
    world.server_dies(Exit::Code(3));
    assert_eq!(world.took_actions()[0], Action::ReleaseUpstream);
    assert!(world.reason().contains("3 times in a row"));
}

#[test]
fn deaths_of_probes_do_not_count() {
    let mut world = World::up();
    for _ in 0..5 {
        world.client(r#"{"id":"d","method":"server/discover"}"#);
        world.server_got();
        world.server_dies(Exit::Code(3));
        world.client_got_error(&json!("d"), 502, "process_terminated");
        assert_eq!(
            world.took_actions(),
            [Action::ReleaseUpstream, Action::StartUpstream]
        );
        world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
    }
}
