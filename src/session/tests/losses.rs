//! The loss of a server: what is answered, what goes to the next one, and what is known of the one that is gone.

use super::*;
use crate::session::Event;

/// The server is lost, and the next one is started.
#[track_caller]
pub(super) fn replace_server(world: &mut World) {
    world.pass(2 * SECOND);
    world.server_dies(Exit::Signal(9));
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
}

// The notice.

#[test]
fn the_notice_comes_half_a_second_after_the_start() {
    let mut world = World::greeted();
    replace_server(&mut world);
    world.pass(499 * MILLISECOND);
    assert_eq!(world.client_got(), Vec::<String>::new());
    world.pass(MILLISECOND);
    let got = world.client_got_json();
    assert_eq!(got[0]["method"], "$/mcp/serverRestarted");
    world.pass(100 * SECOND);
    assert_eq!(world.client_got(), Vec::<String>::new(), "once");
}

#[test]
fn there_is_no_notice_if_nothing_but_a_handshake_was_lost() {
    let mut world = World::up();
    world.client(INITIALIZE);
    world.server_got();
    replace_server(&mut world);
    assert_eq!(world.server_got(), [INITIALIZE]);
    world.pass(10 * SECOND);
    assert_eq!(world.client_got(), Vec::<String>::new());
}

#[test]
fn a_notice_that_is_owed_is_given_by_the_server_that_lasts() {
    let mut world = World::greeted();
    replace_server(&mut world);
    world.pass(400 * MILLISECOND);
    world.server_dies(Exit::Code(1));
    world.pass(10 * SECOND);
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
    assert_eq!(world.client_got(), Vec::<String>::new());
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(9) }, cx));
    world.pass(SECOND);
    assert_eq!(
        world.client_got_json()[0]["method"],
        "$/mcp/serverRestarted"
    );
}

// Others that hold stdout open.

