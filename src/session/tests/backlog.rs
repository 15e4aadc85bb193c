//! What was read and is handled in a later run.

use super::*;
use crate::session::backlog::LINES_PER_RUN;

const LINES: usize = 4 * LINES_PER_RUN;

fn floods(world: &mut World, of_client: bool) -> String {
    let lines: Vec<String> = (0..LINES)
        .map(|number| format!("{{\"method\":\"m\",\"n\":{number}}}\n"))
        .collect();
    let text = lines.concat();
    world.event(|session, cx| {
        let bytes = text.as_bytes();
        let event = if of_client {
            Event::ClientBytes(bytes)
        } else {
            Event::UpstreamBytes(bytes)
        };
        session.handle(event, cx);
    });
    assert!(world.session.has_more_lines());
    text
}

/// One more run in which nothing happens.
fn run(world: &mut World) {
    world.event(|_, _| {});
}

#[test]
fn no_other_event_of_the_run_goes_on_with_it() {
    let mut world = World::up();
    let text = "{\"method\":\"m\"}\n".repeat(LINES);
    world.event(|session, cx| {
        session.handle(Event::ClientBytes(text.as_bytes()), cx);
        session.handle(Event::UpstreamBytes(text.as_bytes()), cx);
        let before = session.lines_of_run();
        assert_eq!(before, (LINES_PER_RUN, LINES_PER_RUN));
        for count in [session.to_client().len(), session.to_upstream().len()] {
            assert!(count > 0);
        }
        session.handle(Event::ClientWritten(session.to_client().len()), cx);
        session.handle(Event::UpstreamWritten(session.to_upstream().len()), cx);
        assert_eq!(session.lines_of_run(), before);
    });
}

#[test]
fn a_server_that_exits_still_has_all_its_words_delivered() {
    let mut world = World::up();
    let text = floods(&mut world, false);
    world.server_exits(Exit::Code(3));
    assert!(!world.session.wants_upstream_output(&world.memory));
    // However long that takes: the time after an exit is for those who hold the output open.
    world.now += 2 * SECOND;
    let mut got = Vec::new();
    while world.session.has_more_lines() {
        got.extend(world.client_got());
        run(&mut world);
    }
    world.server_output_ends();
    got.extend(world.client_got());
    assert_eq!(got.join("\n") + "\n", text);
}

#[test]
fn an_end_out_of_turn_comes_after_it() {
    let mut world = World::connector();
    world.start();
    let text = floods(&mut world, false);
    // Not even a link that has vanished takes away what it had brought.
    world.event(|session, cx| session.handle(Event::UpstreamEof(None), cx));
    assert_eq!(world.client_got().join("\n") + "\n", text);
}

#[test]
fn it_is_dropped_when_nobody_hears_it_any_more() {
    let mut world = World::up();
    floods(&mut world, false);
    let error = std::io::ErrorKind::ConnectionReset.into();
    world.event(|session, cx| session.handle(Event::ClientFailed(&error), cx));
    assert!(!world.session.has_more_lines());
    assert!(world.session.wants_upstream_output(&world.memory));
}

#[test]
fn a_client_that_ends_is_served_all_of_it_first() {
    let mut world = World::up();
    let text = floods(&mut world, true);
    assert!(
        !world.session.wants_client_input(),
        "the end can not be read"
    );
    let mut got = Vec::new();
    while world.session.has_more_lines() {
        got.extend(world.server_got());
        run(&mut world);
    }
    world.client_ends();
    got.extend(world.server_got());
    assert_eq!(got.join("\n") + "\n", text);
}
