use std::rc::Rc;
use std::time::Duration;

use rcgen::{BasicConstraints, IsCa, date_time_ymd};

use super::pki::params;
use super::*;
use crate::transport::tls::handshake::Share;

/// Goes on until both sides have failed. Returns what each says.
fn refused(mut ends: Ends) -> (String, String) {
    let (mut client, mut server) = (None, None);
    for _ in 0..10 {
        client = client.or_else(|| ends.client.shake().err());
        server = server.or_else(|| ends.server.shake().err());
    }
    let client = if let Some(error) = client {
        assert!(error.is_refusal() && !error.is_of_other_protocol());
        error.words_for_client()
    } else {
        // With version 1.3 it is done before the server has judged its certificate.
        let error = ends.client.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        error.to_string()
    };
    (client, server.unwrap().words_for_server())
}

/// What `connect` says of a server with this certificate, and the proxy of that client.
fn judged(pki: &Pki, name: &str) -> (String, String) {
    let server = pki.load_server(name, name, None, None).unwrap();
    refused(Ends::with(server, pki.client_config(None)))
}

#[test]
fn a_certificate_that_is_not_good_is_refused_and_it_is_said_what_is_wrong() {
    let pki = Pki::new();
    pki.issue("other", &params("", &["a.example", "b.example"]));
    let (client, _) = judged(&pki, "other");
    assert_eq!(
        client,
        "its certificate is not for localhost but for a.example, b.example (--tls-name says whom to expect)"
    );
    let mut old = params("", &["localhost"]);
    old.not_before = date_time_ymd(2020, 1, 1);
    old.not_after = date_time_ymd(2021, 1, 1);
    pki.issue("old", &old);
    let (client, _) = judged(&pki, "old");
    assert!(client.starts_with("its certificate expired ") && client.ends_with(" days ago"));
    let mut new = params("", &["localhost"]);
    new.not_before = date_time_ymd(2090, 1, 1);
    pki.issue("new", &new);
    assert!(judged(&pki, "new").0.contains("not valid yet"));
    pki.self_sign("stranger", &params("", &["localhost"]));
    let (client, server) = judged(&pki, "stranger");
    assert!(client.contains("--tls-ca"), "{client}");
    assert_eq!(server, "it does not trust the authority of our certificate");
}

#[test]
fn an_authority_in_the_place_of_a_server_gets_the_way_out() {
    let pki = Pki::new();
    let mut both = params("localhost", &["localhost"]);
    both.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    pki.self_sign("both", &both);
    std::fs::copy(pki.path("both.pem"), pki.path("ca.pem")).unwrap();
    let (client, _) = judged(&pki, "both");
    let hint = "add -addext basicConstraints=critical,CA:FALSE";
    assert!(client.contains(hint), "{client}");
}

/// What both sides say of a client with this certificate.
fn judged_client(pki: &Pki, name: Option<&str>) -> (String, String) {
    let server = pki.load_server("server", "server", Some("ca.pem"), Some("crl.pem"));
    refused(Ends::with(server.unwrap(), pki.client_config(name)))
}

#[test]
fn clients_need_a_certificate_that_is_not_revoked() {
    let pki = Pki::new();
    pki.revoke(&[7]);
    let with_serial = |number: u64| {
        let mut params = params("client", &[]);
        params.serial_number = Some(number.into());
        params
    };
    let good = pki.issue("good", &with_serial(6));
    pki.issue("revoked", &with_serial(7));
    pki.self_sign("stranger", &with_serial(8));
    let (client, server) = judged_client(&pki, None);
    assert!(client.contains("--tls-cert FILE"), "{client}");
    assert_eq!(server, "it has no certificate");
    let (client, server) = judged_client(&pki, Some("revoked"));
    assert!(client.contains("revoked"), "{client}");
    assert_eq!(server, "its certificate is revoked");
    let (_, server) = judged_client(&pki, Some("stranger"));
    assert_eq!(
        server,
        "its certificate is not of the authority in --tls-client-ca"
    );
    let server = pki.load_server("server", "server", Some("ca.pem"), Some("crl.pem"));
    let mut ends = Ends::with(server.unwrap(), pki.client_config(Some("good")));
    ends.shake();
    assert_eq!(ends.server.session.certificates(), Some([good].as_slice()));
}

