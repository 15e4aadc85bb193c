//! Strangers that come all at once, each of whom is to get a server.

use std::net::TcpStream;

use serde_json::json;

use crate::Scene;
use crate::common::processes;
use crate::common::{DEADLINE, eventually, skip_on_reference};

#[test]
fn that_connect_all_at_once() {
    const STRANGERS: usize = 100;
    skip_on_reference!("does not restart a server");
    let scene = Scene::open(&[]);
    let (mut crashed, server) = scene.session();
    let connect = || TcpStream::connect(scene.proxy.address()).unwrap();
    let strangers: Vec<TcpStream> = (0..STRANGERS).map(|_| connect()).collect();
    // Whoever was here before goes before them, whether it needs a server or not.
    processes::kill_and_wait(server);
    let id = crashed.send_request("pid", &json!({}));
    crashed.answer_to(id);
    let started = scene.proxy.servers().len();
    eprintln!("{started} servers were there when a lost one was replaced");
    scene.bystander.wait_for(100);
    drop(strangers);
    eventually("the strangers to be gone", DEADLINE, || {
        scene.proxy.servers().len() == 2
    });
    drop(crashed);
    scene.end();
}
