mod files;
mod handshake;
mod names;
mod pki;
mod stream;
mod wire;

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use self::pki::Pki;
use self::wire::{End, wire};
use super::TlsSession;
use super::files::provider;
use super::handshake::HandshakeError;

/// Both versions that are spoken.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// One end of a connection.
struct TlsStream {
    session: TlsSession,
    socket: End,
}

impl TlsStream {
    fn accept(socket: End, config: Arc<ServerConfig>, early: Vec<u8>) -> Self {
        Self {
            session: TlsSession::accept(config, early).unwrap(),
            socket,
        }
    }

    fn shake(&mut self) -> Result<bool, HandshakeError> {
        self.session.shake(&mut self.socket)
    }

    fn end(&mut self) {
        self.session.end(&mut self.socket);
    }
}

impl Read for TlsStream {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.session.read(&mut self.socket, room)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.session.write(&mut self.socket, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.session.flush(&mut self.socket)
    }
}

/// Both ends of a connection.
struct Ends {
    client: TlsStream,
    server: TlsStream,
}

impl Ends {
    /// Before the handshake. The client speaks only this version.
    fn new(pki: &Pki, version: &'static SupportedProtocolVersion) -> Self {
        Self::with(pki.server_config(), client_config(pki, version))
    }

    fn with(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Self {
        let (near, far) = wire();
        let name = ServerName::try_from("localhost").unwrap();
        Self {
            client: TlsStream {
                session: TlsSession::connect(client, name).unwrap(),
                socket: near,
            },
            server: TlsStream::accept(far, server, Vec::new()),
        }
    }

    /// After the handshake.
    fn shaken(pki: &Pki, version: &'static SupportedProtocolVersion) -> Self {
        let mut ends = Self::new(pki, version);
        ends.shake();
        ends
    }

    fn shake(&mut self) {
        let mut steps = 0;
        while !(self.client.shake().unwrap() & self.server.shake().unwrap()) {
            steps += 1;
            assert!(steps < 100_000, "the handshake does not end");
        }
        // The tickets.
        assert_eq!(read_all(&mut self.client), b"");
    }
}

fn client_config(pki: &Pki, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(pki.roots())
        .with_no_client_auth();
    Arc::new(config)
}

/// Everything that can be read now, as an `Io` would read it: a short read is the last one, unless more is known to be
/// there.
fn read_all(stream: &mut TlsStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut room = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut room) {
            Ok(0) => return all,
            Ok(count) => {
                all.extend_from_slice(&room[..count]);
                if count < room.len() && !stream.session.holds_input() {
                    return all;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Writes all of it, while the other side reads.
fn exchange(from: &mut TlsStream, to: &mut TlsStream, text: &[u8]) -> Vec<u8> {
    let mut written = 0;
    let mut read = Vec::new();
    while read.len() < text.len() {
        match from.write(&text[written..]) {
            Ok(count) => written += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let _ = from.flush();
        read.extend(read_all(to));
    }
    read
}
