//! One bad server never harms another.

use std::fs;

use serde_json::json;

use crate::common::{Client, Scratch, servers, write_program};
use crate::{Config, anywhere, asking, called, served, who_answers};

/// The error for the one request of a client.
#[track_caller]
fn spawn_failed(client: &mut Client) -> String {
    let id = client.send_request("initialize", &json!({}));
    let answer = client.answer_to(id);
    let error = &answer["error"];
    assert_eq!(
        (&error["code"], &error["data"]["reason"]),
        (&json!(503), &json!("spawn_failed")),
        "{answer}"
    );
    assert!(client.read_to_end().is_empty(), "that is the end");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn servers_that_can_not_be_started_are_told_of_at_once_and_the_others_served() {
    let servers = json!({
        "good": called("good"),
        "missing": {"command": "no-such-program", "args": ["a-secret"]},
        "nowhere": {"command": "cat", "cwd": "none"},
        "variable": {"command": "cat", "args": ["${NO_SUCH_VARIABLE}"]},
        "forbidden": {"command": "./plain"},
        "no-format": {"command": "./binary"},
    });
    let config = Config::of(&anywhere(), &servers);
    fs::write(config.file("plain"), "x").unwrap();
    write_program(config.file("binary").as_ref(), b"\x01\x02\x03\0\0\0", 0o755);
    let proxy = config.start(&[]);
    for (name, why) in [
        ("missing", "there is no such program in PATH"),
        ("nowhere", "the working directory"),
        ("variable", "no variable NO_SUCH_VARIABLE"),
        ("forbidden", "not executable"),
        ("no-format", ""),
    ] {
        proxy.wait_for_log(&format!("{name} can't be served: "));
        for _ in 0..2 {
            let told = spawn_failed(&mut asking(proxy.address(), name));
            assert!(
                told.starts_with("the server could not be started: "),
                "{told}"
            );
            assert!(told.contains(why) && !told.contains("a-secret"), "{told}");
        }
        assert_eq!(who_answers(&mut asking(proxy.address(), "good")), "good");
    }
    let log = proxy.log().join("\n");
    assert!(!log.contains("restarting the server"), "{log}");
}

#[test]
fn it_is_tried_again_for_the_next_session() {
    let servers = json!({"good": called("good"), "late": {"command": "./late", "prespawn": 1}});
    let config = Config::of(&anywhere(), &servers);
    let proxy = config.start(&[]);
    spawn_failed(&mut asking(proxy.address(), "late"));
    let unfinished = config.file("unfinished");
    let script = "#!/bin/sh\nwhile read -r line; do echo '{\"id\":1,\"result\":{},\"called\":\"late\"}'; done\n";
    write_program(unfinished.as_ref(), script, 0o755);
    fs::rename(&unfinished, config.file("late")).unwrap();
    let mut client = asking(proxy.address(), "late");
    assert_eq!(who_answers(&mut client), "late");
    // A session whose server can't be started any more ends, too, and keeps no other.
    fs::remove_file(config.file("late")).unwrap();
    assert_eq!(who_answers(&mut client), "late");
    assert_eq!(who_answers(&mut asking(proxy.address(), "good")), "good");
}

#[test]
fn a_server_that_crashes_uses_up_its_own_restarts() {
    let scratch = Scratch::new();
    let servers = json!({
        "good": called("good"),
        "bad": {"command": "/bin/sh", "args": ["-c", "exit 3"], "maxRestarts": 1, "prespawn": 2},
        "scripted": served(&servers::scripted(&scratch)),
    });
    let proxy = Config::of(&anywhere(), &servers).start(&[]);
    let mut healthy = asking(proxy.address(), "scripted");
    let pid = healthy.pid_of_server();
    let mut bad = asking(proxy.address(), "bad");
    let id = bad.send_request("initialize", &json!({}));
    proxy.wait_for_log("pool of bad: a waiting server was lost (exit code 3)");
    assert_eq!(who_answers(&mut asking(proxy.address(), "good")), "good");
    let answer = bad.answer_to(id);
    assert!(answer["error"]["code"].is_number(), "{answer}");
    assert_eq!(healthy.pid_of_server(), pid);
}
