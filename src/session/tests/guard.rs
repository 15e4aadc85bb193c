//! Clients that speak another protocol.

use super::*;
use crate::protocol::recogniser::Protocol;

/// What a browser sends for a form with `enctype="text/plain"` that submits itself.
const FORM: &str = concat!(
    "POST / HTTP/1.1\r\n",
    "Host: 127.0.0.1:8080\r\n",
    "Content-Type: text/plain\r\n",
    "Content-Length: 120\r\n",
    "Origin: https://example.com\r\n",
    "\r\n",
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"x":"="}}"#,
    "\r\n",
    r#"{"jsonrpc":"2.0","id":2,"method":"tools/call"}"#,
    "\r\n",
);

fn sends(world: &mut World, bytes: &[u8]) {
    // As whoever drives a session does.
    if !bytes.is_empty() && world.session.wants_client_input() {
        world.event(|session, cx| session.handle(Event::ClientBytes(bytes), cx));
    }
}

/// The session has ended because of the first line, and goes to its end as any other. Returns what its client got.
#[track_caller]
fn turned_away(world: &mut World, protocol: Protocol) -> Vec<String> {
    assert_eq!(world.server_got(), [""; 0]);
    assert_eq!(world.session.other_protocol(), Some(protocol));
    let got = world.client_got();
    assert_eq!(world.took_actions().last(), Some(&Action::ShutdownClient));
    // What else it says is read, so that no reset destroys the response, and dropped.
    assert!(world.session.wants_client_input());
    world.client(&request(7));
    assert_eq!(world.session.to_client(), b"");
    world.client_ends();
    assert_eq!(world.took_actions(), [Action::CloseClient]);
    got
}

#[test]
fn nothing_of_a_request_of_http_is_served_wherever_it_is_cut() {
    for cut in 0..=FORM.len() {
        let (head, tail) = FORM.as_bytes().split_at(cut);
        let mut world = World::up();
        sends(&mut world, head);
        sends(&mut world, tail);
        let got = turned_away(&mut world, Protocol::Http);
        assert_eq!(got[0], "HTTP/1.1 400 Bad Request", "{cut}");
        assert!(got.contains(&"Connection: close".to_owned()), "{got:?}");
        assert!(got.iter().all(|line| !line.contains("jsonrpc")), "{got:?}");
        world.server_dies(Exit::Code(0));
        assert!(world.session.is_finished());
    }
}

#[test]
fn other_protocols_get_no_response() {
    let first_lines: [(&[u8], Protocol); 4] = [
        (
            b"\x16\x03\x01\x02\x00\x01\n{\"id\":1,\"method\":\"m\"}\n",
            Protocol::Tls,
        ),
        (
            b"PROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\n{\"id\":1,\"method\":\"m\"}\n",
            Protocol::Proxy,
        ),
        (
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0{\"id\":1,\"method\":\"m\"}\n",
            Protocol::Proxy,
        ),
        (b"SSH-2.0-x\r\n{\"id\":1,\"method\":\"m\"}\n", Protocol::Ssh),
    ];
    for (says, protocol) in first_lines {
        for cut in 0..=says.len() {
            let mut world = World::up();
            sends(&mut world, &says[..cut]);
            sends(&mut world, &says[cut..]);
            assert_eq!(turned_away(&mut world, protocol), [""; 0], "{cut}");
        }
    }
}

#[test]
fn no_server_is_asked_for() {
    let mut world = World::with(|settings| settings.spawn = Spawn::Lazy);
    sends(&mut world, FORM.as_bytes());
    world.client_got();
    assert_eq!(world.took_actions(), [Action::ShutdownClient]);
}

#[test]
fn a_server_that_was_asked_for_is_not_wanted_any_more() {
    let mut world = World::new();
    assert_eq!(world.took_actions(), [Action::StartUpstream]);
    sends(&mut world, FORM.as_bytes());
    assert!(!world.session.wants_start());
    turned_away(&mut world, Protocol::Http);
    assert!(world.session.is_finished());
}

#[test]
fn only_the_first_line_matters() {
    let mut world = World::up();
    sends(&mut world, b"\r\n  \n");
    world.client(&request(1));
    sends(
        &mut world,
        FORM.split_once("\r\n\r\n").unwrap().0.as_bytes(),
    );
    assert_eq!(world.server_got(), [request(1)]);
    assert_eq!(world.client_got().len(), 4, "an error for each header line");
    assert_eq!(world.session.other_protocol(), None);
}

#[test]
fn anything_else_is_an_error_and_the_session_goes_on() {
    for line in ["hello", "GET /", "true", "\0", "\u{16}"] {
        let mut world = World::up();
        world.client(line);
        world.client_got_error(&Value::Null, -32700, "parse_error");
        world.client(&request(1));
        assert_eq!(world.server_got(), [request(1)]);
    }
}

/// The lines in the twelve bytes of a PROXY header, which it turns out not to be.
#[test]
fn what_looked_like_a_proxy_header_is_handled_as_lines() {
    let says = b"\r\n\r\n\0\r\nQUIT";
    for cut in 0..=says.len() {
        for ends in [false, true] {
            let mut world = World::up();
            sends(&mut world, &says[..cut]);
            sends(&mut world, &says[cut..]);
            assert_eq!(world.client_got(), [""; 0]);
            if ends {
                world.client_ends();
            } else {
                world.client("E");
                world.client(&request(1));
                assert_eq!(world.server_got(), [request(1)]);
            }
            let got = world.client_got_json();
            assert_eq!(got.len(), 2, "{got:?}");
            for error in got {
                assert_error(&error, &Value::Null, -32700, "parse_error");
            }
        }
    }
}

/// The program that started `connect` is no stranger.
#[test]
fn the_stdin_of_connect_is_not_guarded() {
    let mut world = World::connector();
    sends(&mut world, b"GET / HTTP/1.1\r\n");
    world.client_got_error(&Value::Null, -32700, "parse_error");
}
