use std::rc::Rc;

use super::*;

/// Where a connection was cut.
#[derive(Debug)]
enum Cut {
    InHandshake,
    /// After this was read.
    Broken(Vec<u8>),
    /// It was whole.
    Ended(Vec<u8>),
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

#[test]
fn what_one_side_writes_the_other_reads_in_pieces_of_any_size() {
    let pki = Pki::new();
    for version in VERSIONS {
        for at_once in [1, 3, 100, 4096, usize::MAX] {
            let mut ends = Ends::new(&pki, version);
            ends.client.socket.at_once = at_once;
            ends.server.socket.at_once = at_once;
            ends.shake();
            assert_eq!(ends.server.session.version(), Some(version.version));
            let text = text(if at_once == 1 { 5000 } else { 200_000 });
            for to_server in [true, false] {
                let Ends { client, server } = &mut ends;
                let (from, to) = if to_server {
                    (client, server)
                } else {
                    (server, client)
                };
                assert_eq!(exchange(from, to, &text), text, "{at_once}");
            }
        }
    }
}

#[test]
fn a_read_is_short_only_if_the_socket_is_empty() {
    let pki = Pki::new();
    let text = text(300_000);
    for room in [1, 100, 5000, 21_000, 64 * 1024, 128 * 1024] {
        let mut ends = Ends::shaken(&pki, VERSIONS[1]);
        let mut written = 0;
        while written < text.len() {
            written += ends.client.write(&text[written..]).unwrap();
        }
        let mut buffer = vec![0; room];
        let mut all = Vec::new();
        loop {
            let count = ends.server.read(&mut buffer).unwrap_or(0);
            all.extend_from_slice(&buffer[..count]);
            if count < room {
                break;
            }
        }
        assert!(ends.server.socket.incoming.borrow().bytes.is_empty());
        assert_eq!(all, text, "{room}");
        let nothing = ends.server.read(&mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn a_small_message_takes_one_read_of_the_socket() {
    let pki = Pki::new();
    let mut ends = Ends::shaken(&pki, VERSIONS[1]);
    ends.client.write_all(&text(200)).unwrap();
    let before = ends.server.socket.reads;
    assert_eq!(ends.server.read(&mut vec![0; 64 * 1024]).unwrap(), 200);
    assert_eq!(ends.server.socket.reads, before + 1);
}

#[test]
fn what_has_no_room_is_kept_counted_and_sent_when_there_is_some() {
    let pki = Pki::new();
    for version in VERSIONS {
        let mut ends = Ends::shaken(&pki, version);
        ends.client.socket.outgoing.borrow_mut().room = 1000;
        let text = text(100_000);
        let taken = ends.client.write(&text).unwrap();
        assert!((1..text.len()).contains(&taken), "{taken}");
        let on_the_wire = ends.client.socket.outgoing.borrow().bytes.len();
        assert_eq!(on_the_wire, 1000);
        let unsent = ends.client.session.unsent();
        assert!((taken - 1000..taken + 1000).contains(&unsent), "{unsent}");
        for refused in [
            ends.client.write(&text[taken..]).map(drop),
            ends.client.flush(),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        assert_eq!(ends.client.session.unsent(), unsent);
        let mut read = read_all(&mut ends.server);
        assert!(ends.client.flush().is_err());
        assert_eq!(ends.client.session.unsent(), unsent - 1000);
        while ends.client.flush().is_err() {
            read.extend(read_all(&mut ends.server));
        }
        read.extend(read_all(&mut ends.server));
        assert_eq!(ends.client.session.unsent(), 0);
        // The last byte counts only now.
        assert_eq!(read, text[..=taken]);
        ends.client.socket.outgoing.borrow_mut().room = usize::MAX;
        ends.client.write_all(&text[taken..]).unwrap();
        read.extend(read_all(&mut ends.server));
        assert_eq!(read, text);
    }
}

#[test]
fn a_large_write_leaves_time_for_others() {
    let pki = Pki::new();
    let mut ends = Ends::shaken(&pki, VERSIONS[1]);
    let taken = ends.client.write(&text(1_000_000)).unwrap();
    assert_eq!(taken, super::super::WRITE_BYTES);
    assert_eq!(ends.client.session.unsent(), 0);
}

#[test]
fn the_end_is_said_and_the_socket_ends_only_when_everything_is_out() {
    let pki = Pki::new();
    for version in VERSIONS {
        let mut ends = Ends::shaken(&pki, version);
        ends.client.socket.outgoing.borrow_mut().room = 1000;
        let text = text(10_000);
        assert_eq!(ends.client.write(&text).unwrap(), text.len() - 1);
        let once_more = ends.client.write(&text[9_999..]).unwrap_err();
        assert_eq!(once_more.kind(), ErrorKind::WouldBlock);
        ends.client.end();
        ends.client.end();
        assert!(!ends.client.socket.outgoing.borrow().is_ended);
        let mut read = Vec::new();
        while ends.client.flush().is_err() {
            read.extend(read_all(&mut ends.server));
        }
        assert!(ends.client.socket.outgoing.borrow().is_ended);
        read.extend(read_all(&mut ends.server));
        assert_eq!(read, text);
        assert_eq!(ends.server.read(&mut [0; 8]).unwrap(), 0);
        // The other direction goes on.
        assert_eq!(
            exchange(&mut ends.server, &mut ends.client, b"more"),
            b"more"
        );
        ends.server.end();
        assert_eq!(ends.client.read(&mut [0; 8]).unwrap(), 0);
    }
}

#[test]
fn an_end_that_came_with_the_last_bytes_is_known_after_them() {
    let pki = Pki::new();
    for version in VERSIONS {
        for len in [0, 1, 100, 30_000] {
            let mut ends = Ends::shaken(&pki, version);
            ends.client.write_all(&text(len)).unwrap();
            ends.client.end();
            let mut room = vec![0; 64 * 1024];
            if len > 0 {
                assert_eq!(ends.server.read(&mut room).unwrap(), len);
                assert!(
                    ends.server.session.holds_input(),
                    "no event will tell of it"
                );
            }
            assert_eq!(ends.server.read(&mut room).unwrap(), 0);
            assert!(!ends.server.session.holds_input());
            assert_eq!(ends.server.read(&mut room).unwrap(), 0, "it stays so");
        }
    }
}

/// A transcript of a whole connection, cut after each of its bytes: no cut passes for an end.
#[test]
fn a_connection_that_is_cut_at_any_byte_is_broken() {
    let pki = Pki::new();
    for version in VERSIONS {
        for cut in 0.. {
            match cut_after(&pki, version, cut) {
                Cut::InHandshake => {}
                Cut::Broken(read) => assert!(b"one\ntwo\n".starts_with(&read)),
                Cut::Ended(read) => {
                    assert_eq!(read, b"one\ntwo\n");
                    assert!(cut > 300, "{cut}");
                    break;
                }
            }
        }
    }
}

/// What the server makes of it if only so many bytes of the client arrive, and then the end.
fn cut_after(pki: &Pki, version: &'static SupportedProtocolVersion, cut: usize) -> Cut {
    let mut ends = Ends::new(pki, version);
    let held = wire().0.outgoing;
    ends.client.socket.outgoing = Rc::clone(&held);
    let arrived = Rc::clone(&ends.server.socket.incoming);
    let mut left = cut;
    let mut pass = || {
        let mut held = held.borrow_mut();
        let count = held.bytes.len().min(left);
        left -= count;
        let mut arrived = arrived.borrow_mut();
        arrived.bytes.extend(held.bytes.drain(..count));
        arrived.is_ended = left == 0;
    };
    loop {
        ends.client.shake().unwrap();
        pass();
        match ends.server.shake() {
            Ok(false) => {}
            Ok(true) => break,
            Err(HandshakeError::Closed | HandshakeError::ClosedOnHello) => return Cut::InHandshake,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(ends.client.shake().unwrap());
    ends.client.write_all(b"one\n").unwrap();
    ends.client.write_all(b"two\n").unwrap();
    ends.client.end();
    pass();
    let mut read = Vec::new();
    let mut room = [0; 64];
    loop {
        match ends.server.read(&mut room) {
            Ok(0) => return Cut::Ended(read),
            Ok(count) => read.extend_from_slice(&room[..count]),
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    ErrorKind::UnexpectedEof,
                    "{cut} {version:?}: {error}"
                );
                return Cut::Broken(read);
            }
        }
    }
}

#[test]
fn garbage_is_an_error_after_what_was_good() {
    let pki = Pki::new();
    for version in VERSIONS {
        let mut ends = Ends::shaken(&pki, version);
        ends.client.write_all(b"good").unwrap();
        let incoming = Rc::clone(&ends.server.socket.incoming);
        incoming.borrow_mut().bytes.extend([0x17, 3, 3, 0, 32]);
        incoming.borrow_mut().bytes.extend([0; 32]);
        let mut room = vec![0; 64 * 1024];
        assert_eq!(ends.server.read(&mut room).unwrap(), 4);
        assert!(ends.server.session.holds_input());
        let error = ends.server.read(&mut room).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let error = ends.client.read(&mut room).unwrap_err();
        assert!(error.to_string().contains("BadRecordMac"), "{error}");
    }
}

#[test]
fn new_keys_are_answered_though_nothing_is_written() {
    let pki = Pki::new();
    let mut ends = Ends::shaken(&pki, VERSIONS[1]);
    for round in 0..5 {
        let rustls::Connection::Client(session) = &mut ends.client.session.rustls else {
            unreachable!()
        };
        session.refresh_traffic_keys().unwrap();
        let line = format!("{round}");
        let sent = exchange(&mut ends.client, &mut ends.server, line.as_bytes());
        assert_eq!(sent, line.as_bytes());
        let back = exchange(&mut ends.server, &mut ends.client, line.as_bytes());
        assert_eq!(back, line.as_bytes());
    }
}

#[test]
fn a_socket_that_breaks_is_told() {
    let pki = Pki::new();
    let mut ends = Ends::shaken(&pki, VERSIONS[1]);
    let outgoing = Rc::clone(&ends.client.socket.outgoing);
    outgoing.borrow_mut().is_ended = true;
    let error = ends.server.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("close_notify"), "{error}");
}

#[test]
fn what_was_read_before_counts() {
    let pki = Pki::new();
    for split in [1, 50, 100_000] {
        let mut ends = Ends::new(&pki, VERSIONS[1]);
        assert!(!ends.client.shake().unwrap());
        let (_, far) = wire();
        let socket = std::mem::replace(&mut ends.server.socket, far);
        let mut early = vec![0; split];
        let mut socket = socket;
        let count = socket.read(&mut early).unwrap();
        early.truncate(count);
        ends.server = TlsStream::accept(socket, pki.server_config(), early);
        ends.shake();
        let Ends { client, server } = &mut ends;
        assert_eq!(exchange(client, server, b"x"), b"x");
    }
}

#[test]
fn nothing_stays_behind_a_short_read_wherever_a_record_was_cut() {
    let pki = Pki::new();
    let text = text(2 * 16 * 1024 + 1000);
    for cut in (15_500..18_000).step_by(100) {
        let Ends {
            mut client,
            mut server,
        } = Ends::shaken(&pki, VERSIONS[1]);
        let mut written = 0;
        while written < text.len() {
            written += client.write(&text[written..]).unwrap();
        }
        let incoming = Rc::clone(&server.socket.incoming);
        let mut later = incoming.borrow_mut().bytes.split_off(cut);
        let mut read = read_all(&mut server);
        incoming.borrow_mut().bytes.append(&mut later);
        read.extend(read_all(&mut server));
        assert!(read == text, "{} bytes after a cut at {cut}", read.len());
    }
}
