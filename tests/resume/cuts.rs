//! A relay that cuts the connection of `connect`, over and over, while the host goes on calling: nothing is lost, said twice
//! or out of order, and it is one server all the time.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::connect::request;
use crate::common::servers::sh;
use crate::common::{Connect, Proxy, Random};

/// How often the connection is cut, if that does not take too long.
const CUTS: usize = 1000;

/// After this time no more cuts are made.
const TIME: Duration = Duration::from_secs(15);

/// The least that have to be made, also on a slow machine.
const LEAST_CUTS: usize = 10;

/// Requests under way at the same time.
const WINDOW: u64 = 20;

struct Relay {
    to: SocketAddr,
    cuts: AtomicUsize,
    calm: AtomicBool,
    max_bytes: u64,
}

impl Relay {
    /// Between connections and that address. It is calm at first.
    pub(super) fn start(
        to: SocketAddr,
        max_bytes: u64,
        mut random: Random,
    ) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let relay = Arc::new(Self {
            to,
            cuts: AtomicUsize::new(0),
            calm: AtomicBool::new(true),
            max_bytes,
        });
        let it = Arc::clone(&relay);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(client), Ok(server)) = (stream, TcpStream::connect(it.to)) else {
                    return;
                };
                let limits = [random.below(it.max_bytes), random.below(it.max_bytes)];
                let [is_cut, is_secret] = [(), ()].map(|()| Arc::new(AtomicBool::new(false)));
                for (is_from_client, limit) in [(true, limits[0]), (false, limits[1])] {
                    let pair = Pair {
                        client: client.try_clone().unwrap(),
                        server: server.try_clone().unwrap(),
                        is_cut: Arc::clone(&is_cut),
                        is_secret: Arc::clone(&is_secret),
                    };
                    let it = Arc::clone(&it);
                    thread::spawn(move || it.pass(pair, is_from_client, limit));
                }
            }
        });
        (relay, address)
    }

    /// Passes one direction on, and cuts both of them after so many bytes. Now the proxy notices it first, now only the
    /// client.
    fn pass(&self, mut pair: Pair, is_from_client: bool, mut limit: u64) {
        let mut buffer = [0; 4096];
        loop {
            let from = pair.from(is_from_client);
            let Ok(count @ 1..) = from.read(&mut buffer) else {
                break;
            };
            let is_calm = self.calm.load(Ordering::Relaxed);
            let rest = usize::try_from(limit).unwrap();
            let allowed = if is_calm { count } else { count.min(rest) };
            if !pair.is_cut.load(Ordering::Relaxed) {
                let _ = pair.from(!is_from_client).write_all(&buffer[..allowed]);
            }
            limit = limit.saturating_sub(count as u64);
            if allowed < count && !pair.is_cut.swap(true, Ordering::Relaxed) {
                let cuts = self.cuts.fetch_add(1, Ordering::Relaxed);
                let _ = if cuts.is_multiple_of(2) {
                    pair.server.shutdown(Shutdown::Write)
                } else {
                    pair.is_secret.store(true, Ordering::Relaxed);
                    pair.client.shutdown(Shutdown::Both)
                };
            }
        }
        if !is_from_client {
            let _ = pair.client.shutdown(Shutdown::Both);
        } else if !pair.is_secret.load(Ordering::Relaxed) {
            let _ = pair.server.shutdown(Shutdown::Write);
        }
    }
}

struct Pair {
    client: TcpStream,
    server: TcpStream,
    is_cut: Arc<AtomicBool>,
    /// Whether the proxy is not to notice it.
    is_secret: Arc<AtomicBool>,
}

impl Pair {
    fn from(&mut self, is_client: bool) -> &mut TcpStream {
        if is_client {
            &mut self.client
        } else {
            &mut self.server
        }
    }
}

/// It answers each request with its own process, and what was asked.
fn server() -> Vec<String> {
    sh(
        r#"while read -r line; do id=${line#*'"id":'}; id=${id%%,*}; text=${line#*'"params":'}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"pid\":$$,\"echo\":${text%?}}}"; done"#,
    )
}

fn run(max_bytes: u64, max_length: u64, options: &[&str]) {
    let proxy = Proxy::start(&[], &server());
    let mut random = Random::seeded();
    let of_relay = random.fork();
    let (relay, address) = Relay::start(proxy.address(), max_bytes, of_relay);
    let mut all = vec!["--reconnect-delay", "0.02"];
    all.extend(options);
    let mut connect = Connect::start(&all, address);
    let params = |id: u64, length: u64| json!({"n": id, "x": "y".repeat(length as usize)});
    let mut expected = std::collections::VecDeque::new();
    let mut send = |connect: &mut Connect, id: u64| {
        let params = params(id, random.below(max_length));
        connect.send_line(&request(id, "m", &params));
        params
    };
    let mut next = 1;
    let mut pid = None;
    let start = Instant::now();
    loop {
        let cuts = relay.cuts.load(Ordering::Relaxed);
        let is_over = cuts >= CUTS || (start.elapsed() > TIME && cuts >= LEAST_CUTS);
        if is_over {
            relay.calm.store(true, Ordering::Relaxed);
        }
        while !is_over && expected.len() < WINDOW as usize {
            let params = send(&mut connect, next);
            expected.push_back((next, params));
            next += 1;
        }
        let Some((id, params)) = expected.pop_front() else {
            break;
        };
        let answer = connect.recv_json();
        assert_eq!(answer["id"], id, "{answer}");
        assert_eq!(answer["result"]["echo"], params, "{answer}");
        assert_eq!(
            *pid.get_or_insert(answer["result"]["pid"].clone()),
            answer["result"]["pid"]
        );
        // The session was granted what it had asked for.
        relay.calm.store(is_over, Ordering::Relaxed);
    }
    connect.end_input();
    assert_eq!(connect.read_to_end(), [""; 0]);
    connect.wait_exit(0);
    eprintln!("{} cuts", relay.cuts.load(Ordering::Relaxed));
}

#[test]
fn short_lines_are_neither_lost_nor_doubled_nor_out_of_order() {
    run(3000, 200, &[]);
}

#[test]
fn long_lines_are_neither_lost_nor_doubled_nor_out_of_order() {
    run(300_000, 60_000, &[]);
}
