//! What the kernel tells about connections, on connections of every kind: over loopback, and to a peer that vanishes.
//!
//! The last needs a network namespace of its own, and is skipped by users who may not have one.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, DEADLINE, Proxy, eventually, eventually_some};
use mcp_tcp_proxy::process::DescriptorLimit;
use mcp_tcp_proxy::reactor::peers::Peers;
use mcp_tcp_proxy::reactor::sock_diag::{Connection, SockDiag, TcpState, socket_inode};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};

/// A listener on this address with its connections to us: our side of each, and the peer's.
fn connections(address: &str, number: usize) -> (TcpListener, Vec<(TcpStream, TcpStream)>) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let pairs = (0..number).map(|_| connection(&listener)).collect();
    (listener, pairs)
}

fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut address = listener.local_addr().unwrap();
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    let peer = TcpStream::connect(address).unwrap();
    (listener.accept().unwrap().0, peer)
}

fn ends(of: &TcpStream) -> (SocketAddr, SocketAddr) {
    (of.local_addr().unwrap(), of.peer_addr().unwrap())
}

fn dump(diag: &mut SockDiag, port: u16) -> Vec<Connection> {
    let mut found = Vec::new();
    diag.dump(&[port], |connection| found.push(connection.clone()))
        .unwrap();
    found
}

fn of(diag: &mut SockDiag, stream: &TcpStream) -> Connection {
    let (local, peer) = ends(stream);
    diag.of(local, peer).unwrap().unwrap()
}

