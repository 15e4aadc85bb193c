//! From the connection of a client to the response to its `initialize`; for comparison, the round trip of an open session
//! that has been idle for as long, so that nothing is in a cache and the processors sleep.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::end_to_end::processes::wait_until_quiet;
use crate::common::end_to_end::{DEADLINE, Proxy, eventually};
use crate::{Times, ms, ratio, round_trip, subjects};

const POOL: usize = 3;
/// How long nothing happens before each of the two.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn measure() {
    for (name, command, rounds) in subjects() {
        let with = measure_one(name, &command, rounds, POOL);
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
    let mut open = proxy.connect();
    open.initialize();
    let (mut round_trips, mut first_answers) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        // What is measured is servers that have started up: that is what the pool is for.
        eventually("the pool to be full", DEADLINE, || {
            proxy.servers().len() == pool + 1
        });
        wait_until_quiet(&proxy.servers());
        thread::sleep(PAUSE);
        round_trips.push(round_trip(&mut open));
        thread::sleep(PAUSE);
        let begin = Instant::now();
        let mut client = proxy.connect();
        client.initialize();
        first_answers.push(begin.elapsed());
    }
    let (round_trips, first_answers) = (Times::new(round_trips), Times::new(first_answers));
    let (median, floor) = (first_answers.median(), round_trips.median());
    println!(
        "{name}, --prespawn {pool}: first response p50 {}, worst {} ({rounds} rounds); {:.1} × the round trip of an open \
         session, p50 {}",
        ms(median),
        ms(first_answers.at(100)),
        ratio(median, floor),
        ms(floor)
    );
    median
}
