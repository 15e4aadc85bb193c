//! Clients that read slowly get everything that was said, however long that takes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Client, Proxy};

const RECEIVE_BUFFER: usize = 8 * 1024;

/// What the client reads at once, and how often: several times what a proxy waits for a client to end its side.
const READ_BYTES: usize = 16 * 1024;
const PACE: Duration = Duration::from_millis(60);

const LINES: usize = 1000;

fn line() -> String {
    format!(r#"{{"method":"m","params":"{}"}}"#, "x".repeat(970))
}

/// A server that says much, all at once, and then exits.
fn server() -> Vec<String> {
    let code = format!("yes '{}' | head -n {LINES}", line());
    ["sh", "-c", &code].map(str::to_owned).into()
}

/// Reads at its pace, with a heartbeat before each read. Returns how much there was until the end.
fn read_slowly(mut stream: TcpStream) -> usize {
    let mut buffer = vec![0; READ_BYTES];
    let mut total = 0;
    loop {
        // The other side may have ended altogether, once it has sent everything.
        let _ = stream.write_all(b"{\"type\":\"heartbeat\"}\n");
        match stream.read(&mut buffer) {
            Ok(0) => return total,
            Ok(count) => total += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("after {total} bytes: {error}"),
        }
        thread::sleep(PACE);
    }
}

#[test]
fn a_slow_client_gets_everything_after_the_end_of_its_session_although_it_sends_heartbeats() {
    crate::common::skip_on_reference!("cuts it off");
    let proxy = Proxy::start(&["--no-auto-restart"], &server());
    let client = Client::connect_with_receive_buffer(proxy.address(), RECEIVE_BUFFER);
    let began = Instant::now();
    let total = read_slowly(client.writer());
    assert_eq!(total, LINES * (line().len() + 1));
    assert!(began.elapsed() > Duration::from_secs(2), "it was slow");
    let closed = proxy.wait_for_log(" closed: ");
    let sent = format!("{LINES} messages ({total} bytes) to the client");
    assert!(closed.ends_with(&sent), "{closed}");
}
