use proptest::prelude::*;

use super::*;

/// Two dumps of Linux 6.18 on x86-64, the numbers of their requests: of IPv6 sockets with port 48123, 7; of IPv4 sockets
/// with port 48124, 8.
///
/// The first has a connection with an IPv4 peer, on which we have ended our side, and one with a peer that does not read
/// what we write. The second has an idle one.
const RECORDED: &[u8] = include_bytes!("../recorded.bin");

fn read(sequence: u32) -> Vec<Message> {
    Messages::new(RECORDED, sequence).collect()
}

#[test]
fn a_recorded_dump_is_read() {
    let [
        Message::Connection(ended),
        Message::Connection(stuck),
        Message::Done,
    ] = &read(7)[..]
    else {
        panic!("{:?}", read(7));
    };
    let expected = Connection {
        inode: 842_646,
        local: "127.0.0.1:48123".parse().unwrap(),
        peer: "127.0.0.1:55250".parse().unwrap(),
        state: TcpState::FinWait2,
        send_queue: 0,
        unacknowledged: 0,
        retransmits: 0,
        probes: 0,
        last_ack: Duration::from_millis(1504),
        last_sent: Duration::from_millis(1508),
    };
    assert_eq!(*ended, expected);
    let expected = Connection {
        inode: 842_648,
        local: "[::1]:48123".parse().unwrap(),
        peer: "[::1]:51192".parse().unwrap(),
        state: TcpState::Established,
        send_queue: 3_782_144,
        unacknowledged: 0,
        retransmits: 0,
        probes: 1,
        last_ack: Duration::from_millis(1036),
        last_sent: Duration::from_millis(1248),
    };
    assert_eq!(*stuck, expected);
}

#[test]
fn only_replies_with_the_number_of_the_request_count() {
    let second = read(8);
    let [Message::Connection(idle), Message::Done] = &second[..] else {
        panic!("{second:?}");
    };
    assert_eq!((idle.inode, idle.local.port()), (842_651, 48124));
    assert_eq!(read(9), []);
}

#[test]
fn a_reply_of_an_older_kernel_lacks_what_was_added_later() {
    let mut reply = RECORDED[408..816].to_vec();
    let info = reply.len() - 280;
    // Of what comes after the first 104 bytes of a tcp_info, older kernels know nothing.
    reply.truncate(info + 104);
    let length = reply.len() as u32;
    reply[..4].copy_from_slice(&length.to_ne_bytes());
    reply[info - 4..info - 2].copy_from_slice(&108_u16.to_ne_bytes());
    let messages: Vec<Message> = Messages::new(&reply, 7).collect();
    let [Message::Connection(stuck)] = &messages[..] else {
        panic!("{messages:?}");
    };
    assert_eq!((stuck.probes, stuck.last_ack.as_millis()), (1, 1036));
    assert_eq!(stuck.unacknowledged, stuck.send_queue);
}

#[test]
fn errors_and_ends_are_told_apart() {
    let of = |kind: u16, number: i32| {
        let mut message = Vec::new();
        message.extend(20_u32.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend([0; 2]);
        message.extend(3_u32.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(number.to_ne_bytes());
        Messages::new(&message, 3).collect::<Vec<_>>()
    };
    assert_eq!(of(NLMSG_DONE, 0), [Message::Done]);
    assert_eq!(of(NLMSG_DONE, -12), [Message::Error(Errno::ENOMEM)]);
    assert_eq!(of(NLMSG_ERROR, -1), [Message::Error(Errno::EPERM)]);
    assert_eq!(of(NLMSG_ERROR, 0), [Message::Done]);
    assert_eq!(of(NLMSG_NOOP, 0), []);
    assert_eq!(of(99, 0), [Message::OtherSocket]);
}

#[test]
fn a_request_for_an_ipv4_peer_of_an_ipv6_socket_asks_for_ipv4() {
    let local: SocketAddr = "[::ffff:10.1.2.3]:8080".parse().unwrap();
    let peer: SocketAddr = "[::ffff:10.1.2.4]:999".parse().unwrap();
    let bytes = Request::one(local, peer).bytes(5);
    assert_eq!(bytes[..4], 72_u32.to_ne_bytes());
    assert_eq!(bytes[8..12], 5_u32.to_ne_bytes());
    assert_eq!(bytes[16..20], [AddressFamily::Inet as u8, 6, 2, 0]);
    assert_eq!(bytes[24..28], [0x1f, 0x90, 0x03, 0xe7]);
    assert_eq!(bytes[28..32], [10, 1, 2, 3]);
    assert_eq!(bytes[44..48], [10, 1, 2, 4]);
}

#[test]
fn a_link_local_peer_is_looked_for_on_its_interface() {
    let local: SocketAddr = "[fe80::1%3]:8080".parse().unwrap();
    let peer: SocketAddr = "[fe80::2%3]:999".parse().unwrap();
    let bytes = Request::one(local, peer).bytes(5);
    assert_eq!(bytes[16], AddressFamily::Inet6 as u8);
    assert_eq!(bytes[60..64], 3_u32.to_ne_bytes());
}

#[test]
fn a_peer_is_silent_if_it_owes_an_acknowledgement_and_was_asked_again() {
    let time = Duration::from_mins(2);
    let silent = |change: fn(&mut Connection)| {
        let Some(Message::Connection(mut connection)) = read(7).into_iter().nth(1) else {
            panic!("it was recorded");
        };
        connection.last_ack = time + Duration::from_millis(1);
        (connection.retransmits, connection.probes) = (1, 0);
        change(&mut connection);
        connection.is_silent_for(time)
    };
    assert!(silent(|_| {}));
    assert!(!silent(|connection| connection.send_queue = 0));
    assert!(!silent(|connection| connection.retransmits = 0));
    assert!(!silent(
        |connection| connection.last_ack = Duration::from_mins(2)
    ));
    assert!(silent(|connection| {
        (connection.retransmits, connection.probes) = (0, 3);
    }));
    assert!(!silent(|connection| {
        (connection.retransmits, connection.probes) = (0, 2);
    }));
}

proptest! {
    #[test]
    fn whatever_comes_is_read_to_its_end(bytes: Vec<u8>, sequence: u32) {
        prop_assert!(Messages::new(&bytes, sequence).count() <= bytes.len() / HEADER_BYTES);
    }

    #[test]
    fn mangled_replies_are_read_to_their_end(
        changes in prop::collection::vec((0..RECORDED.len(), any::<u8>()), 1..40),
        begin in 0..RECORDED.len(),
        length in 0..RECORDED.len(),
    ) {
        let mut bytes = RECORDED.to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let bytes = &bytes[begin..RECORDED.len().min(begin + length)];
        prop_assert!(Messages::new(bytes, 7).count() <= bytes.len() / HEADER_BYTES);
    }
}