#[test]
fn the_time_of_those_who_hold_stdout_open_stands_still_while_the_client_is_slow() {
    let mut world = World::up();
    world.client(&request(1));
    world.server_got();
    world.pass(2 * SECOND);
    world.server_exits(Exit::Code(3));
    world.pass(300 * MILLISECOND);
    world.server_floods();
    world.pass(20 * SECOND);
    assert_eq!(world.took_actions(), []);
    let flood = world.client_got();
    assert!(flood.iter().all(|line| line.contains("flood")));
    // Two hundred milliseconds are left.
    world.pass(190 * MILLISECOND);
    assert_eq!(world.client_got(), Vec::<String>::new());
    world.server(r#"{"method":"late"}"#);
    assert_eq!(world.client_got(), [r#"{"method":"late"}"#]);
    world.pass(10 * MILLISECOND);
    let error = world.client_got_error(&json!(1), 502, "process_terminated");
    assert_eq!(error["error"]["data"]["status"], "exit code 3");
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
}

// Late responses.

#[test]
fn the_answer_to_a_request_that_a_dying_server_wrote_goes_nowhere() {
    let ask = r#"{"id":5,"method":"roots/list"}"#;
    // Before the exit is known, after it, and after the end of the input.
    for moment in 0..3 {
        let mut world = World::up();
        world.pass(2 * SECOND);
        match moment {
            0 => {}
            1 => world.server_exits(Exit::Code(3)),
            _ => world.event(|session, cx| {
                session.handle(Event::UpstreamInputBroke, cx);
            }),
        }
        world.server(ask);
        assert_eq!(world.client_got(), [ask]);
        // This response arrives in time, but the server is gone before it could be sent.
        world.client(&response(5));
        world.server_dies(Exit::Code(3));
        world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
        assert_eq!(world.server_got(), Vec::<String>::new(), "{moment}");
    }
}

#[test]
fn an_answer_that_comes_when_the_next_server_is_up_goes_nowhere() {
    let mut world = World::up();
    world.server_exits(Exit::Code(3));
    world.server(r#"{"id":5,"method":"roots/list"}"#);
    world.server_output_ends();
    world.pass(2 * SECOND);
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
    world.client(&response(5));
    assert_eq!(world.server_got(), Vec::<String>::new());
    world.client(&response(6));
    assert_eq!(
        world.server_got(),
        [response(6)],
        "nobody has asked, so it passes"
    );
}

// Over-long lines of the client.

#[test]
fn an_over_long_answer_is_not_taken_for_the_one_that_the_client_waits_for() {
    let long_response = |id: u64| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":"{}"}}"#,
            "x".repeat(1000)
        )
    };
    for server_took in [true, false] {
        let mut world = World::up();
        world.client(&request(5));
        if server_took {
            world.server_got();
        }
        world.client(&long_response(5));
        world.client_got_error(&Value::Null, -32600, "too_large");
        world.client(&long_response(6));
        world.client_got_error(&json!(6), -32600, "too_large");
    }
    // The same without any server, and with the request in a batch.
    let mut world = World::new();
    world.client(&format!("[{},{}]", request(4), request(5)));
    world.client(&long_response(5));
    world.client_got_error(&Value::Null, -32600, "too_large");
}

#[test]
fn a_batch_of_too_many_answers_does_not_vanish() {
    let mut world = World::with(|settings| settings.max_message_bytes = 1 << 20);
    world.start();
    let batch = format!("[{}]", [response(1).as_str()].repeat(5000).join(","));
    world.client(&batch);
    world.client_got_error(&Value::Null, 429, "in_flight_limit");
    assert_eq!(world.server_got(), Vec::<String>::new());
}

#[test]
fn one_over_long_id_in_a_batch_leaves_nobody_waiting() {
    let mut world = World::with(|settings| settings.max_message_bytes = 1 << 20);
    world.start();
    let long = request(2).replace("\"id\":2", &format!("\"id\":\"{}\"", "x".repeat(2000)));
    world.client(&format!("[{},{long},{}]", request(1), request(3)));
    let got = world.client_got_json();
    let ids: Vec<&Value> = got.iter().map(|error| &error["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!(3), &Value::Null]);
}

// What the server asks.

#[test]
fn over_long_ids_of_the_server_are_not_kept() {
    let mut world = World::with(|settings| settings.max_message_bytes = 1 << 20);
    world.start();
    for number in 0..100 {
        let ask = format!(
            r#"{{"id":"{number}{}","method":"ping"}}"#,
            "x".repeat(100_000)
        );
        world.server(&ask);
        assert_eq!(world.client_got(), [ask]);
    }
    assert_eq!(world.session.server_requests.remembered(), 0);
    world.server(r#"{"id":"short","method":"ping"}"#);
    assert_eq!(world.session.server_requests.remembered(), 1);
}

// What the client is told of the new server.

const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

#[test]
fn modern_clients_get_the_notice_only_if_they_announced_themselves() {
    for announces in [false, true] {
        let mut world = World::up();
        if announces {
            world.client(r#"{"type":"handshake"}"#);
        }
        world.client(MODERN);
        world.server_got();
        world.server_dies(Exit::Code(1));
        world.client_got_error(&json!(1), 502, "process_terminated");
        world.pass(SECOND);
        world.start_next();
        world.pass(SECOND);
        let got = world.client_got();
        assert_eq!(got.len(), usize::from(announces), "{got:?}");
        assert!(
            got.iter()
                .all(|line| line.contains("$/mcp/serverRestarted"))
        );
    }
}

#[test]
fn after_a_replay_the_client_is_told_to_fetch_the_declared_lists_anew() {
    let agreed = AGREED.replace(
        r#""capabilities":{}"#,
        r#""capabilities":{"tools":{"listChanged":true},"prompts":{},"resources":{"listChanged":true}}"#,
    );
    for completes in [true, false] {
        let mut world = World::up();
        world.client(INITIALIZE);
        if completes {
            world.client(INITIALIZED);
        }
        world.server_got();
        world.server(&agreed);
        world.client_got();
        world.pass(2 * SECOND);
        world.server_dies(Exit::Code(1));
        world.start_next();
        world.client(&request(2));
        let replay: Value = serde_json::from_str(&world.server_got()[0]).unwrap();
        assert_eq!(world.client_got(), [""; 0]);
        world.server(&agreed.replace("\"id\":1", &format!("\"id\":{}", replay["id"])));
        let got = world.client_got_json();
        let methods: Vec<&Value> = got.iter().map(|line| &line["method"]).collect();
        let expected = [
            "notifications/tools/list_changed",
            "notifications/resources/list_changed",
        ];
        let expected: &[&str] = if completes { &expected } else { &[] };
        assert_eq!(methods, expected);
    }
}

/// Whose line was too long is told, and by how much.
#[test]
fn an_over_long_response_is_the_servers_fault() {
    let mut world = World::up();
    world.client(&request(5));
    world.server_got();
    let response = format!(
        r#"{{"jsonrpc":"2.0","id":5,"result":"{}"}}"#,
        "x".repeat(2000)
    );
    world.server(&response);
    let error = world.client_got_error(&json!(5), 502, "response_too_large");
    let expected = format!(
        "the server's response is too long: {},{:03} bytes, the limit is 1,000 (--max-message-bytes)",
        response.len() / 1000,
        response.len() % 1000
    );
    assert_eq!(error["error"]["message"], expected);
    world.client(&format!(r#"{{"id":6,"method":"{}"}}"#, "x".repeat(2000)));
    let error = world.client_got_error(&json!(6), -32600, "too_large");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("the client's message is too long: 2,020 bytes"),
        "{message}"
    );
}
