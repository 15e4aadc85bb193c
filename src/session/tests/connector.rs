//! Sessions of `connect`: the proxy at the other end comes and goes, and the program that started this one is never
//! hurried.

use super::*;
use crate::protocol::own_messages::{self, Delivered, ErrorReason, Loss};
use crate::session::Event;

pub(super) const NOTIFICATION: &str = r#"{"method":"m"}"#;

/// A session of `connect` that has asked for its first link.
pub(super) fn connector(max_attempts: Option<u32>) -> World {
    World::with(|settings| {
        settings.role = Backend::Proxy {
            max_delay: SECOND,
            max_attempts,
            held_timeout: Some(60 * SECOND),
            is_tidy: false,
            token: None,
            server: None,
        };
    })
}

/// The link that was asked for is made.
#[track_caller]
pub(super) fn connect(world: &mut World) {
    assert_eq!(world.took_actions(), [Action::StartUpstream]);
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: None }, cx));
}

/// What was sent over a new link, without the first line, which is for the proxy.
#[track_caller]
pub(super) fn said(world: &mut World) -> Vec<String> {
    let mut got = world.server_got();
    assert!(got.remove(0).contains("handshake"));
    got
}

/// A session after its handshake, and after the loss of the link over which that took place.
fn lost_after_handshake(max_attempts: Option<u32>) -> World {
    let mut world = connector(max_attempts);
    connect(&mut world);
    world.client(INITIALIZE);
    world.client(INITIALIZED);
    assert_eq!(said(&mut world), [INITIALIZE, INITIALIZED]);
    world.server(AGREED);
    assert_eq!(world.client_got(), [AGREED]);
    world.server_output_ends();
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    world.pass(SECOND);
    world
}

/// The replayed handshake must be all that was sent. Returns its id.
#[track_caller]
fn expect_replay(world: &mut World) -> Value {
    replay_id(&said(world))
}

/// The link ends, and the next one is asked for.
pub(super) fn link_ends(world: &mut World) {
    world.server_output_ends();
    world.pass(SECOND);
    world.client_got();
    world
        .actions
        .retain(|action| *action == Action::StartUpstream);
}

/// The response of a proxy that has no server for a request.
fn refusal(id: &Value) -> String {
    let data = json!({"source": "mcp-tcp-proxy", "reason": "session_limit"});
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": 503, "message": "x", "data": data}})
        .to_string()
}

