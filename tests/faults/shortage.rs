//! Servers can't be started: there are no more processes to be had, or the program is gone.

use std::fs;

use serde_json::json;

use crate::common::processes::fd_count;
use crate::common::proxy::{as_another_user, can_run_as_another_user};
use crate::common::{Client, DEADLINE, eventually, servers, skip_on_reference};
use crate::{DESCRIPTORS_PER_SESSION, Scene};

#[test]
fn of_processes() {
    const PROCESSES: usize = 6;
    const ROUNDS: usize = 3;
    skip_on_reference!("closes connections that it can't serve");
    if !can_run_as_another_user() {
        return;
    }
    let scene = Scene::open_configured(&[], |proxy| as_another_user(proxy, PROCESSES));
    // The proxy is one of the processes, the bystander's server another. Those who wait are let in, and hold no more than
    // their connections.
    let waiting = PROCESSES;
    let full = scene.before.descriptors + (PROCESSES - 1) * DESCRIPTORS_PER_SESSION + waiting;
    let descriptors = || fd_count(scene.proxy.pid());
    for _ in 0..ROUNDS {
        let mut clients: Vec<Client> = (2..PROCESSES).map(|_| scene.session().0).collect();
        let waiting: Vec<Client> = (0..waiting).map(|_| scene.proxy.connect()).collect();
        scene.proxy.wait_for_log("new connections have to wait");
        eventually("those who wait to be let in", DEADLINE, || {
            descriptors() == full
        });
        // In this time more attempts are made.
        scene.bystander.wait_for(150);
        assert_eq!(descriptors(), full);
        waiting.into_iter().for_each(Client::reset);
        for client in &mut clients {
            client.pid_of_server();
        }
    }
    scene.end();
}

#[test]
fn of_the_program() {
    const CLIENTS: usize = 50;
    skip_on_reference!("does not restart a server");
    let scene = Scene::open_with(&["--max-restarts", "0"], servers::removable);
    let [server, away] = ["server", "away"].map(|name| scene.scratch.file(name));
    fs::rename(&server, &away).unwrap();
    for number in 0..CLIENTS {
        let mut client = scene.proxy.connect();
        if number % 2 == 0 {
            client.reset();
            continue;
        }
        client.send_request("pid", &json!({}));
        client.recv_error(503, "spawn_failed");
        assert_eq!(client.read_to_end(), [""; 0]);
    }
    fs::rename(&away, &server).unwrap();
    drop(scene.session());
    scene.end();
}
