//! From kill -9 of a session's server to the response to the next request, replayed handshake included.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::processes::{send_signal, wait_until_quiet};
use crate::common::{Client, DEADLINE, Proxy, eventually};
use crate::{Times, ms, ratio, subjects};

/// A server that has been up for longer is restarted at once.
const COOLDOWN: Duration = Duration::from_millis(1100);

pub(crate) fn measure() {
    for (name, command, rounds) in subjects() {
        let with = measure_one(name, &command, rounds, 1);
        let without = measure_one(name, &command, rounds, 0);
        println!(
            "{name}: with the pool {:.1} × faster than without",
            ratio(without, with)
        );
    }
}

/// Returns the median.
fn measure_one(name: &str, command: &[String], rounds: usize, pool: usize) -> Duration {
    let proxy = Proxy::start(&["--prespawn", &pool.to_string()], command);
    let times = (0..rounds).map(|_| {
        // A new session for each: the second restart of one would wait for its cooldown.
        let mut client = proxy.connect();
        client.initialize();
        let server = server_of(&proxy, &client);
        // Not a wait for an event: what is measured is servers that have been up for a while.
        std::thread::sleep(COOLDOWN);
        eventually("the pool to be full", DEADLINE, || {
            proxy.servers().len() == pool + 1
        });
        wait_until_quiet(&proxy.servers());
        let time = recovery(&mut client, server);
        client.close();
        eventually("the server to be gone", DEADLINE, || {
            proxy.servers().len() == pool
        });
        time
    });
    let times = Times::new(times.collect());
    println!(
        "{name}, --prespawn {pool}: kill -9 to next response p50 {}, worst {} ({rounds} rounds)",
        ms(times.median()),
        ms(times.at(100))
    );
    times.median()
}

fn server_of(proxy: &Proxy, client: &Client) -> i32 {
    let start = format!("({}, pid ", client.local_address());
    let line = proxy.wait_for_log(&start);
    let (_, pid) = line.split_once(&start).expect("the line has it");
    let digits = pid.split(')').next().expect("there is a first part");
    digits.parse().expect("it is a pid")
}

/// The time from the kill to the first result. A request written before the death was noticed gets an error; then the
/// next one counts.
fn recovery(client: &mut Client, server: i32) -> Duration {
    let begin = Instant::now();
    send_signal(server, Signal::SIGKILL);
    loop {
        if client.request("ping", &json!({})).get("result").is_some() {
            return begin.elapsed();
        }
    }
}
