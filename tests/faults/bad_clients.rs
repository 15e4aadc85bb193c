//! Clients that take their time over every byte, or that say nothing at all.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::Scene;
use crate::common::processes;
use crate::common::proxy::in_shell;
use crate::common::{Client, DEADLINE, eventually, skip_on_reference};

#[test]
fn that_send_one_byte_after_the_other() {
    const CLIENTS: usize = 20;
    /// So slow that each takes several heartbeats for a line.
    const PAUSE: Duration = Duration::from_millis(20);
    const LINE: &[u8] = br#"{"jsonrpc":"2.0","id":7,"method":"pid","params":{}}"#;
    let scene = Scene::open(&["--heartbeat-interval", "0.1"]);
    let mut clients: Vec<(Client, i32)> = (0..CLIENTS).map(|_| scene.session()).collect();
    for (client, _) in &mut clients {
        client.send_line(r#"{"type":"heartbeat"}"#);
    }
    for byte in LINE {
        for (client, _) in &mut clients {
            client.send_raw(&[*byte]);
        }
        thread::sleep(PAUSE);
    }
    // Some go before the end of the line, which is then a line all the same, or nothing.
    let rest = clients.split_off(CLIENTS / 2);
    for (number, (client, _)) in rest.into_iter().enumerate() {
        if number % 2 == 0 {
            client.close();
        } else {
            client.reset();
        }
    }
    for (client, server) in &mut clients {
        client.send_raw(b"\n");
        let answer = client.answer_to(7);
        assert_eq!(answer["result"]["pid"], *server, "{answer}");
        assert!(
            client
                .aside
                .iter()
                .all(|line| line["type"] == "heartbeat_response")
        );
    }
    drop(clients);
    scene.end();
}

#[test]
fn that_say_nothing_and_take_all_descriptors() {
    const CLIENTS: usize = 100;
    skip_on_reference!("leaves connections open that it can't serve");
    let options = ["--max-sessions", "1000"];
    let scene = Scene::open_configured(&options, |proxy| in_shell("ulimit -n 64", proxy));
    let (mut crashed, server) = scene.session();
    let connect = || TcpStream::connect(scene.proxy.address()).unwrap();
    let silent: Vec<TcpStream> = (0..CLIENTS).map(|_| connect()).collect();
    scene.proxy.wait_for_log("new connections have to wait");
    scene.bystander.wait_for(200);
    // A session from before may need descriptors again, and has to wait for them behind all who came earlier.
    processes::kill_and_wait(server);
    let id = crashed.send_request("pid", &json!({}));
    scene.bystander.wait_for(100);
    drop(silent);
    crashed.answer_to(id);
    let others = 1;
    eventually("the silent ones to be gone", DEADLINE, || {
        scene.proxy.servers().len() == 1 + others
    });
    drop(crashed);
    scene.end();
}
