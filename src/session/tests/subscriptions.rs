//! Subscriptions (`subscriptions/listen`), which stay open and are no work.

use super::*;

const LISTEN: &str = r#"{"jsonrpc":"2.0","id":"s-1","method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true}}}"#;
const CLOSED: &str = r#"{"jsonrpc":"2.0","id":"s-1","result":{"resultType":"complete","_meta":{"io.modelcontextprotocol/subscriptionId":"s-1"}}}"#;
const CANCELLED: &str = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"s-1","reason":"the session ends"}}"#;

/// A session whose server has taken a subscription.
fn listening(mut world: World) -> World {
    world.client(LISTEN);
    assert_eq!(world.server_got(), [LISTEN]);
    world
}

#[test]
fn a_client_that_ends_its_side_does_not_wait_for_its_subscriptions() {
    let mut world = listening(World::up());
    world.client_ends();
    assert_eq!(world.client_got(), [CLOSED]);
    assert_eq!(world.took_actions(), [], "the server is told first");
    assert_eq!(world.server_got(), [CANCELLED]);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    world.server_dies(Exit::Code(0));
    assert_eq!(world.client_got(), Vec::<String>::new());
    assert!(world.session.is_finished());
}

#[test]
fn a_stop_does_not_wait_for_subscriptions() {
    let mut world = listening(World::up());
    world.shut_down();
    assert_eq!(world.client_got(), [CLOSED]);
    assert_eq!(world.server_got(), [CANCELLED]);
    world.pass(SECOND);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
}

#[test]
fn what_is_work_is_waited_for_all_the_same() {
    let mut world = listening(World::up());
    world.client(&request(2));
    world.client_ends();
    assert_eq!(world.client_got(), [CLOSED]);
    assert_eq!(world.server_got(), [request(2).as_str(), CANCELLED]);
    world.pass(20 * SECOND);
    assert_eq!(world.took_actions(), []);
    world.server(&response(2));
    assert_eq!(world.client_got(), [response(2)]);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
}

#[test]
fn the_servers_own_answer_to_a_closed_subscription_is_dropped() {
    let mut world = listening(World::up());
    world.client(&request(2));
    world.client_ends();
    world.server_got();
    assert_eq!(world.client_got(), [CLOSED]);
    world.server(CLOSED);
    assert_eq!(world.client_got(), Vec::<String>::new());
    world.server(&response(2));
    assert_eq!(world.client_got(), [response(2)]);
}

#[test]
fn a_subscription_that_waits_for_a_server_is_closed_without_one() {
    let mut world = World::new();
    world.client(LISTEN);
    world.client_ends();
    assert_eq!(world.client_got(), [CLOSED]);
    assert!(!world.session.wants_start());
}

#[test]
fn a_subscription_whose_server_is_lost_is_answered_like_any_request() {
    let mut world = listening(World::up());
    world.server_dies(Exit::Code(3));
    world.client_got_error(&json!("s-1"), 502, "process_terminated");
}

#[test]
fn a_subscription_alone_does_not_keep_a_session_and_what_it_carries_does() {
    let idle = Duration::from_mins(1);
    let mut world = World::with(|settings| settings.idle_limits.idle = Some(idle));
    world.start();
    let mut world = listening(world);
    let note = r#"{"method":"notifications/tools/list_changed"}"#;
    for _ in 0..3 {
        world.pass(idle.saturating_sub(MILLISECOND));
        world.server(note);
        assert_eq!(world.client_got(), [note]);
    }
    world.pass(idle + SECOND);
    assert_eq!(world.client_got(), [CLOSED]);
    assert_eq!(world.server_got(), [CANCELLED]);
    world.pass(MILLISECOND);
    assert_eq!(
        world.took_actions(),
        [Action::StopUpstream, Action::ShutdownClient]
    );
    assert!(world.reason().starts_with("idle_timeout: "));
}

#[test]
fn a_session_that_is_used_in_the_last_moment_keeps_its_subscriptions() {
    let idle = Duration::from_mins(1);
    let mut world = World::with(|settings| settings.idle_limits.idle = Some(idle));
    world.start();
    let mut world = listening(world);
    world.pass(idle + MILLISECOND);
    world.client(&request(2));
    world.pass(10 * SECOND);
    assert_eq!(world.client_got(), Vec::<String>::new());
    world.server(CLOSED);
    assert_eq!(world.client_got(), [CLOSED]);
}

#[test]
fn the_stdio_side_closes_subscriptions_too() {
    for stops in [true, false] {
        let mut world = World::with(|settings| {
            settings.role = Backend::Proxy {
                max_delay: 2 * SECOND,
                max_attempts: None,
                held_timeout: None,
                is_tidy: false,
                token: None,
                server: None,
            };
        });
        world.start();
        world.server_got();
        let mut world = listening(world);
        if stops {
            world.shut_down();
        } else {
            world.client_ends();
            assert_eq!(world.server_got(), [CANCELLED]);
        }
        assert_eq!(world.client_got(), [CLOSED], "stops: {stops}");
    }
}

/// By MCP 2026-07-28 it may say so instead of answering.
#[test]
fn a_modern_server_ends_a_subscription_by_taking_it_back() {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"#;
    let listen = LISTEN.replace(r#""notifications":"#, &format!(r#"{meta}"notifications":"#));
    let mut world = World::up();
    world.client(&listen);
    assert_eq!(world.server_got(), [listen]);
    world.server(CANCELLED);
    assert_eq!(world.client_got(), [CANCELLED]);
    assert_eq!(world.session.unanswered(), 0);
    world.client_ends();
    assert_eq!(world.client_got(), [""; 0], "it has ended before");
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    // In a legacy session the server may mean a request of its own.
    let mut world = listening(World::up());
    world.server(CANCELLED);
    assert_eq!(world.session.unanswered(), 1);
}

#[test]
fn what_a_server_says_in_a_closed_subscription_reaches_nobody() {
    let note = |id: &str| {
        format!(
            r#"{{"method":"notifications/tools/list_changed","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
        )
    };
    let mut world = listening(World::up());
    world.client(&request(2));
    world.server(&note(r#""s-1""#));
    assert_eq!(world.client_got(), [note(r#""s-1""#)]);
    world.client_ends();
    assert_eq!(world.client_got(), [CLOSED]);
    world.server(&note(r#""s-\u0031""#));
    assert_eq!(world.client_got(), [""; 0]);
    let others = [note("2"), r#"{"method":"notifications/x"}"#.to_owned()];
    for line in &others {
        world.server(line);
    }
    assert_eq!(world.client_got(), others);
}

#[test]
fn a_request_at_a_shared_server_is_not_said_to_be_lost_with_it() {
    let mut world = World::new();
    assert_eq!(world.took_actions(), [Action::StartUpstream]);
    world.event(|session, cx| {
        let serves_legacy = false;
        session.handle(Event::Seated { serves_legacy }, cx);
    });
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    world.client(&format!(
        r#"{{"id":2,"method":"tools/list","params":{{{meta}}}}}"#
    ));
    world.client_ends();
    world.server_got();
    world.pass(31 * SECOND);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
    world.server_dies(Exit::Left);
    let [line] = &world.client_got()[..] else {
        panic!("not one line");
    };
    let text = "the session left the shared server before it answered";
    assert!(line.contains(text), "{line}");
    assert!(!line.contains("exit code"), "{line}");
}
