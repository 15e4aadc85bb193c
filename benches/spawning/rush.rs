//! The round trip of an open session while many clients connect at once.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::end_to_end::processes::sessions_that_fit;
use crate::common::end_to_end::{Client, Proxy, servers};
use crate::common::generator::{Load, Target};
use crate::ms;

const CLIENTS: usize = 500;

/// Requests that the open session sends a second. What stands still is seen by all that are due meanwhile.
const RATE: u32 = 2000;

/// How long that goes on before the rush, in which nothing counts.
const WARM_UP: Duration = Duration::from_millis(500);

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
    let target = Target::Address(proxy.address());
    let load = Load::of_era("legacy").with("--rate", RATE);
    let quiet = load.clone().lasting(2 * WARM_UP, WARM_UP).run(&target);
    let quiet = quiet.expect("the session is served");
    let beside = load.lasting(PATIENCE, WARM_UP).start(&target);
    let beside = beside.expect("it starts");
    std::thread::sleep(WARM_UP);
    let begin = Instant::now();
    let mut rushing: Vec<Client> = (0..clients).map(|_| proxy.connect()).collect();
    for client in &mut rushing {
        client.send_request("ping", &json!({}));
    }
    for client in &mut rushing {
        client.recv_json_within(PATIENCE);
    }
    let rush = begin.elapsed();
    let during = beside.finish().expect("the session is served");
    let times = |report: &crate::common::generator::Report| {
        ["p50", "p99", "max"].map(|name| {
            let micros = report.latency(name).unwrap_or_default();
            ms(Duration::from_secs_f64(micros / 1e6))
        })
    };
    let ([p50, p99, worst], [quiet_p50, quiet_p99, _]) = (times(&during), times(&quiet));
    println!(
        "{clients} clients connect at once [{}]: all served after {}; round trip of an open session p50 {p50}, p99 {p99}, \
         worst {worst} ({} of them), otherwise p50 {quiet_p50}, p99 {quiet_p99}",
        options.join(" "),
        ms(rush),
        during.requests(),
    );
}
