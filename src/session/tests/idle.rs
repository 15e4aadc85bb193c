//! The end of sessions that are not used.

use super::*;
use crate::session::Event;

const HEARTBEAT: &str = r#"{"type":"heartbeat"}"#;
const IDLE: Duration = Duration::from_mins(1);
const FIRST: Duration = Duration::from_secs(10);

/// A moment less.
fn almost(time: Duration) -> Duration {
    time.saturating_sub(MILLISECOND)
}

fn with_limits(first_message: Option<Duration>, idle: Option<Duration>) -> World {
    World::with(|settings| {
        settings.idle_limits = IdleLimits {
            exempts_heartbeats: false,
            first_message,
            idle,
            hibernate: None,
        };
    })
}

/// A session with its server and an idle timeout.
fn limited() -> World {
    let mut world = with_limits(None, Some(IDLE));
    world.start();
    world
}

/// The session has not begun to end, and does so once this much time has passed.
#[track_caller]
fn ends_after(world: &mut World, time: Duration, reason: &str) {
    world.pass(almost(time));
    assert_eq!(world.took_actions(), [], "too early");
    // What the client has sent by then is still read, which takes a while.
    world.pass(MILLISECOND + SECOND);
    assert_eq!(
        world.took_actions(),
        [Action::StopUpstream, Action::ShutdownClient]
    );
    assert!(world.reason().starts_with(reason), "{}", world.reason());
    assert_eq!(world.client_got(), Vec::<String>::new());
    world.client_ends();
    world.server_dies(Exit::Code(0));
    assert_eq!(
        world.took_actions(),
        [Action::CloseClient, Action::ReleaseUpstream]
    );
    assert!(world.session.is_finished());
}

#[test]
fn a_client_that_says_nothing_is_not_kept() {
    let mut world = with_limits(Some(FIRST), None);
    world.start();
    world.client(HEARTBEAT);
    world.client("");
    ends_after(&mut world, FIRST, "first_message_timeout: ");
}

#[test]
fn a_client_that_says_something_in_time_is_kept() {
    let mut world = with_limits(Some(FIRST), None);
    world.start();
    world.pass(almost(FIRST));
    world.client(INITIALIZED);
    world.pass(1000 * SECOND);
    assert_eq!(world.took_actions(), []);
}

#[test]
fn a_client_that_says_nothing_ends_without_a_server() {
    for spawn in [Spawn::Lazy, Spawn::Eager] {
        let mut world = World::with(|settings| {
            settings.spawn = spawn;
            settings.idle_limits.first_message = Some(FIRST);
        });
        world.took_actions();
        world.pass(FIRST + SECOND);
        assert_eq!(world.took_actions(), [Action::ShutdownClient]);
        assert!(!world.session.wants_start());
    }
}

#[test]
fn a_session_in_which_nothing_passes_is_ended() {
    let mut world = limited();
    world.client(&request(1));
    world.server_got();
    world.server(&response(1));
    world.client_got();
    ends_after(&mut world, IDLE, "idle_timeout: ");
}

