//! Clients that know both eras ask `server/discover` first, and legacy servers may die of it, or ignore it.

use super::*;
use crate::session::Event;

const DISCOVER: &str = r#"{"jsonrpc":"2.0","id":"d","method":"server/discover"}"#;

fn start_next(world: &mut World) {
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
}

#[test]
fn a_probe_is_not_asked_again_of_the_server_after_one_that_died_of_it() {
    let mut world = World::up();
    world.client(DISCOVER);
    assert_eq!(world.server_got(), [DISCOVER]);
    world.server_dies(Exit::Code(1));
    let error = world.client_got_error(&json!("d"), 502, "process_terminated");
    assert_eq!(error["error"]["data"]["delivered"], true);
    // It takes no time to go on, and the client is told of no restart.
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
    start_next(&mut world);
    world.pass(10 * SECOND);
    assert_eq!(world.server_got(), [""; 0]);
    assert_eq!(world.client_got(), [""; 0]);
}

#[test]
fn probes_that_kill_do_not_count_as_crashes() {
    let mut world = World::with(|settings| settings.role = Backend::Process { max_restarts: 1 });
    world.start();
    for _ in 0..10 {
        world.client(DISCOVER);
        world.server_got();
        world.server_dies(Exit::Code(1));
        world.client_got_error(&json!("d"), 502, "process_terminated");
        assert_eq!(
            world.took_actions(),
            [Action::ReleaseUpstream, Action::StartUpstream]
        );
        start_next(&mut world);
    }
    world.client(INITIALIZE);
    world.server_got();
    world.server_dies(Exit::Code(1));
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    world.pass(SECOND);
    assert_eq!(world.took_actions(), [Action::StartUpstream], "one crash");
}

#[test]
fn a_server_that_has_answered_does_not_die_of_a_probe() {
    for greets in [true, false] {
        let mut world = if greets {
            World::greeted()
        } else {
            World::up()
        };
        if !greets {
            world.client(&request(5));
            world.server_got();
        }
        world.client(DISCOVER);
        world.server_got();
        world.server_dies(Exit::Code(1));
        assert_eq!(
            world.took_actions(),
            [Action::ReleaseUpstream],
            "it cools down"
        );
    }
}

#[test]
fn an_initialize_that_waits_goes_first() {
    let mut world = World::up();
    world.client(DISCOVER);
    world.server_got();
    let again = DISCOVER.replace("\"d\"", "\"e\"");
    world.client(&again);
    world.client(&request(7));
    world.client(INITIALIZE);
    world.client(INITIALIZED);
    world.server_dies(Exit::Code(1));
    world.client_got_error(&json!("d"), 502, "process_terminated");
    world.took_actions();
    start_next(&mut world);
    let got = world.server_got();
    assert_eq!(got, [INITIALIZE, &again, &request(7), INITIALIZED]);
}

#[test]
fn a_probe_that_was_not_read_waits_for_the_next_server() {
    let mut world = World::up();
    world.client(DISCOVER);
    let text = world.session.to_upstream().to_vec();
    world.event(|session, cx| session.handle(Event::UpstreamWritten(text.len()), cx));
    world.event(|session, cx| session.handle(Event::UpstreamLeftUnread(&text), cx));
    world.server_dies(Exit::Code(1));
    assert_eq!(world.client_got(), [""; 0]);
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    world.pass(SECOND);
    world.took_actions();
    start_next(&mut world);
    assert_eq!(world.server_got(), [DISCOVER]);
}

#[test]
fn a_probe_that_is_ignored_is_forgotten_once_initialize_was_answered() {
    for connects in [false, true] {
        let mut world = World::with(|settings| {
            if connects {
                settings.role = CONNECTOR;
            }
        });
        world.start();
        world.client(DISCOVER);
        world.client(INITIALIZE);
        let late = DISCOVER.replace("\"d\"", "\"late\"");
        world.client(&late);
        world.server_got();
        world.server(AGREED);
        assert_eq!(world.client_got(), [AGREED]);
        assert_eq!(
            world.session.unanswered(),
            1,
            "the late one may be answered"
        );
        world.server(r#"{"id":"late","result":{}}"#);
        assert_eq!(world.session.unanswered(), 0);
    }
}

/// What was lost there is a connection, not a server that could have died of anything.
#[test]
fn a_probe_on_a_link_that_is_lost_is_asked_again() {
    let mut world = World::connector();
    world.start();
    world.client(DISCOVER);
    world.server_got();
    world.server_output_ends();
    world.pass(SECOND);
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
    start_next(&mut world);
    assert_eq!(world.server_got().last().unwrap(), DISCOVER);
}