/// The same error from somebody else.
fn error(id: &Value) -> String {
    refusal(id).replace(r#""source":"mcp-tcp-proxy""#, r#""source":"server""#)
}

// Errors of the proxy.

#[test]
fn a_replay_that_the_proxy_refuses_is_made_again_on_the_next_connection() {
    let mut world = lost_after_handshake(None);
    world.client(&request(2));
    for _ in 0..3 {
        connect(&mut world);
        let id = expect_replay(&mut world);
        world.server(&refusal(&id));
        assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
        world.pass(SECOND);
    }
    assert_eq!(world.client_got(), Vec::<String>::new());
    connect(&mut world);
    let id = expect_replay(&mut world);
    agree_to_replay(&mut world, &id, &request(2));
    assert_eq!(world.took_actions(), []);
}

/// A refused replay ends the link, whatever else was sent over it.
#[test]
fn nothing_that_follows_a_refused_replay_in_the_same_read_counts() {
    let heartbeat = r#"{"type":"heartbeat_response","timestamp":1.0,"mcp_alive":true}"#;
    let half = r#"{"method":"half"#;
    let mut world = lost_after_handshake(None);
    world.client(&request(2));
    connect(&mut world);
    let id = expect_replay(&mut world);
    world.server(&format!(
        "{}\n{heartbeat}\n{NOTIFICATION}\n{}\n{half}",
        refusal(&id),
        response(2)
    ));
    assert_eq!(world.client_got(), [""; 0]);
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    // The same goes for what is read from the link before it is released.
    world.event(|session, cx| session.handle(Event::UpstreamBytes(half.as_bytes()), cx));
    world.event(|session, cx| session.handle(Event::UpstreamEof(None), cx));
    world.pass(SECOND);
    connect(&mut world);
    let id = expect_replay(&mut world);
    agree_to_replay(&mut world, &id, &request(2));
    world.server(&response(2));
    assert_eq!(world.client_got(), [response(2)]);
}

/// The refusal has no line end, so it is handled only when the link ends: that is one loss, not two.
#[test]
fn a_refused_replay_may_be_the_last_words_on_a_link() {
    let mut world = lost_after_handshake(Some(3));
    world.client(&request(2));
    connect(&mut world);
    let id = expect_replay(&mut world);
    let refusal = refusal(&id);
    world.event(|session, cx| session.handle(Event::UpstreamBytes(refusal.as_bytes()), cx));
    world.server_output_ends();
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    world.pass(SECOND);
    connect(&mut world);
    expect_replay(&mut world);
    assert_eq!(world.client_got(), [""; 0]);
}

/// An error of the server's own shows that it is not the server that it was.
#[test]
fn a_replay_that_the_server_refuses_is_the_end() {
    let mut world = lost_after_handshake(None);
    world.client(&request(2));
    connect(&mut world);
    let id = expect_replay(&mut world);
    world.server(&error(&id));
    world.client_got_error(&json!(2), 503, "server_changed");
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
}

#[test]
fn refused_replays_are_attempts_in_a_row() {
    let mut world = lost_after_handshake(Some(3));
    world.client(&request(2));
    for _ in 0..3 {
        connect(&mut world);
        let id = expect_replay(&mut world);
        world.server(&refusal(&id));
        assert_eq!(world.took_actions()[0], Action::ReleaseUpstream);
        world.pass(SECOND);
    }
    world.client_got_error(&json!(2), 503, "reconnect_limit");
    assert_eq!(world.took_actions(), [Action::ShutdownClient]);
}

/// Over each of many links the peer says this and hangs up. Returns how many were made.
fn connections_on_which(peer_says: &str) -> usize {
    let mut world = connector(Some(3));
    for made in 0..20 {
        if !world.session.wants_start() {
            return made;
        }
        connect(&mut world);
        world.client(&request(1));
        assert_eq!(said(&mut world), [request(1)]);
        world.server(peer_says);
        link_ends(&mut world);
    }
    20
}

#[test]
fn only_what_a_server_says_shows_that_there_is_one() {
    let of_the_proxy = [
        refusal(&json!(1)),
        refusal(&Value::Null),
        format!("[{}]", refusal(&json!(1))),
        r#"{"type":"heartbeat_response","timestamp":1.0,"mcp_alive":true}"#.to_owned(),
        "not JSON".to_owned(),
    ];
    for line in of_the_proxy {
        assert_eq!(connections_on_which(&line), 4, "{line}");
    }
    let of_the_server = [
        response(1),
        error(&json!(1)),
        NOTIFICATION.to_owned(),
        request(1),
    ];
    for line in of_the_server {
        assert_eq!(connections_on_which(&line), 20, "{line}");
    }
}

/// As a proxy with an idle timeout does while the host has nothing to say.
#[test]
fn ends_of_idle_connections_are_no_failed_attempts() {
    let mut world = connector(Some(3));
    let mut cycle = |request_first: Option<u64>| {
        connect(&mut world);
        if let Some(id) = request_first {
            world.client(&request(id));
        }
        said(&mut world);
        world.pass(5 * SECOND);
        world.server_output_ends();
        world.pass(SECOND);
        world.client_got();
        let goes_on = world.session.wants_start();
        world
            .actions
            .retain(|action| *action == Action::StartUpstream);
        goes_on
    };
    for _ in 0..20 {
        assert!(cycle(None));
    }
    // A request over each of them, in vain, is refused in the end.
    assert_eq!([1, 2, 3].map(|id| cycle(Some(id))), [true, true, false]);
}

// The ends of the two sides.

#[test]
fn a_host_that_reads_late_at_the_end_loses_nothing() {
    let mut world = connector(None);
    connect(&mut world);
    said(&mut world);
    world.server_floods();
    world.client_ends();
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    world.pass(1000 * SECOND);
    assert_eq!(world.took_actions(), []);
    let flood = world.client_got();
    assert!(flood.len() > OUTBOX_BYTES / 1000 && flood.iter().all(|line| line.contains("flood")));
    world.server(NOTIFICATION);
    world.server_output_ends();
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    world.pass(1000 * SECOND);
    assert_eq!(world.took_actions(), []);
    assert_eq!(world.client_got(), [NOTIFICATION]);
    assert_eq!(world.took_actions(), [Action::CloseClient]);
    assert!(world.session.is_finished() && world.session.failure().is_none());
}

#[test]
fn what_came_before_a_write_failed_is_delivered() {
    let mut world = connector(None);
    connect(&mut world);
    world.client(&request(1));
    world.client(&request(2));
    assert_eq!(said(&mut world), [request(1), request(2)]);
    world.event(|session, cx| session.handle(Event::UpstreamInputBroke, cx));
    assert_eq!(world.client_got(), Vec::<String>::new());
    world.server(&response(1));
    assert_eq!(world.client_got(), [response(1)]);
    world.server_output_ends();
    world.client_got_error(&json!(2), 502, "connection_lost");
}

/// What a proxy says to a request that comes after it was told to stop.
fn refused_by_stop(id: u64) -> String {
    own_messages::error(
        Some(&id),
        ErrorReason::Shutdown,
        "the proxy is shutting down",
        Loss {
            status: None,
            delivered: Some(Delivered::No),
            ..Loss::default()
        },
    )
}

#[test]
fn what_a_stopping_proxy_refuses_is_held_and_sent_over_the_next_link() {
    let mut world = connector(None);
    connect(&mut world);
    world.client(&request(1));
    assert_eq!(said(&mut world), [request(1)]);
    world.client(&request(2));
    assert_eq!(world.server_got(), [request(2)]);
    world.server(&refused_by_stop(2));
    assert_eq!(world.client_got(), [""; 0]);
    // What is new waits, too; what concerns what is in flight passes.
    world.client(&request(3));
    let cancel = r#"{"method":"notifications/cancelled","params":{"requestId":1}}"#;
    world.client(cancel);
    world.server(r#"{"id":9,"method":"roots/list"}"#);
    assert_eq!(world.client_got().len(), 1);
    world.client(&response(9));
    assert_eq!(world.server_got(), [cancel, &response(9)]);
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    world.pass(SECOND);
    connect(&mut world);
    assert_eq!(said(&mut world), [request(2), request(3)]);
}

#[test]
fn a_proxy_that_is_being_stopped_is_said_to_be() {
    // It refuses what comes next, or the handshake of who comes next.
    let mut world = connector(Some(0));
    connect(&mut world);
    world.client(&request(1));
    said(&mut world);
    world.server(&refused_by_stop(1));
    assert!(
        world.reason().contains("the proxy is being stopped"),
        "{}",
        world.reason()
    );
}

#[test]
fn a_link_on_which_something_is_in_flight_outlasts_a_refusal() {
    let mut world = connector(None);
    connect(&mut world);
    world.client(&request(1));
    world.client(&request(2));
    said(&mut world);
    world.server(&refused_by_stop(2));
    world.pass(10 * SECOND);
    assert_eq!(world.took_actions(), []);
    world.server(&response(1));
    assert_eq!(world.client_got(), [response(1)]);
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
}

#[test]
fn what_a_server_may_have_seen_is_not_sent_again() {
    let mut world = connector(None);
    connect(&mut world);
    world.client(&request(1));
    said(&mut world);
    let told = refused_by_stop(1).replace("\"delivered\":false", "\"delivered\":\"unknown\"");
    world.server(&told);
    assert_eq!(world.client_got(), [told]);
    // Too long to be kept.
    let mut world = connector(None);
    world.settings.max_message_bytes = 1 << 20;
    connect(&mut world);
    let long = format!(r#"{{"id":1,"method":"{}"}}"#, "x".repeat(70_000));
    world.client(&long);
    said(&mut world);
    world.server(&refused_by_stop(1));
    world.client_got_error(&json!(1), 503, "shutdown");
}

#[test]
fn a_replay_that_is_not_answered_is_a_failed_attempt() {
    let mut world = connector(Some(2));
    world.start();
    world.client(INITIALIZE);
    world.server_got();
    world.server(AGREED);
    world.client_got();
    world.server_output_ends();
    world.client(&request(2));
    for attempt in 0..2 {
        world.pass(SECOND);
        assert_eq!(
            world.took_actions(),
            [Action::ReleaseUpstream, Action::StartUpstream],
            "{attempt}"
        );
        world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: None }, cx));
        world.server_got();
        for _ in 0..11 {
            world.server(r#"{"type":"heartbeat_response","timestamp":1.5,"mcp_alive":true}"#);
            world.pass(SECOND);
        }
    }
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    world.client_got_error(&json!(2), 503, "reconnect_limit");
}

/// The refusal of a proxy that is being stopped.
fn refusal_by_stop(id: &str) -> String {
    let loss = Loss {
        status: None,
        delivered: Some(Delivered::No),
        ..Loss::default()
    };
    own_messages::error(Some(&id), ErrorReason::Shutdown, "x", loss)
}

#[test]
fn a_refused_initialize_is_sent_again_with_what_followed_it() {
    // What follows was sent, or waits to be, or comes later.
    for sent_before in 0..3 {
        let mut world = connector(None);
        connect(&mut world);
        world.client(INITIALIZE);
        assert_eq!(said(&mut world), [INITIALIZE]);
        if sent_before < 2 {
            world.client(INITIALIZED);
        }
        if sent_before == 0 {
            assert_eq!(world.server_got(), [INITIALIZED]);
        }
        world.server(&refusal_by_stop("1"));
        if sent_before == 2 {
            world.client(INITIALIZED);
        }
        world.server_got();
        link_ends(&mut world);
        connect(&mut world);
        let mut got = said(&mut world);
        world.server(AGREED);
        got.extend(world.server_got());
        assert_eq!(got, [INITIALIZE, INITIALIZED], "{sent_before}");
        assert_eq!(world.client_got(), [AGREED]);
    }
}

/// It was too long to be kept.
#[test]
fn a_refused_request_that_can_not_be_sent_again_is_answered_to_a_tidy_host_too() {
    let mut world = World::with(|settings| {
        settings.max_message_bytes = 1 << 20;
        settings.role = Backend::Proxy {
            max_delay: SECOND,
            max_attempts: None,
            held_timeout: None,
            is_tidy: true,
            token: None,
            server: None,
        };
    });
    connect(&mut world);
    let long = request(1).replace("\"m\"", &format!("\"{}\"", "m".repeat(70_000)));
    world.client(&long);
    assert_eq!(said(&mut world), [long]);
    world.server(&refusal_by_stop("1"));
    world.client_got_error(&json!(1), 503, "shutdown");
}

/// Whatever a peer says of the time, it is no reason to panic, and no reason to wait for ever.
#[test]
fn time_stamps_that_make_no_sense_are_no_measure() {
    let mut world = connector(None);
    connect(&mut world);
    said(&mut world);
    for timestamp in ["1", "9e18", "1.8e19", "1.84e19"] {
        world.pass(10 * SECOND);
        world.server(&format!(
            r#"{{"type":"heartbeat_response","timestamp":{timestamp},"mcp_alive":true}}"#
        ));
    }
    world.pass(100 * SECOND);
    assert!(!world.session.upstream.is_up(), "it is taken for dead");
}

/// As at any other end of a link.
#[test]
fn a_line_without_its_end_is_delivered_when_the_replay_takes_too_long() {
    for response_too in [false, true] {
        let mut world = lost_after_handshake(None);
        world.client(&request(2));
        connect(&mut world);
        let id = expect_replay(&mut world);
        let last = if response_too {
            AGREED.replace("\"id\":1", &format!("\"id\":{id}"))
        } else {
            NOTIFICATION.to_owned()
        };
        world.event(|session, cx| session.handle(Event::UpstreamBytes(last.as_bytes()), cx));
        world.pass(11 * SECOND);
        if response_too {
            assert_eq!(world.server_got(), [INITIALIZED, &request(2)]);
        } else {
            assert_eq!(world.client_got(), [NOTIFICATION]);
            assert!(!world.session.upstream.is_up());
        }
    }
}
