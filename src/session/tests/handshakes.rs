//! Handshakes, and how they are replayed to the servers after the first.

use super::losses::replace_server;
use super::*;
use crate::session::Event;

#[track_caller]
fn expect_replay(world: &mut World) -> Value {
    replay_id(&world.server_got())
}

#[test]
fn what_was_said_before_the_answer_belongs_to_the_handshake() {
    for initialized in [INITIALIZED.to_owned(), format!("[{INITIALIZED}]")] {
        let mut world = World::up();
        world.event(|session, cx| {
            session.handle(
                Event::ClientBytes(format!("{INITIALIZE}\n{initialized}\n").as_bytes()),
                cx,
            );
        });
        assert_eq!(world.server_got(), [INITIALIZE, &initialized]);
        world.server(AGREED);
        assert_eq!(world.client_got(), [AGREED]);
        replace_server(&mut world);
        world.client(&request(2));
        let id = expect_replay(&mut world);
        agree_to_replay(&mut world, &id, &request(2));
    }
}

#[test]
fn a_server_that_takes_back_what_was_answered_does_not_mean_the_clients_request() {
    let mut world = World::up();
    world.server(&request(1));
    assert_eq!(world.client_got(), [request(1)]);
    world.client(&request(1));
    world.client(&response(1));
    assert_eq!(world.server_got(), [request(1), response(1)]);
    // The two have crossed.
    let taken_back = r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#;
    world.server(taken_back);
    assert_eq!(world.client_got(), [taken_back]);
    world.server_dies(Exit::Signal(9));
    world.client_got_error(&json!(1), 502, "process_terminated");
}

/// However late: what the proxy knows of a server's old requests is bounded, so it is not asked.
#[test]
fn a_server_takes_back_nothing_but_its_own_requests() {
    let mut world = World::up();
    for id in 0..100 {
        world.server(&request(id));
        world.client(&response(id));
    }
    world.client_got();
    world.client(&request(1));
    world.server_got();
    let taken_back = r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#;
    world.server(taken_back);
    assert_eq!(
        world.client_got(),
        [taken_back],
        "it is passed on all the same"
    );
    world.server_dies(Exit::Signal(9));
    world.client_got_error(&json!(1), 502, "process_terminated");
}

#[test]
fn a_handshake_that_is_repeated_is_repeated_whole() {
    let mut world = World::up();
    world.client(INITIALIZE);
    world.client(INITIALIZED);
    assert_eq!(world.server_got(), [INITIALIZE, INITIALIZED]);
    // It is lost before it responds.
    replace_server(&mut world);
    assert_eq!(world.server_got(), [INITIALIZE]);
    world.server(AGREED);
    assert_eq!(world.client_got(), [AGREED]);
    assert_eq!(world.server_got(), [INITIALIZED]);
}

#[test]
fn the_answer_to_a_replay_is_waited_for_from_its_write_on() {
    let mut world = World::greeted();
    replace_server(&mut world);
    world.client(&request(2));
    // The server does not read.
    world.pass(100 * SECOND);
    assert_eq!(world.took_actions(), []);
    expect_replay(&mut world);
    world.pass(9 * SECOND);
    assert_eq!(world.took_actions(), []);
    world.pass(2 * SECOND);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    assert_eq!(
        world.client_got_json()[0]["method"],
        "$/mcp/serverRestarted"
    );
    // That was one failed start, and the next server may do better.
    world.server_dies(Exit::Signal(15));
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(9) }, cx));
    let id = expect_replay(&mut world);
    agree_to_replay(&mut world, &id, &request(2));
}

#[test]
fn replays_that_are_not_answered_use_up_the_restarts() {
    let mut world = World::with(|settings| settings.role = Backend::Process { max_restarts: 2 });
    world.start();
    world.client(INITIALIZE);
    world.server_got();
    world.server(AGREED);
    world.client_got();
    replace_server(&mut world);
    world.client(&request(2));
    for is_last in [false, true] {
        expect_replay(&mut world);
        world.pass(11 * SECOND);
        assert_eq!(world.took_actions(), [Action::StopUpstream]);
        world.server_dies(Exit::Signal(15));
        if !is_last {
            world.pass(5 * SECOND);
            assert_eq!(
                world.took_actions(),
                [Action::ReleaseUpstream, Action::StartUpstream]
            );
            world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(9) }, cx));
        }
    }
    let got = world.client_got_json();
    let error = got.last().unwrap();
    assert_error(error, &json!(2), 503, "replay_timeout");
    assert_eq!(error["error"]["data"]["delivered"], false);
}

