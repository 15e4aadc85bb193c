//! From kill -9 of a session's server to the response to the next request, replayed handshake included. For comparison, the
//! time that the server takes to start and respond twice without any proxy: the floor.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::common::end_to_end::processes::{send_signal, wait_until_quiet};
use crate::common::end_to_end::{Client, DEADLINE, Proxy, eventually};
use crate::common::generator::{Load, Target};
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
        bare_start(name, &command, rounds);
    }
}

/// Returns the median.
fn measure_one(name: &str, command: &[String], rounds: usize, pool: usize) -> Duration {
    let proxy = Proxy::start(&["--prespawn", &pool.to_string()], command);
    // A session for each round: the second restart of one would wait for its cooldown.
    let mut sessions: Vec<(Client, i32)> = (0..rounds).map(|_| open(&proxy)).collect();
    // Not a wait for an event: what is measured is servers that have been up for a while.
    std::thread::sleep(COOLDOWN);
    let times = sessions.iter_mut().map(|(client, server)| {
        eventually("the pool to be full", DEADLINE, || {
            proxy.servers().len() == pool + rounds
        });
        wait_until_quiet(&proxy.servers());
        recovery(client, *server)
    });
    let times = Times::new(times.collect());
    println!(
        "{name}, --prespawn {pool}: kill -9 to next response p50 {}, worst {} ({rounds} rounds)",
        ms(times.median()),
        ms(times.at(100))
    );
    times.median()
}

/// A session after its handshake, with the pid of its server.
fn open(proxy: &Proxy) -> (Client, i32) {
    let mut client = proxy.connect();
    client.initialize();
    let start = format!("{} pid ", client.local_address());
    let line = proxy.wait_for_log(&start);
    let (_, pid) = line.split_once(&start).expect("the line has it");
    let digits = pid.split(']').next().expect("there is a first part");
    (client, digits.parse().expect("it is a pid"))
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

/// From the start of a server to its responses to `initialize` and to a ping.
fn bare_start(name: &str, command: &[String], rounds: usize) {
    let load = Load::of_era("legacy")
        .with_switch("--churn")
        .with("--requests", rounds)
        .with("--warm-up", 0);
    let report = load.run(&Target::Command(command.to_vec()));
    let report = report.expect("the server responds");
    let time = |what| {
        let micros = report.latency(what).expect("there are samples");
        ms(Duration::from_secs_f64(micros / 1e6))
    };
    println!(
        "{name}: its own start and two responses over pipes p50 {}, worst {} ({rounds} rounds)",
        time("p50"),
        time("max")
    );
}
