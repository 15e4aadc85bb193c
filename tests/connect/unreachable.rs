//! Requests for which there is no connection: they are answered, and the exit code tells.

use serde_json::json;

use crate::common::Connect;
use crate::common::connect::{IN_HASTE, Reserved, connected, initialize_line, request};

#[test]
fn requests_are_answered_and_later_ones_are_served() {
    let reserved = Reserved::new();
    let options = [&IN_HASTE[..], &["--held-request-timeout", "0.3"]].concat();
    let mut connect = Connect::start(&options, reserved.address());
    connect.send_line(&initialize_line(0));
    assert_eq!(connect.recv_error(502, "unreachable").0, 0);
    connect.send_line(&request(1, "m", &json!({})));
    assert_eq!(connect.recv_error(502, "unreachable").0, 1);
    let server = reserved.listen(8);
    let mut peer = server.greeted();
    connect.send_line(&request(2, "m", &json!({})));
    assert_eq!(peer.recv_json()["id"], 2);
    peer.send_line(r#"{"id":2,"result":{}}"#);
    assert_eq!(connect.recv_line(), r#"{"id":2,"result":{}}"#);
    connect.end_input();
    assert_eq!(peer.read_to_end(), [""; 0]);
    peer.close();
    let log = connect.wait_exit(1);
    let last = log.last().unwrap();
    assert!(last.ends_with("not there: 2 requests"), "{log:?}");
}

#[test]
fn the_exit_code_tells_of_a_request_that_was_lost_with_its_connection() {
    for is_lost in [true, false] {
        let (server, mut connect, mut peer) = connected(&IN_HASTE);
        connect.send_line(&request(1, "m", &json!({})));
        peer.recv_line();
        if !is_lost {
            peer.send_line(r#"{"id":1,"result":{}}"#);
            assert_eq!(connect.recv_json()["id"], 1);
        }
        peer.close();
        if is_lost {
            connect.recv_error(502, "connection_lost");
        }
        let mut peer = server.greeted();
        connect.end_input();
        peer.read_to_end();
        peer.close();
        connect.wait_exit(i32::from(is_lost));
    }
}
