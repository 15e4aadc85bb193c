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

pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::with_capacity(BUFFER_BYTES, socket)))
    }

    fn ask(&mut self, requests: usize) -> io::Result<()> {
        let lines: String = (0..requests).map(request).collect();
        self.0.get_mut().write_all(lines.as_bytes())
    }

    /// Waits for this many responses.
    fn hear(&mut self, responses: usize) -> io::Result<()> {
        let mut line = Vec::new();
        for _ in 0..responses {
            line.clear();
            self.0.read_until(b'\n', &mut line)?;
            if !line.windows(9).any(|part| part == b"\"result\":") {
                let line = String::from_utf8_lossy(&line);
                return Err(io::Error::other(format!("no response: {line}")));
            }
        }
        Ok(())
    }
}

fn request(id: usize) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/list\",\"params\":{{\"_meta\":{{\
         \"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
         \"io.modelcontextprotocol/clientInfo\":{{\"name\":\"bench\",\"version\":\"1\"}},\
         \"io.modelcontextprotocol/clientCapabilities\":{{}}}}}}}}\n"
    )
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

/// Responses per second while each has this many requests in flight, over some rounds.
pub(crate) fn throughput(
    clients: &mut [Client],
    in_flight: usize,
    rounds: usize,
) -> io::Result<f64> {
    let began = Instant::now();
    for _ in 0..rounds {
        clients
            .iter_mut()
            .try_for_each(|client| client.ask(in_flight))?;
        clients
            .iter_mut()
            .try_for_each(|client| client.hear(in_flight))?;
    }
    let responses = clients.len() * in_flight * rounds;
    Ok(responses as f64 / began.elapsed().as_secs_f64())
}
