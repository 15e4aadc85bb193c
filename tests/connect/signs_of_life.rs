//! A peer that is gone without a word, and one that only seems to be.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use serde_json::json;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::common::client::Client;
use crate::common::connect::{HEARTBEAT_RESPONSE, IN_HASTE, Reserved, connected, is_ready};
use crate::common::{Connect, FakeServer, processes};
use crate::relaying::wait_for_standstill;

/// The interval of the peer's heartbeats in these tests.
const INTERVAL: Duration = Duration::from_secs(2);

/// For so long a peer with that interval may be silent: long enough for a machine that stalls.
const PATIENCE: Duration = Duration::from_secs(5);

/// Has `connect` know that interval, and the silence begin. It is known by the times in the heartbeats, which can't be
/// further apart than the link is old.
fn show_interval(peer: &mut Client) {
    show_intervals_of(INTERVAL, peer);
}

fn show_intervals_of(interval: Duration, peer: &mut Client) {
    thread::sleep(interval + interval / 10);
    let beat = |number: u32| {
        let time = 1_700_000_000.5 + (interval * number).as_secs_f64();
        HEARTBEAT_RESPONSE.replace("1.5", &time.to_string()) + "\n"
    };
    peer.send_raw((0..3).map(beat).collect::<String>().as_bytes());
}

/// Waits as long as it takes until this many have come, each after an interval of `connect`'s.
fn receive_heartbeats(peer: &mut Client, count: u32) {
    for _ in 0..count {
        assert_eq!(peer.recv_json()["type"], "heartbeat");
    }
}

#[test]
fn a_peer_that_falls_silent_is_taken_for_dead() {
    let (server, mut connect, mut peer) = connected(&IN_HASTE);
    connect.send_request(1, "tools/call", &json!({}));
    peer.recv_line();
    show_intervals_of(Duration::from_millis(100), &mut peer);
    let (id, data) = connect.recv_error(502, "connection_lost");
    assert_eq!(id, 1);
    let status = data["status"].as_str().unwrap();
    let seconds = status.strip_prefix("no sign of life for ");
    let seconds = seconds.and_then(|rest| rest.strip_suffix(" s"));
    let seconds: f64 = seconds
        .unwrap_or_else(|| panic!("{status}"))
        .parse()
        .unwrap();
    // Two and a half times a second, as no interval is taken for shorter than that.
    assert!((2.5..15.0).contains(&seconds), "{status}");
    let mut next = server.greeted();
    connect.send_request(2, "tools/call", &json!({}));
    assert_eq!(next.recv_json()["id"], 2);
    // It had let go of the silent one.
    peer.read_to_end();
}

