//! Those who ask how things are: what they are told, and how many of them there may be for how long.

use std::time::Duration;

use nix::errno::Errno;
use serde_json::Value;

use super::wire::TestEnd;
use super::world::{Choice, STATUS, World};
use crate::serve::status::MAX_CONNECTIONS;
use crate::session::Spawn;

const SECOND: Duration = Duration::from_secs(1);

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn json(world: &mut World, target: &str) -> Value {
    let (code, body) = world.get(target);
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The numbers of the sessions that are told of.
fn sessions(value: &Value) -> Vec<u64> {
    let all = value["sessions"].as_array().unwrap().iter();
    all.map(|it| it["session"].as_u64().unwrap()).collect()
}

#[test]
fn whoever_asks_is_answered_and_the_connection_ends() {
    let mut world = World::new().with_status();
    assert_eq!(world.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(world.get("/readyz").0, 200);
    assert_eq!(world.get("/readyz?server=default").0, 200);
    let (code, body) = world.get("/readyz?server=other");
    assert_eq!((code, &*body), (404, "There is no server of this name.\n"));
    assert_eq!(world.get("/nothing").0, 404);
    let (code, body) = world.get("/metrics");
    assert_eq!(code, 200);
    assert!(body.contains("mcp_tcp_proxy_"), "{body}");
    let (code, body) = world.get("/");
    assert_eq!(code, 200);
    assert!(body.trim_end().ends_with("</html>"), "{body}");
}

#[test]
fn those_on_other_machines_are_told_less_unless_all_is_public() {
    let mut world = World::new().with_status();
    let code = |world: &mut World, target| world.get_from("192.0.2.1:1", target).0;
    assert_eq!(code(&mut world, "/healthz"), 200);
    assert_eq!(code(&mut world, "/metrics"), 200);
    assert_eq!(code(&mut world, "/status.json"), 403);
    assert_eq!(code(&mut world, "/"), 403);
    assert_eq!(world.get("/status.json").0, 200);
    world.proxy.status.as_mut().unwrap().about.is_public = true;
    assert_eq!(code(&mut world, "/status.json"), 200);
}

#[test]
fn a_head_without_a_body_may_be_asked_for() {
    let mut world = World::new().with_status();
    for target in ["/healthz", "/metrics", "/status.json", "/"] {
        let client = world.comes_from("127.0.0.1:1", STATUS);
        client.says(&format!(
            "HEAD {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        world.run();
        let response = client.got();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\n"), "{response}");
        assert!(client.is_ended());
    }
}

#[test]
fn all_sessions_are_told_of_each_once() {
    let mut choice = Choice::default();
    choice.plan.settings.spawn = Spawn::Lazy;
    let mut world = World::of(choice).with_status();
    let clients: Vec<_> = (0..300).map(|_| world.comes()).collect();
    world.run();
    let first = json(&mut world, "/status.json");
    assert_eq!(first["proxy"]["sessions"], 300);
    assert_eq!(sessions(&first), (1..=200).collect::<Vec<_>>());
    assert_eq!(first["next"], 200);
    let rest = json(&mut world, "/status.json?after=200");
    assert_eq!(sessions(&rest), (201..=300).collect::<Vec<_>>());
    assert_eq!(rest["next"], Value::Null);
    let all = json(&mut world, "/status.json?limit=1000");
    assert_eq!(sessions(&all), (1..=300).collect::<Vec<_>>());
    let last = json(&mut world, "/status.json?limit=100&after=200");
    assert_eq!((sessions(&last).len(), &last["next"]), (100, &Value::Null));
    let few = json(&mut world, "/status.json?limit=2&after=7");
    assert_eq!(
        (sessions(&few), &few["next"]),
        (vec![8, 9], &Value::from(9))
    );
    let (_, page) = world.get("/?limit=1000");
    let rows = (1..=300).filter(|number| page.contains(&format!(">{number}<")));
    assert_eq!(rows.count(), 300);
    // Of the last ones that are there, nobody has to ask for more.
    for client in &clients[2..] {
        client.leaves();
    }
    world.run();
    let two = json(&mut world, "/status.json?limit=2");
    assert_eq!((sessions(&two), &two["next"]), (vec![1, 2], &Value::Null));
}

#[test]
fn what_is_said_of_a_server_and_its_sessions_is_what_they_are() {
    let mut world = World::new().with_status();
    let client = world.comes();
    world.run();
    client.says("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\"}\n");
    world.run();
    let all = json(&mut world, "/status.json");
    let server = &all["servers"][0];
    assert_eq!(server["sessions"], 1);
    assert_eq!(server["processes"], 1);
    assert_eq!(server["in_flight"], 1);
    assert_eq!(server["hibernating"], 0);
    assert_eq!(
        (&server["opened"], &server["starts"]),
        (&Value::from(1), &Value::from(1))
    );
    assert_eq!(server["to_server"]["messages"], 1);
    assert_eq!(all["sessions"][0]["in_flight"], 1);
    assert_eq!(all["proxy"]["state"], "serving");
    world.pass(SECOND);
    world
        .program(0)
        .stdout
        .says("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":1}\n");
    world.run();
    world.exits(0, 3);
    world.pass(10 * SECOND);
    let all = json(&mut world, "/status.json?history=1");
    let server = &all["servers"][0];
    assert_eq!(
        (&server["restarts"], &server["starts"]),
        (&Value::from(1), &Value::from(2))
    );
    assert_eq!(server["exits"]["exit_other"], 1);
    assert_eq!(server["in_flight"], 0);
    let (_, metrics) = world.get("/metrics");
    assert!(
        metrics.contains("mcp_tcp_proxy_server_start_seconds_count{server=\"default\"} 1"),
        "{metrics}"
    );
    client.leaves();
    world.run();
    world.servers_obey();
    let all = json(&mut world, "/status.json");
    assert_eq!(all["servers"][0]["closed"]["client_ended"], 1);
    assert_eq!(
        (&all["servers"][0]["sessions"], &all["proxy"]["sessions"]),
        (&Value::from(0), &Value::from(0))
    );
}

#[test]
fn why_no_session_would_be_served_is_told() {
    let mut choice = Choice::default();
    choice.limits.max_sessions = 1;
    let mut world = World::of(choice).with_status();
    assert_eq!(world.get("/readyz").0, 200);
    world.comes();
    world.run();
    let (code, body) = world.get("/readyz");
    assert_eq!(code, 503);
    assert!(body.contains("session_limit"), "{body}");
    world.comes();
    world.run();
    let all = json(&mut world, "/status.json");
    assert_eq!(all["proxy"]["refused"]["session_limit"], 1);
    assert_eq!(
        all["proxy"]["sessions"], 1,
        "who was turned away is no session"
    );
    assert_eq!(sessions(&all), [1]);
}

#[test]
fn a_server_that_can_not_be_started_is_told_of() {
    let mut world = World::new().with_status();
    world
        .below
        .borrow_mut()
        .spawn_errors
        .push_back(Errno::ENOENT);
    world.comes();
    world.run();
    let (code, body) = world.get("/readyz");
    assert_eq!(code, 503);
    assert!(body.contains("spawn_failed"), "{body}");
    let all = json(&mut world, "/status.json");
    assert_eq!(all["servers"][0]["exits"]["start_failed"], 1);
}

#[test]
fn that_something_has_run_out_is_told() {
    let mut world = World::new().with_status();
    world
        .below
        .borrow_mut()
        .watch_errors
        .push_back(Errno::ENOMEM);
    world.comes();
    world.run();
    let (code, body) = world.get("/readyz");
    assert_eq!(code, 503);
    assert!(body.contains("exhausted"), "{body}");
}

#[test]
fn whoever_asks_for_nothing_is_closed_after_a_while() {
    let mut world = World::new().with_status();
    let silent = world.comes_from("127.0.0.1:1", STATUS);
    let slow = world.comes_from("127.0.0.1:2", STATUS);
    slow.says("GET /healthz HT");
    world.pass(4 * SECOND);
    assert!(!silent.is_closed() && slow.got().is_empty());
    world.pass(SECOND + SECOND / 10);
    assert!(silent.is_closed());
    assert!(slow.got().starts_with("HTTP/1.1 408 "));
    assert!(slow.is_ended() && !slow.is_closed());
    world.pass(SECOND + SECOND / 10);
    assert!(slow.is_closed());
}

#[test]
fn whoever_takes_nothing_is_closed_after_a_while() {
    let mut world = World::new().with_status();
    let client = world.comes_from("127.0.0.1:1", STATUS);
    client.stalls();
    client.says(HEALTH);
    world.pass(4 * SECOND);
    client.takes();
    world.run();
    assert!(client.got().contains("ok"));
    let client = world.comes_from("127.0.0.1:1", STATUS);
    client.stalls();
    client.says(HEALTH);
    world.pass(5 * SECOND + SECOND / 10);
    assert!(client.is_closed() && client.got().is_empty());
}

#[test]
fn for_one_more_connection_the_one_makes_room_that_has_been_idle_for_longest() {
    let mut world = World::new().with_status();
    let mut clients = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        clients.push(world.comes_from("127.0.0.1:1", STATUS));
        world.pass(SECOND / 100);
    }
    assert!(clients.iter().all(|client| !client.is_closed()));
    let next = world.comes_from("127.0.0.1:1", STATUS);
    next.says(HEALTH);
    world.run();
    let closed = clients.iter().map(TestEnd::is_closed);
    assert_eq!(closed.filter(|is_closed| *is_closed).count(), 1);
    assert!(clients[0].is_closed() && next.got().contains("ok"));
}

#[test]
fn when_descriptors_have_run_out_those_who_ask_wait_as_well() {
    let mut world = World::new().with_status();
    world
        .below
        .borrow_mut()
        .accept_errors
        .push_back(Errno::EMFILE);
    let client = world.comes_from("127.0.0.1:1", STATUS);
    client.says(HEALTH);
    world.pass(SECOND * 19 / 100);
    assert_eq!((world.waiting(STATUS), client.got()), (1, String::new()));
    world.pass(SECOND * 2 / 100);
    assert!(client.got().contains("ok"));
}

#[test]
fn few_of_those_who_ask_are_accepted_in_an_iteration() {
    let mut world = World::new().with_status();
    for _ in 0..9 {
        world.comes_from("127.0.0.1:1", STATUS);
    }
    let mut left = || {
        world.turn();
        world.waiting(STATUS)
    };
    assert_eq!([left(), left(), left()], [5, 1, 0]);
}

#[test]
fn a_long_answer_is_made_in_several_iterations() {
    let mut choice = Choice::default();
    choice.plan.settings.spawn = Spawn::Lazy;
    let mut world = World::of(choice).with_status();
    for _ in 0..500 {
        world.comes();
    }
    world.run();
    let client = world.comes_from("127.0.0.1:1", STATUS);
    client.says("GET /?limit=500 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut turns = 0;
    while !client.is_ended() && turns < 100 {
        world.turn();
        turns += 1;
    }
    // A row costs 16, and an iteration may cost 1,024.
    assert!(
        (500 * 16 / 1024..=500 * 16 / 1024 + 5).contains(&turns),
        "{turns}"
    );
}

#[test]
fn no_more_is_made_of_an_answer_than_is_taken() {
    let mut choice = Choice::default();
    choice.plan.settings.spawn = Spawn::Lazy;
    let mut world = World::of(choice).with_status();
    for _ in 0..1000 {
        world.comes();
    }
    world.run();
    let client = world.comes_from("127.0.0.1:1", STATUS);
    client.stalls();
    client.says("GET /status.json?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    world.run();
    client.takes();
    world.turn();
    world.turn();
    let first = client.got().len();
    assert!((64 * 1024..200 * 1024).contains(&first), "{first}");
    world.run();
    assert!(client.is_ended() && !client.got().is_empty());
}
