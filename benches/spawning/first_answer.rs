//! From the connection of a client to the answer to its `initialize`.

use std::time::{Duration, Instant};

use crate::common::processes::wait_until_quiet;
use crate::common::{DEADLINE, Proxy, eventually};
use crate::{Times, ms, ratio, round_trip, subjects};

const POOL: usize = 3;
const REQUESTS: usize = 1000;

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
    (0..REQUESTS / 10).for_each(|_| drop(round_trip(&mut open)));
    let round_trips = Times::new((0..REQUESTS).map(|_| round_trip(&mut open)).collect());
    let first_answers = (0..rounds).map(|_| {
        // Servers that wait have started up; that is what they are for.
        eventually("the pool to be full", DEADLINE, || {
            proxy.servers().len() == pool + 1
        });
        wait_until_quiet(&proxy.servers());
        let begin = Instant::now();
        let mut client = proxy.connect();
        client.initialize();
        begin.elapsed()
    });
    let first_answers = Times::new(first_answers.collect());
    let (median, floor) = (first_answers.median(), round_trips.median());
    println!(
        "{name}, --prespawn {pool}: first answer p50 {}, worst {} ({rounds} rounds); {:.1} × the round trip of an open \
         session, p50 {}",
        ms(median),
        ms(first_answers.at(100)),
        ratio(median, floor),
        ms(floor)
    );
    median
}
