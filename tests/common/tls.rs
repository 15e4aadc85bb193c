//! A blocking client of the proxy over TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};
use serde_json::{Value, json};

use super::DEADLINE;
use super::client::LEGACY_VERSION;

/// Both versions that are spoken.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS12, &rustls::version::TLS13];

/// One connection to the proxy.
pub(crate) struct TlsClient {
    session: ClientConnection,
    stream: TcpStream,
    received: Vec<u8>,
    next_id: u64,
}

impl TlsClient {
    /// Connects and shakes hands.
    pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self::try_connect(address, config).unwrap()
    }

    pub(crate) fn try_connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        Self::over(TcpStream::connect(address)?, config)
    }

    /// Shakes hands over a connection that is there.
    pub(crate) fn over(stream: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let mut client = Self::begin(stream, config)?;
        client.shake()?;
        Ok(client)
    }

    /// Sends the hello over a connection that is there.
    pub(crate) fn begin(stream: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut client = Self {
            session,
            stream,
            received: Vec::new(),
            next_id: 1,
        };
        client.session.write_tls(&mut client.stream)?;
        Ok(client)
    }

    /// Goes on after the hello.
    pub(crate) fn shake(&mut self) -> io::Result<()> {
        while self.session.is_handshaking() {
            self.session.complete_io(&mut self.stream)?;
        }
        Ok(())
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub(crate) fn version(&self) -> rustls::ProtocolVersion {
        self.session.protocol_version().unwrap()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(16 * 1024) {
            self.session.writer().write_all(piece).unwrap();
            while self.session.wants_write() {
                self.session.write_tls(&mut self.stream).unwrap();
            }
        }
    }

    #[track_caller]
    pub(crate) fn send_line(&mut self, line: &str) {
        self.send_raw(format!("{line}\n").as_bytes());
    }

    /// Sends a request and returns its id.
    #[track_caller]
    pub(crate) fn send_request(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send_line(&line.to_string());
        id
    }

    #[track_caller]
    pub(crate) fn request(&mut self, method: &str, params: &Value) -> Value {
        let id = self.send_request(method, params);
        loop {
            let message = self.recv_json();
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
        }
    }

    /// The legacy handshake.
    #[track_caller]
    pub(crate) fn initialize(&mut self) {
        let client = json!({"name": "mcp-tcp-proxy-tests", "version": "1"});
        let params =
            json!({"protocolVersion": LEGACY_VERSION, "capabilities": {}, "clientInfo": client});
        assert!(self.request("initialize", &params)["result"].is_object());
        self.send_line(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    }

    /// The next line, `None` at the end that was said, or why there is none.
    pub(crate) fn try_recv(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            let mut room = vec![0; 64 * 1024];
            match self.session.reader().read(&mut room) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.session.read_tls(&mut self.stream)?;
                    self.session
                        .process_new_packets()
                        .map_err(io::Error::other)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    #[track_caller]
    pub(crate) fn recv_line(&mut self) -> String {
        self.try_recv().unwrap().unwrap()
    }

    #[track_caller]
    pub(crate) fn recv_json(&mut self) -> Value {
        serde_json::from_str(&self.recv_line()).unwrap()
    }

    /// The lines up to the end, which has to be said.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.try_recv().unwrap() {
            lines.push(line);
        }
        lines
    }

    /// Says that nothing more comes. The connection itself stays as it is.
    pub(crate) fn end(&mut self) {
        self.session.send_close_notify();
        self.session.write_tls(&mut self.stream).unwrap();
    }

    /// Ends the connection without a word of TLS.
    pub(crate) fn cut(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}
