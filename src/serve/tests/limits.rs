//! Who gets in, and when: what there is too little of has to be waited for, and beyond the limits clients are turned away.

use std::time::Duration;

use nix::errno::Errno;

use super::world::{Choice, DOOR, World, plan};
use crate::serve::accept::{ACCEPTS_PER_ITERATION, MAX_REFUSED};
use crate::util::captured_log::captured;

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn when_descriptors_have_run_out_nobody_is_accepted_for_a_while() {
    let mut world = World::new();
    world
        .below
        .borrow_mut()
        .accept_errors
        .push_back(Errno::EMFILE);
    world.comes();
    world.run();
    assert_eq!((world.waiting(DOOR), world.started()), (1, 0));
    world.pass(190 * MILLISECOND);
    assert_eq!(world.waiting(DOOR), 1);
    world.pass(20 * MILLISECOND);
    assert_eq!((world.waiting(DOOR), world.started()), (0, 1));
}

#[test]
fn that_something_has_run_out_is_logged_once_until_nobody_waits() {
    let mut world = World::new();
    let run_out = |world: &mut World, times| {
        let logged = captured(|| {
            let errors = std::iter::repeat_n(Errno::EMFILE, times);
            world.below.borrow_mut().accept_errors.extend(errors);
            world.comes();
            world.pass(250 * MILLISECOND * times as u32);
        });
        let lines = logged.iter().filter(|line| line.contains("have to wait"));
        assert_eq!(world.waiting(DOOR), 0);
        lines.count()
    };
    assert_eq!(run_out(&mut world, 3), 1);
    assert_eq!(run_out(&mut world, 2), 1, "it is another shortage");
}

#[test]
fn when_a_connection_can_not_be_watched_the_next_ones_wait() {
    let mut world = World::new();
    world
        .below
        .borrow_mut()
        .watch_errors
        .push_back(Errno::ENOMEM);
    let first = world.comes();
    world.comes();
    world.run();
    assert!(first.is_closed());
    assert_eq!((world.waiting(DOOR), world.started()), (1, 0));
    world.pass(210 * MILLISECOND);
    assert_eq!((world.waiting(DOOR), world.started()), (0, 1));
}

#[test]
fn when_processes_have_run_out_the_first_session_waits_and_all_others_after_it() {
    let mut world = World::new();
    world
        .below
        .borrow_mut()
        .spawn_errors
        .push_back(Errno::EAGAIN);
    let clients = [world.comes(), world.comes()];
    world.run();
    world.comes();
    world.pass(190 * MILLISECOND);
    assert_eq!((world.waiting(DOOR), world.started()), (1, 0));
    world.pass(20 * MILLISECOND);
    assert_eq!((world.waiting(DOOR), world.started()), (0, 3));
    for (at, client) in clients.iter().enumerate() {
        client.says("{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n");
        world.run();
        assert!(world.program(at).stdin.got().contains("\"x\""));
    }
}

#[test]
fn a_server_that_can_not_be_started_for_another_reason_keeps_nobody_waiting() {
    let mut world = World::new();
    world
        .below
        .borrow_mut()
        .spawn_errors
        .push_back(Errno::ENOENT);
    world.comes();
    world.comes();
    world.run();
    assert_eq!((world.waiting(DOOR), world.started()), (0, 1));
    world.pass(Duration::from_secs(3));
    assert_eq!(world.started(), 2, "it is tried again");
}

#[test]
fn a_server_of_a_configuration_that_can_not_be_started_for_good_is_not_tried_again() {
    let mut world = World::of(Choice {
        plan: plan(Some("files")),
        ..Choice::default()
    });
    world
        .below
        .borrow_mut()
        .spawn_errors
        .push_back(Errno::ENOENT);
    let client = world.comes();
    client.says("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"x\"}\n");
    world.pass(Duration::from_secs(100));
    let error = client.got();
    assert!(
        error.contains("\"id\":7,\"error\"") && error.contains("spawn_failed"),
        "{error}"
    );
    assert_eq!(world.started(), 0);
    // The next one is to try: somebody may have put it right.
    world.comes();
    world.run();
    assert_eq!(world.started(), 1);
}

#[test]
fn what_a_server_that_waits_says_on_its_stderr_is_logged() {
    let mut choice = Choice::default();
    choice.plan.spares = 1;
    let mut world = World::of(choice);
    world.run();
    let stderr = world.program(0).stderr;
    // More than is read in one iteration.
    let line = format!("{}\n", "x".repeat(1000));
    let logged = captured(|| {
        stderr.says(&line.repeat(10));
        stderr.says(&line.repeat(190));
        stderr.says("ready\n");
        world.run();
        world.pass(Duration::from_secs(5));
    });
    let lines = logged.iter().filter(|line| line.contains("stderr: "));
    assert!(lines.count() > 3, "{logged:?}");
    assert!(stderr.is_read(), "all of it is read");
}

#[test]
fn few_are_accepted_in_an_iteration() {
    let mut world = World::new();
    for _ in 0..=2 * ACCEPTS_PER_ITERATION {
        world.comes();
    }
    let mut left = || {
        world.turn();
        world.waiting(DOOR)
    };
    assert_eq!([left(), left(), left()], [ACCEPTS_PER_ITERATION + 1, 1, 0]);
}

