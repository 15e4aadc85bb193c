//! What a new server is told although the client says nothing: the handshake, and what the client had set up.

use super::*;

const EAGER: &str = r#"{"type":"handshake","supports_heartbeat":true,"replay":"eager"}"#;

fn subscribe(id: u64, uri: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/subscribe","params":{{"uri":"{uri}"}}}}"#
    )
}

fn unsubscribe(id: u64, uri: &str) -> String {
    subscribe(id, uri).replace("subscribe", "unsubscribe")
}

fn set_level(id: u64, level: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"logging/setLevel","params":{{"level":"{level}"}}}}"#
    )
}

/// The server agrees to a request of the client.
fn agreed_to(world: &mut World, id: u64, line: &str) {
    world.client(line);
    assert_eq!(world.server_got(), [line]);
    world.server(&response(id));
    assert_eq!(world.client_got(), [response(id)]);
}

/// The replay must be all that the server got. It agrees.
#[track_caller]
fn agree_to_replay(world: &mut World) {
    let got = world.server_got();
    assert_eq!(got.len(), 1, "{got:?}");
    let replay: Value = serde_json::from_str(&got[0]).unwrap();
    assert_eq!(replay["method"], "initialize");
    world.server(&AGREED.replace("\"id\":1", &format!("\"id\":{}", replay["id"])));
}

/// The server dies, and the next one is there.
#[track_caller]
fn replace_server(world: &mut World) {
    world.pass(100 * SECOND);
    world.client_got();
    world
        .actions
        .retain(|action| *action != Action::CheckClient);
    world.server_dies(Exit::Code(3));
    world.start_next();
}

#[test]
fn a_client_that_asks_for_it_has_its_handshake_replayed_at_once() {
    let mut world = World::greeted();
    world.client(EAGER);
    for _ in 0..2 {
        replace_server(&mut world);
        agree_to_replay(&mut world);
        assert_eq!(world.server_got(), [INITIALIZED]);
    }
}

#[test]
fn others_have_it_replayed_two_seconds_after_the_notice() {
    let mut world = World::greeted();
    replace_server(&mut world);
    world.pass(2400 * MILLISECOND);
    assert_eq!(world.server_got(), [""; 0]);
    world.pass(100 * MILLISECOND);
    agree_to_replay(&mut world);
    assert_eq!(world.server_got(), [INITIALIZED]);
}

#[test]
fn a_client_that_begins_anew_in_that_time_is_left_to_it() {
    let mut world = World::greeted();
    agreed_to(&mut world, 2, &subscribe(2, "a:/b"));
    replace_server(&mut world);
    world.pass(2400 * MILLISECOND);
    let again = INITIALIZE.replace("\"id\":1", "\"id\":3");
    world.client(&again);
    assert_eq!(world.server_got(), [again]);
    world.server(&AGREED.replace("\"id\":1", "\"id\":3"));
    world.pass(10 * SECOND);
    assert_eq!(world.server_got(), [""; 0]);
    // What it had set up before is forgotten.
    replace_server(&mut world);
    world.pass(3 * SECOND);
    agree_to_replay(&mut world);
    assert_eq!(world.server_got(), [""; 0]);
}