/// Writes until the kernel takes no more, and returns how much it took.
fn fill(stream: &mut TcpStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut taken = 0;
    loop {
        match stream.write(&[b'x'; 16_384]) {
            Ok(bytes) => taken += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_dump_finds_every_connection_of_a_port_by_its_inode_and_no_others() {
    let mut diag = SockDiag::open().unwrap();
    for address in ["127.0.0.1", "::1", "::"] {
        // Some hundreds, so that the reply has several parts.
        let (listener, pairs) = connections(address, 300);
        let port = listener.local_addr().unwrap().port();
        let (_other, _others) = connections(address, 3);
        let mut found: Vec<u32> = dump(&mut diag, port)
            .iter()
            .inspect(|connection| assert_eq!(connection.state, TcpState::Established))
            .map(|connection| connection.inode)
            .collect();
        let mut expected: Vec<u32> = pairs
            .iter()
            .map(|(ours, _)| socket_inode(ours).unwrap())
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{address}");
    }
}

#[test]
fn one_connection_is_found_by_its_addresses() {
    let mut diag = SockDiag::open().unwrap();
    for address in ["127.0.0.1", "::1", "::"] {
        let (listener, pairs) = connections(address, 2);
        for (ours, peer) in &pairs {
            for side in [ours, peer] {
                let found = of(&mut diag, side);
                assert_eq!(found.inode, socket_inode(side).unwrap());
                let (local, remote) = ends(side);
                assert_eq!(found.local.ip(), local.ip().to_canonical());
                assert_eq!(found.peer.port(), remote.port());
            }
        }
        // For a peer that is not there, the kernel finds the listener.
        let (local, mut peer) = ends(&pairs[0].0);
        peer.set_port(listener.local_addr().unwrap().port());
        assert_eq!(diag.of(local, peer).unwrap(), None);
        drop(listener);
        assert_eq!(diag.of(local, peer).unwrap(), None);
    }
}

#[test]
fn questions_can_be_asked_in_turns() {
    let mut diag = SockDiag::open().unwrap();
    let (listener, pairs) = connections("127.0.0.1", 2);
    let port = listener.local_addr().unwrap().port();
    for _ in 0..20 {
        assert_eq!(dump(&mut diag, port).len(), 2);
        assert_eq!(of(&mut diag, &pairs[0].0).state, TcpState::Established);
    }
    // Of no port is nothing, and not everything.
    diag.dump(&[], |connection| panic!("{connection:?}"))
        .unwrap();
}

#[test]
fn the_send_queue_grows_while_the_peer_does_not_read_and_falls_when_it_does() {
    let mut diag = SockDiag::open().unwrap();
    let (_listener, mut pairs) = connections("127.0.0.1", 1);
    let (mut ours, mut peer) = pairs.pop().unwrap();
    assert_eq!(of(&mut diag, &ours).send_queue, 0);

    let written = fill(&mut ours);
    // What the peer's buffer takes is acknowledged without being read.
    let full = eventually_some("the peer's buffer to be full", DEADLINE, || {
        let now = of(&mut diag, &ours);
        (now.unacknowledged < now.send_queue).then_some(now)
    });
    assert!(
        (1..written).contains(&(full.send_queue as usize)),
        "{full:?}"
    );
    assert_eq!(full.retransmits, 0);

    let mut read = vec![0; written];
    let mut queue = full.send_queue;
    for part in read.chunks_mut(written.div_ceil(8)) {
        peer.read_exact(part).unwrap();
        let now = of(&mut diag, &ours).send_queue;
        assert!(now <= queue, "{now} after {queue}");
        queue = now;
    }
    eventually("everything to be acknowledged", DEADLINE, || {
        of(&mut diag, &ours).send_queue == 0
    });
}

#[test]
fn an_end_of_the_stream_waits_in_the_send_queue_behind_the_data() {
    let mut diag = SockDiag::open().unwrap();
    let (_listener, mut pairs) = connections("127.0.0.1", 1);
    let (mut ours, mut peer) = pairs.pop().unwrap();
    fill(&mut ours);
    ours.shutdown(Shutdown::Write).unwrap();
    let ending = of(&mut diag, &ours);
    assert_eq!(ending.state, TcpState::FinWait1);
    assert!(ending.send_queue > 1);

    io::copy(&mut peer, &mut io::sink()).unwrap();
    eventually("the end to be acknowledged", DEADLINE, || {
        let now = of(&mut diag, &ours);
        now.state == TcpState::FinWait2 && now.send_queue == 0
    });
    drop(peer);
    eventually("the connection to be gone", DEADLINE, || {
        // A socket whose connection is gone has no peer.
        let (Ok(local), Ok(peer)) = (ours.local_addr(), ours.peer_addr()) else {
            return true;
        };
        diag.of(local, peer).unwrap().is_none()
    });
}

#[test]
fn an_acknowledgement_is_as_old_as_it_is() {
    let mut diag = SockDiag::open().unwrap();
    let (_listener, mut pairs) = connections("127.0.0.1", 1);
    let (mut ours, peer) = pairs.pop().unwrap();
    let before = Instant::now();
    ours.write_all(b"x").unwrap();
    let quiet = eventually_some("a while without data", DEADLINE, || {
        let now = of(&mut diag, &ours);
        (now.last_ack >= Duration::from_millis(300)).then_some(now)
    });
    // The kernel counts in ticks of up to 10 ms.
    assert!(quiet.last_ack <= before.elapsed() + Duration::from_millis(20));
    assert!(quiet.last_sent >= Duration::from_millis(280));
    eventually("a fresh acknowledgement", DEADLINE, || {
        ours.write_all(b"x").unwrap();
        of(&mut diag, &ours).last_ack < quiet.last_ack
    });
    drop(peer);
}

/// Runs `ip` with these words; the test goes on only if it can.
fn ip(words: &str) -> io::Result<()> {
    let output = Command::new("ip").args(words.split(' ')).output()?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {words}: {error}")))
}

/// Gives this thread a network of its own, where two addresses reach each other.
fn enter_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    ip("link set lo up")?;
    ip("addr add 10.1.0.1/32 dev lo")?;
    ip("addr add 10.1.0.2/32 dev lo")?;
    ip("link add here type veth peer name there")?;
    ip("link set here up")?;
    ip("link set there up")?;
    ip("neigh add 10.1.0.2 lladdr 02:00:00:00:00:99 dev here nud permanent")
}

/// From now on, whatever is sent to the second address is lost.
fn lose_the_second_address() -> io::Result<()> {
    ip("addr del 10.1.0.2/32 dev lo")?;
    ip("route add 10.1.0.2/32 dev here src 10.1.0.1")
}

/// From the first address to the second: our side, and the peer's.
fn connection_between_addresses() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("10.1.0.2:0").unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        panic!("it was bound to an IPv4 address");
    };
    let (kind, flags) = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
    let ours = socket::socket(AddressFamily::Inet, kind, flags, None).unwrap();
    socket::bind(ours.as_raw_fd(), &SockaddrIn::new(10, 1, 0, 1, 0)).unwrap();
    socket::connect(ours.as_raw_fd(), &SockaddrIn::from(address)).unwrap();
    (ours.into(), listener.accept().unwrap().0)
}

/// Runs a test in a thread with a network of its own, if that can be had.
fn in_a_network(test: fn()) {
    let test = move || match enter_network() {
        Ok(()) => test(),
        Err(error) => eprintln!("skipped: no network of its own: {error}"),
    };
    thread::spawn(test).join().unwrap();
}

