//! The way to the end of a session, some steps of which are half a minute apart.

use super::*;
use crate::session::Event;

/// A session whose client reads nothing, although the server has sent much, comes to its end after this has begun it.
fn ends_although_the_client_does_not_read(begin_to_end: impl FnOnce(&mut World)) {
    let mut world = World::up();
    world.client(&request(1));
    world.server_got();
    world.server_floods();
    begin_to_end(&mut world);
    world.pass(29 * SECOND);
    assert_eq!(world.took_actions(), [], "the client is waited for");
    world.pass(2 * SECOND);
    assert_eq!(
        world.took_actions(),
        [Action::StopUpstream, Action::CloseClient]
    );
    // The rest of what the server says is read and dropped.
    assert!(world.session.wants_upstream_output(&world.memory));
    world.server_dies(Exit::Code(0));
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    assert!(world.session.is_finished());
}

#[test]
fn a_client_that_does_not_read_does_not_keep_the_proxy_from_stopping() {
    ends_although_the_client_does_not_read(World::shut_down);
}

#[test]
fn a_client_that_has_ended_its_side_and_does_not_read_is_given_up() {
    ends_although_the_client_does_not_read(World::client_ends);
}

/// The output of a server that is dead is not read either while the client does not read.
#[test]
fn a_client_that_does_not_read_is_given_up_although_the_server_is_gone() {
    for stops in [true, false] {
        let mut world = World::up();
        world.client(&request(1));
        world.server_got();
        world.server_floods();
        world.server_exits(Exit::Code(3));
        if stops {
            world.shut_down();
        } else {
            world.client_ends();
        }
        world.pass(31 * SECOND);
        assert!(world.session.is_finished(), "stops: {stops}");
        let mut expected = [Action::CloseClient, Action::ReleaseUpstream];
        if stops {
            // The time to stop is over in the same moment, and the client is looked at once more.
            expected.reverse();
        }
        assert_eq!(world.took_actions(), expected);
    }
}

#[test]
fn a_client_that_reads_slowly_is_not_given_up() {
    let mut world = World::up();
    world.server_floods();
    world.client_ends();
    // A byte every twenty seconds.
    for _ in 0..10 {
        world.pass(20 * SECOND);
        world.event(|session, cx| session.handle(Event::ClientWritten(1), cx));
    }
    assert!(!world.took_actions().contains(&Action::CloseClient));
    world.client_got();
    world.server_dies(Exit::Code(0));
    assert!(world.session.is_finished());
}

#[test]
fn what_comes_late_waits_as_long_as_anything_else() {
    let mut world = World::up();
    world.client(&request(1));
    world.server_got();
    world.client_ends();
    // So far there was nothing for the client to read.
    world.pass(29 * SECOND);
    world.server(&response(1));
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    world.server_dies(Exit::Code(0));
    world.pass(29 * SECOND);
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    assert_eq!(world.client_got(), [response(1)]);
    assert!(world.session.is_finished());
}

#[test]
fn a_client_that_hung_up_unread_is_given_up() {
    let mut world = World::up();
    // The server reads nothing, so the client is not read.
    while world.session.wants_client_input() {
        world.client(&format!(
            r#"{{"method":"m","params":"{}"}}"#,
            "x".repeat(900)
        ));
    }
    world.pass(100 * SECOND);
    assert_eq!(world.took_actions(), [], "it may just be slow");
    world.event(|session, cx| session.handle(Event::ClientHup, cx));
    world.pass(29 * SECOND);
    assert_eq!(world.took_actions(), []);
    world.pass(2 * SECOND);
    assert_eq!(
        world.took_actions(),
        [Action::CloseClient, Action::StopUpstream]
    );
    assert_eq!(world.reason(), "nothing could be delivered for 30 s");
}

// The half minute in which what was sent is served.

#[test]
fn no_server_is_started_after_the_time_to_finish() {
    let mut world = World::up();
    world.client(INITIALIZE);
    assert_eq!(world.server_got(), [INITIALIZE]);
    world.client_ends();
    world.pass(29 * SECOND);
    assert_eq!(world.took_actions(), []);
    world.pass(2 * SECOND);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    world.server_dies(Exit::Code(0));
    // It is not sent to another server, and the number of restarts is not blamed.
    world.client_got_error(&json!(1), 502, "process_terminated");
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::CloseClient]
    );
    assert!(world.session.is_finished());
    assert!(!world.reason().contains("restart"), "{}", world.reason());
}

