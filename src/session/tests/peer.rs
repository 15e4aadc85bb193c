//! What is at the other end of a link: another program, or a proxy that is full.

use super::connector::{NOTIFICATION, connect, connector, link_ends, said};
use super::*;

const HTTP: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}";

fn peer_says(world: &mut World, bytes: &[u8]) {
    world.event(|session, cx| session.handle(Event::UpstreamBytes(bytes), cx));
}

#[test]
fn a_port_of_another_protocol_is_the_end_at_once() {
    let answers: [(&[u8], &str); 3] = [
        (HTTP.as_bytes(), "speaks HTTP"),
        (b"\x15\x03\x01\0\x02\x02\x46", "wants --tls"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "speaks SSH"),
    ];
    for (answer, what) in answers {
        for cut in 0..=answer.len() {
            let mut world = connector(None);
            connect(&mut world);
            world.client(&request(1));
            said(&mut world);
            world.client(&request(2));
            peer_says(&mut world, &answer[..cut]);
            if world.session.wants_upstream_output(&world.memory) {
                peer_says(&mut world, &answer[cut..]);
            }
            let errors = world.client_got_json();
            assert_eq!(errors.len(), 2, "{errors:?}");
            for (error, id) in errors.iter().zip(1..) {
                assert_error(error, &json!(id), 502, "unreachable");
            }
            // It does not wait for what else the host may want to say.
            world.pass(SECOND);
            assert_eq!(
                world.took_actions(),
                [Action::StopUpstream, Action::ShutdownClient]
            );
            let reason = world.session.failure().unwrap().to_string();
            assert!(reason.starts_with(&format!("that port {what}")), "{reason}");
        }
    }
}

#[test]
fn once_a_proxy_was_there_another_protocol_is_a_loss_like_any_other() {
    let heartbeat = r#"{"type":"heartbeat_response","timestamp":1.0,"mcp_alive":true}"#;
    for proof in [heartbeat.to_owned(), response(1)] {
        let mut world = connector(None);
        connect(&mut world);
        world.client(&request(1));
        said(&mut world);
        world.server(&proof);
        world.client_got();
        link_ends(&mut world);
        connect(&mut world);
        world.client(&request(2));
        said(&mut world);
        peer_says(&mut world, HTTP.as_bytes());
        let error = world.client_got_error(&json!(2), 502, "connection_lost");
        assert_eq!(error["error"]["data"]["status"], "that port speaks HTTP");
        assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
        world.pass(SECOND);
        connect(&mut world);
    }
}

fn full(data: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":503,"message":"x","data":{{{data}}}}}}}"#
    )
}

const FULL: &str = r#""source":"mcp-tcp-proxy","reason":"session_limit""#;

#[test]
fn a_full_proxy_is_a_failed_attempt_and_nothing_for_the_host() {
    let mut world = connector(Some(3));
    world.client(INITIALIZE);
    for _ in 0..4 {
        connect(&mut world);
        assert_eq!(said(&mut world), [INITIALIZE]);
        world.server(&full(FULL));
        assert_eq!(world.took_actions()[0], Action::ReleaseUpstream);
        world.event(|session, cx| session.handle(Event::UpstreamEof(None), cx));
        world.pass(SECOND);
        world
            .actions
            .retain(|action| *action == Action::StartUpstream);
    }
    let error = world.client_got_error(&json!(1), 503, "reconnect_limit");
    let text = error["error"]["message"].as_str().unwrap();
    assert!(text.contains("session_limit"), "{text}");
}

#[test]
fn only_the_first_line_of_a_proxy_is_a_refusal() {
    let lines = [
        (Some(NOTIFICATION), FULL),
        (Some("not JSON, but a line"), FULL),
        (None, r#""source":"server","reason":"session_limit""#),
        (None, r#""source":"mcp-tcp-proxy","reason":"parse_error""#),
        (None, r#""source":"mcp-tcp-proxy""#),
        (None, r#""reason":"session_limit""#),
    ];
    for (first, data) in lines {
        let mut world = connector(None);
        connect(&mut world);
        said(&mut world);
        if let Some(first) = first {
            world.server(first);
        }
        world.server(&full(data));
        assert_eq!(world.client_got().pop(), Some(full(data)));
        assert_eq!(world.took_actions(), []);
    }
}

/// Only the first line tells.
#[test]
fn a_later_line_of_a_proxy_may_look_like_anything() {
    let mut world = connector(None);
    connect(&mut world);
    said(&mut world);
    world.server(&request(1));
    peer_says(&mut world, HTTP.as_bytes());
    assert_eq!(world.client_got(), [request(1)]);
    assert_eq!(world.took_actions(), []);
}
