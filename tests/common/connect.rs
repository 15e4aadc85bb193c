//! The stdio side under test, as a host application has it: a child with pipes. And a server of the test's own for it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt,
};
use serde_json::{Value, json};

use super::client::{Client, LEGACY_VERSION};
use super::proxy::Log;
use super::read_more::read_more;
use super::{DEADLINE, eventually_some, processes};

/// A pipe that polls as writable takes so much without blocking (limits.h).
const PIPE_BUF: usize = 4096;

/// What the stdio side says first on each connection, unless its session is to be kept when the connection is lost.
pub(crate) const HANDSHAKE: &str = concat!(
    r#"{"type":"handshake","client_version":""#,
    env!("CARGO_PKG_VERSION"),
    r#"","supports_heartbeat":true,"replay":"eager"}"#
);

/// What the stdio side says last, unless it is not to be taken back.
pub(crate) const BYE: &str = r#"{"type":"heartbeat","bye":true}"#;

/// The line has to be what the stdio side says first.
#[track_caller]
pub(crate) fn assert_handshake(line: &str) {
    let mut said: Value = serde_json::from_str(line).unwrap();
    if let Some(mut resume) = said.as_object_mut().unwrap().remove("resume") {
        resume.as_object_mut().unwrap().remove("previous");
        assert_eq!(resume["version"], 1, "{line}");
        assert_eq!(resume["session"].as_str().unwrap().len(), 32, "{line}");
        assert!(resume["heartbeat"].as_f64().unwrap() > 0.0, "{line}");
        assert_eq!(resume.as_object().unwrap().len(), 3, "{line}");
    }
    let expected: Value = serde_json::from_str(HANDSHAKE).unwrap();
    assert_eq!(said, expected);
}

/// A server of the test's own, a `connect` to it with these options, and the connection between the two, greeted.
pub(crate) fn connected(options: &[&str]) -> (FakeServer, Connect, Client) {
    let server = FakeServer::start();
    let connect = Connect::start(options, server.address());
    let peer = server.greeted();
    (server, connect, peer)
}

/// Options with which nothing takes longer than it must.
pub(crate) const IN_HASTE: [&str; 2] = ["--reconnect-delay", "0.05"];

/// A running `connect`; it is killed when this is dropped, and its log printed if the test failed.
pub(crate) struct Connect {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<Output<ChildStdout>>,
    log: Arc<Log>,
}

impl Connect {
    /// Starts `connect` with these options to that address, with pipes.
    pub(crate) fn start(options: &[&str], address: SocketAddr) -> Self {
        Self::start_configured(options, address, |_| {})
    }

    /// Like [`start`](Self::start), with the address as a user writes it.
    pub(crate) fn start_to(options: &[&str], address: &str) -> Self {
        Self::spawn(command(options, address).stderr(Stdio::piped()))
    }

    /// Like [`start`](Self::start); `configure` has the last word, on stdin and stdout too.
    pub(crate) fn start_configured(
        options: &[&str],
        address: SocketAddr,
        configure: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = command(options, &address.to_string());
        configure(&mut command);
        Self::spawn(command.stderr(Stdio::piped()))
    }

    /// Like [`start`](Self::start), with a stderr of the test's own. Nothing can be known of the log then.
    pub(crate) fn start_with_stderr(options: &[&str], address: SocketAddr, stderr: Stdio) -> Self {
        let mut command = command(options, &address.to_string());
        Self::spawn(command.stderr(stderr))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Log::default());
        match child.stderr.take() {
            Some(stderr) => Log::collect(&log, stderr),
            None => log.end(),
        }
        Self {
            input: child.stdin.take(),
            output: child.stdout.take().map(Output::new),
            child,
            log,
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        processes::send_signal(self.pid(), signal);
    }

    // Its stdin.

