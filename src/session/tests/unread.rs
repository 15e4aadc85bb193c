//! What a lost server has never read goes to the next one.

use super::*;
use crate::session::Event;

/// Writes everything that waits for the server, which reads all but the last `count` bytes of it, and is lost.
#[track_caller]
fn server_leaves_unread(world: &mut World, count: usize) {
    let text = world.session.to_upstream().to_vec();
    world.event(|session, cx| session.handle(Event::UpstreamWritten(text.len()), cx));
    is_lost(world, &text[text.len() - count..]);
}

#[track_caller]
fn is_lost(world: &mut World, unread: &[u8]) {
    world.pass(2 * SECOND);
    world.took_actions();
    world.event(|session, cx| session.handle(Event::UpstreamLeftUnread(unread), cx));
    world.server_dies(Exit::Signal(9));
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
}

fn next_server(world: &mut World) {
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
}

fn cancellation(id: u64) -> String {
    format!(r#"{{"method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
}

/// Tries every length of what is left unread: what the server has read of is lost, the rest goes to the next one.
#[test]
fn every_line_is_either_answered_or_waits_wherever_reading_has_stopped() {
    let lines = [
        request(1),
        request(2),
        "[{\"method\":\"n\"}]".into(),
        request(3),
    ];
    let all = lines.join("\n") + "\n";
    for count in 0..=all.len() {
        let mut world = World::up();
        for line in &lines {
            world.client(line);
        }
        server_leaves_unread(&mut world, count);
        // What is sent meanwhile follows.
        world.client(&request(4));
        next_server(&mut world);
        let whole = all[all.len() - count..].lines();
        let mut expected: Vec<String> = whole
            .filter(|line| lines.iter().any(|whole| whole == line))
            .map(str::to_owned)
            .collect();
        let lost = [1, 2, 3]
            .iter()
            .filter(|id| !expected.contains(&request(**id)));
        let lost: Vec<Value> = lost.map(|id| json!(id)).collect();
        expected.push(request(4));
        assert_eq!(world.server_got(), expected, "{count}");
        let got = world.client_got_json();
        let ids: Vec<&Value> = got.iter().map(|error| &error["id"]).collect();
        assert_eq!(ids, lost.iter().collect::<Vec<_>>(), "{count}");
        for error in &got {
            assert_error(error, &error["id"], 502, "process_terminated");
            assert_eq!(error["error"]["data"]["delivered"], true);
        }
    }
}

#[test]
fn a_line_that_was_written_in_part_waits_if_nothing_of_it_was_read() {
    for read in [0, 1] {
        let mut world = World::up();
        world.client(&request(1));
        world.client(&request(2));
        let text = world.session.to_upstream().to_vec();
        let (first, written) = (request(1).len() + 1, text.len() - 10);
        world.event(|session, cx| session.handle(Event::UpstreamWritten(written), cx));
        is_lost(&mut world, &text[first + read..written]);
        let ids: Vec<Value> = world
            .client_got_json()
            .iter()
            .map(|error| error["id"].clone())
            .collect();
        next_server(&mut world);
        if read == 0 {
            assert_eq!(
                (ids, world.server_got()),
                (vec![json!(1)], vec![request(2)])
            );
        } else {
            assert_eq!(
                (ids, world.server_got()),
                (vec![json!(1), json!(2)], vec![])
            );
        }
    }
}

#[test]
fn requests_that_were_not_read_wait_for_the_answers_of_the_next_server() {
    let mut world = World::up();
    world.client(&request(1));
    world.client(&format!("[{},{}]", request(2), request(3)));
    let count = world.session.to_upstream().len();
    server_leaves_unread(&mut world, count);
    assert_eq!(world.session.unanswered(), 3);
    next_server(&mut world);
    assert_eq!(world.server_got().len(), 2);
    for id in 1..=3 {
        world.server(&response(id));
        assert_eq!(world.client_got(), [response(id)]);
    }
    assert_eq!(world.session.unanswered(), 0);
}

#[test]
fn what_was_taken_back_is_not_sent_again_nor_is_what_takes_it_back() {
    let mut world = World::up();
    world.client(&request(1));
    world.client(&format!("[{},{}]", request(2), request(3)));
    world.client(&format!("[{}]", request(4)));
    world.server_got();
    for id in [1, 3, 4] {
        world.client(&cancellation(id));
    }
    let cancellations = world.session.to_upstream().to_vec();
    world.event(|session, cx| session.handle(Event::UpstreamWritten(cancellations.len()), cx));
    let requests = format!(
        "{}\n[{},{}]\n[{}]\n",
        request(1),
        request(2),
        request(3),
        request(4)
    );
    is_lost(&mut world, &[requests.as_bytes(), &cancellations].concat());
    next_server(&mut world);
    assert_eq!(world.server_got(), [format!("[{}]", request(2))]);
    assert_eq!(world.client_got(), [""; 0]);
    assert_eq!(world.session.unanswered(), 1);
}

#[test]
fn responses_to_the_lost_server_are_dropped() {
    let mut world = World::up();
    let ask = r#"{"id":5,"method":"roots/list"}"#;
    world.server(ask);
    world.client_got();
    world.client(&response(5));
    world.client(&format!("[{},{}]", response(5), request(1)));
    let count = world.session.to_upstream().len();
    server_leaves_unread(&mut world, count);
    next_server(&mut world);
    assert_eq!(world.server_got(), [format!("[{}]", request(1))]);
}

/// Two requests of an id: the second one was not read.
#[test]
fn of_equal_ids_the_later_ones_were_not_read() {
    let mut world = World::up();
    world.client(&request(1));
    world.server_got();
    let second = r#"{"id":1.0,"method":"m"}"#;
    world.client(second);
    server_leaves_unread(&mut world, second.len() + 1);
    world.client_got_error(&json!(1), 502, "process_terminated");
    next_server(&mut world);
    assert_eq!(world.server_got(), [second]);
}

#[test]
fn the_end_of_a_handshake_that_was_not_read_is_said_once() {
    let mut world = World::up();
    world.client(INITIALIZE);
    world.server_got();
    world.server(AGREED);
    world.client_got();
    world.client(INITIALIZED);
    world.client(&request(2));
    let count = world.session.to_upstream().len();
    server_leaves_unread(&mut world, count);
    next_server(&mut world);
    let replay: Value = serde_json::from_str(&world.server_got()[0]).unwrap();
    world.server(&AGREED.replace("\"id\":1", &format!("\"id\":{}", replay["id"])));
    assert_eq!(world.server_got(), [INITIALIZED, &request(2)]);
}

#[test]
fn a_handshake_that_was_not_read_is_sent_as_it_was() {
    let mut world = World::up();
    world.client(INITIALIZE);
    world.client(INITIALIZED);
    let count = world.session.to_upstream().len();
    server_leaves_unread(&mut world, count);
    next_server(&mut world);
    assert_eq!(world.server_got(), [INITIALIZE, INITIALIZED]);
    world.server(AGREED);
    assert_eq!(world.server_got(), [""; 0]);
}

#[test]
fn a_server_may_say_more_after_it_has_stopped_reading() {
    let mut world = World::up();
    world.client(&request(1));
    world.client(&request(2));
    world.server_got();
    let unread = request(2) + "\n";
    world.event(|session, cx| session.handle(Event::UpstreamLeftUnread(unread.as_bytes()), cx));
    world.server(&response(1));
    assert_eq!(world.client_got(), [response(1)]);
    world.pass(2 * SECOND);
    world.server_dies(Exit::Code(0));
    world.took_actions();
    next_server(&mut world);
    assert_eq!(world.server_got(), [request(2)]);
    assert_eq!(world.client_got(), [""; 0]);
}

#[test]
fn errors_say_what_no_server_has_seen() {
    let mut world = World::with(|settings| settings.restarts_upstream = false);
    world.start();
    world.client(&request(1));
    world.client(&request(2));
    world.server_got();
    let unread = request(2) + "\n";
    world.event(|session, cx| session.handle(Event::UpstreamLeftUnread(unread.as_bytes()), cx));
    world.server_dies(Exit::Code(3));
    let got = world.client_got_json();
    assert_error(&got[0], &json!(1), 502, "process_terminated");
    assert_error(&got[1], &json!(2), 503, "restart_limit");
    let delivered = |nth: usize| &got[nth]["error"]["data"]["delivered"];
    assert_eq!((delivered(0), delivered(1)), (&json!(true), &json!(false)));
}

#[test]
fn what_went_over_a_lost_link_may_have_been_read() {
    let mut world = World::with(|settings| {
        settings.role = Backend::Proxy {
            max_delay: SECOND,
            max_attempts: Some(0),
            held_timeout: None,
            is_tidy: false,
            token: None,
            server: None,
        };
    });
    world.start();
    world.client(&request(1));
    world.server_got();
    world.server_output_ends();
    world.client(&request(2));
    let got = world.client_got_json();
    assert_error(&got[0], &json!(1), 502, "connection_lost");
    assert_error(&got[1], &json!(2), 503, "reconnect_limit");
    let delivered = |nth: usize| &got[nth]["error"]["data"]["delivered"];
    assert_eq!(
        (delivered(0), delivered(1)),
        (&json!("unknown"), &json!(false))
    );
}
