//! The client takes back what no server was sent.

use super::*;
use crate::protocol::splice::ITEMS_READ;

fn cancellation(id: u64) -> String {
    format!(r#"{{"method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
}

/// A session whose server is lost, and the next one is not there yet.
fn down() -> World {
    let mut world = World::up();
    world.server_dies(Exit::Code(1));
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    world
}

fn comes_up(world: &mut World) {
    world.pass(SECOND);
    world.start();
}

#[test]
fn what_is_taken_back_while_no_server_is_there_is_never_sent() {
    let mut world = down();
    for id in [1, 2, 3] {
        world.client(&request(id));
    }
    world.client(&cancellation(2));
    // The same once more, under another id.
    world.client(&request(4));
    assert_eq!(world.session.unanswered(), 3);
    comes_up(&mut world);
    assert_eq!(world.server_got(), [request(1), request(3), request(4)]);
    assert!(
        world
            .client_got()
            .iter()
            .all(|line| !line.contains("error"))
    );
}

#[test]
fn what_waits_for_room_is_taken_back_too_and_what_was_begun_is_not() {
    let mut world = World::up();
    world.client(&request(1));
    world.client(&request(2));
    world.event(|session, cx| session.handle(Event::UpstreamWritten(1), cx));
    world.client(&cancellation(2));
    world.client(&cancellation(1));
    let rest = String::from_utf8(world.session.to_upstream().to_vec()).unwrap();
    assert_eq!(rest, format!("{}\n{}\n", &request(1)[1..], cancellation(1)));
}

#[test]
fn an_initialize_is_not_taken_back() {
    let mut world = down();
    world.client(INITIALIZE);
    world.client(&cancellation(1));
    comes_up(&mut world);
    assert_eq!(world.server_got()[0], INITIALIZE);
}

#[test]
fn what_the_next_server_is_not_sent_needs_no_server() {
    let mut world = World::with(|settings| settings.spawn = Spawn::Lazy);
    world.client(&request(1));
    world.client(&cancellation(1));
    assert!(!world.session.waits_for_upstream());
    assert_eq!(world.session.unanswered(), 0);
    world.client_ends();
    world.pass(SECOND);
    assert_eq!(world.client_got(), [""; 0]);
    assert!(world.session.is_finished());
}

#[test]
fn a_batch_goes_without_what_was_taken_back() {
    let mut world = down();
    let note = r#"{"method":"n"}"#;
    world.client(&format!("[ {}, {note} , {}]", request(1), request(2)));
    world.client(&format!("[{}]", request(3)));
    world.client(&format!("[{},{}]", request(4), request(5)));
    for id in [1, 3, 4, 5] {
        world.client(&cancellation(id));
    }
    assert_eq!(world.session.unanswered(), 1);
    comes_up(&mut world);
    assert_eq!(world.server_got(), [format!("[ {note},{}]", request(2))]);
    world.server(&response(2));
    assert_eq!(world.session.unanswered(), 0);
}

#[test]
fn cancellations_in_a_batch_are_carried_out_too() {
    let mut world = down();
    for id in [1, 2, 3] {
        world.client(&request(id));
    }
    world.client(&format!("[{},{}]", cancellation(1), cancellation(9)));
    world.client(&format!("[{}]", cancellation(2)));
    world.client(&format!("[{},{}]", request(4), cancellation(4)));
    comes_up(&mut world);
    assert_eq!(
        world.server_got(),
        [
            request(3),
            format!("[{}]", cancellation(9)),
            format!("[{},{}]", request(4), cancellation(4)),
        ]
    );
    assert_eq!(world.session.unanswered(), 1, "only the third");
}

#[test]
fn ids_are_equal_if_their_values_are() {
    let mut world = down();
    world.client(&request(1));
    world.client(r#"{"method":"notifications/cancelled","params":{"requestId":1.0}}"#);
    comes_up(&mut world);
    assert_eq!(world.server_got(), [""; 0]);
}

#[test]
fn it_is_the_same_on_the_stdio_side() {
    let mut world = World::connector();
    world.client(&request(1));
    world.client(&request(2));
    world.client(&cancellation(1));
    world.start();
    let got = world.server_got();
    assert_eq!(got[1..], [request(2)], "after the announcement");
}

/// Of several requests with one id, each cancellation takes out one.
#[test]
fn each_cancellation_takes_out_one_request() {
    let mut world = down();
    for id in [1, 1, 2] {
        world.client(&request(id));
    }
    world.client(&format!("[{},{},{}]", request(1), request(3), request(2)));
    let twice = format!("[{0},{1},{0}]", cancellation(1), cancellation(2));
    world.client(&twice);
    comes_up(&mut world);
    let left = format!("[{},{},{}]", request(1), request(3), request(2));
    assert_eq!(world.server_got(), [left]);
    assert_eq!(world.session.unanswered(), 3);
}

#[test]
fn many_cancellations_in_a_batch_cost_no_more_for_each_than_few() {
    const COUNT: u64 = 1000;
    let batch = |message: &dyn Fn(u64) -> String| {
        let messages: Vec<String> = (0..COUNT).map(message).collect();
        format!("[{}]", messages.join(","))
    };
    let mut world = World::with(|settings| settings.max_message_bytes = 1 << 20);
    world.client(&batch(&request));
    assert_eq!(world.session.unanswered(), 1000);
    ITEMS_READ.set(0);
    world.client(&batch(&cancellation));
    assert_eq!(world.session.unanswered(), 0);
    // Each batch once.
    assert!(
        ITEMS_READ.get() <= 2 * COUNT as usize,
        "{}",
        ITEMS_READ.get()
    );
}
