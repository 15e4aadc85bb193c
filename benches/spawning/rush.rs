//! The round trip of an open session while many clients connect at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::processes::sessions_that_fit;
use crate::common::{Client, Proxy, servers};
use crate::{Times, ms, round_trip};

const CLIENTS: usize = 500;
const REQUESTS: usize = 2000;

/// More than the whole rush takes.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn measure() {
    let clients = sessions_that_fit(CLIENTS);
    for options in [
        &[][..],
        &["--max-starting", "4"],
        &["--max-starting", "100000"],
        &["--spawn", "lazy"],
    ] {
        measure_one(options, clients);
    }
}

fn measure_one(options: &[&str], clients: usize) {
    let proxy = Proxy::start(options, &servers::demo());
    let mut open = proxy.connect();
    open.initialize();
    let quiet = Times::new((0..REQUESTS).map(|_| round_trip(&mut open)).collect());
    let rush_is_over = AtomicBool::new(false);
    let (times, rush) = thread::scope(|scope| {
        let pinging = scope.spawn(|| {
            let mut times = Vec::new();
            while !rush_is_over.load(Ordering::Relaxed) {
                times.push(round_trip(&mut open));
            }
            times
        });
        let begin = Instant::now();
        let mut rushing: Vec<Client> = (0..clients).map(|_| proxy.connect()).collect();
        for client in &mut rushing {
            client.send_request("ping", &serde_json::json!({}));
        }
        for client in &mut rushing {
            client.recv_json_within(PATIENCE);
        }
        let rush = begin.elapsed();
        rush_is_over.store(true, Ordering::Relaxed);
        (pinging.join().expect("the session is served"), rush)
    });
    let count = times.len();
    let times = Times::new(times);
    println!(
        "{clients} clients connect at once [{}]: all served after {}; round trip of an open session p50 {}, p99 {}, \
         worst {} ({count} of them), otherwise p50 {}, p99 {}",
        options.join(" "),
        ms(rush),
        ms(times.median()),
        ms(times.at(99)),
        ms(times.at(100)),
        ms(quiet.median()),
        ms(quiet.at(99)),
    );
}