#[test]
fn without_descriptors_for_more_sessions_clients_wait_for_those_that_wait_for_their_servers() {
    let mut choice = Choice::default();
    choice.limits.possible_sessions = 2;
    choice.limits.max_starting = 1;
    let mut world = World::of(choice);
    for _ in 0..3 {
        world.comes();
    }
    world.run();
    assert_eq!((world.waiting(DOOR), world.started()), (1, 1));
    // A server that says nothing counts as starting up for a second.
    world.pass(990 * MILLISECOND);
    assert_eq!((world.waiting(DOOR), world.started()), (1, 1));
    world.pass(20 * MILLISECOND);
    assert_eq!((world.waiting(DOOR), world.started()), (0, 2));
    world.pass(1010 * MILLISECOND);
    assert_eq!(world.started(), 3);
}

#[test]
fn a_server_that_writes_something_makes_room_for_the_start_of_the_next() {
    let mut choice = Choice::default();
    choice.limits.max_starting = 1;
    let mut world = World::of(choice);
    world.comes();
    world.comes();
    world.run();
    assert_eq!(world.started(), 1);
    world.program(0).stderr.says("ready\n");
    world.run();
    assert_eq!(world.started(), 2);
}

#[test]
fn beyond_the_limit_clients_are_turned_away_and_few_of_them_at_a_time() {
    let mut choice = Choice::default();
    choice.limits.max_sessions = 1;
    let mut world = World::of(choice);
    let served = world.comes();
    let refused: Vec<_> = (0..=MAX_REFUSED).map(|_| world.comes()).collect();
    world.run();
    assert_eq!((world.waiting(DOOR), world.started()), (1, 1));
    let [first, .., last] = &refused[..] else {
        panic!("there are several");
    };
    let error = first.got();
    assert!(error.contains("\"reason\":\"session_limit\""), "{error}");
    assert!(first.is_ended() && last.got().is_empty());
    first.leaves();
    world.run();
    assert_eq!(world.waiting(DOOR), 0);
    assert!(first.is_closed() && last.got().contains("session_limit"));
    // Once the first session is gone, and it takes a moment until its server is, there is room again.
    served.leaves();
    world.run();
    world.servers_obey();
    let next = world.comes();
    refused[1].leaves();
    world.run();
    assert_eq!((next.got(), world.started()), (String::new(), 2));
}

#[test]
fn a_server_has_a_limit_of_its_own() {
    let mut choice = Choice::default();
    choice.plan.max_sessions = Some(1);
    let mut world = World::of(choice).with_status();
    let first = world.comes();
    world.run();
    assert_eq!(world.get("/readyz").0, 503);
    let second = world.comes();
    world.run();
    let error = second.got();
    assert!(error.contains("1 session of this server"), "{error}");
    first.leaves();
    world.run();
    world.servers_obey();
    assert_eq!(world.get("/readyz").0, 200);
}

#[test]
fn those_of_one_address_have_a_limit_of_their_own() {
    let mut choice = Choice::default();
    choice.limits.sessions_of_one.address = Some(1);
    let mut world = World::of(choice);
    let first = world.comes_from("192.0.2.1:1", DOOR);
    let second = world.comes_from("192.0.2.1:2", DOOR);
    world.comes_from("192.0.2.2:1", DOOR);
    world.run();
    assert_eq!(world.started(), 2);
    assert!(second.got().contains("1 session of this address"));
    first.leaves();
    world.run();
    world.servers_obey();
    let third = world.comes_from("192.0.2.1:3", DOOR);
    world.run();
    assert_eq!((third.got(), world.started()), (String::new(), 3));
}

#[test]
fn a_client_that_has_vanished_is_given_up_when_a_session_asks_for_it() {
    let mut choice = Choice::default();
    choice.plan.settings.heartbeat_interval = Duration::from_secs(40);
    let mut world = World::of(choice);
    let [client, other] = [world.comes(), world.comes()];
    for client in [&client, &other] {
        client.says("{\"type\":\"handshake\",\"supports_heartbeat\":true}\n");
    }
    world.run();
    client.0.borrow_mut().has_vanished = true;
    world.pass(Duration::from_secs(200));
    assert!(client.is_closed() && !other.is_closed());
}

#[test]
fn servers_that_wait_are_started_one_after_the_other_and_handed_out() {
    let mut choice = Choice::default();
    choice.plan.spares = 2;
    let mut world = World::of(choice);
    world.turn();
    assert_eq!(world.started(), 1, "one in an iteration");
    world.run();
    assert_eq!(world.started(), 2);
    let client = world.comes();
    client.says("{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n");
    world.run();
    assert!(world.program(0).stdin.got().contains("\"x\""));
    assert_eq!(world.started(), 2);
    world.pass(20 * MILLISECOND);
    assert_eq!(world.started(), 3, "another waits in its place");
    world.stop();
    let waits = |at| !world.program(at).stdin.is_closed();
    assert_eq!([waits(1), waits(2)], [false, false]);
}

#[test]
fn a_server_that_waits_and_closes_its_input_is_replaced_as_a_lost_one() {
    let mut choice = Choice {
        plan: plan(Some("files")),
        ..Choice::default()
    };
    choice.plan.spares = 1;
    let mut world = World::of(choice);
    world.run();
    world.program(0).stdout.leaves();
    world.run();
    assert!(world.program(0).stdin.is_closed());
    world.exits(0, 1);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.started(), 2);
}
