//! A connection that is cut at any byte, over and over, while the host goes on calling.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use crate::common::client::assert_own_error;
use crate::common::connect::{INITIALIZED, assert_handshake};
use crate::common::{Connect, Proxy, Random, servers};

/// How often the connection is cut, if that does not take too long.
const CUTS: usize = 300;

/// After this time no more cuts are made.
const TIME: Duration = Duration::from_secs(15);

/// The least that have to be made, also on a slow machine.
const LEAST_CUTS: usize = 30;

/// Requests under way at the same time.
const WINDOW: u64 = 6;

/// A connection is cut after at most so many bytes in one direction.
const MAX_BYTES: u64 = 1500;

/// Stands between connect and the proxy, and cuts.
struct Relay {
    to: SocketAddr,
    cuts: AtomicUsize,
    calm: AtomicBool,
    /// What connect sent on each connection, as far as it was read.
    sent: Mutex<Vec<Vec<u8>>>,
}

impl Relay {
    fn run(self: &Arc<Self>, listener: &TcpListener, random: &mut Random) {
        for stream in listener.incoming().map(Result::unwrap) {
            let Ok(server) = TcpStream::connect(self.to) else {
                return;
            };
            // A third each: cut by the one direction, by the other, by whichever comes first.
            let mut limits = [random.below(MAX_BYTES), random.below(MAX_BYTES)];
            match random.below(3) {
                0 => limits[0] = u64::MAX,
                1 => limits[1] = u64::MAX,
                _ => {}
            }
            let resets = random.below(2) == 0;
            if self.calm.load(Ordering::Relaxed) {
                limits = [u64::MAX; 2];
            }
            let index = {
                let mut sent = self.sent.lock().unwrap();
                sent.push(Vec::new());
                sent.len() - 1
            };
            let relay = Arc::clone(self);
            let (client, peer) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || relay.pass(&client, &peer, limits[0], resets, Some(index)));
            let relay = Arc::clone(self);
            thread::spawn(move || relay.pass(&server, &stream, limits[1], resets, None));
        }
    }

    /// Passes on so many bytes, and cuts the connection both ways; at the end, passes that on.
    fn pass(
        &self,
        from: &TcpStream,
        to: &TcpStream,
        limit: u64,
        resets: bool,
        record: Option<usize>,
    ) {
        let mut left = limit;
        let mut buffer = [0; 4096];
        loop {
            let (mut source, mut sink) = (from, to);
            let count = match source.read(&mut buffer) {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Err(_) => {
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
                Ok(count) => count,
            };
            if let Some(index) = record {
                self.sent.lock().unwrap()[index].extend_from_slice(&buffer[..count]);
            }
            let passed = count.min(usize::try_from(left).unwrap_or(usize::MAX));
            let failed = sink.write_all(&buffer[..passed]).is_err();
            left -= passed as u64;
            if failed || passed < count || left == 0 {
                self.cuts.fetch_add(1, Ordering::Relaxed);
                for side in [from, to] {
                    if resets {
                        let at_once = linger {
                            l_onoff: 1,
                            l_linger: 0,
                        };
                        let _ = setsockopt(&side, sockopt::Linger, &at_once);
                    }
                    let _ = side.shutdown(Shutdown::Both);
                }
                return;
            }
        }
    }
}

#[test]
fn every_request_gets_one_answer_or_one_error_in_order() {
    crate::common::skip_on_reference!("is too slow to let go of its servers");
    let mut random = Random::seeded();
    let proxy = Proxy::start(&[], &servers::demo());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let relay = Arc::new(Relay {
        to: proxy.address(),
        cuts: AtomicUsize::new(0),
        calm: AtomicBool::new(false),
        sent: Mutex::default(),
    });
    let relaying = Arc::clone(&relay);
    thread::spawn(move || relaying.run(&listener, &mut random));

    let options = [
        "--no-resume",
        "--reconnect-delay",
        "0.01",
        "--max-reconnect-attempts",
        "0",
    ];
    let mut connect = Connect::start(&options, address);
    let start = Instant::now();
    connect.initialize();
    let (mut asked, mut answered, mut lost) = (0, 0, 0_u32);
    loop {
        let cuts = relay.cuts.load(Ordering::Relaxed);
        if cuts >= CUTS || (start.elapsed() > TIME && cuts >= LEAST_CUTS) {
            relay.calm.store(true, Ordering::Relaxed);
        }
        let calm = relay.calm.load(Ordering::Relaxed);
        while asked < answered + WINDOW && !calm {
            asked += 1;
            let echo =
                json!({"name": "echo", "arguments": {"text": format!("this is call {asked}")}});
            connect.send_request(asked, "tools/call", &echo);
        }
        if answered == asked {
            break;
        }
        let answer = connect.recv_json();
        answered += 1;
        assert_eq!(answer["id"], answered, "{answer}");
        if answer.get("error").is_some() {
            assert_own_error(&answer, 502, "connection_lost");
            lost += 1;
        } else {
            let text = &answer["result"]["content"][0]["text"];
            assert_eq!(text, &json!(format!("this is call {answered}")));
        }
    }
    let cuts = relay.cuts.load(Ordering::Relaxed);
    eprintln!("{cuts} cuts, {asked} calls, {lost} of them lost");
    assert!(lost > 0 && u64::from(lost) < asked);

    // It works as if nothing had been, and nothing comes that was not asked for.
    connect.end_input();
    assert_eq!(connect.read_to_end(), [""; 0]);
    // But that calls were lost.
    connect.wait_exit(1);
    nothing_was_said_twice(&relay.sent.lock().unwrap());
}

/// Each connection begins with the handshakes, and no call is on two of them.
#[track_caller]
fn nothing_was_said_twice(connections: &[Vec<u8>]) {
    let mut calls = HashSet::new();
    for sent in connections {
        let sent = String::from_utf8_lossy(sent);
        // The last one may be cut off.
        let lines: Vec<&str> = sent
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .collect();
        if let Some(first) = lines.first() {
            assert_handshake(first);
        }
        let is_call = |line: &&&str| line.contains(r#""method":"tools/call""#);
        for call in lines.iter().filter(is_call) {
            let id = serde_json::from_str::<Value>(call).unwrap()["id"].as_u64();
            assert!(calls.insert(id), "said twice: {call}");
        }
        if lines.iter().any(|line| is_call(&line)) {
            let method = serde_json::from_str::<Value>(lines[1]).unwrap();
            assert_eq!(method["method"], "initialize");
            assert_eq!(lines[2], INITIALIZED);
        }
    }
    assert!(calls.len() > 1);
}
