//! Requests that wait for a connection.

use super::connector::{connect, connector, said};
use super::*;

/// An attempt to connect fails, as all before it and the next one.
fn attempt_fails(world: &mut World) {
    if world.session.wants_start() {
        world.event(|session, cx| session.handle(Event::UpstreamFailed("refused"), cx));
    }
}

/// Attempts fail for this long.
fn attempts_fail(world: &mut World, time: Duration) {
    let end = world.now + time;
    while world.now < end {
        attempt_fails(world);
        world.pass(SECOND);
    }
    world.took_actions();
}

#[test]
fn a_request_without_a_connection_is_answered_after_its_time() {
    for line in [request(1), INITIALIZE.to_owned()] {
        let mut world = connector(None);
        attempts_fail(&mut world, 10 * SECOND);
        world.client(&line);
        attempts_fail(&mut world, 30 * SECOND);
        world.client(&request(2));
        attempts_fail(&mut world, 29 * SECOND);
        assert_eq!(world.client_got(), [""; 0]);
        attempts_fail(&mut world, 2 * SECOND);
        let error = world.client_got_error(&json!(1), 502, "unreachable");
        let text = error["error"]["message"].as_str().unwrap();
        assert!(text.contains("(--held-request-timeout)"), "{text}");
        // Each has a time of its own.
        attempts_fail(&mut world, 28 * SECOND);
        assert_eq!(world.client_got(), [""; 0]);
        attempts_fail(&mut world, 2 * SECOND);
        world.client_got_error(&json!(2), 502, "unreachable");
        assert_eq!(world.session.unserved(), 2);
        // It still tries, and serves what comes next.
        world.client(&request(3));
        world.pass(10 * SECOND);
        world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: None }, cx));
        assert_eq!(said(&mut world), [request(3)]);
    }
}

#[test]
fn only_requests_are_taken_out() {
    let mut world = connector(None);
    let progress = r#"{"method":"notifications/progress"}"#;
    let batch = format!("[{},{}]", request(3), request(4));
    for line in [INITIALIZE, INITIALIZED, &request(2), progress, &batch] {
        world.client(line);
    }
    attempts_fail(&mut world, 62 * SECOND);
    let got = world.client_got_json();
    assert_eq!(got.len(), 4, "{got:?}");
    for (error, id) in got.iter().zip(1..) {
        assert_error(error, &json!(id), 502, "unreachable");
    }
    world.pass(10 * SECOND);
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: None }, cx));
    assert_eq!(said(&mut world), [INITIALIZED, progress]);
}

/// By a proxy that is full each time.
#[test]
fn an_initialize_that_is_sent_in_vain_again_and_again_has_one_time_for_all() {
    let data = r#"{"source":"mcp-tcp-proxy","reason":"session_limit"}"#;
    let full = format!(r#"{{"id":null,"error":{{"code":503,"data":{data}}}}}"#);
    let mut world = connector(None);
    world.client(INITIALIZE);
    for _ in 0..60 {
        connect(&mut world);
        assert_eq!(said(&mut world), [INITIALIZE]);
        world.server(&full);
        world.pass(SECOND);
        world
            .actions
            .retain(|action| *action == Action::StartUpstream);
    }
    world.client_got_error(&json!(1), 502, "unreachable");
}

/// The clock is for want of a connection, not for a server that thinks.
#[test]
fn what_was_sent_has_no_time_limit() {
    let mut world = connector(None);
    connect(&mut world);
    world.client(INITIALIZE);
    said(&mut world);
    world.pass(1000 * SECOND);
    world.server(r#"{"method":"still there"}"#);
    world.client_got();
    world.server_output_ends();
    world.took_actions();
    // It was served until now, so it begins to wait now.
    attempts_fail(&mut world, 59 * SECOND);
    assert_eq!(world.client_got(), [""; 0]);
    attempts_fail(&mut world, 3 * SECOND);
    world.client_got_error(&json!(1), 502, "unreachable");
}

#[test]
fn without_a_limit_they_wait_for_ever() {
    let mut world = World::connector();
    world.client(&request(1));
    attempts_fail(&mut world, 500 * SECOND);
    assert_eq!(world.client_got(), [""; 0]);
}

#[test]
fn requests_that_were_lost_with_their_connection_are_counted() {
    let mut world = connector(None);
    connect(&mut world);
    world.client(&request(1));
    world.client(INITIALIZE);
    said(&mut world);
    world.server_output_ends();
    world.client_got_error(&json!(1), 502, "connection_lost");
    // The other one is sent again.
    assert_eq!(world.session.unserved(), 1);
}

#[test]
fn an_error_about_a_missing_connection_names_its_address() {
    let mut world = connector(None);
    world.client(&request(1));
    attempts_fail(&mut world, 62 * SECOND);
    let error = world.client_got_error(&json!(1), 502, "unreachable");
    let text = error["error"]["message"].as_str().unwrap();
    assert!(text.contains("no connection to localhost:1 for"), "{text}");
}

/// It is too long to be kept in place.
#[test]
fn a_batch_that_is_taken_out_gives_back_the_memory_of_its_cancellations() {
    let mut world = connector(None);
    let long = "x".repeat(100);
    let cancellation =
        format!(r#"{{"method":"notifications/cancelled","params":{{"requestId":"{long}"}}}}"#);
    world.client(&request(1));
    world.client(&format!("[{},{cancellation}]", request(2)));
    attempts_fail(&mut world, 62 * SECOND);
    assert_eq!(world.client_got().len(), 2);
    assert_eq!(world.session.queued, crate::session::Load::default());
}