#[test]
fn what_was_not_even_sent_in_the_time_to_finish_is_refused() {
    // Whether restarts are left does not matter: that is not the reason.
    for max_restarts in [0, 5] {
        let mut world = World::with(|settings| settings.role = Backend::Process { max_restarts });
        world.start();
        world.client(&request(1));
        world.server_got();
        world.client(&request(2));
        world.client_ends();
        world.pass(31 * SECOND);
        world.server_dies(Exit::Signal(15));
        let got = world.client_got_json();
        assert_error(&got[0], &json!(1), 502, "process_terminated");
        assert_error(&got[1], &json!(2), 503, "shutdown");
        assert_eq!(got.len(), 2);
        assert!(!world.took_actions().contains(&Action::StartUpstream));
        assert!(world.session.is_finished());
        assert!(world.reason().contains("30 s"), "{}", world.reason());
    }
}

#[test]
fn a_server_that_dies_in_the_time_to_finish_is_replaced() {
    let mut world = World::up();
    world.client(INITIALIZE);
    world.server_got();
    world.client_ends();
    world.pass(20 * SECOND);
    world.server_dies(Exit::Code(1));
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
    assert_eq!(world.server_got(), [INITIALIZE]);
    world.server(AGREED);
    assert_eq!(world.client_got(), [AGREED]);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
}

#[test]
fn no_server_is_started_while_the_proxy_is_being_stopped() {
    let mut world = World::up();
    world.client(INITIALIZE);
    world.server_got();
    world.client_ends();
    world.shut_down();
    world.pass(2 * SECOND);
    world.server_dies(Exit::Signal(9));
    world.client_got_error(&json!(1), 502, "process_terminated");
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::CloseClient]
    );
    assert!(world.session.is_finished());
}

#[test]
fn a_server_that_was_told_to_stop_is_reported_by_how_it_exited() {
    let mut world = World::up();
    world.client(&request(1));
    world.server_got();
    world.client_ends();
    world.pass(31 * SECOND);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    // The end of its output is read before it is reaped.
    world.server_output_ends();
    world.pass(20 * MILLISECOND);
    assert_eq!(world.client_got(), Vec::<String>::new());
    world.server_exits(Exit::Code(4));
    let error = world.client_got_error(&json!(1), 502, "process_terminated");
    assert_eq!(error["error"]["data"]["status"], "exit code 4");
}

#[test]
fn a_server_that_does_not_exit_after_it_was_told_to_stop_does_not_hold_up_the_answers() {
    let mut world = World::up();
    world.client(&request(1));
    world.server_got();
    world.client_ends();
    world.pass(31 * SECOND);
    world.server_output_ends();
    world.pass(60 * MILLISECOND);
    let error = world.client_got_error(&json!(1), 502, "process_terminated");
    assert_eq!(error["error"]["data"]["status"], "stdout closed");
    assert!(!world.session.is_finished(), "it is not gone yet");
    world.server_exits(Exit::Signal(9));
    assert!(world.session.is_finished());
}

// The end of the proxy.

#[test]
fn a_client_that_is_silent_when_the_proxy_stops_is_let_go_soon() {
    let mut world = World::up();
    world.client(&request(1));
    world.shut_down();
    assert_eq!(world.server_got(), [request(1)]);
    world.pass(SECOND);
    world.server(&response(1));
    assert_eq!(world.client_got(), [response(1)]);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    world.server_dies(Exit::Code(0));
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::ShutdownClient]
    );
    world.client_ends();
    assert!(world.session.is_finished());
}

#[test]
fn what_waits_in_the_socket_is_heard_when_the_proxy_stops() {
    let mut world = World::with(|settings| settings.max_message_bytes = OUTBOX_BYTES);
    world.start();
    // The server reads nothing, so the client is not read.
    let padded = |id| {
        format!(
            r#"{{"id":{id},"method":"m","params":"{}"}}"#,
            "x".repeat(OUTBOX_BYTES - 100)
        )
    };
    world.client(&padded(1));
    world.client(&padded(2));
    assert!(!world.session.wants_client_input());
    world.shut_down();
    world.pass(10 * SECOND);
    // A client that could not be read was not silent.
    assert_eq!(world.server_got(), [padded(1), padded(2)]);
    assert!(world.session.wants_client_input());
    let note = r#"{"method":"note"}"#;
    world.client(&request(3));
    world.client(note);
    assert_eq!(world.server_got(), [note]);
    world.client_got_error(&json!(3), 503, "shutdown");
    for id in 1..=2 {
        world.server(&response(id));
    }
    assert_eq!(world.client_got(), [response(1), response(2)]);
    assert_eq!(world.took_actions(), []);
    world.pass(200 * MILLISECOND);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
}