#[test]
fn subscriptions_and_the_log_level_are_restored_after_the_replay() {
    let mut world = World::greeted();
    world.client(EAGER);
    agreed_to(&mut world, 2, &subscribe(2, "a:/b"));
    agreed_to(&mut world, 3, &set_level(3, "debug"));
    agreed_to(&mut world, 4, &subscribe(4, "a:/c"));
    agreed_to(&mut world, 5, &set_level(5, "info"));
    agreed_to(&mut world, 6, &unsubscribe(6, "a:\\/b"));
    agreed_to(&mut world, 7, &subscribe(7, "a:/c"));
    // It is refused, or never answered.
    world.client(&subscribe(8, "a:/d"));
    world.client(&subscribe(9, "a:/e"));
    world.server_got();
    world.server(r#"{"id":8,"error":{"code":1,"message":"no"}}"#);
    for round in 0..2 {
        replace_server(&mut world);
        world.client_got();
        world.client(&request(10));
        agree_to_replay(&mut world);
        let got: Vec<Value> = world
            .server_got()
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let methods: Vec<&Value> = got.iter().map(|line| &line["method"]).collect();
        let expected = [
            "notifications/initialized",
            "logging/setLevel",
            "resources/subscribe",
            "m",
        ];
        assert_eq!(methods, expected);
        assert_eq!(got[1]["params"]["level"], "info");
        assert_eq!(got[2]["params"]["uri"], "a:/c");
        assert_ne!(got[1]["id"], got[2]["id"], "round {round}");
        // The client has its answers.
        for line in &got[1..3] {
            world.server(&format!(r#"{{"id":{},"result":{{}}}}"#, line["id"]));
        }
        assert_eq!(world.client_got(), [""; 0]);
        world.server(&response(10));
        assert_eq!(world.client_got(), [response(10)]);
    }
}

#[test]
fn what_the_lost_server_was_not_sent_is_restored_once_the_next_one_has_agreed() {
    let mut world = World::greeted();
    world.client(EAGER);
    world.pass(100 * SECOND);
    world.client_got();
    world
        .actions
        .retain(|action| *action != Action::CheckClient);
    world.client(&subscribe(2, "a:/b"));
    world.server_dies(Exit::Code(3));
    world.start_next();
    agree_to_replay(&mut world);
    assert_eq!(world.server_got(), [INITIALIZED, &subscribe(2, "a:/b")]);
    world.server(&response(2));
    replace_server(&mut world);
    agree_to_replay(&mut world);
    let got = world.server_got();
    assert_eq!(got.len(), 2, "{got:?}");
    assert!(got[1].contains("a:/b"), "{got:?}");
}

#[test]
fn what_is_kept_for_that_is_limited() {
    let mut world = World::greeted();
    world.client(EAGER);
    for id in 2..302 {
        agreed_to(
            &mut world,
            id,
            &subscribe(id, &"x".repeat(500)).replace("uri\":\"", &format!("uri\":\"{id}")),
        );
    }
    replace_server(&mut world);
    agree_to_replay(&mut world);
    let restored: usize = world.server_got().iter().map(String::len).sum();
    assert!((20_000..64 * 1024).contains(&restored), "{restored}");
}

#[test]
fn nothing_is_replayed_if_that_is_not_wanted() {
    let mut world = World::greeted();
    world.settings.replays = false;
    world.client(EAGER);
    agreed_to(&mut world, 2, &subscribe(2, "a:/b"));
    replace_server(&mut world);
    world.pass(10 * SECOND);
    assert_eq!(world.server_got(), [""; 0]);
    world.client(&request(3));
    assert_eq!(world.server_got(), [request(3)]);
}

#[test]
fn the_stdio_side_restores_what_a_lost_link_cost() {
    for is_idle_end in [false, true] {
        let mut world = World::connector();
        world.start();
        world.server_got();
        world.client(INITIALIZE);
        world.client(INITIALIZED);
        world.server_got();
        world.server(AGREED);
        world.client_got();
        agreed_to(&mut world, 2, &subscribe(2, "a:/b"));
        if is_idle_end {
            world.server_output_ends();
        } else {
            let broke = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            world.event(|session, cx| session.handle(Event::UpstreamEof(Some(&broke)), cx));
        }
        assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
        world.pass(SECOND);
        world.start();
        let announcement = world.server_got();
        assert!(announcement[0].contains(r#""replay":"eager""#));
        assert_eq!(announcement.len(), if is_idle_end { 1 } else { 2 });
    }
}

/// The server that refuses it goes on as before.
#[test]
fn a_second_initialize_that_is_refused_costs_no_subscription() {
    let mut world = World::greeted();
    world.client(EAGER);
    agreed_to(&mut world, 2, &subscribe(2, "a:/b"));
    world.client(&INITIALIZE.replace("\"id\":1", "\"id\":3"));
    world.server_got();
    world.server(r#"{"id":3,"error":{"code":1,"message":"no"}}"#);
    replace_server(&mut world);
    agree_to_replay(&mut world);
    let got = world.server_got();
    assert_eq!(got.len(), 2, "{got:?}");
    assert!(got[1].contains("a:/b"), "{got:?}");
}

/// Some clients do not wait for the response.
#[test]
fn what_is_set_up_right_after_an_initialize_belongs_to_it() {
    let mut world = World::greeted();
    world.client(EAGER);
    agreed_to(&mut world, 2, &subscribe(2, "a:/b"));
    world.client(&INITIALIZE.replace("\"id\":1", "\"id\":3"));
    world.client(&subscribe(4, "a:/c"));
    world.server_got();
    world.server(&AGREED.replace("\"id\":1", "\"id\":3"));
    world.server(&response(4));
    world.client(INITIALIZED);
    world.server_got();
    replace_server(&mut world);
    agree_to_replay(&mut world);
    let got = world.server_got();
    assert_eq!(got.len(), 2, "{got:?}");
    assert!(got[1].contains("a:/c"), "{got:?}");
}

/// Its id may come back with another request.
#[test]
fn what_was_taken_back_before_it_was_sent_is_not_set_up() {
    let mut world = World::greeted();
    world.client(EAGER);
    world.pass(100 * SECOND);
    world.client_got();
    world.took_actions();
    world.server_dies(Exit::Code(3));
    world.client(&subscribe(2, "a:/b"));
    world.client(r#"{"method":"notifications/cancelled","params":{"requestId":2}}"#);
    world.client(&request(2));
    world.start_next();
    agree_to_replay(&mut world);
    assert_eq!(world.server_got(), [INITIALIZED, &request(2)]);
    world.server(&response(2));
    replace_server(&mut world);
    agree_to_replay(&mut world);
    assert_eq!(world.server_got(), [INITIALIZED]);
}
