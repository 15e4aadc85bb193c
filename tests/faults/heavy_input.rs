//! Clients and servers whose lines are a lot of work. What the bystander waits meanwhile is printed, not checked: it
//! depends on the machine. How much is read of anybody in one run is the matter of `pump`.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;

use serde_json::json;

use crate::Scene;
use crate::common::Client;

/// How often the bystander is to be answered under an attack.
const EXCHANGES: u64 = 200;

/// The same, where each byte of the attack is more work than elsewhere, which takes long in a build without optimisation.
const FEW_EXCHANGES: u64 = 10;

/// A server that is fast: it answers `pid`, asks a thousand things when it is told to `ask`, and reads all else.
const FAST: &str = r#"
    $| = 1;
    while (<STDIN>) {
        if (/"id":(\d+).*"method":"pid"/ || /"method":"pid".*"id":(\d+)/) {
            print qq({"jsonrpc":"2.0","id":$1,"result":{"pid":$$}}\n);
        } elsif (/"method":"ask"/) {
            print qq({"jsonrpc":"2.0","id":$_,"method":"roots/list"}\n) for 1..1000;
        }
    }"#;

fn scene(options: &[&str]) -> Scene {
    Scene::open_with(options, |_| {
        ["perl", "-e", FAST].map(str::to_owned).to_vec()
    })
}

/// Sends this again and again on each connection, and reads what comes back, until the bystander was answered often
/// enough.
fn flood(scene: &Scene, clients: &[Client], piece: &[u8], exchanges: u64) {
    thread::scope(|scope| {
        let mut connections = Ended(Vec::new());
        for client in clients {
            let (mut writer, mut reader) = (client.writer(), client.writer());
            connections.0.push(client.writer());
            scope.spawn(move || while writer.write_all(piece).is_ok() {});
            scope.spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        }
        scene.bystander.wait_for(exchanges);
    });
}

/// Connections that are ended when this is dropped, also by a test that fails: their threads are waited for.
struct Ended(Vec<TcpStream>);

impl Drop for Ended {
    fn drop(&mut self) {
        for connection in &self.0 {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn that_is_one_line_without_end() {
    let scene = scene(&["--max-message-bytes", "100000"]);
    let clients: Vec<Client> = (0..8).map(|_| scene.session().0).collect();
    flood(&scene, &clients, &vec![b'x'; 1_000_000], EXCHANGES);
    scene.end_after_much();
}

#[test]
fn that_takes_back_many_requests_at_once() {
    let scene = scene(&[]);
    let (mut client, _) = scene.session();
    // Requests that are not answered, so that there is something to be taken back.
    for id in 0..1000 {
        let id = format!("{id:0>900}");
        client.send_json(&json!({"jsonrpc": "2.0", "id": id, "method": "silent"}));
    }
    let cancellation = |id: usize| {
        let id = format!("{id:x>900}");
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
    };
    let batch: Vec<_> = (0..250).map(cancellation).collect();
    let line = format!("{}\n", serde_json::to_string(&batch).unwrap());
    flood(&scene, &[client], line.as_bytes(), EXCHANGES);
    scene.end_after_much();
}

/// One line of 10 MB that takes back what is not there, with two million members to look through.
#[test]
fn that_hides_what_it_takes_back_among_much_else() {
    let scene = scene(&[]);
    let (client, _) = scene.session();
    let members = r#""a":1,"#.repeat(1_600_000);
    let line = format!(
        "{{\"method\":\"notifications/cancelled\",\"params\":{{{members}\"requestId\":1}}}}\n"
    );
    flood(&scene, &[client], line.as_bytes(), FEW_EXCHANGES);
    scene.end_after_much();
}

#[test]
fn that_is_nothing_but_line_ends() {
    let scene = scene(&[]);
    let clients: Vec<Client> = (0..8).map(|_| scene.session().0).collect();
    flood(&scene, &clients, &vec![b'\n'; 1_000_000], EXCHANGES);
    scene.end_after_much();
}

#[test]
fn that_answers_what_nobody_asked() {
    let scene = scene(&[]);
    let (mut client, _) = scene.session();
    client.notify("ask", &json!({}));
    for _ in 0..1000 {
        client.recv_line();
    }
    let responses = "{\"id\":0}\n".repeat(7000);
    flood(&scene, &[client], responses.as_bytes(), EXCHANGES);
    scene.end_after_much();
}