/// Sends a notification every 40 ms, each of which the server reads. Returns for how long.
fn chatters_until_the_server_is_stopped(world: &mut World) -> Duration {
    let begin = world.now;
    while world.took_actions() != [Action::StopUpstream] {
        assert!(world.now < begin + 10 * SECOND);
        world.client(r#"{"method":"progress"}"#);
        world.server_got();
        world.pass(40 * MILLISECOND);
    }
    world.now - begin
}

#[test]
fn a_client_that_goes_on_sending_does_not_delay_the_stop() {
    let mut world = World::up();
    world.shut_down();
    let time = chatters_until_the_server_is_stopped(&mut world);
    assert!(time > 900 * MILLISECOND, "it is heard: {time:?}");
    assert!(time < 1100 * MILLISECOND, "{time:?}");
}

#[test]
fn the_time_in_which_a_client_is_heard_begins_when_it_can_be() {
    let mut world = World::with(|settings| settings.max_message_bytes = 2 * OUTBOX_BYTES);
    world.start();
    let large = format!(r#"{{"method":"{}"}}"#, "x".repeat(OUTBOX_BYTES));
    world.client(&large);
    assert!(!world.session.wants_client_input());
    world.shut_down();
    // The server is busy, but for less than the time to finish.
    world.pass(20 * SECOND);
    assert_eq!(world.took_actions(), []);
    assert_eq!(world.server_got(), [large]);
    let time = chatters_until_the_server_is_stopped(&mut world);
    assert!(time > 900 * MILLISECOND, "it is heard: {time:?}");
    assert!(time < 1100 * MILLISECOND, "{time:?}");
}

#[test]
fn a_new_request_is_refused_at_once_while_the_proxy_stops_and_what_is_in_flight_goes_on() {
    let mut world = World::up();
    world.client(&request(1));
    world.server_got();
    world.shut_down();
    // Long after the client had its last chance to say something new, its answers pass, and requests are refused.
    world.pass(10 * SECOND);
    let ask = r#"{"id":5,"method":"elicitation/create"}"#;
    world.server(ask);
    assert_eq!(world.client_got(), [ask]);
    assert!(world.session.wants_client_input());
    world.client(&response(5));
    assert_eq!(world.server_got(), [response(5)]);
    world.client(&request(2));
    let refused = world.client_got_error(&json!(2), 503, "shutdown");
    assert_eq!(refused["error"]["data"]["delivered"], false);
    assert_eq!(world.server_got(), Vec::<String>::new());
    world.client(&format!("[{},{}]", request(3), request(4)));
    let got = world.client_got_json();
    assert_error(&got[0], &json!(3), 503, "shutdown");
    assert_error(&got[1], &json!(4), 503, "shutdown");
    world.server(&response(1));
    assert_eq!(world.client_got(), [response(1)]);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
}

#[test]
fn what_is_in_flight_when_the_time_to_stop_is_over_is_told_of_the_stop() {
    let timeout = 40 * SECOND;
    let mut world = World::with(|settings| settings.stop_timeout = timeout);
    world.start();
    world.client(&request(1));
    world.server_got();
    world.client(&request(2));
    world.shut_down();
    world.pass(timeout.saturating_sub(MILLISECOND));
    assert_eq!(world.took_actions(), []);
    world.pass(MILLISECOND);
    let got = world.client_got_json();
    assert_error(&got[0], &json!(1), 503, "shutdown");
    assert_ne!(got[0]["error"]["data"]["delivered"], false);
    assert_error(&got[1], &json!(2), 503, "shutdown");
    assert_eq!(
        world.took_actions(),
        [Action::StopUpstream, Action::ShutdownClient]
    );
    world.server_dies(Exit::Code(0));
    assert_eq!(world.client_got(), Vec::<String>::new());
}

/// The server has read nothing, and there was no room for all that the client has sent.
#[test]
fn what_was_read_and_not_looked_at_when_the_time_to_stop_is_over_is_told_too() {
    let mut world = World::with(|settings| {
        settings.stop_timeout = 5 * SECOND;
        settings.max_message_bytes = OUTBOX_BYTES;
    });
    world.start();
    let padding = "x".repeat(OUTBOX_BYTES - 100);
    let padded = |id| format!(r#"{{"id":{id},"method":"m","params":"{padding}"}}"#);
    world.client(&[padded(1), padded(2), request(3)].join("\n"));
    world.shut_down();
    world.pass(5 * SECOND);
    let got = world.client_got_json();
    assert_eq!(got.len(), 3, "{got:?}");
    for (error, id) in got.iter().zip(1..) {
        assert_error(error, &json!(id), 503, "shutdown");
    }
    world.pass(SECOND);
    assert_eq!(
        world.took_actions(),
        [Action::StopUpstream, Action::ShutdownClient]
    );
}

#[test]
fn a_half_close_does_not_prolong_a_stop() {
    let mut world = World::with(|settings| settings.stop_timeout = SECOND);
    world.start();
    world.client(&request(1));
    world.server_got();
    world.client_ends();
    world.pass(5 * SECOND);
    world.shut_down();
    world.pass(SECOND);
    world.client_got_error(&json!(1), 503, "shutdown");
    assert_eq!(
        world.took_actions(),
        [Action::StopUpstream, Action::CloseClient]
    );
}
