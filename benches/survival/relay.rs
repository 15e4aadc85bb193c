//! A relay between `connect` and the proxy, for connections that are to be lost.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Passes on what it gets, until it is told to cut.
pub(crate) struct Relay {
    address: SocketAddr,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    pub(crate) fn start(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let open = Arc::new(Mutex::new(Vec::new()));
        let streams = Arc::clone(&open);
        thread::spawn(move || {
            for client in listener.incoming() {
                // A connection that can't be made is closed, and the client will try again.
                let _ = client.and_then(|client| pass_on(client, to, &streams));
            }
        });
        Ok(Self { address, open })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections, for both ends.
    pub(crate) fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            // Fails if the other end has gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass_on(client: TcpStream, to: SocketAddr, open: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        open.lock().unwrap().push(stream.try_clone()?);
    }
    for (mut from, mut into) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        // Ends with the connection.
        thread::spawn(move || io::copy(&mut from, &mut into));
    }
    Ok(())
}