/// A server that takes its time, as when it fetches itself first.
#[test]
fn a_replay_may_take_three_times_as_long_as_the_first_handshake() {
    let mut world = World::up();
    world.pass(15 * SECOND);
    world.client(INITIALIZE);
    world.server_got();
    world.pass(5 * SECOND);
    world.server(AGREED);
    world.client_got();
    replace_server(&mut world);
    world.client(&request(2));
    expect_replay(&mut world);
    world.pass(59 * SECOND);
    assert_eq!(world.took_actions(), []);
    world.pass(2 * SECOND);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
}

/// The response is among its last words.
#[test]
fn the_answer_to_a_replay_is_the_proxy_s_although_the_server_is_lost() {
    let signs: [fn(&mut World); 2] = [
        |world| world.server_exits(Exit::Signal(9)),
        |world| world.event(|session, cx| session.handle(Event::UpstreamInputBroke, cx)),
    ];
    for sign in signs {
        let mut world = World::greeted();
        replace_server(&mut world);
        world.client(&request(2));
        let id = expect_replay(&mut world);
        sign(&mut world);
        world.server(&AGREED.replace("\"id\":1", &format!("\"id\":{id}")));
        assert_eq!(world.client_got(), [""; 0]);
    }
}

/// As strict servers refuse everything before it.
#[test]
fn a_second_handshake_that_is_refused_leaves_the_first_one_as_it_was() {
    let refusals = [
        r#"{"id":5,"error":{"code":-32600,"message":"again?"}}"#,
        r#"{"id":5,"result":"no"}"#,
    ];
    for refusal in refusals {
        let mut world = World::greeted();
        world.client(&INITIALIZE.replace("\"id\":1", "\"id\":5"));
        world.server_got();
        world.server(refusal);
        assert_eq!(world.client_got(), [refusal]);
        replace_server(&mut world);
        world.client(&request(2));
        let id = expect_replay(&mut world);
        agree_to_replay(&mut world, &id, &request(2));
    }
}

#[test]
fn a_second_handshake_that_is_agreed_to_takes_the_place_of_the_first_one() {
    let mut world = World::greeted();
    let second = INITIALIZE.replace("{}", r#"{"second":true}"#);
    world.client(&second);
    world.server_got();
    world.server(AGREED);
    world.client_got();
    replace_server(&mut world);
    world.client(&request(2));
    let got = world.server_got();
    assert!(got[0].contains("second"), "{got:?}");
    let id = serde_json::from_str::<Value>(&got[0]).unwrap()["id"].clone();
    world.server(&AGREED.replace("\"id\":1", &format!("\"id\":{id}")));
    assert_eq!(
        world.server_got(),
        [request(2)],
        "the client has not said more"
    );
}

/// A server responds, and is gone before its response is read. What it still had to get is none of the next one's
/// business before the replay.
#[test]
fn a_server_whose_response_is_among_its_last_words_leaves_nothing_behind_for_the_next() {
    let mut world = World::up();
    world.client(INITIALIZE);
    world.client(INITIALIZED);
    assert_eq!(world.server_got(), [INITIALIZE, INITIALIZED]);
    replace_server(&mut world);
    assert_eq!(world.server_got(), [INITIALIZE]);
    world.pass(10 * SECOND);
    world.took_actions();
    world.server_exits(Exit::Code(3));
    world.server(AGREED);
    world.server_output_ends();
    assert!(world.client_got().contains(&AGREED.to_owned()));
    world.start_next();
    assert_eq!(world.server_got(), [""; 0]);
    world.client(&request(2));
    let id = expect_replay(&mut world);
    agree_to_replay(&mut world, &id, &request(2));
}
