//! What a server has asked its client, when the server is lost.

use super::*;

fn cancelled(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id},"reason":"the MCP server that asked is gone"}}}}"#
    )
}

fn ask(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create"}}"#)
}

#[test]
fn open_questions_of_a_lost_server_are_taken_back_after_the_errors() {
    let mut world = World::greeted();
    world.client(&request(2));
    world.server_got();
    for id in ["1.50", r#""x""#, "3"] {
        world.server(&ask(id));
    }
    world.client(&response(3));
    assert_eq!(world.client_got().len(), 3);
    world.server_dies(Exit::Code(3));
    let got = world.client_got();
    assert_error(
        &serde_json::from_str(&got[0]).unwrap(),
        &json!(2),
        502,
        "process_terminated",
    );
    assert_eq!(got[1..], [cancelled("1.50"), cancelled(r#""x""#)]);
    // The late answer is dropped.
    world.pass(SECOND);
    world.start_next();
    world.client(r#"{"jsonrpc":"2.0","id":"x","result":{}}"#);
    world.pass(SECOND);
    assert_eq!(world.server_got(), [""; 0]);
}

#[test]
fn the_stdio_side_takes_questions_back_too() {
    let mut world = World::connector();
    world.start();
    world.server(&ask("7"));
    world.client_got();
    world.server_output_ends();
    assert_eq!(world.client_got(), [cancelled("7")]);
}

#[test]
fn a_client_that_is_let_go_is_not_bothered() {
    let mut world = World::up();
    world.server(&ask("7"));
    world.client_got();
    world.client_ends();
    world.server_dies(Exit::Code(0));
    assert_eq!(world.client_got(), [""; 0]);
}

#[test]
fn what_a_server_asked_in_excess_is_not_taken_back() {
    let mut world = World::up();
    for number in 0..1000 {
        world.server(&ask(&format!("\"{number}{}\"", "x".repeat(200))));
        world.client_got();
    }
    world.server_dies(Exit::Code(3));
    let got: usize = world.client_got().iter().map(String::len).sum();
    assert!((60_000..=64 * 1024).contains(&got), "{got}");
}
