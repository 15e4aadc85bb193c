//! A blocking client of the proxy: lines over TCP, and the little of MCP that tests need.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use serde_json::{Value, json};

use super::DEADLINE;
use super::read_more::read_more;

/// The protocol version that [`Client::initialize`] asks for: the handshake that all servers of today know.
pub(crate) const LEGACY_VERSION: &str = "2025-06-18";

/// The first protocol version without a handshake.
pub(crate) const MODERN_VERSION: &str = "2026-07-28";

/// What a client is told half a second after its server was started again.
pub(crate) const RESTART_NOTICE: &str = "$/mcp/serverRestarted";

/// Why there is no line.
#[derive(PartialEq, Eq)]
pub(crate) enum NoLine {
    /// The proxy ended the connection in good order; `unfinished` is what came after the last newline.
    End { unfinished: Vec<u8> },
    /// The proxy reset the connection.
    Reset,
    /// The deadline passed.
    Deadline,
}

/// What came of a line may be long.
impl fmt::Debug for NoLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End { unfinished } if unfinished.is_empty() => f.write_str("the end"),
            Self::End { unfinished } => {
                let begin = String::from_utf8_lossy(&unfinished[..unfinished.len().min(200)]);
                let count = unfinished.len();
                write!(f, "the end after {count} bytes of a line: {begin}")
            }
            Self::Reset => f.write_str("a reset"),
            Self::Deadline => f.write_str("nothing"),
        }
    }
}

/// A connection from this address.
pub(crate) fn stream_from(own: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let stream = SockType::Stream;
    let family = AddressFamily::Inet;
    let socket = socket::socket(family, stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let own = SocketAddr::from((own, 0));
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(own)).unwrap();
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
    TcpStream::from(socket)
}

/// One connection to the proxy.
pub(crate) struct Client {
    stream: TcpStream,
    /// What was received; the part before `taken` has been returned already.
    buffer: Vec<u8>,
    taken: usize,
    /// Up to here there is no newline after `taken`.
    searched: usize,
    next_id: u64,
    /// What [`request`](Self::request) passed over while it waited: notifications, requests of the server, heartbeats.
    pub(crate) aside: Vec<Value>,
}

impl Client {
    pub(crate) fn connect(address: impl ToSocketAddrs) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// Connects with a receive buffer of that many bytes (the kernel doubles it), so that little can be under way.
    pub(crate) fn connect_with_receive_buffer(address: SocketAddr, bytes: usize) -> Self {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let socket =
            socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        // The window is agreed upon with the connection: it has to be small before.
        socket::setsockopt(&socket, sockopt::RcvBuf, &bytes).unwrap();
        socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        Self::over(TcpStream::from(socket))
    }

    /// Connects from this address.
    pub(crate) fn connect_from(own: Ipv4Addr, address: SocketAddr) -> Self {
        Self::over(stream_from(own, address))
    }

