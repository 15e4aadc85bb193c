//! Sessions that give their servers back, and what keeps them from it.

use super::*;
use crate::session::Event;

const QUIET: Duration = Duration::from_mins(1);
const TEN_MINUTES: Duration = Duration::from_mins(10);
const HEARTBEAT: &str = r#"{"type":"heartbeat"}"#;
const PING: &str = r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#;
const PONG: &str = r#"{"jsonrpc":"2.0","id":"p","result":{}}"#;
const LISTS_CHANGED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"s","version":"1.0"}}}"#;
const TOLD: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

fn modern(id: u64, method: &str, params: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}{params}}}}}"#
    )
}

/// A moment less.
fn almost(time: Duration) -> Duration {
    time.saturating_sub(MILLISECOND)
}

/// A session with its server, and nothing said.
fn quiet() -> World {
    let mut world = World::with(|settings| settings.idle_limits.hibernate = Some(QUIET));
    world.start();
    world
}

/// The same after a handshake to which the server has said this.
fn greeted_with(agreed: &str) -> World {
    let mut world = quiet();
    world.client(INITIALIZE);
    world.client(INITIALIZED);
    world.server_got();
    world.server(agreed);
    assert_eq!(world.client_got(), [agreed]);
    world
}

/// The same of a modern client that has got its first response.
fn modern_session() -> World {
    let mut world = quiet();
    exchange(&mut world, &modern(1, "tools/list", ""), &response(1));
    world
}

/// The client says this, and the server responds.
#[track_caller]
fn exchange(world: &mut World, line: &str, response: &str) {
    world.client(line);
    assert_eq!(world.server_got(), [line]);
    world.server(response);
    assert_eq!(world.client_got(), [response]);
}

#[track_caller]
fn hibernates_after(world: &mut World, time: Duration) {
    stays_awake_for(world, almost(time));
    world.pass(MILLISECOND);
    assert_eq!(world.took_actions(), [Action::HibernateUpstream]);
    assert!(world.session.is_hibernating());
}

#[track_caller]
fn stays_awake_for(world: &mut World, time: Duration) {
    world.pass(time);
    assert_eq!(world.took_actions(), []);
    assert!(!world.session.is_hibernating());
}

/// The session has given its server back, and that one is gone.
#[track_caller]
fn asleep(world: &mut World) {
    hibernates_after(world, QUIET);
    world.server_dies(Exit::Code(0));
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
}

/// The session is given its next server.
#[track_caller]
fn wakes(world: &mut World) {
    assert_eq!(world.took_actions(), [Action::StartUpstream]);
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
    assert!(!world.session.is_hibernating());
}

#[test]
fn the_next_message_wakes_a_legacy_session_by_a_replay_and_nobody_is_told() {
    let mut world = greeted_with(AGREED);
    for number in 2..20 {
        asleep(&mut world);
        world.pass(100 * SECOND);
        world.client(&request(number));
        wakes(&mut world);
        let id = replay_id(&world.server_got());
        agree_to_replay(&mut world, &id, &request(number));
        world.server(&response(number));
        assert_eq!(world.client_got(), [response(number)], "and nothing else");
    }
    let summary = world.session.summary(world.now).to_string();
    assert!(summary.starts_with("goes on; "), "{summary}");
    assert!(!summary.contains("restart"), "{summary}");
    assert!(summary.contains(", 20 messages ("), "{summary}");
}

#[test]
fn a_modern_session_needs_no_replay() {
    let mut world = modern_session();
    asleep(&mut world);
    let line = modern(2, "tools/list", "");
    world.client(&line);
    wakes(&mut world);
    assert_eq!(world.server_got(), [line]);
}

#[test]
fn a_server_on_its_way_out_is_not_waited_for() {
    let mut world = modern_session();
    hibernates_after(&mut world, QUIET);
    let line = modern(2, "tools/list", "");
    world.client(&line);
    world.start_next();
    assert_eq!(world.server_got(), [line]);
    world.server(&response(2));
    assert_eq!(world.client_got(), [response(2)]);
}

