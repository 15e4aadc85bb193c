//! Ports at which there is no proxy, but something else.

use serde_json::json;

use crate::common::connect::{IN_HASTE, connected, request};

#[test]
fn a_port_of_another_protocol_is_named_and_the_end() {
    let answers: [(&[u8], &str); 3] = [
        (
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            "speaks HTTP, ",
        ),
        (b"\x15\x03\x01\x00\x02\x02\x46", "wants --tls"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "speaks SSH, "),
    ];
    for (answer, what) in answers {
        let (server, mut connect, mut peer) = connected(&IN_HASTE);
        connect.send_line(&request(1, "m", &json!({})));
        peer.recv_line();
        peer.send_raw(answer);
        assert_eq!(connect.recv_error(502, "unreachable").0, 1);
        let log = connect.wait_exit(1);
        assert_eq!(log.len(), 1, "{log:?}");
        let expected = format!("that port {what}");
        assert!(log[0].contains(&expected), "{log:?}");
        assert!(server.try_accept().is_none(), "it connected again");
    }
}

#[test]
fn after_a_good_connection_it_is_a_loss_like_any_other() {
    let (server, mut connect, mut peer) = connected(&IN_HASTE);
    peer.send_line(r#"{"method":"good"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"good"}"#);
    peer.close();
    for _ in 0..3 {
        let mut peer = server.greeted();
        peer.send_raw(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
        peer.read_to_end();
    }
    let mut peer = server.greeted();
    connect.send_line(r#"{"method":"again"}"#);
    assert_eq!(peer.recv_line(), r#"{"method":"again"}"#);
    assert_eq!(connect.count_logs("that port speaks HTTP"), 3);
}