    /// Connects to a unix socket.
    pub(crate) fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        // What is done with it here can be done with any stream.
        Self::over_stream(OwnedFd::from(stream).into())
    }

    /// A client over a connection that is there.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::over_stream(stream)
    }

    fn over_stream(stream: TcpStream) -> Self {
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
            taken: 0,
            searched: 0,
            next_id: 1,
            aside: Vec::new(),
        }
    }

    /// The address that the proxy knows it by.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    // Sending.

    /// Sends the bytes as they are.
    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends one line; `line` is without its newline.
    #[track_caller]
    pub(crate) fn send_line(&mut self, line: &str) {
        self.send_raw(format!("{line}\n").as_bytes());
    }

    #[track_caller]
    pub(crate) fn send_json(&mut self, message: &Value) {
        self.send_line(&message.to_string());
    }

    #[track_caller]
    pub(crate) fn notify(&mut self, method: &str, params: &Value) {
        self.send_json(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Sends a request and returns its id; the answer is left to be read.
    #[track_caller]
    pub(crate) fn send_request(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send_json(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// A second handle to write with, for a thread that sends while this one reads.
    pub(crate) fn writer(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    // Receiving.

    /// The next line, without its newline.
    pub(crate) fn try_recv(&mut self, deadline: Duration) -> Result<Vec<u8>, NoLine> {
        let start = Instant::now();
        loop {
            if let Some(line) = self.buffered_line() {
                return Ok(line);
            }
            let left = deadline.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(NoLine::Deadline);
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            match read_more(&self.stream, &mut self.buffer) {
                Ok(0) => {
                    return Err(NoLine::End {
                        unfinished: self.buffer[self.taken..].to_vec(),
                    });
                }
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                        return Err(NoLine::Reset);
                    }
                    _ => panic!("cannot read from the proxy: {error}"),
                },
            }
        }
    }

    /// The next line, which has to come.
    #[track_caller]
    pub(crate) fn recv_line(&mut self) -> String {
        self.recv_line_within(DEADLINE)
    }

    #[track_caller]
    pub(crate) fn recv_line_within(&mut self, deadline: Duration) -> String {
        match self.try_recv(deadline) {
            Ok(line) => String::from_utf8(line).unwrap(),
            Err(reason) => panic!("expected a line from the proxy, got: {reason:?}"),
        }
    }

    /// The next line as JSON, which it has to be.
    #[track_caller]
    pub(crate) fn recv_json(&mut self) -> Value {
        self.recv_json_within(DEADLINE)
    }

    #[track_caller]
    pub(crate) fn recv_json_within(&mut self, deadline: Duration) -> Value {
        let line = self.recv_line_within(deadline);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line:?}"))
    }

    /// The next message but the notice of a restart, which is put aside: that comes half a second after a start,
    /// whether the machine has got round to anything else by then or not.
    #[track_caller]
    pub(crate) fn recv_but_notice(&mut self) -> Value {
        loop {
            let message = self.recv_json();
            if message["method"] != RESTART_NOTICE {
                return message;
            }
            self.aside.push(message);
        }
    }

    /// What was put aside, without notices of restarts.
    pub(crate) fn aside_but_notices(&self) -> Vec<&Value> {
        let is_other = |message: &&Value| message["method"] != RESTART_NOTICE;
        self.aside.iter().filter(is_other).collect()
    }

    /// Waits until the proxy has read all that was sent. Not for a client that the proxy has stopped reading.
    #[track_caller]
    pub(crate) fn wait_until_read(&mut self) {
        // The proxy itself answers to this, and at once.
        self.send_line("no JSON");
        loop {
            let message = self.recv_json();
            if message["error"]["data"]["reason"] == "parse_error" {
                return;
            }
            self.aside.push(message);
        }
    }

    /// Reads until the answer to that id, and puts aside what comes before it.
    #[track_caller]
    pub(crate) fn answer_to(&mut self, id: u64) -> Value {
        self.answer_to_within(id, DEADLINE)
    }

    #[track_caller]
    pub(crate) fn answer_to_within(&mut self, id: u64, deadline: Duration) -> Value {
        let start = Instant::now();
        loop {
            let message = self.recv_json_within(deadline.saturating_sub(start.elapsed()));
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
            self.aside.push(message);
        }
    }

    /// Sends a request and returns the whole answer, an error too.
    #[track_caller]
    pub(crate) fn request(&mut self, method: &str, params: &Value) -> Value {
        self.request_within(method, params, DEADLINE)
    }

    #[track_caller]
    pub(crate) fn request_within(
        &mut self,
        method: &str,
        params: &Value,
        deadline: Duration,
    ) -> Value {
        let id = self.send_request(method, params);
        self.answer_to_within(id, deadline)
    }

    /// Returns the next message with that `method`, one that was put aside before if there is one.
    #[track_caller]
    pub(crate) fn message_of(&mut self, method: &str) -> Value {
        if let Some(at) = self
            .aside
            .iter()
            .position(|message| message["method"] == method)
        {
            return self.aside.remove(at);
        }
        let start = Instant::now();
        loop {
            let message = self.recv_json_within(DEADLINE.saturating_sub(start.elapsed()));
            if message["method"] == method {
                return message;
            }
            self.aside.push(message);
        }
    }

    /// Everything up to the proxy's end of the connection; a reset or the deadline is a failure.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.try_recv(DEADLINE) {
                Ok(line) => lines.push(String::from_utf8(line).unwrap()),
                Err(NoLine::End { unfinished }) if unfinished.is_empty() => return lines,
                Err(reason) => panic!(
                    "expected the end after {} lines, got: {reason:?}",
                    lines.len()
                ),
            }
        }
    }

    /// Has a server of [`scripted`](super::servers::scripted) run these commands; returns the id of the request.
    #[track_caller]
    pub(crate) fn send_code(&mut self, code: &str) -> u64 {
        self.send_request("sh", &json!({"code": code}))
    }

    /// The process id that such a server answers with.
    #[track_caller]
    pub(crate) fn pid_of_server(&mut self) -> i32 {
        let result = result_of(self.request("pid", &json!({})));
        result["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// The next line has to be an error of the proxy's own, with that code and reason; returns its id and its `data`.
    #[track_caller]
    pub(crate) fn recv_error(&mut self, code: i32, reason: &str) -> (Value, Value) {
        parts_of_error(self.recv_json(), code, reason)
    }

    /// The same of the next line but the notice of a restart.
    #[track_caller]
    pub(crate) fn recv_error_but_notice(&mut self, code: i32, reason: &str) -> (Value, Value) {
        parts_of_error(self.recv_but_notice(), code, reason)
    }

    // MCP.

    /// The legacy handshake: `initialize` and `notifications/initialized`. Returns the server's result.
    #[track_caller]
    pub(crate) fn initialize(&mut self) -> Value {
        self.initialize_with(&json!({}), DEADLINE)
    }

    /// The legacy handshake with these capabilities of the client's.
    #[track_caller]
    pub(crate) fn initialize_with(&mut self, capabilities: &Value, deadline: Duration) -> Value {
        let client = json!({"name": "mcp-tcp-proxy-tests", "version": "1"});
        let params = json!({"protocolVersion": LEGACY_VERSION, "capabilities": capabilities, "clientInfo": client});
        let answer = self.request_within("initialize", &params, deadline);
        self.send_json(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        result_of(answer)
    }

    /// Calls a tool and returns its result, which may say `isError`.
    #[track_caller]
    pub(crate) fn call_tool(&mut self, name: &str, arguments: &Value) -> Value {
        result_of(self.request("tools/call", &json!({"name": name, "arguments": arguments})))
    }

    // Going away.

    /// Ends the sending side; answers can still be read.
    pub(crate) fn shutdown_write(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset instead of an orderly end.
    pub(crate) fn reset(self) {
        let at_once = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        socket::setsockopt(&self.stream, sockopt::Linger, &at_once).unwrap();
    }

    /// Closes in the usual way.
    pub(crate) fn close(self) {
        drop(self);
    }

    fn buffered_line(&mut self) -> Option<Vec<u8>> {
        if let Some(offset) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            let end = self.searched + offset;
            let line = self.buffer[self.taken..end].to_vec();
            self.taken = end + 1;
            self.searched = self.taken;
            return Some(line);
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.searched = self.buffer.len();
        None
    }
}

/// The result in an answer that has to be one.
#[track_caller]
pub(crate) fn result_of(mut answer: Value) -> Value {
    assert!(
        answer.get("result").is_some(),
        "expected a result, got: {answer}"
    );
    answer["result"].take()
}

/// Fails if this is not an error of the proxy's own, with that code and reason.
#[track_caller]
pub(crate) fn assert_own_error(answer: &Value, code: i32, reason: &str) {
    let error = &answer["error"];
    let actual = (
        &error["data"]["source"],
        &error["code"],
        &error["data"]["reason"],
    );
    let expected = (&json!("mcp-tcp-proxy"), &json!(code), &json!(reason));
    assert_eq!(actual, expected, "{answer}");
}

#[track_caller]
fn parts_of_error(mut answer: Value, code: i32, reason: &str) -> (Value, Value) {
    assert_own_error(&answer, code, reason);
    (answer["id"].take(), answer["error"]["data"].take())
}

/// What a modern request carries in its `params._meta`.
pub(crate) fn modern_meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
        "io.modelcontextprotocol/clientInfo": {"name": "mcp-tcp-proxy-tests", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}