#[test]
fn a_line_either_way_begins_the_time_anew() {
    type Speak = fn(&mut World);
    let speaks: [Speak; 4] = [
        |world| {
            world.client(INITIALIZED);
            world.server_got();
        },
        |world| {
            world.server(r#"{"method":"note"}"#);
            world.client_got();
        },
        // It is refused, but is an attempt to use the session all the same.
        |world| {
            world.client("no JSON");
            world.client_got();
        },
        // It is under way for a long time.
        |world| {
            world.settings.max_message_bytes = 10_000;
            let part = [b'x'; 5000];
            world.event(|session, cx| session.handle(Event::ClientBytes(&part), cx));
        },
    ];
    for speak in speaks {
        let mut world = limited();
        for _ in 0..3 {
            world.pass(almost(IDLE));
            speak(&mut world);
        }
        ends_after(&mut world, IDLE, "idle_timeout: ");
    }
}

#[test]
fn heartbeats_do_not_keep_a_session() {
    let mut world = limited();
    world.settings.heartbeat_interval = 7 * SECOND;
    world.client(HEARTBEAT);
    for _ in 0..59 {
        world.pass(SECOND);
        world.client(HEARTBEAT);
        world.client_got();
    }
    ends_after(&mut world, SECOND, "idle_timeout: ");
}

/// A heartbeat may be due at the same moment.
#[test]
fn a_heartbeat_that_waits_puts_the_end_off_but_for_a_moment() {
    let mut world = limited();
    world.client(HEARTBEAT);
    world.pass(almost(IDLE));
    world.client_got();
    world.pass(MILLISECOND);
    assert_eq!(world.client_got().len(), 1);
    ends_after(&mut world, MILLISECOND, "idle_timeout: ");
}

#[test]
fn a_session_in_which_an_answer_is_waited_for_is_kept() {
    // The server's response.
    let mut world = limited();
    world.client(&request(1));
    world.server_got();
    world.pass(10 * IDLE);
    world.server(&response(1));
    world.client_got();
    ends_after(&mut world, IDLE, "idle_timeout: ");
    // The client's.
    let mut world = limited();
    world.server(&request(1));
    world.client_got();
    world.pass(10 * IDLE);
    assert_eq!(world.took_actions(), []);
    world.client(&response(1));
    world.server_got();
    ends_after(&mut world, IDLE, "idle_timeout: ");
}

#[test]
fn a_session_in_which_something_waits_is_kept() {
    // For the client, to the last byte.
    let mut world = limited();
    let note = r#"{"method":"note"}"#;
    world.server(note);
    for _ in 0..note.len() {
        world.pass(IDLE);
        world.event(|session, cx| session.handle(Event::ClientWritten(1), cx));
    }
    world.pass(IDLE);
    world.client_got();
    ends_after(&mut world, IDLE, "idle_timeout: ");
    // An error of the proxy's own.
    let mut world = limited();
    world.client("no JSON");
    world.pass(10 * IDLE);
    assert_eq!(world.client_got().len(), 1);
    ends_after(&mut world, IDLE, "idle_timeout: ");
    // For the server.
    let mut world = limited();
    world.client(INITIALIZED);
    world.pass(10 * IDLE);
    assert_eq!(world.took_actions(), []);
    world.server_got();
    ends_after(&mut world, IDLE, "idle_timeout: ");
}

#[test]
fn a_session_that_is_used_in_the_last_moment_goes_on() {
    for (limits, time) in [((None, Some(IDLE)), IDLE), ((Some(FIRST), None), FIRST)] {
        let mut world = with_limits(limits.0, limits.1);
        world.start();
        world.pass(time + MILLISECOND);
        world.client(&request(1));
        assert_eq!(world.server_got(), [request(1)]);
        world.pass(almost(IDLE));
        // The client does not know of any end, and is still read.
        world.client(&request(2));
        assert_eq!(world.server_got(), [request(2)]);
        world.server(&response(1));
        world.server(&response(2));
        assert_eq!(world.client_got(), [response(1), response(2)]);
        assert_eq!(world.took_actions(), []);
        if limits.1.is_some() {
            ends_after(&mut world, IDLE, "idle_timeout: ");
        }
    }
}

/// Its client sees the end after all that it still gets, and may have sent something by then.
#[test]
fn a_client_that_still_gets_something_is_heard_up_to_the_end() {
    for speaks in [true, false] {
        let mut world = limited();
        // One is due between the decision and the end.
        world.settings.heartbeat_interval = IDLE + 50 * MILLISECOND;
        world.client(HEARTBEAT);
        world.pass(IDLE + 10 * SECOND);
        assert!(world.session.has_output_for_client() && world.session.wants_client_input());
        assert_eq!(world.took_actions(), []);
        if speaks {
            world.client(&request(1));
            assert_eq!(world.server_got(), [request(1)]);
            world.server(&response(1));
            assert_eq!(world.client_got().last(), Some(&response(1)));
            world.pass(almost(IDLE));
            assert_eq!(world.took_actions(), []);
        } else {
            assert_eq!(world.client_got().len(), 1);
            world.pass(MILLISECOND);
            assert_eq!(
                world.took_actions(),
                [Action::StopUpstream, Action::ShutdownClient]
            );
        }
    }
}

/// It is told of that alone, and may go on.
#[test]
fn a_client_whose_subscription_is_closed_at_the_end_is_heard_up_to_it() {
    for is_written in [true, false] {
        let mut world = limited();
        world.client(r#"{"id":7,"method":"subscriptions/listen"}"#);
        world.server_got();
        world.pass(IDLE + 10 * SECOND);
        assert_eq!(world.took_actions(), []);
        let closed = world.client_got_json();
        assert_eq!(closed[0]["id"], 7, "{closed:?}");
        if is_written {
            assert_eq!(world.server_got().len(), 1);
        }
        world.client(&request(1));
        assert_eq!(world.server_got().last(), Some(&request(1)));
        world.server(&response(1));
        assert_eq!(world.client_got(), [response(1)]);
        ends_after(&mut world, IDLE, "idle_timeout: ");
    }
}

#[test]
fn a_client_that_takes_nothing_does_not_put_the_end_off_for_long() {
    let mut world = with_limits(Some(FIRST), None);
    world.start();
    world.client("no JSON");
    world.pass(FIRST);
    assert!(world.session.has_output_for_client());
    assert_eq!(world.took_actions(), []);
    world.pass(31 * SECOND);
    assert!(world.took_actions().contains(&Action::StopUpstream));
}

#[test]
fn the_end_does_not_wait_for_a_server_on_its_way_out() {
    let mut world = limited();
    world.pass(almost(IDLE));
    world.server_output_ends();
    world.pass(SECOND);
    assert_eq!(
        world.took_actions(),
        [Action::StopUpstream, Action::ShutdownClient]
    );
    world.client_ends();
    world.server_dies(Exit::Code(0));
    assert_eq!(
        world.took_actions(),
        [Action::CloseClient, Action::ReleaseUpstream]
    );
    assert!(world.session.is_finished() && world.reason().starts_with("idle_timeout: "));
}

#[test]
fn whoever_leaves_or_is_stopped_in_the_last_moment_is_served_and_ends() {
    let mut left = limited();
    left.pass(IDLE + MILLISECOND);
    let unterminated = request(1);
    left.event(|session, cx| session.handle(Event::ClientBytes(unterminated.as_bytes()), cx));
    left.client_ends();
    assert_eq!(left.server_got(), [request(1)]);
    left.server(&response(1));
    assert_eq!(left.client_got(), [response(1)]);
    assert!(left.reason().starts_with("the client closed"));
    let mut stopped = limited();
    stopped.pass(IDLE + MILLISECOND);
    stopped.shut_down();
    stopped.client(INITIALIZED);
    assert_eq!(stopped.server_got(), [INITIALIZED]);
    stopped.client(&request(1));
    stopped.client_got_error(&json!(1), 503, "shutdown");
    stopped.pass(SECOND);
    assert_eq!(
        stopped.took_actions(),
        [Action::StopUpstream, Action::ShutdownClient]
    );
}

#[test]
fn a_crash_that_costs_an_answer_begins_the_time_anew() {
    let mut world = limited();
    world.client(&request(1));
    world.server_got();
    world.pass(10 * IDLE);
    world.server_dies(Exit::Code(1));
    world.client_got_error(&json!(1), 502, "process_terminated");
    assert_eq!(
        world.took_actions(),
        [Action::ReleaseUpstream, Action::StartUpstream]
    );
    world.event(|session, cx| session.handle(Event::UpstreamStarted { pid: Some(8) }, cx));
    // The notice is a line too.
    world.pass(SECOND);
    assert_eq!(world.client_got().len(), 1);
    ends_after(&mut world, IDLE, "idle_timeout: ");
}

#[test]
fn no_limits_no_ends() {
    let mut world = World::up();
    world.pass(1000 * IDLE);
    assert_eq!(world.took_actions(), []);
}

#[test]
fn a_session_whose_server_has_something_to_remember_is_kept() {
    let mut world = limited();
    world.client(&request(1));
    world.server_got();
    world.server(r#"{"id":1,"result":{"resultType":"input_required","requestState":"s"}}"#);
    world.client_got();
    world.pass(9 * IDLE);
    assert_eq!(world.took_actions(), []);
    world.client(r#"{"id":2,"method":"m","params":{"requestState":"s"}}"#);
    world.server_got();
    world.server(&response(2));
    world.client_got();
    ends_after(&mut world, IDLE, "idle_timeout: ");
    // A user who never comes back is not waited for without end.
    let mut world = limited();
    world.client(&request(1));
    world.server_got();
    world.server(r#"{"id":1,"result":{"resultType":"input_required","requestState":"s"}}"#);
    world.client_got();
    ends_after(&mut world, 10 * IDLE, "idle_timeout: ");
}

#[test]
fn what_a_lost_server_had_to_remember_keeps_nobody() {
    let mut world = limited();
    world.client(&request(1));
    world.server_got();
    world.server(r#"{"id":1,"result":{"resultType":"task","taskId":"t","status":"working"}}"#);
    world.client_got();
    world.pass(2 * SECOND);
    world.server_dies(Exit::Code(1));
    world.start_next();
    world.pass(SECOND);
    assert_eq!(world.client_got().len(), 1);
    ends_after(&mut world, IDLE, "idle_timeout: ");
}

#[test]
fn a_client_with_heartbeats_may_be_exempt_from_the_first_message_timeout() {
    for is_exempt in [false, true] {
        let mut world = World::with(|settings| {
            settings.idle_limits.first_message = Some(300 * SECOND);
            settings.idle_limits.exempts_heartbeats = is_exempt;
        });
        world.start();
        world.client(r#"{"type":"heartbeat"}"#);
        world.pass(400 * SECOND);
        assert_eq!(world.session.goal.is_serve(), is_exempt);
    }
    let mut silent = World::with(|settings| {
        settings.idle_limits.first_message = Some(300 * SECOND);
        settings.idle_limits.exempts_heartbeats = true;
    });
    silent.start();
    silent.pass(400 * SECOND);
    assert!(!silent.session.goal.is_serve());
}