#[test]
fn its_last_words_are_delivered_and_begin_no_new_time() {
    let mut world = modern_session();
    hibernates_after(&mut world, QUIET);
    world.server(r#"{"method":"note"}"#);
    assert_eq!(world.client_got(), [r#"{"method":"note"}"#]);
    world.server(&request(1));
    assert_eq!(world.client_got(), [request(1)]);
    world.server_dies(Exit::Code(0));
    let taken_back = world.client_got_json();
    assert_eq!(taken_back[0]["method"], "notifications/cancelled");
    assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
    // The answer is for one that is gone, and wakes nothing.
    world.client(&response(1));
    assert_eq!(world.took_actions(), []);
}

#[test]
fn however_it_ends_it_costs_nothing() {
    for exit in [
        Exit::Code(1),
        Exit::Signal(9),
        Exit::Signal(11),
        Exit::Signal(15),
    ] {
        let mut world = modern_session();
        world.settings.role = Backend::Process { max_restarts: 0 };
        for number in 2..8 {
            hibernates_after(&mut world, QUIET);
            world.server_dies(exit);
            assert_eq!(world.took_actions(), [Action::ReleaseUpstream]);
            let line = modern(number, "tools/list", "");
            world.client(&line);
            wakes(&mut world);
            assert_eq!(world.server_got(), [line]);
            world.server(&response(number));
            assert_eq!(world.client_got(), [response(number)]);
        }
    }
}

#[test]
fn a_session_without_restarts_hibernates_too() {
    let mut world = modern_session();
    world.settings.restarts_upstream = false;
    asleep(&mut world);
    world.client(&modern(2, "tools/list", ""));
    wakes(&mut world);
    world.server_got();
    world.server_dies(Exit::Code(3));
    world.client_got_error(&json!(2), 502, "process_terminated");
    world.pass(SECOND);
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::ShutdownClient]
    );
}

#[test]
fn a_server_that_can_not_be_started_is_a_loss_as_ever() {
    let mut world = modern_session();
    asleep(&mut world);
    world.client(&modern(2, "tools/list", ""));
    assert_eq!(world.took_actions(), [Action::StartUpstream]);
    world.event(|session, cx| session.handle(Event::UpstreamFailed("no such file"), cx));
    assert!(!world.session.is_hibernating());
    world.pass(SECOND);
    assert_eq!(world.took_actions(), [Action::StartUpstream]);
}

#[test]
fn a_message_either_way_begins_the_time_anew_and_heartbeats_do_not() {
    let mut world = greeted_with(AGREED);
    world.client(HEARTBEAT);
    for _ in 0..3 {
        stays_awake_for(&mut world, QUIET / 2);
        world.client_got();
        world.server(r#"{"method":"note"}"#);
        world.client_got();
        stays_awake_for(&mut world, QUIET / 2);
        world.client_got();
        world.client(r#"{"method":"note"}"#);
        world.server_got();
    }
    world.client_got();
    stays_awake_for(&mut world, QUIET / 2);
    world.client(HEARTBEAT);
    world.client_got();
    stays_awake_for(&mut world, almost(QUIET / 2));
    // One that waits puts it off until it is written.
    world.pass(SECOND);
    assert_eq!(world.client_got().len(), 1);
    world.pass(MILLISECOND);
    assert_eq!(world.took_actions(), [Action::HibernateUpstream]);
}

#[test]
fn a_ping_is_answered_and_wakes_nothing() {
    for gone in [false, true] {
        let mut world = greeted_with(AGREED);
        if gone {
            asleep(&mut world);
        } else {
            hibernates_after(&mut world, QUIET);
        }
        world.client(PING);
        assert_eq!(world.client_got(), [PONG]);
        assert_eq!(world.took_actions(), []);
        assert!(world.session.is_hibernating());
        // Behind something that wakes it it is like any other request.
        let both = format!("{}\n{PING}", request(2));
        world.client(&both);
        assert_eq!(world.client_got(), Vec::<String>::new());
    }
    let mut awake = greeted_with(AGREED);
    awake.client(PING);
    assert_eq!(awake.server_got(), [PING]);
}

#[test]
fn a_ping_without_a_server_yet_starts_one() {
    let mut world = World::with(|settings| {
        settings.spawn = Spawn::Lazy;
        settings.idle_limits.hibernate = Some(QUIET);
    });
    world.client(PING);
    assert_eq!(world.took_actions(), [Action::StartUpstream]);
}

#[test]
fn heartbeats_go_on_and_say_that_the_client_would_be_served() {
    let mut world = greeted_with(AGREED);
    asleep(&mut world);
    world.client(HEARTBEAT);
    world.pass(30 * SECOND);
    let got = world.client_got_json();
    assert_eq!(got.len(), 1, "{got:?}");
    assert_eq!(got[0]["mcp_alive"], true);
    world.client(&request(2));
    world.pass(30 * SECOND);
    let got = world.client_got_json();
    assert_eq!(got[0]["mcp_alive"], true, "a server is on its way");
}

// What is open.

#[test]
fn a_request_of_the_client_keeps_its_server() {
    for line in [
        request(2),
        r#"{"jsonrpc":"2.0","id":2,"method":"subscriptions/listen"}"#.into(),
    ] {
        let mut world = greeted_with(AGREED);
        world.client(&line);
        world.server_got();
        stays_awake_for(&mut world, 100 * QUIET);
        world.server(&response(2));
        world.client_got();
        hibernates_after(&mut world, QUIET);
    }
}

#[test]
fn a_request_of_the_server_keeps_it() {
    let mut world = greeted_with(AGREED);
    world.server(&request(7));
    world.client_got();
    stays_awake_for(&mut world, 100 * QUIET);
    world.client(&response(7));
    world.server_got();
    hibernates_after(&mut world, QUIET);
}

#[test]
fn a_subscription_to_a_resource_keeps_it_until_it_ends() {
    let subscribe =
        r#"{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"a:b"}}"#;
    let mut world = greeted_with(AGREED);
    exchange(&mut world, subscribe, &response(2));
    stays_awake_for(&mut world, 100 * QUIET);
    let unsubscribe = subscribe
        .replace("subscribe", "unsubscribe")
        .replace('2', "3")
        .replace("3.0", "2.0");
    exchange(&mut world, &unsubscribe, &response(3));
    asleep(&mut world);
    // One that was refused is none.
    let mut world = greeted_with(AGREED);
    let refusal = r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32601,"message":"no"}}"#;
    exchange(&mut world, subscribe, refusal);
    hibernates_after(&mut world, QUIET);
}

#[test]
fn subscriptions_that_nobody_follows_keep_it_for_ever() {
    let subscribe =
        r#"{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"a:b"}}"#;
    let mut world = greeted_with(AGREED);
    exchange(
        &mut world,
        &format!("[{subscribe}]"),
        &format!("[{}]", response(2)),
    );
    stays_awake_for(&mut world, 100 * QUIET);
    let mut world = modern_session();
    exchange(
        &mut world,
        &modern(2, "resources/subscribe", r#","uri":"a:b""#),
        &response(2),
    );
    stays_awake_for(&mut world, 100 * QUIET);
}

#[test]
fn the_log_level_does_not_keep_it_and_is_set_again() {
    let level =
        r#"{"jsonrpc":"2.0","id":2,"method":"logging/setLevel","params":{"level":"debug"}}"#;
    let mut world = greeted_with(AGREED);
    exchange(&mut world, level, &response(2));
    asleep(&mut world);
    world.client(&request(3));
    wakes(&mut world);
    let id = replay_id(&world.server_got());
    world.server(&AGREED.replace("\"id\":1", &format!("\"id\":{id}")));
    let got = world.server_got();
    assert_eq!(got.len(), 3, "{got:?}");
    assert!(got[1].contains("logging/setLevel"), "{got:?}");
}

#[test]
fn a_question_to_the_user_keeps_it_for_ten_minutes_or_until_it_is_answered() {
    let asks =
        r#"{"jsonrpc":"2.0","id":2,"result":{"resultType":"input_required","requestState":"s"}}"#;
    let mut world = modern_session();
    exchange(&mut world, &modern(2, "tools/call", ""), asks);
    hibernates_after(&mut world, TEN_MINUTES);
    let mut world = modern_session();
    exchange(&mut world, &modern(2, "tools/call", ""), asks);
    stays_awake_for(&mut world, 2 * QUIET);
    let retry = modern(3, "tools/call", r#","requestState":"s""#);
    exchange(&mut world, &retry, &response(3));
    hibernates_after(&mut world, QUIET);
}

#[test]
fn a_task_keeps_it_for_its_time_to_live_or_until_it_is_over() {
    let task = |id: u64, status: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"task","taskId":"t","status":"{status}","ttlMs":180000}}}}"#
        )
    };
    let mut world = modern_session();
    exchange(
        &mut world,
        &modern(2, "tools/call", ""),
        &task(2, "working"),
    );
    hibernates_after(&mut world, 3 * QUIET);
    let mut world = modern_session();
    exchange(
        &mut world,
        &modern(2, "tools/call", ""),
        &task(2, "working"),
    );
    exchange(
        &mut world,
        &modern(3, "tasks/get", r#","taskId":"t""#),
        &task(3, "completed"),
    );
    hibernates_after(&mut world, QUIET);
}

