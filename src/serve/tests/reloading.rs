//! What is read again: the files of the options, and a configuration, which changes everything or nothing.

use std::time::Duration;

use log::LevelFilter;
use nix::errno::Errno;

use super::world::{Choice, DOOR, Door, START, World, about, plan};
use crate::entrance::Rules;
use crate::entrance::tokens::Tokens;
use crate::serve::accept::ListenerKey;
use crate::serve::change::{Change, Wanted, WantedDoor, WantedSocket};
use crate::serve::reload::Contents;
use crate::util::service_key::ServiceKey;

const SECOND: Duration = Duration::from_secs(1);

const OTHER_DOOR: Door = Door(1);

const NOTIFICATION: &str = "{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n";

fn tokens(text: &str) -> Tokens {
    Tokens::parse(text).unwrap()
}

/// A world in which the clients need tokens, and one of them is in.
fn guarded() -> (World, super::wire::TestEnd) {
    let rules = Rules {
        tokens: Some(tokens(
            "ann a-long-enough-secret\nben another-long-secret\n",
        )),
        timeout: 10 * SECOND,
        ..Rules::default()
    };
    let mut world = World::of(Choice {
        rules,
        ..Choice::default()
    });
    let client = world.comes();
    client.says("{\"type\":\"handshake\",\"token\":\"another-long-secret\"}\n");
    client.says(NOTIFICATION);
    world.run();
    assert!(world.program(0).stdin.got().contains("\"x\""));
    (world, client)
}

#[test]
fn whoever_may_not_come_in_any_more_has_to_go() {
    let (mut world, client) = guarded();
    world.below.borrow_mut().tokens = Ok(Some(tokens("ben another-long-secret\n")));
    world.hang_up();
    assert!(!client.is_ended());
    world.below.borrow_mut().tokens = Ok(Some(tokens("ann a-long-enough-secret\n")));
    world.hang_up();
    world.servers_obey();
    world.pass(SECOND);
    assert!(client.is_ended());
    let other = world.comes();
    other.says("{\"type\":\"handshake\",\"token\":\"another-long-secret\"}\n");
    world.run();
    assert!(other.got().contains("unauthorized"), "the new file counts");
}

