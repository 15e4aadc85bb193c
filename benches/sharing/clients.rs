//! Modern clients of one proxy, each with a connection of its own.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Interpreters by the hundred take their time to start.
const PATIENCE: Duration = Duration::from_mins(3);

/// How many are opened before the first response is waited for.
const AT_A_TIME: usize = 64;

/// A line of what is read fits in this; 10,000 of them are not to need much.
const BUFFER_BYTES: usize = 1024;

pub(crate) struct Client {
    reader: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            reader: BufReader::with_capacity(BUFFER_BYTES, socket),
            line: Vec::new(),
        })
    }

    pub(crate) fn ask(&mut self, requests: usize) -> io::Result<()> {
        let lines: String = (0..requests).map(request).collect();
        self.reader.get_mut().write_all(lines.as_bytes())
    }

    /// Waits for this many responses.
    pub(crate) fn hear(&mut self, responses: usize) -> io::Result<()> {
        (0..responses).try_for_each(|_| self.hear_line().map(|_| ()))
    }

    /// The next response.
    pub(crate) fn hear_line(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        self.reader.read_until(b'\n', &mut self.line)?;
        if self.line.windows(9).any(|part| part == b"\"result\":") {
            return Ok(&self.line);
        }
        let line = String::from_utf8_lossy(&self.line);
        Err(io::Error::other(format!("no response: {line}")))
    }
}

pub(crate) fn request(id: usize) -> String {
    padded_request(id, 0)
}

/// A request of so many bytes, if that is more than it needs.
pub(crate) fn padded_request(id: usize, bytes: usize) -> String {
    let head = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/list\",\"params\":{{\"_meta\":{{\
         \"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
         \"io.modelcontextprotocol/clientInfo\":{{\"name\":\"bench\",\"version\":\"1\"}},\
         \"io.modelcontextprotocol/clientCapabilities\":{{}}}}"
    );
    let (begin, end) = (",\"padding\":\"", "\"}}\n");
    match bytes.checked_sub(head.len() + begin.len() + end.len()) {
        None => head + "}}\n",
        Some(padding) => head + begin + &"x".repeat(padding) + end,
    }
}

/// Connects this many, each of which gets one response.
pub(crate) fn open(address: SocketAddr, count: usize) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let from = clients.len();
        for _ in 0..AT_A_TIME.min(count - from) {
            let mut client = Client::connect(address)?;
            client.ask(1)?;
            clients.push(client);
        }
        clients[from..]
            .iter_mut()
            .try_for_each(|client| client.hear(1))?;
    }
    Ok(clients)
}

/// The round trips of one client after the other, in µs.
pub(crate) fn round_trips(client: &mut Client, count: usize) -> io::Result<Vec<f64>> {
    let one = |_| {
        let began = Instant::now();
        client.ask(1)?;
        client.hear(1)?;
        Ok(began.elapsed().as_secs_f64() * 1e6)
    };
    (0..count).map(one).collect()
}