/// Heartbeats that were held up on the way and come at once: the time in them tells how far apart they were sent.
#[test]
fn a_stall_on_the_way_does_not_make_the_peer_look_hasty() {
    let server = FakeServer::start();
    let options = [&IN_HASTE[..], &["--heartbeat-interval", "0.05"]].concat();
    let mut connect = Connect::start(&options, server.address());
    let mut peer = server.greeted();
    // The link has to be older than the distances are, or they came from a clock that was set.
    receive_heartbeats(&mut peer, 62);
    for sent in [10, 13, 16, 19] {
        peer.send_line(&HEARTBEAT_RESPONSE.replace("1.5", &format!("17000000{sent}.5")));
    }
    // Longer than a silence may take by the time of their arrival, and shorter than by the time in them.
    receive_heartbeats(&mut peer, 80);
    peer.send_line(r#"{"method":"m"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"m"}"#);
    assert!(server.try_accept().is_none(), "it connected again");
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let (server, mut connect, mut peer) = connected(&IN_HASTE);
    show_interval(&mut peer);
    let line = br#"{"method":"m"}"#;
    for byte in line {
        // All of them together take longer than a silence may.
        thread::sleep(PATIENCE / (line.len() - 2) as u32);
        peer.send_raw(&[*byte]);
    }
    peer.send_raw(b"\n");
    assert_eq!(connect.recv_line(), r#"{"method":"m"}"#);
    assert!(server.try_accept().is_none(), "it connected again");
}

/// There is no knowing how long is too long for a peer that has no heartbeats.
#[test]
fn a_peer_without_heartbeats_may_be_silent() {
    let server = FakeServer::start();
    let options = [&IN_HASTE[..], &["--heartbeat-interval", "0.05"]].concat();
    let mut connect = Connect::start(&options, server.address());
    let mut peer = server.greeted();
    peer.send_line(HEARTBEAT_RESPONSE);
    receive_heartbeats(&mut peer, 20);
    peer.send_line(r#"{"method":"m"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"m"}"#);
}

#[test]
fn a_host_that_holds_back_reading_is_no_false_alarm() {
    const FLOOD_LINES: usize = 40 * 1024;
    let server = FakeServer::start();
    let options = [&IN_HASTE[..], &["--heartbeat-interval", "0.05"]].concat();
    let mut connect = Connect::start(&options, server.address());
    let mut peer = server.greeted();
    show_interval(&mut peer);
    let line = format!(r#"{{"method":"{}"}}"#, "x".repeat(1000));
    let sent = AtomicUsize::new(0);
    let mut writer = peer.writer();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..FLOOD_LINES {
                writer.write_all(format!("{line}\n").as_bytes()).unwrap();
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_for_standstill(&sent, FLOOD_LINES);
        // Longer than a silence may take: six seconds.
        receive_heartbeats(&mut peer, 120);
        for _ in 0..FLOOD_LINES {
            assert_eq!(connect.recv_line(), line);
        }
    });
    peer.send_line(r#"{"method":"last"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"last"}"#);
    assert_eq!(connect.count_logs("taken for dead"), 0);
}

/// What came while it was stopped is read before the clock says that nothing came.
#[test]
fn a_pause_of_our_own_is_no_silence_of_the_peer() {
    let (server, mut connect, mut peer) = connected(&IN_HASTE);
    show_interval(&mut peer);
    // Its interval is known.
    peer.send_line(r#"{"method":"before"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"before"}"#);
    processes::stop_asleep(connect.pid());
    peer.send_line(HEARTBEAT_RESPONSE);
    // Longer than a silence may take.
    thread::sleep(PATIENCE + PATIENCE / 10);
    connect.signal(Signal::SIGCONT);
    peer.send_line(r#"{"method":"after"}"#);
    assert_eq!(connect.recv_line(), r#"{"method":"after"}"#);
    assert_eq!(connect.count_logs("taken for dead"), 0);
    assert!(server.try_accept().is_none(), "it connected again");
}

/// Begins a connection, and returns it if it is not made at once.
fn stuck_connection(address: std::net::SocketAddr) -> Result<OwnedFd, OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => Err(socket),
        Err(Errno::EINPROGRESS) => {
            let made = is_ready(
                std::os::fd::AsFd::as_fd(&socket),
                nix::poll::PollFlags::POLLOUT,
                Duration::from_millis(200),
            );
            if made { Err(socket) } else { Ok(socket) }
        }
        Err(error) => panic!("cannot connect: {error}"),
    }
}

#[test]
fn an_attempt_that_nobody_answers_ends_at_its_time() {
    let reserved = Reserved::new();
    let address = reserved.address();
    let server = reserved.listen(0);
    let mut made = Vec::new();
    let stuck = (0..8).find_map(|_| match stuck_connection(address) {
        Ok(stuck) => Some(stuck),
        Err(other) => {
            made.push(other);
            None
        }
    });
    if stuck.is_none() {
        eprintln!("skipped: the kernel lets everyone in");
        return;
    }
    let start = Instant::now();
    let options = ["--no-reconnect", "--connect-timeout", "0.3"];
    let mut connect = Connect::start(&options, address);
    let log = connect.wait_exit(1);
    assert!(start.elapsed() >= Duration::from_millis(300));
    let last = log.last().unwrap();
    assert!(last.contains("0.3 s (--connect-timeout)"), "{log:?}");
    drop(server);
}