#[test]
fn what_is_wrong_with_a_file_leaves_all_as_it_was_and_is_told() {
    let (mut world, client) = guarded();
    world.proxy.counts.reload = Some((true, SECOND));
    world.below.borrow_mut().tokens = Err("line 1:\nno".to_owned());
    world.hang_up();
    assert!(!client.is_ended());
    assert_eq!(world.proxy.counts.reload, Some((false, SECOND)));
    let told = world.told();
    let micros = START.as_nanos() / 1000;
    assert_eq!(told[0], format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    assert_eq!(
        told[1],
        "READY=1\nSTATUS=serving; nothing was changed by SIGHUP: line 1: no"
    );
    world.below.borrow_mut().tokens = Ok(Some(tokens("ben another-long-secret\n")));
    world.hang_up();
    let since_1970 = Duration::from_nanos(START.as_nanos());
    assert_eq!(world.proxy.counts.reload, Some((true, since_1970)));
    assert_eq!(world.told()[1], "READY=1\nSTATUS=serving");
}

#[test]
fn while_the_program_is_being_stopped_nothing_is_read_again() {
    let (mut world, _client) = guarded();
    world.stop();
    world.told();
    world.below.borrow_mut().tokens = Err("no".to_owned());
    world.hang_up();
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn files_that_have_changed_are_read_again_by_themselves() {
    let mut world = World::new();
    world.proxy.watch_files();
    world.pass(11 * SECOND);
    assert_eq!(world.told(), [""; 0], "none has changed");
    world.below.borrow_mut().have_files_changed = true;
    world.pass(8 * SECOND);
    assert_eq!(
        world.told(),
        [""; 0],
        "they are looked at every ten seconds"
    );
    world.pass(2 * SECOND);
    assert_eq!(world.told().len(), 2);
    world.below.borrow_mut().have_files_changed = true;
    world.pass(10 * SECOND);
    assert_eq!(world.told().len(), 2, "and as often as they change");
    world.below.borrow_mut().have_files_changed = true;
    world.stop();
    world.told();
    world.pass(20 * SECOND);
    assert_eq!(world.told(), [""; 0]);
}

/// What is in force in a world of [`World::new`], as a configuration would have it.
fn as_it_is(names: &[&str]) -> Change<Door> {
    let choice = Choice::default();
    let wanted = |name: &&str| Wanted {
        plan: plan(Some(name)),
        is_default: false,
        starts_alike: true,
    };
    Change {
        contents: Contents::default(),
        rules: Rules {
            timeout: 10 * SECOND,
            ..Rules::default()
        },
        limits: choice.limits,
        buffer_bytes: 1 << 26,
        log_level: LevelFilter::Info,
        drain_delay: Duration::ZERO,
        about: about(),
        services: names.iter().map(wanted).collect(),
        doors: vec![kept(0)],
    }
}

fn kept(key: usize) -> WantedDoor<Door> {
    WantedDoor {
        socket: WantedSocket::Kept(ListenerKey(key)),
        of: None,
    }
}

fn new(door: Door, of: Option<usize>) -> WantedDoor<Door> {
    WantedDoor {
        socket: WantedSocket::New(door),
        of,
    }
}

/// A world in which these are served.
fn serving(names: &[&str]) -> World {
    let choice = Choice {
        plan: plan(names.first().copied()),
        ..Choice::default()
    };
    let mut world = World::of(choice).with_status();
    let mut change = as_it_is(names);
    for (at, name) in names.iter().enumerate() {
        change.about.commands.resize(at + 1, String::new());
        (*name).clone_into(&mut change.about.commands[at]);
    }
    put_in_force(&mut world, change);
    world
}

fn put_in_force(world: &mut World, change: Change<Door>) {
    world.below.borrow_mut().change = Some(Ok(change));
    world.hang_up();
    let told = world.told();
    assert_eq!(
        told.last().map(String::as_str),
        Some("READY=1\nSTATUS=serving")
    );
    assert!(told[1].starts_with("services "), "{told:?}");
}

/// Somebody who asks for this server.
fn asks_for(world: &mut World, name: &str) -> super::wire::TestEnd {
    let client = world.comes();
    client.says(&format!(
        "{{\"type\":\"handshake\",\"server\":\"{name}\"}}\n"
    ));
    world.run();
    client
}

#[test]
fn a_new_door_is_opened_and_one_that_is_not_wanted_closed() {
    let mut world = serving(&["files"]);
    let mut change = as_it_is(&["files"]);
    change.doors = vec![new(OTHER_DOOR, Some(0))];
    // Whoever has come before is served.
    let early = world.comes();
    put_in_force(&mut world, change);
    assert_eq!((world.waiting(DOOR), world.started()), (0, 1));
    let late = world.comes();
    let next = world.comes_from("127.0.0.1:7", OTHER_DOOR);
    world.run();
    assert_eq!(
        (
            world.waiting(DOOR),
            world.waiting(OTHER_DOOR),
            world.started()
        ),
        (1, 0, 2)
    );
    assert!(!early.is_ended() && !next.is_ended() && !late.is_closed());
}

#[test]
fn a_door_that_can_not_be_watched_changes_nothing() {
    let mut world = serving(&["files"]);
    let client = world.comes();
    world.run();
    let mut change = as_it_is(&["weather"]);
    change.doors = vec![new(OTHER_DOOR, None), new(Door(2), None)];
    world
        .below
        .borrow_mut()
        .watch_errors
        .push_back(Errno::ENOMEM);
    world.below.borrow_mut().change = Some(Ok(change));
    world.hang_up();
    let told = world.told().pop().unwrap();
    assert!(told.contains("cannot watch a listening socket"), "{told}");
    assert!(!client.is_ended());
    world.comes();
    world.run();
    assert_eq!(world.started(), 2);
    assert_eq!(world.proxy.listeners.keys(), [ListenerKey(0)]);
}

#[test]
fn of_several_doors_none_is_opened_if_one_can_not_be() {
    let mut world = serving(&["files"]);
    let mut change = as_it_is(&["files"]);
    change.doors = vec![kept(0), new(OTHER_DOOR, None), new(Door(2), None)];
    world.below.borrow_mut().watches_before_error = Some(1);
    world.below.borrow_mut().change = Some(Ok(change));
    world.hang_up();
    assert_eq!(world.proxy.listeners.keys(), [ListenerKey(0)]);
}

#[test]
fn limits_are_changed() {
    let mut world = serving(&["files"]);
    let first = world.comes();
    world.run();
    let mut change = as_it_is(&["files"]);
    change.limits.max_sessions = 1;
    change.drain_delay = 3 * SECOND;
    change.buffer_bytes = 12_345_678;
    change.services[0].plan.settings.stop_timeout = 7 * SECOND;
    put_in_force(&mut world, change);
    assert_eq!(world.proxy.scheduler.memory().limit(), 12_345_678);
    assert_eq!(world.proxy.stop_timers.drain_delay, 3 * SECOND);
    assert_eq!(world.proxy.scheduler.settings().stop_timeout, 7 * SECOND);
    let second = world.comes();
    world.run();
    assert!(second.got().contains("session_limit") && !first.is_ended());
}

#[test]
fn sessions_that_there_are_count_for_new_limits() {
    let mut world = serving(&["files"]);
    let first = world.comes_from("192.0.2.1:1", DOOR);
    world.run();
    let mut change = as_it_is(&["files"]);
    change.limits.sessions_of_one.address = Some(1);
    put_in_force(&mut world, change);
    let second = world.comes_from("192.0.2.1:2", DOOR);
    let other = world.comes_from("192.0.2.2:1", DOOR);
    world.run();
    assert!(second.got().contains("of this address"));
    assert!(!first.is_ended() && other.got().is_empty());
}

#[test]
fn sessions_of_a_server_that_is_not_served_any_more_end() {
    let mut world = serving(&["files", "weather"]);
    let files = asks_for(&mut world, "files");
    let weather = asks_for(&mut world, "weather");
    assert_eq!(world.started(), 2);
    assert_eq!(world.program(1).service, ServiceKey(1));
    put_in_force(&mut world, as_it_is(&["files"]));
    // A client may still answer what it was asked.
    world.pass(SECOND);
    world.servers_obey();
    assert_eq!(
        (files.is_ended(), weather.is_ended()),
        (false, true),
        "{} {}",
        files.got(),
        weather.got()
    );
    // Whoever names none gets the only one.
    let next = world.comes();
    world.run();
    assert_eq!((world.started(), next.is_ended()), (3, false));
    assert_eq!(world.program(2).service, ServiceKey(0));
}

#[test]
fn a_key_is_used_again_once_nothing_is_left_of_what_it_named() {
    let mut world = serving(&["files", "weather"]);
    let weather = asks_for(&mut world, "weather");
    put_in_force(&mut world, as_it_is(&["files"]));
    put_in_force(&mut world, as_it_is(&["files", "music"]));
    let music = asks_for(&mut world, "music");
    assert_eq!(
        world.program(1).service,
        ServiceKey(2),
        "a session of the other is left"
    );
    weather.leaves();
    music.leaves();
    world.run();
    world.servers_obey();
    put_in_force(&mut world, as_it_is(&["files", "music", "video"]));
    asks_for(&mut world, "video");
    assert_eq!(world.program(2).service, ServiceKey(1));
}

#[test]
fn sessions_go_on_as_they_were_when_it_is_changed_how_their_server_is_shared() {
    let mut world = serving(&["files"]);
    let before = world.comes();
    world.run();
    let mut change = as_it_is(&["files"]);
    change.services[0].plan.share = Some(super::sharing::limits());
    put_in_force(&mut world, change);
    before.says(NOTIFICATION);
    let after = world.comes();
    world.run();
    assert!(world.program(0).stdin.got().contains("\"x\""));
    assert!(!before.is_ended() && after.got().is_empty());
    assert_eq!(world.proxy.services.keys().count(), 2);
    after.says(&super::sharing::request(7));
    world.run();
    assert_eq!(world.program(1).service, ServiceKey(1), "it is shared");
    // The same again changes nothing.
    let mut change = as_it_is(&["files"]);
    change.services[0].plan.share = Some(super::sharing::limits());
    put_in_force(&mut world, change);
    assert_eq!(world.proxy.services.keys().count(), 2);
    // Another program can not be shared with those that are there.
    let mut change = as_it_is(&["files"]);
    change.services[0].plan.share = Some(super::sharing::limits());
    change.services[0].starts_alike = false;
    put_in_force(&mut world, change);
    assert_eq!(world.proxy.services.keys().count(), 3);
}

#[test]
fn servers_that_are_added_at_the_start_are_served() {
    let mut world = World::new();
    world.proxy.add_service(plan(Some("weather")));
    assert_eq!(world.proxy.services.keys().count(), 2);
    assert_eq!(
        world
            .proxy
            .services
            .called(plan(Some("weather")).name.as_ref()),
        Some(ServiceKey(1))
    );
}

#[test]
fn a_server_that_comes_back_is_served_again() {
    let mut world = serving(&["files", "weather"]);
    put_in_force(&mut world, as_it_is(&["files"]));
    put_in_force(&mut world, as_it_is(&["files", "weather"]));
    let client = asks_for(&mut world, "weather");
    assert_eq!((client.got(), world.started()), (String::new(), 1));
    let (code, _) = world.get("/readyz?server=weather");
    assert_eq!(code, 200);
}

#[test]
fn those_that_wait_are_as_many_as_are_wanted_now_and_are_of_the_kind_that_is_wanted() {
    let mut world = serving(&["files"]);
    let with_spares = |count, starts_alike| {
        let mut change = as_it_is(&["files"]);
        change.services[0].plan.spares = count;
        change.services[0].starts_alike = starts_alike;
        change
    };
    put_in_force(&mut world, with_spares(3, true));
    assert_eq!(world.started(), 3);
    put_in_force(&mut world, with_spares(1, true));
    let waits = |world: &World| {
        let all = (0..world.started()).filter(|at| !world.program(*at).stdin.is_closed());
        all.collect::<Vec<_>>()
    };
    assert_eq!(waits(&world), [0]);
    world.servers_obey();
    put_in_force(&mut world, with_spares(1, false));
    assert_eq!(waits(&world), [3], "it is of another kind");
    let mut change = with_spares(1, true);
    change.services[0].plan.settings.role = crate::session::Backend::Process { max_restarts: 9 };
    put_in_force(&mut world, change);
    assert_eq!(waits(&world), [3], "it may stay");
}

#[test]
fn settings_of_sessions_are_changed_for_what_happens_from_now_on() {
    let mut world = serving(&["files"]);
    let client = world.comes();
    world.run();
    let mut change = as_it_is(&["files"]);
    change.services[0].plan.settings.restarts_upstream = false;
    put_in_force(&mut world, change);
    world.exits(0, 1);
    world.pass(5 * SECOND);
    assert!(client.is_ended());
    assert_eq!(world.started(), 1);
}

#[test]
fn whoever_is_in_the_entrance_when_other_things_are_asked_has_to_come_again() {
    let mut world = serving(&["files", "weather"]);
    let undecided = world.comes();
    world.run();
    assert_eq!(world.proxy.visitors(), 1);
    put_in_force(&mut world, as_it_is(&["files", "weather", "music"]));
    assert!(!undecided.is_closed(), "the same is asked as before");
    let mut change = as_it_is(&["files", "weather"]);
    change.contents.tokens = Some(tokens("ann a-long-enough-secret\n"));
    put_in_force(&mut world, change);
    assert!(undecided.is_closed());
    let next = asks_for(&mut world, "files");
    assert!(next.got().contains("unauthorized"));
}

#[test]
fn what_those_are_told_who_ask_is_what_is_in_force() {
    let mut world = serving(&["files", "weather"]);
    let mut change = as_it_is(&["weather", "music"]);
    change.about.addresses = "192.0.2.9:1".to_owned();
    change.about.commands = vec!["sky".to_owned(), "band".to_owned()];
    change.services[1].is_default = true;
    put_in_force(&mut world, change);
    let (_, body) = world.get("/status.json");
    let all: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(all["proxy"]["addresses"], "192.0.2.9:1");
    let servers = all["servers"].as_array().unwrap().iter();
    let mut servers: Vec<_> = servers
        .map(|it| {
            (
                it["name"].as_str().unwrap(),
                it["command"].as_str().unwrap(),
            )
        })
        .collect();
    servers.sort_unstable();
    assert_eq!(servers, [("music", "band"), ("weather", "sky")]);
    let mut change = as_it_is(&["weather", "music"]);
    change.about.addresses = String::new();
    put_in_force(&mut world, change);
    let (_, body) = world.get("/status.json");
    assert!(
        body.contains("192.0.2.9:1"),
        "where nothing has to be listened on, that stays"
    );
}
