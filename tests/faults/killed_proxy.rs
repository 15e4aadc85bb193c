//! The proxy itself is killed: its servers end, and `connect` goes on with the next proxy.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::client::assert_own_error;
use crate::common::connect::{IN_HASTE, Reserved};
use crate::common::processes::{Process, Stray, wait_until_dead, wait_until_stopped};
use crate::common::{
    Connect, DEADLINE, Finally, Footprint, Proxy, Random, Scratch, eventually, servers,
    skip_on_reference,
};

/// Kills the proxy at any point of what it does, and waits until all its servers have ended.
#[track_caller]
fn kill(mut proxy: Proxy) {
    proxy.signal(Signal::SIGSTOP);
    wait_until_stopped(proxy.pid());
    let servers = proxy.servers();
    proxy.signal(Signal::SIGKILL);
    assert!(!proxy.wait_exit(DEADLINE).success());
    servers.into_iter().for_each(wait_until_dead);
}

#[test]
fn leaves_only_servers_that_neither_read_nor_write() {
    let scratch = Scratch::new();
    let mut proxy = Proxy::start(&[], &servers::scripted(&scratch));
    let server_that = |code: &str| {
        let mut client = proxy.connect();
        let server = client.pid_of_server();
        client.notify("sh", &json!({"code": code}));
        (client, Stray(server))
    };
    let (_reader, reading) = server_that(":");
    let (mut writer, writing) = server_that("exec yes '{}'");
    let (_complainer, complaining) = server_that("while sleep 0.05; do echo complaint >&2; done");
    let (_sleeper, deaf) = server_that("exec sleep 60");
    assert_eq!(writer.recv_line(), "{}");
    proxy.wait_for_log("complaint");
    eventually("the deaf one to sleep", DEADLINE, || {
        Process::find(deaf.0).is_some_and(|process| process.name == "sleep")
    });
    proxy.signal(Signal::SIGKILL);
    assert!(!proxy.wait_exit(DEADLINE).success());
    for ended in [reading, writing, complaining] {
        wait_until_dead(ended.0);
    }
    // There is nothing by which it could have noticed: whoever kills the proxy has to end such a server, too.
    assert!(Process::find(deaf.0).is_some_and(|process| !process.is_zombie()));
}

/// Calls without a pause, until the end. Returns how many calls were answered, and how many of them with an error.
fn host(address: SocketAddr, is_over: &AtomicBool, mut random: Random) -> (u64, u64) {
    let mut connect = Connect::start(&IN_HASTE, address);
    connect.initialize();
    let before = Footprint::of(connect.pid());
    let (mut asked, mut answered, mut lost) = (0, 0, 0);
    loop {
        for _ in 0..random.below(8) {
            asked += 1;
            let echo = json!({"name": "echo", "arguments": {"text": format!("call {asked}")}});
            connect.send_request(asked, "tools/call", &echo);
        }
        while answered < asked {
            answered += 1;
            let answer = connect.recv_json();
            assert_eq!(answer["id"], answered, "{answer}");
            if answer.get("error").is_some() {
                assert_own_error(&answer, 502, "connection_lost");
                lost += 1;
            } else {
                let text = &answer["result"]["content"][0]["text"];
                assert_eq!(text, &json!(format!("call {answered}")));
            }
        }
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    before.wait_until_restored();
    connect.end_input();
    assert_eq!(connect.read_to_end(), [""; 0]);
    connect.wait_exit(i32::from(lost > 0));
    (answered, lost)
}

#[test]
fn is_replaced_and_connect_goes_on() {
    const HOSTS: usize = 3;
    const KILLS: usize = 6;
    const LONGEST_LIFE_MS: u64 = 400;
    skip_on_reference!("is too slow to let go of its servers");
    let mut random = Random::seeded();
    let reserved = Reserved::new();
    let port = reserved.address().port().to_string();
    let start = || Proxy::start(&["--port", &port], &servers::demo());
    let mut proxy = start();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let finally = Finally(&is_over);
        let hosts: Vec<_> = (0..HOSTS)
            .map(|_| {
                let (address, random, is_over) = (proxy.address(), random.fork(), &is_over);
                scope.spawn(move || host(address, is_over, random))
            })
            .collect();
        for _ in 0..KILLS {
            thread::sleep(random.milliseconds(LONGEST_LIFE_MS));
            kill(proxy);
            proxy = start();
        }
        drop(finally);
        for host in hosts {
            let (answered, lost) = host.join().unwrap();
            eprintln!("{KILLS} kills of the proxy: {answered} calls, {lost} of them lost");
            assert!(answered > lost);
        }
    });
}