    /// Writes the bytes to its stdin as they are.
    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        write_all(self.input.as_mut().unwrap(), bytes);
    }

    #[track_caller]
    pub(crate) fn send_line(&mut self, line: &str) {
        self.send_raw(format!("{line}\n").as_bytes());
    }

    #[track_caller]
    pub(crate) fn send_request(&mut self, id: u64, method: &str, params: &Value) {
        self.send_line(&request(id, method, params));
    }

    /// Its stdin, for a thread that writes while this one reads.
    pub(crate) fn take_input(&mut self) -> ChildStdin {
        self.input.take().unwrap()
    }

    /// Ends its stdin.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    // Its stdout.

    /// The next line, without its newline; `None` at the end.
    #[track_caller]
    pub(crate) fn next_line(&mut self) -> Option<String> {
        self.next_line_within(DEADLINE)
    }

    #[track_caller]
    fn next_line_within(&mut self, deadline: Duration) -> Option<String> {
        self.output.as_mut().unwrap().next_line(deadline)
    }

    /// The next line, which has to come.
    #[track_caller]
    pub(crate) fn recv_line(&mut self) -> String {
        self.recv_line_within(DEADLINE)
    }

    #[track_caller]
    pub(crate) fn recv_line_within(&mut self, deadline: Duration) -> String {
        self.next_line_within(deadline)
            .unwrap_or_else(|| panic!("expected a line, got the end of stdout"))
    }

    #[track_caller]
    pub(crate) fn recv_json(&mut self) -> Value {
        self.recv_json_within(DEADLINE)
    }

    #[track_caller]
    pub(crate) fn recv_json_within(&mut self, deadline: Duration) -> Value {
        let line = self.recv_line_within(deadline);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line:?}"))
    }

    /// Sends a request and returns what comes next, which has to be its answer.
    #[track_caller]
    pub(crate) fn request(&mut self, id: u64, method: &str, params: &Value) -> Value {
        self.send_request(id, method, params);
        let answer = self.recv_json();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    /// The next line has to be an error of the program's own, with that code and reason; returns its id and `data`.
    #[track_caller]
    pub(crate) fn recv_error(&mut self, code: i32, reason: &str) -> (Value, Value) {
        let mut answer = self.recv_json();
        super::client::assert_own_error(&answer, code, reason);
        (answer["id"].take(), answer["error"]["data"].take())
    }

    /// The handshake of legacy MCP, with request id 0; returns the server's answer.
    #[track_caller]
    pub(crate) fn initialize(&mut self) -> Value {
        self.initialize_within(DEADLINE)
    }

    #[track_caller]
    pub(crate) fn initialize_within(&mut self, deadline: Duration) -> Value {
        self.send_line(&initialize_line(0));
        let answer = self.recv_json_within(deadline);
        assert_eq!(answer["id"], 0, "{answer}");
        self.send_line(INITIALIZED);
        answer
    }

    /// Everything up to the end of its stdout.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next_line()).collect()
    }

    /// All bytes up to the end of its stdout, whatever they are.
    pub(crate) fn rest_of_output(&mut self) -> Vec<u8> {
        let mut output = self.output.take().unwrap();
        output.from.read_to_end(&mut output.buffer).unwrap();
        output.buffer
    }

    /// Whether something can be read from its stdout now.
    pub(crate) fn has_output(&self) -> bool {
        let output = self.output.as_ref().unwrap();
        is_ready(output.from.as_fd(), PollFlags::POLLIN, Duration::ZERO)
    }

    /// Closes our end of its stdout.
    pub(crate) fn close_output(&mut self) {
        self.output = None;
    }

    // Its end, and what it says on stderr.

    /// Waits for its end; it has to exit with that code. Returns all that it said on stderr.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self, code: i32) -> Vec<String> {
        let status = self.wait_status();
        let log = self.log.to_end(DEADLINE);
        assert_eq!(status.code(), Some(code), "{status}: {log:?}");
        log
    }

    #[track_caller]
    fn wait_status(&mut self) -> ExitStatus {
        eventually_some("the end of connect", DEADLINE, || {
            self.child.try_wait().unwrap()
        })
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Fails if it has ended.
    #[track_caller]
    pub(crate) fn assert_runs(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None);
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_logs(text, 1).remove(0)
    }

    #[track_caller]
    pub(crate) fn wait_for_logs(&self, text: &str, count: usize) -> Vec<String> {
        self.log.wait_for(text, count, DEADLINE)
    }

    /// How many log lines contain `text` so far.
    pub(crate) fn count_logs(&self, text: &str) -> usize {
        let lines = self.log.lines();
        lines.iter().filter(|line| line.contains(text)).count()
    }
}

/// Has a shell run `script`, in which `"$@"` is what `command` was, and `$0` is `word`. Stdin and stdout are pipes.
pub(crate) fn in_shell(script: &str, word: &str, command: &mut Command) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script, word]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::piped()).stdout(Stdio::piped());
    *command = shell;
}