#[test]
fn a_peer_that_vanished_shows_in_retransmits_and_an_old_acknowledgement() {
    in_a_network(|| {
        let mut diag = SockDiag::open().unwrap();
        let (mut ours, _peer) = connection_between_addresses();
        ours.write_all(b"hello").unwrap();
        eventually("an acknowledgement", DEADLINE, || {
            of(&mut diag, &ours).send_queue == 0
        });
        let silence = Duration::from_secs(1);
        lose_the_second_address().unwrap();
        ours.write_all(b"is anybody there?").unwrap();
        let silent = eventually_some("silence", DEADLINE, || {
            let now = of(&mut diag, &ours);
            now.is_silent_for(silence).then_some(now)
        });
        assert!(silent.retransmits > 0 && silent.last_ack > silence);
        assert_eq!((silent.send_queue, silent.unacknowledged), (17, 17));
        let port = ours.local_addr().unwrap().port();
        let dumped = dump(&mut diag, port);
        assert_eq!(dumped.len(), 1);
        assert!(dumped[0].is_silent_for(silence));
        assert_eq!(dumped[0].inode, socket_inode(&ours).unwrap());
    });
}

#[test]
fn of_all_peers_those_that_vanished_are_told() {
    in_a_network(|| {
        let mut peers = Peers::new();
        let (ours, _peer) = connection_between_addresses();
        ours.set_nonblocking(true).unwrap();
        let ours = mio::net::TcpStream::from_std(ours);
        lose_the_second_address().unwrap();
        (&ours).write_all(b"is anybody there?").unwrap();
        let all = || [("ours", &ours)].into_iter();
        let ports = [ours.local_addr().unwrap().port()];
        let vanished = peers.vanished(&ports, all(), DEADLINE);
        assert!(vanished.is_empty(), "not for long");
        let silence = Duration::from_secs(1);
        eventually("silence", DEADLINE, || peers.has_vanished(&ours, silence));
        assert_eq!(peers.vanished(&ports, all(), silence), ["ours"]);
        assert!(peers.vanished(&[], all(), silence).is_empty());
        assert!(!peers.has_vanished(&ours, 2 * DEADLINE));
    });
}

#[test]
#[ignore = "takes three minutes"]
fn the_session_of_a_client_that_vanished_with_its_heartbeats_comes_to_its_end() {
    in_a_network(|| {
        let options = ["--host", "10.1.0.1", "--heartbeat-interval", "1"];
        let proxy = Proxy::start(&options, &["cat".to_owned()]);
        let (kind, flags) = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
        let socket = socket::socket(AddressFamily::Inet, kind, flags, None).unwrap();
        socket::bind(socket.as_raw_fd(), &SockaddrIn::new(10, 1, 0, 2, 0)).unwrap();
        let address = SockaddrIn::new(10, 1, 0, 1, proxy.address().port());
        socket::connect(socket.as_raw_fd(), &address).unwrap();
        let mut client = Client::over(socket.into());
        client.send_line(r#"{"type":"handshake","supports_heartbeat":true}"#);
        client.recv_line();
        lose_the_second_address().unwrap();
        let began = Instant::now();
        eventually("the end", Duration::from_secs(160), || {
            proxy.log().iter().any(|line| line.contains(" closed: "))
        });
        assert!(
            began.elapsed() > Duration::from_secs(115),
            "it may come back"
        );
        proxy.wait_for_log("the connection to the client broke (Connection timed out");
    });
}

#[test]
fn a_peer_that_vanished_with_a_full_buffer_shows_in_unanswered_probes() {
    in_a_network(|| {
        let mut diag = SockDiag::open().unwrap();
        let (mut ours, _peer) = connection_between_addresses();
        fill(&mut ours);
        eventually("the peer's buffer to be full", DEADLINE, || {
            let now = of(&mut diag, &ours);
            now.send_queue > 0 && now.unacknowledged == 0
        });
        lose_the_second_address().unwrap();
        let silence = Duration::from_millis(500);
        let silent = eventually_some("silence", DEADLINE, || {
            let now = of(&mut diag, &ours);
            now.is_silent_for(silence).then_some(now)
        });
        // If there was room for a part of a segment, the first probe was data.
        assert!(silent.retransmits > 0 || silent.probes > 2, "{silent:?}");
    });
}

/// ```text
/// cargo test --release --test sock_diag -- --ignored --nocapture
/// ```
#[test]
#[ignore = "a measurement"]
fn the_cost_of_a_look_at_4500_connections() {
    const LOOKS: u32 = 200;
    DescriptorLimit::raise().unwrap();
    let mut diag = SockDiag::open().unwrap();
    let (listener, pairs) = connections("127.0.0.1", 4500);
    let port = listener.local_addr().unwrap().port();
    let time = |look: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..LOOKS).for_each(|_| look());
        start.elapsed() / LOOKS
    };
    let all = time(&mut || {
        let mut found = 0;
        diag.dump(&[port], |_| found += 1).unwrap();
        assert_eq!(found, pairs.len());
    });
    let none = time(&mut || diag.dump(&[1], |_| ()).unwrap());
    let (local, peer) = ends(&pairs[0].0);
    let one = time(&mut || assert!(diag.of(local, peer).unwrap().is_some()));
    eprintln!("a dump: {all:?}; of a port without connections: {none:?}; one connection: {one:?}");
}
