//! What sessions have under way when another program goes on.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::processes::kill_and_wait;
use crate::common::{DEADLINE, Proxy, Scratch, eventually, servers};
use crate::{generation, upgrade, upgrade_by_command};

#[test]
fn a_session_and_its_server_stay_what_they_are() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let (mut client, mut silent) = (proxy.connect(), proxy.connect());
    let server = client.pid_of_server();
    for round in 1..=3 {
        upgrade(&proxy);
        assert_eq!(generation(&proxy), round);
        assert_eq!(client.pid_of_server(), server);
    }
    assert_ne!(silent.pid_of_server(), server);
    let mut new = proxy.connect();
    assert_ne!(new.pid_of_server(), server);
}

#[test]
fn the_command_waits_until_another_program_goes_on() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let pid = proxy.pid().to_string();
    let output = upgrade_by_command(&[&pid]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(generation(&proxy), 1);
    assert_eq!(output.stdout, b"");
}

#[test]
fn requests_in_flight_are_answered_and_lost_ones_too() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let (mut patient, mut unlucky) = (proxy.connect(), proxy.connect());
    let wait = scratch.file("go-on");
    let code = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; answer",
        wait.display()
    );
    let pids = [patient.pid_of_server(), unlucky.pid_of_server()];
    let ids = [patient.send_code(&code), unlucky.send_code(&code)];
    eventually("both servers to have read it", DEADLINE, || {
        pids.iter().all(|pid| {
            let got = scratch.file(&format!("got.{pid}"));
            std::fs::read_to_string(got).is_ok_and(|got| got.contains("go-on"))
        })
    });
    upgrade(&proxy);
    kill_and_wait(pids[1]);
    let (id, _) = unlucky.recv_error(502, "process_terminated");
    assert_eq!(id, ids[1]);
    std::fs::write(&wait, "").unwrap();
    patient.answer_to(ids[0]);
    assert_ne!(unlucky.pid_of_server(), pids[1], "it is started again");
}

#[test]
fn half_lines_become_whole() {
    let scratch = Scratch::new();
    let server = r#"IFS= read -r line; echo "$line"; printf '{"half":'
while [ ! -e WAIT ]; do sleep 0.01; done
printf '1}\n'; exec cat"#;
    let wait = scratch.file("go-on");
    let server = servers::sh(&server.replace("WAIT", wait.to_str().unwrap()));
    let proxy = Proxy::start(&[], &server);
    let mut client = proxy.connect();
    // What comes together is mostly read together.
    client.send_raw(b"[1]\n{\"jsonrpc\":\"2.0\",");
    assert_eq!(client.recv_line(), "[1]");
    upgrade(&proxy);
    client.send_raw(b"\"method\":\"x\"}\n");
    std::fs::write(&wait, "").unwrap();
    assert_eq!(client.recv_line(), r#"{"half":1}"#);
    assert_eq!(client.recv_line(), r#"{"jsonrpc":"2.0","method":"x"}"#);
}

#[test]
fn what_a_client_has_not_taken_waits_for_it() {
    let proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    let text = "x".repeat(400_000);
    let line = |number: usize| json!({"jsonrpc": "2.0", "method": "m", "params": [number, text]});
    let mut writer = client.writer();
    let sender = thread::spawn({
        let lines: Vec<String> = (0..40).map(|number| line(number).to_string()).collect();
        move || {
            use std::io::Write;
            for line in lines {
                writer.write_all(line.as_bytes()).unwrap();
                writer.write_all(b"\n").unwrap();
            }
        }
    });
    for _ in 0..3 {
        upgrade(&proxy);
        // Some of it, so that there is more to be passed on.
        thread::sleep(Duration::from_millis(5));
    }
    for number in 0..40 {
        assert_eq!(client.recv_json(), line(number));
    }
    sender.join().unwrap();
}

#[test]
fn a_server_that_is_told_to_stop_is_stopped() {
    let server = servers::sh("trap '' TERM; echo '[1]'; while :; do sleep 1; done");
    let proxy = Proxy::start(&["--spawn", "eager"], &server);
    let mut client = proxy.connect();
    assert_eq!(client.recv_line(), "[1]");
    client.close();
    proxy.wait_for_log("SIGTERM to its process group");
    upgrade(&proxy);
    proxy.wait_for_log("SIGKILL to its process group");
    proxy.wait_until_childless();
}

#[test]
fn servers_that_die_meanwhile_are_reaped_and_started_again() {
    let scratch = Scratch::new();
    let proxy = Proxy::start(&["--prespawn", "2"], &servers::legacy(&scratch));
    let mut client = proxy.connect();
    client.initialize();
    let server = client.pid_of_server();
    proxy.signal(Signal::SIGUSR2);
    crate::common::processes::send_signal(server, Signal::SIGKILL);
    proxy.wait_for_log(crate::GOES_ON);
    assert_ne!(client.pid_of_server(), server, "the handshake is replayed");
    // Those that wait are handed out by the new program.
    proxy.connect().initialize();
    upgrade(&proxy);
    proxy.connect().initialize();
}

#[test]
fn a_stop_comes_to_its_end_in_the_new_program() {
    let mut proxy = Proxy::start(&[], &servers::mirror());
    let mut client = proxy.connect();
    upgrade(&proxy);
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
    proxy.signal(Signal::SIGTERM);
    client.read_to_end();
    assert_eq!(proxy.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn tokens_and_what_is_counted_go_on() {
    let scratch = Scratch::new();
    let token = "0123456789abcdef";
    write_tokens(&scratch, &format!("ann {token}\n"));
    let tokens = scratch.file("tokens").to_str().unwrap().to_owned();
    let options = ["--token-file", &tokens, "--status", "127.0.0.1:0"];
    let proxy = Proxy::start(&options, &servers::mirror());
    let line = proxy.wait_for_log("status at http://");
    let asked = line.split("http://").nth(1).unwrap().trim_end_matches('/');
    let hello = |token: &str| json!({"type": "handshake", "token": token}).to_string();
    let mut client = proxy.connect();
    client.send_line(&hello(token));
    client.send_line("[1]");
    assert_eq!(client.recv_line(), "[1]");
    // Whatever the file says by now, what was in force is.
    write_tokens(&scratch, "nobody knows_this_one_at_all\n");
    upgrade(&proxy);
    client.send_line("[2]");
    assert_eq!(client.recv_line(), "[2]");
    let mut new = proxy.connect();
    new.send_line(&hello(token));
    new.send_line("[3]");
    assert_eq!(new.recv_line(), "[3]");
    let metrics = http_get(asked, "/metrics");
    let opened = metrics.lines().find(|line| {
        let is_opened = line.contains("sessions_opened_total");
        is_opened && !line.starts_with('#')
    });
    assert!(opened.is_some_and(|line| line.ends_with(" 2")), "{metrics}");
    // SIGHUP has the file read again, as before.
    proxy.signal(Signal::SIGHUP);
    new.read_to_end();
}

/// A token file is nobody else's.
fn write_tokens(scratch: &Scratch, text: &str) {
    let path = scratch.file("tokens");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
}

/// An answer of `--status`, as it is.
fn http_get(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