fn command(options: &[&str], address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-tcp-proxy"));
    command
        .arg("connect")
        .args(options)
        .arg(address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

impl Drop for Connect {
    fn drop(&mut self) {
        // Both fail only when it has gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("connect's log:\n{}", self.log.tail());
        }
    }
}

/// `notifications/initialized` as a line.
pub(crate) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A request as a line, its id before its params.
pub(crate) fn request(id: u64, method: &str, params: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}

/// `initialize` as a line.
pub(crate) fn initialize_line(id: u64) -> String {
    let client = json!({"name": "mcp-tcp-proxy-tests", "version": "1"});
    let params =
        json!({"protocolVersion": LEGACY_VERSION, "capabilities": {}, "clientInfo": client});
    request(id, "initialize", &params)
}

/// Writes to a pipe that is to take it all, but waits no longer than to the deadline for any part of it.
#[track_caller]
pub(crate) fn write_all(mut pipe: impl Write + AsFd, bytes: &[u8]) {
    for chunk in bytes.chunks(PIPE_BUF) {
        assert!(
            is_ready(pipe.as_fd(), PollFlags::POLLOUT, DEADLINE),
            "nothing was taken for {DEADLINE:?}"
        );
        pipe.write_all(chunk).unwrap();
    }
}

/// Whether the descriptor becomes ready in that time.
pub(crate) fn is_ready(descriptor: BorrowedFd<'_>, what: PollFlags, deadline: Duration) -> bool {
    let mut polled = [PollFd::new(descriptor, what)];
    let timeout = PollTimeout::try_from(deadline).unwrap();
    poll(&mut polled, timeout).unwrap() > 0
}

/// Lines from something that is read without waiting longer than to a deadline.
pub(crate) struct Output<R> {
    from: R,
    buffer: Vec<u8>,
    /// Up to here there is no newline.
    searched: usize,
}

impl<R: Read + AsFd> Output<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            from,
            buffer: Vec::new(),
            searched: 0,
        }
    }

    /// The next line, without its newline; `None` at the end, which has to be the end of a line.
    #[track_caller]
    pub(crate) fn next_line(&mut self, deadline: Duration) -> Option<String> {
        let start = Instant::now();
        loop {
            if let Some(offset) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let rest = self.buffer.split_off(self.searched + offset + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.pop();
                return Some(String::from_utf8(line).unwrap());
            }
            self.searched = self.buffer.len();
            let left = deadline.saturating_sub(start.elapsed());
            assert!(
                is_ready(self.from.as_fd(), PollFlags::POLLIN, left),
                "no line within {deadline:?}"
            );
            // Linux says so of a terminal of which the other end is closed.
            let end_of_terminal = Some(nix::libc::EIO);
            let got = match read_more(&mut self.from, &mut self.buffer) {
                Err(error) if error.raw_os_error() == end_of_terminal => 0,
                got => got.unwrap(),
            };
            if got == 0 {
                let rest = String::from_utf8_lossy(&self.buffer);
                assert!(rest.is_empty(), "stdout ended inside a line: {rest:?}");
                return None;
            }
        }
    }
}

/// A server, or a whole proxy, that the test plays itself.
pub(crate) struct FakeServer(TcpListener);

impl FakeServer {
    pub(crate) fn start() -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Listens on that address, which may have been in use until now.
    pub(crate) fn on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next connection, which has to come.
    #[track_caller]
    pub(crate) fn accept(&self) -> Client {
        eventually_some("a connection", DEADLINE, || self.try_accept())
    }

    /// The next connection, if one is waiting.
    pub(crate) fn try_accept(&self) -> Option<Client> {
        match self.0.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                Some(Client::over(stream))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("cannot accept: {error}"),
        }
    }

    /// The next connection, on which the handshake has been read.
    #[track_caller]
    pub(crate) fn greeted(&self) -> Client {
        let mut peer = self.accept();
        assert_handshake(&peer.recv_line());
        peer
    }
}

/// Takes an `initialize` from that peer and answers it; returns the line.
#[track_caller]
pub(crate) fn answer_initialize(peer: &mut Client) -> Value {
    let wish = peer.recv_json();
    assert_eq!(wish["method"], "initialize", "{wish}");
    let result = json!({"protocolVersion": LEGACY_VERSION, "capabilities": {"tools": {}}, "serverInfo": {"name": "fake"}});
    peer.send_json(&json!({"jsonrpc": "2.0", "id": wish["id"], "result": result}));
    wish
}

/// A `heartbeat_response` as a line.
pub(crate) const HEARTBEAT_RESPONSE: &str =
    r#"{"type":"heartbeat_response","timestamp":1.5,"mcp_alive":true}"#;

fn socket_of(family: AddressFamily) -> OwnedFd {
    socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

/// An address that is kept from others, and on which nobody listens yet; a proxy can all the same.
pub(crate) struct Reserved(OwnedFd);

impl Reserved {
    pub(crate) fn new() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::bind(socket_of(AddressFamily::Inet), any_port)
    }

    /// A port on all addresses of IPv6 and of IPv4.
    pub(crate) fn on_all_addresses() -> Self {
        let socket = socket_of(AddressFamily::Inet6);
        socket::setsockopt(&socket, sockopt::Ipv6V6Only, &false).unwrap();
        Self::bind(socket, (Ipv6Addr::UNSPECIFIED, 0).into())
    }

    fn bind(socket: OwnedFd, address: SocketAddr) -> Self {
        socket::setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
        socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let address: SockaddrStorage = socket::getsockname(self.0.as_raw_fd()).unwrap();
        match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => SocketAddr::from((v4.ip(), v4.port())),
            (_, Some(v6)) => SocketAddr::from((v6.ip(), v6.port())),
            _ => panic!("{address}"),
        }
    }

    /// Begins to listen; the kernel lets in about `backlog` connections before they are accepted.
    pub(crate) fn listen(self, backlog: i32) -> FakeServer {
        socket::listen(&self.0, Backlog::new(backlog).unwrap()).unwrap();
        let listener = TcpListener::from(self.0);
        listener.set_nonblocking(true).unwrap();
        FakeServer(listener)
    }
}
