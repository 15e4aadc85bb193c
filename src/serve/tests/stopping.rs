//! The end of the program, and what the service manager is told.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::world::{Choice, World};
use crate::util::captured_log::captured;

const SECOND: Duration = Duration::from_secs(1);

const REQUEST: &str = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\"}\n";

/// A world with a session in which a request is not answered.
fn busy() -> (World, super::wire::TestEnd) {
    let mut world = World::new();
    let client = world.comes();
    client.says(REQUEST);
    world.run();
    assert!(world.program(0).stdin.got().contains("tools/call"));
    (world, client)
}

#[test]
fn without_sessions_a_stop_is_the_end() {
    let mut world = World::new();
    world.run();
    assert!(!world.proxy.is_done());
    world.stop();
    assert!(world.proxy.is_done() && world.proxy.only_own_timers_are_left());
    assert_eq!(world.told(), ["STOPPING=1\nSTATUS=stopping"]);
}

#[test]
fn a_stop_waits_for_what_is_asked_and_for_the_ends_of_servers() {
    let (mut world, client) = busy();
    world.stop();
    world.comes();
    world.run();
    assert_eq!(world.started(), 1, "nobody is accepted any more");
    world.pass(20 * SECOND);
    assert!(!world.proxy.is_done() && !client.is_ended());
    let program = world.program(0);
    program
        .stdout
        .says("{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n");
    world.run();
    assert!(client.got().contains("\"id\":7,\"result\""));
    assert!(program.stdin.is_closed() && !world.proxy.is_done());
    world.servers_obey();
    assert!(client.is_ended());
    client.leaves();
    world.run();
    assert!(world.proxy.is_done() && world.proxy.only_own_timers_are_left());
}

#[test]
fn a_second_signal_kills_what_is_left_and_waits_a_second_for_it() {
    let (mut world, _client) = busy();
    world.is_deaf(0);
    world.stop();
    assert_eq!(world.below.borrow().sent, []);
    world.stop();
    let pid = world.program(0).pid;
    assert_eq!(world.below.borrow().sent, [(pid, Signal::SIGKILL)]);
    assert!(!world.proxy.is_done());
    world.stop();
    world.pass(9 * SECOND / 10);
    assert!(!world.proxy.is_done());
    assert_eq!(
        world.below.borrow().sent.len(),
        1,
        "a third one means nothing"
    );
    world.pass(SECOND / 5);
    assert!(world.proxy.is_done());
}

#[test]
fn after_a_second_signal_nothing_but_the_servers_is_waited_for() {
    let (mut world, client) = busy();
    client.stalls();
    world.stop();
    world.stop();
    assert!(world.proxy.is_done());
}

#[test]
fn what_takes_too_long_is_killed_and_its_clients_are_told() {
    let (mut world, client) = busy();
    world.stop();
    world.pass(29 * SECOND);
    assert_eq!(world.below.borrow().sent, []);
    world.pass(SECOND + SECOND / 10);
    assert_eq!(world.below.borrow().sent.len(), 1);
    let error = client.got();
    assert!(error.contains("\"id\":7,\"error\""), "{error}");
    assert!(!world.proxy.is_done(), "the client is to take it");
    client.leaves();
    world.run();
    assert!(world.proxy.is_done());
}

#[test]
fn clients_have_little_time_for_their_last_words() {
    let (mut world, client) = busy();
    client.stalls();
    world.stop();
    world.pass(30 * SECOND + 7 * SECOND / 10);
    assert!(!world.proxy.is_done());
    let logged = captured(|| world.pass(SECOND / 5));
    assert!(world.proxy.is_done() && client.got().is_empty());
    assert!(
        logged
            .iter()
            .any(|line| line.contains("for the clients of 1 session could not be delivered")),
        "{logged:?}"
    );
}

#[test]
fn it_is_said_again_and_again_what_a_stop_waits_for() {
    let (mut world, client) = busy();
    world.stop();
    let report = |world: &World| {
        let timers = &world.proxy.stop_timers;
        timers
            .report
            .at()
            .map(|at| at.saturating_since(world.proxy.now()))
    };
    for _ in 0..2 {
        assert!(report(&world).is_some_and(|at| at > 4 * SECOND && at <= 5 * SECOND));
        world.pass(5 * SECOND);
    }
    client.stalls();
    world.pass(20 * SECOND + SECOND / 5);
    assert!(!world.proxy.is_done());
    let left = report(&world);
    world.pass(left.unwrap_or_default());
    assert_eq!(
        report(&world),
        None,
        "once all was killed, there is no more to say"
    );
}