#[test]
fn a_session_is_resumed_with_a_ticket_but_not_after_the_files_were_read_again() {
    let pki = Pki::new();
    for version in VERSIONS {
        let client = client_config(&pki, version);
        let mut server = pki.server_config();
        let kind = |server: &Arc<rustls::ServerConfig>| {
            let mut ends = Ends::with(Arc::clone(server), Arc::clone(&client));
            ends.shake();
            exchange(&mut ends.server, &mut ends.client, b"x");
            ends.client.session.rustls.handshake_kind().unwrap()
        };
        assert_eq!(kind(&server), rustls::HandshakeKind::Full);
        assert_eq!(kind(&server), rustls::HandshakeKind::Resumed);
        server = pki.server_config();
        assert_eq!(kind(&server), rustls::HandshakeKind::Full);
    }
}

#[test]
fn what_is_not_tls_is_known_by_its_first_byte() {
    let pki = Pki::new();
    for text in [
        "{",
        "\n",
        "GET / HTTP/1.1\r\n\r\n",
        "SSH-2.0-x\r\n",
        "\x15\x03",
    ] {
        let mut ends = Ends::new(&pki, VERSIONS[1]);
        let incoming = &ends.server.socket.incoming;
        incoming.borrow_mut().bytes.extend(text.as_bytes());
        let error = ends.server.shake().unwrap_err();
        let first = text.as_bytes()[0];
        assert!(matches!(error, HandshakeError::NotTls(byte) if byte == first));
        assert!(ends.server.socket.outgoing.borrow().bytes.is_empty());
        if first != 0x15 {
            let incoming = &ends.client.socket.incoming;
            incoming.borrow_mut().bytes.extend(text.as_bytes());
            let error = ends.client.shake().unwrap_err();
            assert!(matches!(error, HandshakeError::NotTls(byte) if byte == first));
        }
    }
}

#[test]
fn a_hello_that_does_not_end_is_not_read_on() {
    let pki = Pki::new();
    let mut ends = Ends::new(&pki, VERSIONS[1]);
    let incoming = Rc::clone(&ends.server.socket.incoming);
    // A ClientHello of 60,000 bytes, in records of 4,000.
    let mut message = vec![1, 0, 0xea, 0x60];
    message.resize(60_004, 0);
    for piece in message.chunks(4000) {
        let len = (piece.len() as u16).to_be_bytes();
        incoming.borrow_mut().bytes.extend([0x16, 3, 1]);
        incoming.borrow_mut().bytes.extend(len);
        incoming.borrow_mut().bytes.extend(piece);
    }
    let error = ends.server.shake().unwrap_err();
    assert!(matches!(error, HandshakeError::HelloTooLong), "{error}");
    assert!(incoming.borrow().bytes.len() > 39_000);
}

#[test]
fn a_side_that_leaves_during_the_handshake_is_gone() {
    let pki = Pki::new();
    let mut ends = Ends::new(&pki, VERSIONS[1]);
    ends.server.socket.incoming.borrow_mut().is_ended = true;
    let error = ends.server.shake().unwrap_err();
    assert!(matches!(error, HandshakeError::ClosedOnHello));
    let mut ends = Ends::new(&pki, VERSIONS[1]);
    ends.client.socket.incoming.borrow_mut().is_ended = true;
    let error = ends.client.shake().unwrap_err();
    assert!(matches!(error, HandshakeError::ClosedOnHello));
}

#[test]
fn a_turn_has_room_for_one_step_at_least_and_for_a_millisecond() {
    let mut share = Share::default();
    assert!(share.is_left());
    share.use_up(Duration::from_micros(999));
    assert!(share.is_left());
    share.use_up(Duration::from_micros(1));
    assert!(!share.is_left());
    let mut share = Share::default();
    share.use_up(Duration::from_secs(1));
    assert!(!share.is_left());
}