#[test]
fn what_waits_to_be_written_keeps_it() {
    let mut world = greeted_with(AGREED);
    world.server(r#"{"method":"note"}"#);
    stays_awake_for(&mut world, 10 * QUIET);
    world.client_got();
    world.client(r#"{"method":"note"}"#);
    stays_awake_for(&mut world, 10 * QUIET);
    world.server_got();
    // So does what the server has begun to say.
    world.event(|session, cx| session.handle(Event::UpstreamBytes(b"{"), cx));
    stays_awake_for(&mut world, 10 * QUIET);
    world.server(r#""method":"note"}"#);
    world.client_got();
    hibernates_after(&mut world, QUIET);
}

#[test]
fn a_session_that_could_not_be_woken_stays_awake() {
    let never: [fn() -> World; 5] = [
        quiet,
        // Nobody has said that the handshake is over.
        || {
            let mut world = quiet();
            exchange(&mut world, INITIALIZE, AGREED);
            world
        },
        // There was none.
        || {
            let mut world = quiet();
            exchange(&mut world, &request(1), &response(1));
            world
        },
        // It is too long to be kept.
        || {
            let long = "x".repeat(70_000);
            let agreed = AGREED.replace(
                "\"capabilities\":{}",
                &format!(r#""capabilities":{{"x":"{long}"}}"#),
            );
            let mut world = quiet();
            world.settings.max_message_bytes = 100_000;
            world.client(INITIALIZE);
            world.client(INITIALIZED);
            world.server_got();
            world.server(&agreed);
            world.client_got();
            world
        },
        || {
            let mut world = greeted_with(AGREED);
            world.settings.replays = false;
            world
        },
    ];
    for make in never {
        stays_awake_for(&mut make(), 100 * QUIET);
    }
}

#[test]
fn a_notice_that_is_owed_is_given_first() {
    let mut world =
        World::with(|settings| settings.idle_limits.hibernate = Some(100 * MILLISECOND));
    world.start();
    exchange(&mut world, &request(1), &response(1));
    world.client(INITIALIZE);
    world.client(INITIALIZED);
    world.server_got();
    world.server(AGREED);
    world.client_got();
    world.server_dies(Exit::Signal(9));
    world.pass(SECOND);
    world.start_next();
    world.pass(SECOND / 2);
    let got = world.client_got_json();
    assert_eq!(got[0]["method"], "$/mcp/serverRestarted");
    // And then the replay that nobody has asked for.
    world.pass(2 * SECOND);
    assert_eq!(world.took_actions(), []);
    let id = replay_id(&world.server_got());
    world.server(&AGREED.replace("\"id\":1", &format!("\"id\":{id}")));
    world.server_got();
    hibernates_after(&mut world, 100 * MILLISECOND);
}

// The next server.

/// Wakes a session, whose next server says this to the handshake. Returns what the client is told.
fn wake_with(world: &mut World, number: u64, agreed: &str) -> Vec<String> {
    asleep(world);
    world.client(&request(number));
    wakes(world);
    let id = replay_id(&world.server_got());
    world.server(&agreed.replace("\"id\":1", &format!("\"id\":{id}")));
    world.server_got();
    world.server(&response(number));
    let mut got = world.client_got();
    assert_eq!(got.pop(), Some(response(number)));
    got
}

#[test]
fn lists_have_changed_only_if_the_server_has() {
    let newer = LISTS_CHANGED.replace("1.0", "1.1");
    let mut world = greeted_with(LISTS_CHANGED);
    let nothing = Vec::<String>::new();
    assert_eq!(wake_with(&mut world, 2, LISTS_CHANGED), nothing);
    assert_eq!(wake_with(&mut world, 3, &newer), [TOLD]);
    assert_eq!(wake_with(&mut world, 4, &newer), nothing);
    // After a crash nobody knows.
    world.pass(SECOND);
    world.server_dies(Exit::Signal(9));
    world.start_next();
    world.client(&request(5));
    let id = replay_id(&world.server_got());
    world.server(&newer.replace("\"id\":1", &format!("\"id\":{id}")));
    assert_eq!(world.client_got(), [TOLD]);
}

#[test]
fn another_handshake_ends_the_session() {
    let mut world = greeted_with(AGREED);
    asleep(&mut world);
    world.client(&request(2));
    wakes(&mut world);
    let id = replay_id(&world.server_got());
    let other = AGREED.replace("2025-06-18", "2025-03-26");
    world.server(&other.replace("\"id\":1", &format!("\"id\":{id}")));
    world.client_got_error(&json!(2), 503, "server_changed");
    world.pass(SECOND);
    assert_eq!(
        world.took_actions(),
        [Action::StopUpstream, Action::ShutdownClient]
    );
}

#[test]
fn a_server_that_crashes_after_it_was_woken_is_told_of() {
    let mut world = greeted_with(AGREED);
    assert_eq!(wake_with(&mut world, 2, AGREED), Vec::<String>::new());
    world.pass(SECOND);
    world.server_dies(Exit::Signal(9));
    world.start_next();
    world.pass(SECOND);
    assert_eq!(
        world.client_got_json()[0]["method"],
        "$/mcp/serverRestarted"
    );
    let summary = world.session.summary(world.now).to_string();
    assert!(summary.ends_with(", 1 restart") || summary.contains("1 restart"));
}

// Ends.

#[test]
fn a_client_that_leaves_wakes_nothing() {
    for gone in [false, true] {
        let mut world = greeted_with(AGREED);
        hibernates_after(&mut world, QUIET);
        if gone {
            world.server_dies(Exit::Code(0));
        }
        world.client_ends();
        if !gone {
            world.server_dies(Exit::Code(0));
        }
        let mut actions = world.took_actions();
        actions.sort_by_key(|action| *action == Action::CloseClient);
        assert_eq!(actions, [Action::ReleaseUpstream, Action::CloseClient]);
        assert!(world.session.is_finished());
        assert!(
            world.reason().contains("closed the connection"),
            "{}",
            world.reason()
        );
    }
}

#[test]
fn what_a_client_said_last_is_served() {
    let mut world = modern_session();
    asleep(&mut world);
    let line = modern(2, "tools/list", "");
    world.client(&line);
    world.client_ends();
    wakes(&mut world);
    assert_eq!(world.server_got(), [line]);
    world.server(&response(2));
    assert_eq!(world.client_got(), [response(2)]);
    assert_eq!(world.took_actions(), [Action::StopUpstream]);
}

#[test]
fn a_stop_ends_it_at_once() {
    for gone in [false, true] {
        let mut world = greeted_with(AGREED);
        hibernates_after(&mut world, QUIET);
        if gone {
            world.server_dies(Exit::Code(0));
        }
        world.took_actions();
        world.shut_down();
        world.pass(2 * SECOND);
        if !gone {
            world.server_dies(Exit::Code(0));
        }
        world.client_ends();
        assert!(!world.took_actions().contains(&Action::StartUpstream));
        assert!(world.session.is_finished());
    }
}

#[test]
fn an_idle_session_is_ended_although_it_hibernates() {
    let mut world = World::with(|settings| {
        settings.idle_limits.hibernate = Some(QUIET);
        settings.idle_limits.idle = Some(3 * QUIET);
    });
    world.start();
    exchange(&mut world, &modern(1, "tools/list", ""), &response(1));
    asleep(&mut world);
    world.pass(almost(2 * QUIET));
    assert_eq!(world.took_actions(), []);
    world.pass(SECOND);
    assert_eq!(world.took_actions(), [Action::ShutdownClient]);
    assert!(world.reason().starts_with("idle_timeout: "));
}

#[test]
fn a_seat_at_shared_servers_is_kept_and_said_to_be_unused_once() {
    let mut world = World::with(|settings| {
        settings.spawn = Spawn::Lazy;
        settings.idle_limits.hibernate = Some(QUIET);
    });
    world.client(&modern(1, "tools/list", ""));
    assert_eq!(world.took_actions(), [Action::StartUpstream]);
    world.event(|session, cx| {
        session.handle(
            Event::Seated {
                serves_legacy: false,
            },
            cx,
        );
    });
    world.server_got();
    world.server(&response(1));
    world.client_got();
    for number in 2..5 {
        world.pass(100 * QUIET);
        assert_eq!(world.took_actions(), [Action::HibernateUpstream]);
        assert!(!world.session.is_hibernating());
        exchange(
            &mut world,
            &modern(number, "tools/list", ""),
            &response(number),
        );
    }
}