fn draining() -> World {
    let mut world = World::new();
    world.proxy.stop_timers.drain_delay = 5 * SECOND;
    world.stop();
    world
}

#[test]
fn for_a_while_new_sessions_are_served_although_the_program_is_about_to_stop() {
    let mut world = draining().with_status();
    assert_eq!(world.told(), ["STOPPING=1\nSTATUS=stopping"]);
    assert!(world.proxy.is_draining());
    let (code, body) = world.get("/readyz");
    assert_eq!(code, 503);
    assert!(body.contains("draining"), "{body}");
    let client = world.comes();
    world.run();
    assert_eq!(world.started(), 1);
    world.pass(4 * SECOND);
    assert!(world.proxy.is_draining() && !client.is_ended());
    world.pass(2 * SECOND);
    world.servers_obey();
    assert!(!world.proxy.is_draining() && client.is_ended());
    let (_, body) = world.get("/readyz");
    assert!(
        body.contains("shutdown") && !body.contains("draining"),
        "{body}"
    );
    client.leaves();
    world.run();
    assert!(world.proxy.is_done());
}

#[test]
fn a_second_signal_ends_that_while_unless_it_is_an_echo_of_the_first() {
    let mut world = draining();
    world.pass(SECOND * 4 / 10);
    world.stop();
    assert!(world.proxy.is_draining(), "it was an echo");
    world.pass(SECOND * 2 / 10);
    world.stop();
    assert!(!world.proxy.is_draining() && world.proxy.is_done());
}

#[test]
fn a_signal_just_after_that_while_is_no_second_one() {
    let mut world = draining();
    world.comes();
    world.run();
    world.pass(5 * SECOND + SECOND / 10);
    assert!(!world.proxy.is_draining());
    world.stop();
    assert_eq!(world.below.borrow().sent, []);
    world.pass(SECOND);
    world.stop();
    assert_eq!(world.below.borrow().sent.len(), 1);
}

#[test]
fn the_service_manager_hears_that_the_program_serves_and_lives() {
    let mut world = World::new();
    world.below.borrow_mut().watchdog = Some(10 * SECOND);
    world.proxy.tell_ready();
    assert_eq!(world.told(), ["READY=1\nSTATUS=serving"]);
    world.pass(9 * SECOND);
    assert_eq!(world.told(), [""; 0]);
    world.pass(12 * SECOND);
    assert_eq!(world.told(), ["WATCHDOG=1"; 2]);
}

#[test]
fn without_a_watchdog_nobody_is_told_that_it_lives() {
    let mut world = World::new();
    world.proxy.tell_ready();
    world.told();
    world.pass(100 * SECOND);
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn a_server_that_is_not_to_go_by_itself_is_urged_with_more_and_more_force() {
    let mut world = World::new();
    let client = world.comes();
    world.run();
    world.is_deaf(0);
    client.leaves();
    world.run();
    let pid = world.program(0).pid;
    let sent = |world: &World| world.below.borrow().sent.clone();
    world.pass(SECOND);
    assert_eq!(sent(&world), []);
    world.pass(2 * SECOND);
    assert_eq!(sent(&world), [(pid, Signal::SIGTERM)]);
    world.pass(5 * SECOND);
    assert_eq!(
        sent(&world),
        [(pid, Signal::SIGTERM), (pid, Signal::SIGKILL)]
    );
    assert_eq!(world.proxy.servers().left(), 1);
    world.pass(6 * SECOND);
    assert_eq!(world.proxy.servers().left(), 0, "it is left alone");
}

#[test]
fn a_server_that_dies_by_itself_is_replaced_and_what_it_leaves_behind_is_ended() {
    let mut choice = Choice::default();
    choice.plan.settings.replays = false;
    let mut world = World::of(choice);
    world.comes();
    world.run();
    let pid = world.program(0).pid;
    world.leaves_child(0);
    world.exits(0, 1);
    world.pass(SECOND);
    assert_eq!(world.below.borrow().sent, []);
    world.pass(2 * SECOND);
    assert_eq!(world.below.borrow().sent, [(pid, Signal::SIGTERM)]);
    world.pass(2 * SECOND);
    assert_eq!((world.started(), world.proxy.servers().left()), (2, 1));
}
