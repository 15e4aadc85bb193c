//! `connect --tidy`: the host is spared what it did not ask for.

use super::connector::{connect, said};
use super::*;

fn tidy(is_tidy: bool) -> World {
    let mut world = World::with(|settings| {
        settings.role = Backend::Proxy {
            max_delay: SECOND,
            max_attempts: None,
            held_timeout: None,
            is_tidy,
            token: None,
            server: None,
        };
    });
    connect(&mut world);
    said(&mut world);
    world
}

fn request_with_token(id: &str, token: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"m","params":{{"_meta":{{"progressToken":{token}}}}}}}"#
    )
}

fn progress(token: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
    )
}

#[test]
fn responses_to_no_request_are_dropped() {
    let stray = [
        response(7),
        r#"{"id":"1","error":{"code":1,"message":""}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#.to_owned(),
        format!(r#"{{"id":"{}","result":null}}"#, "x".repeat(2000)),
    ];
    for is_tidy in [true, false] {
        let mut world = tidy(is_tidy);
        world.settings.max_message_bytes = 10_000;
        world.client(&request(2));
        world.server_got();
        for line in &stray {
            world.server(line);
            assert_eq!(world.client_got().len(), usize::from(!is_tidy), "{line}");
        }
        world.server(&response(2));
        assert_eq!(world.client_got(), [response(2)]);
        // It has its response.
        world.server(&response(2));
        assert_eq!(world.client_got().len(), usize::from(!is_tidy));
    }
}

/// Servers that turn 7 into "7" are common.
#[test]
fn a_coerced_id_is_one_that_was_asked_for() {
    let mut world = tidy(true);
    world.client(&request(7));
    world.server_got();
    let response = r#"{"id":"7","result":{}}"#;
    world.server(response);
    assert_eq!(world.client_got(), [response]);
}

#[test]
fn progress_of_no_request_is_dropped() {
    let mut world = tidy(true);
    world.client(&request_with_token("1", "\"a\""));
    world.client(&format!("[{}]", request_with_token("2", "5")));
    world.client(&request(3));
    world.server_got();
    for (token, passes) in [
        ("\"a\"", true),
        ("\"\\u0061\"", true),
        ("5", true),
        ("3", false),
        ("\"5\"", false),
        ("null", false),
    ] {
        world.server(&progress(token));
        assert_eq!(world.client_got().len(), usize::from(passes), "{token}");
    }
    world.server(r#"{"method":"notifications/progress"}"#);
    assert_eq!(world.client_got(), [""; 0]);
    world.server(&response(1));
    world.client_got();
    world.server(&progress("\"a\""));
    world.server(&progress("5"));
    assert_eq!(world.client_got(), [progress("5")]);
}

#[test]
fn everything_else_passes() {
    let mut world = tidy(true);
    for line in [
        r#"{"method":"notifications/message"}"#,
        r#"{"id":9,"method":"notifications/progress2"}"#,
        r#"{"id":9,"method":"ping"}"#,
        r#"[{"id":9,"result":{}}]"#,
        "{}",
    ] {
        world.server(line);
        assert_eq!(world.client_got(), [line]);
    }
}

#[test]
fn tokens_are_bounded_and_those_of_requests_in_flight_are_kept() {
    let mut world = tidy(true);
    world.client(&request_with_token("\"long\"", "0"));
    world.server_got();
    for id in 1..6000 {
        world.client(&request_with_token(&id.to_string(), &id.to_string()));
        world.server_got();
        world.server(&response(id));
        world.client_got();
    }
    let tidy = world.session.rare.tidy.as_ref().unwrap();
    assert!(tidy.tokens.len() <= crate::session::tidy::MAX_TOKENS);
    world.server(&progress("0"));
    assert_eq!(world.client_got(), [progress("0")]);
}
